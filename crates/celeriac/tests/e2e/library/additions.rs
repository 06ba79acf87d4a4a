//! `[tasks]` of `celeriac.toml` for native tasks.

use super::configured;
use crate::kit::{PATIENCE, Place};
use crate::running::{application, fails, flaky, note, start};
use celeriac_core::store::Phase;

const FILE: &str = r#"
[tasks."t.fla*"]
retry_schedule = [0]
dead_letter = "never"

[tasks."t.fails"]
dead_letter_except = ["*.TaskFailed"]

[tasks."t.note"]
success_if = { state = "done" }
max_retries = 0
"#;

#[tokio::test]
async fn the_settings_file_stands_before_what_a_native_task_says() {
    for place in Place::every() {
        let under_test = application(configured(&place, FILE));
        let running = start(&under_test.app).await;
        let client = &running.client;
        // Its own schedule would let it end well.
        let job = client.send(flaky::call(2)).await.unwrap();
        let error = job.get(PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains("not yet"), "{error}");
        assert_eq!(job.record().await.unwrap().unwrap().retries, 1);
        assert!(!matches!(job.view().await.unwrap().phase, Phase::Dead { .. }));
        let job = client.send(fails::call("no")).await.unwrap();
        let error = job.get(PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains("TaskFailed"), "{error}");
        assert!(!matches!(job.view().await.unwrap().phase, Phase::Dead { .. }));
        let job = client.send(note::call("half")).await.unwrap();
        let error = job.get(PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains("TaskReturnedError"), "{error}");
        assert!(matches!(job.view().await.unwrap().phase, Phase::Dead { .. }));
        running.stop().await;
    }
}
