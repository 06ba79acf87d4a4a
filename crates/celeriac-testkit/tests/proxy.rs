//! Every mode of the fault proxy, in front of a server that sends back what it gets.

#![allow(missing_docs, reason = "a test's name says what it is about")]
#![allow(clippy::unwrap_used, reason = "a test may panic, and says where")]

use celeriac_testkit::proxy::{Flow, How, Proxy, Way, Which};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Longer than anything takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Bytes(Vec<u8>),
    End,
    Reset,
}

struct Bench {
    proxy: Proxy,
    server: mpsc::UnboundedReceiver<Seen>,
}

async fn echo(mut stream: TcpStream, seen: mpsc::UnboundedSender<Seen>) {
    let mut bytes = [0; 4096];
    loop {
        let saw = match stream.read(&mut bytes).await {
            Ok(0) => Seen::End,
            Ok(count) => Seen::Bytes(bytes[..count].to_vec()),
            Err(_reset) => Seen::Reset,
        };
        let over = !matches!(saw, Seen::Bytes(_));
        if let Seen::Bytes(bytes) = &saw {
            // The client may be gone; then the next read says so.
            let _sent = stream.write_all(bytes).await;
        }
        if seen.send(saw).is_err() || over {
            return;
        }
    }
}

impl Bench {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (sender, server) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(echo(stream, sender.clone()));
            }
        });
        Self { proxy: Proxy::start(address, 7).await.unwrap(), server }
    }

    async fn connect(&self) -> TcpStream {
        let before = self.proxy.counters().accepted;
        let stream = TcpStream::connect(self.proxy.address()).await.unwrap();
        within(self.proxy.until(|counters| counters.accepted > before)).await;
        stream
    }

    async fn saw(&mut self) -> Seen {
        within(self.server.recv()).await.unwrap()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens")
}

async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// The end of a client's stream: `None` is an orderly one.
async fn end(stream: &mut TcpStream) -> Option<ErrorKind> {
    match within(stream.read(&mut [0; 1])).await {
        Ok(0) => None,
        Ok(_) => panic!("a byte where the end should be"),
        Err(error) => Some(error.kind()),
    }
}

#[tokio::test]
async fn bytes_and_ends_go_through_and_are_counted() {
    let mut bench = Bench::new().await;
    let mut client = bench.connect().await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"hello");
    assert_eq!(bench.proxy.connections(), [0]);
    client.shutdown().await.unwrap();
    assert_eq!(end(&mut client).await, None);
    assert_eq!((bench.saw().await, bench.saw().await), (Seen::Bytes(b"hello".into()), Seen::End));
    let counters = within(bench.proxy.until(|counters| counters.ended == 1)).await;
    assert_eq!((counters.accepted, counters.refused, counters.cut), (1, 0, 0));
    assert_eq!((counters.taken, counters.carried), ([5, 5], [5, 5]));
    assert_eq!((counters.swallowed, counters.ends_told), ([0, 0], [1, 1]));
    assert_eq!(bench.proxy.connections(), []);
}

#[tokio::test]
async fn a_server_that_is_not_there_refuses() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(gone, 7).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(end(&mut client).await, None);
    let counters = within(proxy.until(|counters| counters.ended == 1)).await;
    assert_eq!((counters.accepted, counters.refused), (1, 1));
}

#[tokio::test]
async fn a_delay_makes_bytes_late_and_keeps_their_order() {
    let bench = Bench::new().await;
    let (delay, jitter) = (Duration::from_millis(30), Duration::from_millis(5));
    bench.proxy.set(Which::All, Way::Both, |rule| (rule.delay, rule.jitter) = (delay, jitter));
    let mut client = bench.connect().await;
    let began = Instant::now();
    for byte in b"abc" {
        client.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(read(&mut client, 3).await, b"abc");
    assert!(began.elapsed() >= delay * 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn swallowed_bytes_are_gone_and_later_ones_arrive() {
    let mut bench = Bench::new().await;
    let mut client = bench.connect().await;
    bench.proxy.set(Which::All, Way::ToServer, |rule| rule.flow = Flow::Swallow);
    client.write_all(b"lost").await.unwrap();
    within(bench.proxy.until(|counters| counters.swallowed[0] == 4)).await;
    bench.proxy.set(Which::All, Way::ToServer, |rule| rule.flow = Flow::Forward);
    client.write_all(b"here").await.unwrap();
    assert_eq!(read(&mut client, 4).await, b"here");
    assert_eq!(bench.saw().await, Seen::Bytes(b"here".into()));
}

#[tokio::test]
async fn one_way_the_server_hears_and_the_client_does_not() {
    let mut bench = Bench::new().await;
    let mut client = bench.connect().await;
    bench.proxy.set(Which::All, Way::ToClient, |rule| rule.flow = Flow::Swallow);
    client.write_all(b"done").await.unwrap();
    assert_eq!(bench.saw().await, Seen::Bytes(b"done".into()));
    let counters = within(bench.proxy.until(|counters| counters.swallowed[1] == 4)).await;
    assert_eq!(counters.carried, [4, 0]);
}

#[tokio::test]
async fn frozen_bytes_wait_for_the_thaw() {
    let mut bench = Bench::new().await;
    let mut client = bench.connect().await;
    bench.proxy.set(Which::All, Way::ToClient, |rule| rule.flow = Flow::Freeze);
    client.write_all(b"late").await.unwrap();
    assert_eq!(bench.saw().await, Seen::Bytes(b"late".into()));
    let counters = within(bench.proxy.until(|counters| counters.taken[1] == 4)).await;
    assert_eq!((counters.carried[1], counters.swallowed[1]), (0, 0));
    bench.proxy.set(Which::All, Way::ToClient, |rule| rule.flow = Flow::Forward);
    assert_eq!(read(&mut client, 4).await, b"late");
}

#[tokio::test]
async fn one_connection_is_frozen_and_the_other_is_not() {
    let bench = Bench::new().await;
    let (mut one, mut two) = (bench.connect().await, bench.connect().await);
    bench.proxy.set(Which::One(0), Way::Both, |rule| rule.flow = Flow::Freeze);
    one.write_all(b"1").await.unwrap();
    two.write_all(b"2").await.unwrap();
    assert_eq!(read(&mut two, 1).await, b"2");
    let counters = within(bench.proxy.until(|counters| counters.taken[0] == 2)).await;
    assert_eq!(counters.carried, [1, 1]);
    bench.proxy.cut(Which::One(1), How::Close);
    assert_eq!(end(&mut two).await, None);
    bench.proxy.set(Which::One(0), Way::Both, |rule| rule.flow = Flow::Forward);
    assert_eq!(read(&mut one, 1).await, b"1");
}

#[tokio::test]
async fn a_cut_closes_or_resets_both_sides() {
    for (how, client_sees, server_sees) in
        [(How::Close, None, Seen::End), (How::Reset, Some(ErrorKind::ConnectionReset), Seen::Reset)]
    {
        let mut bench = Bench::new().await;
        let mut client = bench.connect().await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(read(&mut client, 1).await, b"x");
        bench.proxy.cut(Which::All, how);
        assert_eq!(end(&mut client).await, client_sees, "{how:?}");
        assert_eq!(bench.saw().await, Seen::Bytes(b"x".into()));
        assert_eq!(bench.saw().await, server_sees, "{how:?}");
        assert_eq!(bench.proxy.counters().cut, 1);
    }
}

#[tokio::test]
async fn a_cut_after_some_bytes_lets_exactly_these_through() {
    let mut bench = Bench::new().await;
    bench.proxy.set(Which::All, Way::ToServer, |rule| rule.cut_after = Some((6, How::Close)));
    let mut client = bench.connect().await;
    client.write_all(b"abcd").await.unwrap();
    assert_eq!(read(&mut client, 4).await, b"abcd");
    client.write_all(b"efgh").await.unwrap();
    let mut all = Vec::new();
    while let Seen::Bytes(bytes) = bench.saw().await {
        all.extend(bytes);
    }
    assert_eq!(all, b"abcdef");
    assert_eq!(bench.proxy.counters().carried[0], 6);
}

#[tokio::test]
async fn half_open_neither_bytes_nor_the_end_go_on() {
    let mut bench = Bench::new().await;
    let mut client = bench.connect().await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut client, 1).await, b"x");
    assert_eq!(bench.saw().await, Seen::Bytes(b"x".into()));
    bench.proxy.set(Which::All, Way::Both, |rule| rule.flow = Flow::HalfOpen);
    client.write_all(b"y").await.unwrap();
    drop(client);
    let counters = within(bench.proxy.until(|counters| counters.ends_seen[0] == 1)).await;
    assert_eq!((counters.ends_told, counters.ended), ([0, 0], 0));
    within(bench.proxy.until(|counters| counters.swallowed[0] == 1)).await;
    assert!(bench.server.try_recv().is_err(), "the server knows nothing of it");
    bench.proxy.cut(Which::All, How::Reset);
    assert_eq!(bench.saw().await, Seen::Reset, "the first it hears is the cut");
}

#[tokio::test]
async fn a_narrow_way_takes_its_time() {
    let bench = Bench::new().await;
    bench.proxy.set(Which::All, Way::ToServer, |rule| rule.bytes_per_second = Some(40_000));
    let mut client = bench.connect().await;
    let began = Instant::now();
    client.write_all(b"first").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"first");
    client.write_all(&[0; 2000]).await.unwrap();
    read(&mut client, 2000).await;
    client.write_all(b"last").await.unwrap();
    assert_eq!(read(&mut client, 4).await, b"last");
    // 2005 bytes went before the last ones.
    assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
}
