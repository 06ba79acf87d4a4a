//! The kinds of findings. A code keeps its meaning for ever; one that is not used any more stays away.

use super::Severity::{self, Error, Note, Warning};

/// A kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Its name, as `D-BROKER-EVICTION`.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Why it matters, in a sentence or two.
    pub why: &'static str,
    /// The traps of the seeds (`docs/seeds.md`) that are of this kind; empty where none is.
    pub traps: &'static [&'static str],
}

const fn code(
    name: &'static str,
    severity: Severity,
    traps: &'static [&'static str],
    why: &'static str,
) -> Code {
    Code { name, severity, why, traps }
}

/// The kind with this name.
pub fn find_code(name: &str) -> Option<&'static Code> {
    CODES.iter().find(|code| code.name == name)
}

/// All kinds, by name.
pub const CODES: &[Code] = &[
    code(
        "D-APP-BEAT-EXPIRES",
        Warning,
        &["T-30"],
        "An entry that comes often and never expires piles up while no worker is there or all are busy, \
         and then runs as often as it was due.",
    ),
    code(
        "D-APP-BEAT-UNREGISTERED",
        Error,
        &["T-05"],
        "Beat sends the name, and a worker that does not know it throws the message away.",
    ),
    code(
        "D-APP-ETA",
        Warning,
        &["T-42"],
        "Celery's workers hold a message with a time to come unacknowledged, and the broker gives it to \
         a second worker after the visibility timeout: the task runs several times.",
    ),
    code(
        "D-APP-LOAD",
        Error,
        &["T-01"],
        "An application that cannot be imported has no worker. Only its files could be checked.",
    ),
    code(
        "D-APP-PICKLE",
        Warning,
        &[],
        "Whoever can write to the broker can run any code in workers that read pickle.",
    ),
    code(
        "D-APP-POOL",
        Warning,
        &["T-40"],
        "A limit that the pool cannot enforce is no limit, and nobody is told.",
    ),
    code(
        "D-APP-PREFETCH",
        Warning,
        &[],
        "With late acknowledgement a worker holds prefetched tasks behind the one that runs, while other \
         workers are idle, and their time until redelivery runs meanwhile.",
    ),
    code(
        "D-APP-PRIORITY",
        Warning,
        &["T-65"],
        "On Redis 0 runs first and 9 last, and only the steps 0, 3, 6 and 9 differ; on RabbitMQ 9 runs \
         first, in queues with x-max-priority only. The same number turns round with the broker.",
    ),
    code(
        "D-APP-QUEUE-UNDECLARED",
        Warning,
        &["T-37"],
        "A worker without -Q consumes the declared queues only: what is sent elsewhere stays PENDING.",
    ),
    code(
        "D-APP-QUEUE-UNUSED",
        Note,
        &["T-37"],
        "A queue that nobody sends to does not prefer anything.",
    ),
    code(
        "D-APP-REDELIVERY",
        Warning,
        &["T-41"],
        "A task that kills its process is run again at once, for ever, and takes a worker's child with it \
         each time. celeriac's workers set it aside after three deaths; Celery's do not.",
    ),
    code("D-APP-REFUSED", Error, &[], "celeriac's worker does not start with this setting."),
    code("D-APP-RESULT-EXPIRY", Note, &[], "Results that never expire fill the result backend."),
    code(
        "D-APP-ROUTE-UNREGISTERED",
        Warning,
        &["T-05"],
        "A route for a name that no task has routes nothing; often the name was changed.",
    ),
    code(
        "D-APP-SHADOW",
        Error,
        &["T-01"],
        "Whichever of the two is imported first hides the other: Celery's own imports fail, or the \
         application's package is not found.",
    ),
    code(
        "D-APP-SOCKET",
        Note,
        &[],
        "A connection that a firewall has dropped without closing is never noticed: the worker looks \
         alive and runs nothing.",
    ),
    code(
        "D-APP-UNKNOWN-SETTING",
        Warning,
        &["T-33"],
        "Celery accepts any name and ignores what it does not know, so a typing error is silent.",
    ),
    code(
        "D-APP-VISIBILITY",
        Warning,
        &["T-42"],
        "A message that is not acknowledged within the visibility timeout is delivered a second time, \
         while the first run goes on.",
    ),
    code("D-BROKER-ANSWER", Error, &[], "Nothing works without the store."),
    code(
        "D-BROKER-CLOCK",
        Warning,
        &[],
        "Times of the store and of this machine differ: tasks with an ETA start early or late, and \
         messages expire early or late.",
    ),
    code("D-BROKER-DAMAGE", Error, &[], "What is stored does not agree with itself."),
    code(
        "D-BROKER-EVICTION",
        Error,
        &[],
        "When memory is full Redis deletes keys, and a whole queue is one key: all of its messages go at \
         once, without an error anywhere.",
    ),
    code(
        "D-BROKER-EVICTION-RESULTS",
        Warning,
        &[],
        "When memory is full Redis deletes keys that have a time to live: results go before their time.",
    ),
    code("D-BROKER-FORMAT", Error, &[], "This program cannot work with what is stored there."),
    code(
        "D-BROKER-LEFTOVERS",
        Note,
        &[],
        "Whoever asks workers and dies before it has read the answers leaves them behind; nothing else \
         removes them.",
    ),
    code(
        "D-BROKER-LOST-UNACKED",
        Warning,
        &[],
        "An unacknowledged message without a place in the index is never given back by Celery.",
    ),
    code(
        "D-BROKER-MEMORY",
        Warning,
        &[],
        "When memory is full Redis refuses every write, or deletes keys, as its policy says.",
    ),
    code(
        "D-BROKER-MIXED-PRIORITY",
        Warning,
        &["T-65"],
        "Messages without a priority count as 0, which runs first on Redis and last on RabbitMQ.",
    ),
    code(
        "D-BROKER-NO-CONSUMER",
        Warning,
        &["T-37"],
        "Messages wait in a queue that no worker consumes: their tasks stay PENDING for ever.",
    ),
    code(
        "D-BROKER-PASSWORD",
        Warning,
        &["T-45"],
        "Whoever reaches the broker can send tasks, which are code that workers run.",
    ),
    code(
        "D-BROKER-PERSISTENCE",
        Warning,
        &[],
        "What is queued is only in memory: a restart of the server loses it.",
    ),
    code("D-BROKER-REPLICA", Error, &[], "A replica takes no writes."),
    code(
        "D-BROKER-STALE-UNACKED",
        Warning,
        &[],
        "A worker of Celery took the message and neither ran nor returned it within the visibility \
         timeout: most likely it is dead, and nobody has given the message back yet.",
    ),
    code(
        "D-BROKER-TLS",
        Warning,
        &["T-45"],
        "Passwords and messages cross the network in the clear, or to whoever pretends to be the server.",
    ),
    code("D-BROKER-VERSION", Error, &[], "Scripts and commands that are needed are not there."),
    code(
        "D-BROKER-WORKERS-UNASKED",
        Note,
        &[],
        "Which queues Celery's workers consume is known to them alone, and asking them writes an inbox.",
    ),
    code("D-CODE-ASYNC", Note, &[], "Celery's own workers do not await a coroutine."),
    code(
        "D-CODE-AUTODISCOVER",
        Warning,
        &["T-05"],
        "Tasks that are not found are not registered, and their messages are thrown away.",
    ),
    code(
        "D-CODE-BOUND-CALL",
        Error,
        &["T-11"],
        "Outside a worker's hands a bound task has no request: its id is None, and update_state raises.",
    ),
    code(
        "D-CODE-ENV-BOOL",
        Warning,
        &["T-44"],
        "Two programs that read the same switch differently are in two modes at once.",
    ),
    code("D-CODE-ENV-NUMBER", Error, &["T-09"], "Variables of the environment are texts."),
    code(
        "D-CODE-ERROR-RESULT",
        Warning,
        &["T-12"],
        "State, retries, metrics and dead letters go by exceptions: a returned error is a success.",
    ),
    code("D-CODE-UNREAD", Note, &[], "What cannot be read was not checked."),
    code(
        "D-CODE-WAIT",
        Warning,
        &[],
        "Tasks that wait for tasks can fill all slots and wait for ever.",
    ),
    code(
        "D-ENV-COMMENT",
        Warning,
        &["T-43"],
        "The same file means different things to different readers.",
    ),
    code(
        "D-ENV-OVERRIDE",
        Note,
        &["T-36"],
        "Celery's CELERY_BROKER_URL and CELERY_RESULT_BACKEND are stronger than what code says.",
    ),
    code(
        "D-ENV-UNREAD",
        Warning,
        &["T-35"],
        "Somebody will change it and wonder why nothing changes.",
    ),
    code(
        "D-FILE-CREDENTIALS",
        Warning,
        &["T-45"],
        "Deployments run with the default, and Flower can revoke tasks and end workers.",
    ),
    code(
        "D-FILE-FLOWER",
        Warning,
        &["T-45"],
        "Flower shows arguments, and can revoke tasks and end workers.",
    ),
    code("D-FILE-OPEN", Warning, &["T-45"], "Whoever reaches the broker can send tasks."),
    code("D-FILE-YAML", Error, &["T-07"], "The command that runs is not the one that was written."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(CODES.windows(2).all(|pair| pair[0].name < pair[1].name), "{CODES:?}");
        for code in CODES {
            assert!(code.name.starts_with("D-") && code.why.ends_with('.'), "{code:?}");
        }
    }
}
