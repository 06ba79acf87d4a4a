//! The servers and programs of others that tests talk to: a private [Redis](redis), and [real
//! Celery](python). A missing one is a printed skip at home, and a failure when `CI` is set.

pub mod python;
pub mod redis;
pub mod resp;
pub mod sentinel;

use std::path::PathBuf;

/// Says why a test is skipped.
///
/// # Panics
/// When `CI` is set: there, nothing may be missing.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    #[expect(clippy::print_stderr, reason = "a test says why it does nothing")]
    {
        eprintln!("skipped: {why}");
    }
}

/// A program on the `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A private Redis, or the end of the test where there is no `redis-server`.
///
/// ```no_run
/// use celeriac_testkit::services::redis::Redis;
/// # async fn example() {
/// let redis = celeriac_testkit::redis_or_skip!();
/// let durable = celeriac_testkit::redis_or_skip!(Redis::options().append_only());
/// # let _ = (redis, durable);
/// # }
/// ```
#[macro_export]
macro_rules! redis_or_skip {
    () => {
        $crate::redis_or_skip!($crate::services::redis::Redis::options())
    };
    ($options:expr) => {
        match $options.start_if_there().await {
            Some(redis) => redis,
            None => return,
        }
    };
}

/// A Python with Celery of a version (`"5.7"` when none is said), or the end of the test.
#[macro_export]
macro_rules! celery_or_skip {
    () => {
        $crate::celery_or_skip!("5.7")
    };
    ($version:expr) => {
        match $crate::services::python::Python::with_celery($version) {
            Some(python) => python,
            None => return,
        }
    };
}

/// A Python with libraries that people use with Celery of a version, or the end of the test.
#[macro_export]
macro_rules! libraries_or_skip {
    ($version:expr) => {
        match $crate::services::python::Python::with_libraries($version) {
            Some(python) => python,
            None => return,
        }
    };
}

/// A Python environment by its name (`"redbeat-5.7"`), or the end of the test.
#[macro_export]
macro_rules! environment_or_skip {
    ($name:expr) => {
        match $crate::services::python::Python::in_environment($name) {
            Some(python) => python,
            None => return,
        }
    };
}
