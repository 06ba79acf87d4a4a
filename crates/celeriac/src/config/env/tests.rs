use super::*;
use crate::config::{Inputs, Settings};

fn vars(text: &str) -> Result<Vec<(String, String)>, String> {
    parse_dotenv(Path::new(".env"), text).map_err(|error| error.to_string())
}

fn resolved(env: &[(&str, &str)], dotenv: &[(&str, &str)], file: &str) -> Settings {
    let owned = |vars: &[(&str, &str)]| -> Vec<(String, String)> {
        vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    Settings::resolve(Inputs {
        env: owned(env),
        dotenv: Some((PathBuf::from(".env"), owned(dotenv))),
        file: Some((PathBuf::from("celeriac.toml"), file.to_owned())),
        ..Inputs::default()
    })
    .unwrap()
}

#[test]
fn dotenv_is_read_as_python_reads_it() {
    // covers: S1-15 T-43
    let text = "\u{feff}USE_CELERY=false  # Feature flag\nexport A='x y'\nPW=pa$word$\nQ=\"a$b\"\n\
                B=1\nB=2\nR=${B}3\nTITLE=My App\nlonely\n";
    let vars = vars(text).unwrap();
    let value = |name: &str| vars.iter().find(|(known, _)| known == name).map(|(_, v)| v.as_str());
    for (name, expected) in [
        ("USE_CELERY", "false"),
        ("A", "x y"),
        ("PW", "pa$word$"),
        ("Q", "a$b"),
        ("B", "2"),
        ("R", "23"),
    ] {
        assert_eq!(value(name), Some(expected), "{name}");
    }
}

#[test]
fn only_our_own_lines_of_dotenv_can_be_wrong() {
    let error = vars("TITLE=My App\n\nCELERY_BROKER_URL=redis://:top secret@h\n").unwrap_err();
    assert!(error.contains(".env, line 3") && error.contains("CELERY_BROKER_URL"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn redis_url_is_used_when_nothing_else_names_a_broker() {
    // covers: S3-11
    let other = [("REDIS_URL", "redis://cache")];
    let ours = [("CELERY_BROKER_URL", "sqlite://a.db")];
    let file = "broker_url = \"sqlite://a.db\"";
    for settings in [
        resolved(&other, &ours, ""),
        resolved(&ours, &other, ""),
        resolved(&other, &[], file),
        resolved(&[other[0], ours[0]], &[], ""),
    ] {
        assert_eq!(settings.broker_url.value, "sqlite://a.db");
    }
    let both = resolved(&other, &[("REDIS_URL", "redis://old")], "");
    assert_eq!(both.broker_url.value, "redis://cache");
    assert_eq!(both.broker_url.source.to_string(), "environment REDIS_URL");
}

#[test]
fn suggestions_are_near_and_told_once() {
    let twice = [("CELERY_TASK_TIMELIMIT", "1"), ("CELERY_APP", "proj"), ("CELERIAC_GRACE_", "1")];
    let settings = resolved(&twice, &twice, "");
    assert_eq!(
        settings.warnings(),
        [
            "the environment variable CELERY_TASK_TIMELIMIT is not known; \
             did you mean CELERY_TASK_TIME_LIMIT?",
            "the environment variable CELERY_APP is not known",
            "the environment variable CELERIAC_GRACE_ is not known; did you mean CELERIAC_GRACE?",
        ]
    );
}
