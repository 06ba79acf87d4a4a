//! `celeriac inspect` and `celeriac control`: what workers say and what they are told, stock workers
//! of Celery included. Spelling, options and texts are Celery's (celery 5.7.0 bin/control.py).

use super::Session;
use super::exit::Failed;
use super::output::plural;
use crate::remote::Ask;
use celeriac_core::control::{Argument, ArgumentKind, COMMANDS, Command};
use celeriac_wire::{Map, Value};
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

const INSPECT: &str = "Examples:
  celeriac inspect ping
  celeriac inspect active -d celery@web1,celery@web2
  celeriac inspect query_task 0193… 0193…
  celeriac inspect stats --json
  celeriac inspect --list

Exit code 69: no worker replied in time.";

const CONTROL: &str = "Examples:
  celeriac control rate_limit tasks.mail 10/m
  celeriac control add_consumer reports -d celery@web1
  celeriac control pool_grow 2
  celeriac control revoke 0193…
  celeriac control terminate SIGTERM 0193…
  celeriac control --list

Exit code 69: no worker replied in time. What was asked for may be done all the same.";

#[derive(Debug, Args)]
#[command(after_help = INSPECT)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    call: RemoteArgs,
}

#[derive(Debug, Args)]
#[command(after_help = CONTROL)]
pub(super) struct ControlArgs {
    #[command(flatten)]
    call: RemoteArgs,
}

#[derive(Debug, Args)]
struct RemoteArgs {
    /// The command
    #[arg(required_unless_present = "list")]
    command: Option<String>,
    /// Its arguments
    args: Vec<String>,
    /// List the commands and what they take
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    whom: WhomArgs,
}

/// Whom to ask and how to show it.
#[derive(Debug, Args)]
pub(super) struct WhomArgs {
    /// How long to wait for a reply; each reply begins the wait anew [default: 1s]
    #[arg(short = 't', long, value_name = "TIME")]
    timeout: Option<String>,
    /// Ask only these nodes, separated by commas
    #[arg(short = 'd', long, value_name = "NODES", value_delimiter = ',')]
    destination: Vec<String>,
    /// Print JSON, as --json does
    #[arg(short = 'j')]
    short_json: bool,
}

impl WhomArgs {
    /// Whether `-j` was given; the global flag is seen by everybody.
    pub(super) fn json(&self) -> bool {
        self.short_json
    }

    /// Whom to ask, for this time at least where no other is given.
    pub(super) fn ask(&self, least: Duration) -> Result<Ask, Failed> {
        let timeout = match &self.timeout {
            Some(text) => super::call::duration("--timeout", text)?,
            None => least.max(Ask::default().timeout),
        };
        let destination: Vec<String> =
            self.destination.iter().filter(|name| !name.is_empty()).cloned().collect();
        Ok(Ask { destination, timeout, ..Ask::default() })
    }
}

impl InspectArgs {
    /// Whether it prints JSON although the global flag does not say so.
    pub(super) fn json(&self) -> bool {
        self.call.whom.json()
    }
}

impl ControlArgs {
    /// Whether it prints JSON although the global flag does not say so.
    pub(super) fn json(&self) -> bool {
        self.call.whom.json()
    }
}

pub(super) async fn inspect(session: &Session, args: InspectArgs) -> Result<ExitCode, Failed> {
    run(session, args.call, true).await
}

pub(super) async fn control(session: &Session, args: ControlArgs) -> Result<ExitCode, Failed> {
    run(session, args.call, false).await
}

async fn run(session: &Session, args: RemoteArgs, inspects: bool) -> Result<ExitCode, Failed> {
    if args.list {
        list(session, inspects);
        return Ok(ExitCode::SUCCESS);
    }
    let command = find(args.command.as_deref().unwrap_or_default(), inspects)?;
    let arguments = compile(command, &args.args)?;
    let whom = args.whom.ask(command.timeout)?;
    session.expect_store()?;
    let remote = session.app.remote().await?;
    if command.name == "shutdown" {
        // It answers by ending.
        remote.cast(command.name, arguments, &whom).await?;
        let nodes = if whom.destination.is_empty() {
            "all workers".to_owned()
        } else {
            whom.destination.join(", ")
        };
        session.output.line(format!("{nodes} told to stop; no reply is sent"));
        session.output.value(&Value::Array(Vec::new()));
        return Ok(ExitCode::SUCCESS);
    }
    let replies = remote.ask(command.name, arguments, &whom).await?;
    if replies.is_empty() {
        return Err(no_reply(&whom));
    }
    session.output.value(&json(&replies, inspects));
    for (node, reply) in &replies {
        let (status, text) = pretty(reply);
        session.output.line(format!("->  {node}: {status}"));
        session.output.line(indent(&text, 4));
    }
    session.output.line(format!("\n{} online.", plural(replies.len() as u64, "node")));
    Ok(ExitCode::SUCCESS)
}

/// Nobody answered: Celery's text and exit code (`EX_UNAVAILABLE` of sysexits.h).
pub(super) fn no_reply(whom: &Ask) -> Failed {
    let hint = if whom.destination.is_empty() {
        "is a worker running on this store? `celeriac status` shows who was seen; busy machines need \
         a longer --timeout"
    } else {
        "`celeriac status` shows the names of the workers; busy machines need a longer --timeout"
    };
    Failed::no_reply("No nodes replied within time constraint").hint(hint)
}

/// Celery prints one object for `inspect` and a list of objects for `control`.
fn json(replies: &[(String, Value)], inspects: bool) -> Value {
    let pair = |(node, reply): &(String, Value)| (node.clone(), reply.clone());
    if inspects {
        return Value::Object(replies.iter().map(pair).collect());
    }
    replies.iter().map(|one| Value::Object(Map::from([pair(one)]))).collect()
}

fn find(name: &str, inspects: bool) -> Result<&'static Command, Failed> {
    let kind = |inspects| if inspects { "inspect" } else { "control" };
    let found = Command::find(name).filter(|command| command.visible);
    match found {
        Some(command) if command.inspects == inspects => Ok(command),
        Some(command) => Err(Failed::usage(format!("{name} is no {} command", kind(inspects)))
            .hint(format!("write `celeriac {} {name}`", kind(command.inspects)))),
        None => {
            let names: Vec<&str> = of_kind(inspects).map(|command| command.name).collect();
            let text = format!("Command {name} not recognized");
            Err(Failed::usage(text).hint(format!(
                "available {} commands: {}",
                kind(inspects),
                names.join(", ")
            )))
        }
    }
}

fn of_kind(inspects: bool) -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().filter(move |command| command.visible && command.inspects == inspects)
}

fn list(session: &Session, inspects: bool) {
    let row = |command: &Command| {
        let usage = format!("{} {}", command.name, command.signature);
        let fields = Map::from([
            ("name", command.name),
            ("signature", command.signature),
            ("help", command.help),
        ]);
        (vec![usage, command.help.to_owned()], Value::Object(fields))
    };
    session.output.list(&["COMMAND", "WHAT IT DOES"], of_kind(inspects).map(row).collect(), "");
}

/// Words become keyword arguments by their place, what is left the list of the last one.
fn compile(command: &Command, words: &[String]) -> Result<Map, Failed> {
    let mut arguments = Map::new();
    let mut words = words.iter();
    for argument in command.arguments {
        let Some(word) = words.next() else { break };
        arguments.insert(argument.name, convert(command, *argument, word)?);
    }
    let rest: Vec<&str> = words.map(String::as_str).collect();
    match command.variadic {
        Some(name) => drop(arguments.insert(name, rest.into_iter().collect::<Value>())),
        None if !rest.is_empty() => return Err(usage(command)),
        None => {}
    }
    let empty = |name: &&&str| match arguments.get(name) {
        None => true,
        Some(value) => value.as_array().is_some_and(<[Value]>::is_empty),
    };
    if command.required.iter().any(|name| empty(&name)) {
        return Err(usage(command));
    }
    Ok(arguments)
}

fn usage(command: &Command) -> Failed {
    let takes = if command.signature.is_empty() { "none" } else { command.signature };
    Failed::usage(format!("Command {:?} takes arguments: {takes}", command.name))
}

fn convert(command: &Command, argument: Argument, word: &str) -> Result<Value, Failed> {
    let wrong = |expected: &str| {
        let (name, command) = (argument.name, command.name);
        Failed::usage(format!("{command}: {name} is {expected}, not {word:?}"))
    };
    match argument.kind {
        ArgumentKind::Text => Ok(Value::from(word)),
        ArgumentKind::Integer => {
            word.parse::<i64>().map(Value::from).map_err(|_| wrong("a whole number"))
        }
        ArgumentKind::Float => match word.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::from(number)),
            _ => Err(wrong("a number of seconds")),
        },
        ArgumentKind::Flag => match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" | "on" => Ok(Value::from(true)),
            "false" | "no" | "0" | "off" => Ok(Value::from(false)),
            _ => Err(wrong("true or false")),
        },
    }
}

/// A reply for people: OK or ERROR, and its text.
fn pretty(reply: &Value) -> (&'static str, String) {
    match reply {
        Value::Array(items) if items.is_empty() => ("OK", "    - empty -".to_owned()),
        Value::Array(items) => {
            let mut text = String::new();
            for item in items {
                // Writing to a String cannot fail.
                let _infallible = writeln!(text, "* {}", plain(item));
            }
            ("OK", text)
        }
        Value::Object(map) => match (map.get("ok"), map.get("error")) {
            (Some(ok), _) => ("OK", indent(&pretty(ok).1, 4)),
            (None, Some(error)) => ("ERROR", indent(&pretty(error).1, 4)),
            (None, None) => ("OK", tree(reply, 0)),
        },
        Value::Null => ("OK", String::new()),
        other => ("OK", plain(other)),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// JSON with one member a line.
fn tree(value: &Value, depth: usize) -> String {
    let pad = |depth: usize| " ".repeat(depth * 4);
    let join = |lines: Vec<String>, open: char, close: char| {
        if lines.is_empty() {
            return format!("{open}{close}");
        }
        format!("{open}\n{}\n{}{close}", lines.join(",\n"), pad(depth))
    };
    match value {
        Value::Object(map) => {
            let line = |(name, value): (&str, &Value)| {
                let name = Value::from(name);
                format!("{}{name}: {}", pad(depth + 1), tree(value, depth + 1))
            };
            join(map.iter().map(line).collect(), '{', '}')
        }
        Value::Array(items) => {
            let line = |item| format!("{}{}", pad(depth + 1), tree(item, depth + 1));
            join(items.iter().map(line).collect(), '[', ']')
        }
        other => other.to_string(),
    }
}

fn indent(text: &str, columns: usize) -> String {
    let pad = " ".repeat(columns);
    text.lines().map(|line| format!("{pad}{line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(name: &str, words: &[&str]) -> Result<String, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        compile(Command::find(name).unwrap(), &words)
            .map(|map| map.to_string())
            .map_err(|failed| failed.message)
    }

    #[test]
    fn words_become_the_arguments_that_celery_sends() {
        for (name, words, expected) in [
            ("ping", &[][..], "{}"),
            ("pool_grow", &["3"], "{\"n\": 3}"),
            ("pool_grow", &[], "{}"),
            (
                "time_limit",
                &["t", "5", "10"],
                "{\"task_name\": \"t\", \"soft\": 5.0, \"hard\": 10.0}",
            ),
            ("revoke", &["a", "b"], "{\"task_id\": [\"a\", \"b\"]}"),
            ("terminate", &["KILL", "a"], "{\"signal\": \"KILL\", \"task_id\": [\"a\"]}"),
            ("conf", &["yes"], "{\"with_defaults\": true}"),
            ("registered", &[], "{\"taskinfoitems\": []}"),
            ("autoscale", &["4", "1"], "{\"max\": 4, \"min\": 1}"),
        ] {
            assert_eq!(compiled(name, words).as_deref(), Ok(expected), "{name}");
        }
        for (name, words) in [
            ("ping", &["x"][..]),
            ("revoke", &[]),
            ("terminate", &["KILL"]),
            ("rate_limit", &["t"]),
            ("pool_grow", &["many"]),
            ("time_limit", &["t", "inf"]),
            ("conf", &["maybe"]),
        ] {
            assert!(compiled(name, words).is_err(), "{name} {words:?}");
        }
    }

    #[test]
    fn replies_read_like_celerys() {
        let shown = |text: &str| {
            let (status, text) = pretty(&Value::parse(text.as_bytes()).unwrap());
            format!("{status} {text}")
        };
        for (reply, expected) in [
            ("{\"ok\": \"pong\"}", "OK     pong"),
            ("{\"error\": \"no\"}", "ERROR     no"),
            ("[]", "OK     - empty -"),
            ("[\"a\", {\"b\": 1}]", "OK * a\n* {\"b\": 1}\n"),
            ("null", "OK "),
            ("\"59MB\"", "OK 59MB"),
            ("{\"a\": [1], \"b\": {}}", "OK {\n    \"a\": [\n        1\n    ],\n    \"b\": {}\n}"),
        ] {
            assert_eq!(shown(reply), expected);
        }
    }
}
