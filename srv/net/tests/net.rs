//! Real nodes on loopback: together, refused, full, lost and found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fs_ninep::{Filter, Kind, PeerEvent, PeerId, Stream, Transport};
use srv_net::{Config, DEADLINE, INBOUND_MAX, Incoming, Net, SILENCE_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

fn config(seed: u8, listen: &[&str]) -> Config {
    let listen = listen.iter().map(|s| s.to_string()).collect();
    Config { listen, mdns: false, ..Config::new([seed; 32]) }
}

async fn node(seed: u8, listen: &[&str]) -> (Arc<Net>, Incoming) {
    Net::start(config(seed, listen)).await.unwrap()
}

/// A node that echoes what each stream carries.
async fn echoing(seed: u8, listen: &[&str]) -> Arc<Net> {
    let (net, incoming) = node(seed, listen).await;
    tokio::spawn(echo_all(incoming));
    net
}

async fn echo_all(mut incoming: Incoming) {
    while let Some((_, stream)) = incoming.next().await {
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
}

async fn round_trip(stream: &mut Box<dyn Stream>, word: &[u8]) {
    let mut back = vec![0; word.len()];
    stream.write_all(word).await.unwrap();
    stream.flush().await.unwrap();
    timeout(LONG, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, word);
}

#[tokio::test]
async fn two_nodes_meet_over_tcp_and_over_quic() {
    for (listen, part) in [(TCP, "/tcp/"), (QUIC, "/quic-v1/")] {
        let bob = echoing(2, &[listen]).await;
        let (ann, mut to_ann) = node(1, &[]).await;
        assert!(ann.addrs().is_empty());
        let addr = bob.addrs()[0].clone();
        assert!(addr.contains(part) && addr.ends_with(&format!("/p2p/{}", bob.id())), "{addr}");
        assert_eq!(ann.dial(&addr).await.unwrap(), bob.id());
        let mut stream = ann.open(&bob.id()).await.unwrap();
        round_trip(&mut stream, b"hello").await;

        let link = ann.link(&bob.id()).unwrap();
        assert_eq!((&link.addr, link.inbound), (&addr, false));
        assert_eq!(ann.known(&bob.id()), [addr]);

        // The other way, over the same connection: there is no address at which bob could dial ann.
        assert!(bob.link(&ann.id()).unwrap().inbound);
        let mut back = bob.open(&ann.id()).await.unwrap();
        back.write_all(b"from bob").await.unwrap();
        back.flush().await.unwrap();
        let (peer, mut got) = timeout(LONG, to_ann.next()).await.unwrap().unwrap();
        let mut word = [0; 8];
        got.read_exact(&mut word).await.unwrap();
        assert_eq!((peer, &word), (bob.id(), b"from bob"));
    }
}

#[tokio::test]
async fn an_address_without_a_peer_id_is_dialled_too() {
    let (bob, _incoming) = node(2, &[TCP]).await;
    let (ann, _) = node(1, &[]).await;
    let addr = bob.addrs()[0].clone();
    let bare = addr.rsplit_once("/p2p/").unwrap().0;
    assert_eq!(ann.dial(bare).await.unwrap(), bob.id());
    let port = bare.rsplit_once('/').unwrap().1;
    let (cid, _) = node(3, &[]).await;
    assert_eq!(cid.dial(&format!("/dns4/localhost/tcp/{port}")).await.unwrap(), bob.id());
}

#[tokio::test]
async fn no_unspecified_address_is_shown_or_handed_out() {
    let (bob, _incoming) = node(2, &["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"]).await;
    let (ann, _) = node(1, &[]).await;
    assert!(bob.addrs().len() >= 2);
    for addr in bob.addrs() {
        assert!(!addr.contains("/0.0.0.0/"), "{addr}");
        ann.hangup(&bob.id()).await.unwrap();
        assert_eq!(ann.dial(&addr).await.unwrap(), bob.id(), "{addr}");
    }
    // What bob said of himself: all of it, and nothing else.
    let (mut said, mut shown) = (ann.known(&bob.id()), bob.addrs());
    said.sort();
    shown.sort();
    assert_eq!(said, shown);
}

#[tokio::test]
async fn two_nodes_that_dial_each_other_at_once_both_succeed() {
    for _ in 0..20 {
        let (ann, bob) = (echoing(1, &[TCP]).await, echoing(2, &[TCP]).await);
        let (to_bob, to_ann) = (bob.addrs()[0].clone(), ann.addrs()[0].clone());
        let (a, b) = tokio::join!(ann.dial(&to_bob), bob.dial(&to_ann));
        assert_eq!((a.unwrap(), b.unwrap()), (bob.id(), ann.id()));
        round_trip(&mut ann.open(&bob.id()).await.unwrap(), b"x").await;
        round_trip(&mut bob.open(&ann.id()).await.unwrap(), b"y").await;
    }
}

#[tokio::test]
async fn tcp_is_used_where_both_are_known() {
    let (bob, _incoming) = node(2, &[QUIC, TCP]).await;
    let (ann, _) = node(1, &[]).await;
    for addr in bob.addrs() {
        ann.learn(&bob.id(), &addr).unwrap();
    }
    ann.open(&bob.id()).await.unwrap();
    assert!(ann.link(&bob.id()).unwrap().addr.contains("/tcp/"));
}

#[tokio::test]
async fn what_cannot_be_dialled_is_refused_with_a_reason() {
    let (bob, _incoming) = node(2, &[TCP]).await;
    let (ann, _) = node(1, &[TCP]).await;
    let bob_addr = bob.addrs()[0].clone();
    let bare = bob_addr.rsplit_once("/p2p/").unwrap().0;
    // A port on which nobody listens: it was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (addr, kind, text) in [
        ("moon".to_string(), Kind::Invalid, "is no address to dial"),
        ("/ip4/127.0.0.1".to_string(), Kind::Invalid, "neither /tcp/PORT"),
        ("/ip4/0.0.0.0/tcp/9".to_string(), Kind::Invalid, "unspecified"),
        (ann.addrs()[0].clone(), Kind::Invalid, "is this node itself"),
        (ann.addrs()[0].rsplit_once("/p2p/").unwrap().0.to_string(), Kind::Invalid, "is this node itself"),
        (
            format!("{bare}/p2p/{}", PeerId::new("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")),
            Kind::Denied,
            "the node there is",
        ),
        (format!("/ip4/127.0.0.1/tcp/{free}"), Kind::Unreachable, "connection refused; start the node there"),
        (format!("/ip4/127.0.0.1/udp/{free}/quic-v1"), Kind::Unreachable, "start the node there"),
    ] {
        let start = Instant::now();
        let e = ann.dial(&addr).await.unwrap_err();
        assert!(start.elapsed() < DEADLINE + Duration::from_millis(400), "{addr} took {:?}", start.elapsed());
        assert_eq!(e.kind(), kind, "{addr}: {e}");
        assert!(e.to_string().contains(text), "{addr}: {e}");
    }
    let e = ann.open(&PeerId::new("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")).await.err().unwrap();
    assert_eq!(e.kind(), Kind::Unreachable);
    assert!(e.to_string().starts_with("no address of"), "{e}");
    assert_eq!(ann.open(&PeerId::new("moon")).await.err().unwrap().kind(), Kind::Invalid);
}

#[tokio::test]
async fn a_listener_that_accepts_and_says_nothing_is_unreachable_in_time() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ann, _) = node(1, &[]).await;
    let start = Instant::now();
    let e = ann.dial(&format!("/ip4/127.0.0.1/tcp/{}", mute.local_addr().unwrap().port())).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unreachable);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let e: fs_ninep::Error = Net::start(config(1, &[&addr])).await.err().unwrap().into();
    assert_eq!(e.kind(), Kind::Busy);
    assert!(e.to_string().contains(&addr), "{e}");
    assert!(Net::start(config(1, &["moon"])).await.is_err());
}

#[tokio::test]
async fn connections_are_limited_on_both_sides() {
    let (bob, incoming) = Net::start(Config { connections_max: 1, ..config(2, &[TCP]) }).await.unwrap();
    tokio::spawn(echo_all(incoming));
    let (ann, _) = node(1, &[]).await;
    let (cid, to_cid) = node(3, &[TCP]).await;
    let mut kept = {
        ann.dial(&bob.addrs()[0]).await.unwrap();
        ann.open(&bob.id()).await.unwrap()
    };
    round_trip(&mut kept, b"before").await;
    let e = cid.dial(&bob.addrs()[0]).await.unwrap_err();
    assert!(e.kind() == Kind::Unreachable && e.to_string().contains("hung up at once"), "{e}");
    let e = bob.dial(&cid.addrs()[0]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Exhausted, "{e}");
    round_trip(&mut kept, b"after").await;
    drop(to_cid);
}

#[tokio::test]
async fn a_node_short_of_memory_lets_nobody_in_and_can_dial() {
    let (bob, _incoming) = Net::start(Config { memory_max_bytes: 1, ..config(2, &[TCP]) }).await.unwrap();
    let ann = echoing(1, &[TCP]).await;
    assert_eq!(ann.dial(&bob.addrs()[0]).await.unwrap_err().kind(), Kind::Unreachable);
    bob.dial(&ann.addrs()[0]).await.unwrap();
    round_trip(&mut bob.open(&ann.id()).await.unwrap(), b"out").await;
}

/// Both faults of a stock stream behaviour at once: a burst, written to before anybody accepts.
#[tokio::test]
async fn of_400_streams_opened_and_written_at_once_none_is_lost() {
    for listen in [TCP, QUIC] {
        let (bob, mut to_bob) = node(2, &[listen]).await;
        let (ann, _) = node(1, &[]).await;
        ann.dial(&bob.addrs()[0]).await.unwrap();
        let peer = bob.id();
        let opened = (0..400u32).map(|i| {
            let (ann, peer) = (ann.clone(), peer.clone());
            tokio::spawn(async move {
                let mut stream = ann.open(&peer).await.unwrap();
                stream.write_all(&i.to_le_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                let mut back = [0; 4];
                stream.read_exact(&mut back).await.unwrap();
                assert_eq!(back, i.to_le_bytes());
            })
        });
        let opened: Vec<_> = opened.collect();
        let mut held = Vec::new();
        for _ in 0..400 {
            held.push(timeout(LONG, to_bob.next()).await.unwrap().unwrap().1);
        }
        for mut stream in held {
            tokio::spawn(async move {
                let mut word = [0; 4];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word).await.unwrap();
                stream.flush().await.unwrap();
                let _ = stream.read(&mut word).await;
            });
        }
        for task in opened {
            timeout(LONG, task).await.unwrap().unwrap();
        }
        assert_eq!(bob.refused(), 0);
    }
}

/// More streams than may wait: the rest is reset, its openers see that, and nothing else suffers.
#[tokio::test]
async fn beyond_the_queue_a_stream_is_refused_visibly() {
    const EACH: usize = 400;
    let (bob, mut to_bob) = node(2, &[TCP]).await;
    let mut streams = Vec::new();
    let mut nodes = Vec::new();
    for seed in 3..6 {
        let (net, incoming) = node(seed, &[]).await;
        net.dial(&bob.addrs()[0]).await.unwrap();
        for _ in 0..EACH {
            let mut stream = net.open(&bob.id()).await.unwrap();
            // One that was refused already may fail here; it does below in any case.
            let _ = stream.write_all(b"x").await;
            let _ = stream.flush().await;
            streams.push(stream);
        }
        nodes.push((net, incoming));
    }
    let refused = 3 * EACH - INBOUND_MAX;
    timeout(LONG, async {
        while bob.refused() < refused as u64 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    for _ in 0..INBOUND_MAX {
        let (_, mut stream) = timeout(LONG, to_bob.next()).await.unwrap().unwrap();
        let mut word = [0; 1];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(b"y").await.unwrap();
        stream.shutdown().await.unwrap();
    }
    let mut lost = 0;
    for mut stream in streams {
        let mut word = [0; 1];
        match timeout(LONG, stream.read(&mut word)).await.unwrap() {
            Ok(1) => assert_eq!(&word, b"y"),
            _ => lost += 1,
        }
    }
    assert_eq!((lost, bob.refused()), (refused, refused as u64));
}

/// An open beyond the streams of a connection waits for one to end, and the connection lives on.
#[tokio::test]
async fn opens_beyond_a_connections_streams_wait() {
    let bob = echoing(2, &[TCP]).await;
    let (ann, _) = node(1, &[]).await;
    ann.dial(&bob.addrs()[0]).await.unwrap();
    let mut held = Vec::new();
    let e = loop {
        match ann.open(&bob.id()).await {
            Ok(mut stream) => {
                round_trip(&mut stream, b"x").await;
                held.push(stream);
            }
            Err(e) => break e,
        }
        assert!(held.len() < 512, "no limit");
    };
    assert_eq!(e.kind(), Kind::Unreachable);
    assert!(held.len() > 400, "only {} streams", held.len());
    round_trip(&mut held[0], b"still there").await;
    held.truncate(200);
    round_trip(&mut ann.open(&bob.id()).await.unwrap(), b"room again").await;
}

#[tokio::test]
async fn bulk_both_ways_at_once_does_not_stall() {
    for (listen, streams, bytes) in [(TCP, 1, 32 << 20), (TCP, 8, 4 << 20), (QUIC, 4, 2 << 20)] {
        let bob = echoing(2, &[listen]).await;
        let (ann, _) = node(1, &[]).await;
        ann.dial(&bob.addrs()[0]).await.unwrap();
        let mut tasks = Vec::new();
        for n in 0..streams {
            let (mut from, mut to) = tokio::io::split(ann.open(&bob.id()).await.unwrap());
            tasks.push(tokio::spawn(async move {
                let piece: Vec<u8> = (0..100_000usize).map(|i| (i * 31 + n) as u8).collect();
                for at in (0..bytes).step_by(piece.len()) {
                    to.write_all(&piece[..piece.len().min(bytes - at)]).await.unwrap();
                }
                to.shutdown().await.unwrap();
            }));
            tasks.push(tokio::spawn(async move {
                let (mut got, mut room) = (0, vec![0; 70_000]);
                loop {
                    match from.read(&mut room).await.unwrap() {
                        0 => break,
                        k => {
                            let right = |(i, b): (usize, &u8)| *b == (((got + i) % 100_000) * 31 + n) as u8;
                            assert!(room[..k].iter().enumerate().all(right));
                            got += k;
                        }
                    }
                }
                assert_eq!(got, bytes);
            }));
        }
        for task in tasks {
            timeout(Duration::from_secs(120), task).await.expect("stalled").unwrap();
        }
    }
}

/// How the other node ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Its sockets close, as when it is killed.
    Killed,
    /// It says nothing any more, as when its machine is gone.
    Silent,
}

/// A node on a thread and runtime of its own, which ends as told.
fn doomed(listen: &'static str) -> (String, tokio::sync::oneshot::Sender<End>) {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let how = runtime.block_on(async {
            let net = echoing(2, &[listen]).await;
            tell.send(net.addrs()[0].clone()).unwrap();
            ended.await.unwrap()
        });
        match how {
            End::Killed => runtime.shutdown_background(),
            // Neither run nor dropped: the sockets stay open and nobody serves them.
            End::Silent => std::mem::forget(runtime),
        }
    });
    (told.recv().unwrap(), end)
}

#[tokio::test]
async fn a_peer_that_dies_is_noticed() {
    for (listen, end, within) in [
        (TCP, End::Killed, Duration::from_secs(1)),
        (TCP, End::Silent, SILENCE_MAX + Duration::from_millis(900)),
        (QUIC, End::Silent, SILENCE_MAX + Duration::from_millis(900)),
    ] {
        let (addr, doom) = doomed(listen);
        let (ann, _) = node(1, &[]).await;
        let mut events = ann.events();
        let bob = ann.dial(&addr).await.unwrap();
        let mut stream = ann.open(&bob).await.unwrap();
        round_trip(&mut stream, b"alive").await;
        assert!(matches!(events.recv().await.unwrap(), PeerEvent::Connected { peer, .. } if peer == bob));

        let start = Instant::now();
        doom.send(end).unwrap();
        let mut room = [0; 1];
        let read = timeout(LONG, stream.read(&mut room)).await.unwrap();
        assert!(start.elapsed() < within, "{listen} {end:?}: noticed after {:?}", start.elapsed());
        assert!(!matches!(read, Ok(n) if n > 0));
        let why = loop {
            if let PeerEvent::Disconnected { why, .. } = timeout(LONG, events.recv()).await.unwrap().unwrap() {
                break why;
            }
        };
        assert!(ann.link(&bob).is_none());
        if (listen, end) == (TCP, End::Silent) {
            assert!(why.contains("nothing was heard from it for 4 s"), "{why}");
            assert!(read.unwrap_err().to_string().contains("nothing was heard"), "the reader is not told why");
        }
        // What listened there is gone or mute: the next open says so in time.
        let start = Instant::now();
        assert_eq!(ann.open(&bob).await.err().unwrap().kind(), Kind::Unreachable);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn an_idle_session_outlives_the_silence_limit() {
    let bob = echoing(2, &[TCP]).await;
    let (ann, _) = node(1, &[]).await;
    ann.dial(&bob.addrs()[0]).await.unwrap();
    let mut stream = ann.open(&bob.id()).await.unwrap();
    round_trip(&mut stream, b"before").await;
    // Nothing happens on the stream: only time can show that nothing ends it.
    tokio::time::sleep(SILENCE_MAX + Duration::from_secs(1)).await;
    round_trip(&mut stream, b"after").await;
    assert!(ann.link(&bob.id()).unwrap().latency.unwrap() < SILENCE_MAX);
}

#[tokio::test]
async fn a_third_node_is_found_through_a_second() {
    let (bob, _b) = node(2, &[TCP]).await;
    let cid = echoing(3, &[TCP]).await;
    let (ann, _a) = node(1, &[TCP]).await;
    let e = ann.find(&cid.id()).await.unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("bootstrap"), "{e}");
    assert_eq!(cid.bootstrap(&bob.addrs()[0]).await.unwrap(), bob.id());
    assert_eq!(ann.bootstrap(&bob.addrs()[0]).await.unwrap(), bob.id());
    let found = ann.find(&cid.id()).await.unwrap();
    assert!(found.contains(&cid.addrs()[0]), "{found:?}");
    round_trip(&mut ann.open(&cid.id()).await.unwrap(), b"found").await;
    assert!(ann.near().iter().any(|n| n.peer == cid.id() && n.connected));
    // One that nobody knows.
    let nobody = PeerId::new("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN");
    assert_eq!(ann.find(&nobody).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_filter_closes_and_keeps_closed() {
    let bob = echoing(2, &[TCP]).await;
    let (ann, _incoming) = node(1, &[TCP]).await;
    let mut events = ann.events();
    ann.dial(&bob.addrs()[0]).await.unwrap();
    let mut stream = ann.open(&bob.id()).await.unwrap();
    round_trip(&mut stream, b"before").await;
    let rule = |allow, pattern: &str| Filter { allow, pattern: pattern.into() };
    assert_eq!(ann.filter(&[rule(false, "moon")]).unwrap_err().kind(), Kind::Invalid);
    round_trip(&mut stream, b"unchanged").await;

    ann.filter(&[rule(false, bob.id().as_str())]).unwrap();
    let mut room = [0; 1];
    assert!(!matches!(timeout(LONG, stream.read(&mut room)).await.unwrap(), Ok(n) if n > 0));
    while !matches!(timeout(LONG, events.recv()).await.unwrap().unwrap(), PeerEvent::Disconnected { .. }) {}
    let e = ann.dial(&bob.addrs()[0]).await.unwrap_err();
    assert!(e.kind() == Kind::Denied && e.to_string().contains("filter"), "{e}");
    let e = bob.dial(&ann.addrs()[0]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unreachable, "{e}");

    ann.filter(&[rule(true, "127.0.0.0/8"), rule(false, "*")]).unwrap();
    round_trip(&mut ann.open(&bob.id()).await.unwrap(), b"again").await;
}

#[tokio::test]
async fn a_hangup_ends_the_streams_and_an_open_dials_again() {
    let bob = echoing(2, &[TCP]).await;
    let (ann, _incoming) = node(1, &[]).await;
    ann.dial(&bob.addrs()[0]).await.unwrap();
    let mut stream = ann.open(&bob.id()).await.unwrap();
    round_trip(&mut stream, b"x").await;
    ann.hangup(&bob.id()).await.unwrap();
    assert!(ann.link(&bob.id()).is_none());
    let mut room = [0; 1];
    assert!(!matches!(timeout(LONG, stream.read(&mut room)).await.unwrap(), Ok(n) if n > 0));
    round_trip(&mut ann.open(&bob.id()).await.unwrap(), b"y").await;
    ann.hangup(&PeerId::new("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")).await.unwrap();
}

#[tokio::test]
async fn opens_at_the_same_time_share_one_connection() {
    let bob = echoing(2, &[TCP]).await;
    let (ann, _incoming) = node(1, &[]).await;
    ann.learn(&bob.id(), &bob.addrs()[0]).unwrap();
    let mut events = bob.events();
    let opens: Vec<_> = (0..20)
        .map(|_| {
            let (ann, bob) = (ann.clone(), bob.id());
            tokio::spawn(async move { ann.open(&bob).await.unwrap() })
        })
        .collect();
    let mut streams = Vec::new();
    for open in opens {
        streams.push(open.await.unwrap());
    }
    for stream in &mut streams {
        round_trip(stream, b"x").await;
    }
    assert!(matches!(events.recv().await.unwrap(), PeerEvent::Connected { .. }));
    ann.hangup(&bob.id()).await.unwrap();
    assert!(matches!(timeout(LONG, events.recv()).await.unwrap().unwrap(), PeerEvent::Disconnected { .. }));
}

#[tokio::test]
async fn when_the_node_is_dropped_its_peers_and_its_acceptor_hear_it() {
    let (bob, mut to_bob) = node(2, &[TCP]).await;
    let (ann, _incoming) = node(1, &[]).await;
    ann.dial(&bob.addrs()[0]).await.unwrap();
    let mut stream = ann.open(&bob.id()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    let held = timeout(LONG, to_bob.next()).await.unwrap().unwrap();
    drop(bob);
    assert!(timeout(LONG, to_bob.next()).await.unwrap().is_none());
    let mut room = [0; 1];
    assert!(!matches!(timeout(LONG, stream.read(&mut room)).await.unwrap(), Ok(n) if n > 0));
    drop(held);
}
