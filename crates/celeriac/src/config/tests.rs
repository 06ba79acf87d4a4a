use super::*;

fn inputs(env: &[(&str, &str)], dotenv: &[(&str, &str)], file: &str) -> Inputs {
    let owned = |vars: &[(&str, &str)]| {
        vars.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>()
    };
    Inputs {
        env: owned(env),
        dotenv: (!dotenv.is_empty()).then(|| (PathBuf::from(".env"), owned(dotenv))),
        file: (!file.is_empty()).then(|| (PathBuf::from("celeriac.toml"), file.to_owned())),
        ..Inputs::default()
    }
}

fn error(inputs: Inputs) -> String {
    Settings::resolve(inputs).unwrap_err().to_string()
}

#[test]
fn the_later_source_wins_and_is_named() {
    // covers: S1-13 S1-14 S1-15 S5-12 T-36
    let file = "concurrency = 3\ngrace = \"10s\"\n[override]\ntime_limit = 60\n";
    let mut all = inputs(
        &[("CELERY_TASK_TIME_LIMIT", "1800"), ("CELERY_WORKER_CONCURRENCY", "4")],
        &[("CELERY_WORKER_CONCURRENCY", "2"), ("CELERIAC_LOG_FORMAT", "json")],
        file,
    );
    let settings = Settings::resolve(all.clone()).unwrap();
    assert_eq!(settings.concurrency.value, 4);
    assert_eq!(settings.concurrency.source.to_string(), "environment CELERY_WORKER_CONCURRENCY");
    assert_eq!(settings.log_format.source.to_string(), ".env CELERIAC_LOG_FORMAT");
    assert_eq!(settings.grace.source.to_string(), "celeriac.toml, line 2");
    assert_eq!(settings.time_limit.value, Some(Duration::from_mins(1)));
    assert_eq!(settings.time_limit.source.to_string(), "celeriac.toml [override], line 4");
    all.flags.push(("time_limit", "5s".to_owned()));
    let settings = Settings::resolve(all).unwrap();
    assert_eq!(settings.time_limit.source.to_string(), "flag --time-limit");
}

#[test]
fn the_seeds_names_are_understood() {
    // covers: S3-11 T-35
    let env = [("REDIS_URL", "sqlite://a.db"), ("CELERY_TASK_SOFT_TIME_LIMIT", "1500")];
    let settings = Settings::resolve(inputs(&env, &[], "")).unwrap();
    assert_eq!(settings.broker_url.value, "sqlite://a.db");
    assert_eq!(settings.soft_time_limit.value, Some(Duration::from_mins(25)));
    let env = [("REDIS_URL", "sqlite://a.db"), ("CELERY_BROKER_URL", "sqlite://b.db")];
    let settings = Settings::resolve(inputs(&env, &[], "")).unwrap();
    assert_eq!(settings.broker_url.value, "sqlite://b.db");
    let env = [("CELERY_CONCURRENCY", "2"), ("CELERY_WORKER_CONCURRENCY", "4")];
    assert!(error(inputs(&env, &[], "")).contains("unset one of them"));
}

#[test]
fn booleans_are_strict() {
    // covers: T-43 T-44 S1-33
    for (text, expected) in [
        ("1", true),
        ("TRUE", true),
        ("Yes", true),
        ("on", true),
        ("0", false),
        ("False", false),
        ("NO", false),
        ("off", false),
    ] {
        let env = [("CELERIAC_TASK_EVENTS", text)];
        assert_eq!(Settings::resolve(inputs(&env, &[], "")).unwrap().task_events.value, expected);
    }
    let junk = error(inputs(&[("CELERIAC_TASK_EVENTS", "false  # Feature flag")], &[], ""));
    assert!(junk.contains("Feature flag") && junk.contains("comment"), "{junk}");
    assert!(error(inputs(&[("CELERIAC_TASK_EVENTS", "maybe")], &[], "")).contains("\"maybe\""));
}

#[test]
fn unknown_names_get_a_suggestion() {
    // covers: T-33
    let unknown = error(inputs(&[], &[], "\nconcurency = 4\n"));
    assert!(
        unknown.contains("line 2") && unknown.contains("did you mean \"concurrency\"?"),
        "{unknown}"
    );
    let env = [("CELERY_WORKER_CONCURENCY", "4"), ("CELERY_LOADER", "x"), ("PATH", "/bin")];
    let settings = Settings::resolve(inputs(&env, &[], "")).unwrap();
    assert_eq!(settings.warnings().len(), 2);
    assert!(settings.warnings()[0].contains("did you mean CELERY_WORKER_CONCURRENCY?"));
    let rollout = Settings::resolve(inputs(&[("USE_CELERY", "false")], &[], "")).unwrap();
    assert!(rollout.warnings().is_empty());
    assert!(
        rollout
            .rows()
            .iter()
            .any(|row| row.value == "USE_CELERY" && row.effect.contains("not used"))
    );
}

#[test]
fn values_that_cannot_be_used_say_what_can() {
    for (key, value, expected) in [
        ("CELERIAC_CONCURRENCY", "0", "from 1 to 10000"),
        ("CELERIAC_GRACE", "soon", "such as 500ms"),
        ("CELERIAC_MESSAGE_BYTES_MAX", "16 megs", "16MiB"),
        ("CELERIAC_POOL", "gevent", "use async"),
        ("CELERIAC_MAX_TASKS_PER_CHILD", "0", "at least 1"),
        ("CELERIAC_CHILD_MEMORY_MAX", "much", "16MiB"),
        ("CELERIAC_CHILD_OOM_SCORE_ADJ", "1001", "-1000 to 1000"),
        ("CELERIAC_LOG_FORMAT", "xml", "text or json"),
        ("CELERIAC_LEASE_EXPIRY", "1ms", "at least 200ms"),
        ("CELERIAC_QUEUES", "a,celeriac:b", "reserved"),
    ] {
        let text = error(inputs(&[(key, value)], &[], ""));
        assert!(text.contains(expected) && text.contains(key), "{text}");
    }
    let limits = error(inputs(&[], &[], "soft_time_limit = 60\ntime_limit = 60"));
    assert!(limits.contains("must be shorter"), "{limits}");
    let backend = error(inputs(&[("CELERY_RESULT_BACKEND", "redis://:pw@h/1")], &[], ""));
    assert!(backend.contains("**") && !backend.contains("pw"), "{backend}");
    assert!(error(inputs(&[], &[], "[routes]\n\"/(/\" = \"q\"")).contains("regular expression"));
}

#[test]
fn what_is_said_of_children_is_understood() {
    let env = [
        ("CELERIAC_CHILD", "4711"),
        ("CELERIAC_POOL", "prefork"),
        ("CELERIAC_MAX_MEMORY_PER_CHILD", "200MB"),
        ("CELERIAC_CHILD_MEMORY_MAX", "1GiB"),
    ];
    let settings = Settings::resolve(inputs(&env, &[], "max_tasks_per_child = 100")).unwrap();
    assert!(settings.warnings().is_empty(), "the mark of a child is no setting");
    assert_eq!(settings.pool.value, Pool::Process);
    assert_eq!(settings.max_tasks_per_child.value, Some(100));
    assert_eq!(settings.max_memory_per_child.value, Some(200_000_000));
    assert_eq!(settings.child_memory_max.value, Some(1 << 30));
    assert_eq!(settings.child_oom_score_adj.value, 500);
}

#[test]
fn rows_show_everything_with_secrets_masked() {
    // covers: S1-13
    let env = [("CELERY_BROKER_URL", "redis://user:secret@h/0")];
    let rows =
        Settings::resolve(inputs(&env, &[], "[routes]\n\"reports.*\" = \"heavy\"")).unwrap().rows();
    assert_eq!(rows[0].value, "redis://user:**@h/0");
    assert_eq!(rows[0].source, "environment CELERY_BROKER_URL");
    assert!(rows.iter().any(|row| row.key == "routes" && row.value == "reports.* → heavy"));
    assert!(rows.len() > KEYS.len());
}

#[test]
fn the_reference_page_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/settings.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, reference_page()).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(page, reference_page(), "run the tests with UPDATE=1 and commit the page");
}

#[test]
fn the_port_of_a_platform_counts_in_the_environment_alone() {
    let port = |env: &[(&str, &str)], dotenv: &[(&str, &str)], file: &str| {
        Settings::resolve(inputs(env, dotenv, file)).unwrap().http.probes_port.value
    };
    assert_eq!(port(&[("PORT", "8088")], &[], ""), Some(8088));
    assert_eq!(port(&[], &[("PORT", "8088")], ""), None, "it is the web application's");
    assert_eq!(port(&[("PORT", "tcp://10.0.0.1:80")], &[], ""), None, "it is somebody else's");
    let off = [("PORT", "8088"), ("CELERIAC_HTTP_PROBES_PORT", "0")];
    assert_eq!(port(&off, &[], ""), None);
    assert_eq!(port(&[], &[], "[http]\nprobes_port = 8090\n"), Some(8090));
}

#[test]
fn the_section_of_the_http_server_has_keys_of_its_own() {
    let file = "[http]\nbind = \"[::1]:80\"\nauth = \"none\"\nhosts = [\"a.example\", \"b\"]\n";
    let http = Settings::resolve(inputs(&[], &[], file)).unwrap().http;
    assert_eq!((http.bind.value.to_string(), http.auth.value), ("[::1]:80".to_owned(), false));
    assert_eq!(http.hosts.value, ["a.example", "b"]);
    assert_eq!(http.bind.source.to_string(), "celeriac.toml, line 2");
    for (file, expected) in [
        ("[http]\nbnd = 1\n", "line 2: unknown key \"bnd\" in [http]"),
        ("[http]\nbind = 8555\n", "expected an IP address and a port"),
        ("http = 1\n", "http is a section"),
    ] {
        let text = error(inputs(&[], &[], file));
        assert!(text.contains(expected), "{text}");
    }
}
