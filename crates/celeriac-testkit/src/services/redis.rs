//! A Redis for one test: in a folder of its own, on a port and a socket of its own. It dies with its
//! value, and with the test however that ends.

use super::resp::{Connection, Reply};
use crate::dice::Dice;
use crate::process::{Process, bind_to_us, until};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// How long a server may take to come up, to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many ports are tried.
const PORTS_MAX: usize = 50;
/// Ports below those that the kernel hands out, so that no outgoing connection takes one between a
/// stop and a restart.
const PORTS: (u64, u64) = (10_000, 32_000);
/// The user of [`Redis::cli`]: it may do everything, whatever the options do to the default user.
const USER: [&str; 3] = ["AUTH", "testkit", "of-the-test"];

/// How a Redis is started.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    lines: Vec<String>,
    password: Option<String>,
    #[cfg(feature = "tls")]
    tls: bool,
}

impl RedisOptions {
    /// A line of `redis.conf`, as `maxmemory 10mb`.
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Asks the default user for a password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.config(format!("requirepass {password}"))
    }

    /// Adds a user with rules as in `ACL SETUSER`, for example `~* &* +@all`.
    pub fn user(self, name: &str, password: &str, rules: &str) -> Self {
        self.config(format!("user {name} on >{password} resetchannels {rules}"))
    }

    /// Writes each change into a file, so that [`Redis::restart`] finds it again after a kill.
    pub fn append_only(self) -> Self {
        self.config("appendonly yes")
    }

    /// Listens with TLS on one port more, with certificates made for this server.
    #[cfg(feature = "tls")]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// As [`RedisOptions::tls`], and takes only clients with a certificate that the authority has signed.
    #[cfg(feature = "tls")]
    pub fn tls_of_known_clients(self) -> Self {
        self.tls().config("tls-auth-clients yes")
    }

    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// If there is no `redis-server`, or it does not come up.
    pub async fn start(self) -> Redis {
        let program = super::find("redis-server").expect("redis-server is on the PATH");
        let folder = tempfile::Builder::new().prefix("redis-").tempdir().expect("a folder");
        let seed = std::hash::RandomState::new().build_hasher().finish();
        let dice = Dice::new(seed, u64::from(std::process::id()));
        for _ in 0..PORTS_MAX {
            // Even ports are plain, the odd ones above them have TLS.
            let port = dice.between(PORTS.0 / 2, PORTS.1 / 2) as u16 * 2;
            let options = self.clone();
            if let Some(process) = launch(&program, folder.path(), &options, port).await {
                return Redis { program, folder, options, port, process: Some(process) };
            }
        }
        panic!("{PORTS_MAX} ports are in use");
    }

    /// As [`RedisOptions::start`]; without a `redis-server` it says so and gives nothing.
    ///
    /// # Panics
    /// If it does not come up, or `CI` is set and there is no `redis-server`.
    pub async fn start_if_there(self) -> Option<Redis> {
        if super::find("redis-server").is_none() {
            super::skip("redis-server is not installed");
            return None;
        }
        Some(self.start().await)
    }
}

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    folder: TempDir,
    options: RedisOptions,
    port: u16,
    process: Option<Process>,
}

/// What a server has used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// User and system time of the process.
    pub cpu: Duration,
    /// What its allocator has handed out, in bytes.
    pub memory_bytes: u64,
    /// Connected clients, the one that asks among them.
    pub clients: u64,
    /// Commands that it carried out, those that ask among them.
    pub commands: u64,
}

impl Redis {
    /// One with Redis' own settings, that writes nothing to disk.
    ///
    /// # Panics
    /// If there is no `redis-server`, or it does not come up.
    pub async fn start() -> Self {
        Self::options().start().await
    }

    /// How it shall be started.
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    /// Its port on the loopback interface.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, database 0, with the password if it has one.
    pub fn url(&self) -> String {
        self.url_of(0)
    }

    /// The URL of a database.
    pub fn url_of(&self, database: u16) -> String {
        let login = self.options.password.as_ref().map(|password| format!(":{password}@"));
        let login = login.unwrap_or_default();
        format!("redis://{login}127.0.0.1:{}/{database}", self.port)
    }

    /// The URL for one of the users of the options.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}/0", self.port)
    }

    /// The URL with TLS; [`Redis::authority`] signed the server's certificate.
    #[cfg(feature = "tls")]
    pub fn tls_url(&self) -> String {
        let plain = self.url().replacen("redis:", "rediss:", 1);
        plain.replacen(&format!(":{}/", self.port), &format!(":{}/", self.port + 1), 1)
    }

    /// The file with the certificate of the authority (PEM).
    #[cfg(feature = "tls")]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// The files with a client's certificate, which the authority has signed, and with its key (PEM).
    #[cfg(feature = "tls")]
    pub fn client_certificate(&self) -> (PathBuf, PathBuf) {
        (self.folder.path().join("client.pem"), self.folder.path().join("client.key"))
    }

    /// The socket file. Celery's URL for it is `redis+socket://` and this path.
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// The folder with its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A raw connection of a user that may do everything.
    ///
    /// # Panics
    /// If the server does not take it.
    pub async fn connect(&self) -> Connection {
        let opening = connect(self.folder.path());
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        opened.expect("it answers in time").expect("it takes connections")
    }

    /// Carries out one command, and gives the answer even if it is a refusal.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn try_cli(&self, command: &[impl AsRef<[u8]>]) -> Reply {
        let mut connection = self.connect().await;
        let called = tokio::time::timeout(PATIENCE, connection.call(command)).await;
        called.expect("it answers in time").expect("it answers")
    }

    /// Carries out one command.
    ///
    /// # Panics
    /// If the server does not answer, or refuses.
    pub async fn cli(&self, command: &[impl AsRef<[u8]>]) -> Reply {
        let reply = self.try_cli(command).await;
        assert!(!matches!(reply, Reply::Error(_)), "refused: {reply:?}");
        reply
    }

    /// What it has used so far.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn figures(&self) -> Figures {
        let info = self.cli(&["INFO", "everything"]).await.text();
        let field = |name: &str| -> &str {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_else(|| panic!("INFO has no {name}"))
        };
        let seconds = |name: &str| -> f64 { field(name).parse().expect("seconds") };
        let number = |name: &str| -> u64 { field(name).parse().expect("a number") };
        Figures {
            cpu: Duration::from_secs_f64(seconds("used_cpu_user") + seconds("used_cpu_sys")),
            memory_bytes: number("used_memory"),
            clients: number("connected_clients"),
            commands: number("total_commands_processed"),
        }
    }

    /// The process.
    ///
    /// # Panics
    /// If it was killed or shut down.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server runs")
    }

    /// Stops it as a suspended machine does, until [`Redis::cont`].
    pub fn stop(&mut self) {
        self.process().signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn cont(&mut self) {
        self.process().signal(Signal::CONT);
    }

    /// Kills it, as the kernel does, and waits until it is gone.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn kill9(&mut self) {
        self.process().kill().await;
        self.process = None;
    }

    /// Ends it as an operator does, and waits until it is gone.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn shutdown(&mut self) {
        self.process().signal(Signal::TERM);
        self.process().ended_within(PATIENCE).await;
        self.process = None;
    }

    /// Starts it again, on the same port and with what it wrote to disk; ends it first if it runs.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn restart(&mut self) {
        if self.process.is_some() {
            self.shutdown().await;
        }
        let (program, folder) = (self.program.clone(), self.folder.path().to_owned());
        let (options, port) = (self.options.clone(), self.port);
        let launched = until("its port is free again", PATIENCE, async || {
            launch(&program, &folder, &options, port).await
        });
        self.process = Some(launched.await);
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}

async fn connect(folder: &Path) -> std::io::Result<Connection> {
    let mut connection = Connection::open(&socket(folder)).await?;
    match connection.call(&USER).await? {
        Reply::Error(text) => Err(std::io::Error::other(text)),
        _ => Ok(connection),
    }
}

/// Starts a server and waits until it answers; nothing if the port is in use. It is asked over the
/// socket file, which only this server has, and which it makes after it took the ports.
async fn launch(
    program: &Path,
    folder: &Path,
    options: &RedisOptions,
    port: u16,
) -> Option<Process> {
    let path = folder.display();
    let mut config = format!(
        "port {port}\nbind 127.0.0.1\nunixsocket \"{}\"\ndir \"{path}\"\nsave \"\"\n\
         user {} on >{} ~* &* +@all\n",
        socket(folder).display(),
        USER[1],
        USER[2]
    );
    #[cfg(feature = "tls")]
    if options.tls {
        make_certificates(folder);
        let _infallible = write!(
            config,
            "tls-port {}\ntls-cert-file \"{path}/server.pem\"\ntls-key-file \"{path}/server.key\"\n\
             tls-ca-cert-file \"{path}/authority.pem\"\ntls-auth-clients optional\n",
            port + 1
        );
    }
    for line in &options.lines {
        let _infallible = writeln!(config, "{line}");
    }
    let file = folder.join("redis.conf");
    std::fs::write(&file, config).expect("a file in a folder of the test");
    let mut command = Command::new(program);
    command.arg(&file).current_dir(folder);
    bind_to_us(&mut command);
    let mut process = Process::spawn(&mut command, folder.join("redis.log"));
    let up = until("redis-server answers", PATIENCE, async || {
        if process.is_over() {
            return Some(false);
        }
        let mut connection = connect(folder).await.ok()?;
        let pong = connection.call(&["PING"]).await.ok()?;
        (pong == Reply::Status("PONG".to_owned())).then_some(true)
    });
    if up.await {
        return Some(process);
    }
    let log = process.log();
    assert!(log.contains("Address already in use"), "redis-server did not start:\n{log}");
    None
}

/// An authority, and certificates of the server and of a client that it signs; kept over a restart.
///
/// # Panics
/// If they cannot be written.
#[cfg(feature = "tls")]
pub fn make_certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    if folder.join("server.pem").exists() {
        return;
    }
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).expect("a file in a folder of the test");
    };
    let key = || KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new([]).expect("no names");
    // Two certificates of one name would look as if they had signed themselves.
    authority.distinguished_name.push(DnType::CommonName, "celeriac tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("a certificate");
    write("authority.pem", authority.pem());
    for (who, names) in [("client", &["client"][..]), ("server", &["localhost", "127.0.0.1"])] {
        let key = key();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        write(&format!("{who}.key"), key.serialize_pem());
        write(&format!("{who}.pem"), certificate.pem());
    }
}
