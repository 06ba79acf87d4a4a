//! The child's side: enters, says that it is ready, and runs what it is given.
//!
//! One thread reads the socket all the time: it spawns runs, passes cancellations on, and ends the
//! process at once when the worker is gone, whatever a body does. Runs are on a runtime beside it.

use super::frame::{self, FromChild, Hello, ToChild};
use crate::cancel::{CancelReason, Cancellation};
use crate::handler::{Registry, RunContext};
use crate::worker::outcome_of_panic;
use bytes::{Bytes, BytesMut};
use celeriac_core::Clock;
use celeriac_core::outcome::{Failure, Outcome};
use celeriac_core::store::{Delivery, Store};
use celeriac_core::trail::Trail;
use celeriac_wire::codec::{self, Accept};
use celeriac_wire::{ExceptionInfo, Value};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::process::{Pid, Signal};
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::Instant;

/// Threads on which a child's task and what it spawns run.
const THREADS: usize = 2;
/// What a finished task left running has so long when the child ends.
const LEAVE: Duration = Duration::from_secs(1);
/// Exit code of a child that could not start, or could not understand its worker.
const FAILED: i32 = 1;

/// What a worker asks its child to be.
#[derive(Clone)]
pub struct Offer {
    /// The store that the worker uses.
    pub broker_url: String,
    /// The worker's node name.
    pub node: String,
    /// The tasks that it will send.
    pub tasks: Vec<String>,
}

impl fmt::Debug for Offer {
    /// Without the URL, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Offer").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What a child runs tasks with.
#[derive(Clone)]
pub struct ChildTasks {
    /// The tasks, with their states.
    pub registry: Arc<Registry>,
    /// The child's own connection to the store.
    pub store: Arc<dyn Store>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for ChildTasks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ChildTasks")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// Makes what a child runs tasks with; an error is the text that the worker shows.
pub type Prepare = Box<dyn FnOnce(Offer) -> BoxFuture<'static, Result<ChildTasks, String>> + Send>;

/// Whether this process was started as a child by the process `worker`, whose number came in
/// [`crate::pool::CHILD_VARIABLE`].
///
/// Programs that a task starts inherit the variable; they have another parent and no socket as
/// standard input. A child whose worker has died meanwhile is still one: it ends at once.
pub fn is_child(worker: u32) -> bool {
    let Some(worker) = i32::try_from(worker).ok().and_then(Pid::from_raw) else { return false };
    let stdin = rustix::stdio::stdin();
    let is_socket = rustix::fs::fstat(stdin).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket
    });
    is_socket && (rustix::process::getppid() == Some(worker) || was_made_by(worker))
}

/// The kernel remembers who made a socket pair.
#[cfg(target_os = "linux")]
fn was_made_by(worker: Pid) -> bool {
    rustix::net::sockopt::socket_peercred(rustix::stdio::stdin())
        .is_ok_and(|peer| peer.pid == worker)
}

#[cfg(not(target_os = "linux"))]
fn was_made_by(_worker: Pid) -> bool {
    false
}

/// Runs tasks for the worker until it has no more, then ends the process.
///
/// May be called from anywhere, an async runtime included: a thread of its own serves.
pub fn serve_child(prepare: Prepare) -> ! {
    let serving =
        std::thread::Builder::new().name("celeriac child".to_owned()).spawn(|| serve(prepare));
    let code = serving.map_or(FAILED, |serving| serving.join().unwrap_or(FAILED));
    #[expect(clippy::exit, reason = "a child has nothing to go back to")]
    std::process::exit(code)
}

fn serve(prepare: Prepare) -> i32 {
    match try_serve(prepare) {
        Ok(code) => code,
        Err(error) => {
            // The worker reads it as this child's last words; nobody else could.
            let _closed = writeln!(io::stderr(), "celeriac: this child cannot serve: {error}");
            FAILED
        }
    }
}

fn try_serve(prepare: Prepare) -> io::Result<i32> {
    let mut reader =
        Reader { socket: take_socket()?, read: BytesMut::new(), bytes_max: frame::HELLO_BYTES_MAX };
    let writer = reader.socket.try_clone()?;
    let Some((ToChild::Hello(hello), _)) = reader.next()? else {
        return Err(io::Error::other("no hello came"));
    };
    reader.bytes_max = hello.frame_bytes_max;
    let writer = Arc::new(Writer { socket: Mutex::new(writer), bytes_max: hello.frame_bytes_max });
    if (hello.protocol, hello.version.as_str()) != (frame::PROTOCOL, frame::VERSION) {
        let text = format!(
            "the worker is celeriac {} (protocol {}), this child is {} (protocol {}): the program \
             was replaced while it ran; restart the worker",
            hello.version,
            hello.protocol,
            frame::VERSION,
            frame::PROTOCOL
        );
        writer.say(&FromChild::Failed { text })?;
        return Ok(FAILED);
    }
    be_killed_first(hello.oom_score_adj);
    let panics = Panics::listen();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("celeriac task")
        .enable_all()
        .build()?;
    let _signals = runtime.block_on(async { swallow_signals() });
    let (quit, asked) = mpsc::sync_channel(1);
    let (runs, work) = tokio::sync::mpsc::channel(1);
    std::thread::Builder::new()
        .name("celeriac socket".to_owned())
        .spawn(move || reader.serve(&runs, &quit))?;
    let Hello { broker_url, node, tasks, .. } = hello;
    let offer = Offer { broker_url, node: node.clone(), tasks };
    // A panic while states are made is the application's fault and its text belongs into the log.
    let prepared = AssertUnwindSafe(prepare(offer)).catch_unwind();
    let prepared = runtime.block_on(prepared).unwrap_or_else(|_panic| {
        Err(panics.take().unwrap_or_else(|| "it panicked while it started".to_owned()))
    });
    let tasks = match prepared {
        Ok(tasks) => tasks,
        Err(text) => {
            writer.say(&FromChild::Failed { text })?;
            return Ok(FAILED);
        }
    };
    let child = Arc::new(Child { tasks, node: Arc::from(node), writer, panics });
    child
        .writer
        .say(&FromChild::Ready { protocol: frame::PROTOCOL, version: frame::VERSION.to_owned() })?;
    runtime.spawn(child.work(work));
    // The reader ends the process when its worker is gone; it drops `quit` only after a Quit.
    let _quit = asked.recv();
    runtime.shutdown_timeout(LEAVE);
    Ok(0)
}

/// Takes the socket from standard input and leaves `/dev/null` there, so that what a task starts
/// does not inherit it.
fn take_socket() -> io::Result<UnixStream> {
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket)
}

fn be_killed_first(score: i32) {
    if cfg!(target_os = "linux")
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        tracing::debug!(%error, score, "cannot set oom_score_adj");
    }
}

/// systemd sends TERM to every process of a service, a closed terminal sends HUP: what ends a child
/// is its worker, so these are heard and not followed. What a task starts does not inherit this.
fn swallow_signals() -> Vec<SignalStream> {
    [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .into_iter()
        .filter_map(|kind| signal(kind).ok())
        .collect()
}

/// Ends this process, and what its task started, without asking anybody: the worker is gone, and
/// others will run the task.
fn end_at_once() {
    if rustix::process::getpgrp() == rustix::process::getpid() {
        let _ends = rustix::process::kill_current_process_group(Signal::KILL);
    }
    let _ends = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
}

/// What the last panic said and where, for the traceback of its task.
#[derive(Clone, Default)]
struct Panics(Arc<Mutex<Option<String>>>);

impl Panics {
    /// Listens beside the hook that is there.
    fn listen() -> Self {
        let panics = Self::default();
        let heard = panics.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            *heard.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic.to_string());
            before(panic);
        }));
        panics
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One run for the executor.
struct Work {
    run: frame::Run,
    body: Bytes,
    cancellation: Cancellation,
}

/// The thread that reads.
struct Reader {
    socket: UnixStream,
    read: BytesMut,
    bytes_max: usize,
}

impl Reader {
    /// The next frame; `None` when the worker has closed its end.
    fn next(&mut self) -> io::Result<Option<(ToChild, Bytes)>> {
        let mut buffer = [0; 16 << 10];
        loop {
            let taken = frame::decode(&mut self.read, self.bytes_max).map_err(io::Error::other)?;
            if taken.is_some() {
                return Ok(taken);
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn serve(mut self, runs: &tokio::sync::mpsc::Sender<Work>, quit: &mpsc::SyncSender<()>) {
        let mut present = (0, Cancellation::default());
        loop {
            match self.next() {
                Ok(Some((ToChild::Run(run), body))) => {
                    present = (run.number, Cancellation::default());
                    let cancellation = present.1.clone();
                    // The worker sends a run only after the one before has ended.
                    if runs.try_send(Work { run: *run, body, cancellation }).is_err() {
                        return end_at_once();
                    }
                }
                Ok(Some((ToChild::Cancel { run, reason }, _))) if run == present.0 => {
                    present
                        .1
                        .cancel(CancelReason::from_code(reason).unwrap_or(CancelReason::Revoked));
                }
                // Too late: that run has ended meanwhile.
                Ok(Some((ToChild::Cancel { .. }, _))) => {}
                Ok(Some((ToChild::Quit, _))) => {
                    // Full means that it was asked already.
                    let _asked = quit.try_send(());
                }
                Ok(Some((ToChild::Hello(_), _)) | None) | Err(_) => return end_at_once(),
            }
        }
    }
}

/// The way back to the worker.
struct Writer {
    socket: Mutex<UnixStream>,
    bytes_max: usize,
}

impl Writer {
    fn say(&self, frame: &FromChild) -> io::Result<()> {
        let bytes = frame::encode(frame, &[], self.bytes_max).map_err(io::Error::other)?;
        self.send(&bytes)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
    }
}

/// Everything that runs need.
struct Child {
    tasks: ChildTasks,
    node: Arc<str>,
    writer: Arc<Writer>,
    panics: Panics,
}

impl Child {
    /// Runs one task after the other.
    async fn work(self: Arc<Self>, mut work: tokio::sync::mpsc::Receiver<Work>) {
        while let Some(Work { run, body, cancellation }) = work.recv().await {
            let number = run.number;
            // Failed writes: the worker is gone, and the reader ends this process.
            let _gone = self.writer.say(&FromChild::Started { run: number });
            let trail = Trail::default();
            let outcome = self.run(run, body, cancellation, trail.clone()).await;
            let _gone = io::stdout().flush();
            let _gone = self.writer.send(&self.report(number, outcome, &trail));
        }
    }

    async fn run(
        &self,
        run: frame::Run,
        body: Bytes,
        cancellation: Cancellation,
        trail: Trail,
    ) -> Outcome {
        let (started_at, soft, hard) = (run.started_at, run.soft, run.hard);
        let prepared = run.into_delivery(body).map_err(|error| error.to_string()).and_then(
            |delivery: Delivery| {
                // What it accepts was decided by the worker.
                let read = codec::read(&delivery.message, Accept::default());
                Ok((delivery, read.map_err(|error| error.to_string())?.body))
            },
        );
        let (delivery, body) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return failed(format!("the child cannot read its message: {error}")),
        };
        let name = delivery.message.headers.task().unwrap_or_default().to_owned();
        let Some(handler) = self.tasks.registry.find(&name) else {
            return Outcome::Failure(Failure::permanent(ExceptionInfo::not_registered(&name)));
        };
        let now = Instant::now();
        let context = RunContext {
            delivery: Arc::new(delivery),
            store: Arc::clone(&self.tasks.store),
            clock: Arc::clone(&self.tasks.clock),
            cancellation,
            node: Arc::clone(&self.node),
            started_at,
            soft_deadline: soft.map(|left| now + left),
            hard_deadline: hard.map(|left| now + left),
            trail,
            result_extended: handler.policy().result_extended,
            begun: Arc::new(AtomicBool::new(true)),
        };
        let running = AssertUnwindSafe(async { handler.run(context, body).await }).catch_unwind();
        match running.await {
            Ok(outcome) => outcome,
            Err(payload) => {
                let mut outcome = outcome_of_panic(payload.as_ref());
                if let Outcome::Failure(failure) = &mut outcome {
                    failure.traceback = self.panics.take();
                }
                outcome
            }
        }
    }

    /// The frame of an outcome; one that is too large is a failure.
    fn report(&self, run: u64, outcome: Outcome, trail: &Trail) -> Vec<u8> {
        let encode = |outcome: Outcome| {
            let children = trail.children();
            let frame = FromChild::Done { run, outcome: outcome.into(), children };
            frame::encode(&frame, &[], self.writer.bytes_max)
        };
        encode(outcome)
            .or_else(|error| encode(failed(format!("the outcome cannot be reported: {error}"))))
            .unwrap_or_default()
    }
}

fn failed(text: String) -> Outcome {
    let exception =
        ExceptionInfo::new("celeriac.exceptions", "TaskFailed", vec![Value::from(text)]);
    Outcome::Failure(Failure::permanent(exception))
}
