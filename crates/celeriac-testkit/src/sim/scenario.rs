//! What a seed makes happen: who works, what is sent, and what goes wrong when.

use super::link::{Mode, Rates};
use super::tasks::{Arguments, Kind};
use crate::dice::Dice;
use crate::evidence::Expected;
use celeriac_core::lease::LeaseTimes;
use celeriac_wire::{Signature, State};
use std::time::Duration;

/// Faults happen and tasks are sent within this time; then everything heals and must drain.
pub(crate) const STORMY: Duration = Duration::from_secs(12);
/// The queue that one worker with one slot consumes, where tasks begin in the order of their sends.
pub(crate) const LINE: &str = "line";

/// A worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerPlan {
    pub(crate) slots: usize,
    /// Whether it consumes [`LINE`] instead of the default queue.
    pub(crate) line: bool,
}

/// Something that is sent in one write.
#[derive(Clone, Debug)]
pub(crate) struct Send {
    pub(crate) at: Duration,
    pub(crate) works: Vec<Signature>,
    pub(crate) tasks: Vec<(String, Expected)>,
}

/// A revocation.
#[derive(Clone, Debug)]
pub(crate) struct RevokePlan {
    pub(crate) at: Duration,
    pub(crate) id: String,
    pub(crate) terminate: bool,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FaultPlan {
    /// The worker's process is gone at once.
    Kill(usize),
    /// It stands still for a time, as after SIGSTOP.
    Freeze(usize, Duration),
    /// It is asked to stop, and started again.
    Stop { worker: usize, now: bool },
    /// The way of one worker to the store, or of all and the producer, is broken for a time.
    Cut(Option<usize>, Mode, Duration),
    /// The answer to the worker's next call of this name is lost.
    Lose(usize, &'static str),
    /// The worker's time of day is wrong by so many seconds for a time.
    Jump(usize, i64, Duration),
}

/// Everything that a seed decides in advance.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) times: LeaseTimes,
    pub(crate) workers: Vec<WorkerPlan>,
    pub(crate) sends: Vec<Send>,
    pub(crate) revokes: Vec<RevokePlan>,
    pub(crate) faults: Vec<(Duration, FaultPlan)>,
    pub(crate) rates: Rates,
}

struct Maker {
    dice: Dice,
    ids: u32,
    revokes: Vec<RevokePlan>,
}

impl Scenario {
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut maker = Maker { dice: Dice::new(seed, 1), ids: 0, revokes: Vec::new() };
        let dice = &maker.dice;
        let times = LeaseTimes::with_expiry(Duration::from_secs(*dice.pick(&[2, 4, 8])));
        let count = dice.between(2, 4);
        let mut workers: Vec<WorkerPlan> = (0..count)
            .map(|_| WorkerPlan { slots: dice.between(1, 4) as usize, line: false })
            .collect();
        let in_line = dice.happens(250);
        if in_line {
            workers.push(WorkerPlan { slots: 1, line: true });
        }
        let stormy = dice.roll(8);
        let rates = match stormy {
            0 => Rates::default(),
            1..=3 => Rates { refused: 5, lost: 0, slow: 50 },
            _ => Rates { refused: 20, lost: 20, slow: 100 },
        };
        let fault_count = if stormy == 0 { 0 } else { dice.between(1, 6) };
        let mut faults: Vec<_> =
            (0..fault_count).map(|_| fault(dice, count as usize, times)).collect();
        faults.sort_by_key(|(at, _)| *at);
        let mut sends: Vec<Send> = (0..maker.dice.between(6, 20)).map(|_| maker.send()).collect();
        if in_line {
            sends.push(maker.line());
        }
        sends.sort_by_key(|send| send.at);
        maker.revokes.sort_by_key(|revoke| revoke.at);
        Self { times, workers, sends, revokes: maker.revokes, faults, rates }
    }
}

fn fault(dice: &Dice, workers: usize, times: LeaseTimes) -> (Duration, FaultPlan) {
    let at = dice.millis(300, STORMY.as_millis() as u64 - 2000);
    let worker = dice.roll(workers as u64) as usize;
    let expiry = times.expiry.as_millis() as u64;
    // Half of the spans end before a lease does, half after.
    let span = dice.millis(expiry / 8, expiry * 2);
    let plan = match dice.roll(11) {
        0..=2 => FaultPlan::Kill(worker),
        3 | 4 => FaultPlan::Freeze(worker, span),
        5 => FaultPlan::Stop { worker, now: dice.happens(500) },
        6 | 7 => {
            let mode = *dice.pick(&[Mode::Refused, Mode::Silent, Mode::OneWay]);
            FaultPlan::Cut(Some(worker), mode, span)
        }
        8 => {
            let mode = *dice.pick(&[Mode::Refused, Mode::Silent, Mode::OneWay, Mode::Full]);
            FaultPlan::Cut(None, mode, span)
        }
        9 => {
            let call = *dice.pick(&["fetch", "settle", "heartbeat", "register", "return_strays"]);
            FaultPlan::Lose(worker, call)
        }
        _ => {
            let hours = *dice.pick(&[-24, -1, 1, 24]);
            FaultPlan::Jump(worker, hours * 3600, span)
        }
    };
    (at, plan)
}

impl Maker {
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("t{}", self.ids)
    }

    fn at(&self) -> Duration {
        self.dice.millis(0, STORMY.as_millis() as u64 - 4000)
    }

    fn send(&mut self) -> Send {
        let at = self.at();
        match self.dice.roll(10) {
            0 | 1 => self.chain(at),
            2 => self.chord(at),
            3 => self.group(at),
            _ => {
                let (work, task) = self.single(at);
                Send { at, works: vec![work], tasks: vec![task] }
            }
        }
    }

    /// A call of this kind and what it comes to when nothing goes wrong.
    fn call(&mut self, kind: Kind) -> (Signature, String, Expected) {
        let id = self.id();
        let ms = match kind {
            Kind::Soft | Kind::Hard => 2000,
            _ if self.dice.happens(300) => self.dice.between(1000, 5000),
            _ => self.dice.between(1, 400),
        };
        let times = self.dice.between(1, 3);
        let (states, runs) = match kind {
            Kind::Works | Kind::Reports | Kind::Quiet => (vec![State::Success], 1),
            Kind::Flaky | Kind::Returns => (vec![State::Success], times as u32 + 1),
            Kind::Fails | Kind::Rejects => (vec![State::Failure], 1),
            Kind::Panics => (vec![State::Failure], 2),
            // After a freeze the end of the body and its limit are seen together.
            Kind::Soft | Kind::Hard => (vec![State::Failure, State::Success], 1),
            Kind::Endless => (vec![State::Revoked], 1),
        };
        let result = kind != Kind::Quiet;
        let expected = Expected { states, runs, result, after: Vec::new(), line: None };
        let arguments = Arguments { ms, times }.to_kwargs();
        let work = Signature::new(kind.name()).with_kwargs(arguments);
        (work.with_option("task_id", id.as_str()), id, expected)
    }

    fn single(&mut self, at: Duration) -> (Signature, (String, Expected)) {
        let kind = *self.dice.pick(&Kind::ALL);
        let (mut work, id, mut expected) = self.call(kind);
        let fraction = |dice: &Dice, low, high| dice.between(low, high) as f64 / 1000.0;
        match self.dice.roll(8) {
            0 => work = work.with_option("countdown", fraction(&self.dice, 100, 4000)),
            1 => work = work.with_option("priority", self.dice.roll(10)),
            2 if kind != Kind::Endless => {
                work = work.with_option("expires", fraction(&self.dice, 200, 4000));
                expected.states.push(State::Revoked);
            }
            _ => {}
        }
        if kind == Kind::Endless || self.dice.happens(100) {
            let terminate = kind == Kind::Endless || self.dice.happens(500);
            let at = at + self.dice.millis(0, 3000);
            self.revokes.push(RevokePlan { at, id: id.clone(), terminate });
            expected.states.push(State::Revoked);
        }
        (work, (id, expected))
    }

    /// A member of a workflow: mostly one that succeeds.
    fn member(&mut self) -> (Signature, String, Expected) {
        let kind = match self.dice.roll(10) {
            0 => Kind::Fails,
            1 | 2 => Kind::Flaky,
            3 => Kind::Quiet,
            _ => Kind::Works,
        };
        self.call(kind)
    }

    fn chain(&mut self, at: Duration) -> Send {
        let (mut works, mut tasks): (Vec<Signature>, Vec<(String, Expected)>) = Default::default();
        let mut fails = false;
        for _ in 0..self.dice.between(2, 4) {
            let (work, id, mut expected) = self.member();
            expected.after.extend(tasks.last().map(|(id, _)| id.clone()));
            if fails {
                expected =
                    Expected { states: vec![State::Failure], runs: 0, result: true, ..expected };
            }
            fails |= expected.states == [State::Failure];
            works.push(work);
            tasks.push((id, expected));
        }
        Send { at, works: vec![Signature::chain(works)], tasks }
    }

    fn group(&mut self, at: Duration) -> Send {
        let (mut works, mut tasks): (Vec<Signature>, Vec<(String, Expected)>) = Default::default();
        for _ in 0..self.dice.between(2, 4) {
            let (work, id, expected) = self.member();
            works.push(work);
            tasks.push((id, expected));
        }
        Send { at, works: vec![Signature::group(works)], tasks }
    }

    fn chord(&mut self, at: Duration) -> Send {
        let Send { works, mut tasks, .. } = self.group(at);
        let header = works.first().and_then(|group| group.tasks().ok()).unwrap_or_default();
        let (body, id, mut expected) = self.call(Kind::Works);
        expected.after.extend(tasks.iter().map(|(id, _)| id.clone()));
        if tasks.iter().any(|(_, one)| one.states == [State::Failure]) {
            expected = Expected { states: vec![State::Failure], runs: 0, ..expected };
        }
        tasks.push((id, expected));
        Send { at, works: vec![Signature::chord(header, body)], tasks }
    }

    /// Tasks that begin in the order in which they are sent.
    fn line(&mut self) -> Send {
        let at = self.at();
        let (mut works, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            let (work, id, mut expected) = self.call(Kind::Works);
            expected.line = Some(LINE.to_owned());
            works.push(work.with_option("queue", LINE));
            tasks.push((id, expected));
        }
        Send { at, works, tasks }
    }
}
