//! `docs/seeds.md`: each requirement of the seeds with the tests that cover it.
//!
//! A test covers a requirement when a comment with the marker and its id stands inside it. Tests are never
//! skipped in CI, so a covered requirement is one whose test ran.

use super::{check_page, files, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// One requirement of `docs/requirements.tsv`.
struct Requirement {
    id: String,
    quote: String,
}

fn requirements() -> Vec<Requirement> {
    let text = std::fs::read_to_string(root().join("docs/requirements.tsv")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            Requirement { id: cells.next().unwrap(), quote: cells.next().unwrap() }
        })
        .collect()
}

/// Which tests cover which id.
fn markers() -> BTreeMap<String, BTreeSet<String>> {
    let marker = concat!("// cov", "ers:");
    let mut covered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files(&root().join("crates"), ".rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let Some((_, ids)) = line.split_once(marker) else { continue };
            let function = enclosing_test(&lines, index)
                .unwrap_or_else(|| panic!("{shown}:{}: the marker stands in no test", index + 1));
            for id in ids.split([' ', ',']).filter(|id| !id.is_empty()) {
                covered.entry(id.to_owned()).or_default().insert(format!("`{shown}` {function}"));
            }
        }
    }
    covered
}

/// The function around a line, if it is a test or a clause of a suite.
fn enclosing_test(lines: &[&str], index: usize) -> Option<String> {
    let at = (0..=index).rev().find(|at| {
        let code = lines[*at].trim_start();
        code.contains("fn ") && !code.starts_with("//")
    })?;
    let name = lines[at].split("fn ").nth(1)?.split(['(', '<']).next()?.to_owned();
    let clause = lines[at].contains("Harness");
    let attributes = &lines[at.saturating_sub(8)..at];
    let is_test = attributes.iter().any(|line| line.contains("test"));
    (is_test || clause).then_some(name)
}

#[test]
fn the_page_of_the_seeds_is_true() {
    let (requirements, covered) = (requirements(), markers());
    assert_eq!(requirements.len(), 197);
    let tested = requirements.iter().filter(|one| covered.contains_key(&one.id)).count();
    let mut page = String::from("# The seeds' requirements\n\n");
    let _infallible = writeln!(
        page,
        "Written by a test from markers in tests; a requirement without a test is open.\n\
         A marker says that the test proves the requirement, or its part that exists today: \
         native tasks on SQLite.\n\n\
         {tested} of {} are covered so far.\n\n| id | requirement | covered by |\n|---|---|---|",
        requirements.len()
    );
    for one in &requirements {
        let tests = covered.get(&one.id).map_or_else(
            || "open".to_owned(),
            |tests| tests.iter().cloned().collect::<Vec<_>>().join("<br>"),
        );
        let quote = one.quote.replace("](", "] (");
        let _infallible = writeln!(page, "| {} | {quote} | {tests} |", one.id);
    }
    check_page(&root().join("docs/seeds.md"), &page);
}

#[test]
fn every_marker_names_a_requirement() {
    let known: BTreeSet<String> = requirements().into_iter().map(|one| one.id).collect();
    for (id, tests) in markers() {
        let trap = id.strip_prefix("T-").is_some_and(|number| {
            number.parse::<u32>().is_ok_and(|number| (1..=80).contains(&number))
        });
        assert!(trap || known.contains(&id), "{id} in {tests:?} is no requirement");
    }
}
