//! The worker's end of the socket to one Python child.

use super::frame::{Assembler, DATAGRAM_BYTES_MAX, FromChild, Order, datagrams};
use super::page::Page;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A connection to a child, and the page that both see; whoever has it speaks with the child.
#[derive(Debug)]
pub(in crate::pool) struct Job {
    /// Of the kind `SOCK_SEQPACKET`: it is never read as a stream, only by calls that keep datagrams.
    socket: UnixStream,
    pub(super) page: Page,
    assembler: Assembler,
    buffer: Vec<u8>,
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
        Ok((Self { socket, page: Page::new()?, assembler: Assembler::default(), buffer }, theirs))
    }

    /// The next frame; `None` when the child has closed its end. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<FromChild>> {
        loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let buffer = &mut self.buffer;
            // Cancel safe: a datagram is read in one step, and pieces stay in the assembler.
            let read = self
                .socket
                .async_io(Interest::READABLE, || {
                    Ok(rustix::net::recv(&self.socket, &mut buffer[..], flags)?)
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

    /// Sends a frame. Not cancel safe: a part of it may be on its way, the child is lost then.
    pub(super) async fn send(
        &self,
        order: Order,
        tag: u64,
        meta: &[u8],
        body: &[u8],
    ) -> io::Result<()> {
        for piece in datagrams(order, tag, meta, body).map_err(io::Error::other)? {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            self.socket
                .async_io(Interest::WRITABLE, || {
                    Ok(rustix::net::send(&self.socket, &piece, flags)?)
                })
                .await?;
        }
        Ok(())
    }
}
