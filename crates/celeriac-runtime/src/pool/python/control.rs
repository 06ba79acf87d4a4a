//! The control socket between a worker and a template: frames of JSON, with descriptors.

use bytes::{Buf as _, BytesMut};
use celeriac_wire::Value;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The largest frame, in bytes: a hello names every task and setting of an app.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// The most descriptors that travel with a frame.
const DESCRIPTORS_MAX: usize = 4;
const LENGTH: usize = 4;
const READ: usize = 16 << 10;

/// The worker's end.
#[derive(Debug)]
pub(super) struct Control {
    socket: UnixStream,
    read: BytesMut,
    descriptors: VecDeque<OwnedFd>,
}

impl Control {
    /// Takes the socket over; needs a runtime with I/O.
    pub(super) fn new(socket: StdUnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            read: BytesMut::new(),
            descriptors: VecDeque::new(),
        })
    }

    /// Sends a frame, with descriptors. Not cancel safe: the template is lost if a part of it is out.
    pub(super) async fn send(
        &self,
        frame: &Value,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let json = frame.to_bytes();
        let length = u32::try_from(json.len())
            .map_err(|_too_long| io::Error::other("a frame for a template of more than 4 GiB"))?;
        let mut bytes = Vec::with_capacity(LENGTH + json.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&json);
        let mut left = descriptors;
        let mut sent = 0;
        while sent < bytes.len() {
            let piece = &bytes[sent..];
            sent += self
                .socket
                .async_io(Interest::WRITABLE, || send_some(&self.socket, piece, left))
                .await?;
            // They went with the first byte.
            left = &[];
        }
        Ok(())
    }

    /// The next frame; `None` when the template has closed its end. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<Value>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            // Cancel safe: what was read stays in the buffer.
            let (count, descriptors) = match self
                .socket
                .async_io(Interest::READABLE, || {
                    let mut buffer = [0; READ];
                    let (count, descriptors) = receive_some(&self.socket, &mut buffer)?;
                    Ok((buffer[..count].to_vec(), descriptors))
                })
                .await
            {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            };
            if count.is_empty() {
                return Ok(None);
            }
            self.read.extend_from_slice(&count);
            self.descriptors.extend(descriptors);
        }
    }

    /// The oldest descriptor that came and was not taken.
    pub(super) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    fn take(&mut self) -> io::Result<Option<Value>> {
        let Some(length) = self.read.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            let text = format!("a frame of {length} bytes, at most {FRAME_BYTES_MAX}");
            return Err(io::Error::other(text));
        }
        if self.read.len() < LENGTH + length {
            return Ok(None);
        }
        self.read.advance(LENGTH);
        let json = self.read.split_to(length);
        Value::parse(&json).map(Some).map_err(|error| {
            io::Error::other(format!("a frame of the template cannot be read: {error}"))
        })
    }
}

fn send_some(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one frame"));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)?)
}

fn receive_some(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    Ok((received.bytes, descriptors.flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac_wire::Map;
    use std::os::fd::AsFd as _;

    #[tokio::test]
    async fn frames_and_descriptors_arrive_together() {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        let (ours, mut theirs) = (Control::new(ours).unwrap(), Control::new(theirs).unwrap());
        let (reader, writer) = std::io::pipe().unwrap();
        let long = Value::Object(Map::from([("text", Value::from("x".repeat(1 << 20)))]));
        let short = Value::Object(Map::from([("op", Value::from("fork"))]));
        let sending = async {
            ours.send(&long, &[]).await.unwrap();
            ours.send(&short, &[reader.as_fd(), writer.as_fd()]).await.unwrap();
            drop(ours);
        };
        let receiving = async {
            assert_eq!(theirs.next().await.unwrap(), Some(long.clone()));
            assert_eq!(theirs.next().await.unwrap(), Some(short.clone()));
            assert!(theirs.descriptor().is_some() && theirs.descriptor().is_some());
            assert!(theirs.descriptor().is_none());
            assert_eq!(theirs.next().await.unwrap(), None);
        };
        tokio::join!(sending, receiving);
    }
}
