//! The Python half of the worker, `python/celeriac_child`, inside this program.

/// What Python is started with.
pub(super) const BOOT: &str = include_str!("../../python/boot.py");
/// What Python is started with to read what another scheduler has kept.
#[cfg(feature = "cli")]
pub(crate) const BOOT_IMPORT: &str = include_str!("../../python/boot_import.py");

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("celeriac_child/", $name), include_str!(concat!("../../python/", $name)))),*]
    };
}

/// The modules of the package.
pub(crate) const FILES: &[(&str, &str)] = files![
    "__init__.py",
    "additions.py",
    "app.py",
    "child.py",
    "chords.py",
    "coroutines.py",
    "describe.py",
    "desk.py",
    "doctor.py",
    "doctor_code.py",
    "doctor_files.py",
    "doctor_traps.py",
    "exits.py",
    "failures.py",
    "frames.py",
    "imports.py",
    "imports_apscheduler.py",
    "imports_celerybeat.py",
    "limits.py",
    "logs.py",
    "outcomes.py",
    "page.py",
    "refusals.py",
    "request.py",
    "results.py",
    "retries.py",
    "schedules.py",
    "serving.py",
    "shared.py",
    "sources.py",
    "steward.py",
    "template.py",
    "turn.py",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_is_inside() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/python");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("boot") && name != "__pycache__")
            .map(|name| format!("celeriac_child/{name}"))
            .collect();
        there.sort();
        let inside: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(inside, there);
    }
}
