//! Keeps a crew complete: one attendant per child from its start to its end, and a look at the busy
//! ones now and then.

use super::crew::{Crew, Fault};
use super::kind::{Born, Greeting, Kind};
use super::output::{DRAIN, Output};
use super::policy::{Exit, Killed};
use super::process::Process;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A child that is not ready after this time is killed: its state takes too long to be made.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// A child that was asked to end is killed after this time.
const QUIT_PATIENCE: Duration = Duration::from_secs(2);
/// How often busy children are looked at when memory is limited, and when it is not.
const EXAMINE_MEMORY: Duration = Duration::from_millis(100);
const EXAMINE: Duration = Duration::from_secs(1);
/// With nothing to do the supervisor still looks so often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Runs until it is dropped, which ends the attendants and kills their children.
pub(super) async fn supervise<K: Kind>(crew: Arc<Crew<K>>) {
    let limited = crew.bounds.memory_max.is_some() || crew.bounds.memory_recycle.is_some();
    let every = if limited { EXAMINE_MEMORY } else { EXAMINE };
    let mut attendants = JoinSet::new();
    loop {
        let deeds = crew.deeds();
        for (number, place) in deeds.start {
            attendants.spawn(attend(Arc::clone(&crew), number, place));
        }
        for (process, channel) in deeds.end {
            attendants.spawn(end(Arc::clone(&crew), process, channel));
        }
        let wait = deeds.wait.unwrap_or(LOOK_AGAIN);
        let wait = if deeds.busy { wait.min(every) } else { wait };
        tokio::select! {
            // Cancel safe: a Notify keeps its permit, the JoinSet its tasks.
            () = crew.changed.notified() => {}
            Some(_) = attendants.join_next() => {}
            () = tokio::time::sleep(wait) => {}
        }
        if deeds.busy {
            crew.examine();
        }
    }
}

/// Kills a child whose attendant is dropped.
struct Guard(Arc<Process>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill(Killed::Aborted);
    }
}

/// One child from its start to its end.
async fn attend<K: Kind>(crew: Arc<Crew<K>>, number: u64, place: usize) {
    let Born { process, output, mut channel } = match crew.kind.start(place).await {
        Ok(born) => born,
        Err(error) => {
            let text = format!("cannot start {} as a child: {error}", crew.kind.program());
            crew.gone(number, Some(Fault { text, exit: None, stderr: String::new() }));
            return;
        }
    };
    let guard = Guard(Arc::clone(&process));
    if !crew.spawned(number, &process, &output) {
        process.kill(Killed::Aborted);
    }
    let life = async {
        let greeted = tokio::time::timeout(START_PATIENCE, crew.kind.greet(&mut channel)).await;
        let fault = match greeted {
            Ok(Greeting::Ready) => {
                tracing::debug!(child = process.pid(), "a child is ready");
                crew.is_ready(number, channel);
                None
            }
            Ok(other) => Some(other),
            Err(_elapsed) => {
                process.kill(Killed::Late);
                let limit = START_PATIENCE.as_secs();
                Some(Greeting::Refused(format!("it was not ready within {limit} s")))
            }
        };
        if fault.is_some() && tokio::time::timeout(QUIT_PATIENCE, process.exited()).await.is_err() {
            process.kill(Killed::Late);
        }
        let exit = process.exited().await;
        let idle = crew.is_over(number);
        (fault, exit, idle)
    };
    let (fault, exit, idle) = listen(&output, life).await;
    drop(guard);
    let fault = match fault {
        Some(Greeting::Refused(text)) => Some((text, None)),
        Some(_) => Some(("it ended before it was ready".to_owned(), Some(exit))),
        None if idle => Some(("it was lost while it was idle".to_owned(), Some(exit))),
        None => None,
    };
    let fault = match fault {
        Some((text, exit)) => Some(Fault { text, exit, stderr: output.last_words().await }),
        None => None,
    };
    crew.gone(number, fault);
}

/// Reads what the child prints while it lives, and a moment longer.
async fn listen<T>(output: &Output, life: impl Future<Output = T>) -> T {
    let pump = output.pump();
    tokio::pin!(pump, life);
    let mut open = true;
    let ended = loop {
        tokio::select! {
            // Both are polled on until they are ready; `pump` only once.
            () = &mut pump, if open => open = false,
            ended = &mut life => break ended,
        }
    };
    if open {
        // What still holds the pipes open was started by a task and has left its group.
        let _late = tokio::time::timeout(DRAIN, pump).await;
        output.close();
    }
    ended
}

/// Asks an idle child to end, and kills one that does not.
async fn end<K: Kind>(crew: Arc<Crew<K>>, process: Arc<Process>, mut channel: K::Channel) {
    process.ask();
    let quit = async {
        if crew.kind.dismiss(&mut channel).await.is_ok() {
            let Exit { .. } = process.exited().await;
        }
    };
    let _late = tokio::time::timeout(QUIT_PATIENCE, quit).await;
    process.kill(Killed::Late);
}
