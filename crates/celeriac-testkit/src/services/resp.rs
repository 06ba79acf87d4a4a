//! A small client that speaks RESP 2 over a Unix socket: raw commands for tests, without the client
//! under test.

use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// A status, as `OK`.
    Status(String),
    /// A value.
    Bytes(Vec<u8>),
    /// A refusal.
    Error(String),
    /// Several.
    List(Vec<Self>),
}

impl Reply {
    /// The number.
    ///
    /// # Panics
    /// If it is none.
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            other => panic!("not a number: {other:?}"),
        }
    }

    /// A status or value as text; numbers as well.
    ///
    /// # Panics
    /// If it is none of them, or no UTF-8.
    pub fn text(&self) -> String {
        match self {
            Self::Status(text) => text.clone(),
            Self::Int(number) => number.to_string(),
            Self::Bytes(bytes) => String::from_utf8(bytes.clone()).expect("the value is text"),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The parts of a list.
    ///
    /// # Panics
    /// If it is none.
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(parts) => parts,
            other => panic!("not a list: {other:?}"),
        }
    }

    /// The parts of a list as texts.
    ///
    /// # Panics
    /// If it is none, or a part is no text.
    pub fn texts(&self) -> Vec<String> {
        self.list().iter().map(Self::text).collect()
    }

    /// Whether it is nothing.
    pub fn is_nil(&self) -> bool {
        *self == Self::Nil
    }
}

/// A connection. Not cancel safe: after a dropped call the next answer is not its own.
#[derive(Debug)]
pub struct Connection(BufStream<UnixStream>);

impl Connection {
    /// Connects to a socket file.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn open(socket: &Path) -> std::io::Result<Self> {
        Ok(Self(BufStream::new(UnixStream::connect(socket).await?)))
    }

    /// Sends a command and waits for its answer; a refusal is an answer too.
    ///
    /// # Errors
    /// The connection is gone, or what came is no RESP.
    pub async fn call(&mut self, command: &[impl AsRef<[u8]>]) -> std::io::Result<Reply> {
        self.send(command).await?;
        self.next().await
    }

    /// Sends a command and does not wait.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, command: &[impl AsRef<[u8]>]) -> std::io::Result<()> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in command.iter().map(AsRef::as_ref) {
            bytes.extend(format!("${}\r\n", part.len()).bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        self.0.write_all(&bytes).await?;
        self.0.flush().await
    }

    /// Waits for the next answer or, after `SUBSCRIBE` and `MONITOR`, for what the server says.
    ///
    /// # Errors
    /// The connection is gone, or what came is no RESP.
    pub async fn next(&mut self) -> std::io::Result<Reply> {
        // The lists that are being read, each with what it still waits for.
        let mut open: Vec<(i64, Vec<Reply>)> = Vec::new();
        loop {
            let mut reply = match self.part().await? {
                Part::Whole(reply) => reply,
                Part::List(count) if count > 0 => {
                    open.push((count, Vec::new()));
                    continue;
                }
                Part::List(_) => Reply::List(Vec::new()),
            };
            loop {
                let Some((missing, mut parts)) = open.pop() else { return Ok(reply) };
                parts.push(reply);
                if missing > 1 {
                    open.push((missing - 1, parts));
                    break;
                }
                reply = Reply::List(parts);
            }
        }
    }

    async fn part(&mut self) -> std::io::Result<Part> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let broken = || std::io::Error::new(std::io::ErrorKind::InvalidData, line.clone());
        let rest = line.strip_suffix("\r\n").and_then(|line| line.get(1..)).ok_or_else(broken)?;
        let number = || rest.parse::<i64>().map_err(|_| broken());
        Ok(Part::Whole(match line.as_bytes().first() {
            Some(b'+') => Reply::Status(rest.to_owned()),
            Some(b'-') => Reply::Error(rest.to_owned()),
            Some(b':') => Reply::Int(number()?),
            Some(b'$' | b'*') if number()? < 0 => Reply::Nil,
            Some(b'*') => return Ok(Part::List(number()?)),
            Some(b'$') => {
                let length = number()? as usize;
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Reply::Bytes(bytes)
            }
            _ => return Err(broken()),
        }))
    }
}

enum Part {
    Whole(Reply),
    List(i64),
}
