//! Bodies encrypted with AES-256-GCM.

use super::{PayloadCodec, Plain};
use crate::error::{Result, TaskError};
use jiff::Timestamp;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::collections::BTreeMap;
use std::fmt;

/// The first byte of what is sealed.
const VERSION: u8 = 1;

/// Encrypts bodies and results with AES-256-GCM (NIST SP 800-38D), under keys that have names, so that they
/// can be replaced: add the new key to all programs as one that opens, then make it the one that seals,
/// then leave the old one out when nothing is sealed with it any more.
///
/// A body is bound to the name of its task: it opens for no other. Nonces are random, 96 bits: replace a
/// key before it has sealed 2³² payloads.
///
/// Sealed bytes: a version (1), the length of the key's name, the name, the nonce, then the encrypted
/// content type, content encoding and body, the first two ending in a line feed, with the tag at the end.
/// The version, the key's name and the task's name are authenticated with it.
///
/// ```
/// use celeriac::prelude::*;
/// use celeriac::seal::Aes256Gcm;
///
/// # #[task] async fn diagnose(patient: String) -> Result<String> { Ok(format!("{patient}: healthy")) }
/// # #[tokio::main(flavor = "multi_thread", worker_threads = 1)]
/// # async fn main() -> celeriac::Result {
/// # let (key, old_key) = ([7; 32], [6; 32]);
/// let codec = Aes256Gcm::new("2026-11", &key)?.opens("2026-05", &old_key)?;
/// let app = App::at("memory://")?.tasks(tasks![diagnose]).payload_codec(codec).refuse_plain_payloads();
/// let job = app.client().await?.send(diagnose::call("Ada")).await?;
/// app.worker().stop_when_idle(1.millis()).run().await?;
/// assert!(!job.record().await?.unwrap().meta.result().to_string().contains("Ada"));
/// assert_eq!(job.get(1.secs()).await?, "Ada: healthy");
/// # Ok(())
/// # }
/// ```
pub struct Aes256Gcm {
    seals_with: String,
    keys: BTreeMap<String, LessSafeKey>,
    random: SystemRandom,
}

impl fmt::Debug for Aes256Gcm {
    /// The names of its keys, not the keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.keys.keys()).finish()
    }
}

impl Aes256Gcm {
    /// Seals with this key of 32 bytes, and opens with it. Its name is part of every payload, in the clear.
    ///
    /// # Errors
    /// A key of another length, or a name that is empty or longer than 255 bytes.
    pub fn new(name: &str, key: &[u8]) -> Result<Self> {
        let empty = Self {
            seals_with: name.to_owned(),
            keys: BTreeMap::new(),
            random: SystemRandom::new(),
        };
        empty.opens(name, key)
    }

    /// Opens with this key too.
    ///
    /// # Errors
    /// As [`Aes256Gcm::new`], or a second key of the name.
    pub fn opens(mut self, name: &str, key: &[u8]) -> Result<Self> {
        if name.is_empty() || name.len() > usize::from(u8::MAX) {
            return Err(TaskError::fail("a key's name has 1 to 255 bytes"));
        }
        let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| {
            TaskError::fail(format!("key {name:?} has {} bytes, AES-256 needs 32", key.len()))
        })?;
        if self.keys.insert(name.to_owned(), LessSafeKey::new(unbound)).is_some() {
            return Err(TaskError::fail(format!("two keys are named {name:?}")));
        }
        Ok(self)
    }

    fn encrypt(&self, plain: &Plain) -> Result<Vec<u8>, String> {
        let key = self.keys.get(&self.seals_with).ok_or("there is no key to seal with")?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| "the system has no random numbers")?;
        let mut sealed = vec![VERSION, self.seals_with.len() as u8];
        sealed.extend_from_slice(self.seals_with.as_bytes());
        let bound = [&sealed, plain.about.as_bytes()].concat();
        sealed.extend_from_slice(&nonce);
        let mut text = format!("{}\n{}\n", plain.content_type, plain.content_encoding).into_bytes();
        text.extend_from_slice(&plain.body);
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound),
            &mut text,
        )
        .map_err(|_| "it is too long to be encrypted")?;
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    fn decrypt(&self, sealed: &[u8], about: &str) -> Result<Plain, String> {
        let damaged = || "it is not what this codec has sealed".to_owned();
        let [VERSION, length, rest @ ..] = sealed else { return Err(damaged()) };
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(damaged)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        let shown = String::from_utf8_lossy(name);
        let key = self.keys.get(&*shown).ok_or_else(|| {
            let known: Vec<&str> = self.keys.keys().map(String::as_str).collect();
            format!("it is sealed with key {shown:?}; the keys here are {}", known.join(", "))
        })?;
        let bound = [&sealed[..2 + name.len()], about.as_bytes()].concat();
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.open_in_place(nonce, Aad::from(bound), &mut text).map_err(|_| {
            format!("key {shown:?} does not open it: another key of that name, another task's body, or damage")
        })?;
        let mut parts = plain.splitn(3, |byte| *byte == b'\n');
        let mut word = || {
            let part = parts.next().ok_or_else(damaged)?;
            String::from_utf8(part.to_vec()).map_err(|_| damaged())
        };
        let (content_type, content_encoding) = (word()?, word()?);
        let body = parts.next().ok_or_else(damaged)?.to_vec().into();
        Ok(Plain { content_type, content_encoding, body, about: about.to_owned() })
    }
}

impl PayloadCodec for Aes256Gcm {
    fn content_type(&self) -> &'static str {
        "application/x-celeriac-aes256gcm"
    }

    fn hides(&self) -> bool {
        true
    }

    fn seal(&self, plain: &Plain, _now: Timestamp) -> Option<Result<Vec<u8>, String>> {
        Some(self.encrypt(plain))
    }

    fn open(&self, sealed: &[u8], about: &str, _now: Timestamp) -> Result<Plain, String> {
        self.decrypt(sealed, about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Plain {
        Plain {
            content_type: "application/json".to_owned(),
            content_encoding: "utf-8".to_owned(),
            body: "[[\"\n\"], {}, {}]".into(),
            about: "app.add".to_owned(),
        }
    }

    fn seal(codec: &Aes256Gcm) -> Vec<u8> {
        codec.seal(&plain(), Timestamp::UNIX_EPOCH).unwrap().unwrap()
    }

    fn open(codec: &Aes256Gcm, sealed: &[u8], about: &str) -> Result<Plain, String> {
        codec.open(sealed, about, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_is_sealed_opens_for_its_task_only() {
        let codec = Aes256Gcm::new("a", &[1; 32]).unwrap();
        let (one, two) = (seal(&codec), seal(&codec));
        assert_ne!(one, two, "nonces differ");
        assert_eq!(open(&codec, &one, "app.add"), Ok(plain()));
        assert!(open(&codec, &one, "app.sub").unwrap_err().contains("another task"));
    }

    #[test]
    fn no_changed_byte_passes() {
        let codec = Aes256Gcm::new("a", &[1; 32]).unwrap();
        let sealed = seal(&codec);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&codec, &changed, "app.add").is_err(), "byte {at}");
            assert!(open(&codec, &sealed[..at], "app.add").is_err(), "{at} bytes");
        }
    }

    #[test]
    fn keys_can_be_replaced() {
        let (old, new) = ([1; 32], [2; 32]);
        let before = Aes256Gcm::new("old", &old).unwrap();
        let during = Aes256Gcm::new("new", &new).unwrap().opens("old", &old).unwrap();
        let after = Aes256Gcm::new("new", &new).unwrap();
        assert!(open(&during, &seal(&before), "app.add").is_ok());
        assert!(open(&after, &seal(&during), "app.add").is_ok());
        let error = open(&after, &seal(&before), "app.add").unwrap_err();
        assert_eq!(error, "it is sealed with key \"old\"; the keys here are new");
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        for (name, key) in [("", &[1; 32][..]), ("a", &[1; 16]), (&"x".repeat(256), &[1; 32])] {
            assert!(Aes256Gcm::new(name, key).is_err());
        }
        let twice = Aes256Gcm::new("a", &[1; 32]).unwrap().opens("a", &[2; 32]);
        assert!(twice.unwrap_err().to_string().contains("two keys"));
        let shown = format!("{:?}", Aes256Gcm::new("a", &[77; 32]).unwrap());
        assert_eq!(shown, "{\"a\"}");
    }
}
