//! The HTTP server: API, probes, metrics.
//!
//! It knows workers only through events, control replies and stores, so stock Celery workers show as well as
//! ours. It reads no arguments, environment or files: the crate `celeriac` gives it a store, a clock, a
//! publisher and tokens, and binds the socket. Every request has a deadline and a largest body, connections
//! have a bound, and nothing but the probes answers without a token unless that was asked for.

mod access;
mod api;
mod canary;
mod extract;
mod hosts;
mod metrics;
mod options;
mod probes;
mod problem;
mod reference;
pub mod schema;
mod server;
mod token;
mod watch;

pub use access::Role;
pub use options::{
    Auth, Canary, Prepared, PublishError, Publisher, Sent, Surface, WebOptions, WebParts,
};
pub use problem::Problem;
pub use reference::reference_page;
pub use server::{Refusal, Web, check_bind};
pub use token::{Digest, StoredToken, TokenSource, Tokens, new_token};
