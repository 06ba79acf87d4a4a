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
        ("[overide]\ngrace = 1", "did you mean \"override\"?"),
    ] {
        let error = parsed(text).err().unwrap();
        assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
    }
}
