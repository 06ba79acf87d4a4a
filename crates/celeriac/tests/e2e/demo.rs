//! `celeriac demo`: its report against an independent computation, its faults, and broken files.

use crate::kit::{Place, Ran, command};
use celeriac::App;
use celeriac_core::dead::DeadLetter;
use celeriac_core::store::{DeadFilter, Page};
use celeriac_wire::Value;
use std::path::Path;
use std::process::Stdio;

/// The bundled table, as committed.
const PENGUINS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/penguins-raw.csv");
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/profile_reference.py");
/// Members of a column that are numbers but no counts, at any depth.
const MEASURES: [&str; 9] =
    ["mean", "standard_deviation", "q1", "median", "q3", "low", "high", "min", "max"];

async fn demo(place: &Place, args: &[&str]) -> Ran {
    let program = Path::new(env!("CARGO_BIN_EXE_celeriac"));
    Ran::new(command(program, place.dir()).arg("demo").args(args)).await
}

/// Runs the reference program, or says why not; CI has Python.
async fn reference(file: &str, options: &[&str]) -> Option<Value> {
    let mut python = command(Path::new("python3"), Path::new("."));
    python.arg(REFERENCE).arg(file).args(options).stderr(Stdio::inherit());
    match python.output().await {
        Ok(output) => {
            assert!(output.status.success(), "the reference fails on {file}");
            Some(Value::parse(output.stdout.trim_ascii()).unwrap())
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "python3 is missing: {error}");
            println!("skipped: python3 is missing: {error}");
            None
        }
    }
}

/// The rule in the reference's first lines.
fn close(ours: f64, theirs: f64) -> bool {
    let distance = (ours - theirs).abs();
    distance <= 1e-9 * ours.abs().max(theirs.abs())
        || (ours.abs().min(theirs.abs()) < 1e-3 && distance <= 1e-12)
}

/// Compares two values member by member; `at` is where, for the message.
fn compare(ours: &Value, theirs: &Value, at: &str) {
    match (ours, theirs) {
        (Value::Object(one), Value::Object(other)) => {
            let names: Vec<&str> = other.keys().collect();
            assert_eq!(
                one.keys().collect::<std::collections::BTreeSet<_>>(),
                names.iter().copied().collect(),
                "{at}"
            );
            for name in names {
                compare(one.get(name).unwrap(), other.get(name).unwrap(), &format!("{at}.{name}"));
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            assert_eq!(one.len(), other.len(), "{at}");
            for (index, (ours, theirs)) in one.iter().zip(other).enumerate() {
                compare(ours, theirs, &format!("{at}[{index}]"));
            }
        }
        (Value::Number(one), Value::Number(other)) if one.is_integer() && other.is_integer() => {
            assert_eq!(one.as_i128(), other.as_i128(), "{at}");
        }
        (Value::Number(one), Value::Number(other)) => {
            let measured =
                MEASURES.iter().any(|name| at.ends_with(name)) || at.contains("outliers");
            assert!(measured, "{at} is a count: {ours} and {theirs}");
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            assert!(close(one, other), "{at}: {one} and {other}");
        }
        _ => assert_eq!(ours, theirs, "{at}"),
    }
}

fn report(place: &Place, dir: &str) -> Vec<u8> {
    std::fs::read(place.path(dir).join("report.json")).unwrap()
}

fn compare_with(report: &[u8], theirs: &Value) {
    let ours = Value::parse(report).unwrap();
    compare(ours.get("rows").unwrap(), theirs.get("rows").unwrap(), "rows");
    compare(ours.get("columns").unwrap(), theirs.get("columns").unwrap(), "columns");
}

async fn dead_letters(place: &Place, dir: &str) -> Vec<DeadLetter> {
    let url = format!("sqlite://{}", place.path(dir).join("demo.db").display());
    let store = App::at(&url).unwrap().store().await.unwrap();
    store.dead_list(&DeadFilter::default(), Page { after: 0, count_max: 10 }).await.unwrap()
}

#[tokio::test]
async fn the_demo_tells_its_story_and_its_numbers_are_right() {
    let place = Place::sqlite();
    let ran = demo(&place, &["--dir", "one"]).await.exits(0);
    ran.says(&[
        "read",
        "344 rows",
        "retry",
        "cancel",
        "dead letter",
        "replay",
        "report.html",
        "report.json",
    ]);
    let first = report(&place, "one");
    if let Some(theirs) = reference(PENGUINS, &[]).await {
        compare_with(&first, &theirs);
    }
    assert!(dead_letters(&place, "one").await.is_empty(), "the dead letter was replayed");
    let page = std::fs::read_to_string(place.path("one/report.html")).unwrap();
    assert!(page.contains("</html>") && !page.contains("http-equiv=\"refresh\""));

    demo(&place, &["--dir", "one"]).await.exits(0);
    assert_eq!(report(&place, "one"), first, "the same folder again");
    demo(&place, &["--dir", "two"]).await.exits(0);
    assert_eq!(report(&place, "two"), first, "another folder");
}

#[tokio::test]
async fn without_a_worker_nothing_is_done_and_nothing_is_lost() {
    let place = Place::sqlite();
    demo(&place, &["--dir", "idle", "--no-worker", "--timeout", "2s"])
        .await
        .exits(5)
        .warns(&["was not done within", "is a worker running on sqlite://"]);
    assert!(!place.path("idle/report.json").exists());
    let store = format!("sqlite://{}", place.path("idle/demo.db").display());
    let store = App::at(&store).unwrap().store().await.unwrap();
    let queue = store.queues().await.unwrap().remove(0);
    assert_eq!((queue.ready, queue.leased), (1, 0), "the first task waits for a worker");
}

#[tokio::test]
async fn another_process_can_do_the_work() {
    let place = Place::sqlite();
    let program = Path::new(env!("CARGO_BIN_EXE_celeriac"));
    // The demo replaces an older store in its folder, so the worker starts on the new one.
    let mut asking = command(program, place.dir());
    asking.args(["demo", "--dir", "shared", "--no-worker", "--timeout", "60s"]);
    let asking = tokio::spawn(async move { Ran::new(&mut asking).await });
    let url = format!("sqlite://{}", place.path("shared/demo.db").display());
    crate::kit::until("the demo has sent something", crate::kit::PATIENCE, async || {
        if !place.path("shared/demo.db").exists() {
            return None;
        }
        let store = App::at(&url).unwrap().store().await.ok()?;
        store.queues().await.ok()?.iter().any(|queue| queue.ready > 0).then_some(())
    })
    .await;
    let mut worker = command(program, place.dir());
    let mut worker = worker.args(["-b", &url, "worker"]).spawn().unwrap();
    asking.await.unwrap().exits(0).says(&["replay"]);
    worker.kill().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_table_is_refused_and_kept_as_a_dead_letter() {
    let place = Place::sqlite();
    std::fs::write(place.path("ragged.csv"), "a,b\n1,2\n3\n4,5\n").unwrap();
    std::fs::write(place.path("empty.csv"), "").unwrap();
    std::fs::write(place.path("header.csv"), "a,b\n").unwrap();
    let noise: Vec<u8> =
        (0..4000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(place.path("binary.csv"), noise).unwrap();
    for (file, text) in
        [("ragged.csv", "line 3"), ("empty.csv", "empty"), ("header.csv", ""), ("binary.csv", "")]
    {
        let ran = demo(&place, &[file, "--dir", file.trim_end_matches(".csv")]).await.exits(5);
        let ran = ran.warns(&["error: ", file, text, "hint: ", "dead letter 1"]);
        println!("{}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"));
        let letters = dead_letters(&place, file.trim_end_matches(".csv")).await;
        assert_eq!(letters.len(), 1, "{file}");
        assert_eq!(letters[0].message.headers.task(), Some("demo.inspect"));
    }
    let missing = demo(&place, &["nowhere.csv", "--dir", "missing"]).await;
    missing.exits(2).warns(&["cannot read nowhere.csv", "No such file"]);
}

#[tokio::test]
async fn semicolons_and_old_encodings_are_read() {
    let place = Place::sqlite();
    let text = "Straße;Höhe;Größe\nAm Bühl;1,5;10\nÖtztal;2,5;20\n;-3.25;30\n";
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    std::fs::write(place.path("latin.csv"), latin).unwrap();
    let ran = demo(&place, &["latin.csv", "--dir", "latin"]).await.exits(0);
    ran.says(&["3 rows, 3 columns", "';'"]);
    let ours = report(&place, "latin");
    let parsed = Value::parse(&ours).unwrap();
    assert_eq!(parsed.get("encoding").unwrap().as_str(), Some("windows-1252"));
    assert!(parsed.to_string().contains("\\u00d6tztal"), "{parsed}");
    let file = place.path("latin.csv").display().to_string();
    if let Some(theirs) = reference(&file, &["--delimiter", ";", "--encoding", "latin-1"]).await {
        compare_with(&ours, &theirs);
    }
}
