//! What others see of a task while it runs.

use super::each;
use crate::kit::PATIENCE;
use crate::running::{add, state_is, steps};
use celeriac_core::store::Phase;
use celeriac_core::throttle::Target;
use celeriac_wire::{State as TaskState, Value};

#[tokio::test]
async fn progress_and_custom_states_are_readable_while_the_task_runs() {
    // covers: S1-31
    each(async |client, of| {
        let job = client.send(steps::call()).await.unwrap();
        state_is(client, &job, &TaskState::parse("PROGRESS")).await;
        let progress = job.progress().await.unwrap().unwrap();
        assert_eq!(
            (progress.current, progress.total, progress.message.as_str()),
            (1, 4, "a quarter")
        );
        assert!((progress.percent - 25.0).abs() < f64::EPSILON);
        of.gate.0.add_permits(1);
        state_is(client, &job, &TaskState::parse("UPLOADING")).await;
        let record = job.record().await.unwrap().unwrap();
        assert_eq!(record.meta.result().get("bytes"), Some(&Value::from(17)));
        assert_eq!(job.progress().await.unwrap(), None, "a custom state is no progress");
        of.gate.0.add_permits(1);
        assert_eq!(job.get(PATIENCE).await.unwrap(), "done");
    })
    .await;
}

#[tokio::test]
async fn a_task_is_seen_in_each_of_its_phases() {
    // covers: S2-20, T-72, T-76
    each(async |client, of| {
        let phase = async |id: &str| client.store().task(id).await.unwrap().phase;
        assert_eq!(phase("never-sent").await, Phase::Unknown);
        let queue = celeriac_core::QueueName::parse("celery").unwrap();
        client.store().pause(&Target::from(&queue), "to look").await.unwrap();
        let first = client.send(add::call(1, 1)).await.unwrap();
        let job = client.send(steps::call()).await.unwrap();
        let queued =
            Phase::Queued { position: Some(1), paused: true, limited: false, revoked: false };
        assert_eq!(phase(job.id()).await, queued);
        client.store().resume(&Target::from(&queue)).await.unwrap();
        first.get(PATIENCE).await.unwrap();
        assert_eq!(phase(first.id()).await, Phase::Done);
        let running = async || matches!(phase(job.id()).await, Phase::Running { .. }).then_some(());
        crate::kit::until("it is seen to run", PATIENCE, running).await;
        of.gate.0.add_permits(2);
        job.get(PATIENCE).await.unwrap();
        assert_eq!(phase(job.id()).await, Phase::Done);
    })
    .await;
}
