//! The server: one router, bounded connections, deadlines, a graceful end.

use crate::extract::Document;
use crate::hosts;
use crate::metrics::Metrics;
use crate::options::{Auth, Surface, WebOptions, WebParts};
use crate::probes::Probes;
use crate::problem::Problem;
use crate::watch::Watch;
use crate::{api, probes};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The most connections at a time; further ones wait until one ends.
const CONNECTIONS_MAX: usize = 512;
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long a client may take for the head of a request, and a connection may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// How long any request may take, its body included.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// The pause after a connection could not be accepted: no file descriptors are left, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: WebOptions,
    pub(crate) parts: WebParts,
    pub(crate) probes: Probes,
    pub(crate) metrics: Metrics,
    pub(crate) watch: Watch,
    /// Whether it listens on a loopback address.
    local: bool,
}

/// Why a server is not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Whether a server may listen there: an API without tokens is for this machine only.
///
/// # Errors
/// A sentence for the operator.
pub fn check_bind(address: SocketAddr, options: &WebOptions) -> Result<(), Refusal> {
    let open = options.auth == Auth::None && options.surface == Surface::Full;
    if open && !address.ip().is_loopback() {
        return Err(Refusal {
            text: format!(
                "{address} is reachable from other machines, and `http_auth = \"none\"` lets \
                 everybody do everything"
            ),
            hint: "use tokens (leave http_auth out), or listen on 127.0.0.1".to_owned(),
        });
    }
    Ok(())
}

/// A server that is ready to listen.
#[derive(Debug)]
pub struct Web {
    shared: Arc<Shared>,
    router: Router,
}

impl Web {
    /// A server for an address; what is served depends on whether that is a loopback one.
    ///
    /// # Errors
    /// As [`check_bind`].
    pub fn new(address: SocketAddr, options: WebOptions, parts: WebParts) -> Result<Self, Refusal> {
        check_bind(address, &options)?;
        let local = address.ip().is_loopback();
        let watch = Watch::new(&parts);
        let shared = Arc::new(Shared {
            probes: Probes::default(),
            metrics: Metrics::new(watch.clone()),
            watch,
            options,
            parts,
            local,
        });
        let router = router(&shared);
        Ok(Self { shared, router })
    }

    /// Serves until `stop` is cancelled; then running requests may finish for the grace period. Dropping the
    /// future ends everything at once.
    ///
    /// # Errors
    /// None that a single connection causes.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        if self.shared.options.watch_from_start {
            self.shared.watch.begin();
        }
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        // Dropped with this future, and with it every connection.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            // Both are cancel safe; a permit that is not used is given back.
            let stream = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accept(&listener, &room) => accepted,
                Some(_ended) = connections.join_next() => continue,
            };
            let (stream, permit) = match stream {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let service = TowerToHyperService::new(self.router.clone());
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                let _permit = permit;
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended early");
                }
            });
        }
        drop(listener);
        if tokio::time::timeout(self.shared.options.grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests that had not ended were cut off");
        }
        Ok(())
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

fn router(shared: &Arc<Shared>) -> Router {
    let mut router = probes::router();
    if shared.options.surface == Surface::Full {
        router = router.merge(api::router(shared).0);
    }
    router
        .fallback(async || {
            Problem::not_found("there is no such route")
                .hint("the API is under /api/v1 and described by /api/v1/openapi.json")
        })
        .method_not_allowed_fallback(async || {
            let text = "this route has other methods; see the header Allow";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", text)
        })
        .layer(from_fn_with_state(Arc::clone(shared), around))
        .with_state(Arc::clone(shared))
}

/// What holds for every request: its hosts, its deadline, and headers of its answer.
async fn around(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // Probes come from orchestrators, which name the address of a container; they tell nothing.
    let checked = if probes::is_probe(&path) {
        Ok(())
    } else {
        hosts::check(&method, request.headers(), shared.local, &shared.options.hosts)
    };
    let mut response = match checked {
        Err(problem) => problem.into_response(),
        Ok(()) => match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
            Ok(response) => response,
            Err(_elapsed) => {
                let text = format!("no answer within {} s", REQUEST_DEADLINE.as_secs());
                Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", text)
                    .hint("look whether it was done before you ask again")
                    .into_response()
            }
        },
    };
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// The document of the API, as text.
pub(crate) async fn openapi(State(text): State<Arc<str>>) -> Result<Document, Problem> {
    let value = celeriac_wire::Value::parse(text.as_bytes());
    let internal = |error| {
        let text = format!("the document cannot be read: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
    };
    value.map(Document::ok).map_err(internal)
}
