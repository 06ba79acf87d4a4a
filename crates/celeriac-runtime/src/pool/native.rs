//! Children that are this program once more: they run native tasks.
//!
//! A child enters at [`serve_child`], says that it is ready, and runs one task at a time; worker and
//! child speak in frames (`frame`) over a socket that the child finds as its standard input.

mod channel;
mod child;
mod frame;
mod run;

pub use child::{ChildTasks, Offer, Prepare, is_child, serve_child};
pub(super) use run::run;

use super::ProcessOptions;
use super::kind::{Born, Greeting, Kind};
use super::output::{Output, Voice};
use super::policy::Killed;
use super::process::{Process, Spawned};
use channel::Channel;
use frame::{FromChild, Hello, ToChild};
use std::io;
use std::sync::Arc;

/// The program itself as its own child.
#[derive(Debug)]
pub(super) struct Native {
    pub(super) options: ProcessOptions,
}

impl Kind for Native {
    type Channel = Channel;

    fn program(&self) -> String {
        self.options.launch.program.display().to_string()
    }

    async fn start(&self, _place: usize) -> io::Result<Born<Channel>> {
        let Spawned { process, socket, stdout, stderr } = Process::spawn(&self.options.launch)?;
        let pipes = [stdout.into(), stderr.into()];
        let taken = Output::new(process.pid(), pipes, Voice::Log)
            .and_then(|output| Ok((output, Channel::new(socket, self.options.frame_bytes_max)?)));
        match taken {
            Ok((output, channel)) => Ok(Born { process, output: Arc::new(output), channel }),
            Err(error) => {
                process.kill(Killed::Aborted);
                Err(error)
            }
        }
    }

    async fn greet(&self, channel: &mut Channel) -> Greeting {
        let options = &self.options;
        let hello = Hello {
            protocol: frame::PROTOCOL,
            version: frame::VERSION.to_owned(),
            broker_url: options.broker_url.clone(),
            node: options.node.clone(),
            tasks: options.tasks.clone(),
            oom_score_adj: options.oom_score_adj,
            frame_bytes_max: options.frame_bytes_max,
        };
        // A failed write means that it has ended already; the read finds what it said before.
        let _closed = channel.send(&ToChild::Hello(hello), &[]).await;
        match channel.next().await {
            Ok(Some(FromChild::Ready { protocol, version })) => {
                if (protocol, version.as_str()) == (frame::PROTOCOL, frame::VERSION) {
                    return Greeting::Ready;
                }
                Greeting::Refused(format!(
                    "the child is celeriac {version} (protocol {protocol}), its worker is {} \
                     (protocol {}): the program was replaced while it ran; restart the worker",
                    frame::VERSION,
                    frame::PROTOCOL
                ))
            }
            Ok(Some(FromChild::Failed { text })) => Greeting::Refused(text),
            Ok(Some(other)) => Greeting::Refused(format!("it said {other:?} before it was ready")),
            Ok(None) => Greeting::Ended,
            Err(error) => Greeting::Refused(format!("it cannot be understood: {error}")),
        }
    }

    async fn dismiss(&self, channel: &mut Channel) -> io::Result<()> {
        channel.send(&ToChild::Quit, &[]).await
    }

    fn rest(&self, channel: &mut Channel) {
        channel.rest();
    }
}
