//! What is special about Redis: a server that goes away, networks that fail, and stock Celery beside.

mod control;
mod damaged;
mod fleet;
mod flower;
mod interop;
mod leftovers;
mod network;
mod outage;
mod release;
mod strangers;

use celeriac::App;
use celeriac_testkit::services::redis::Redis;

/// An application without tasks on a Redis.
fn app(redis: &Redis) -> App {
    App::at(&redis.url()).unwrap()
}
