//! The way between a node and the store, with its faults: delays, refusals, lost answers, outages,
//! partitions in both directions or one, and a store without room.

use crate::dice::Dice;
use crate::ledger::{Line, What};
use crate::sim::record::Record;
use celeriac_core::{ErrorKind, StoreError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// After so long without an answer a call of a real store gives up.
const DEADLINE: Duration = Duration::from_secs(10);

/// The longest delay in one direction: both together are far below the shortest heartbeat.
const SLOW_MS_MAX: u64 = 100;

/// How the link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It works.
    #[default]
    Up,
    /// Every call is refused at once.
    Refused,
    /// Nothing arrives; calls end at their deadline and did nothing.
    Silent,
    /// Requests arrive, answers do not: calls are done and end at their deadline.
    OneWay,
    /// There is no room: what enqueues or sets aside is refused.
    Full,
}

impl Mode {
    /// The word in the ledger.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Refused => "outage",
            Self::Silent => "partition",
            Self::OneWay => "one-way",
            Self::Full => "full",
        }
    }
}

/// What a call is for, as far as faults care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It needs room: publish, settle.
    NeedsRoom(&'static str),
    /// Anything else.
    Plain(&'static str),
}

/// How often single calls fail, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// Refused before anything was done.
    pub(crate) refused: u64,
    /// Done, and the answer lost.
    pub(crate) lost: u64,
    /// Slow in one direction, up to [`SLOW_MS_MAX`].
    pub(crate) slow: u64,
}

/// The link of one node; heals when told.
#[derive(Debug)]
pub(crate) struct Link {
    who: String,
    record: Arc<Record>,
    dice: Dice,
    state: Mutex<(Mode, Rates)>,
    lose_next: Mutex<Option<&'static str>>,
}

impl Link {
    pub(crate) fn new(who: &str, record: Arc<Record>, dice: Dice, rates: Rates) -> Self {
        Self {
            who: who.to_owned(),
            record,
            dice,
            state: Mutex::new((Mode::Up, rates)),
            lose_next: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = mode;
    }

    /// Loses the answer to the next call of this name.
    pub(crate) fn lose_next(&self, call: &'static str) {
        *self.lose_next.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
    }

    /// Works from now on, without single faults.
    pub(crate) fn heal(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (Mode::Up, Rates::default());
    }

    fn state(&self) -> (Mode, Rates) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether rings of the store's bell arrive.
    pub(crate) fn hears(&self) -> bool {
        matches!(self.state().0, Mode::Up | Mode::Full)
    }

    /// On the way to the store.
    pub(crate) async fn before(&self, call: Call) -> Result<(), StoreError> {
        let (mode, rates) = self.state();
        if self.dice.happens(rates.slow) {
            tokio::time::sleep(self.dice.millis(1, SLOW_MS_MAX)).await;
        }
        match mode {
            Mode::Refused => return Err(error(ErrorKind::Unavailable, "the store is down")),
            Mode::Silent => {
                tokio::time::sleep(DEADLINE).await;
                return Err(error(ErrorKind::Unavailable, "no answer, nothing was done"));
            }
            Mode::Full if matches!(call, Call::NeedsRoom(_)) => {
                return Err(error(ErrorKind::Full, "no room"));
            }
            Mode::Up | Mode::OneWay | Mode::Full => {}
        }
        if self.dice.happens(rates.refused) {
            self.note("error", call);
            return Err(error(ErrorKind::Unavailable, "refused"));
        }
        Ok(())
    }

    /// On the way back, after the store has done it.
    pub(crate) async fn after(&self, call: Call) -> Result<(), StoreError> {
        let (mode, rates) = self.state();
        if mode == Mode::OneWay {
            tokio::time::sleep(DEADLINE).await;
            return Err(error(ErrorKind::Unknown, "done, and no answer"));
        }
        if self.dice.happens(rates.slow) {
            tokio::time::sleep(self.dice.millis(1, SLOW_MS_MAX)).await;
        }
        let (Call::Plain(name) | Call::NeedsRoom(name)) = call;
        let ordered = {
            let mut next = self.lose_next.lock().unwrap_or_else(PoisonError::into_inner);
            next.take_if(|lost| *lost == name).is_some()
        };
        if ordered || self.dice.happens(rates.lost) {
            self.note("lost", call);
            return Err(error(ErrorKind::Unknown, "the answer was lost"));
        }
        Ok(())
    }

    fn note(&self, kind: &str, call: Call) {
        let (Call::Plain(name) | Call::NeedsRoom(name)) = call;
        let line = Line::new(What::Fault, kind, &self.who, self.record.micros());
        self.record.append(line.note("call", name));
    }
}

fn error(kind: ErrorKind, text: &str) -> StoreError {
    StoreError::new(kind, format!("simulated: {text}"))
}
