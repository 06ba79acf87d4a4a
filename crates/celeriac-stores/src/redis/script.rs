//! The Lua scripts, each the one atomic step of what it is named after.
//!
//! A script is the text of `lua/prelude.lua` and its own file. It gets one argument, a `MessagePack` map
//! (see [`super::pack`]); the fields are described at the head of each file.

use redis::Cmd;
use std::sync::LazyLock;

const PRELUDE: &str = include_str!("lua/prelude.lua");

/// A script and its name in the server's cache.
#[derive(Debug)]
pub(super) struct Script {
    text: String,
    sha: String,
}

impl Script {
    fn new(body: &str) -> Self {
        let text = format!("{PRELUDE}\n{body}");
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Self { text, sha }
    }

    /// The call by its hash.
    pub(super) fn evaluate(&self, argument: &[u8]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha).arg(0).arg(argument);
        command
    }

    /// The command that makes the hash known.
    pub(super) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.text);
        command
    }
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $(
            $(#[$doc])*
            pub(super) static $name: LazyLock<Script> =
                LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file))));
        )*
    };
}

scripts! {
    /// Writes plans and settlements.
    COMMIT = "commit.lua";
    /// Takes messages.
    FETCH = "fetch.lua";
    /// Notes what runs.
    MARK = "mark.lua";
    /// A command in the database of results.
    RESULTS = "results.lua";
    /// Stores states of running tasks.
    STATE = "state.lua";
    /// Forgets windows of unique tasks.
    FORGET = "forget.lua";
    /// Keeps and publishes events.
    EVENTS = "events.lua";
    /// Registers, renews and signs off nodes, and finds dead ones.
    NODES = "nodes.lua";
    /// Rules, pauses and revocations.
    CONTROL = "control.lua";
    /// Entries of schedules, who leads, and how occurrences ended.
    SCHEDULE = "schedule.lua";
    /// Entries that are shared with RedBeat, and its lock.
    REDBEAT = "redbeat.lua";
    /// Dead letters.
    DEAD = "dead.lua";
    /// Puts everything into the lists of stock workers.
    RELEASE = "release.lua";
    /// Takes back what stock workers left.
    RESTORE = "restore.lua";
    /// Compares what is counted with what is there.
    CHECK = "check.lua";
    /// Leases waiting messages for a node that moves them.
    HOLD = "hold.lua";
    /// Removes waiting messages.
    REMOVE = "remove.lua";
    /// Opens and closes inboxes, and sends replies to them.
    MAILBOX = "mailbox.lua";
}
