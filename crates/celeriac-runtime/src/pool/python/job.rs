//! The worker's end of the socket to one Python child.

use super::Lodger;
use super::frame::{Assembler, DATAGRAM_BYTES_MAX, FromChild, Order, datagrams};
use super::page::Page;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A connection to a child, and the page that both see; whoever has it speaks with the child. Its socket is
/// of the kind `SOCK_SEQPACKET`: never read as a stream, only by calls that keep datagrams.
#[derive(Debug)]
pub(in crate::pool) struct Job {
    /// What sends on it; a copy is for somebody who does not read.
    pub(super) sender: JobSender,
    pub(super) page: Page,
    assembler: Assembler,
    buffer: Vec<u8>,
    /// The child dies with its template.
    lodger: Option<Lodger>,
}

impl Job {
    /// A new connection and the child's end of it. Needs a runtime with I/O.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let ours = std::os::unix::net::UnixStream::from(ours);
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        let buffer = vec![0; DATAGRAM_BYTES_MAX];
        let sender = JobSender(Arc::new(socket));
        Ok((
            Self {
                sender,
                page: Page::new()?,
                assembler: Assembler::default(),
                buffer,
                lodger: None,
            },
            theirs,
        ))
    }

    /// Has the template that the child was forked from live as long as this connection.
    pub(super) fn keep(&mut self, lodger: Lodger) {
        self.lodger = Some(lodger);
    }

    /// The next frame; `None` when the child has closed its end. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<FromChild>> {
        loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let buffer = &mut self.buffer;
            // Cancel safe: a datagram is read in one step, and pieces stay in the assembler.
            let socket = &self.sender.0;
            let read = socket
                .async_io(Interest::READABLE, || {
                    Ok(rustix::net::recv(socket, &mut buffer[..], flags)?)
                })
                .await;
            let (_, length) = match read {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            };
            if length == 0 {
                return Ok(None);
            }
            let datagram = self.buffer.get(..length).ok_or_else(|| {
                io::Error::other(format!(
                    "a datagram of {length} bytes, at most {DATAGRAM_BYTES_MAX}"
                ))
            })?;
            if let Some(frame) = self.assembler.take(datagram).map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
        }
    }
}

/// The half of a connection that sends. Frames of several senders would be mixed up: there is one.
#[derive(Clone, Debug)]
pub(super) struct JobSender(Arc<UnixStream>);

impl JobSender {
    /// Sends a frame. Not cancel safe: a part of it may be on its way, the child is lost then.
    pub(super) async fn send(
        &self,
        order: Order,
        tag: u64,
        meta: &[u8],
        body: &[u8],
    ) -> io::Result<()> {
        let socket = &self.0;
        for piece in datagrams(order, tag, meta, body).map_err(io::Error::other)? {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            socket
                .async_io(Interest::WRITABLE, || Ok(rustix::net::send(socket, &piece, flags)?))
                .await?;
        }
        Ok(())
    }
}
