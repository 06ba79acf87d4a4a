//! Which crate may import which, and the toolchain that builds them.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::BTreeMap;

/// The allowed arrows of `ARCHITECTURE.md`, normal dependencies only.
const ARROWS: [(&str, &[&str]); 8] = [
    ("celeriac-wire", &[]),
    ("celeriac-macros", &[]),
    ("celeriac-core", &["celeriac-wire"]),
    ("celeriac-stores", &["celeriac-core", "celeriac-wire"]),
    ("celeriac-runtime", &["celeriac-core", "celeriac-wire"]),
    ("celeriac-web", &["celeriac-core", "celeriac-wire"]),
    // Only tests depend on it, so nothing may name it among its normal dependencies.
    (
        "celeriac-testkit",
        &["celeriac-core", "celeriac-runtime", "celeriac-stores", "celeriac-wire"],
    ),
    (
        "celeriac",
        &[
            "celeriac-core",
            "celeriac-macros",
            "celeriac-runtime",
            "celeriac-stores",
            "celeriac-web",
            "celeriac-wire",
        ],
    ),
];
/// What the lowest crates must never pull in.
const NO_RUNTIME: [&str; 2] = ["celeriac-wire", "celeriac-core"];
/// The most packages in the lock file. 22 of them are for the feature `otel` and its test, 31 for `auth`
/// (RSA, X.509): no default build has them.
const PACKAGES_MAX: usize = 405;

/// The packages of this platform: others' need not be downloaded.
fn metadata() -> cargo_metadata::Metadata {
    let system = if cfg!(target_os = "macos") { "apple-darwin" } else { "unknown-linux-gnu" };
    let platform = format!("{}-{system}", std::env::consts::ARCH);
    let options = ["--locked".to_owned(), "--filter-platform".to_owned(), platform];
    MetadataCommand::new().current_dir(super::root()).other_options(options).exec().unwrap()
}

#[test]
fn crates_import_only_what_the_architecture_allows() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let allowed =
            allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the table of arrows"));
        for dependency in &package.dependencies {
            let ours = dependency.name.starts_with("celeriac");
            if ours && dependency.kind == DependencyKind::Normal {
                assert!(
                    allowed.contains(&dependency.name.as_str()),
                    "{name} must not depend on {}",
                    dependency.name
                );
            }
            assert!(
                !(NO_RUNTIME.contains(&name) && dependency.name == "tokio"),
                "{name} knows no async runtime"
            );
        }
    }
}

#[test]
fn the_lock_file_stays_small() {
    let lock = std::fs::read_to_string(super::root().join("Cargo.lock")).unwrap();
    let packages = lock.matches("[[package]]").count();
    assert!(packages <= PACKAGES_MAX, "{packages} packages are locked, at most {PACKAGES_MAX}");
}

/// The stated minimum is the toolchain that CI builds with, so that it is tested by every run.
#[test]
fn the_stated_rust_version_is_the_one_that_builds() {
    let built_with = env!("CARGO_PKG_RUST_VERSION");
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let stated = package.rust_version.as_ref().map(ToString::to_string).unwrap();
        assert!(stated.starts_with(built_with), "{} states {stated}", package.name);
    }
    let newest = metadata
        .packages
        .iter()
        .filter_map(|package| Some((package.rust_version.clone()?, package.name.clone())))
        .max()
        .unwrap();
    let ours = cargo_metadata::semver::Version::parse(&format!("{built_with}.0")).unwrap();
    assert!(newest.0 <= ours, "{} needs Rust {}, we state {built_with}", newest.1, newest.0);
}
