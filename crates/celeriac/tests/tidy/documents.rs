//! Documents: one heading, links that resolve, commands that exist.

use super::{files, root};

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
