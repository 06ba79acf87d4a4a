//! `celeriac events`: what happens, as it happens (celery 5.7.0 events/dumper.py).

use super::Session;
use super::exit::Failed;
use crate::remote::Ask;
use celeriac_wire::{Event, Map, Value};
use clap::Args;
use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  celeriac events --dump
  celeriac events --json --type 'task-*' | jq .uuid
  celeriac events --count 100 --for 10s

Ends with Ctrl-C. Events of the time before are with their tasks: celeriac task show ID";

/// The most task names that are remembered for later events of the same task.
const NAMES_MAX: usize = 10_000;
/// The pause before a failed stream is asked again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EventsArgs {
    /// Print every event (Celery's; there is no other way to look here)
    #[arg(short = 'd', long)]
    dump: bool,
    /// Only events of this type, or of types that begin so when it ends in *
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// End after so many events
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<usize>,
    /// End after this time
    #[arg(long = "for", value_name = "TIME")]
    span: Option<String>,
    /// Celery's snapshot cameras are Python classes; refused
    #[arg(short = 'c', long, value_name = "CLASS", hide = true)]
    camera: Option<String>,
}

pub(super) async fn run(session: &Session, args: EventsArgs) -> Result<ExitCode, Failed> {
    if let Some(camera) = &args.camera {
        return Err(Failed::usage(format!("--camera {camera}: cameras are Python classes"))
            .hint("use `celery events -c` on this broker, or read `celeriac events --json`"));
    }
    let span = args.span.as_deref().map(|text| super::call::duration("--for", text)).transpose()?;
    session.expect_store()?;
    let watching = watch(session, &args);
    match span {
        None => watching.await,
        Some(span) => match tokio::time::timeout(span, watching).await {
            Ok(ended) => ended,
            Err(_elapsed) => Ok(ExitCode::SUCCESS),
        },
    }
}

async fn watch(session: &Session, args: &EventsArgs) -> Result<ExitCode, Failed> {
    let store = session.app.store().await?;
    let mut stream = store.watch_events().await?;
    // Workers show themselves, as for every new monitor (celery 5.7.0 events/receiver.py).
    session.app.remote().await?.cast("heartbeat", Map::new(), &Ask::default()).await?;
    session.output.note("-> evdump: starting capture...");
    let mut names = Names::default();
    let mut left = args.count.unwrap_or(usize::MAX);
    while left > 0 {
        let events = match stream.next().await {
            Ok(events) => events,
            Err(error) => {
                session.output.warn(format!("events are interrupted, trying again: {error}"));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        for event in events {
            let line = names.line(&event);
            if !wanted(&event, args.kind.as_deref()) {
                continue;
            }
            session.output.line(line);
            session.output.value(&Value::from(event));
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn wanted(event: &Event, kind: Option<&str>) -> bool {
    let of = event.kind().unwrap_or_default();
    match kind {
        None => true,
        Some(kind) => match kind.strip_suffix('*') {
            Some(start) => of.starts_with(start),
            None => of == kind,
        },
    }
}

/// The tasks that were seen, so that their later events name them.
#[derive(Debug, Default)]
struct Names {
    order: VecDeque<String>,
    names: std::collections::BTreeMap<String, String>,
}

impl Names {
    fn line(&mut self, event: &Event) -> String {
        let kind = event.kind().unwrap_or("unknown");
        let mut fields = event.as_map().clone();
        for name in ["timestamp", "type", "hostname"] {
            drop(fields.remove(name));
        }
        let mut task = String::new();
        if kind.starts_with("task-") {
            let id = fields.remove("uuid").map(|id| plain(&id)).unwrap_or_default();
            if matches!(kind, "task-received" | "task-sent") {
                let mut take = |name| fields.remove(name).map(|v| plain(&v)).unwrap_or_default();
                let (name, args, kwargs) = (take("name"), take("args"), take("kwargs"));
                self.remember(&id, format!("{name}({id}) args={args} kwargs={kwargs}"));
            }
            task = self.names.get(&id).cloned().unwrap_or(id);
            task.push(' ');
        }
        let mut shown: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
        shown.sort();
        let colon = if shown.is_empty() { "" } else { ":" };
        let at = event
            .instant()
            .map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%S.%6f+00:00").to_string());
        let words = match kind {
            "worker-online" => "started".to_owned(),
            "worker-offline" => "shutdown".to_owned(),
            "worker-heartbeat" => "heartbeat".to_owned(),
            kind => kind.to_lowercase().replace('-', " "),
        };
        let host = event.hostname().unwrap_or_default();
        format!("{host} [{at}] {words}{colon} {task}{}", shown.join(", "))
    }

    fn remember(&mut self, id: &str, name: String) {
        if self.names.insert(id.to_owned(), name).is_none() {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > NAMES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            drop(self.names.remove(&oldest));
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| celeriac_wire::value_repr(value), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        Event::from_map(Value::parse(text.as_bytes()).unwrap().as_object().unwrap().clone())
    }

    #[test]
    fn lines_are_those_of_celerys_dumper() {
        let mut names = Names::default();
        let received = r#"{"hostname": "w@h", "clock": 3, "uuid": "u1", "name": "t.add",
            "args": "(1,)", "kwargs": "{}", "eta": null, "timestamp": 1795226408.25,
            "type": "task-received"}"#;
        assert_eq!(
            names.line(&event(received)),
            "w@h [2026-11-21 02:00:08.250000+00:00] task received: t.add(u1) args=(1,) kwargs={} \
             clock=3, eta=None"
        );
        let started = r#"{"hostname": "w@h", "uuid": "u1", "timestamp": 1795226409.0,
            "type": "task-started", "clock": 4}"#;
        assert_eq!(
            names.line(&event(started)),
            "w@h [2026-11-21 02:00:09.000000+00:00] task started: t.add(u1) args=(1,) kwargs={} clock=4"
        );
        let online = r#"{"hostname": "w@h", "timestamp": 1795226409.0, "type": "worker-online"}"#;
        assert_eq!(names.line(&event(online)), "w@h [2026-11-21 02:00:09.000000+00:00] started ");
    }

    #[test]
    fn types_are_chosen_by_name_or_beginning() {
        let started = event(r#"{"type": "task-started"}"#);
        for (kind, expected) in [
            (None, true),
            (Some("task-*"), true),
            (Some("*"), true),
            (Some("task-started"), true),
            (Some("task"), false),
            (Some("worker-*"), false),
        ] {
            assert_eq!(wanted(&started, kind), expected, "{kind:?}");
        }
    }
}
