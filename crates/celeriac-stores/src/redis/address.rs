//! From a URL to connections: TCP, TLS, unix sockets, Sentinel, and several servers to try in turn.
//!
//! The spellings are Celery's and redis-py's (wire specification 2.13, 2.12).

use super::keys::Keys;
use super::link::CONNECT_DEADLINE;
use crate::connect::redacted;
use celeriac_core::{ErrorKind, StoreError};
use percent_encoding::percent_decode_str;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use url::Url;

/// The most servers or sentinels in one URL.
pub(super) const SERVERS_MAX: usize = 16;
/// The options that a URL may carry.
const OPTIONS: &str = "db, virtual_host, global_keyprefix, result_keyprefix, visibility_timeout, master_name, \
                       sentinel_username, sentinel_password, allow_eviction, ssl_cert_reqs, \
                       ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_check_hostname";

/// Where one server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

/// What kept a connection from being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The user or the password.
    Credentials,
    /// Anything else.
    Other,
}

/// How certificates are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tls {
    /// `ssl_cert_reqs=none`.
    unchecked: bool,
    /// `ssl_check_hostname=false`.
    any_host: bool,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// A parsed URL.
#[derive(Clone)]
pub(super) struct Address {
    servers: Vec<Server>,
    master: Option<String>,
    tls: Option<Tls>,
    username: Option<String>,
    password: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
    pub(super) keys: Keys,
    /// Whether an eviction policy that may delete messages is accepted.
    pub(super) allow_eviction: bool,
    /// After how long stock workers' unacknowledged messages go back (kombu's option, 3600 s).
    pub(super) visibility_timeout: Duration,
    /// The URL without secrets.
    pub(super) shown: String,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        formatter.write_str(&names.join(", "))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Address").field(&self.shown).finish()
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl Address {
    /// Reads `redis://`, `rediss://`, `redis+socket://`, `unix://` and `sentinel://` URLs; several
    /// are separated by `;`.
    ///
    /// # Errors
    /// `Invalid` with what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let mut address = Self {
            servers: Vec::new(),
            master: None,
            tls: None,
            username: None,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            keys: Keys::default(),
            allow_eviction: false,
            visibility_timeout: Duration::from_hours(1),
            shown: text.split(';').map(redacted).collect::<Vec<_>>().join(";"),
        };
        let mut sentinel = false;
        for (index, part) in text.split(';').enumerate() {
            let wrong = |why: &str| {
                StoreError::invalid(format!("{} is no Redis URL: {why}", redacted(part)))
            };
            let url = Url::parse(part).map_err(|error| wrong(&error.to_string()))?;
            let server = match url.scheme() {
                "redis+socket" | "unix" => Server::Unix(decoded(url.path()).into()),
                _ => Server::Tcp {
                    host: url
                        .host_str()
                        .filter(|host| !host.is_empty())
                        .unwrap_or("localhost")
                        .trim_matches(['[', ']'])
                        .to_owned(),
                    port: url.port().unwrap_or(if url.scheme() == "sentinel" {
                        26379
                    } else {
                        6379
                    }),
                },
            };
            address.servers.push(server);
            // Database, credentials and options of the first URL count.
            if index == 0 {
                sentinel = url.scheme() == "sentinel";
                if url.scheme() == "rediss" {
                    address.tls = Some(Tls::default());
                }
                address.take_first(&url, &wrong)?;
            }
        }
        if address.servers.len() > SERVERS_MAX {
            return Err(StoreError::invalid(format!("more than {SERVERS_MAX} servers in one URL")));
        }
        if sentinel && address.master.is_none() {
            return Err(StoreError::invalid("a sentinel:// URL names no master")
                .hint("add ?master_name=mymaster"));
        }
        if !sentinel && address.master.is_some() {
            return Err(StoreError::invalid("master_name belongs to sentinel:// URLs"));
        }
        Ok(address)
    }

    /// Keeps results and chords where `url` says: in this or another database of the same server, which one
    /// script can write together with everything else.
    ///
    /// # Errors
    /// `Invalid` for another place.
    pub(super) fn keep_results_at(&mut self, url: &str) -> Result<(), StoreError> {
        let other = Self::parse(url)?;
        let same = self.servers == other.servers
            && self.master == other.master
            && self.tls.is_some() == other.tls.is_some()
            && (&self.username, &self.password) == (&other.username, &other.password);
        if !same {
            let (results, own) = (&other.shown, &self.shown);
            let text =
                format!("results cannot be kept in {results}: it is not the server of {own}");
            return Err(StoreError::invalid(text)
                .hint("name the broker's server, as the same user; its database may differ"));
        }
        let database = other.keys.database;
        self.keys.result_database = Some(database).filter(|one| *one != self.keys.database);
        if !other.keys.results.is_empty() {
            self.keys.results = other.keys.results;
        }
        Ok(())
    }

    fn take_first(
        &mut self,
        url: &Url,
        wrong: &impl Fn(&str) -> StoreError,
    ) -> Result<(), StoreError> {
        self.username = Some(decoded(url.username())).filter(|name| !name.is_empty());
        self.password = url.password().map(decoded);
        let socket = matches!(self.servers[0], Server::Unix(_));
        let path = url.path().trim_matches('/');
        if !socket && !path.is_empty() {
            self.keys.database = number(path).ok_or_else(|| wrong("the database is no number"))?;
        }
        for (name, value) in url.query_pairs() {
            self.take_option(&name, &value, wrong)?;
        }
        Ok(())
    }

    fn take_option(
        &mut self,
        name: &str,
        value: &str,
        wrong: &impl Fn(&str) -> StoreError,
    ) -> Result<(), StoreError> {
        if name.starts_with("ssl_") && self.tls.is_none() {
            return Err(wrong(&format!("{name} belongs to rediss:// URLs")));
        }
        match name {
            "db" | "virtual_host" => {
                self.keys.database =
                    number(value).ok_or_else(|| wrong("the database is no number"))?;
            }
            "global_keyprefix" => value.clone_into(&mut self.keys.prefix),
            "result_keyprefix" => self.keys.results = result_prefix(value),
            "visibility_timeout" => {
                let seconds = value.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
                let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                self.visibility_timeout =
                    timeout.ok_or_else(|| wrong("visibility_timeout is no number of seconds"))?;
            }
            "master_name" => self.master = Some(value.to_owned()),
            "sentinel_username" => self.sentinel_username = Some(value.to_owned()),
            "sentinel_password" => self.sentinel_password = Some(value.to_owned()),
            "allow_eviction" => self.allow_eviction = truth(name, value, wrong)?,
            _ => self.take_tls(name, value, wrong)?,
        }
        Ok(())
    }

    fn take_tls(
        &mut self,
        name: &str,
        value: &str,
        wrong: &impl Fn(&str) -> StoreError,
    ) -> Result<(), StoreError> {
        let tls = self.tls.get_or_insert_default();
        match name {
            "ssl_cert_reqs" => {
                let lower = value.to_ascii_lowercase();
                tls.unchecked = match lower.strip_prefix("cert_").unwrap_or(&lower) {
                    "required" => false,
                    "none" => true,
                    "optional" => {
                        return Err(wrong(
                            "ssl_cert_reqs=optional has no meaning for a client; \
                             write required or none",
                        ));
                    }
                    _ => return Err(wrong("ssl_cert_reqs is required or none")),
                };
            }
            "ssl_ca_certs" => tls.ca = Some(value.into()),
            "ssl_certfile" => tls.certificate = Some(value.into()),
            "ssl_keyfile" => tls.key = Some(value.into()),
            "ssl_check_hostname" => tls.any_host = !truth(name, value, wrong)?,
            _ => {
                return Err(
                    wrong(&format!("unknown option {name:?}")).hint(format!("known are {OPTIONS}"))
                );
            }
        }
        Ok(())
    }

    /// A new connection, to the master if there are sentinels. With `pushes` it speaks RESP3 and tells
    /// there what the server says unasked.
    ///
    /// # Errors
    /// `Unavailable` if no server answers, `Invalid` for wrong credentials or certificates.
    pub(super) async fn connect(
        &self,
        pushes: Option<UnboundedSender<redis::PushInfo>>,
    ) -> Result<MultiplexedConnection, StoreError> {
        let mut last = None;
        for server in &self.targets().await? {
            let settings = Self::settings(
                self.username.as_deref(),
                self.password.as_deref(),
                self.keys.database,
            );
            match self.open(server, settings, pushes.clone()).await.map_err(|(_, error)| error) {
                Ok(connection) => return Ok(connection),
                Err(error) if error.kind() == ErrorKind::Invalid => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| StoreError::invalid("a URL without a server")))
    }

    /// The servers to try: those of the URL, or the master that a sentinel names.
    pub(super) async fn targets(&self) -> Result<Vec<Server>, StoreError> {
        let Some(master) = &self.master else { return Ok(self.servers.clone()) };
        let mut last = None;
        for sentinel in &self.servers {
            let settings = Self::settings(
                self.sentinel_username.as_deref(),
                self.sentinel_password.as_deref(),
                0,
            );
            let asked = async {
                let opened = self.open(sentinel, settings, None).await;
                let mut connection = opened.map_err(|(_, error)| error)?;
                let mut ask = redis::cmd("SENTINEL");
                ask.arg("get-master-addr-by-name").arg(master);
                let answer: redis::RedisResult<Option<(String, u16)>> =
                    ask.query_async(&mut connection).await;
                answer.map_err(|error| {
                    let text = format!("ask the sentinel {sentinel} for {master}");
                    StoreError::new(ErrorKind::Unavailable, text).because(error)
                })
            };
            match asked.await {
                Ok(Some((host, port))) => return Ok(vec![Server::Tcp { host, port }]),
                Ok(None) => {
                    let text = format!("the sentinel {sentinel} knows no master {master:?}");
                    last = Some(StoreError::new(ErrorKind::Unavailable, text));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| StoreError::invalid("a URL without a sentinel")))
    }

    fn settings(
        username: Option<&str>,
        password: Option<&str>,
        database: i64,
    ) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default()
            .set_db(database)
            .set_lib_name("celeriac", env!("CARGO_PKG_VERSION"));
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        settings
    }

    async fn open(
        &self,
        server: &Server,
        mut settings: RedisConnectionInfo,
        pushes: Option<UnboundedSender<redis::PushInfo>>,
    ) -> Result<MultiplexedConnection, (Trouble, StoreError)> {
        let fail = |error: redis::RedisError| {
            let wrong_credentials = matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
                || error.kind() == redis::ErrorKind::AuthenticationFailed;
            let certificate = about_certificate(&error);
            let kind = if wrong_credentials
                || certificate.is_some()
                || error.kind() == redis::ErrorKind::InvalidClientConfig
            {
                ErrorKind::Invalid
            } else {
                ErrorKind::Unavailable
            };
            let made = StoreError::new(kind, format!("connect to Redis at {server}: {error}"));
            if let Some(hint) = certificate {
                (Trouble::Other, made.hint(hint))
            } else if wrong_credentials {
                (Trouble::Credentials, made.hint("look at the user and the password of the URL"))
            } else {
                (Trouble::Other, made.hint("is it running, and is this the right host and port?"))
            }
        };
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_DEADLINE))
            .set_response_timeout(None);
        if let Some(pushes) = pushes {
            settings = settings.set_protocol(redis::ProtocolVersion::RESP3);
            config = config.set_push_sender(pushes);
        }
        let socket = self.socket(server).map_err(|error| (Trouble::Other, error))?;
        let info = socket.into_connection_info().map_err(fail)?;
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        // Nothing was sent yet: what is wrong is in the URL and its files.
        let client = self.client(info).map_err(|error| {
            let made = StoreError::invalid(format!("connect to Redis at {server}: {error}")).hint(
                "ssl_ca_certs, ssl_certfile and ssl_keyfile are PEM files; without ssl_keyfile the \
                 key stands in ssl_certfile",
            );
            (Trouble::Other, made)
        })?;
        let opening = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(CONNECT_DEADLINE, opening).await {
            Ok(opened) => opened.map_err(fail),
            Err(_elapsed) => {
                let seconds = CONNECT_DEADLINE.as_secs();
                let text = format!("Redis at {server} did not answer within {seconds} s");
                Err((Trouble::Other, StoreError::new(ErrorKind::Unavailable, text)))
            }
        }
    }

    /// A connection to one server, with the URL's user and database.
    ///
    /// # Errors
    /// As [`Address::connect`].
    pub(super) async fn open_own(
        &self,
        server: &Server,
    ) -> Result<MultiplexedConnection, StoreError> {
        let (username, password) = (self.username.as_deref(), self.password.as_deref());
        let settings = Self::settings(username, password, self.keys.database);
        self.open(server, settings, None).await.map_err(|(_, error)| error)
    }

    /// A connection to one server without user and password.
    ///
    /// # Errors
    /// As [`Address::connect`], and what kind of trouble it is.
    pub(super) async fn open_bare(
        &self,
        server: &Server,
    ) -> Result<MultiplexedConnection, (Trouble, StoreError)> {
        self.open(server, Self::settings(None, None, 0), None).await
    }

    /// Whether the first server that answers lets nobody in without a password.
    pub(super) async fn asks_password(&self) -> bool {
        for server in self.targets().await.unwrap_or_default() {
            match self.open_bare(&server).await {
                Err((Trouble::Credentials, _)) => return true,
                Err(_) => {}
                Ok(mut connection) => {
                    let ping = redis::cmd("PING");
                    let asked = ping.query_async::<String>(&mut connection);
                    let answer = tokio::time::timeout(CONNECT_DEADLINE, asked).await;
                    return matches!(answer, Ok(Err(error)) if error.code() == Some("NOAUTH"));
                }
            }
        }
        false
    }

    pub(super) fn has_sentinels(&self) -> bool {
        self.master.is_some()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the server's certificate is checked.
    pub(super) fn checks_server(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| !tls.unchecked)
    }

    /// Whether every server of the URL is on this machine, as far as names tell.
    pub(super) fn is_local(&self) -> bool {
        self.servers.iter().all(|server| match server {
            Server::Unix(_) => true,
            Server::Tcp { host, .. } => {
                let ip = host.parse::<std::net::IpAddr>();
                ip.map_or(host == "localhost", |ip| ip.is_loopback())
            }
        })
    }

    /// As whom it logs in, for people.
    pub(super) fn who(&self) -> String {
        match (&self.username, &self.password) {
            (Some(user), _) => format!("as user {user}, database {}", self.keys.database),
            (None, Some(_)) => format!("with a password, database {}", self.keys.database),
            (None, None) => format!("without a password, database {}", self.keys.database),
        }
    }

    fn socket(&self, server: &Server) -> Result<ConnectionAddr, StoreError> {
        Ok(match (server, &self.tls) {
            (Server::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
            (Server::Tcp { host, port }, None) => ConnectionAddr::Tcp(host.clone(), *port),
            (Server::Tcp { host, port }, Some(tls)) => {
                if !cfg!(feature = "redis-tls") {
                    return Err(StoreError::invalid("this program was built without TLS")
                        .hint("build it with the feature redis-tls"));
                }
                ConnectionAddr::TcpTls {
                    host: host.clone(),
                    port: *port,
                    insecure: tls.unchecked,
                    tls_params: None,
                }
            }
        })
    }

    #[cfg(not(feature = "redis-tls"))]
    #[expect(clippy::unused_self, reason = "with TLS it looks at the certificates")]
    fn client(&self, info: redis::ConnectionInfo) -> redis::RedisResult<redis::Client> {
        redis::Client::open(info)
    }

    #[cfg(feature = "redis-tls")]
    fn client(&self, info: redis::ConnectionInfo) -> redis::RedisResult<redis::Client> {
        let Some(tls) = &self.tls else { return redis::Client::open(info) };
        // Only the first call of a process sets it; a program may have chosen one of its own.
        let _chosen_already = rustls::crypto::ring::default_provider().install_default();
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                redis::RedisError::from((
                    redis::ErrorKind::InvalidClientConfig,
                    "cannot read a certificate",
                    format!("{}: {error}", path.display()),
                ))
            })
        };
        let client_tls = match (&tls.certificate, &tls.key) {
            (None, None) => None,
            (Some(certificate), key) => Some(redis::ClientTlsConfig {
                client_cert: read(certificate)?,
                client_key: read(key.as_ref().unwrap_or(certificate))?,
            }),
            (None, Some(_)) => {
                return Err(redis::RedisError::from((
                    redis::ErrorKind::InvalidClientConfig,
                    "ssl_keyfile needs ssl_certfile",
                )));
            }
        };
        let root_cert = tls.ca.as_ref().map(read).transpose()?;
        let mut addr = None;
        let certificates = redis::TlsCertificates { client_tls, root_cert };
        let client = redis::Client::build_with_tls(info.clone(), certificates)?;
        if tls.any_host {
            let mut loose = client.get_connection_info().addr().clone();
            loose.set_danger_accept_invalid_hostnames(true);
            addr = Some(loose);
        }
        match addr {
            Some(addr) => redis::Client::open(client.get_connection_info().clone().set_addr(addr)),
            None => Ok(client),
        }
    }

    /// Whether the server's machine takes connections although the server may not answer: then it is
    /// stopped for everybody. `None` where even that cannot be told.
    pub(super) async fn machine_answers(&self) -> Option<bool> {
        for server in &self.servers {
            let tried = match server {
                Server::Tcp { host, port } => {
                    let dial = tokio::net::TcpStream::connect((host.as_str(), *port));
                    tokio::time::timeout(CONNECT_DEADLINE, dial).await.map(|done| done.map(drop))
                }
                Server::Unix(path) => {
                    let dial = tokio::net::UnixStream::connect(path);
                    tokio::time::timeout(CONNECT_DEADLINE, dial).await.map(|done| done.map(drop))
                }
            };
            match tried {
                Ok(Ok(())) => return Some(true),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    return Some(false);
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        None
    }
}

/// What to do when the server refuses the certificate of the client, or misses one (the alerts of TLS,
/// RFC 8446 6.2, in the words of rustls 0.23).
fn about_certificate(error: &redis::RedisError) -> Option<&'static str> {
    let text = error.to_string();
    let alert = text.split_once("received fatal alert: ").map(|(_, alert)| alert)?;
    match alert.split(|c: char| !c.is_alphanumeric()).next()? {
        "CertificateRequired" | "HandshakeFailure" => Some(
            "the server wants a certificate of the client: add \
             ssl_certfile=FILE&ssl_keyfile=FILE to the URL",
        ),
        "UnknownCA" | "BadCertificate" | "DecryptError" => Some(
            "the server does not know the authority that signed ssl_certfile; \
             use a certificate of its tls-ca-cert-file",
        ),
        "CertificateExpired"
        | "CertificateRevoked"
        | "UnsupportedCertificate"
        | "CertificateUnknown"
        | "AccessDenied" => Some("the server refuses the certificate in ssl_certfile; renew it"),
        _ => None,
    }
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number| (0..=i64::from(u16::MAX)).contains(number))
}

fn truth(name: &str, value: &str, wrong: &impl Fn(&str) -> StoreError) -> Result<bool, StoreError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(wrong(&format!("{name} is true or false"))),
    }
}

/// kombu puts an underscore behind a result prefix that ends in no separator
/// (`celery/backends/base.py` 5.7, `_add_global_keyprefix`).
fn result_prefix(prefix: &str) -> String {
    if prefix.is_empty() || prefix.ends_with([':', '_', '-', '.']) {
        prefix.to_owned()
    } else {
        format!("{prefix}_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_celery_writes_them() {
        let plain = Address::parse("redis://:p%40ss@h:7000/3?global_keyprefix=a:").unwrap();
        assert_eq!(plain.to_string(), "h:7000");
        assert_eq!((plain.keys.database, plain.keys.prefix.as_str()), (3, "a:"));
        assert_eq!((plain.username, plain.password.as_deref()), (None, Some("p@ss")));
        assert!(!plain.shown.contains("p%40ss"), "{}", plain.shown);
        let socket = Address::parse("redis+socket:///tmp/r.sock?virtual_host=2").unwrap();
        assert_eq!((socket.to_string().as_str(), socket.keys.database), ("/tmp/r.sock", 2));
        let several = Address::parse("sentinel://a:1/4;sentinel://b:2?x=y").unwrap_err();
        assert!(several.to_string().contains("master"), "{several}");
        let sentinels = Address::parse("sentinel://u:p@a/4?master_name=m;sentinel://b:2").unwrap();
        assert_eq!(sentinels.to_string(), "a:26379, b:2");
        let tls = Address::parse("rediss://h?ssl_cert_reqs=CERT_NONE&ssl_ca_certs=/ca").unwrap();
        assert!(tls.tls.unwrap().unchecked);
        assert_eq!(Address::parse("redis://[::1]:1").unwrap().to_string(), "::1:1");
        assert_eq!(result_prefix("res"), "res_");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (url, why) in [
            ("redis://h/x", "number"),
            ("redis://h?ssl_cert_reqs=none", "rediss"),
            ("redis://h?visibility=3", "visibility"),
            ("redis://h?visibility_timeout=soon", "seconds"),
            ("rediss://h?ssl_cert_reqs=optional", "optional"),
            ("redis://h?master_name=m", "sentinel"),
            ("redis://h:x", "port"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
