//! `celeriac token`: create, list, revoke.

use super::Session;
use super::exit::Failed;
use super::output::{clock, object, time};
use crate::tokens::TokenFile;
use celeriac_core::clock::after;
use celeriac_web::{Role, StoredToken, new_token};
use celeriac_wire::Value;
use clap::Subcommand;
use std::process::ExitCode;

/// The longest name of a token's owner, in bytes.
const NAME_BYTES_MAX: usize = 100;
/// The most tokens.
const TOKENS_MAX: usize = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print it once
    #[command(
        after_help = "Examples:\n  celeriac token create prometheus\n  celeriac token create deploy --role operator --expires 90d\n\nA viewer looks; an operator also sends, cancels, retries, pauses and replays; an admin also deletes and\ncontrols workers. Servers that run take it up within a second."
    )]
    Create {
        /// Who will use it
        name: String,
        /// viewer, operator or admin
        #[arg(long, value_name = "ROLE", default_value = "viewer")]
        role: Role,
        /// It ends after this time [default: never]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List tokens; their text is not kept
    #[command(after_help = "Example:\n  celeriac token list --json")]
    List,
    /// Revoke a token; servers that run refuse it within a second
    #[command(after_help = "Example:\n  celeriac token revoke 5f2c01ab")]
    Revoke {
        /// Its id, from `celeriac token list`
        id: String,
    },
}

pub(super) fn run(session: &Session, command: TokenCommand) -> Result<ExitCode, Failed> {
    let file = TokenFile::at(&session.app.settings().http.tokens.value);
    match command {
        TokenCommand::Create { name, role, expires } => {
            create(session, &file, &name, role, expires.as_deref())
        }
        TokenCommand::List => list(session, &file),
        TokenCommand::Revoke { id } => revoke(session, &file, &id),
    }
}

fn create(
    session: &Session,
    file: &TokenFile,
    name: &str,
    role: Role,
    expires: Option<&str>,
) -> Result<ExitCode, Failed> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let text = format!("a name has 1 to {NAME_BYTES_MAX} bytes and no control characters");
        return Err(Failed::usage(text));
    }
    let now = session.app.clock().wall();
    let expires = expires.map(crate::config::parse_duration).transpose();
    let expires = expires.map_err(|text| Failed::usage(format!("--expires: {text}")))?;
    let end = expires.map(|span| after(now, span));
    let (token, kept) = new_token(&**session.app.entropy(), name, role, now, end);
    let id = kept.id.clone();
    let room = file.change(|tokens| {
        let room = tokens.len() < TOKENS_MAX;
        tokens.extend(room.then_some(kept));
        room
    })?;
    if !room {
        return Err(Failed::no(format!("there are {TOKENS_MAX} tokens already"))
            .hint("revoke some with `celeriac token revoke`"));
    }
    session.output.value(&object([
        ("id", Value::from(id.as_str())),
        ("token", Value::from(token.as_str())),
        ("name", Value::from(name)),
        ("role", Value::from(role.as_str())),
        ("expires_at", time(end)),
    ]));
    session.output.line(&token);
    if !session.output.is_json() {
        session.output.note(format!("token {id} of {name}, a {role}; it is shown only now"));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(session: &Session, file: &TokenFile) -> Result<ExitCode, Failed> {
    let now = session.app.clock().wall();
    let row = |token: &StoredToken| {
        let ended = token.expires_at.is_some_and(|end| end <= now);
        let end = token.expires_at.map_or_else(|| "never".to_owned(), clock);
        let cells = vec![
            token.id.clone(),
            token.name.clone(),
            token.role.to_string(),
            clock(token.created_at),
            if ended { format!("{end}, over") } else { end },
        ];
        let value = object([
            ("id", Value::from(token.id.as_str())),
            ("name", Value::from(token.name.as_str())),
            ("role", Value::from(token.role.as_str())),
            ("created_at", time(Some(token.created_at))),
            ("expires_at", time(token.expires_at)),
        ]);
        (cells, value)
    };
    let rows = file.read()?.iter().map(row).collect();
    let header = ["ID", "NAME", "ROLE", "CREATED", "EXPIRES"];
    session.output.list(&header, rows, "no tokens; the first server start makes one");
    Ok(ExitCode::SUCCESS)
}

fn revoke(session: &Session, file: &TokenFile, id: &str) -> Result<ExitCode, Failed> {
    let gone = file.change(|tokens| {
        let before = tokens.len();
        tokens.retain(|token| token.id != id);
        before > tokens.len()
    })?;
    if !gone {
        return Err(Failed::no(format!("there is no token {id}")).hint("see `celeriac token list`"));
    }
    session.output.value(&object([("id", Value::from(id)), ("revoked", Value::from(true))]));
    session.output.line(format!("token {id} is revoked"));
    Ok(ExitCode::SUCCESS)
}
