//! Bytes that are no 9P, at a node's socket and over libp2p: refused or hung up on, and the node goes on.

use std::path::Path;
use std::time::Duration;

use fs_ninep::{PeerId, Stream, Transport};
use srv_net::{Config, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{FAULT, play};
use crate::Verdict;

tests!(
    frames_of_every_bad_kind_at_the_socket_and_from_a_peer,
    a_connection_that_asks_for_too_much_is_refused_and_disturbs_no_other,
);

const MSIZE: u32 = 65_536;
const LINUX: &str = "9P2000.L";

/// What a server does about a frame.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// It hangs up.
    Closed,
    /// An Rlerror with this errno, and the connection lives.
    Refused(u32),
    /// A reply of this type.
    Replied(u8),
}
use Done::{Closed, Refused, Replied};

/// Each after a Tversion and an attach of fid 0, on a connection of its own.
#[rustfmt::skip]
const FRAMES: &[(&str, &[u8], Done)] = &[
    ("a size under 7",             &[6, 0, 0, 0, 120, 1],                               Closed),
    ("a size of nothing",          &[0, 0, 0, 0],                                       Closed),
    ("a size of 4 GiB",            &[0xff, 0xff, 0xff, 0xff, 120, 1, 0],                Closed),
    ("a size over msize",          &[1, 0, 1, 0, 120, 1, 0],                            Closed),
    ("an Rflush",                  &[7, 0, 0, 0, 109, 1, 0],                            Closed),
    ("an Rread that counts 4 GiB", &[11, 0, 0, 0, 117, 1, 0, 0xff, 0xff, 0xff, 0xff],   Closed),
    ("NOTAG out of Tversion",      &[11, 0, 0, 0, 120, 0xff, 0xff, 1, 0, 0, 0],         Closed),
    ("a fid of two bytes",         &[9, 0, 0, 0, 120, 5, 0, 1, 0],                      Refused(71)),
    ("a byte too many",            &[12, 0, 0, 0, 120, 5, 0, 1, 0, 0, 0, 9],            Refused(71)),
    ("a name past the frame",      &[19, 0, 0, 0, 110, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0xff, 0xff], Refused(71)),
    ("17 names",                   &[17, 0, 0, 0, 110, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 17, 0], Refused(71)),
    ("a name that is no UTF-8",    &[21, 0, 0, 0, 110, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0, 0xff, 0xfe], Refused(2)),
    ("a slash in a name",          &[22, 0, 0, 0, 110, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 3, 0, b'a', b'/', b'b'], Refused(22)),
    ("a type nobody knows",        &[7, 0, 0, 0, 98, 5, 0],                             Refused(95)),
    ("9P2000's Topen",             &[12, 0, 0, 0, 112, 5, 0, 0, 0, 0, 0, 0],            Refused(95)),
    ("a fid nobody made",          &[11, 0, 0, 0, 120, 5, 0, 7, 0, 0, 0],               Refused(9)),
    ("a flush of nothing",         &[9, 0, 0, 0, 108, 5, 0, 77, 0],                     Replied(109)),
    ("a Tversion of msize 1",      &[21, 0, 0, 0, 100, 0xff, 0xff, 1, 0, 0, 0, 8, 0, b'9', b'P', b'2', b'0', b'0', b'0', b'.', b'L'], Closed),
];

/// One 9P connection, spoken by hand.
struct Line(Box<dyn Stream>);

/// A frame: type, tag, body.
fn frame(ty: u8, tag: u16, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 7).unwrap();
    [&size.to_le_bytes()[..], &[ty], &tag.to_le_bytes(), body].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

fn version(msize: u32, version: &str) -> Vec<u8> {
    frame(100, 0xffff, &[&msize.to_le_bytes()[..], &string(version)].concat())
}

/// Tattach of fid 0 as Linux sends it.
fn attach() -> Vec<u8> {
    frame(104, 1, &[&[0; 4][..], &[0xff; 4], &string(""), &string(""), &[0xff; 4]].concat())
}

fn walk(tag: u16, fid: u32, newfid: u32, names: &[&str]) -> Vec<u8> {
    let count = (names.len() as u16).to_le_bytes();
    let names: Vec<u8> = names.iter().flat_map(|n| string(n)).collect();
    frame(110, tag, &[&fid.to_le_bytes()[..], &newfid.to_le_bytes(), &count, &names].concat())
}

fn read(tag: u16, fid: u32) -> Vec<u8> {
    frame(116, tag, &[&fid.to_le_bytes()[..], &[0; 8], &100u32.to_le_bytes()].concat())
}

impl Line {
    async fn socket(path: &Path) -> Line {
        Line(Box::new(UnixStream::connect(path).await.unwrap()))
    }

    async fn send(&mut self, bytes: &[u8]) {
        // Where it has hung up already the answer tells.
        let _ = timeout(FAULT, self.0.write_all(bytes)).await.expect("it takes requests");
        let _ = timeout(FAULT, self.0.flush()).await.expect("it takes requests");
    }

    /// Type, tag and body of the next answer; none when it has hung up.
    async fn answer(&mut self) -> Option<(u8, u16, Vec<u8>)> {
        let mut head = [0; 7];
        let got = timeout(FAULT, self.0.read_exact(&mut head)).await.expect("an answer, or a hangup");
        got.ok()?;
        let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let mut body = vec![0; size as usize - 7];
        let got = timeout(FAULT, self.0.read_exact(&mut body)).await.expect("a whole answer");
        got.ok()?;
        Some((head[4], u16::from_le_bytes([head[5], head[6]]), body))
    }

    async fn done(&mut self) -> Done {
        match self.answer().await {
            None => Closed,
            Some((7, _, body)) => Refused(u32::from_le_bytes(body[..4].try_into().unwrap())),
            Some((ty, ..)) => Replied(ty),
        }
    }

    /// Greets and attaches.
    async fn greet(&mut self) {
        self.send(&version(MSIZE, LINUX)).await;
        assert_eq!(self.done().await, Replied(101));
        self.send(&attach()).await;
        assert_eq!(self.done().await, Replied(105));
    }
}

/// Random frames of types that are known, from a seed.
fn noise(seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |n: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % n
    };
    let types = [110, 12, 116, 118, 120, 108, 24, 40, 14, 72, 74, 76, 122, 26, 50, 20, 70, 16, 128];
    let mut out = Vec::new();
    for _ in 0..200 {
        let body: Vec<u8> = (0..next(40)).map(|_| if next(3) == 0 { next(256) as u8 } else { next(3) as u8 }).collect();
        out.extend(frame(types[next(types.len() as u64) as usize], next(500) as u16, &body));
    }
    out
}

/// Everything of the table, what may come before a session, and noise, on connections that `open` makes.
async fn hostile(mut open: impl AsyncFnMut() -> Line) {
    for (what, bytes, done) in FRAMES {
        let mut line = open().await;
        line.greet().await;
        line.send(bytes).await;
        assert_eq!(line.done().await, *done, "{what}");
        if *done != Closed {
            line.send(&walk(6, 0, 9, &[])).await;
            assert_eq!(line.done().await, Replied(111), "after {what}");
        }
    }
    let mut early = open().await;
    early.send(&attach()).await;
    assert_eq!(early.done().await, Closed, "an attach before Tversion");
    let mut junk = open().await;
    junk.send(&version(MSIZE, "10P")).await;
    assert_eq!(junk.answer().await.unwrap().2, [&MSIZE.to_le_bytes()[..], &string("unknown")].concat());
    junk.send(&attach()).await;
    assert_eq!(junk.done().await, Closed, "an attach after a version nobody knows");
    let mut plain = open().await;
    plain.send(&version(MSIZE, "9P2000")).await;
    assert_eq!(plain.done().await, Replied(101));
    plain.send(&frame(104, 1, &[&[0; 4][..], &[0xff; 4], &string(""), &string("")].concat())).await;
    assert_eq!(plain.done().await, Replied(105));
    plain.send(&frame(110, 5, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0, 0xff, 0xfe])).await;
    assert_eq!(plain.done().await, Replied(107), "a name that is no UTF-8, in 9P2000");
    let mut slow = open().await;
    for byte in [version(MSIZE, LINUX), attach()].concat() {
        slow.send(&[byte]).await;
    }
    assert_eq!((slow.done().await, slow.done().await), (Replied(101), Replied(105)), "a byte at a time");
    for seed in 1..=20 {
        let mut line = open().await;
        line.greet().await;
        line.send(&noise(seed)).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn frames_of_every_bad_kind_at_the_socket_and_from_a_peer() -> Verdict {
    play(|s| {
        let bob = s.stage.path("bob/9p.sock");
        runtime().block_on(hostile(async || Line::socket(&bob).await));
        let ann = s.stage.addr.clone();
        runtime().block_on(async {
            let config = Config { listen: Vec::new(), mdns: false, ..Config::new([7; 32]) };
            let (net, _incoming) = Net::start(config).await.unwrap();
            let peer: PeerId = net.dial(&ann).await.unwrap();
            hostile(async || Line(net.open(&peer).await.unwrap())).await;
        });
        assert_eq!(s.ok("cat self/status $A/self/status | grep state"), "state running\nstate running");
        s.ok("echo dial $ANN ann >peers/ctl; ls n/ann");
        assert_eq!((s.stage.ann.log(), s.stage.bob.log()), (String::new(), String::new()));
    })
}

/// Fids of one connection, and reads of it that wait, by intro(5).
const FIDS_MAX: u32 = 65_536;
const PARKED_MAX: u16 = 16_384;

fn a_connection_that_asks_for_too_much_is_refused_and_disturbs_no_other() -> Verdict {
    play(|s| {
        let bob = s.stage.path("bob/9p.sock");
        runtime().block_on(async {
            // A fid more than there may be; fid 0 is the first of them.
            let mut line = Line::socket(&bob).await;
            line.greet().await;
            for first in (1..=FIDS_MAX).step_by(1024) {
                let all: Vec<u8> = (first..first + 1024).flat_map(|fid| walk(2, 0, fid, &[])).collect();
                // One tag at a time may wait: each walk has its own.
                let tagged = all.chunks_exact(17).zip(2u16..).flat_map(|(walk, tag)| {
                    let mut walk = walk.to_vec();
                    walk[5..7].copy_from_slice(&tag.to_le_bytes());
                    walk
                });
                let tagged: Vec<u8> = tagged.collect();
                line.send(&tagged).await;
                for fid in first..first + 1024 {
                    let expected = if fid < FIDS_MAX { Replied(111) } else { Refused(24) };
                    assert_eq!(line.done().await, expected, "fid {fid}");
                }
            }

            // More reads that wait than there may be; flushes are obeyed all the same, thousands of them.
            let mut line = Line::socket(&bob).await;
            line.greet().await;
            line.send(&walk(2, 0, 1, &["event"])).await;
            assert_eq!(line.done().await, Replied(111));
            line.send(&frame(12, 2, &[1, 0, 0, 0, 0, 0, 0, 0])).await;
            assert_eq!(line.done().await, Replied(13));
            let reads: Vec<u8> = (0..PARKED_MAX + 100).flat_map(|n| read(100 + n, 1)).collect();
            line.send(&reads).await;
            for _ in 0..100 {
                assert_eq!(line.done().await, Refused(11));
            }
            let flushes: Vec<u8> =
                (0..PARKED_MAX).flat_map(|n| frame(108, 40_000 + n, &(100 + n).to_le_bytes())).collect();
            line.send(&flushes).await;
            for _ in 0..PARKED_MAX {
                assert_eq!(line.done().await, Replied(109));
            }
            // A tag in use.
            line.send(&[read(9, 1), read(9, 1)].concat()).await;
            assert_eq!(line.done().await, Closed);

            // Answers that nobody reads: at their limit nothing more is taken, and others are served.
            let mut deaf = Line::socket(&bob).await;
            deaf.greet().await;
            let burst: Vec<u8> =
                (0..4096).flat_map(|n| frame(24, n, &[0, 0, 0, 0, 0xff, 7, 0, 0, 0, 0, 0, 0])).collect();
            let mut sent = 0;
            while timeout(Duration::from_secs(1), deaf.0.write_all(&burst)).await.is_ok_and(|sent| sent.is_ok()) {
                sent += burst.len();
                assert!(sent < 64 << 20, "{sent} bytes of requests taken, and no answer read");
            }
            let mut line = Line::socket(&bob).await;
            line.greet().await;
        });
        assert_eq!(s.ok("grep state self/status; cat cpu/bob/info | head -n 1"), "state running\nnode bob");
    })
}
