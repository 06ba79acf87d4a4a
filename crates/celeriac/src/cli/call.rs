//! `celeriac call`.

use super::Session;
use super::exit::Failed;
use super::output::object;
use crate::call::Call;
use celeriac_wire::Value;
use celeriac_wire::codec::{Compression, Serializer};
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  celeriac call tasks.add -a '[2, 3]' --wait 10s
  celeriac call reports.build -k '{\"month\": \"2026-11\"}' --countdown 5m --queue reports
  celeriac call tasks.add -a '[1, 1]' --eta 2030-01-01T00:00:00+00:00 --priority high";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CallArgs {
    /// The task's name
    task: String,
    /// Positional arguments, a JSON array
    #[arg(short = 'a', long, value_name = "JSON", default_value = "[]")]
    args: String,
    /// Keyword arguments, a JSON object
    #[arg(short = 'k', long, value_name = "JSON", default_value = "{}")]
    kwargs: String,
    /// Run it after this time at the earliest
    #[arg(long, value_name = "TIME", conflicts_with = "eta")]
    countdown: Option<String>,
    /// Run it at this ISO 8601 instant at the earliest
    #[arg(long, value_name = "INSTANT")]
    eta: Option<String>,
    /// Drop it when it has not begun by then: a time from now, or an ISO 8601 instant
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Send it to this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Send it to this exchange
    #[arg(long, value_name = "EXCHANGE")]
    exchange: Option<String>,
    /// The routing key for the exchange
    #[arg(long, value_name = "KEY")]
    routing_key: Option<String>,
    /// Write the body as json, msgpack or yaml
    #[arg(long, value_name = "NAME")]
    serializer: Option<Serializer>,
    /// Compress the body with gzip, bzip2, lzma, brotli or zstd
    #[arg(long, value_name = "NAME")]
    compression: Option<Compression>,
    /// critical, high, normal or low
    #[arg(long, value_name = "LEVEL")]
    priority: Option<crate::Priority>,
    /// Use this id
    #[arg(long, value_name = "ID")]
    task_id: Option<String>,
    /// Store no result
    #[arg(long)]
    ignore_result: bool,
    /// Wait so long for the result and print it
    #[arg(long, value_name = "TIME")]
    wait: Option<String>,
}

pub(super) async fn run(session: &Session, args: CallArgs) -> Result<ExitCode, Failed> {
    let wait = args.wait.as_deref().map(|text| duration("--wait", text)).transpose()?;
    let client = session.app.client().await?;
    let job = client.send(build(&args)?).await?;
    let Some(wait) = wait else {
        session.output.value(&object([("task_id", Value::from(job.id()))]));
        session.output.line(job.id());
        return Ok(ExitCode::SUCCESS);
    };
    let value: Value = job.get(wait).await?;
    session.output.value(&object([("task_id", Value::from(job.id())), ("result", value.clone())]));
    session.output.line(value.to_string());
    Ok(ExitCode::SUCCESS)
}

fn build(args: &CallArgs) -> Result<Call<Value>, Failed> {
    let mut call = Call::named(&args.task);
    let positional = parse("--args", "an array, e.g. '[2, 3]'", &args.args)?;
    let Value::Array(positional) = positional else {
        return Err(Failed::usage(format!(
            "--args must be a JSON array, not {}",
            positional.describe()
        )));
    };
    for value in &positional {
        call = call.arg(value);
    }
    let keywords = parse("--kwargs", "an object, e.g. '{\"x\": 1}'", &args.kwargs)?;
    let Value::Object(keywords) = keywords else {
        return Err(Failed::usage(format!(
            "--kwargs must be a JSON object, not {}",
            keywords.describe()
        )));
    };
    for (name, value) in keywords.iter() {
        call = call.kwarg(name, value);
    }
    if let Some(text) = &args.countdown {
        call = call.countdown(duration("--countdown", text)?);
    }
    if let Some(text) = &args.eta {
        call = call.eta(instant("--eta", text)?);
    }
    if let Some(text) = &args.expires {
        call = match crate::config::parse_duration(text) {
            Ok(span) => call.expires_in(span),
            Err(_) => call.expires_at(instant("--expires", text)?),
        };
    }
    if let Some(queue) = &args.queue {
        call = call.queue(queue);
    }
    if let Some(exchange) = &args.exchange {
        call = call.exchange(exchange);
    }
    if let Some(key) = &args.routing_key {
        call = call.routing_key(key);
    }
    if let Some(serializer) = args.serializer {
        call = call.serializer(serializer);
    }
    if let Some(compression) = args.compression {
        call = call.compression(compression);
    }
    if let Some(level) = args.priority {
        call = call.priority(level);
    }
    if let Some(id) = &args.task_id {
        call = call.task_id(id);
    }
    Ok(if args.ignore_result { call.ignore_result() } else { call })
}

pub(super) fn parse(flag: &str, wanted: &str, text: &str) -> Result<Value, Failed> {
    Value::parse(text.as_bytes()).map_err(|error| {
        Failed::usage(format!("{flag} is not JSON: {error}")).hint(format!("give {wanted}"))
    })
}

pub(super) fn duration(flag: &str, text: &str) -> Result<Duration, Failed> {
    crate::config::parse_duration(text).map_err(|error| Failed::usage(format!("{flag}: {error}")))
}

fn instant(flag: &str, text: &str) -> Result<jiff::Timestamp, Failed> {
    celeriac_wire::parse_iso(text).map_err(|error| {
        Failed::usage(format!("{flag}: {error}")).hint("write 2026-11-21T18:00:00+00:00")
    })
}
