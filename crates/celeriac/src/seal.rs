//! Sealed payloads: what a message carries and what a task returns, readable only with a key, or signed.
//!
//! A codec is given to the application with [`crate::App::payload_codec`]. Clients seal what they send,
//! workers open what they fetch and seal what follows: retries, next steps, bodies of chords. Task names,
//! ids, queues, times, exceptions and progress stay readable, so that operators can do their work without
//! the key; `celeriac` itself shows sealed bodies as such. A message that cannot be opened becomes a dead
//! letter with its bytes as they came.
//!
//! [`Aes256Gcm`] encrypts (feature `encryption`), [`CeleryAuth`] is Celery's serializer `auth` (feature
//! `auth`); any other scheme is an implementation of [`PayloadCodec`].
//!
//! A stock Celery worker cannot read an encrypted body and rejects its message, which is then lost: give
//! queues with encrypted messages to celeriac workers only, or register a serializer of the same content
//! type with kombu.

#[cfg(feature = "encryption")]
mod aes;
#[cfg(feature = "auth")]
mod auth;

#[cfg(feature = "encryption")]
pub use aes::Aes256Gcm;
#[cfg(feature = "auth")]
pub use auth::{CeleryAuth, Digest};
pub use celeriac_core::seal::{PayloadCodec, Plain};
