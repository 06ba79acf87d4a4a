use super::*;

fn parsed(text: &str) -> Result<Parsed, String> {
    parse(Path::new("celeriac.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn routes_keep_the_order_of_the_file() {
    let text = "[routes]\n\"z.*\" = \"first\"\n\"a.*\" = \"second\"\n\"/^m/\" = \"third\"\n";
    let routes = parsed(text).unwrap().routes.value;
    let queues: Vec<String> = routes.iter().map(|(_, route)| route.to_string()).collect();
    assert_eq!(queues, ["first", "second", "third"]);
}

#[test]
fn the_line_is_the_one_of_the_key_itself() {
    let text = "# time_limit = 1\ntime_limit = 60\n\n[override]\ngrace = 5\ntime_limit = 0x1E\n";
    let file = parsed(text).unwrap();
    assert_eq!(file.settings[0].2.to_string(), "celeriac.toml, line 2");
    assert_eq!(file.overrides[1].1, "30");
    assert_eq!(file.overrides[1].2.to_string(), "celeriac.toml [override], line 6");
}

#[test]
fn the_operator_may_use_celerys_names() {
    let text = "[override]\ntime_limit = 5\ntask_acks_late = true\ntask_serializer = \"yaml\"\n\
                task_routes = { \"a.*\" = { queue = \"q\", priority = 3 } }\n";
    let file = parsed(text).unwrap();
    let ours: Vec<&str> = file.overrides.iter().map(|(key, ..)| *key).collect();
    // Serializers are native tasks' and Celery's.
    assert_eq!(ours, ["time_limit", "task_serializer"]);
    let theirs: Vec<String> =
        file.celery.iter().map(|(name, value, _)| format!("{name} {value}")).collect();
    let routes = r#"task_routes {"a.*": {"queue": "q", "priority": 3}}"#;
    assert_eq!(theirs, ["task_acks_late true", "task_serializer \"yaml\"", routes]);
    assert_eq!(file.celery[0].2.to_string(), "celeriac.toml [override], line 3");
}

#[test]
fn what_is_wrong_is_said_without_the_line_itself() {
    for (text, expected) in [
        ("broker_url = \"redis://:secret@h\n", "line 1: this is not TOML"),
        ("\ngrace = 1\ngrace = 2\n", "line 3: this is not TOML"),
        ("override = 3", "write it as [override]"),
        ("[routes]\nx = 1", "line 2: the queue of route \"x\" must be a text, or a table"),
        ("queues = [1]", "queues must be a list of texts"),
        ("grace = 1979-05-27", "grace cannot be a datetime"),
        ("[grace]\nx = 1", "grace cannot be a table"),
        ("grace = 99999999999999999999", "too large"),
        ("[override]\nworker_pol = 1", "line 2: unknown key \"worker_pol\""),
        ("[override]\nworker_pol = 1", "did you mean \"worker_pool\"?"),
        ("worker_pool = \"solo\"", "unknown key \"worker_pool\""),
        ("[override]\ntask_routes = 1979-05-27", "task_routes cannot be a datetime"),
        ("[overide]\ngrace = 1", "did you mean \"override\"?"),
    ] {
        let error = parsed(text).err().unwrap();
        assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
    }
}
