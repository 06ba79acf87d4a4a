//! Celery's serializer `auth`: bodies signed with RSA keys (celery 5.7.0 `security/`).

use super::{PayloadCodec, Plain};
use crate::error::{Result, TaskError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use celeriac_core::Clock as _;
use celeriac_runtime::SystemClock;
use jiff::Timestamp;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _};
use rsa::sha2::{Digest as _, Sha256, Sha384, Sha512};
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, Pss, RsaPrivateKey, RsaPublicKey};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use x509_cert::Certificate;
use x509_cert::der::{DecodePem as _, Encode as _};

/// What separates the five parts of a signed body.
const SEPARATOR: &[u8] = b"\x00\x01";
const PARTS: usize = 5;

/// The digest that is signed (Celery's `security_digest`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Digest {
    /// Celery's default.
    #[default]
    Sha256,
    /// `sha384`.
    Sha384,
    /// `sha512`.
    Sha512,
}

impl Digest {
    fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    /// RSA-PSS with the longest salt that fits (`padding.PSS.MAX_LENGTH`).
    fn padding(self, key_bytes: usize) -> Pss {
        let salt = |digest: usize| key_bytes.saturating_sub(digest + 2);
        match self {
            Self::Sha256 => Pss::new_with_salt::<Sha256>(salt(32)),
            Self::Sha384 => Pss::new_with_salt::<Sha384>(salt(48)),
            Self::Sha512 => Pss::new_with_salt::<Sha512>(salt(64)),
        }
    }
}

/// A certificate whose owner's messages are accepted.
struct Known {
    key: RsaPublicKey,
    expires: Timestamp,
}

/// Reads, and with a private key writes, messages signed by Celery's serializer `auth`: what an app that
/// calls `setup_security()` sends and accepts. Bodies stay readable; who has sent them is certain.
///
/// The trusted certificates are those of a folder (Celery's `security_cert_store`); one that has expired,
/// or is of another kind than RSA, is an error at start, as in Celery.
///
/// ```no_run
/// use celeriac::prelude::*;
/// use celeriac::seal::CeleryAuth;
///
/// # fn app() -> celeriac::Result<App> {
/// let auth = CeleryAuth::trusting("/etc/ssl/celery/*.pem")?
///     .signing_as("/etc/ssl/private/worker.key", "/etc/ssl/celery/worker.pem")?;
/// let app = App::from_env()?.payload_codec(auth).refuse_plain_payloads();
/// # Ok(app)
/// # }
/// ```
pub struct CeleryAuth {
    known: BTreeMap<String, Known>,
    signer: Option<(String, RsaPrivateKey)>,
    digest: Digest,
}

impl fmt::Debug for CeleryAuth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signer = self.signer.as_ref().map(|(id, _)| id);
        formatter
            .debug_struct("CeleryAuth")
            .field("known", &self.known.keys())
            .field("signer", &signer)
            .finish_non_exhaustive()
    }
}

impl CeleryAuth {
    /// Trusts the certificates in a folder, or in the files of one whose names end so: `certs`,
    /// `certs/*.pem`.
    ///
    /// # Errors
    /// A folder without certificates, or one that cannot be read, is no RSA certificate, has expired, or is
    /// there twice.
    pub fn trusting(store: impl AsRef<Path>) -> Result<Self> {
        let store = store.as_ref();
        let (folder, end) = match store.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.starts_with('*') && !store.is_dir() => {
                (store.parent().unwrap_or(store), &name[1..])
            }
            _ => (store, ""),
        };
        let mut known = BTreeMap::new();
        let wrong = |what: &dyn fmt::Display| fault(folder, what);
        for entry in std::fs::read_dir(folder).map_err(|error| wrong(&error))? {
            let path = entry.map_err(|error| wrong(&error))?.path();
            let named = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !path.is_file() || !named.ends_with(end) {
                continue;
            }
            let (id, certificate) = read_certificate(&path)?;
            if certificate.expires <= SystemClock.wall() {
                return Err(fault(&path, &format!("certificate {id:?} has expired")));
            }
            if known.insert(id.clone(), certificate).is_some() {
                return Err(fault(&path, &format!("certificate {id:?} is there twice")));
            }
        }
        if known.is_empty() {
            return Err(fault(store, &"there is no certificate"));
        }
        Ok(Self { known, signer: None, digest: Digest::default() })
    }

    /// Signs what is sent, with a private key (PEM, PKCS #1 or #8, without password) and the certificate
    /// that goes with it. Without this, messages are only read: what follows from a task is then sent
    /// unsigned.
    ///
    /// # Errors
    /// A file that cannot be read or is not what it should be, or a key that is not the certificate's.
    pub fn signing_as(
        mut self,
        key: impl AsRef<Path>,
        certificate: impl AsRef<Path>,
    ) -> Result<Self> {
        let path = key.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| fault(path, &error))?;
        if text.contains("ENCRYPTED") {
            return Err(fault(path, &"keys with a password are not read; store it decrypted"));
        }
        let key = RsaPrivateKey::from_pkcs8_pem(&text)
            .or_else(|_| RsaPrivateKey::from_pkcs1_pem(&text))
            .map_err(|error| fault(path, &format!("no private RSA key: {error}")))?;
        let (id, own) = read_certificate(certificate.as_ref())?;
        if own.key != key.to_public_key() {
            return Err(fault(path, &format!("it is not the key of certificate {id:?}")));
        }
        self.signer = Some((id, key));
        Ok(self)
    }

    /// Signs and expects another digest (Celery's `security_digest`).
    pub fn digest(mut self, digest: Digest) -> Self {
        self.digest = digest;
        self
    }

    fn sign(&self, plain: &Plain, id: &str, key: &RsaPrivateKey) -> Result<Vec<u8>, String> {
        let padding = self.digest.padding(key.size());
        let digest = self.digest.of(&plain.body);
        let signature = key
            .sign_with_rng(&mut rsa::rand_core::OsRng, padding, &digest)
            .map_err(|error| format!("it cannot be signed: {error}"))?;
        let parts = [
            STANDARD.encode(id).into_bytes(),
            STANDARD.encode(signature).into_bytes(),
            plain.content_type.clone().into_bytes(),
            plain.content_encoding.clone().into_bytes(),
            plain.body.to_vec(),
        ];
        Ok(STANDARD.encode(parts.join(SEPARATOR)).into_bytes())
    }

    fn verify(&self, sealed: &[u8], about: &str, now: Timestamp) -> Result<Plain, String> {
        let malformed = || "it is not signed as Celery's serializer `auth` does".to_owned();
        let decode = |text: &[u8]| STANDARD.decode(text).map_err(|_| malformed());
        let raw = decode(sealed)?;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(PARTS);
        let mut rest = &raw[..];
        while parts.len() + 1 < PARTS {
            let end = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
            let (part, more) = rest.split_at(end.ok_or_else(malformed)?);
            parts.push(part);
            rest = &more[SEPARATOR.len()..];
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| malformed());
        let (signer, signature) = (text(&decode(parts[0])?)?, decode(parts[1])?);
        let known = self.known.get(&signer).ok_or_else(|| {
            format!("it is signed by {signer:?}, whose certificate is not among the trusted ones")
        })?;
        if known.expires <= now {
            return Err(format!("the certificate of {signer:?} has expired on {}", known.expires));
        }
        let padding = self.digest.padding(known.key.size());
        known
            .key
            .verify(padding, &self.digest.of(rest), &signature)
            .map_err(|_| format!("the signature of {signer:?} is wrong"))?;
        Ok(Plain {
            content_type: text(parts[2])?,
            content_encoding: text(parts[3])?,
            body: rest.to_vec().into(),
            about: about.to_owned(),
        })
    }
}

impl PayloadCodec for CeleryAuth {
    fn content_type(&self) -> &'static str {
        "application/data"
    }

    fn content_encoding(&self) -> &'static str {
        "utf-8"
    }

    fn hides(&self) -> bool {
        false
    }

    fn seal(&self, plain: &Plain, _now: Timestamp) -> Option<Result<Vec<u8>, String>> {
        let (id, key) = self.signer.as_ref()?;
        Some(self.sign(plain, id, key))
    }

    fn open(&self, sealed: &[u8], about: &str, now: Timestamp) -> Result<Plain, String> {
        self.verify(sealed, about, now)
    }
}

fn fault(path: &Path, what: &dyn fmt::Display) -> TaskError {
    TaskError::fail(format!("{}: {what}", path.display()))
}

/// A certificate and its id: its issuer's names and its serial number (`Certificate.get_id`).
fn read_certificate(path: &Path) -> Result<(String, Known)> {
    let pem = std::fs::read(path).map_err(|error| fault(path, &error))?;
    let wrong = |what: &dyn fmt::Display| fault(path, &format!("no certificate: {what}"));
    let certificate = Certificate::from_pem(&pem).map_err(|error| wrong(&error))?;
    let inner = &certificate.tbs_certificate;
    let der = inner.subject_public_key_info.to_der().map_err(|error| wrong(&error))?;
    let key = RsaPublicKey::from_public_key_der(&der)
        .map_err(|_| fault(path, &"only certificates of RSA keys are supported, as in Celery"))?;
    let mut names = Vec::new();
    for attribute in inner.issuer.0.iter().flat_map(|names| names.0.iter()) {
        names.push(String::from_utf8_lossy(attribute.value.value()).into_owned());
    }
    let serial = BigUint::from_bytes_be(inner.serial_number.as_bytes());
    let seconds = inner.validity.not_after.to_unix_duration().as_secs();
    let expires = i64::try_from(seconds).ok().and_then(|at| Timestamp::from_second(at).ok());
    let expires = expires.unwrap_or(Timestamp::MAX);
    Ok((format!("{} {serial}", names.join(" ")), Known { key, expires }))
}
