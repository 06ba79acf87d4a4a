//! Commands of Celery that are not here, and where their work is done.

use super::exit::Failed;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The command, why it is not here, and what to do instead.
const COMMANDS: [(&str, &str, &str); 7] = [
    (
        "amqp",
        "a shell for RabbitMQ's protocol is not celeriac's to be",
        "look at queues with `celeriac queue`; RabbitMQ has `rabbitmqadmin`, and `celery amqp` works as before",
    ),
    (
        "graph",
        "it draws the boot steps of Celery's worker, which celeriac's does not have",
        "see workers and what they run with `celeriac status` and `celeriac top`",
    ),
    (
        "logtool",
        "it reads the text of Celery's log lines",
        "write logs for programs with `--log-format json`, or see what happens with `celeriac events`",
    ),
    (
        "multi",
        "keeping programs running is the system's work",
        "start each worker as a unit of systemd or a container, `celeriac worker -n NAME@%h`; one worker \
         uses all cores with `-c` or `--autoscale`",
    ),
    (
        "rollout",
        "this version has no rollouts yet",
        "move a queue at a time: celeriac's and stock workers can share it, and it can go back at any time",
    ),
    (
        "shell",
        "a Python shell is Python's",
        "`celery -A APP shell` works as before; `celeriac call` sends a task, `celeriac result` reads it",
    ),
    (
        "upgrade",
        "it rewrites old names of settings in a Python file, once",
        "run `celery upgrade settings FILE`; `celeriac -A APP doctor` names settings that are old or unknown",
    ),
];

/// What is said of a command line that names such a command.
pub(super) fn of(error: &clap::Error) -> Option<Failed> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let (name, why, instead) = COMMANDS.iter().find(|(known, ..)| known == name)?;
    Some(Failed::usage(format!("there is no `celeriac {name}`: {why}")).hint(*instead))
}
