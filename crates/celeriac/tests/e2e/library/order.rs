//! In which order tasks run.

use crate::kit::{PATIENCE, Place};
use crate::running::{application, note, start_with};
use celeriac::Priority;

#[tokio::test]
async fn higher_levels_run_first() {
    // covers: S2-25
    for place in Place::every() {
        let of = application(place.app());
        let client = of.app.client().await.unwrap();
        let mut jobs = Vec::new();
        for level in [Priority::Low, Priority::Normal, Priority::High, Priority::Critical] {
            for number in 0..5 {
                let call = note::call(format!("{level} {number}")).priority(level);
                jobs.push(client.send(call).await.unwrap());
            }
        }
        let running = start_with(&of.app, of.app.worker().concurrency(1)).await;
        for job in jobs {
            job.get(PATIENCE).await.unwrap();
        }
        let levels = ["critical", "high", "normal", "low"];
        let expected: Vec<String> = levels
            .iter()
            .flat_map(|level| (0..5).map(move |number| format!("{level} {number}")))
            .collect();
        assert_eq!(of.diary.read(), expected, "by level, and in a level as they came");
        running.stop().await;
    }
}

#[tokio::test]
async fn one_that_matters_overtakes_a_hundred() {
    // covers: S2-25
    for place in Place::every() {
        let of = application(place.app());
        let client = of.app.client().await.unwrap();
        let low =
            (0..100).map(|number| note::call(format!("low {number}")).priority(Priority::Low));
        let mut jobs = client.send_all(low).await.unwrap();
        jobs.push(client.send(note::call("high").priority(Priority::High)).await.unwrap());
        let running = start_with(&of.app, of.app.worker().concurrency(1)).await;
        for job in jobs {
            job.get(PATIENCE).await.unwrap();
        }
        assert_eq!(of.diary.read()[0], "high");
        running.stop().await;
    }
}
