//! One child process: started, killed with its whole group, waited for with what it used.
//!
//! A waiter thread per child sleeps in `waitid` and reaps with `wait4`. Both reaping and killing
//! happen under one lock, so that a signal never meets a recycled process id.

use super::policy::{Exit, Killed};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use wait4::Wait4 as _;

/// The environment variable that tells a child the process id of its worker.
pub const CHILD_VARIABLE: &str = "CELERIAC_CHILD";
/// The stack of a waiter thread, which only sleeps.
const WAITER_STACK: usize = 128 << 10;

/// How the running program is started once more as a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program; on Linux `/proc/self/exe`, which stays the running one after a deploy replaced
    /// the file.
    pub program: PathBuf,
    /// The name that it is given, its own.
    pub name: OsString,
    /// The arguments with which it comes to the place where children enter.
    pub arguments: Vec<OsString>,
    /// The folder in which it runs, as long as it is there.
    pub folder: PathBuf,
}

/// A child process: our own, or one that a template has forked and reaps.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// The handle of one that somebody else reaps: its id may be another's already.
    handle: Option<OwnedFd>,
    life: Mutex<Life>,
    exit: watch::Sender<Option<Exit>>,
}

#[derive(Debug, Default)]
struct Life {
    reaped: bool,
    killed: Option<Killed>,
    /// It was asked to end: what it started may go on.
    asked: bool,
}

/// A process that has just been started, and its ends of everything.
pub(super) struct Spawned {
    pub(super) process: Arc<Process>,
    pub(super) socket: UnixStream,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Process {
    /// Starts the program again.
    pub(super) fn spawn(launch: &Launch) -> io::Result<Spawned> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        #[expect(clippy::disallowed_methods, reason = "the one place where children are started")]
        let mut command = Command::new(&launch.program);
        command
            .arg0(&launch.name)
            .args(&launch.arguments)
            .env(CHILD_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's Ctrl-C and a TERM to the worker's group are the worker's to act on.
            .process_group(0);
        // A deploy may have removed the folder of the program that runs: better there than nowhere.
        if launch.folder.is_dir() {
            command.current_dir(&launch.folder);
        }
        let mut child = command.spawn()?;
        let missing = || io::Error::other("the child's output is no pipe");
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let process = Self::watch(child)?;
        Ok(Spawned { process, socket, stdout, stderr })
    }

    /// A child of this process, which is the leader of its own group, and is reaped here.
    pub(super) fn watch(child: Child) -> io::Result<Arc<Self>> {
        let process = Arc::new(Self::new(Pid::from_child(&child), None));
        let watched = Arc::clone(&process);
        let waiter = std::thread::Builder::new()
            .name("child waiter".to_owned())
            .stack_size(WAITER_STACK)
            .spawn(move || watched.wait(child));
        if let Err(error) = waiter {
            // Without a waiter nobody would reap it: it must not live.
            process.kill(Killed::Aborted);
            return Err(error);
        }
        Ok(process)
    }

    /// A child of a child of this process, the leader of its own group, of whose end
    /// [`Process::ended`] is told.
    pub(super) fn adopted(pid: Pid, handle: OwnedFd) -> Arc<Self> {
        Arc::new(Self::new(pid, Some(handle)))
    }

    fn new(pid: Pid, handle: Option<OwnedFd>) -> Self {
        Self { pid, handle, life: Mutex::default(), exit: watch::Sender::new(None) }
    }

    /// An adopted child was reaped.
    pub(super) fn ended(&self, mut exit: Exit) {
        {
            let mut life = self.life();
            life.reaped = true;
            exit.killed.clone_from(&life.killed);
        }
        self.exit.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(exit);
            }
            first
        });
    }

    /// Sends a signal to the process alone. Nothing happens to one that has ended.
    pub(super) fn signal(&self, signal: Signal) {
        let life = self.life();
        if !life.reaped {
            let _gone = match &self.handle {
                Some(handle) => rustix::process::pidfd_send_signal(handle, signal),
                None => rustix::process::kill_process(self.pid, signal),
            };
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Kills it and everything it started that stayed in its group; the first reason stands.
    /// Nothing happens to one that has ended.
    pub(super) fn kill(&self, why: Killed) {
        let mut life = self.life();
        if !life.reaped {
            life.killed.get_or_insert(why);
            self.kill_group();
        }
    }

    fn kill_group(&self) {
        if let Some(handle) = &self.handle
            && rustix::process::pidfd_send_signal(handle, Signal::KILL).is_err()
        {
            // It was reaped already, with its group: its id may be another's by now.
            return;
        }
        if rustix::process::kill_process_group(self.pid, Signal::KILL).is_err() {
            // No group yet, or only the dead leader in it.
            let _gone = rustix::process::kill_process(self.pid, Signal::KILL);
        }
    }

    /// Notes that it was asked to end, so that its end is no accident.
    pub(super) fn ask(&self) {
        self.life().asked = true;
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Waits for its end. Cancel safe.
    pub(super) async fn exited(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await;
        // The sender lives in `self`.
        ended.ok().and_then(|exit| exit.clone()).unwrap_or_default()
    }

    /// The waiter thread.
    fn wait(&self, child: Child) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) =
            rustix::process::waitid(WaitId::Pid(self.pid), options)
        {}
        let exit = {
            let mut life = self.life();
            if !life.asked {
                // What a dead task started must not go on without it; the id is still its own.
                self.kill_group();
            }
            life.reaped = true;
            let killed = life.killed.clone();
            match child.wait4() {
                Ok(ended) => Exit {
                    signal: ended.status.signal(),
                    code: ended.status.code(),
                    memory_peak: Some(ended.rusage.maxrss).filter(|bytes| *bytes > 0),
                    killed,
                },
                Err(error) => {
                    tracing::warn!(%error, child = self.pid(), "somebody else reaped a child");
                    Exit { killed, ..Exit::default() }
                }
            }
        };
        self.exit.send_replace(Some(exit));
    }
}

/// What the system says of a process that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vitals {
    /// The memory that it holds now, in bytes of resident set; 0 where nobody knows.
    pub(super) memory: u64,
    /// A signal stopped it.
    pub(super) stopped: bool,
}

impl Vitals {
    pub(super) fn of(process: &Process) -> Self {
        Self { memory: memory_now(process), stopped: is_stopped(&proc_file(process, "stat")) }
    }
}

/// The memory that a process holds now, in bytes of resident set; 0 where nobody knows.
pub(super) fn memory_now(process: &Process) -> u64 {
    memory_of(&proc_file(process, "statm"))
}

/// A file of `/proc`, where there is one; elsewhere memory is only known at the end.
fn proc_file(process: &Process, name: &str) -> String {
    if cfg!(not(target_os = "linux")) || process.is_over() {
        return String::new();
    }
    std::fs::read_to_string(format!("/proc/{}/{name}", process.pid())).unwrap_or_default()
}

/// The second number of `statm` is the resident set in pages (proc(5)).
fn memory_of(statm: &str) -> u64 {
    let pages: u64 =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}

/// The state follows the program's name, which may hold anything and ends at the last parenthesis.
/// Lower case `t` is a debugger's, who knows what he does.
fn is_stopped(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_starts_also_when_its_folder_is_gone() {
        let launch = Launch {
            program: PathBuf::from("/bin/true"),
            name: OsString::from("true"),
            arguments: Vec::new(),
            folder: PathBuf::from("/nowhere/at/all"),
        };
        let spawned = Process::spawn(&launch).unwrap();
        assert_eq!(spawned.process.exited().await.code, Some(0));
    }

    #[test]
    fn proc_is_read_as_the_kernel_writes_it() {
        let page = rustix::param::page_size() as u64;
        assert_eq!(memory_of("3013 1035 780 6 0 413 0\n"), 1035 * page);
        assert_eq!(memory_of(""), 0);
        for (stat, stopped) in [
            ("12 (a) T (b) S 1 12 12 0", false),
            ("12 (a) S) T 1 12 12 0", true),
            ("12 (a) t 1", false),
            ("", false),
        ] {
            assert_eq!(is_stopped(stat), stopped, "{stat}");
        }
    }
}
