//! The commands of remote control: names, arguments and how the command line spells them.
//!
//! celery 5.7.0 worker/control.py (wire specification 7.4). Node and command line read one table, so
//! that what can be asked can be answered.

use std::time::Duration;

/// What a word of the command line becomes as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentKind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number of seconds.
    Float,
    /// Yes or no, as Celery's `strtobool` reads it.
    Flag,
}

/// An argument that the command line gives by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its keyword on the wire.
    pub name: &'static str,
    /// How the word is read.
    pub kind: ArgumentKind,
}

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name on the wire.
    pub name: &'static str,
    /// An older name that means the same.
    pub alias: Option<&'static str>,
    /// Whether it only looks (`celery inspect`) or changes something (`celery control`).
    pub inspects: bool,
    /// Whether lists show it.
    pub visible: bool,
    /// How long the command line waits for replies when it is not told.
    pub timeout: Duration,
    /// Its arguments for people.
    pub signature: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Arguments by their place.
    pub arguments: &'static [Argument],
    /// The argument that takes all further words, as a list.
    pub variadic: Option<&'static str>,
    /// Arguments without which it is refused.
    pub required: &'static [&'static str],
    /// All keywords that it takes, where it refuses others; Celery's handlers ignore them otherwise.
    pub strict: Option<&'static [&'static str]>,
}

impl Command {
    /// The command of this name or older name.
    pub fn find(name: &str) -> Option<&'static Self> {
        COMMANDS.iter().find(|command| command.name == name || command.alias == Some(name))
    }

    const fn new(inspects: bool, name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            alias: None,
            inspects,
            visible: true,
            timeout: Duration::from_secs(1),
            signature: "",
            help,
            arguments: &[],
            variadic: None,
            required: &[],
            strict: None,
        }
    }

    const fn alias(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    const fn words(mut self, signature: &'static str, arguments: &'static [Argument]) -> Self {
        self.signature = signature;
        self.arguments = arguments;
        self
    }

    const fn all(mut self, signature: &'static str, variadic: &'static str) -> Self {
        self.signature = signature;
        self.variadic = Some(variadic);
        self
    }

    const fn needs(mut self, required: &'static [&'static str]) -> Self {
        self.required = required;
        self
    }

    const fn takes_only(mut self, keywords: &'static [&'static str]) -> Self {
        self.strict = Some(keywords);
        self
    }
}

const fn inspect(name: &'static str, help: &'static str) -> Command {
    Command::new(true, name, help)
}

const fn control(name: &'static str, help: &'static str) -> Command {
    Command::new(false, name, help)
}

const fn text(name: &'static str) -> Argument {
    Argument { name, kind: ArgumentKind::Text }
}

const fn integer(name: &'static str) -> Argument {
    Argument { name, kind: ArgumentKind::Integer }
}

const fn float(name: &'static str) -> Argument {
    Argument { name, kind: ArgumentKind::Float }
}

const IDS: &str = "[id1 [id2 [... [idN]]]]";

/// Every command that a node answers, sorted by name.
pub const COMMANDS: &[Command] = &[
    inspect("active", "List of tasks currently being executed.").alias("dump_active"),
    inspect("active_queues", "List the task queues a worker is currently consuming from.")
        .takes_only(&[]),
    control("add_consumer", "Tell worker(s) to consume from task queue by name.")
        .words(
            "<queue> [exchange [type [routing_key]]]",
            &[text("queue"), text("exchange"), text("exchange_type"), text("routing_key")],
        )
        .needs(&["queue"]),
    control("autoscale", "Modify autoscale settings.")
        .words("[max [min]]", &[integer("max"), integer("min")])
        .takes_only(&["max", "min"]),
    control("cancel_consumer", "Tell worker(s) to stop consuming from task queue by name.")
        .words("<queue>", &[text("queue")])
        .needs(&["queue"]),
    inspect("clock", "Get current logical clock value."),
    inspect("conf", "List configuration.").alias("dump_conf").words(
        "[include_defaults=False]",
        &[Argument { name: "with_defaults", kind: ArgumentKind::Flag }],
    ),
    control("disable_events", "Tell worker(s) to stop sending task-related events.")
        .takes_only(&[]),
    control("election", "Hold election.").needs(&["id", "topic"]),
    control("enable_events", "Tell worker(s) to send task-related events.").takes_only(&[]),
    control("heartbeat", "Tell worker(s) to send event heartbeat immediately.").takes_only(&[]),
    Command {
        visible: false,
        ..inspect("hello", "Request mingle sync-data.").needs(&["from_node"])
    },
    inspect("memdump", "Dump statistics of previous memsample requests.")
        .words("[n_samples=10]", &[integer("samples")]),
    inspect("memsample", "Sample current RSS memory usage."),
    Command {
        timeout: Duration::from_mins(1),
        ..inspect("objgraph", "Create graph of uncollected objects (memory-leak debugging).").words(
            "[object_type=Request] [num=200 [max_depth=10]]",
            &[text("type"), integer("num"), integer("max_depth")],
        )
    },
    Command { timeout: Duration::from_millis(200), ..inspect("ping", "Ping worker(s).") },
    control("pool_grow", "Grow pool by n processes/threads.").words("[N=1]", &[integer("n")]),
    control("pool_restart", "Restart execution pool."),
    control("pool_shrink", "Shrink pool by n processes/threads.").words("[N=1]", &[integer("n")]),
    inspect("query_task", "Query for task information by id.").all(IDS, "ids").needs(&["ids"]),
    control("rate_limit", "Tell worker(s) to modify the rate limit for a task by type.")
        .words(
            "<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
            &[text("task_name"), text("rate_limit")],
        )
        .needs(&["task_name", "rate_limit"]),
    inspect("registered", "List of registered tasks.")
        .alias("dump_tasks")
        .all("[attr1 [attr2 [... [attrN]]]]", "taskinfoitems"),
    inspect("report", "Information about Celery installation for bug reports.").takes_only(&[]),
    inspect("reserved", "List of currently reserved tasks, not including scheduled/active.")
        .alias("dump_reserved"),
    control("revoke", "Revoke task by task id (or list of ids).")
        .all(IDS, "task_id")
        .needs(&["task_id"]),
    control("revoke_by_stamped_headers", "Revoke task by header (or list of headers).")
        .all("[key1=value1 [key2=value2 [... [keyN=valueN]]]]", "headers")
        .needs(&["headers"]),
    inspect("revoked", "List of revoked task-ids.").alias("dump_revoked"),
    inspect("scheduled", "List of currently scheduled ETA/countdown tasks.").alias("dump_schedule"),
    control("shutdown", "Shutdown worker(s)."),
    inspect("stats", "Request worker statistics/information."),
    control("terminate", "Terminate task by task id (or list of ids).")
        .words("<signal> [id1 [id2 [... [idN]]]]", &[text("signal")])
        .all("<signal> [id1 [id2 [... [idN]]]]", "task_id")
        .needs(&["signal", "task_id"]),
    control("time_limit", "Tell worker(s) to modify the time limit for task by type.").words(
        "<task_name> <soft_secs> [hard_secs]",
        &[text("task_name"), float("soft"), float("hard")],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_sorted_and_found_by_both_names() {
        assert!(COMMANDS.is_sorted_by_key(|command| command.name));
        assert_eq!(Command::find("dump_tasks").map(|command| command.name), Some("registered"));
        assert_eq!(Command::find("nosuch"), None);
    }
}
