//! Bearer tokens: how they are made, kept and compared.
//!
//! A token is 32 random bytes, so one SHA-256 keeps it as safe as a slow password hash would: there is
//! nothing to guess. Whoever reads the stored digests cannot make a token from them.

use crate::access::Role;
use celeriac_core::Entropy;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq as _};

/// What a token begins with, so that scanners for secrets find it.
const PREFIX: &str = "cel_";
/// The most tokens.
pub(crate) const TOKENS_MAX: usize = 1000;

/// What is kept of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of a token's text.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut digest = [0; 32];
        for (place, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            *place = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Digest(…)")
    }
}

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// Names it in lists and in `revoke`; no secret.
    pub id: String,
    /// What its owner is called.
    pub name: String,
    /// What it may.
    pub role: Role,
    /// What is compared.
    pub digest: Digest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
}

/// Where tokens come from. Asked for every request, so the answer must be at hand.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// The tokens in force.
    fn tokens(&self) -> Arc<Tokens>;
}

/// Tokens that can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<StoredToken>);

impl Tokens {
    /// Of a list; of more than 1000 the rest is left out.
    pub fn new(mut tokens: Vec<StoredToken>) -> Self {
        tokens.truncate(TOKENS_MAX);
        Self(tokens)
    }

    /// All of them.
    pub fn as_slice(&self) -> &[StoredToken] {
        &self.0
    }

    /// Whose token this is. Takes the same time whether and where it is found.
    pub(crate) fn owner(&self, token: &str, now: Timestamp) -> Option<&StoredToken> {
        let digest = Digest::of(token);
        let mut found = None;
        for stored in &self.0 {
            let same: Choice = stored.digest.0.ct_eq(&digest.0);
            if bool::from(same) {
                found = Some(stored);
            }
        }
        found.filter(|stored| stored.expires_at.is_none_or(|end| now < end))
    }
}

impl TokenSource for Arc<Tokens> {
    fn tokens(&self) -> Arc<Tokens> {
        Self::clone(self)
    }
}

/// Makes a token: what its owner is told, once, and what is kept.
pub fn new_token(
    entropy: &dyn Entropy,
    name: &str,
    role: Role,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> (String, StoredToken) {
    let words: Vec<String> = (0..4).map(|_| format!("{:016x}", entropy.next_u64())).collect();
    let token = [PREFIX, &words.concat()].concat();
    let id = format!("{:08x}", entropy.next_u64() as u32);
    let digest = Digest::of(&token);
    let name = name.to_owned();
    (token, StoredToken { id, name, role, digest, created_at, expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeriac_core::clock::after;
    use celeriac_core::testing::Seeded;
    use std::time::Duration;

    #[test]
    fn a_token_is_known_by_its_digest_alone_until_it_ends() {
        let entropy = Seeded::new(1);
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let end = after(now, Duration::from_mins(1));
        let (one, kept) = new_token(&entropy, "ci", Role::Viewer, now, Some(end));
        let (other, second) = new_token(&entropy, "me", Role::Admin, now, None);
        assert_eq!(one.len(), PREFIX.len() + 64);
        assert!(!format!("{kept:?}").contains(&one[PREFIX.len()..]));
        assert_eq!(Digest::parse(&kept.digest.to_string()), Some(kept.digest));
        assert_eq!(Digest::parse("zz"), None);
        let tokens = Tokens::new(vec![kept, second]);
        let owner = |token: &str, at| tokens.owner(token, at).map(|owner| owner.name.as_str());
        assert_eq!((owner(&one, now), owner(&other, now)), (Some("ci"), Some("me")));
        assert_eq!((owner(&one, end), owner(&other, end)), (None, Some("me")));
        assert_eq!(owner(&one[..one.len() - 1], now), None);
        assert_eq!(owner("", now), None);
    }
}
