//! What differs between pools of children: how a child comes to life and how it is spoken to.

use super::Children;
use super::crew::{Crew, Held};
use super::mortem::{News, PostMortem, Told};
use super::output::{DRAIN, Output, Speaker};
use super::policy::{Exit, Killed};
use super::process::Process;
use celeriac_core::outcome::Outcome;
use futures::future::BoxFuture;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A killed process is gone by then, or the kernel is in trouble.
const DEATH_PATIENCE: Duration = Duration::from_secs(2);

/// A kind of children.
pub(super) trait Kind: fmt::Debug + Send + Sync + 'static {
    /// The way to speak with one.
    type Channel: fmt::Debug + Send + 'static;

    /// What is started, for errors.
    fn program(&self) -> String;

    /// Starts a child for this place, a number from 0 that no other living child has.
    fn start(&self, place: usize) -> impl Future<Output = io::Result<Born<Self::Channel>>> + Send;

    /// Waits until the child is ready, and says hello where that is the custom.
    fn greet(&self, channel: &mut Self::Channel) -> impl Future<Output = Greeting> + Send;

    /// Tells an idle child to end; the channel stays open until it has.
    fn dismiss(&self, channel: &mut Self::Channel) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes its children as these are from now on; those of another kind are ignored.
    fn renew(&self, _children: Children) {}

    /// How many runs to have at hand for each child, the present one included.
    fn window(&self) -> usize {
        1
    }

    /// Has the app told how a task ended that cannot tell it itself; `None` where nobody is told.
    fn tell(
        _crew: &Arc<Crew<Self>>,
        _mortem: PostMortem,
    ) -> Option<BoxFuture<'static, io::Result<Told>>>
    where
        Self: Sized,
    {
        None
    }

    /// Has the app's receivers hear of the worker; `None` where nobody listens.
    fn announce(_crew: &Arc<Crew<Self>>, _news: News) -> Option<BoxFuture<'static, ()>>
    where
        Self: Sized,
    {
        None
    }

    /// Frees what a channel needs only while a task runs.
    fn rest(&self, channel: &mut Self::Channel);
}

/// A child that has just been started.
#[derive(Debug)]
pub(super) struct Born<C> {
    pub(super) process: Arc<Process>,
    pub(super) output: Arc<Output>,
    pub(super) channel: C,
}

/// What a child answers to a hello.
pub(super) enum Greeting {
    Ready,
    /// It cannot run tasks, and says why.
    Refused(String),
    /// It has closed its end.
    Ended,
}

/// Why a conversation broke off.
#[derive(Debug)]
pub(super) enum Break {
    /// The child closed its end: it is dead or about to be.
    Closed,
    /// It must be killed for this.
    Kill(Killed),
}

impl Break {
    pub(super) fn broken(what: &dyn fmt::Display) -> Self {
        Self::Kill(Killed::Broken(format!("it cannot be understood: {what}")))
    }
}

/// The child is lost: how it ended says what that means.
pub(super) async fn lost<K: Kind>(held: Held<K>, speaker: &Speaker, why: Break) -> Outcome {
    let Some(exit) = exit_of(&held, why).await else { return undead() };
    let (task_id, task) = (&speaker.task_id, &speaker.task);
    let (child, reason) = (held.process.pid(), exit.reason());
    tracing::warn!(task_id, task, child, reason, "a child was lost while it ran a task");
    exit.outcome(held.output.last_words().await)
}

/// How a child ends with which a conversation broke off; `None` when it does not.
pub(super) async fn exit_of<K: Kind>(held: &Held<K>, why: Break) -> Option<Exit> {
    let process = &held.process;
    match why {
        Break::Kill(killed) => process.kill(killed),
        Break::Closed => {
            if tokio::time::timeout(DRAIN, process.exited()).await.is_err() {
                let what = "it closed its connection to the worker while the task ran";
                process.kill(Killed::Broken(what.to_owned()));
            }
        }
    }
    tokio::time::timeout(DEATH_PATIENCE, process.exited()).await.ok()
}

/// What becomes of a run whose child does not die.
pub(super) fn undead() -> Outcome {
    Outcome::Returned { reason: "its child does not die".to_owned(), begun: true }
}
