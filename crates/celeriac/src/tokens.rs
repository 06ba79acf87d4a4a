//! The file of the tokens: written by `celeriac token`, read by servers while they run.

use crate::config::ConfigError;
use celeriac_web::{Digest, Role, StoredToken, TokenSource, Tokens};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A server looks so often whether the file has changed: a revoked token works so long at most.
const LOOK: Duration = Duration::from_secs(1);
/// The largest file that is read, in bytes: a thousand tokens with long names.
const FILE_BYTES_MAX: u64 = 1 << 20;
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    tokens: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    name: String,
    role: String,
    sha256: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

/// The file at a place, that need not exist.
#[derive(Clone, Debug)]
pub(crate) struct TokenFile(PathBuf);

impl TokenFile {
    pub(crate) fn at(path: &str) -> Self {
        Self(PathBuf::from(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The tokens in it; none when there is no file.
    pub(crate) fn read(&self) -> Result<Vec<StoredToken>, ConfigError> {
        match std::fs::metadata(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.error(&error)),
            Ok(facts) if facts.len() > FILE_BYTES_MAX => {
                return Err(self.error(&format!("it has more than {FILE_BYTES_MAX} bytes")));
            }
            Ok(_) => {}
        }
        let text = std::fs::read(&self.0).map_err(|error| self.error(&error))?;
        let value = celeriac_wire::Value::parse(&text).map_err(|error| self.error(&error))?;
        let document: Document =
            celeriac_wire::from_value(value).map_err(|error| self.error(&error))?;
        if document.version != VERSION {
            let text = format!("its version is {}, this program reads {VERSION}", document.version);
            return Err(self.error(&text));
        }
        document.tokens.into_iter().map(|line| self.token(line)).collect()
    }

    fn token(&self, line: Line) -> Result<StoredToken, ConfigError> {
        let role: Role = line.role.parse().map_err(|text: String| self.error(&text))?;
        let digest = Digest::parse(&line.sha256);
        let digest = digest.ok_or_else(|| self.error(&format!("token {} is damaged", line.id)))?;
        let Line { id, name, created_at, expires_at, .. } = line;
        Ok(StoredToken { id, name, role, digest, created_at, expires_at })
    }

    fn error(&self, error: &dyn std::fmt::Display) -> ConfigError {
        ConfigError::new(format!("cannot read tokens from {}: {error}", self.0.display()))
            .hint("mend the file, or remove it and make new tokens with `celeriac token create`")
    }

    /// Changes the file, one program at a time: the whole new file, or the old one.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<StoredToken>) -> T,
    ) -> Result<T, ConfigError> {
        let failed = |error: io::Error| {
            ConfigError::new(format!("cannot write tokens to {}: {error}", self.0.display()))
                .hint("set http_tokens to a file in a folder that this user may write")
        };
        let _lock = self.lock().map_err(failed)?;
        let mut tokens = self.read()?;
        let answer = change(&mut tokens);
        self.write(&tokens).map_err(failed)?;
        Ok(answer)
    }

    /// A file beside it: the file itself is replaced.
    fn lock(&self) -> io::Result<File> {
        let lock = self.beside(".lock");
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock)?;
        file.lock()?;
        Ok(file)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.0.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    }

    fn write(&self, tokens: &[StoredToken]) -> io::Result<()> {
        let line = |token: &StoredToken| Line {
            id: token.id.clone(),
            name: token.name.clone(),
            role: token.role.to_string(),
            sha256: token.digest.to_string(),
            created_at: token.created_at,
            expires_at: token.expires_at,
        };
        let document = Document { version: VERSION, tokens: tokens.iter().map(line).collect() };
        let text = celeriac_wire::to_value(&document).map_err(io::Error::other)?.to_string();
        let new = self.beside(".new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.0)
    }
}

/// The tokens of a file as it is now, or was when it could be read last.
#[derive(Debug)]
pub(crate) struct WatchedTokens {
    file: TokenFile,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    looked: Instant,
    mark: Option<Mark>,
    tokens: Arc<Tokens>,
}

/// What changes with the file: its inode, its length, its time.
type Mark = (u64, u64, i64, i64);

impl WatchedTokens {
    pub(crate) fn new(file: TokenFile) -> Result<Self, ConfigError> {
        let mark = mark(file.path());
        let tokens = Arc::new(Tokens::new(file.read()?));
        Ok(Self { file, seen: Mutex::new(Seen { looked: Instant::now(), mark, tokens }) })
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let facts = std::fs::metadata(path).ok()?;
    Some((facts.ino(), facts.len(), facts.mtime(), facts.mtime_nsec()))
}

impl TokenSource for WatchedTokens {
    fn tokens(&self) -> Arc<Tokens> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked.elapsed() >= LOOK {
            seen.looked = Instant::now();
            let now = mark(self.file.path());
            if now != seen.mark {
                match self.file.read() {
                    Ok(tokens) => {
                        seen.tokens = Arc::new(Tokens::new(tokens));
                        seen.mark = now;
                    }
                    Err(error) => tracing::error!(%error, "the tokens stay as they were"),
                }
            }
        }
        Arc::clone(&seen.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test(start_paused = true)]
    async fn a_revoked_token_is_gone_within_a_second_and_a_damaged_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let file = TokenFile::at(path.to_str().unwrap());
        assert_eq!(file.read().unwrap(), []);
        let entropy = celeriac_core::testing::Seeded::new(1);
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let (_, one) = celeriac_web::new_token(&entropy, "ci", Role::Viewer, now, None);
        let (_, other) = celeriac_web::new_token(&entropy, "me", Role::Admin, now, Some(now));
        file.change(|tokens| tokens.extend([one.clone(), other.clone()])).unwrap();
        assert_eq!(file.read().unwrap(), [one.clone(), other.clone()]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let watched = WatchedTokens::new(file.clone()).unwrap();
        file.change(|tokens| tokens.retain(|token| token.id != one.id)).unwrap();
        assert_eq!(watched.tokens().as_slice().len(), 2, "it looks once a second");
        tokio::time::advance(LOOK).await;
        assert_eq!(watched.tokens().as_slice(), std::slice::from_ref(&other));
        std::fs::write(&path, "{").unwrap();
        tokio::time::advance(LOOK).await;
        assert_eq!(watched.tokens().as_slice(), [other]);
        assert!(file.read().is_err());
    }
}
