//! `top`: one frame for scripts, with a real worker of Celery in it, and the screen on a real terminal.

use crate::kit::{PATIENCE, Place, Worker, command, count, until};
use crate::{call, celeriac, json, number, store, text};
use celeriac_testkit::services::python::Python;
use celeriac_testkit::services::redis::Redis;
use celeriac_wire::Value;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

const PROGRAM: &str = env!("CARGO_BIN_EXE_celeriac");

#[tokio::test]
async fn one_frame_is_printed_for_scripts() {
    let place = store().await;
    let open = place.app().store().await.unwrap();
    let mut worker = Worker::start(&place, &open, "web", "4s", &["-c", "2"]).await;
    let id = call(&place, &["ledger.until_told"]).await;
    until("it runs", PATIENCE, async || (count(&place, "start") == 1).then_some(())).await;
    call(&place, &["nobody.knows", "--queue", "reports"]).await;
    let frame = ["top", "--once", "--interval", "100ms"];
    celeriac(&place, &frame).await.exits(0).says(&[
        "1 ready, 0 scheduled, 1 leased, 0 dead",
        "1 worker\n",
        "web@",
        "1 running task\n",
        &id,
    ]);
    let frame = json(&place, 0, &["top", "--interval", "100ms"]).await;
    let list = |name: &str| frame.get(name).and_then(Value::as_array).unwrap().to_vec();
    let reports = list("queues").into_iter().find(|queue| text(queue, "queue") == "reports");
    assert_eq!(number(&reports.unwrap(), "ready"), 1);
    assert_eq!(number(&list("workers")[0], "concurrency"), 2);
    assert_eq!(text(&list("running")[0], "task_id"), id);
    celeriac(&place, &["top"]).await.exits(2).warns(&["needs a terminal", "--once"]);
    celeriac(&place, &["top", "-i", "1ms", "--once"]).await.exits(2).warns(&["at least 100ms"]);
    worker.kill().await;
}

const APP: &str = "
import os, time
from celery import Celery
app = Celery('proj', broker=os.environ['URL'], backend=os.environ['URL'])
@app.task(name='hold')
def hold():
    open(os.environ['BEGUN'], 'w').close()
    time.sleep(600)
";

/// A stock worker and what it runs are seen by its events alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_celery_is_shown_with_what_it_runs() {
    let Some(redis) = Redis::options().start_if_there().await else { return };
    let Some(python) = Python::with_celery("5.7") else { return };
    let begun = redis.folder().join("begun");
    let url = redis.url();
    let app = python.app(APP, &[("URL", &url), ("BEGUN", begun.to_str().unwrap())]);
    let place = Place::at(&url);
    let args = ["-E", "-c", "1", "--without-mingle", "--without-gossip"];
    let mut stock = app.worker("stock", &args).await;
    let patterns = async || redis.cli(&["PUBSUB", "NUMPAT"]).await.int();
    let before = patterns().await;
    let mut program = command(Path::new(PROGRAM), place.dir());
    program.args(["-b", place.url(), "--json", "top", "--interval", "4s"]);
    program.stdout(std::process::Stdio::piped());
    let top = program.spawn().unwrap();
    // It hears what comes once it is subscribed.
    until("top listens", PATIENCE, async || (patterns().await > before).then_some(())).await;
    let id = call(&place, &["hold"]).await;
    let printed = tokio::time::timeout(PATIENCE, top.wait_with_output()).await.unwrap().unwrap();
    let frame = Value::parse(&printed.stdout).unwrap();
    let list = |name: &str| frame.get(name).and_then(Value::as_array).unwrap().to_vec();
    let worker = &list("workers")[0];
    assert!(text(worker, "name").starts_with("stock@"), "{worker}");
    assert_eq!(worker.get("celerys").and_then(Value::as_bool), Some(true));
    let run = &list("running")[0];
    assert_eq!((text(run, "task_id"), text(run, "task")), (id.as_str(), "hold"));
    stock.kill9().await;
}

/// A terminal of our own, and everything that was written to it.
pub(crate) struct Screen {
    ours: File,
    pub(crate) theirs: File,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    pub(crate) fn open() -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let theirs = OpenOptions::new().read(true).write(true).open(path).unwrap();
        tcsetwinsize(&theirs, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
        let ours = File::from(ours);
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, sink) = (ours.try_clone().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend(&buffer[..count]);
            }
        });
        Self { ours, theirs, written }
    }

    pub(crate) async fn shows(&self, text: &str) {
        until(&format!("{text:?} is shown"), PATIENCE, async || {
            self.text().contains(text).then_some(())
        })
        .await;
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// Whether lines are edited and keys echoed, as a shell wants it.
    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

#[tokio::test]
async fn the_screen_is_drawn_and_the_terminal_given_back() {
    let place = store().await;
    call(&place, &["nobody.knows", "--queue", "reports"]).await;
    for ends_by_key in [true, false] {
        let mut screen = Screen::open();
        assert!(screen.is_cooked());
        let handle = || screen.theirs.try_clone().unwrap();
        // A session of its own, whose terminal this one is.
        let mut program = command(Path::new("setsid"), place.dir());
        program.args(["-c", PROGRAM, "-b", place.url(), "top", "-i", "100ms"]).env("TERM", "xterm");
        program.stdin(handle()).stdout(handle()).stderr(handle());
        let mut running = program.spawn().unwrap();
        let pid = Pid::from_raw(running.id().unwrap() as i32).unwrap();
        screen.shows("\u{1b}[?1049h").await;
        screen.shows("reports").await;
        assert!(!screen.is_cooked());
        // The new size is taken up: the last line is drawn at its new place.
        let smaller = Winsize { ws_row: 20, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&screen.theirs, smaller).unwrap();
        screen.shows("\u{1b}[20;1H").await;
        if ends_by_key {
            screen.ours.write_all(b"q").unwrap();
        } else {
            kill_process(pid, Signal::TERM).unwrap();
        }
        let ended = tokio::time::timeout(PATIENCE, running.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended}");
        screen.shows("\u{1b}[?1049l").await;
        assert!(screen.is_cooked());
    }
}
