//! What is special about Redis: a server that goes away, networks that fail, and stock Celery beside.

mod beats;
mod canvas;
mod compressed;
mod control;
mod damaged;
mod exchanges;
mod fleet;
mod flower;
mod interop;
mod leftovers;
mod moves;
mod network;
mod outage;
mod protocol1;
mod release;
#[cfg(feature = "auth")]
mod signed;
mod strangers;
mod transports;

use celeriac::App;
use celeriac::config::{Inputs, Settings};
use celeriac_testkit::services::redis::Redis;

/// An application on a Redis, with a file of settings.
fn configured(redis: &Redis, toml: &str) -> App {
    let file = Some((redis.folder().join("celeriac.toml"), toml.to_owned()));
    let flags = vec![("broker_url", redis.url())];
    App::with_settings(Settings::resolve(Inputs { file, flags, ..Inputs::default() }).unwrap())
}

/// An application without tasks on a Redis.
fn app(redis: &Redis) -> App {
    App::at(&redis.url()).unwrap()
}
