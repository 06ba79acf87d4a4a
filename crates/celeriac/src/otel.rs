//! Spans for OpenTelemetry: one for each message that is sent and one for each run, over OTLP.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) turns them on; the other standard
//! variables say the rest. They go out from a thread of its own, in batches: a collector that is slow or gone
//! holds up no task, and what has no room any more is dropped and counted in the log.

use crate::client::SendError;
use crate::config::foreign as variable;
use celeriac_core::clock::Entropy as _;
use celeriac_core::conclude::Verdict;
use celeriac_core::outcome::Failure;
use celeriac_core::store::{Outgoing, Plan, Published};
use celeriac_core::trace::TraceContext;
use celeriac_runtime::{Notice, Observer, OsEntropy};
use jiff::Timestamp;
use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// The most spans that wait for the collector; further ones are dropped.
const SPANS_MAX: usize = 8192;
/// The most spans of one request.
const BATCH_MAX: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the collector.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);
/// How long a request may take where `OTEL_EXPORTER_OTLP_TIMEOUT` says nothing.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Sends what is left to the collector: at the end of a program. Returns after 2 s at the latest, and at once
/// where nothing is exported.
pub async fn flush() {
    let Some(spans) = EXPORTED.get().and_then(Option::as_ref) else { return };
    let (done, answer) = oneshot::channel();
    let asked = async {
        if spans.sender.send(Item::Flush(done)).await.is_ok() {
            // An exporter that has ended has nothing left.
            let _ended = answer.await;
        }
    };
    if tokio::time::timeout(FLUSH_DEADLINE, asked).await.is_err() {
        tracing::warn!("the last spans did not reach the OpenTelemetry collector in time");
    }
}

/// Hears of runs, if spans are exported.
pub(crate) fn observer() -> Option<Arc<dyn Observer>> {
    exported().map(|spans| spans as Arc<dyn Observer>)
}

/// Sends a plan; each of its messages belongs to the span of its sending from then on.
pub(crate) async fn sending<F>(
    mut plan: Plan,
    now: Timestamp,
    send: impl FnOnce(Plan) -> F,
) -> Result<Published, SendError>
where
    F: Future<Output = Result<Published, SendError>>,
{
    let Some(spans) = exported() else { return send(plan).await };
    let open: Vec<SpanData> =
        plan.publish.iter_mut().filter_map(|one| spans.begin_sending(one, now)).collect();
    let began = tokio::time::Instant::now();
    let outcome = send(plan).await;
    let end_time = SystemTime::from(now) + began.elapsed();
    let status = match &outcome {
        Ok(_) => Status::Unset,
        Err(error) => Status::error(error.to_string()),
    };
    for span in open {
        spans.export(SpanData { end_time, status: status.clone(), ..span });
    }
    outcome
}

static EXPORTED: OnceLock<Option<Arc<Spans>>> = OnceLock::new();

/// The exporter of this process; made when it is first needed.
fn exported() -> Option<Arc<Spans>> {
    EXPORTED.get_or_init(Spans::start).clone()
}

enum Item {
    Span(Box<SpanData>),
    Flush(oneshot::Sender<()>),
}

/// Where spans go.
#[derive(Debug)]
struct Spans {
    sender: mpsc::Sender<Item>,
    sampler: Sampler,
    dropped: AtomicU64,
}

/// Which traces that begin here are recorded; one that comes from elsewhere says so itself.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sampler(f64);

impl Sampler {
    /// By the names of OpenTelemetry. Those with `parentbased_` and without are one: a task always goes on
    /// with the decision of its sender.
    fn of(name: Option<&str>, argument: Option<&str>) -> Result<Self, String> {
        let name = name.unwrap_or("parentbased_always_on");
        match name.strip_prefix("parentbased_").unwrap_or(name) {
            "always_on" => Ok(Self(1.0)),
            "always_off" => Ok(Self(0.0)),
            "traceidratio" => {
                let ratio = argument.unwrap_or("1").parse().ok();
                ratio.filter(|ratio| (0.0..=1.0).contains(ratio)).map(Self).ok_or_else(|| {
                    "OTEL_TRACES_SAMPLER_ARG is no ratio; write a number from 0 to 1".to_owned()
                })
            }
            _ => Err(format!(
                "OTEL_TRACES_SAMPLER is {name:?}; write always_on, always_off or traceidratio"
            )),
        }
    }

    fn takes(self, random: u64) -> bool {
        (random >> 11) as f64 / (1_u64 << 53) as f64 <= self.0 && self.0 > 0.0
    }
}

impl Spans {
    fn start() -> Option<Arc<Self>> {
        let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"))?;
        let off = variable("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
        if off {
            return None;
        }
        let (name, ratio) = (variable("OTEL_TRACES_SAMPLER"), variable("OTEL_TRACES_SAMPLER_ARG"));
        let timeout = variable("OTEL_EXPORTER_OTLP_TIMEOUT").and_then(|millis| millis.parse().ok());
        let timeout = timeout.map_or(REQUEST_DEADLINE, Duration::from_millis);
        let started = Sampler::of(name.as_deref(), ratio.as_deref()).and_then(|sampler| {
            let exporter = exporter(&endpoint, timeout)?;
            let (sender, receiver) = mpsc::channel(SPANS_MAX);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            std::thread::Builder::new()
                .name("celeriac-otel".to_owned())
                .spawn(move || runtime.block_on(export(&exporter, receiver)))
                .map_err(|error| error.to_string())?;
            Ok(Arc::new(Self { sender, sampler, dropped: AtomicU64::new(0) }))
        });
        started.inspect_err(|error| tracing::error!(error, "no spans are exported")).ok()
    }

    fn export(&self, span: SpanData) {
        if self.sender.try_send(Item::Span(Box::new(span))).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "spans are dropped: the collector does not keep up");
            }
        }
    }

    /// Gives a message its place in a trace; the span of its sending, if that is recorded.
    fn begin_sending(&self, outgoing: &mut Outgoing, now: Timestamp) -> Option<SpanData> {
        let parent = TraceContext::of(&outgoing.message.headers);
        let here = if let Some(parent) = &parent {
            parent.at(OsEntropy.next_u64())?
        } else {
            let halves = [OsEntropy.next_u64(), OsEntropy.next_u64()].map(u128::from);
            let sampled = self.sampler.takes(OsEntropy.next_u64());
            TraceContext::root(halves[0] << 64 | halves[1], OsEntropy.next_u64(), sampled)?
        };
        here.write(&mut outgoing.message.headers);
        let headers = &outgoing.message.headers;
        let mut attributes = shared("send", "send", outgoing.queue.as_str(), headers);
        attributes
            .push(KeyValue::new("messaging.message.body.size", outgoing.message.body.len() as i64));
        let name = format!("send {}", outgoing.queue);
        here.is_sampled().then(|| {
            let span =
                Span { here: &here, parent: parent.as_ref(), kind: SpanKind::Producer, name };
            span.data(attributes, SystemTime::from(now), SystemTime::from(now))
        })
    }
}

impl Observer for Spans {
    fn notice(&self, notice: Notice) {
        let Notice::Ended { delivery, verdict, at, runtime, worker } = notice else { return };
        // What was never begun has not run.
        if runtime.is_zero() {
            return;
        }
        let headers = &delivery.message.headers;
        let Some(parent) = TraceContext::of(headers).filter(TraceContext::is_sampled) else {
            return;
        };
        let here = match &verdict {
            // The same message runs again, and its last run is the one that what it sends belongs to.
            Verdict::Returned | Verdict::ChildLost(_) => parent.at(OsEntropy.next_u64()),
            _ => TraceContext::of_run(headers),
        };
        let Some(here) = here else { return };
        let queue = delivery.queue.as_str();
        let mut attributes = shared("process", "run", queue, headers);
        attributes.push(KeyValue::new("messaging.client.id", worker.to_string()));
        let (outcome, failure) = outcome(&verdict);
        attributes.push(KeyValue::new("celeriac.task.outcome", outcome));
        let name = format!("run {}", headers.task().unwrap_or(queue));
        let span = Span { here: &here, parent: Some(&parent), kind: SpanKind::Consumer, name };
        let end = SystemTime::from(at);
        let mut data = span.data(attributes, end - runtime, end);
        if let Some(failure) = failure {
            let exception = &failure.exception;
            let kind = exception.exc_type.clone();
            data.attributes.push(KeyValue::new("error.type", kind.clone()));
            data.status = Status::error(exception.summary());
            let about = vec![
                KeyValue::new("exception.type", kind),
                KeyValue::new("exception.message", exception.summary()),
            ];
            let mut events = SpanEvents::default();
            events.events.push(Event::new("exception", end, about, 0));
            data.events = events;
        }
        self.export(data);
    }
}

/// A word for the end of a run, and what went wrong.
fn outcome(verdict: &Verdict) -> (&'static str, Option<&Failure>) {
    match verdict {
        Verdict::Succeeded(_) => ("succeeded", None),
        Verdict::Failed(failure) => ("failed", Some(failure)),
        Verdict::Retried { failure, .. } => ("retried", Some(failure)),
        Verdict::Snoozed { .. } => ("snoozed", None),
        Verdict::Revoked { .. } => ("revoked", None),
        Verdict::Rejected { .. } => ("rejected", None),
        Verdict::Ignored => ("ignored", None),
        Verdict::Returned => ("returned", None),
        Verdict::ChildLost(failure) => ("child-lost", Some(failure)),
        _ => ("other", None),
    }
}

/// The attributes of both kinds of spans, by OpenTelemetry's conventions for messaging.
fn shared(
    kind: &'static str,
    name: &'static str,
    queue: &str,
    headers: &celeriac_wire::Headers,
) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "celeriac"),
        KeyValue::new("messaging.operation.type", kind),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.destination.name", queue.to_owned()),
        KeyValue::new("celeriac.task.retries", i64::from(headers.retries())),
    ];
    let text = |value: Option<&str>, name| value.map(|value| KeyValue::new(name, value.to_owned()));
    attributes.extend(text(headers.id(), "messaging.message.id"));
    attributes.extend(text(headers.root_id(), "messaging.message.conversation_id"));
    attributes.extend(text(headers.task(), "celeriac.task.name"));
    attributes
}

/// Where a span stands.
struct Span<'a> {
    here: &'a TraceContext,
    parent: Option<&'a TraceContext>,
    kind: SpanKind,
    name: String,
}

impl Span<'_> {
    fn data(
        self,
        attributes: Vec<KeyValue>,
        start_time: SystemTime,
        end_time: SystemTime,
    ) -> SpanData {
        let span = |context: &TraceContext| SpanId::from_hex(&context.span_id());
        let state = self.here.state().and_then(|state| TraceState::from_str(state).ok());
        let span_context = SpanContext::new(
            TraceId::from_hex(&self.here.trace_id()).unwrap_or(TraceId::INVALID),
            span(self.here).unwrap_or(SpanId::INVALID),
            TraceFlags::SAMPLED,
            false,
            state.unwrap_or_default(),
        );
        SpanData {
            span_context,
            parent_span_id: self
                .parent
                .and_then(|parent| span(parent).ok())
                .unwrap_or(SpanId::INVALID),
            parent_span_is_remote: self.parent.is_some(),
            span_kind: self.kind,
            name: self.name.into(),
            start_time,
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("celeriac")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

fn exporter(endpoint: &str, timeout: Duration) -> Result<SpanExporter, String> {
    if !endpoint.starts_with("http://") {
        return Err(format!(
            "the OTLP endpoint {endpoint:?} does not begin with http://: spans go in plain HTTP to a \
             collector nearby, which speaks TLS to others"
        ));
    }
    let client = HyperClient::with_default_connector(timeout, None);
    let built = SpanExporter::builder().with_http().with_http_client(client).build();
    let mut exporter = built.map_err(|error| format!("the OTLP exporter: {error}"))?;
    // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come by themselves.
    let mut resource = Resource::builder();
    let about = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    if variable("OTEL_SERVICE_NAME").is_none() && !about.contains("service.name=") {
        resource = resource.with_service_name("celeriac");
    }
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// Sends batches until nobody sends spans any more.
async fn export(exporter: &SpanExporter, mut receiver: mpsc::Receiver<Item>) {
    let (mut batch, mut waiting) = (Vec::new(), Vec::new());
    let mut due = tokio::time::interval(DELAY);
    let mut fails = false;
    loop {
        let is_due = tokio::select! {
            item = receiver.recv() => {
                match item {
                    None => return,
                    Some(Item::Span(span)) => batch.push(*span),
                    Some(Item::Flush(done)) => waiting.push(done),
                }
                batch.len() >= BATCH_MAX || !waiting.is_empty()
            }
            _ = due.tick() => true,
        };
        if is_due && !batch.is_empty() {
            let count = batch.len();
            match exporter.export(std::mem::take(&mut batch)).await {
                Ok(()) => fails = false,
                Err(error) if !fails => {
                    fails = true;
                    tracing::warn!(%error, count, "spans do not reach the OpenTelemetry collector");
                }
                Err(error) => tracing::debug!(%error, count, "spans are lost"),
            }
        }
        for done in waiting.drain(..) {
            // Who asked may have given up.
            let _gone = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_named_as_everywhere() {
        for (name, argument, ratio) in [
            (None, None, Ok(1.0)),
            (Some("always_off"), None, Ok(0.0)),
            (Some("parentbased_always_on"), Some("0.1"), Ok(1.0)),
            (Some("parentbased_traceidratio"), Some("0.25"), Ok(0.25)),
            (Some("traceidratio"), None, Ok(1.0)),
            (Some("traceidratio"), Some("2"), Err(())),
            (Some("jaeger_remote"), None, Err(())),
        ] {
            let sampler = Sampler::of(name, argument).map(|sampler| sampler.0).map_err(drop);
            assert_eq!(sampler, ratio, "{name:?} {argument:?}");
        }
        assert!(Sampler(1.0).takes(u64::MAX) && !Sampler(0.0).takes(0));
        assert!(Sampler(0.5).takes(u64::MAX / 4) && !Sampler(0.5).takes(u64::MAX / 4 * 3));
    }

    #[test]
    fn a_collector_behind_tls_is_refused_with_a_sentence() {
        let error = exporter("https://collector:4318", REQUEST_DEADLINE).unwrap_err();
        assert!(error.contains("does not begin with http://"), "{error}");
    }
}
