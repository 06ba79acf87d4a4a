//! The page about the wire names tests and files that exist.

use std::path::{Path, PathBuf};

/// Every file below a folder that ends so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_proof_on_the_page_of_the_wire_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/reference/wire.md")).expect("the page");
    let paths = files(&root.join("crates"), ".rs");
    let sources: Vec<String> =
        paths.iter().map(|path| std::fs::read_to_string(path).expect("a source")).collect();
    let spans: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let names = spans.iter().filter_map(|span| Some(span.rsplit_once("::")?.1));
    let tests: Vec<&str> = names.filter(|name| name.contains('_')).collect();
    assert!(tests.len() > 40, "{}", tests.len());
    for name in tests {
        let function = format!("fn {name}(");
        assert!(sources.iter().any(|source| source.contains(&function)), "no test {name}");
    }
    for (place, target) in page.match_indices(" [").map(|(place, _)| (place, &page[place + 2..])) {
        let name = target.split(']').next().unwrap_or_default();
        if page[place + 2 + name.len() + 1..].starts_with(" |") {
            let program = root.join(format!("fuzz/fuzz_targets/{name}.rs"));
            assert!(program.is_file(), "no fuzz target {name}");
        }
    }
}
