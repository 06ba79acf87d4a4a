//! Who asks, and what they may.

use crate::options::Auth;
use crate::problem::Problem;
use crate::server::Shared;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a token may; each role may all that the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Send, cancel, retry, pause, replay, change schedules.
    Operator,
    /// Delete, and control workers.
    Admin,
}

impl Role {
    /// All of them, the weakest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("{text:?}: a role is viewer, operator or admin"))
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// The id of the token; empty where nobody needs one.
    pub(crate) id: String,
    /// What its owner is called.
    pub(crate) name: String,
    /// What it may.
    pub(crate) role: Role,
}

/// What a group of routes wants.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) shared: Arc<Shared>,
    pub(crate) least: Role,
}

/// Lets a request through that has a token of the role, and notes whose it is.
pub(crate) async fn require(
    State(gate): State<Gate>,
    mut request: Request,
    next: Next,
) -> Response {
    let principal = match principal(&gate.shared, request.headers()) {
        Ok(principal) => principal,
        Err(problem) => return problem.into_response(),
    };
    if principal.role < gate.least {
        let text = format!(
            "this needs a token with the role {}; yours, {}, is a {}",
            gate.least, principal.name, principal.role
        );
        let hint = format!("make one with `celeriac token create NAME --role {}`", gate.least);
        return Problem::new(StatusCode::FORBIDDEN, "forbidden", text).hint(hint).into_response();
    }
    request.extensions_mut().insert(principal);
    next.run(request).await
}

fn principal(shared: &Shared, headers: &HeaderMap) -> Result<Principal, Problem> {
    if shared.options.auth == Auth::None {
        return Ok(Principal { id: String::new(), name: "anybody".into(), role: Role::Admin });
    }
    let given = headers.get(header::AUTHORIZATION).ok_or_else(|| {
        unauthorized("this needs a token", "send it as `Authorization: Bearer TOKEN`")
    })?;
    let token = given.to_str().ok().and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else {
        let text = "the header Authorization holds no bearer token";
        return Err(unauthorized(text, "send it as `Authorization: Bearer TOKEN`"));
    };
    let tokens = shared.parts.tokens.tokens();
    let owner = tokens.owner(token.trim(), shared.parts.clock.wall()).ok_or_else(|| {
        let hint = "it may have been revoked or have expired; see `celeriac token list`";
        unauthorized("this token is not known", hint)
    })?;
    Ok(Principal { id: owner.id.clone(), name: owner.name.clone(), role: owner.role })
}

fn unauthorized(text: &str, hint: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", text).hint(hint)
}
