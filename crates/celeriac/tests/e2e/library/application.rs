//! How applications are put together, and what is refused at once.

use crate::kit::Place;
use crate::running::{Gate, Shared, add, steps};
use celeriac::config::{Inputs, Settings};
use celeriac::prelude::*;

/// An application on this store with settings as `celeriac.toml` has them.
pub(crate) fn configured(place: &Place, toml: &str) -> App {
    let file = Some((place.path("celeriac.toml"), toml.to_owned()));
    let flags = vec![("broker_url", place.url().to_owned())];
    App::with_settings(Settings::resolve(Inputs { file, flags, ..Inputs::default() }).unwrap())
}

#[tokio::test]
async fn a_missing_state_is_found_before_the_worker_starts() {
    let app = Place::memory().app().tasks(tasks![steps]);
    let error = app.worker().build().await.unwrap_err().to_string();
    assert!(error.contains("t.steps wants State<") && error.contains("Gate"), "{error}");
    assert!(error.contains(".state("), "it says what to do: {error}");
    app.state(Shared::new(Gate::shut())).worker().build().await.unwrap();
}

mod other {
    use celeriac::prelude::*;

    #[task(name = "t.add")]
    pub(super) async fn subtract(x: i64, y: i64) -> i64 {
        x - y
    }
}

#[tokio::test]
async fn two_tasks_of_one_name_are_refused() {
    let app = Place::memory().app().tasks(tasks![add, other::subtract]);
    let error = app.worker().build().await.unwrap_err().to_string();
    assert!(error.contains("t.add"), "{error}");
}

#[tokio::test]
async fn a_worker_that_cannot_work_is_refused() {
    let app = Place::memory().app().tasks(tasks![add]);
    let nothing: [&str; 0] = [];
    for (worker, text) in [
        (app.worker().concurrency(0), "concurrency 0"),
        (app.worker().queues(nothing), "no queue"),
        (app.worker().queues(["a b\n"]), "queue"),
    ] {
        let error = worker.build().await.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let nowhere = App::at("sqlite:///dev/null/queue.db").unwrap().tasks(tasks![add]);
    let error = nowhere.client().await.unwrap_err().to_string();
    assert!(error.contains("/dev/null"), "{error}");
}

#[tokio::test]
async fn routed_tasks_are_consumed_by_a_worker_that_is_told_no_queues() {
    // covers: T-37
    for place in Place::every() {
        let app = configured(&place, "[routes]\n\"t.*\" = \"side\"\n").tasks(tasks![add]);
        let running = crate::running::start(&app).await;
        let job = running.client.send(add::call(1, 2)).await.unwrap();
        assert_eq!(job.get(crate::kit::PATIENCE).await.unwrap(), 3);
        assert_eq!(job.view().await.unwrap().queue.as_deref(), Some("side"));
        running.stop().await;
    }
}

#[tokio::test]
async fn a_worker_that_may_be_idle_ends_by_itself() {
    for place in Place::every() {
        let app = place.app().tasks(tasks![add]);
        let client = app.client().await.unwrap();
        let jobs = client.send_all((0..30).map(|n| add::call(n, n))).await.unwrap();
        let report = app.worker().concurrency(4).stop_when_idle(1.millis()).run().await.unwrap();
        assert_eq!((report.processed, report.succeeded, report.failed), (30, 30, 0));
        for job in jobs {
            job.get(1.millis()).await.unwrap();
        }
    }
}
