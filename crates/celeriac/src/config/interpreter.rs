//! The Python that runs a Celery app, when nobody names one.

use std::path::{Path, PathBuf};

/// Where a Python is looked for, the first that has one wins.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// `VIRTUAL_ENV`.
    active: Option<PathBuf>,
    /// The current folder.
    folder: Option<PathBuf>,
    /// The file of this program.
    program: Option<PathBuf>,
    /// The folders of `PATH`.
    path: Vec<PathBuf>,
}

impl Places {
    /// Those of this process.
    pub(super) fn of_process() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self {
            active: std::env::var_os("VIRTUAL_ENV").map(PathBuf::from),
            folder: std::env::current_dir().ok(),
            program: std::env::current_exe().ok(),
            path: std::env::split_paths(&path).collect(),
        }
    }

    /// A Python, and the place that it was found by.
    pub(super) fn python(&self) -> Option<(PathBuf, &'static str)> {
        let in_environment = |folder: &Path| folder.join("bin").join("python");
        let active = self.active.as_deref().map(in_environment);
        let local = self.folder.as_ref().map(|folder| in_environment(&folder.join(".venv")));
        let beside = self.own_environment().map(in_environment);
        let on_path =
            self.path.iter().flat_map(|folder| [folder.join("python3"), folder.join("python")]);
        let named = |place| move |program| (program, place);
        active
            .map(named("VIRTUAL_ENV"))
            .into_iter()
            .chain(local.map(named(".venv")))
            .chain(beside.map(named("celeriac's own environment")))
            .chain(on_path.map(named("PATH")))
            .find(|(program, _)| program.is_file())
    }

    /// The virtual or conda environment that this program was installed into, if it is also the
    /// app's: `uv tool install` and `pipx` make one that holds celeriac and nothing else.
    fn own_environment(&self) -> Option<&Path> {
        let folder =
            self.program.as_ref()?.parent().filter(|bin| bin.ends_with("bin"))?.parent()?;
        let is_environment =
            folder.join("pyvenv.cfg").is_file() || folder.join("conda-meta").is_dir();
        (is_environment && has_celery(folder)).then_some(folder)
    }
}

/// Whether an environment has Celery among its packages, or those of the system beside them.
fn has_celery(environment: &Path) -> bool {
    let settings = std::fs::read_to_string(environment.join("pyvenv.cfg")).unwrap_or_default();
    let shares = settings.lines().filter_map(|line| line.split_once('=')).any(|(name, value)| {
        name.trim() == "include-system-site-packages" && value.trim().eq_ignore_ascii_case("true")
    });
    let versions = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    shares
        || versions
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python"))
            .any(|entry| entry.path().join("site-packages/celery/__init__.py").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: PathBuf, text: &str) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn found(places: &Places) -> Option<(String, &'static str)> {
        let (program, place) = places.python()?;
        let folder = program.parent()?.parent()?;
        Some((folder.file_name()?.to_string_lossy().into_owned(), place))
    }

    #[test]
    fn the_nearest_environment_is_the_apps() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in
            ["active/bin/python", "work/.venv/bin/python", "own/bin/python", "usr/bin/python3"]
        {
            write(at(name), "");
        }
        write(at("own/pyvenv.cfg"), "home = /usr/bin\ninclude-system-site-packages = false\n");
        write(at("own/lib/python3.11/site-packages/celery/__init__.py"), "");
        let mut places = Places {
            active: Some(at("active")),
            folder: Some(at("work")),
            program: Some(at("own/bin/celeriac")),
            path: vec![at("nothing"), at("usr/bin")],
        };
        let expect = |places: &Places, folder: &str, by| {
            assert_eq!(found(places), Some((folder.to_owned(), by)));
        };
        expect(&places, "active", "VIRTUAL_ENV");
        places.active = Some(at("gone"));
        expect(&places, ".venv", ".venv");
        places.folder = Some(at("nothing"));
        expect(&places, "own", "celeriac's own environment");
        // What `pipx` and `uv tool install` make: the app's packages are elsewhere.
        std::fs::remove_dir_all(at("own/lib")).unwrap();
        expect(&places, "usr", "PATH");
        write(at("own/pyvenv.cfg"), "include-system-site-packages = true\n");
        expect(&places, "own", "celeriac's own environment");
        // A program from elsewhere, such as `cargo install`, is in no environment.
        std::fs::remove_file(at("own/pyvenv.cfg")).unwrap();
        expect(&places, "usr", "PATH");
        places.path.clear();
        assert_eq!(found(&places), None);
    }
}
