//! The way to a Redis, step by step: where it ends, and whose fault that is.

use crate::redis::address::{Address, Server, Trouble};
use crate::redis::link::{CONNECT_DEADLINE, DEADLINE};
use celeriac_core::StoreError;
use celeriac_core::store::Step;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};

/// What was found, or why it failed and what to do.
type Told = Result<String, (String, String)>;

/// Measures a step; `false` when it failed.
fn note(steps: &mut Vec<Step>, name: &'static str, since: Instant, told: Told) -> bool {
    let took = since.elapsed();
    let (told, failed) = match told {
        Ok(told) => (told, None),
        Err((told, fix)) => (told, Some(fix)),
    };
    let went_well = failed.is_none();
    steps.push(Step { name, told, failed, took });
    went_well
}

fn failure(error: &StoreError) -> (String, String) {
    let fix = error.hint_text().unwrap_or("Look at the server's log.");
    (format!("{error}."), format!("{}.", fix.trim_end_matches('.')))
}

#[expect(clippy::disallowed_methods, reason = "how long a step took is no decision")]
fn start() -> Instant {
    Instant::now()
}

/// Goes to the first server that can be reached, or to the last that cannot.
pub(super) async fn go(address: &Address) -> Vec<Step> {
    let mut first = Vec::new();
    note(&mut first, "URL", start(), Ok(address.shown.clone()));
    let since = start();
    let targets = match address.targets().await {
        Ok(targets) => targets,
        Err(error) => {
            note(&mut first, "SENTINEL", since, Err(failure(&error)));
            return first;
        }
    };
    if address.has_sentinels() {
        let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
        note(&mut first, "SENTINEL", since, Ok(format!("the master is {}", names.join(", "))));
    }
    let mut steps = first.clone();
    for server in &targets {
        steps.clone_from(&first);
        if to(address, server, &mut steps).await {
            break;
        }
    }
    steps
}

/// Whether a server can be used as far as it is known from outside.
async fn to(address: &Address, server: &Server, steps: &mut Vec<Step>) -> bool {
    let reached = match server {
        Server::Tcp { host, port } => tcp(host, *port, steps).await,
        Server::Unix(path) => {
            let since = start();
            let opened = tokio::time::timeout(CONNECT_DEADLINE, UnixStream::connect(path)).await;
            let told = match opened {
                Ok(Ok(_stream)) => Ok(path.display().to_string()),
                Ok(Err(error)) => Err((
                    format!("{}: {error}.", path.display()),
                    "Start the server, or look at its `unixsocket` and `unixsocketperm`."
                        .to_owned(),
                )),
                Err(_late) => Err((
                    "The socket does not answer.".to_owned(),
                    "Restart the server.".to_owned(),
                )),
            };
            note(steps, "SOCKET", since, told)
        }
    };
    reached && tls(address, server, steps).await && auth(address, server, steps).await
}

async fn tcp(host: &str, port: u16, steps: &mut Vec<Step>) -> bool {
    let since = start();
    let found = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_name) => {
            let looked =
                tokio::time::timeout(CONNECT_DEADLINE, tokio::net::lookup_host((host, port))).await;
            let fix = "Write the host's name or address as this machine knows it; in a container, the \
                       name of the service.";
            let told = match looked {
                Ok(Ok(found)) => Ok(found.collect::<Vec<_>>()),
                Ok(Err(error)) => Err((format!("{host} has no address: {error}."), fix.to_owned())),
                Err(_late) => {
                    Err((format!("Nobody says what address {host} has."), fix.to_owned()))
                }
            };
            let (found, told) = match told {
                Ok(found) => {
                    let names: Vec<String> = found.iter().map(|one| one.ip().to_string()).collect();
                    let told = format!("{host} is {}", names.join(", "));
                    (found, Ok(told))
                }
                Err(failed) => (Vec::new(), Err(failed)),
            };
            if !note(steps, "DNS", since, told) {
                return false;
            }
            found
        }
    };
    let since = start();
    let mut last = None;
    for place in found {
        match tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(place)).await {
            Ok(Ok(_stream)) => return note(steps, "TCP", since, Ok(format!("{place} accepts"))),
            Ok(Err(error)) => last = Some(format!("{place}: {error}.")),
            Err(_late) => {
                last = Some(format!(
                    "{place} did not answer within {} s.",
                    CONNECT_DEADLINE.as_secs()
                ));
            }
        }
    }
    let told = last.unwrap_or_else(|| format!("{host} has no address."));
    let fix = "Start the server, look at its `bind` and `port`, and at firewalls in between.";
    note(steps, "TCP", since, Err((told, fix.to_owned())))
}

/// Without credentials, so that what is wrong with them is not taken for what is wrong with TLS.
async fn tls(address: &Address, server: &Server, steps: &mut Vec<Step>) -> bool {
    if !address.is_encrypted() {
        return true;
    }
    let since = start();
    let told = match address.open_bare(server).await {
        Ok(_) | Err((Trouble::Credentials, _)) => Ok("the certificate is trusted".to_owned()),
        Err((_, error)) => Err(failure(&error)),
    };
    let told = told.map(|told| {
        if address.checks_server() {
            told
        } else {
            "encrypted, the certificate is not checked".to_owned()
        }
    });
    note(steps, "TLS", since, told)
}

async fn auth(address: &Address, server: &Server, steps: &mut Vec<Step>) -> bool {
    let since = start();
    let mut connection = match address.open_own(server).await {
        Ok(connection) => connection,
        Err(error) => return note(steps, "AUTH", since, Err(failure(&error))),
    };
    // A server that wants a password lets others connect, and refuses their first question.
    let ping = redis::cmd("PING");
    let sent = start();
    let answer = tokio::time::timeout(DEADLINE, ping.query_async::<String>(&mut connection)).await;
    let round = sent.elapsed();
    let wants = "Write the user and the password into the URL: redis://USER:PASSWORD@host:6379/0.";
    match &answer {
        Ok(Err(error)) if error.code() == Some("NOAUTH") => {
            let told = "The server asks for a password, and the URL has none.".to_owned();
            return note(steps, "AUTH", since, Err((told, wants.to_owned())));
        }
        _ => note(steps, "AUTH", since, Ok(address.who())),
    };
    let told = match answer {
        Ok(Ok(_pong)) => Ok(format!("{} ms there and back", millis(round))),
        Ok(Err(error)) => Err((
            format!("The server answers {error}."),
            "Let its state end (loading, a script that hangs), or look at the user's rights."
                .to_owned(),
        )),
        Err(_late) => Err((
            format!("The server accepts and does not answer within {} s.", DEADLINE.as_secs()),
            "It is stopped, overloaded, or something between drops what is sent.".to_owned(),
        )),
    };
    note(steps, "PING", sent, told)
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}
