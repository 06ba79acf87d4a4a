//! Settings of the HTTP server: section `[http]` of `celeriac.toml`.

use super::source::{ConfigError, Raw, Setting};
use super::value;
use std::net::SocketAddr;

/// How the HTTP server listens and whom it answers.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Where `celeriac serve` listens, and `celeriac up` without an address of a worker's.
    pub bind: Setting<SocketAddr>,
    /// Where a worker serves the same, if it does.
    pub worker: Setting<Option<SocketAddr>>,
    /// Whether tokens are needed.
    pub auth: Setting<bool>,
    /// The file with the tokens.
    pub tokens: Setting<String>,
    /// Host names that requests may carry.
    pub hosts: Setting<Vec<String>>,
    /// Whether metrics need no token.
    pub public_metrics: Setting<bool>,
    /// The port on which a worker answers probes.
    pub probes_port: Setting<Option<u16>>,
}

impl HttpSettings {
    pub(super) fn parse(raw: &Raw) -> Result<Self, ConfigError> {
        Ok(Self {
            bind: raw.parse("http_bind", address)?,
            worker: raw.parse("http_worker", optional_address)?,
            auth: raw.parse("http_auth", auth)?,
            tokens: raw.parse("http_tokens", value::text)?,
            hosts: raw.parse("http_hosts", hosts)?,
            public_metrics: raw.parse("http_public_metrics", value::boolean)?,
            probes_port: raw.parse("http_probes_port", port)?,
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:8555 or [::1]:8555".to_owned()
    })
}

fn optional_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.trim().is_empty() { Ok(None) } else { address(text).map(Some) }
}

fn auth(text: &str) -> Result<bool, String> {
    match text.trim() {
        "token" => Ok(true),
        "none" => Ok(false),
        _ => Err("expected token or none".to_owned()),
    }
}

fn hosts(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| {
            if name.contains([':', '/', ' ', '*']) {
                let text = "expected host names without scheme and port, separated by commas";
                return Err(text.to_owned());
            }
            Ok(name.to_owned())
        })
        .collect()
}

/// Nothing and 0 are none.
fn port(text: &str) -> Result<Option<u16>, String> {
    match text.trim() {
        "" => Ok(None),
        text => match text.parse::<u16>() {
            Ok(port) => Ok(Some(port).filter(|port| *port > 0)),
            Err(_) => Err("expected a port from 1 to 65535, or 0 for none".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_plain_or_refused() {
        assert!(address("127.0.0.1:8555").is_ok() && address("[::1]:1").is_ok());
        assert!(address("localhost:1").is_err() && address("8555").is_err());
        assert_eq!((auth("token"), auth("none").is_ok()), (Ok(true), true));
        assert!(auth("basic").is_err());
        assert_eq!(hosts(" a.example, b ").unwrap(), ["a.example", "b"]);
        assert!(hosts("http://a").is_err() && hosts("a:1").is_err() && hosts("*").is_err());
        assert_eq!((port(""), port("0"), port("8088")), (Ok(None), Ok(None), Ok(Some(8088))));
        assert!(port("tcp://10.0.0.1:80").is_err() && port("70000").is_err());
    }
}
