//! What Prometheus reads.

use super::{Place, Site};
use crate::running::{add, start};
use celeriac::prelude::*;

#[tokio::test]
async fn metrics_have_the_seeds_names_and_count_what_ran() {
    // covers: S2-27 S3-08 T-68
    for place in Place::every() {
        let app = place.app().tasks(tasks![add]);
        let (site, client) = (Site::start(&app).await, app.client().await.unwrap());
        client.send(add::call(1, 1).queue("else\"where")).await.unwrap();
        site.measures(&[
            "celery_queue_length{queue=\"else\\\"where\"} 1",
            "celeriac_queue_ready{queue=\"else\\\"where\"} 1",
            "celeriac_store_up 1",
            "tasks_submitted_total{queue_system=\"celery\"} 0",
        ])
        .await;
        let worker = start(&app).await;
        for number in 0..3 {
            client.send(add::call(number, 1)).await.unwrap().get(super::PATIENCE).await.unwrap();
        }
        let text = site
            .measures(&[
                "celery_tasks_submitted_total 3",
                "tasks_submitted_total{queue_system=\"celery\"} 3",
                "tasks_completed_total{queue_system=\"celery\",outcome=\"succeeded\"} 3",
                "task_duration_seconds_count{queue_system=\"celery\"} 3",
                "celeriac_task_run_seconds_count{task=\"t.add\"} 3",
                "celeriac_task_wait_seconds_count{task=\"t.add\"} 3",
                "celeriac_task_outcomes_total{task=\"t.add\",outcome=\"succeeded\"} 3",
                "celeriac_workers{state=\"alive\"} 1",
                "celeriac_worker_slots 4",
            ])
            .await;
        for name in ["celeriac_queue_oldest_seconds{", "# TYPE task_duration_seconds histogram"] {
            assert!(text.contains(name), "{name} is not in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        worker.stop().await;
    }
}
