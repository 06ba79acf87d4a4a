//! A Sentinel that watches one Redis of a test.

use super::redis::Redis;
use crate::process::{Process, bind_to_us, until};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// It dies with this value.
#[derive(Debug)]
pub struct Sentinel {
    _process: Process,
    _folder: TempDir,
    port: u16,
}

impl Sentinel {
    /// Starts one that knows this server as the master `main`.
    ///
    /// # Panics
    /// If none comes up on any port.
    pub async fn of(redis: &Redis) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a Sentinel");
        let socket = folder.path().join("sentinel");
        for port in (20_001..60_000u16).step_by(1999) {
            let conf = folder.path().join("sentinel.conf");
            let text = format!(
                "port {port}\nbind 127.0.0.1\nunixsocket {}\n\
                 sentinel monitor main 127.0.0.1 {} 1\n",
                socket.display(),
                redis.port()
            );
            std::fs::write(&conf, text).expect("a file in a folder of the test");
            let mut command = Command::new("redis-server");
            command.arg(&conf).arg("--sentinel");
            bind_to_us(&mut command);
            let mut process = Process::spawn(&mut command, folder.path().join("log"));
            let up = until("the sentinel answers or ends", PATIENCE, async || {
                if process.is_over() {
                    return Some(false);
                }
                socket.exists().then_some(true)
            });
            if up.await {
                return Self { _process: process, _folder: folder, port };
            }
        }
        panic!("no free port for a Sentinel");
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}
