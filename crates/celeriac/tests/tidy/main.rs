//! Keeps the house in order: arrows between crates, sizes, documents, requirements.

#![expect(clippy::unwrap_used, reason = "a test may panic, and says where")]

mod arrows;
mod compatibility;
mod doctor;
mod documents;
mod requirements;
mod sizes;

use std::path::{Path, PathBuf};

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All files under a folder with an ending, sorted; build output and hidden folders left out.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" || name == "testdata" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Compares a page that the program writes with the one that is committed; `UPDATE=1` writes it.
fn check_page(path: &Path, page: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, page).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let shown = path.display();
    assert!(committed == page, "{shown} is out of date: UPDATE=1 cargo tidy, read it, commit it");
}
