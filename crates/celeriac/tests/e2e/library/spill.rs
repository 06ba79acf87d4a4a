//! Dead letters that the store has no room for.

use crate::kit::{PATIENCE, Place, until};
use crate::running::{add, application, fails, start};
use celeriac::App;
use celeriac::config::{Inputs, Settings};
use celeriac_core::store::DeadFilter;
use celeriac_wire::Value;
use std::path::Path;

fn bounded(place: &Place, settings: &[(&'static str, &str)]) -> App {
    let mut program = vec![("broker_url", place.url().to_owned())];
    program.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
    App::with_settings(Settings::resolve(Inputs { program, ..Inputs::default() }).unwrap())
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| Value::parse(line.as_bytes()).unwrap()).collect()
}

#[tokio::test]
async fn letters_without_room_are_written_beside_the_store() {
    for limit in [("dead_letters_max", "2"), ("dead_bytes_max", "1500")] {
        let place = Place::shared();
        let spill = place.path("spill.jsonl");
        let app = bounded(&place, &[limit, ("dead_spill", spill.to_str().unwrap())]);
        let under_test = application(app);
        let running = start(&under_test.app).await;
        for number in 0..5 {
            let job = running.client.send(fails::call(format!("no {number}"))).await.unwrap();
            assert!(job.get(PATIENCE).await.is_err(), "the caller learns of the failure");
        }
        let sum = running.client.send(add::call(2, 3)).await.unwrap();
        assert_eq!(sum.get(PATIENCE).await.unwrap(), 5, "the worker goes on");
        let kept = running.client.store().dead_count(&DeadFilter::default()).await.unwrap();
        let spilled = lines(&spill);
        assert_eq!(kept + spilled.len() as u64, 5, "{limit:?}: each is in one place");
        assert!(kept > 0 && spilled.len() >= 2, "{kept} kept");
        for line in &spilled {
            assert_eq!(line.get("reason").and_then(Value::as_str), Some("failed"));
            assert!(line.get("envelope").is_some() && line.get("died_at").is_some());
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn aged_letters_move_out_of_the_store() {
    let place = Place::shared();
    let spill = place.path("spill.jsonl");
    let settings = [("dead_expires", "50ms"), ("dead_spill", spill.to_str().unwrap())];
    let under_test = application(bounded(&place, &settings));
    let running = start(&under_test.app).await;
    let job = running.client.send(fails::call("old")).await.unwrap();
    assert!(job.get(PATIENCE).await.is_err());
    until("the letter has moved", PATIENCE, async || {
        let left = running.client.store().dead_count(&DeadFilter::default()).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(lines(&spill).len(), 1);
    running.stop().await;
}

/// Neither in the store nor in the file: the worker stops fetching, and nothing is dropped.
#[tokio::test]
async fn without_any_room_the_worker_stops_fetching() {
    let place = Place::shared();
    let folder = place.path("a-folder");
    std::fs::create_dir(&folder).unwrap();
    let settings = [("dead_letters_max", "1"), ("dead_spill", folder.to_str().unwrap())];
    let under_test = application(bounded(&place, &settings));
    let running = start(&under_test.app).await;
    let client = &running.client;
    let first = client.send(fails::call("one")).await.unwrap();
    assert!(first.get(PATIENCE).await.is_err());
    let second = client.send(fails::call("two")).await.unwrap();
    // Its outcome waits with its lease: the store shows it as held.
    until("the second is held", PATIENCE, async || {
        let queues = client.store().queues().await.unwrap();
        queues.iter().any(|queue| queue.leased == 1).then_some(())
    })
    .await;
    let sum = client.send(add::call(2, 3)).await.unwrap();
    let numbers = client.store().dead_list(&DeadFilter::default(), crate::kit::ALL).await.unwrap();
    client.store().dead_discard(&[numbers[0].number]).await.unwrap();
    assert!(second.get(PATIENCE).await.is_err(), "there is room now");
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 5);
    running.stop().await;
}
