//! The template: a Python process that has loaded the app and forks children.

use super::PythonApp;
use super::control::Control;
use super::hello::{Hello, LoadError};
use crate::pool::policy::{Exit, Killed};
use crate::pool::process::Process;
use celeriac_wire::{Map, Value};
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// An app is loaded by then; large ones take many seconds.
const LOAD_PATIENCE: Duration = Duration::from_mins(2);
/// A fork is answered by then.
const FORK_PATIENCE: Duration = Duration::from_secs(20);
/// Forks that wait for their turn.
const FORKS_MAX: usize = 64;
/// The version of the protocol.
pub(super) const PROTOCOL: u64 = 1;

/// How a template is started.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// The Python that has Celery and the app's packages.
    pub program: PathBuf,
    /// The folder in which it runs, which is where the app's modules are.
    pub folder: PathBuf,
    /// Environment variables on top of this process's.
    pub environment: Vec<(OsString, OsString)>,
    /// The text of `boot.py`.
    pub boot: &'static str,
    /// The other sources of the shim, by path.
    pub files: &'static [(&'static str, &'static str)],
}

/// A child that is to be forked.
struct Fork {
    role: &'static str,
    place: usize,
    store: bool,
    descriptors: [OwnedFd; 4],
    answer: oneshot::Sender<io::Result<Arc<Process>>>,
}

/// What a template is asked for.
enum Order {
    /// A child.
    Fork(Fork),
    /// That tasks are given what the operator adds to them, by name.
    Tasks(Map),
}

/// A template that has loaded the app. It ends with this value, and so do its children.
#[derive(Debug)]
pub(super) struct Template {
    orders: mpsc::Sender<Order>,
    process: Arc<Process>,
    /// Whether it knows what is added to its tasks.
    told: bool,
}

impl Template {
    /// Starts an interpreter and has it load the app; `start` are the members of the first frame
    /// beside `op`, `protocol` and `files`.
    ///
    /// # Errors
    /// What the template says, or how it ended.
    pub(super) async fn start(
        interpreter: &Interpreter,
        start: &Map,
    ) -> Result<(Self, Hello), LoadError> {
        let (process, control, hello) = load(interpreter, start).await?;
        let (orders, requests) = mpsc::channel(FORKS_MAX);
        let template = Self { orders, process: Arc::clone(&process), told: false };
        tokio::spawn(serve(control, requests, process));
        Ok((template, hello))
    }

    /// Whether it has ended: nothing can be forked from it any more.
    pub(super) fn is_over(&self) -> bool {
        self.orders.is_closed() || self.process.is_over()
    }

    /// Tells it once what is added to its tasks; what is forked from now on has it.
    pub(super) async fn tell(&mut self, tasks: &Map) -> io::Result<()> {
        if !self.told && !tasks.is_empty() {
            let sent = self.orders.send(Order::Tasks(tasks.clone())).await;
            sent.map_err(|_closed| io::Error::other("the template has ended"))?;
        }
        self.told = true;
        Ok(())
    }

    /// Ends it, with every child that it has.
    pub(super) fn end(&self) {
        self.process.kill(Killed::Aborted);
    }

    /// Forks a child: `descriptors` are its job socket, its page, its standard output and error.
    pub(super) async fn fork(
        &self,
        role: &'static str,
        place: usize,
        store: bool,
        descriptors: [OwnedFd; 4],
    ) -> io::Result<Arc<Process>> {
        let (answer, forked) = oneshot::channel();
        let over = || io::Error::other("the template has ended");
        self.orders
            .send(Order::Fork(Fork { role, place, store, descriptors, answer }))
            .await
            .map_err(|_closed| over())?;
        match tokio::time::timeout(FORK_PATIENCE, forked).await {
            Ok(answered) => answered.unwrap_or_else(|_closed| Err(over())),
            Err(_elapsed) => Err(io::Error::other("the template does not answer")),
        }
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        self.end();
    }
}

/// Kills a template that nobody waits for any more.
struct Guard(Option<Arc<Process>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            process.kill(Killed::Aborted);
        }
    }
}

fn spawn(interpreter: &Interpreter) -> io::Result<(Arc<Process>, Control)> {
    let (ours, theirs) = UnixStream::pair()?;
    let control = Control::new(ours)?;
    #[expect(clippy::disallowed_methods, reason = "the one place where Python is started")]
    let mut command = Command::new(&interpreter.program);
    command
        .arg("-c")
        .arg(interpreter.boot)
        .current_dir(&interpreter.folder)
        .envs(interpreter.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        // A terminal's Ctrl-C is the worker's to act on.
        .process_group(0);
    Ok((Process::watch(command.spawn()?)?, control))
}

/// Starts an interpreter and has it load the app. Nobody ends it once this has returned.
async fn load(
    interpreter: &Interpreter,
    start: &Map,
) -> Result<(Arc<Process>, Control, Hello), LoadError> {
    let (process, mut control) = spawn(interpreter).map_err(|error| {
        LoadError::new(format!("cannot start {}: {error}", interpreter.program.display()))
            .hint("name the Python of the app's environment with --python")
    })?;
    // Whoever gives up on the way must not leave it behind.
    let mut guard = Guard(Some(Arc::clone(&process)));
    let files = interpreter.files.iter().map(|(path, text)| (*path, Value::from(*text)));
    let mut frame = Map::from([
        ("op", Value::from("start")),
        ("protocol", Value::from(PROTOCOL)),
        ("files", Value::Object(files.collect())),
    ]);
    for (key, value) in start.iter() {
        frame.insert(key, value.clone());
    }
    let loading = async {
        // A failed write means that it has ended already; the read finds what it said before.
        let _closed = control.send(&Value::Object(frame), &[]).await;
        control.next().await
    };
    let answer = match tokio::time::timeout(LOAD_PATIENCE, loading).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let limit = LOAD_PATIENCE.as_secs();
            return Err(LoadError::new(format!("the app was not loaded within {limit} s"))
                .hint("look for work that is done while its modules are imported"));
        }
    };
    let hello = match answer {
        Ok(Some(frame)) => Hello::read(frame)?,
        Ok(None) => {
            let exit = process.exited().await;
            let text = format!("Python ended while it loaded the app: {}", exit.reason());
            return Err(LoadError::new(text));
        }
        Err(error) => {
            return Err(LoadError::new(format!("Python cannot be understood: {error}")));
        }
    };
    guard.0 = None;
    Ok((process, control, hello))
}

/// Starts an interpreter that loads the app and is a child then, without a fork. `descriptors` as for
/// [`Template::fork`].
pub(super) async fn start_child(
    app: &PythonApp,
    role: &'static str,
    place: usize,
    store: bool,
    descriptors: [OwnedFd; 4],
) -> io::Result<Arc<Process>> {
    let loaded = load(&app.interpreter, &app.start).await;
    let (process, control, _hello) = loaded.map_err(io::Error::other)?;
    let mut guard = Guard(Some(Arc::clone(&process)));
    if !app.additions.is_empty() {
        control.send(&additions(Map::clone(&app.additions)), &[]).await?;
    }
    let borrowed = descriptors.each_ref().map(|descriptor| descriptor.as_fd());
    control.send(&order("become", role, place, store), &borrowed).await?;
    guard.0 = None;
    Ok(process)
}

/// The frame that says what is added to tasks.
fn additions(tasks: Map) -> Value {
    Value::Object(Map::from([("op", Value::from("tasks")), ("tasks", Value::Object(tasks))]))
}

/// The frame that asks for a child.
fn order(op: &str, role: &str, place: usize, store: bool) -> Value {
    Value::Object(Map::from([
        ("op", Value::from(op)),
        ("slot", Value::from(place as u64)),
        ("role", Value::from(role)),
        ("store", Value::from(store)),
    ]))
}

/// The worker's side of a template, until either ends.
async fn serve(mut control: Control, mut requests: mpsc::Receiver<Order>, process: Arc<Process>) {
    let mut waiting: BTreeMap<usize, oneshot::Sender<io::Result<Arc<Process>>>> = BTreeMap::new();
    let mut children: BTreeMap<i64, Arc<Process>> = BTreeMap::new();
    loop {
        tokio::select! {
            // Cancel safe: the channel and the socket keep what they have; a frame is sent outside.
            request = requests.recv() => {
                let Fork { role, place, store, descriptors, answer } = match request {
                    Some(Order::Fork(fork)) => fork,
                    Some(Order::Tasks(tasks)) => {
                        // A failed write means that it has ended, which the read finds.
                        let _closed = control.send(&additions(tasks), &[]).await;
                        continue;
                    }
                    None => break,
                };
                let frame = order("fork", role, place, store);
                let borrowed = descriptors.each_ref().map(|descriptor| descriptor.as_fd());
                match control.send(&frame, &borrowed).await {
                    Ok(()) => drop(waiting.insert(place, answer)),
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
            said = control.next() => {
                let told = match said {
                    Ok(Some(frame)) => hear(&frame, &mut control, &mut waiting, &mut children),
                    Ok(None) => break,
                    Err(error) => Err(error.to_string()),
                };
                if let Err(text) = told {
                    tracing::error!(template = process.pid(), "the template cannot be understood: {text}");
                    process.kill(Killed::Broken(text));
                    break;
                }
            }
        }
    }
    // Its children were killed by the kernel when it died, or are now.
    for child in children.into_values() {
        child.kill(Killed::Orphaned);
        child.ended(Exit::default());
    }
}

/// Acts on a frame; an error is what is wrong with it.
fn hear(
    frame: &Value,
    control: &mut Control,
    waiting: &mut BTreeMap<usize, oneshot::Sender<io::Result<Arc<Process>>>>,
    children: &mut BTreeMap<i64, Arc<Process>>,
) -> Result<(), String> {
    let number = |name: &str| frame.get(name).and_then(Value::as_i64);
    let pid = number("pid").ok_or("a frame without a pid")?;
    match frame.get("op").and_then(Value::as_str) {
        Some("forked") => {
            let handle = control.descriptor().ok_or("a fork without a pidfd")?;
            let raw =
                i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("a fork without a pid")?;
            let place = number("slot").and_then(|slot| usize::try_from(slot).ok());
            let process = Process::adopted(raw, handle);
            children.insert(pid, Arc::clone(&process));
            let answer = place.and_then(|place| waiting.remove(&place));
            let taken = answer.is_some_and(|answer| answer.send(Ok(Arc::clone(&process))).is_ok());
            if !taken {
                process.kill(Killed::Aborted);
            }
            Ok(())
        }
        // The system refuses to fork.
        Some("exit") if pid == 0 => {
            let place = number("slot").and_then(|slot| usize::try_from(slot).ok());
            if let Some(answer) = place.and_then(|place| waiting.remove(&place)) {
                let _gone = answer.send(Err(io::Error::other("the system refuses to fork")));
            }
            Ok(())
        }
        Some("exit") => {
            if let Some(child) = children.remove(&pid) {
                let small = |name| number(name).and_then(|number| i32::try_from(number).ok());
                let memory_peak = number("memory_peak").and_then(|bytes| u64::try_from(bytes).ok());
                let (signal, code) = (small("signal"), small("code"));
                child.ended(Exit { signal, code, memory_peak, killed: None });
            }
            Ok(())
        }
        other => Err(format!("a frame of the kind {other:?}")),
    }
}
