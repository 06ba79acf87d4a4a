//! The store's disk is full while work goes on.
//!
//! `CELERIAC_FULL=30` keeps it full for so many seconds; the default is made for CI.

use crate::kit::{self, PATIENCE, Place, Worker, command, pass};
use celeriac::{Call, Client, SendError};
use celeriac_core::ErrorKind;
use celeriac_core::store::Store;
use celeriac_wire::State;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A small file system of its own, gone with this value.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this user may not mount, which is a failure in CI.
    async fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = command(Path::new("mount"), dir.path());
        let args = ["-t", "tmpfs", "-o", "size=8m", "tmpfs"];
        let mounted = mount.args(args).arg(dir.path()).output().await;
        let works = mounted.is_ok_and(|output| output.status.success());
        assert!(works || std::env::var_os("CI").is_none(), "this user may not mount a file system");
        if !works {
            println!("skipped: this user may not mount a file system");
            return None;
        }
        Some(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let mut filler = File::create(self.path("filler")).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "a test gives its file system back")]
        let ended = std::process::Command::new("umount").arg("-l").arg(self.dir.path()).status();
        if !ended.is_ok_and(|status| status.success()) {
            println!("cannot unmount {}", self.dir.path().display());
        }
    }
}

/// Sends one task after another until it is told to stop; gives the confirmed ids and the refusals.
async fn produce(
    client: Client,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> (Vec<String>, usize) {
    let (mut confirmed, mut refused) = (Vec::new(), 0);
    let padding = "x".repeat(2000);
    while !*stop.borrow_and_update() {
        let call = Call::named("ledger.work").arg(&5u64).header("padding", &padding);
        match client.send(call).await {
            Ok(job) => confirmed.push(job.id().to_owned()),
            Err(SendError::Refused(error)) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                refused += 1;
                pass(Duration::from_millis(20)).await;
            }
            Err(other) => panic!("{other}"),
        }
        pass(Duration::from_millis(2)).await;
    }
    (confirmed, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_work_cleanly_and_it_goes_on_by_itself() {
    let Some(disk) = SmallDisk::mount().await else { return };
    let seconds =
        std::env::var_os("CELERIAC_FULL").map_or(3, |text| text.to_str().unwrap().parse().unwrap());
    let place = Place::with_store_at(&disk.path("queue.db"));
    let client = place.app().client().await.unwrap();
    let store = client.store().clone();
    let mut worker = Worker::start(&place, &store, "w1", "1s", &["-c", "4"]).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let producing = tokio::spawn(produce(client.clone(), stopped));
    kit::until("work goes on", PATIENCE, async || (kit::count(&place, "end") > 20).then_some(()))
        .await;

    disk.fill();
    pass(Duration::from_secs(seconds)).await;
    let ended_while_full = kit::count(&place, "end");
    disk.free();

    kit::until("work goes on again", PATIENCE, async || {
        (kit::count(&place, "end") > ended_while_full + 20).then_some(())
    })
    .await;
    stop.send(true).unwrap();
    let (confirmed, refused) = producing.await.unwrap();
    assert!(refused > 0, "inconclusive: no publisher met the full disk");
    for id in &confirmed {
        let ready = store.wait_result(id, PATIENCE).await.unwrap();
        let state = ready.map(|record| record.meta.state());
        assert_eq!(state, Some(State::Success), "{id} is lost");
    }
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended().await.success());

    let known: BTreeSet<&str> = confirmed.iter().map(String::as_str).collect();
    let ran: Vec<_> = kit::ledger(&place).into_iter().filter(|line| line.step == "start").collect();
    let starts = ran.len();
    let different: BTreeSet<&str> = ran.iter().map(|line| line.id.as_str()).collect();
    assert!(different.is_subset(&known), "what was refused never runs");
    println!(
        "{seconds} s full: {} confirmed, {refused} refused, {} ran twice",
        confirmed.len(),
        starts - different.len()
    );
    assert_eq!(starts, different.len(), "nothing ran twice");
    clean(&*store).await;
}

/// Nothing is half written: no damage, all counters right, nothing left.
async fn clean(store: &dyn Store) {
    assert_eq!(store.check(false).await.unwrap(), []);
    let queues = store.queues().await.unwrap();
    let left: u64 = queues.iter().map(|one| one.ready + one.leased + one.scheduled).sum();
    assert_eq!(left, 0);
}
