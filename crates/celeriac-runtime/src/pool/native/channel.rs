//! The worker's end of the socket to one child.

use super::frame::{self, FromChild, ToChild};
use bytes::BytesMut;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// A connection to a child; whoever has it speaks with the child.
#[derive(Debug)]
pub(in crate::pool) struct Channel {
    stream: UnixStream,
    read: BytesMut,
    bytes_max: usize,
}

impl Channel {
    /// Needs a runtime with I/O.
    pub(super) fn new(
        socket: std::os::unix::net::UnixStream,
        bytes_max: usize,
    ) -> io::Result<Self> {
        let stream = UnixStream::from_std(socket)?;
        Ok(Self { stream, read: BytesMut::new(), bytes_max })
    }

    /// The next frame; `None` when the child has closed its end. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<FromChild>> {
        loop {
            let taken = frame::decode(&mut self.read, self.bytes_max).map_err(io::Error::other)?;
            if let Some((frame, _raw)) = taken {
                return Ok(Some(frame));
            }
            // Cancel safe: what was read stays in the buffer.
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a frame. Not cancel safe: a part of it may be on its way, the child is lost then.
    pub(super) async fn send(&mut self, frame: &ToChild, raw: &[u8]) -> io::Result<()> {
        let bytes = frame::encode(frame, raw, self.bytes_max).map_err(io::Error::other)?;
        self.send_bytes(&bytes).await
    }

    /// Sends an encoded frame. Not cancel safe, as [`Channel::send`].
    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Frees the memory of a large frame.
    pub(super) fn rest(&mut self) {
        /// What a channel keeps of its buffer between two frames.
        const KEPT_BYTES_MAX: usize = 64 << 10;
        if self.read.is_empty() && self.read.capacity() > KEPT_BYTES_MAX {
            self.read = BytesMut::new();
        }
    }
}
