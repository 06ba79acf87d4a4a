//! Sizes and left-overs of the source.

use super::{files, root};

/// The longest file, and the longest function, in lines.
const FILE_MAX: usize = 800;
const FUNCTION_MAX: usize = 100;
/// The longest line, in characters; rustfmt does not break texts, so lines with one are exempt.
const LINE_MAX: usize = 110;
/// What must not be left in source; written apart so that this file passes.
const LEFT_OVERS: [&str; 4] =
    [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("#[", "ignore"), concat!("dbg", "!(")];

#[test]
fn files_functions_and_lines_are_short() {
    let mut faults = Vec::new();
    for path in files(&root().join("crates"), ".rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_MAX {
            faults.push(format!("{shown} has {} lines, at most {FILE_MAX}", lines.len()));
        }
        for (index, line) in lines.iter().enumerate() {
            if line.chars().count() > LINE_MAX && !line.contains('"') {
                faults.push(format!("{shown}:{}: more than {LINE_MAX} columns", index + 1));
            }
            for word in LEFT_OVERS {
                if line.contains(word) {
                    faults.push(format!("{shown}:{}: {word}", index + 1));
                }
            }
        }
        faults.extend(long_functions(&lines, &shown));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A function runs from its `fn` line to the first closing brace at the same indent.
fn long_functions(lines: &[&str], shown: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = [
            "fn ",
            "pub fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) async fn ",
            "pub(super) async fn ",
        ]
        .iter()
        .any(|start| code.starts_with(start));
        if !is_function || line.trim_end().ends_with([';', '}']) {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let close = format!("{indent}}}");
        let length = lines[start..].iter().position(|line| **line == close).unwrap_or(0);
        if length > FUNCTION_MAX {
            faults.push(format!("{shown}:{}: a function of {length} lines", start + 1));
        }
    }
    faults
}

/// A test file that no `mod` names would never run.
#[test]
fn no_source_file_is_forgotten() {
    for path in files(&root().join("crates"), ".rs") {
        let folder = path.parent().unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let folder_name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let is_root = ["lib", "main", "mod", "build"].contains(&name.as_str())
            || ["tests", "examples", "benches", "ui"].contains(&folder_name.as_str());
        if is_root {
            continue;
        }
        let near = [
            folder.join("lib.rs"),
            folder.join("main.rs"),
            folder.join("mod.rs"),
            folder.with_extension("rs"),
        ];
        let named = near.iter().filter_map(|file| std::fs::read_to_string(file).ok()).any(|text| {
            text.lines().any(|line| line.trim_end().ends_with(&format!("mod {name};")))
        });
        assert!(named, "{} is in no `mod` line", path.display());
    }
}
