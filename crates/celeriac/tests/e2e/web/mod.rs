//! The HTTP server: in the test, beside a worker, and as a program of its own.

mod access;
mod api;
mod apscheduler;
mod metrics;
mod programs;
mod redis;
mod schedules;
#[cfg(feature = "otel")]
mod spans;
mod trace;
mod up;

use crate::kit::{PATIENCE, Place, Ran, until};
use celeriac::App;
use celeriac_core::Clock as _;
use celeriac_core::schedule::Zone;
use celeriac_core::testing::Seeded;
use celeriac_runtime::{OsEntropy, SystemClock};
use celeriac_web::{Auth, Canary, Role, Surface, Tokens, Web, WebOptions, WebParts, new_token};
use celeriac_wire::{Value, from_value};
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        Value::parse(self.body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as what the document of the API says that it is.
    #[track_caller]
    fn read<T: DeserializeOwned>(self, status: u16) -> T {
        assert_eq!(self.status, status, "{self:?}");
        from_value(self.json()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The name of the problem.
    #[track_caller]
    fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: celeriac_web::schema::ProblemDocument = from_value(self.json()).unwrap();
        assert_eq!(problem.status, self.status);
        problem.kind.strip_prefix("urn:celeriac:problem:").unwrap().to_owned()
    }
}

/// Sends a request as it is and reads the answer to its end.
async fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE * 2, stream.read_to_end(&mut bytes)).await??;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
    Ok(Answer { status, headers: lines.filter_map(header).collect(), body: body.to_owned() })
}

/// A request with these further lines in its head.
async fn ask(
    address: SocketAddr,
    line: &str,
    token: Option<&str>,
    body: Option<&str>,
    more: &str,
) -> std::io::Result<Answer> {
    let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    let kind = body.map_or(String::new(), |body| {
        let length = body.len();
        format!("Content-Type: application/json\r\nContent-Length: {length}\r\n")
    });
    let body = body.unwrap_or_default();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{more}{token}{kind}\r\n{body}"
    );
    exchange(address, request.as_bytes()).await
}

/// A server in the test.
struct Site {
    address: SocketAddr,
    /// Of a viewer, an operator and an admin.
    tokens: [String; 3],
    _stop: DropGuard,
}

fn options() -> WebOptions {
    WebOptions {
        auth: Auth::Token,
        surface: Surface::Full,
        public_metrics: false,
        hosts: Vec::new(),
        body_bytes_max: 64 << 10,
        canary: Canary::Echo,
        watch_from_start: true,
        zone: Zone::utc(),
        grace: Duration::from_secs(1),
        version: "test".to_owned(),
    }
}

impl Site {
    async fn start(app: &App) -> Self {
        Self::start_with(app, options()).await
    }

    async fn start_with(app: &App, options: WebOptions) -> Self {
        let entropy = Seeded::new(7);
        let now = SystemClock.wall();
        let made = Role::ALL.map(|role| new_token(&entropy, role.as_str(), role, now, None));
        let kept = made.iter().map(|(_, kept)| kept.clone()).collect();
        let parts = WebParts {
            store: app.store().await.unwrap(),
            publisher: Arc::new(app.client().await.unwrap()),
            tokens: Arc::new(Arc::new(Tokens::new(kept))),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let web = Web::new(address, options, parts).unwrap();
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        tokio::spawn(web.serve(listener, stop));
        Self { address, tokens: made.map(|(token, _)| token), _stop: guard }
    }

    /// As the administrator.
    async fn get(&self, path: &str) -> Answer {
        let token = Some(self.tokens[2].as_str());
        ask(self.address, &format!("GET {path}"), token, None, "").await.unwrap()
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, body, "").await
    }

    async fn post_with(&self, path: &str, body: &str, more: &str) -> Answer {
        let token = Some(self.tokens[2].as_str());
        ask(self.address, &format!("POST {path}"), token, Some(body), more).await.unwrap()
    }

    /// Waits until `/metrics` has all these lines.
    async fn measures(&self, lines: &[&str]) -> String {
        until("the metrics say so", PATIENCE, async || {
            let text = self.get("/metrics").await.body;
            lines.iter().all(|line| text.lines().any(|one| one == *line)).then_some(text)
        })
        .await
    }
}
