//! The page of the HTTP API, written from the document that the server gives.

use crate::api;
use crate::problem::TYPES;
use std::fmt::Write as _;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Operation, ParameterIn};

/// The reference of routes, roles, problems and metrics, as Markdown tables; a test keeps the committed
/// pages true.
#[doc(hidden)]
pub fn reference_page() -> (String, String) {
    (routes(), crate::metrics::reference())
}

fn routes() -> String {
    let document = api::document(env!("CARGO_PKG_VERSION"));
    let mut page = String::from("| route | role | what |\n|---|---|---|\n");
    for (path, item) in &document.paths.paths {
        let operations = [
            ("GET", &item.get),
            ("POST", &item.post),
            ("PUT", &item.put),
            ("PATCH", &item.patch),
            ("DELETE", &item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                // Writing to a String cannot fail.
                let _infallible = writeln!(page, "{}", row(method, path, operation));
            }
        }
    }
    page.push_str("\n## Problems\n\nThe `type` is `urn:celeriac:problem:` and the name.\n\n");
    page.push_str("| name | status | what |\n|---|---|---|\n");
    for (name, status, what) in TYPES {
        let _infallible = writeln!(page, "| `{name}` | {status} | {what} |");
    }
    page
}

fn row(method: &str, path: &str, operation: &Operation) -> String {
    let role = role(operation).unwrap_or_default();
    let mut what = operation.summary.clone().unwrap_or_default();
    if let Some(text) = &operation.description {
        let _infallible = write!(what, ". {}", text.replace('\n', " "));
    }
    let query: Vec<String> = operation
        .parameters
        .iter()
        .flatten()
        .filter_map(|parameter| match parameter {
            RefOr::T(one) if one.parameter_in != ParameterIn::Path => {
                Some(format!("`{}`", one.name))
            }
            _ => None,
        })
        .collect();
    if !query.is_empty() {
        let _infallible = write!(what, " Parameters: {}.", query.join(", "));
    }
    format!("| `{method} {path}` | {role} | {what} |")
}

/// The role that an operation wants.
fn role(operation: &Operation) -> Option<String> {
    let security = operation.security.as_ref()?.first()?;
    let value = celeriac_wire::to_value(security).ok()?;
    Some(value.get("token")?.as_array()?.first()?.as_str()?.to_owned())
}
