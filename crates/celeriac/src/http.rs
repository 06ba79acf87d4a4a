//! The HTTP server of an application: from its settings to a server that is ready to listen.

use crate::app::App;
use crate::config::HttpSettings;
use crate::tokens::{TokenFile, WatchedTokens};
use crate::{Result, TaskError};
use celeriac_core::schedule::Zone;
use celeriac_web::{
    Auth, Canary, Role, Surface, TokenSource, Tokens, Web, WebOptions, WebParts, new_token,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What the body of a request may have besides the message that it carries, in bytes.
const BODY_EXTRA: usize = 64 << 10;
/// How long requests may finish when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// What is served where.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) surface: Surface,
    pub(crate) canary: Canary,
    /// Whether the fleet's events are heard from the start.
    pub(crate) watches: bool,
    /// The zone of entries that name none.
    pub(crate) zone: Zone,
}

impl Plan {
    pub(crate) fn options(&self, app: &App) -> WebOptions {
        let settings = app.settings();
        let HttpSettings { auth, hosts, public_metrics, .. } = &settings.http;
        WebOptions {
            auth: if auth.value { Auth::Token } else { Auth::None },
            surface: self.surface,
            public_metrics: public_metrics.value,
            hosts: hosts.value.clone(),
            body_bytes_max: settings.message_bytes_max.value + BODY_EXTRA,
            canary: self.canary.clone(),
            watch_from_start: self.watches,
            zone: self.zone.clone(),
            grace: GRACE,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Makes the server. The address must have passed [`celeriac_web::check_bind`].
    pub(crate) async fn server(&self, app: &App, tokens: Arc<dyn TokenSource>) -> Result<Web> {
        let parts = WebParts {
            store: app.store().await?,
            publisher: Arc::new(app.client().await?),
            tokens,
            clock: Arc::clone(app.clock()),
            entropy: Arc::clone(app.entropy()),
        };
        let web = Web::new(self.address, self.options(app), parts);
        web.map_err(|refusal| TaskError::fail(refusal.to_string()))
    }
}

/// The tokens of an application; a first one, of an administrator, is made when there is none, and given to
/// `show` once.
pub(crate) fn tokens(
    app: &App,
    show: impl FnOnce(&str, &TokenFile),
) -> Result<Arc<dyn TokenSource>> {
    if !app.settings().http.auth.value {
        return Ok(Arc::new(Arc::<Tokens>::default()));
    }
    let file = TokenFile::at(&app.settings().http.tokens.value);
    if file.read()?.is_empty() {
        let now = app.clock().wall();
        let (token, kept) = new_token(&**app.entropy(), "first", Role::Admin, now, None);
        // Another server may have been faster.
        let first = file.change(|tokens| {
            let first = tokens.is_empty();
            tokens.extend(first.then_some(kept));
            first
        })?;
        if first {
            show(&token, &file);
        }
    }
    Ok(Arc::new(WatchedTokens::new(file)?))
}
