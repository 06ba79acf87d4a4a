//! Options of a broker: kombu keeps them beside its URL, celeriac in it.

use celeriac_wire::{Map, Value};
use url::form_urlencoded::{byte_serialize, parse};

/// Schemes whose URLs carry options.
const SCHEMES: [&str; 5] = ["redis", "rediss", "redis+socket", "unix", "sentinel"];
/// What a URL of kombu may carry, besides `ssl_…` (kombu 5.7.0 connection.py `_init_params`).
const OF_KOMBU: [&str; 2] = ["virtual_host", "ssl"];

/// A broker as an app is told of it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ForApp {
    pub(super) url: String,
    /// To be merged into `broker_transport_options`.
    pub(super) transport: Map,
    /// To be merged into `result_backend_transport_options`.
    pub(super) results: Map,
}

/// A URL, and its options: kombu refuses URLs with options that it does not know.
pub(super) fn for_app(url: &str) -> ForApp {
    let (first, rest) = url.split_once(';').map_or((url, None), |(one, rest)| (one, Some(rest)));
    let (plain, query) = first.split_once('?').unwrap_or((first, ""));
    let mut told = ForApp { url: plain.to_owned(), ..ForApp::default() };
    let (mut kept, mut sentinel) = (Vec::new(), Map::default());
    for (name, value) in parse(query.as_bytes()) {
        match &*name {
            "global_keyprefix" | "master_name" => {
                told.transport.insert(&*name, &*value);
            }
            "visibility_timeout" => {
                // Another text is refused by the store.
                let seconds = value.parse::<f64>().map_or(Value::Null, Value::from);
                told.transport.insert("visibility_timeout", seconds);
            }
            "result_keyprefix" => {
                told.results.insert("global_keyprefix", &*value);
            }
            "sentinel_username" | "sentinel_password" => {
                sentinel.insert(name.trim_start_matches("sentinel_"), &*value);
            }
            "db" => told.url = format!("{}/{value}", authority(&told.url)),
            // The worker's own.
            "allow_eviction" => {}
            name if name.starts_with("ssl_") || OF_KOMBU.contains(&name) => {
                kept.push(pair(name, &value));
            }
            // Unknown ones are refused by the store.
            _ => {}
        }
    }
    if !sentinel.is_empty() {
        told.transport.insert("sentinel_kwargs", sentinel);
    }
    if !kept.is_empty() {
        told.url = format!("{}?{}", told.url, kept.join("&"));
    }
    if let Some(rest) = rest {
        told.url = format!("{};{rest}", told.url);
    }
    told
}

/// A URL without its path.
fn authority(url: &str) -> &str {
    let begin = url.find("://").map_or(0, |at| at + 3);
    url[begin..].find('/').map_or(url, |at| &url[..begin + at])
}

fn pair(name: &str, value: &str) -> String {
    let encoded: String = byte_serialize(value.as_bytes()).collect();
    format!("{name}={encoded}")
}

/// The URL for the worker's store: with the app's `broker_transport_options` and `broker_use_ssl`,
/// as far as the URL does not say the same itself.
///
/// # Errors
/// Certificates that the store cannot use; a sentence.
pub(super) fn for_store(url: &str, options: &Value, tls: &Value) -> Result<String, String> {
    let (first, rest) = url.split_once(';').map_or((url, None), |(one, rest)| (one, Some(rest)));
    let Some((scheme, place)) = first.split_once("://").filter(|(name, _)| SCHEMES.contains(name))
    else {
        return Ok(url.to_owned());
    };
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let mut scheme = scheme;
    let mut pairs: Vec<(String, String)> =
        parse(query.as_bytes()).map(|(name, value)| (name.into(), value.into())).collect();
    let mut more = Vec::new();
    for name in ["global_keyprefix", "visibility_timeout", "master_name"] {
        more.extend(options.get(name).and_then(written).map(|text| (name.to_owned(), text)));
    }
    for name in ["username", "password"] {
        let given = options.get("sentinel_kwargs").and_then(|kwargs| kwargs.get(name));
        more.extend(given.and_then(written).map(|text| (format!("sentinel_{name}"), text)));
    }
    if scheme != "sentinel" {
        more.retain(|(name, _)| name != "master_name" && !name.starts_with("sentinel_"));
    }
    if let Some(given) = tls.as_object() {
        if !matches!(scheme, "redis" | "rediss") {
            return Err(format!("broker_use_ssl: TLS is for redis:// here, not for {scheme}://"));
        }
        scheme = "rediss";
        for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
            more.push((name.to_owned(), certificate(name, value)?));
        }
    }
    more.retain(|(name, _)| pairs.iter().all(|(given, _)| given != name));
    pairs.append(&mut more);
    let query: Vec<String> = pairs.iter().map(|(name, value)| pair(name, value)).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let rest = rest.map_or(String::new(), |rest| format!(";{rest}"));
    Ok(format!("{scheme}://{place}{mark}{}{rest}", query.join("&")))
}

/// An option as a URL has it.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

/// One member of `broker_use_ssl`.
fn certificate(name: &str, value: &Value) -> Result<String, String> {
    const KNOWN: [&str; 4] = ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"];
    match value {
        // Python's `ssl.CERT_NONE`, `CERT_OPTIONAL`, `CERT_REQUIRED`.
        Value::Number(number) if name == "ssl_cert_reqs" => {
            let names = ["none", "optional", "required"];
            let at = number.as_u64().and_then(|at| names.get(at as usize));
            at.map(|name| (*name).to_owned())
        }
        Value::String(text) if name == "ssl_cert_reqs" || KNOWN.contains(&name) => {
            Some(text.clone())
        }
        Value::Bool(on) if name == "ssl_check_hostname" => Some(on.to_string()),
        _ => None,
    }
    .ok_or_else(|| {
        format!(
            "broker_use_ssl: the worker cannot use {name}; it knows ssl_cert_reqs, {}",
            KNOWN.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_apps_options_go_into_the_url() {
        let check = |url, options, tls, expected: &str| {
            let found = for_store(url, &json(options), &json(tls));
            assert_eq!(found.unwrap_or_else(|error| error), expected);
        };
        check("redis://h/1", "{}", "false", "redis://h/1");
        check(
            "redis://:p%40s@h/1;redis://i",
            r#"{"global_keyprefix": "a b:", "visibility_timeout": 43200, "socket_timeout": 3}"#,
            "null",
            "redis://:p%40s@h/1?global_keyprefix=a+b%3A&visibility_timeout=43200;redis://i",
        );
        // What the URL says itself is stronger.
        check(
            "redis://h?global_keyprefix=x",
            r#"{"global_keyprefix": "y", "master_name": "m"}"#,
            "true",
            "redis://h?global_keyprefix=x",
        );
        check(
            "sentinel://a:26379/0;sentinel://b:26379",
            r#"{"master_name": "mymaster", "sentinel_kwargs": {"password": "s&t"}}"#,
            "null",
            "sentinel://a:26379/0?master_name=mymaster&sentinel_password=s%26t;sentinel://b:26379",
        );
        check(
            "redis://h:6380/0",
            "{}",
            r#"{"ssl_cert_reqs": 2, "ssl_ca_certs": "/etc/ca.pem", "ssl_check_hostname": false}"#,
            "rediss://h:6380/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fetc%2Fca.pem&ssl_check_hostname=false",
        );
        check("amqp://h//", r#"{"global_keyprefix": "x"}"#, "{}", "amqp://h//");
    }

    #[test]
    fn certificates_that_cannot_be_used_are_refused() {
        for (url, tls, expected) in [
            ("redis://h", r#"{"ssl_ciphers": "x"}"#, "cannot use ssl_ciphers"),
            ("redis://h", r#"{"ssl_cert_reqs": 9}"#, "cannot use ssl_cert_reqs"),
            ("sentinel://h", "{}", "not for sentinel://"),
        ] {
            let error = for_store(url, &json("{}"), &json(tls)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_urls_options_go_to_the_app() {
        let told = for_app(
            "redis://u:p@h:1/0?db=3&global_keyprefix=a%3A&result_keyprefix=r&visibility_timeout=60\
             &allow_eviction=true;redis://i",
        );
        assert_eq!(told.url, "redis://u:p@h:1/3;redis://i");
        let transport = r#"{"global_keyprefix":"a:","visibility_timeout":60.0}"#;
        assert_eq!(Value::Object(told.transport), json(transport));
        assert_eq!(Value::Object(told.results), json(r#"{"global_keyprefix":"r"}"#));
        let told = for_app("rediss://h?ssl_ca_certs=%2Fca.pem&sentinel_password=x");
        assert_eq!(told.url, "rediss://h?ssl_ca_certs=%2Fca.pem");
        assert_eq!(Value::Object(told.transport), json(r#"{"sentinel_kwargs":{"password":"x"}}"#));
        assert_eq!(for_app("redis://h").url, "redis://h");
    }
}
