//! What children print: read line by line, logged with the task that printed it, and the end of
//! stderr kept for the report of a death.

use celeriac_core::limits::STDERR_BYTES_MAX;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

/// A longer line is cut.
const LINE_BYTES_MAX: usize = 16 << 10;
/// What is read of one pipe before others get their turn.
const TURN_BYTES_MAX: usize = 256 << 10;
/// After a death, pipes that somebody else still holds are read for so long.
pub(super) const DRAIN: Duration = Duration::from_millis(200);

/// The task that a child runs, for its log lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Speaker {
    pub(super) task_id: String,
    pub(super) task: String,
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes what children print, as whole lines where they are of a sensible length.
pub type Relay = Arc<dyn Fn(Stream, &[u8]) + Send + Sync>;

/// What becomes of what a child prints.
#[derive(Clone)]
pub(super) enum Voice {
    /// Each line is logged with its task.
    Log,
    /// It is handed on as it is: the child has a log of its own.
    Relay(Relay),
}

impl fmt::Debug for Voice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Log => "Log",
            Self::Relay(_) => "Relay",
        })
    }
}

/// Both pipes of one child.
#[derive(Debug)]
pub(super) struct Output {
    child: i32,
    voice: Voice,
    stdout: Receiver,
    stderr: Receiver,
    heard: Mutex<Heard>,
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Heard {
    speaker: Option<Speaker>,
    stdout: Line,
    stderr: Line,
    tail: VecDeque<u8>,
}

/// A line that is not complete.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// The rest of it is left out.
    cut: bool,
    closed: bool,
}

impl Line {
    /// Takes bytes in and gives them on up to the end of the last line, or all of a very long one.
    fn relay(&mut self, bytes: &[u8], mut say: impl FnMut(&[u8])) {
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if complete > 0 && self.bytes.is_empty() {
            say(&bytes[..complete]);
        } else if complete > 0 {
            self.bytes.extend_from_slice(&bytes[..complete]);
            say(&std::mem::take(&mut self.bytes));
        }
        self.bytes.extend_from_slice(&bytes[complete..]);
        if self.bytes.len() > LINE_BYTES_MAX {
            say(&std::mem::take(&mut self.bytes));
        }
    }

    /// Takes bytes in and gives every line that they complete.
    fn take(&mut self, mut bytes: &[u8], mut say: impl FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.push(&bytes[..end]);
            self.finish(&mut say);
            bytes = &bytes[end + 1..];
        }
        self.push(bytes);
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.bytes.len();
        self.cut |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Gives what there is, if anything.
    fn finish(&mut self, mut say: impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.trim_end_matches('\r');
        if self.cut {
            say(&format!("{text} …"));
        } else if !text.is_empty() {
            say(text);
        }
        self.bytes.clear();
        self.cut = false;
    }
}

impl Output {
    /// Takes the pipes over; needs a runtime with I/O.
    pub(super) fn new(child: i32, pipes: [OwnedFd; 2], voice: Voice) -> io::Result<Self> {
        let [stdout, stderr] = pipes;
        Ok(Self {
            child,
            voice,
            stdout: Receiver::from_owned_fd(stdout)?,
            stderr: Receiver::from_owned_fd(stderr)?,
            heard: Mutex::default(),
            ended: watch::Sender::new(false),
        })
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on lines are this task's.
    pub(super) fn begin(&self, speaker: Speaker) {
        let mut heard = self.heard();
        self.read(&mut heard);
        heard.tail.clear();
        heard.speaker = Some(speaker);
    }

    /// The task has ended: what it printed is in the pipes already, and is read now.
    pub(super) fn end(&self) {
        let mut heard = self.heard();
        self.read(&mut heard);
        self.flush(&mut heard);
        heard.speaker = None;
    }

    /// Reads until both pipes are closed. Cancel safe.
    pub(super) async fn pump(&self) {
        loop {
            let closed = {
                let mut heard = self.heard();
                self.read(&mut heard);
                (heard.stdout.closed, heard.stderr.closed)
            };
            // Errors of readable() come out of the next read as well.
            tokio::select! {
                _ = self.stdout.readable(), if !closed.0 => {}
                _ = self.stderr.readable(), if !closed.1 => {}
                else => break,
            }
        }
        self.close();
    }

    /// Nothing more will be read.
    pub(super) fn close(&self) {
        self.flush(&mut self.heard());
        self.ended.send_replace(true);
    }

    /// Waits until everything is read, at most for [`DRAIN`], and gives the end of stderr.
    pub(super) async fn last_words(&self) -> String {
        let mut ended = self.ended.subscribe();
        let _late = tokio::time::timeout(DRAIN, ended.wait_for(|ended| *ended)).await;
        let mut heard = self.heard();
        self.flush(&mut heard);
        let tail = Vec::from(std::mem::take(&mut heard.tail));
        let text = String::from_utf8_lossy(&tail);
        // A character that was cut in two became a longer one: the bound is on what is given.
        let from = text.len().saturating_sub(STDERR_BYTES_MAX);
        let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text[from..].to_owned()
    }

    fn read(&self, heard: &mut Heard) {
        let Heard { speaker, stdout, stderr, tail } = heard;
        let child = self.child;
        let speaker = speaker.as_ref();
        let keep = |tail: &mut VecDeque<u8>, bytes: &[u8]| {
            tail.extend(bytes);
            tail.drain(..tail.len().saturating_sub(STDERR_BYTES_MAX));
        };
        match &self.voice {
            Voice::Log => {
                drain(&self.stdout, stdout, |line, bytes| {
                    line.take(bytes, |text| say(child, speaker, Stream::Stdout, text));
                });
                drain(&self.stderr, stderr, |line, bytes| {
                    keep(tail, bytes);
                    line.take(bytes, |text| say(child, speaker, Stream::Stderr, text));
                });
            }
            Voice::Relay(relay) => {
                drain(&self.stdout, stdout, |line, bytes| {
                    line.relay(bytes, |bytes| relay(Stream::Stdout, bytes));
                });
                drain(&self.stderr, stderr, |line, bytes| {
                    keep(tail, bytes);
                    line.relay(bytes, |bytes| relay(Stream::Stderr, bytes));
                });
            }
        }
    }

    /// Gives on what there is of lines that are not complete.
    fn flush(&self, heard: &mut Heard) {
        let Heard { speaker, stdout, stderr, .. } = heard;
        let speaker = speaker.as_ref();
        for (stream, line) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            match &self.voice {
                Voice::Log => line.finish(|text| say(self.child, speaker, stream, text)),
                Voice::Relay(relay) if !line.bytes.is_empty() => {
                    relay(stream, &std::mem::take(&mut line.bytes));
                }
                Voice::Relay(_) => {}
            }
        }
    }
}

/// Reads what is there.
fn drain(pipe: &Receiver, line: &mut Line, mut take: impl FnMut(&mut Line, &[u8])) {
    let mut buffer = [0; 8192];
    let mut turn = 0;
    while !line.closed && turn < TURN_BYTES_MAX {
        match pipe.try_read(&mut buffer) {
            Ok(0) => line.closed = true,
            Ok(count) => {
                turn += count;
                take(line, &buffer[..count]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => line.closed = true,
        }
    }
}

fn say(child: i32, speaker: Option<&Speaker>, stream: Stream, line: &str) {
    match (speaker, stream) {
        (Some(Speaker { task_id, task }), Stream::Stdout) => {
            tracing::info!(task_id, task, stream = "stdout", child, "{line}");
        }
        (Some(Speaker { task_id, task }), Stream::Stderr) => {
            tracing::warn!(task_id, task, stream = "stderr", child, "{line}");
        }
        (None, Stream::Stdout) => tracing::info!(stream = "stdout", child, "{line}"),
        (None, Stream::Stderr) => tracing::warn!(stream = "stderr", child, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_cut() {
        let mut line = Line::default();
        let mut said = Vec::new();
        let long = "x".repeat(LINE_BYTES_MAX + 10);
        for piece in ["a", "b\nc\r\n\nd", "\n", &long, &long, "\nlast"] {
            line.take(piece.as_bytes(), |text| said.push(text.to_owned()));
        }
        line.finish(|text| said.push(text.to_owned()));
        line.finish(|text| said.push(text.to_owned()));
        assert_eq!(said[..3], ["ab", "c", "d"]);
        assert_eq!(said[3], format!("{} …", &long[..LINE_BYTES_MAX]));
        assert_eq!(said[4..], ["last"]);
    }

    #[test]
    fn lines_that_are_handed_on_stay_whole_and_lose_nothing() {
        let mut line = Line::default();
        let mut said: Vec<Vec<u8>> = Vec::new();
        for piece in [b"a".as_slice(), b"b\nc", b"\xff\nd\ne", b"", b"f\n"] {
            line.relay(piece, |bytes| said.push(bytes.to_owned()));
        }
        assert_eq!(said, [b"ab\n".as_slice(), b"c\xff\nd\n", b"ef\n"]);
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        line.relay(&long, |bytes| said.push(bytes.to_owned()));
        assert_eq!(said.last(), Some(&long));
        assert!(line.bytes.is_empty());
    }
}
