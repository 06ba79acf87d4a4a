//! Where entries of RedBeat's are shared with it, and who fires them.

use crate::schedule::Zone;
use std::time::Duration;

/// RedBeat's keys, as its settings say where they are (redbeat/schedulers.py 2.4, `RedBeatConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct RedBeatKeys {
    /// `redbeat_redis_url`; `None`: the database of the store itself.
    pub url: Option<String>,
    /// `redbeat_key_prefix`.
    pub prefix: String,
    /// The complete key of its lock.
    pub lock: String,
    /// The zone of the application's clock, in which its crontabs are meant.
    pub zone: Zone,
}

/// Who has RedBeat's lock, and so fires what is in its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedBeatHolder {
    /// Nobody.
    Nobody,
    /// The beat of this store that leads.
    Us,
    /// Another one, whose token this is.
    Other(String),
}

/// How it stands with entries that are shared with RedBeat.
#[derive(Clone, Debug, PartialEq)]
pub struct RedBeatView {
    /// The database of its keys.
    pub database: i64,
    /// `redbeat_key_prefix`.
    pub prefix: String,
    /// The complete key of its lock.
    pub lock: String,
    /// The zone of the application's clock.
    pub zone: Zone,
    /// Who has the lock.
    pub holder: RedBeatHolder,
    /// How long the lock stays taken unless it is renewed; `None`: for ever, or nobody has it.
    pub left: Option<Duration>,
    /// How many entries there are.
    pub count: u64,
}
