//! `docs/reference/compatibility.md`: what works with which Celery, from markers in tests.
//!
//! `docs/compatibility.tsv` lists the features. A line `// interop: results.get results.forget` inside a
//! test that talks to a real Celery says that it shows them; after the ids may stand a way (`in`: from
//! Celery to us, `out`: from us to Celery) and versions, where it shows less than the test could. A
//! feature without a marker is "not yet", and "no" where the list gives a reason.

use super::{check_page, files, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// The versions of the lanes, and the one of tests that name none.
const VERSIONS: [&str; 3] = ["5.4", "5.6", "5.7"];
const WAYS: [(&str, &str); 2] = [("in", "Celery → celeriac"), ("out", "celeriac → Celery")];

/// One feature, one way, with one version.
type Cell = (String, &'static str, &'static str);

/// One line of the list.
struct Feature {
    id: String,
    section: String,
    ways: Vec<&'static str>,
    text: String,
    /// The cells that are "no", and why.
    refused: BTreeSet<Cell>,
    reason: String,
}

fn features() -> Vec<Feature> {
    let text = std::fs::read_to_string(root().join("docs/compatibility.tsv")).unwrap();
    text.lines().skip(1).map(feature).collect()
}

fn feature(line: &str) -> Feature {
    let cells: Vec<&str> = line.split('\t').collect();
    let [id, section, ways, text, no, reason] = cells[..] else { panic!("not six cells: {line}") };
    let all = WAYS.map(|(way, _)| way);
    let ways: Vec<_> = all.into_iter().filter(|way| ways == "both" || ways == *way).collect();
    assert!(!ways.is_empty(), "no way: {line}");
    assert_eq!(no.is_empty(), reason.is_empty(), "a `no` and its reason belong together: {line}");
    let scope = Scope::of(no, line);
    let refused = if no.is_empty() { BTreeSet::new() } else { scope.cells(id, &ways, &VERSIONS) };
    let own = str::to_owned;
    Feature {
        id: own(id),
        section: own(section),
        ways,
        text: own(text),
        refused,
        reason: own(reason),
    }
}

/// Ways and versions among the words of a marker; none of a kind is all of them.
struct Scope {
    ids: Vec<String>,
    ways: Vec<&'static str>,
    versions: Vec<&'static str>,
}

impl Scope {
    fn of(words: &str, place: &str) -> Self {
        let mut scope = Self { ids: Vec::new(), ways: Vec::new(), versions: Vec::new() };
        for word in words.split_whitespace() {
            if let Some((way, _)) = WAYS.iter().find(|(way, _)| *way == word) {
                scope.ways.push(way);
            } else if word.starts_with(|first: char| first.is_ascii_digit()) {
                let version = VERSIONS.iter().find(|version| **version == word);
                scope.versions.push(version.unwrap_or_else(|| panic!("{place}: no lane {word}")));
            } else {
                scope.ids.push(word.to_owned());
            }
        }
        scope
    }

    fn cells(&self, id: &str, ways: &[&'static str], versions: &[&'static str]) -> BTreeSet<Cell> {
        let own = |all: &[&'static str], named: &[&'static str]| -> Vec<&'static str> {
            let wanted = |one: &&&'static str| named.is_empty() || named.contains(*one);
            all.iter().filter(wanted).copied().collect()
        };
        let versions = own(versions, &self.versions);
        let ways = own(ways, &self.ways).into_iter();
        ways.flat_map(|way| versions.iter().map(move |version| (id.to_owned(), way, *version)))
            .collect()
    }
}

/// A function that is a test against real Celery.
struct Proof {
    name: String,
    versions: Vec<&'static str>,
}

/// Which test the line stands in, and which versions of Celery it talks to.
fn proof(path: &Path, lines: &[&str], index: usize) -> Option<Proof> {
    let at = (0..=index).rev().find(|at| {
        let code = lines[*at].trim_start();
        code.starts_with("async fn ") || code.starts_with("fn ")
    })?;
    let name = lines[at].split("fn ").nth(1)?.split(['(', '<']).next()?.to_owned();
    let end = lines[at..].iter().position(|line| *line == "}").map_or(lines.len(), |end| at + end);
    let body = &lines[at..end];
    let text = lines.join(" ");
    let is_scene = text
        .split("lanes!(")
        .skip(1)
        .filter_map(|scenes| scenes.split(')').next())
        .any(|scenes| scenes.split(',').any(|scene| scene.trim() == name));
    let is_test = lines[at.saturating_sub(3)..at].iter().any(|line| line.contains("::test"));
    let versions: Vec<_> = match () {
        () if is_scene && lines[at].contains("Lane") => VERSIONS.to_vec(),
        () if is_test => VERSIONS
            .into_iter()
            .filter(|version| {
                let given = format!("celery_or_skip!(\"{version}\")");
                let default = *version == VERSIONS[2];
                body.iter().any(|line| {
                    line.contains(&given) || default && line.contains("celery_or_skip!()")
                })
            })
            .collect(),
        () => Vec::new(),
    };
    let path = path.strip_prefix(root().join("crates")).unwrap().with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    let modules = parts.iter().skip(2).filter(|part| *part != "mod");
    let mut names: Vec<_> = modules.map(ToString::to_string).collect();
    names.push(name);
    let binary = names.remove(0);
    Some(Proof { name: format!("`{binary} {}`", names.join("::")), versions })
        .filter(|proof| !proof.versions.is_empty())
}

/// The tests that show each cell.
fn markers(features: &[Feature]) -> BTreeMap<Cell, BTreeSet<String>> {
    let marker = concat!("// inter", "op:");
    let mut shown: BTreeMap<Cell, BTreeSet<String>> = BTreeMap::new();
    for path in files(&root().join("crates"), ".rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let Some(words) = line.trim_start().strip_prefix(marker) else { continue };
            let place = format!("{}:{}", path.display(), index + 1);
            let proof = proof(&path, &lines, index).unwrap_or_else(|| {
                panic!("{place}: the marker stands in no test with real Celery")
            });
            let scope = Scope::of(words, &place);
            for id in &scope.ids {
                let feature = features.iter().find(|one| one.id == *id);
                let feature = feature.unwrap_or_else(|| panic!("{place}: {id} is no feature"));
                let cells = scope.cells(id, &feature.ways, &proof.versions);
                assert!(!cells.is_empty(), "{place}: {id} is not shown by this test");
                for cell in cells {
                    assert!(!feature.refused.contains(&cell), "{place}: {cell:?} is said to be no");
                    shown.entry(cell).or_default().insert(proof.name.clone());
                }
            }
        }
    }
    shown
}

#[test]
fn the_page_of_the_compatibility_is_true() {
    let features = features();
    let ids: BTreeSet<_> = features.iter().map(|one| &one.id).collect();
    assert_eq!(ids.len(), features.len(), "an id stands twice");
    let shown = markers(&features);
    let (mut tables, mut counts, mut section) = (String::new(), [0; 3], "");
    for feature in &features {
        if feature.section != section {
            section = &feature.section;
            let head = "| feature | way | 5.4 | 5.6 | 5.7 | proof |\n|---|---|---|---|---|---|";
            let _infallible = writeln!(tables, "\n## {section}\n\n{head}");
        }
        for (way, words) in WAYS.into_iter().filter(|(way, _)| feature.ways.contains(way)) {
            tables.push_str(&row(feature, way, words, &shown, &mut counts));
        }
    }
    let [yes, no, open] = counts;
    let page = format!(
        "# Compatibility with Celery\n\n\
         Written by a test from markers in the tests; `docs/compatibility.tsv` lists the features by the \
         sections of Celery's protocol.\n\
         *yes*: the tests that are named show it with a real Celery of that version on the other side; \
         *no* has a reason; *not yet* is open.\n\
         Each version of Celery has the kombu and redis-py of its time.\n\
         What a whole Celery app does under both workers, in two columns: [semantics](semantics.md).\n\n\
         {yes} yes, {no} no, {open} not yet.\n{tables}"
    );
    check_page(&root().join("docs/reference/compatibility.md"), &page);
}

fn row(
    feature: &Feature,
    way: &'static str,
    words: &str,
    shown: &BTreeMap<Cell, BTreeSet<String>>,
    counts: &mut [usize; 3],
) -> String {
    let mut proofs: BTreeSet<&str> = BTreeSet::new();
    let mut verdicts = Vec::new();
    for version in VERSIONS {
        let cell = (feature.id.clone(), way, version);
        let verdict = match shown.get(&cell) {
            Some(tests) => {
                proofs.extend(tests.iter().map(String::as_str));
                0
            }
            None if feature.refused.contains(&cell) => {
                proofs.insert(&feature.reason);
                1
            }
            None => 2,
        };
        counts[verdict] += 1;
        verdicts.push(["yes", "no", "not yet"][verdict]);
    }
    let (verdicts, proofs) = (verdicts.join(" | "), Vec::from_iter(proofs).join("<br>"));
    format!("| {} | {words} | {verdicts} | {proofs} |\n", feature.text)
}
