//! Entries that are shared with RedBeat: they stay in its keys, and a stock RedBeat goes on with them
//! wherever we stop (`lua/redbeat.lua`; wire specification 8.8).
//!
//! Where the keys are is noted in the store, so that every process of ours sees the same. The beat that
//! leads has RedBeat's lock too, for as long as its own lease; without the lock nothing of it is fired.

mod entries;

use super::dead::texts;
use super::pack::Pack;
use super::script::REDBEAT;
use super::{Address, Core};
use celeriac_core::schedule::Zone;
use celeriac_core::store::{Lead, RedBeatHolder, RedBeatKeys, RedBeatView};
use celeriac_core::{ErrorKind, StoreError};
use celeriac_wire::{Map, Value};
use entries::Looked;
pub(super) use entries::{
    Shared, VERSION_MIN, count, due, entries, entry, failed, is_shared, pack_shared, remove, save,
    shared, taken, wake,
};
use jiff::Timestamp;
use redis::Value as Answer;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often RedBeat's set of times, and the note where it is, are asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The most entries that are named in an error.
const NAMED_MAX: usize = 5;

/// Where RedBeat's keys are.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    database: i64,
    prefix: String,
    lock: String,
    zone: Zone,
}

impl Place {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn name<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(&self.prefix).unwrap_or(key)
    }

    fn to_value(&self) -> Value {
        Value::Object(Map::from([
            ("database", Value::from(self.database)),
            ("prefix", Value::from(self.prefix.as_str())),
            ("lock", Value::from(self.lock.as_str())),
            ("zone", Value::from(self.zone.name())),
        ]))
    }

    fn from_value(value: &Value) -> Option<Self> {
        let text = |name| value.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            database: value.get("database")?.as_i64()?,
            prefix: text("prefix")?,
            lock: text("lock")?,
            zone: Zone::named(&text("zone")?).ok()?,
        })
    }
}

/// What a process knows of the sharing.
#[derive(Debug, Default)]
struct Known {
    /// Where the keys are, and when that was asked for, since the machine started.
    place: Option<(Duration, Option<Arc<Place>>)>,
    /// Before this there is nothing to fire.
    quiet_until: Option<Timestamp>,
    looked: Option<Looked>,
    /// The names of all entries, and when they were asked for.
    names: Option<(Duration, Arc<Vec<String>>)>,
    /// When it was told what is wrong with entries.
    told_at: Option<Duration>,
    holder: Option<RedBeatHolder>,
}

/// What a process knows of the sharing.
#[derive(Debug, Default)]
pub(super) struct Sharing(Mutex<Known>);

impl Sharing {
    fn with<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The field of `lua/commit.lua` and `lua/redbeat.lua` that says where the keys are.
pub(super) fn pack_place(core: &Core, argument: &mut Pack, place: Option<&Place>) {
    argument.text("redbeat");
    let Some(place) = place else {
        argument.array(0);
        return;
    };
    argument.array(5);
    if place.database == core.keys.database {
        argument.array(0);
    } else {
        argument.array(2).number(place.database).number(core.keys.database);
    }
    argument.text(&place.lock).text(&token(core));
    argument.text(&format!("{}:schedule", place.prefix));
    argument.text(&format!("{}:statics", place.prefix));
}

/// What we write into RedBeat's lock, but for the epoch.
fn token(core: &Core) -> String {
    format!("celeriac:{}:{}:", core.keys.database, core.keys.prefix)
}

fn note(core: &Core) -> String {
    core.keys.own("schedule:redbeat")
}

async fn script(
    core: &Core,
    place: &Place,
    what: &str,
    op: &str,
    more: usize,
    fill: impl FnOnce(&mut Pack),
) -> Result<Answer, StoreError> {
    let mut argument = Pack::default();
    argument.map(5 + more);
    core.pack_head(&mut argument);
    pack_place(core, &mut argument, Some(place));
    argument.text("prefix").text(&place.prefix).text("op").text(op);
    fill(&mut argument);
    core.link.script(what, &REDBEAT, argument.into_bytes()).await
}

/// Where the keys are; `None` if they are not shared.
async fn place(core: &Core) -> Result<Option<Arc<Place>>, StoreError> {
    let now = core.clock.boot();
    let known = core.redbeat.with(|known| known.place.clone());
    if let Some((at, place)) = known
        && now.saturating_sub(at) < ASK_EVERY
    {
        return Ok(place);
    }
    let mut read = redis::cmd("GET");
    read.arg(note(core));
    let place = match core.link.call("ask for RedBeat's keys", &read).await? {
        Answer::BulkString(bytes) => {
            let found = Value::parse(&bytes).ok().and_then(|value| Place::from_value(&value));
            let corrupt = || {
                let text = format!("the note {} on RedBeat's keys cannot be read", note(core));
                StoreError::new(ErrorKind::Corrupt, text)
                    .hint("share them again with `celeriac schedule redbeat share`")
            };
            Some(Arc::new(found.ok_or_else(corrupt)?))
        }
        _ => None,
    };
    core.redbeat.with(|known| known.place = Some((now, place.clone())));
    Ok(place)
}

/// Shares keys from now on.
pub(super) async fn share(core: &Core, keys: RedBeatKeys) -> Result<(), StoreError> {
    if keys.prefix.is_empty() || keys.lock.is_empty() {
        return Err(StoreError::invalid("RedBeat's prefix and its lock have to be named"));
    }
    let database = match &keys.url {
        Some(url) => database_of(core, url).await?,
        None => core.keys.database,
    };
    let place = Place { database, prefix: keys.prefix, lock: keys.lock, zone: keys.zone };
    let mut bad = entries::unreadable(core, &place).await?;
    // A note that cannot be read is written anew.
    let before = self::place(core).await.ok().flatten();
    let is_known = before.as_deref() == Some(&place);
    if is_known {
        // What came later keeps nobody from starting; it is told when it is due.
        for text in bad.drain(..) {
            tracing::error!("schedule: an entry in RedBeat's keys cannot be sent: {text}");
        }
    }
    if !bad.is_empty() {
        return Err(not_shared(bad));
    }
    if let Some(before) = before.filter(|_| !is_known) {
        release(core, &before).await?;
    }
    let mut write = redis::cmd("SET");
    write.arg(note(core)).arg(place.to_value().to_string());
    core.link.call("share RedBeat's keys", &write).await?;
    let now = core.clock.boot();
    core.redbeat.with(|known| {
        *known = Known { place: Some((now, Some(Arc::new(place)))), ..Known::default() };
    });
    core.bell.ring();
    Ok(())
}

/// Why keys are not shared: entries that nobody would send.
fn not_shared(mut bad: Vec<String>) -> StoreError {
    let more = bad.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    bad.truncate(NAMED_MAX);
    let text = format!(
        "RedBeat's keys are not shared: who has its lock sends all of them, and no beat of ours can send \
         {}{more}",
        bad.join("; ")
    );
    StoreError::invalid(text).hint(
        "change or remove these, or go on with `celery beat -S redbeat.RedBeatScheduler`: celeriac's \
         workers run what it sends",
    )
}

/// The database that a URL names, which has to be on the store's server: what is sent and what RedBeat knows
/// of it is written in one step.
async fn database_of(core: &Core, url: &str) -> Result<i64, StoreError> {
    let address = Address::parse(url)?;
    let mut run = redis::cmd("INFO");
    run.arg("server");
    let server = |answer: &Answer| {
        let text = match answer {
            Answer::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Answer::VerbatimString { text, .. } => text.clone(),
            _ => String::new(),
        };
        super::server::field(&text, "run_id").map(str::to_owned)
    };
    let ours = server(&core.link.call("ask which server this is", &run).await?);
    let mut connection = address.connect(None).await?;
    let theirs: Answer = run.query_async(&mut connection).await.map_err(|error| {
        let text = format!("ask Redis at {address} which server it is: {error}");
        StoreError::new(ErrorKind::Unavailable, text).because(error)
    })?;
    if ours.is_some() && ours == server(&theirs) {
        return Ok(address.keys.database);
    }
    let text = format!("RedBeat's keys are at {address}, on another server than the store");
    Err(StoreError::invalid(text).hint(
        "use one server for both, or take the entries over with `celeriac schedule import --format redbeat`",
    ))
}

/// Leaves the keys to RedBeat.
pub(super) async fn leave(core: &Core) -> Result<bool, StoreError> {
    let Some(place) = place(core).await? else { return Ok(false) };
    let mut remove = redis::cmd("DEL");
    remove.arg(note(core));
    core.link.call("leave RedBeat's keys", &remove).await?;
    let now = core.clock.boot();
    core.redbeat.with(|known| *known = Known { place: Some((now, None)), ..Known::default() });
    release(core, &place).await?;
    core.bell.ring();
    Ok(true)
}

/// Gives RedBeat's lock back, whichever beat of this store has it.
async fn release(core: &Core, place: &Place) -> Result<(), StoreError> {
    let any = |argument: &mut Pack| _ = argument.text("epoch").text("");
    script(core, place, "give RedBeat's lock back", "unlock", 1, any).await.map(drop)
}

/// How it stands.
pub(super) async fn view(core: &Core) -> Result<Option<RedBeatView>, StoreError> {
    let Some(place) = place(core).await? else { return Ok(None) };
    let answer = script(core, &place, "look at RedBeat's keys", "look", 0, |_| ()).await?;
    let found = texts(answer);
    let number = |index: usize| found.get(index).and_then(|text| text.parse::<i64>().ok());
    let holder = holder(core, found.first().map_or("", String::as_str));
    let left = number(1).and_then(|left| u64::try_from(left).ok()).map(Duration::from_millis);
    Ok(Some(RedBeatView {
        database: place.database,
        prefix: place.prefix.clone(),
        lock: place.lock.clone(),
        zone: place.zone.clone(),
        left: left.filter(|_| holder != RedBeatHolder::Nobody),
        holder,
        count: number(2).unwrap_or(0).unsigned_abs(),
    }))
}

fn holder(core: &Core, found: &str) -> RedBeatHolder {
    match found {
        "" => RedBeatHolder::Nobody,
        found if found.starts_with(&token(core)) => RedBeatHolder::Us,
        found => RedBeatHolder::Other(found.to_owned()),
    }
}

/// Takes or renews RedBeat's lock for the beat that leads. A lock that cannot be had costs nobody the lead.
pub(super) async fn lead(core: &Core, lead: &Lead, lease: Duration) {
    let asked = take(core, lead, lease).await;
    let now = match &asked {
        Ok(Some(holder)) => Some(holder.clone()),
        Ok(None) => return core.redbeat.with(|known| known.holder = None),
        Err(_) => None,
    };
    let before = core.redbeat.with(|known| std::mem::replace(&mut known.holder, now.clone()));
    match (asked, now) {
        (Err(error), _) => tracing::warn!(%error, "schedule: RedBeat's lock cannot be asked for"),
        (_, now) if now == before => {}
        (_, Some(RedBeatHolder::Us)) => {
            tracing::info!("schedule: RedBeat's lock is ours, and its entries are sent here");
        }
        (_, Some(RedBeatHolder::Other(token))) => tracing::info!(
            "schedule: another scheduler has RedBeat's lock ({token}) and sends its entries; they are sent \
             here as soon as it gives the lock back, or the lock expires"
        ),
        _ => tracing::warn!("schedule: RedBeat's lock could not be taken, it is tried again"),
    }
}

async fn take(
    core: &Core,
    lead: &Lead,
    lease: Duration,
) -> Result<Option<RedBeatHolder>, StoreError> {
    let Some(place) = place(core).await? else { return Ok(None) };
    let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX).clamp(1, 1 << 52);
    let fill = |argument: &mut Pack| {
        argument.text("epoch").text(&lead.epoch.to_string()).text("lease").number(lease);
    };
    let found = texts(script(core, &place, "take RedBeat's lock", "lock", 2, fill).await?);
    Ok(Some(holder(core, found.first().map_or("", String::as_str))))
}

/// Gives RedBeat's lock back with the lead.
pub(super) async fn resign(core: &Core, epoch: u64) -> Result<(), StoreError> {
    let Some(place) = place(core).await? else { return Ok(()) };
    let fill = |argument: &mut Pack| _ = argument.text("epoch").text(&epoch.to_string());
    script(core, &place, "give RedBeat's lock back", "unlock", 1, fill).await.map(drop)
}
