//! `celeriac serve`, and the server beside a worker.

use super::Session;
use super::beside::Beside;
use super::exit::Failed;
use super::output::object;
use super::signals::told_to_stop;
use crate::http::{Plan, tokens};
use crate::tokens::TokenFile;
use celeriac_core::schedule::Zone;
use celeriac_web::{Canary, Surface, Tokens, Web, check_bind};
use celeriac_wire::Value;
use clap::Args;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const EXAMPLES: &str = "Examples:
  celeriac serve
  celeriac serve --bind 0.0.0.0:8555            # others need a token: celeriac token create
  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8555/api/v1/status
  curl http://127.0.0.1:8555/readyz

The first start makes a token for an administrator and prints it once. The API is described by
/api/v1/openapi.json; /livez, /readyz, /brokerz and /healthz need no token.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    /// Where to listen [default: 127.0.0.1:8555]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
}

impl ServeArgs {
    /// The flags that are settings, by their key.
    pub(super) fn flags(&self, flags: &mut Vec<(&'static str, String)>) {
        flags.extend(self.bind.clone().map(|address| ("http_bind", address)));
    }
}

/// What is said of the pages that are not there yet.
pub(super) fn no_dashboard() -> Failed {
    Failed::usage("this version has no dashboard yet").hint(
        "`celeriac serve` gives the HTTP API, probes and metrics; Flower works beside celeriac's \
         workers",
    )
}

pub(super) async fn run(session: &Session) -> Result<ExitCode, Failed> {
    let address = session.app.settings().http.bind.value;
    let (surface, canary) = (Surface::Full, Canary::Echo);
    let plan = Plan { address, surface, canary, watches: true, zone: session.zone()? };
    let (web, listener) = open(session, plan, "--bind").await?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let ended = web.serve(listener, stop).await;
    signals.abort();
    ended.map_err(|error| Failed::internal(format!("the server ended: {error}")))?;
    tracing::info!("server stopped");
    Ok(ExitCode::SUCCESS)
}

/// Opens the address of a server, which `flag` gives.
async fn open(session: &Session, plan: Plan, flag: &str) -> Result<(Web, TcpListener), Failed> {
    // Before a token is made or a socket is opened.
    check_bind(plan.address, &plan.options(&session.app))
        .map_err(|refusal| Failed::configuration(refusal.text).hint(refusal.hint))?;
    let listener = TcpListener::bind(plan.address).await.map_err(|error| {
        let text = format!("cannot listen on {}: {error}", plan.address);
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there; stop it, or take another port"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; take one of its own"
            }
            _ => "take an address and a port that this user may open",
        };
        Failed::unavailable(text).hint(format!("{hint} with {flag}"))
    })?;
    let tokens = match plan.surface {
        Surface::Full => tokens(&session.app, |token, file| show(session, token, file))?,
        Surface::Probes => Arc::new(Arc::<Tokens>::default()),
    };
    let web = plan.server(&session.app, tokens).await?;
    let address = listener.local_addr()?;
    let what = if plan.surface == Surface::Full { "API, metrics and probes" } else { "probes" };
    tracing::info!("{what} on http://{address}");
    Ok((web, listener))
}

/// The only time that a token is seen.
fn show(session: &Session, token: &str, file: &TokenFile) {
    session.output.value(&object([("token", Value::from(token))]));
    if !session.output.is_json() {
        let path = file.path().display();
        session.output.note(format!(
            "the first token, of an administrator; it is shown only now:\n\n  {token}\n\n\
             its digest is in {path}; make others with `celeriac token create`"
        ));
    }
}

/// Starts the server of `celeriac up`: everything, at the address of a worker's server or of `serve`.
pub(super) async fn start_beside(
    session: &Session,
    node: &str,
    beside: &mut Beside,
) -> Result<(), Failed> {
    let http = &session.app.settings().http;
    let address = http.worker.value.unwrap_or(http.bind.value);
    let (surface, canary) = (Surface::Full, canary_of(session, node));
    let plan = Plan { address, surface, canary, watches: true, zone: session.zone()? };
    let (web, listener) = open(session, plan, "--http").await?;
    let address = listener.local_addr()?;
    beside.serves_at(address);
    beside.start("http", format!("http://{address}"), |end| async move {
        // Running requests may finish, unless there is no time.
        tokio::select! {
            ended = web.serve(listener, end.token()) => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the HTTP server ended");
                }
            }
            () = end.now() => {}
        }
    });
    Ok(())
}

/// What says that the worker beside a server is ready: a request to it, where it listens to any.
fn canary_of(session: &Session, node: &str) -> Canary {
    let told = session.app.settings().remote_control.value;
    if told { Canary::Worker(node.to_owned()) } else { Canary::Echo }
}

/// Serves beside a worker until the guard is dropped: everything at `http_worker`, or probes on the port
/// that the platform gives.
pub(super) async fn beside_worker(
    session: &Session,
    node: &str,
    beside: &Beside,
) -> Result<Option<DropGuard>, Failed> {
    let settings = session.app.settings();
    let canary = canary_of(session, node);
    let opened = match (settings.http.worker.value, settings.http.probes_port.value) {
        // It is there already.
        (Some(_), _) if beside.address().is_some() => return Ok(None),
        (Some(address), _) => {
            // Every worker would hear every event: only one that is asked for them listens.
            let (surface, zone) = (Surface::Full, session.zone()?);
            let plan = Plan { address, surface, canary, watches: false, zone };
            open(session, plan, "--http").await?
        }
        (None, Some(port)) => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            let (surface, zone) = (Surface::Probes, Zone::utc());
            let plan = Plan { address, surface, canary, watches: false, zone };
            match open(session, plan, "CELERIAC_HTTP_PROBES_PORT").await {
                Ok(opened) => opened,
                // The variable may be meant for somebody else: the tasks go before it.
                Err(failed) => {
                    tracing::warn!("no probes: {}", failed.message);
                    return Ok(None);
                }
            }
        }
        (None, None) => return Ok(None),
    };
    let (web, listener) = opened;
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    tokio::spawn(async move {
        if let Err(error) = web.serve(listener, stop).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok(Some(guard))
}

/// Running requests may finish.
async fn stop_on_signal(stop: CancellationToken) {
    told_to_stop().await;
    tracing::info!("stopping: running requests may finish");
    stop.cancel();
}
