//! Which hosts and origins a request may name.
//!
//! A page of another site can make a browser send requests to this machine: by a name of its own that
//! resolves to 127.0.0.1 (DNS rebinding), or across origins. Neither gets through.

use crate::problem::Problem;
use axum::http::{HeaderMap, Method, StatusCode, header};
use std::net::IpAddr;

/// Refuses what a browser sent for another site. `local`: the server listens on a loopback address.
pub(crate) fn check(
    method: &Method,
    headers: &HeaderMap,
    local: bool,
    allowed: &[String],
) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST)
        .ok_or_else(|| Problem::bad_request("the header Host is missing or cannot be read"))?;
    let name = name_of(host);
    let named = allowed.iter().any(|one| one.eq_ignore_ascii_case(name));
    if !named && !is_loopback(name) && (local || !allowed.is_empty()) {
        let text = format!("this server is not {name:?}");
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", text)
            .hint("use its address, or add the name to `http_hosts`"));
    }
    if method.is_safe() {
        return Ok(());
    }
    let strange = text(header::ORIGIN)
        .is_some_and(|origin| origin.split_once("://").is_none_or(|(_, from)| from != host));
    let fetched = text(header::HeaderName::from_static("sec-fetch-site"));
    if strange || fetched.is_some_and(|site| site == "cross-site") {
        let text = "a page of another origin sent this request";
        return Err(Problem::new(StatusCode::FORBIDDEN, "cross-origin", text));
    }
    Ok(())
}

/// The host without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn other_names_and_other_origins_are_refused() {
        for (method, host, origin, local, allowed, expected) in [
            (Method::GET, "127.0.0.1:8555", "", true, &[][..], None),
            (Method::GET, "localhost", "", true, &[], None),
            (Method::GET, "[::1]:8555", "", true, &[], None),
            (Method::GET, "evil.example:8555", "", true, &[], Some(421)),
            (Method::GET, "queue.example", "", true, &["queue.example"], None),
            (Method::GET, "queue.example", "", false, &[], None),
            (Method::GET, "other.example", "", false, &["queue.example"], Some(421)),
            (Method::GET, "localhost:1", "http://evil.example", true, &[], None),
            (Method::POST, "localhost:1", "http://evil.example", true, &[], Some(403)),
            (Method::POST, "localhost:1", "null", true, &[], Some(403)),
            (Method::POST, "localhost:1", "http://localhost:2", true, &[], Some(403)),
            (Method::POST, "localhost:1", "http://localhost:1", true, &[], None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            if !origin.is_empty() {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
            let refused = check(&method, &headers, local, &allowed).is_err();
            assert_eq!(refused, expected.is_some(), "{method} {host} {origin}");
        }
        assert!(check(&Method::GET, &HeaderMap::new(), true, &[]).is_err());
    }
}
