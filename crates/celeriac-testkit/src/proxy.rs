//! A TCP proxy on the loopback interface that does to connections what networks do: it delays,
//! swallows, freezes, throttles, cuts, and leaves connections half open, in both directions or one.
//!
//! ```no_run
//! use celeriac_testkit::proxy::{Flow, How, Proxy, Way, Which};
//! # async fn example(server: std::net::SocketAddr) -> std::io::Result<()> {
//! let proxy = Proxy::start(server, 42).await?;
//! // … connect to `proxy.address()` instead of the server …
//! proxy.set(Which::All, Way::ToClient, |rule| rule.flow = Flow::Swallow); // answers are lost
//! proxy.cut(Which::One(0), How::Reset);
//! # Ok(())
//! # }
//! ```

use crate::dice::Dice;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The most bytes in one piece.
const PIECE_MAX: usize = 16 * 1024;
/// The most pieces that wait for their time in one direction; then the proxy stops reading.
const PIECES_MAX: usize = 64;

/// A direction, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
    /// Both.
    Both,
}

impl Way {
    fn has(self, direction: usize) -> bool {
        match self {
            Self::ToServer => direction == 0,
            Self::ToClient => direction == 1,
            Self::Both => true,
        }
    }
}

/// A connection by its number, in the order of their acceptance, or all: those to come as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// This one.
    One(usize),
}

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They go on.
    #[default]
    Forward,
    /// They are thrown away; an end of the stream goes on. No network does that to a connection that
    /// goes on afterwards: cut it, or leave it so.
    Swallow,
    /// They wait, and go on later. The sender is held up when the buffers are full.
    Freeze,
    /// They are thrown away, and so is the end of the stream: the other side hears nothing more.
    HalfOpen,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Both sides see the end of the stream.
    Close,
    /// Both sides see a reset.
    Reset,
}

/// What happens in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of bytes.
    pub flow: Flow,
    /// How late they arrive.
    pub delay: Duration,
    /// How much later at most, drawn from the seed for each piece; the order stays.
    pub jitter: Duration,
    /// The most bytes in a second.
    pub bytes_per_second: Option<u64>,
    /// The connection is cut after so many bytes went on, counted from its beginning.
    pub cut_after: Option<(u64, How)>,
}

impl Rule {
    /// How late the next piece is.
    fn lateness(&self, dice: &Dice) -> Duration {
        self.delay + Duration::from_micros(dice.roll(self.jitter.as_micros() as u64 + 1))
    }
}

/// What the proxy has seen; `[to the server, to the client]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that came.
    pub accepted: u64,
    /// Connections that the server refused.
    pub refused: u64,
    /// Connections that are over.
    pub ended: u64,
    /// Connections that were cut.
    pub cut: u64,
    /// Bytes that came.
    pub taken: [u64; 2],
    /// Bytes that went on.
    pub carried: [u64; 2],
    /// Bytes that were thrown away.
    pub swallowed: [u64; 2],
    /// Ends of a stream that came.
    pub ends_seen: [u64; 2],
    /// Ends of a stream that went on.
    pub ends_told: [u64; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    rules: [Rule; 2],
    cut: Option<How>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    seed: u64,
    counters: watch::Sender<Counters>,
    standing: Mutex<Standing>,
}

/// The rules for connections to come, and those that are there.
#[derive(Debug, Default)]
struct Standing {
    rules: [Rule; 2],
    open: BTreeMap<usize, watch::Sender<Orders>>,
}

impl Shared {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        self.counters.send_modify(change);
    }
}

/// A running proxy; it ends, and cuts everything, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port and connects everybody who comes to the server.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(server: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (counters, standing) = (watch::Sender::default(), Mutex::default());
        let shared = Arc::new(Shared { server, seed, counters, standing });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the rule of a direction, at once and also for bytes that wait.
    pub fn set(&self, which: Which, way: Way, change: impl Fn(&mut Rule)) {
        let mut standing = self.shared.standing();
        let apply = |rules: &mut [Rule; 2]| {
            let chosen = rules.iter_mut().enumerate().filter(|(at, _)| way.has(*at));
            chosen.for_each(|(_, rule)| change(rule));
        };
        if which == Which::All {
            apply(&mut standing.rules);
        }
        for (number, orders) in &standing.open {
            if which == Which::All || which == Which::One(*number) {
                orders.send_modify(|orders| apply(&mut orders.rules));
            }
        }
    }

    /// Cuts connections that are there now.
    pub fn cut(&self, which: Which, how: How) {
        for (number, orders) in &self.shared.standing().open {
            if which == Which::All || which == Which::One(*number) {
                orders.send_modify(|orders| orders.cut = Some(how));
            }
        }
    }

    /// The numbers of the connections that are there now.
    pub fn connections(&self) -> Vec<usize> {
        self.shared.standing().open.keys().copied().collect()
    }

    /// What it has seen so far.
    pub fn counters(&self) -> Counters {
        *self.shared.counters.borrow()
    }

    /// Waits until the counters are so; returns them.
    pub async fn until(&self, are_so: impl FnMut(&Counters) -> bool) -> Counters {
        let mut listener = self.shared.counters.subscribe();
        // The sender lives as long as this proxy, so there is always an answer.
        let seen = listener.wait_for(are_so).await.map(|counters| *counters);
        seen.unwrap_or_default()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let Ok((client, _)) = listener.accept().await else { return };
        let sender = {
            let mut standing = shared.standing();
            let orders = Orders { rules: standing.rules, cut: None };
            let sender = watch::Sender::new(orders);
            standing.open.insert(number, sender.clone());
            sender
        };
        shared.count(|counters| counters.accepted += 1);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            serve(client, number, &sender, &shared).await;
            shared.standing().open.remove(&number);
            shared.count(|counters| counters.ended += 1);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until both streams have ended or it is cut.
async fn serve(
    mut client: TcpStream,
    number: usize,
    sender: &watch::Sender<Orders>,
    shared: &Shared,
) {
    let Ok(mut server) = TcpStream::connect(shared.server).await else {
        shared.count(|counters| counters.refused += 1);
        return;
    };
    let lane = |direction: usize| Lane {
        direction,
        shared,
        orders: sender.subscribe(),
        dice: Dice::new(shared.seed, number as u64 * 2 + direction as u64),
    };
    let mut orders = sender.subscribe();
    let how = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let up = lane(0).carry(client_reads, server_writes);
        let down = lane(1).carry(server_reads, client_writes);
        tokio::select! {
            biased;
            // Both are given up with the connection, so what a dropped half loses is lost anyway.
            ordered = orders.wait_for(|orders| orders.cut.is_some()) => {
                ordered.ok().and_then(|orders| orders.cut)
            }
            over = futures::future::try_join(up, down) => over.err(),
        }
    };
    if let Some(how) = how {
        shared.count(|counters| counters.cut += 1);
        if how == How::Reset {
            // A side that is gone already cannot be reset; the other one is all the same.
            let _reset = (client.set_zero_linger(), server.set_zero_linger());
        }
    }
}

/// One direction of a connection.
struct Lane<'a> {
    direction: usize,
    shared: &'a Shared,
    orders: watch::Receiver<Orders>,
    dice: Dice,
}

/// Bytes and when they go on; none is the end of the stream.
type Piece = (Instant, Vec<u8>);

impl Lane<'_> {
    fn rule(&self) -> Rule {
        self.orders.borrow().rules[self.direction]
    }

    fn count(&self, change: impl FnOnce(&mut Counters, usize)) {
        self.shared.count(|counters| change(counters, self.direction));
    }

    /// Carries bytes until the end of the stream went on; an error is an ordered cut.
    async fn carry(self, source: ReadHalf<'_>, target: WriteHalf<'_>) -> Result<(), How> {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let taking = async {
            self.take(source, sender).await;
            Ok(())
        };
        let giving = self.give(receiver, target);
        // An ordered cut does not wait for the source.
        futures::future::try_join(taking, giving).await.map(|_| ())
    }

    async fn take(&self, mut source: ReadHalf<'_>, pieces: mpsc::Sender<Piece>) {
        let mut last = Instant::now();
        loop {
            let mut piece = vec![0; PIECE_MAX];
            // A reset by a peer ends its stream.
            let count = source.read(&mut piece).await.unwrap_or(0);
            piece.truncate(count);
            last = last.max(Instant::now() + self.rule().lateness(&self.dice));
            self.count(|counters, way| {
                counters.taken[way] += count as u64;
                counters.ends_seen[way] += u64::from(count == 0);
            });
            if pieces.send((last, piece)).await.is_err() || count == 0 {
                return;
            }
        }
    }

    async fn give(
        &self,
        mut pieces: mpsc::Receiver<Piece>,
        mut target: WriteHalf<'_>,
    ) -> Result<(), How> {
        let mut orders = self.orders.clone();
        let mut carried = 0;
        while let Some((due, mut piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            let thawed =
                orders.wait_for(|orders| orders.rules[self.direction].flow != Flow::Freeze).await;
            let rule = thawed.map_or_else(|_| self.rule(), |orders| orders.rules[self.direction]);
            let end = piece.is_empty();
            if end && rule.flow == Flow::HalfOpen {
                std::future::pending::<()>().await;
            }
            if end {
                self.count(|counters, way| counters.ends_told[way] += 1);
                // The other side may be gone already.
                let _told = target.shutdown().await;
                return Ok(());
            }
            if rule.flow != Flow::Forward {
                self.count(|counters, way| counters.swallowed[way] += piece.len() as u64);
                continue;
            }
            let cut = rule.cut_after.filter(|(max, _)| carried + piece.len() as u64 >= *max);
            if let Some((max, _)) = cut {
                piece.truncate(max.saturating_sub(carried) as usize);
            }
            if target.write_all(&piece).await.is_err() {
                return Ok(());
            }
            let count = piece.len() as u64;
            carried += count;
            self.count(|counters, way| counters.carried[way] += count);
            if let Some((_, how)) = cut {
                return Err(how);
            }
            if let Some(rate) = rule.bytes_per_second {
                tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn jitter_is_drawn_anew_for_each_piece_and_from_the_seed() {
        let (delay, jitter) = (Duration::from_millis(30), Duration::from_millis(20));
        let rule = Rule { delay, jitter, ..Rule::default() };
        let drawn = |seed| -> Vec<Duration> {
            let dice = Dice::new(seed, 0);
            (0..50).map(|_| rule.lateness(&dice)).collect()
        };
        let late = drawn(7);
        assert!(late.iter().all(|late| *late >= delay && *late <= delay + jitter));
        assert!(late.iter().collect::<BTreeSet<_>>().len() > 40, "{late:?}");
        assert_eq!((late.clone(), late != drawn(8)), (drawn(7), true));
    }
}
