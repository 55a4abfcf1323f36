//! The wire against what the machine can do: loopback TCP, a server thread and a client thread, each a current_thread
//! runtime. Each figure stands beside the same traffic on bare sockets, measured in the same run.
//!
//! `cargo bench -p fs-ninep`; a machine's noise is 2 to 4 times, so read the ratios and the CPU time.

use std::any::Any;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Caller, Client, ClientConfig, File, Limits, Name, OpenFile, OpenFlags, Qid, QidType, Result, ServerId,
    Tree, Walk,
};
use futures::stream::{FuturesUnordered, StreamExt};

/// Bytes of one read: the payload of the default msize.
const BLOCK: usize = 128 * 1024;
/// How long each figure is taken for.
const SPAN: Duration = Duration::from_millis(1500);
/// Each figure is the best of this many.
const ROUNDS: usize = 3;

/// A tree of one file, whose content is one block over and over.
#[derive(Clone)]
struct One(Bytes, ServerId);

const QID: Qid = Qid { ty: QidType::FILE, version: 1, path: 1 };

impl Tree for One {
    fn attach<'a>(&'a self, _: &'a Caller, _: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async { Ok(Arc::new(self.clone()) as Arc<dyn File>) })
    }
}

impl File for One {
    fn server(&self) -> ServerId {
        self.1
    }

    fn qid(&self) -> Qid {
        QID
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, _: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(async { Walk { qids: vec![], end: Ok(Arc::new(self.clone())) } })
    }

    fn getattr(&self) -> Call<'_, Attr> {
        Box::pin(async { Ok(Attr { qid: QID, mode: 0o100644, nlink: 1, ..Attr::default() }) })
    }

    fn open(&self, _: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        Box::pin(async { Ok(Arc::new(self.clone()) as Arc<dyn OpenFile>) })
    }
}

impl OpenFile for One {
    fn read(&self, _: u64, count: u32) -> Call<'_, Bytes> {
        let data = self.0.slice(..self.0.len().min(count as usize));
        Box::pin(async { Ok(data) })
    }
}

/// What one round came to.
#[derive(Clone, Copy)]
struct Figure {
    per_second: f64,
    client_us: f64,
    server_us: f64,
}

/// CPU time of this thread, in microseconds.
fn cpu_us() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is valid for the write that the call makes.
    let ok = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    assert_eq!(ok, 0);
    t.tv_sec as f64 * 1e6 + t.tv_nsec as f64 / 1e3
}

/// Takes the best of several rounds: `client` does operations until told and counts them, beside a server thread.
fn best(server: impl Fn(TcpListener) + Send + Clone + 'static, client: impl Fn(SocketAddr, Instant) -> u64) -> Figure {
    let round = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = server.clone();
        let server = thread::spawn(move || {
            server(listener);
            cpu_us()
        });
        let (start, cpu) = (Instant::now(), cpu_us());
        let count = client(addr, start + SPAN) as f64;
        let (took, client_us) = (start.elapsed().as_secs_f64(), cpu_us() - cpu);
        let server_us = server.join().unwrap();
        Figure { per_second: count / took, client_us: client_us / count, server_us: server_us / count }
    };
    let rounds: Vec<Figure> = (0..ROUNDS).map(|_| round()).collect();
    rounds.into_iter().max_by(|a, b| a.per_second.total_cmp(&b.per_second)).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn serve_one(listener: TcpListener) {
    runtime().block_on(async {
        let stream = listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let tree = Arc::new(One(Bytes::from(vec![7; BLOCK]), ServerId::fresh()));
        fs_ninep::serve(stream, tree, Caller::none(), Limits::default()).await.unwrap();
    });
}

async fn attach(addr: SocketAddr) -> Arc<dyn File> {
    let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let client = Client::connect(stream, ClientConfig::default()).await.unwrap();
    client.attach("me", "").await.unwrap()
}

/// Keeps `depth` calls under way until the time is over.
async fn keep<'a, T>(depth: usize, until: Instant, call: impl Fn() -> Call<'a, T>) -> u64 {
    let mut calls: FuturesUnordered<_> = (0..depth).map(|_| call()).collect();
    let mut count = 0;
    while let Some(done) = calls.next().await {
        done.unwrap();
        count += 1;
        if Instant::now() < until {
            calls.push(call());
        }
    }
    count
}

fn getattr(depth: usize) -> Figure {
    best(serve_one, |addr, until| {
        runtime().block_on(async {
            let root = attach(addr).await;
            keep(depth, until, || root.getattr()).await
        })
    })
}

fn read(depth: usize) -> Figure {
    best(serve_one, |addr, until| {
        runtime().block_on(async {
            let open = attach(addr).await.open(OpenFlags::RDONLY).await.unwrap();
            keep(depth, until, || open.read(0, BLOCK as u32)).await
        })
    })
}

/// The same bytes both ways as a getattr: 19 asked, 160 answered, on blocking sockets.
fn ping_pong() -> Figure {
    let server = |listener: TcpListener| {
        let mut stream = listener.accept().unwrap().0;
        stream.set_nodelay(true).unwrap();
        let (mut ask, answer) = ([0; 19], [0; 160]);
        while stream.read_exact(&mut ask).is_ok() {
            stream.write_all(&answer).unwrap();
        }
    };
    best(server, |addr, until| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        let (ask, mut answer, mut count) = ([0; 19], [0; 160], 0);
        while Instant::now() < until {
            stream.write_all(&ask).unwrap();
            stream.read_exact(&mut answer).unwrap();
            count += 1;
        }
        count
    })
}

/// Blocks one way as fast as they go, on blocking sockets.
fn stream() -> Figure {
    let server = |listener: TcpListener| {
        let mut stream = listener.accept().unwrap().0;
        let block = vec![7; BLOCK];
        while stream.write_all(&block).is_ok() {}
    };
    best(server, |addr, until| {
        let mut stream = TcpStream::connect(addr).unwrap();
        let (mut block, mut count) = (vec![0; BLOCK], 0);
        while Instant::now() < until {
            stream.read_exact(&mut block).unwrap();
            count += 1;
        }
        count
    })
}

fn main() -> Result<()> {
    let bare = ping_pong();
    println!("{:<28}{:>12}{:>10}{:>14}{:>14}", "", "per second", "of bare", "client us/op", "server us/op");
    let row = |name: &str, f: Figure, bare: f64| {
        let Figure { per_second, client_us, server_us } = f;
        println!("{name:<28}{per_second:>12.0}{:>9.2}x{client_us:>14.2}{server_us:>14.2}", per_second / bare);
    };
    row("bare ping-pong", bare, bare.per_second);
    for depth in [1, 64] {
        row(&format!("getattr, {depth} under way"), getattr(depth), bare.per_second);
    }
    let bare = stream();
    let gb = BLOCK as f64 / 1e9;
    println!("{:<28}{:>12}{:>10}{:>14}{:>14}", "", "GB/s", "of bare", "client s/GB", "server s/GB");
    let row = |name: &str, f: Figure| {
        let (rate, ratio) = (f.per_second * gb, f.per_second / bare.per_second);
        let (client, server) = (f.client_us / 1e6 / gb, f.server_us / 1e6 / gb);
        println!("{name:<28}{rate:>12.2}{ratio:>9.2}x{client:>14.3}{server:>14.3}");
    };
    row("bare stream", bare);
    for depth in [1, 4, 16] {
        row(&format!("read of 128 KiB, {depth} under way"), read(depth));
    }
    Ok(())
}
