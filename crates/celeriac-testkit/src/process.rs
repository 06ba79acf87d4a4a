//! Real processes under test: started, signalled by hand or by a schedule from a seed, and measured.

use crate::dice::Dice;
use crate::ledger::{self, Line, What};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How often [`until`] looks.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `probe` finds something. What other processes do rings no bell here, so it looks
/// again and again: the only place in the tests that does.
///
/// # Panics
/// After `limit`, with the text of what was waited for.
pub async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain until {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Lets time pass where the passing of time is what is tested: a random moment for a fault, or a
/// lease that must run out.
pub async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}

/// The lines of a ledger file; none when there is no file yet.
pub fn read_ledger(path: &Path) -> Vec<Line> {
    ledger::parse(&std::fs::read_to_string(path).unwrap_or_default())
}

/// The tasks that a process began and did not end.
pub fn victims<'a>(lines: &'a [Line], who: &str) -> Vec<&'a str> {
    let of = |what: What| lines.iter().filter(move |line| line.who == who && line.what == what);
    let ended: BTreeSet<&str> = of(What::Ended).map(|line| line.id.as_str()).collect();
    of(What::Started).map(|line| line.id.as_str()).filter(|id| !ended.contains(id)).collect()
}

/// Lets the kernel kill the program when the thread that starts it is gone, however it went. Where
/// there is no such order (outside Linux), the program dies with its [`Process`] only.
pub fn bind_to_us(command: &mut Command) {
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "no other way to give an order between fork and exec")]
    // SAFETY: one system call, which may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let kill = Some(Signal::KILL);
            rustix::process::set_parent_process_death_signal(kill).map_err(Into::into)
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _unbound = command;
}

/// A process that writes into a log file. It dies with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Its process id.
    pub pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it prints goes to `log`.
    ///
    /// # Panics
    /// If the log cannot be made or the program cannot be started.
    pub fn spawn(command: &mut Command, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).expect("a log file in the folder of the test");
        let errors = file.try_clone().expect("a second handle of an open file");
        let started = command.stdout(file).stderr(errors).kill_on_drop(true).spawn();
        let child = started.expect("the program under test is built");
        let pid = child.id().expect("it was just started");
        Self { child, pid, log }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.cast_signed()).expect("a process id is not 0");
        kill_process(pid, signal).expect("the process is there");
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// If the system cannot tell.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("the system knows its children").is_some()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// After `limit`, with the log.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let Ok(ended) = tokio::time::timeout(limit, self.child.wait()).await else {
            panic!("the process does not end:\n{}", self.log());
        };
        ended.expect("the system knows its children")
    }

    /// Kills it, as the kernel does, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended_within(Duration::from_secs(30)).await;
    }

    /// Stops it for a time, as a debugger or a suspended machine does.
    pub async fn freeze(&self, span: Duration) {
        self.signal(Signal::STOP);
        pass(span).await;
        self.signal(Signal::CONT);
    }

    /// What it holds now.
    pub fn footprint(&self) -> Option<Footprint> {
        Footprint::of(self.pid)
    }
}

/// What a process holds, by `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open file descriptors.
    pub descriptors: u64,
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// Threads.
    pub threads: u64,
}

impl Footprint {
    /// Of a process; `None` where there is no `/proc`, or the process is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let descriptors = std::fs::read_dir(folder.join("fd")).ok()?.count() as u64;
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let number = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        Some(Self { descriptors, resident_kib: number("VmRSS:")?, threads: number("Threads:")? })
    }
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(Duration),
    /// SIGTERM.
    Terminate,
}

/// One entry of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// How long after the one before.
    pub after: Duration,
    /// What is done then.
    pub deed: Deed,
}

/// How often each deed comes in a schedule, in parts.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Kills.
    pub kills: u64,
    /// Freezes of up to [`Mix::freeze_max`].
    pub freezes: u64,
    /// Terminations.
    pub terminations: u64,
    /// The longest freeze.
    pub freeze_max: Duration,
}

impl Mix {
    /// Nothing but kills.
    pub const KILLS: Self =
        Self { kills: 1, freezes: 0, terminations: 0, freeze_max: Duration::ZERO };
}

/// When what is done to a process: the same seed gives the same schedule.
pub fn schedule(seed: u64, count: usize, gap: (Duration, Duration), mix: Mix) -> Vec<Strike> {
    let dice = Dice::new(seed, 0x6b69_6c6c);
    let (low, high) = (gap.0.as_millis() as u64, gap.1.as_millis() as u64);
    let strike = |_| {
        let after = dice.millis(low, high);
        let drawn = dice.roll(mix.kills + mix.freezes + mix.terminations);
        let deed = if drawn < mix.kills {
            Deed::Kill
        } else if drawn < mix.kills + mix.freezes {
            Deed::Freeze(dice.millis(1, mix.freeze_max.as_millis() as u64))
        } else {
            Deed::Terminate
        };
        Strike { after, deed }
    };
    (0..count).map(strike).collect()
}

/// Does to a process what a schedule says, until it is dead or the schedule is over; says what was
/// done when, by the clock that is given.
pub async fn strike(
    process: &mut Process,
    schedule: &[Strike],
    micros: impl Fn() -> i64,
) -> Vec<Line> {
    let mut done = Vec::new();
    for Strike { after, deed } in schedule {
        pass(*after).await;
        if process.is_over() {
            break;
        }
        let who = process.pid.to_string();
        let line = |kind: &str, span: Duration| {
            let line = Line::new(What::Fault, kind, &who, micros());
            let until = line.micros + span.as_micros() as i64;
            line.note("until", until)
        };
        match deed {
            Deed::Kill => {
                done.push(line("kill", Duration::ZERO));
                process.kill().await;
            }
            Deed::Freeze(span) => {
                done.push(line("freeze", *span));
                process.freeze(*span).await;
            }
            Deed::Terminate => {
                done.push(line("stop", Duration::ZERO));
                process.signal(Signal::TERM);
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_repeats_and_has_every_deed() {
        let mix =
            Mix { kills: 2, freezes: 1, terminations: 1, freeze_max: Duration::from_millis(40) };
        let gap = (Duration::from_millis(5), Duration::from_millis(9));
        let strikes = schedule(7, 100, gap, mix);
        assert_eq!(strikes, schedule(7, 100, gap, mix));
        assert_ne!(strikes, schedule(8, 100, gap, mix));
        let count = |deed: fn(&Deed) -> bool| strikes.iter().filter(|one| deed(&one.deed)).count();
        let kills = count(|deed| *deed == Deed::Kill);
        let freezes = count(|deed| matches!(deed, Deed::Freeze(span) if !span.is_zero()));
        assert!(kills > 30 && freezes > 10 && kills + freezes < 95);
        assert!(strikes.iter().all(|one| one.after >= gap.0 && one.after <= gap.1));
        let only = schedule(7, 9, gap, Mix::KILLS);
        assert!(only.iter().all(|one| one.deed == Deed::Kill));
    }

    #[test]
    fn what_began_and_did_not_end_was_hit() {
        let text = "start a 0 1 1\nstart b 0 1 2\nend a 0 1 3\nstart c 0 2 4\n";
        assert_eq!(victims(&ledger::parse(text), "1"), ["b"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_is_counted() {
        let before = Footprint::of(std::process::id()).unwrap();
        let files: Vec<_> = (0..20).map(|_| std::fs::File::open("/proc/self/status")).collect();
        let after = Footprint::of(std::process::id()).unwrap();
        assert!(after.descriptors >= before.descriptors + 20, "{before:?} {after:?}");
        assert!(after.resident_kib > 0 && after.threads > 0 && files.len() == 20);
    }

    #[tokio::test]
    async fn a_schedule_is_carried_out() {
        let folder = std::env::temp_dir();
        let log = folder.join(format!("celeriac-testkit-{}.log", std::process::id()));
        let mut process = Process::spawn(Command::new("sleep").arg("60"), log.clone());
        let freeze = Strike { after: Duration::ZERO, deed: Deed::Freeze(Duration::from_millis(1)) };
        let kill = Strike { after: Duration::ZERO, deed: Deed::Kill };
        let done = strike(&mut process, &[freeze, kill, kill], || 5).await;
        let said: Vec<String> = done.iter().map(ToString::to_string).collect();
        let pid = process.pid;
        assert_eq!(
            said,
            [format!("fault freeze 0 {pid} 5 until=1005"), format!("fault kill 0 {pid} 5 until=5")]
        );
        assert!(process.is_over() && process.log().is_empty());
        std::fs::remove_file(log).unwrap();
    }
}
