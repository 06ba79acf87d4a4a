//! Who may ask for what, and from where.

use super::{Place, Site, ask, exchange, options};
use celeriac_web::{Auth, Role, Surface, check_bind};
use celeriac_wire::Value;

/// Every route with the role that the document names.
fn routes(document: &Value) -> Vec<(String, Role)> {
    let mut routes = Vec::new();
    for (path, item) in document.get("paths").unwrap().as_object().unwrap().iter() {
        for (method, operation) in item.as_object().unwrap().iter() {
            let security = operation.get("security").unwrap().as_array().unwrap();
            let role = security[0].get("token").unwrap().as_array().unwrap()[0].as_str().unwrap();
            let path = path.replace("{number}", "1").replace("{command}", "ping");
            let path = path.replace("{id}", "x").replace("{queue}", "x").replace("{name}", "x");
            routes.push((format!("{} {path}", method.to_uppercase()), role.parse().unwrap()));
        }
    }
    routes
}

#[tokio::test]
async fn every_route_wants_the_role_that_its_document_names() {
    let site = Site::start(&Place::memory().app()).await;
    let document = site.get("/api/v1/openapi.json").await.json();
    let routes = routes(&document);
    assert!(routes.len() >= 28, "{routes:?}");
    for (line, least) in &routes {
        // An empty body is refused only by who lets the request through.
        let body = line.starts_with("POST").then_some("[]");
        let nobody = ask(site.address, line, None, body, "").await.unwrap();
        assert_eq!((nobody.status, nobody.problem().as_str()), (401, "unauthorized"), "{line}");
        assert!(nobody.header("www-authenticate").unwrap().starts_with("Bearer"));
        let wrong = Some("cel_0000");
        assert_eq!(ask(site.address, line, wrong, body, "").await.unwrap().status, 401, "{line}");
        for (role, token) in Role::ALL.into_iter().zip(&site.tokens) {
            let answer = ask(site.address, line, Some(token), body, "").await.unwrap();
            let refused = answer.status == 403;
            assert_eq!(refused, role < *least, "{line} as {role}: {answer:?}");
            assert!(answer.status != 401 && answer.status < 500, "{line} as {role}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn probes_and_the_document_need_no_token_and_nothing_else_answers() {
    let site = Site::start(&Place::memory().app()).await;
    for path in ["/livez", "/healthz", "/readyz", "/brokerz", "/api/v1/openapi.json"] {
        let answer = ask(site.address, &format!("GET {path}"), None, None, "").await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for (line, status, problem) in [
        ("GET /", 404, "not-found"),
        ("GET /api/v1/nothing", 404, "not-found"),
        ("POST /livez", 405, "method-not-allowed"),
    ] {
        let answer = ask(site.address, line, None, None, "").await.unwrap();
        assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{line}");
    }
    let alone = celeriac_web::WebOptions { surface: Surface::Probes, ..options() };
    let probes = Site::start_with(&Place::memory().app(), alone).await;
    assert_eq!(probes.get("/healthz").await.status, 200);
    for path in ["/api/v1/status", "/metrics", "/api/v1/openapi.json"] {
        assert_eq!(probes.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn an_api_without_tokens_is_for_this_machine_only() {
    let open = celeriac_web::WebOptions { auth: Auth::None, ..options() };
    for (address, refused) in [
        ("127.0.0.1:1", false),
        ("[::1]:1", false),
        ("0.0.0.0:1", true),
        ("[::]:1", true),
        ("192.0.2.1:1", true),
    ] {
        assert_eq!(check_bind(address.parse().unwrap(), &open).is_err(), refused, "{address}");
        assert!(check_bind(address.parse().unwrap(), &options()).is_ok(), "{address}");
    }
    let site = Site::start_with(&Place::memory().app(), open).await;
    let answer = ask(site.address, "GET /api/v1/status", None, None, "").await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    // A page of another site gets nothing done with it, nor reads anything under a name of its own.
    let send = "POST /api/v1/queues/x/resume";
    let strange = "Origin: http://evil.example\r\n";
    let answer = ask(site.address, send, None, None, strange).await.unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (403, "cross-origin"));
    let rebound = b"GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let answer = exchange(site.address, rebound).await.unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (421, "misdirected"));
}

#[tokio::test]
async fn bodies_have_a_type_and_a_bound() {
    let site = Site::start(&Place::memory().app()).await;
    let head = |length: usize, kind: &str| {
        format!(
            "POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n",
            site.tokens[2]
        )
    };
    for (kind, body, status, problem) in [
        ("text/plain", "{}".to_owned(), 415, "unsupported-media-type"),
        ("application/json", "{".to_owned(), 400, "bad-request"),
        ("application/json", "[]".to_owned(), 422, "invalid"),
        ("application/json", "{\"task\": 1}".to_owned(), 422, "invalid"),
        ("application/json", "{\"task\": \"t\", \"tasks\": 1}".to_owned(), 422, "invalid"),
        ("application/json; charset=utf-8", "{\"task\": \"\"}".to_owned(), 422, "invalid"),
        ("application/json", " ".repeat((64 << 10) + 1), 413, "too-large"),
    ] {
        let request = head(body.len(), kind) + &body;
        let answer = exchange(site.address, request.as_bytes()).await.unwrap();
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (status, problem),
            "{kind} {answer:?}"
        );
    }
}
