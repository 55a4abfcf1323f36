//! A remote file looked at, walked to and read: over two nodes in two threads, through n/ as a mount uses it, beside a raw
//! TCP ping-pong of 100 bytes. Prints the p50 of each and its ratio. Run: cargo bench -p srv-peers

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_ninep::{Call, Caller, File, Limits, Name, OpenFlags, Transport};
use fs_tree::{At, Row, Service, dir, value};
use srv_net::Net;
use srv_peers::{Config, Peers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TRIPS: usize = 10_000;
const WARM: usize = 1_000;

struct Demo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum D {
    Root,
    Word,
}

impl Service for Demo {
    type Q = D;
    const TREE: &'static [Row<D>] = &[dir("", D::Root, 0o555), value("word", D::Word, 0o444)];

    fn read<'a>(&'a self, _: &'a At<D>) -> Call<'a, Bytes> {
        Box::pin(std::future::ready(Ok("a word\n".into())))
    }
}

fn main() {
    let raw = runtime().block_on(raw());
    println!("raw tcp, 100 bytes     p50 {:6.1} us", us(raw));
    runtime().block_on(remote(raw));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn us(d: Duration) -> f64 {
    d.as_secs_f64() * 1e6
}

async fn p50<F: Future>(mut trip: impl FnMut() -> F) -> Duration {
    let mut times = Vec::with_capacity(TRIPS);
    for i in 0..WARM + TRIPS {
        let start = Instant::now();
        trip().await;
        if i >= WARM {
            times.push(start.elapsed());
        }
    }
    times.sort();
    times[TRIPS / 2]
}

async fn raw() -> Duration {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut piece = [0; 100];
            while stream.read_exact(&mut piece).await.is_ok() {
                stream.write_all(&piece).await.unwrap();
            }
        });
    });
    let stream = TcpStream::connect(told.recv().unwrap()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let stream = tokio::sync::Mutex::new(stream);
    p50(|| async {
        let (mut stream, mut piece) = (stream.lock().await, [0; 100]);
        stream.write_all(&piece).await.unwrap();
        stream.read_exact(&mut piece).await.unwrap();
    })
    .await
}

async fn remote(raw: Duration) {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || runtime().block_on(serve(tell)));
    let config = srv_net::Config { listen: Vec::new(), mdns: false, ..srv_net::Config::new([1; 32]) };
    let (net, _incoming) = Net::start(config).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let peers = Peers::new(net.clone(), Config { path: home.path().join("peers") }).unwrap();
    let peer = net.dial(&told.recv().unwrap()).await.unwrap();
    let names = peers.names().attach(&Caller::owner(0), "").await.unwrap();
    let walk = |path: &str| Name::path(path).unwrap();
    let root = names.walk(&walk(peer.as_str())).await.end.unwrap();
    let word = root.walk(&walk("word")).await.end.unwrap();
    let names = walk("word");
    let print = |what: &str, took: Duration| {
        println!("{what:22} p50 {:6.1} us   {:.2} x raw", us(took), took.as_secs_f64() / raw.as_secs_f64());
    };
    print("getattr", p50(|| async { word.getattr().await.unwrap() }).await);
    print("walk with attributes", p50(|| async { root.walk_getattr(&names).await.map(drop).unwrap() }).await);
    print("open, read, close", p50(|| read(&word)).await);
}

async fn read(word: &Arc<dyn File>) {
    let open = word.open(OpenFlags::RDONLY).await.unwrap();
    assert_eq!(open.read(0, 4096).await.unwrap().len(), 7);
}

async fn serve(tell: mpsc::Sender<String>) {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    let config = srv_net::Config { listen, mdns: false, ..srv_net::Config::new([2; 32]) };
    let (net, mut incoming) = Net::start(config).await.unwrap();
    tell.send(net.addrs()[0].clone()).unwrap();
    let tree = fs_tree::serve(Arc::new(Demo));
    while let Some((peer, stream)) = incoming.next().await {
        tokio::spawn(fs_ninep::serve(stream, tree.clone(), Caller::peer(peer), Limits::default()));
    }
}
