//! Documents: one heading, links that resolve, commands that exist.

use super::{check_page, files, root};

#[test]
fn every_document_has_one_heading_and_links_that_resolve() {
    let mut faults = Vec::new();
    for path in files(&root(), ".md") {
        let text = std::fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        let mut in_code = false;
        let mut headings = 0;
        for line in text.lines() {
            if line.starts_with("```") {
                in_code = !in_code;
            }
            headings += usize::from(!in_code && line.starts_with("# "));
            if !in_code {
                faults.extend(
                    broken_links(&path, line).into_iter().map(|link| format!("{shown}: {link}")),
                );
            }
        }
        if headings != 1 {
            faults.push(format!("{shown} has {headings} first-level headings"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn broken_links(path: &std::path::Path, line: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for part in line.split("](").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        let file = target.split('#').next().unwrap_or_default();
        if file.is_empty() || file.contains("://") {
            continue;
        }
        if !path.parent().unwrap().join(file).exists() {
            broken.push(format!("link to {target}"));
        }
    }
    broken
}

/// README, CONTRIBUTING and CI name the same commands.
#[test]
fn the_commands_are_the_same_everywhere() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    for command in ["cargo run --release -- demo", "bash scripts/test.sh"] {
        for name in ["README.md", "CONTRIBUTING.md"] {
            assert!(read(name).contains(command), "{name} does not mention `{command}`");
        }
    }
    assert!(read(".ci/run").contains("scripts/test.sh"));
    for alias in ["cargo t", "cargo lint", "cargo tidy"] {
        assert!(read("CONTRIBUTING.md").contains(alias), "CONTRIBUTING.md lacks {alias}");
    }
}

/// Crates whose bounds an operator or developer may run into.
const BOUNDED: [&str; 5] =
    ["celeriac-core", "celeriac-runtime", "celeriac-stores", "celeriac-web", "celeriac-wire"];

/// Every queue, buffer, page and retry has a named bound, and every bound is on one page.
#[test]
fn the_page_of_the_bounds_is_true() {
    let mut page = String::from(
        "# Bounds\n\nWritten from the sources; a test keeps it true.\nWhat an operator sets \
         (sizes of messages and results, depths, dead letters, events, memory of children) is on \
         the page of the [settings](settings.md); here is every bound that is built in.\n",
    );
    for name in BOUNDED {
        let folder = root().join("crates").join(name).join("src");
        let mut rows = Vec::new();
        for path in files(&folder, ".rs") {
            let shown = path.strip_prefix(&folder).unwrap().display().to_string();
            if !shown.ends_with("tests.rs") {
                rows.extend(bounds(&std::fs::read_to_string(&path).unwrap(), &shown));
            }
        }
        page.push_str(
            &["\n## ", name, "\n\n| bound | value | where | what |\n|---|---|---|---|\n"].concat(),
        );
        rows.sort();
        page.push_str(&rows.concat());
    }
    check_page(&root().join("docs/reference/bounds.md"), &page);
}

/// A row for each constant named `…_MAX`, with the first paragraph of its documentation.
fn bounds(source: &str, shown: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().collect();
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((_, rest)) = line.split_once("const ") else { continue };
        let Some((name, rest)) = rest.split_once(':') else { continue };
        let value =
            rest.split_once('=').map_or("", |(_, value)| value).trim().trim_end_matches(';');
        let is_bound = name.ends_with("_MAX") && !line.trim_start().starts_with("//");
        if !is_bound || value.is_empty() {
            continue;
        }
        let docs: Vec<&str> = lines[..at]
            .iter()
            .rev()
            .map_while(|line| line.trim_start().strip_prefix("///"))
            .map(str::trim)
            .collect();
        let what: Vec<&str> = docs.into_iter().rev().take_while(|line| !line.is_empty()).collect();
        assert!(!what.is_empty(), "{shown}: {name} does not say what it bounds");
        // Links between items mean nothing on a page.
        let mut what = what.join(" ").replace("[`", "`").replace("`]", "`");
        while let Some((before, after)) = what.split_once("(crate::") {
            let rest = after.split_once(')').map_or("", |(_, rest)| rest);
            what = format!("{before}{rest}");
        }
        rows.push(format!("| `{name}` | `{value}` | `{shown}` | {what} |\n"));
    }
    rows
}

/// A test that the delivery contract names must exist, or the sentence has no proof.
#[test]
fn every_proof_of_the_delivery_contract_exists() {
    let text = std::fs::read_to_string(root().join("docs/delivery-contract.md")).unwrap();
    let sources: Vec<String> = files(&root().join("crates"), ".rs")
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let named = text.split('`').skip(1).step_by(2).filter(|name| {
        name.matches('_').count() > 2 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    });
    let missing: Vec<&str> = named
        .filter(|name| sources.iter().all(|source| !source.contains(&format!("fn {name}("))))
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
}

/// The API and the metrics are described by the code that serves them.
#[cfg(feature = "web")]
#[test]
fn the_pages_of_the_http_server_are_true() {
    let (routes, metrics) = celeriac_web::reference_page();
    let api = [
        "# HTTP API\n\n\
         Written by the program; a test keeps it true. `GET /api/v1/openapi.json` is the same for programs\n\
         (OpenAPI 3.1), with every field; [the guide](../guides/http.md) tells how to start it and \
         how to get a token.\n\n\
         Roles: a viewer looks; an operator may also send, cancel, retry, pause, limit, edit and replay;\n\
         an admin may also delete and control workers. Times are ISO 8601 with their offset, spans are \
         seconds.\n\
         Lists have a `limit`, and a `next` that is the `cursor` of the next page where there is one.\n\
         A request has 30 s, its body the setting `message_bytes_max` and 64 KiB.\n\n\
         Without a token: `GET /livez`, `/healthz`, `/readyz`, `/brokerz`, which answer 200 or 503, and the \
         document.\n\n",
        routes.as_str(),
    ];
    check_page(&root().join("docs/reference/http-api.md"), &api.concat());
    let page = [
        "# Metrics\n\n\
         Written by the program; a test keeps it true. `GET /metrics` of `celeriac serve` and\n\
         `celeriac worker --http`, OpenMetrics text.\n\n\
         Queues, dead letters and workers come from the store at the moment of the scrape, tasks from the\n\
         events of all workers, Celery's included (`-E`). Events are delivered at most once, and a server\n\
         counts what it hears from its start on, `worker --http` from the first scrape on. Each counts the\n\
         whole fleet: scrape one, and do not add them up. Workers are no labels; the names of the first 100\n\
         tasks heard of and of the 200 fullest queues are, the rest is `other`.\n\
         `queue_system` is always `celery` until the rollout layer counts the other one.\n\n\
         | name | type | labels | what |\n|---|---|---|---|\n",
        metrics.as_str(),
    ];
    check_page(&root().join("docs/reference/metrics.md"), &page.concat());
}
