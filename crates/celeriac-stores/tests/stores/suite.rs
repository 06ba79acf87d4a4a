//! Holds the suite itself to its word.

use celeriac_core::store::Capabilities;
use std::path::Path;

#[test]
fn every_clause_is_run() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let list = std::fs::read_to_string(source.join("conformance.rs")).unwrap();
    let mut clauses = 0;
    for entry in std::fs::read_dir(source.join("conformance")).unwrap() {
        let path = entry.unwrap().path();
        let theme = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let Some(start) = list.find(&format!(", {theme} {{")) else {
            assert_eq!(theme, "fixture", "a theme that is not in the list");
            continue;
        };
        let listed: Vec<&str> =
            list[start..].split("});").next().unwrap().lines().skip(1).map(str::trim).collect();
        for line in text.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
            let name = line.split('(').next().unwrap();
            assert!(listed.contains(&name), "{theme}::{name} is in no store's tests");
            clauses += 1;
        }
    }
    assert!(clauses > 90, "{clauses}");
}

#[test]
fn the_embedded_stores_skip_nothing() {
    // The harnesses name no lacking capability, and a clause that skips without one fails.
    let embedded = |shared| Capabilities {
        shared_between_processes: shared,
        durable: shared,
        atomic_settle: true,
        chords: true,
        exchanges: false,
        fanout_queues: false,
        results_expire_alone: false,
    };
    assert_eq!(super::memory::harness().store().store.capabilities(), embedded(false));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    assert_eq!(super::sqlite::harness().store().store.capabilities(), embedded(true));
}
