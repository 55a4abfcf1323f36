//! A 100-byte round trip and bulk over two nodes in two threads, beside a raw TCP ping-pong of the same shape: prints the
//! p50 of each and the ratio. Run: cargo bench -p srv-net

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fs_ninep::{Stream, Transport};
use srv_net::{Config, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SIZE: usize = 100;
const WARM: usize = 2_000;
const TRIPS: usize = 20_000;
const BULK: usize = 512 << 20;

fn main() {
    let raw = measure(|addr| Box::pin(async move { Box::new(raw_dial(&addr).await) as Box<dyn Stream> }), serve_raw);
    println!("raw tcp      {raw}");
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let got = measure(|addr| Box::pin(async move { net_dial(&addr).await }), move |tell| serve_net(listen, tell));
        let word = if listen.contains("quic") { "quic" } else { "noise, yamux" };
        println!("{word:12} {got}   round trip {:.2} x raw", got.p50.as_secs_f64() / raw.p50.as_secs_f64());
    }
}

struct Got {
    p50: Duration,
    p99: Duration,
    bulk_mb_s: f64,
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |d: Duration| d.as_secs_f64() * 1e6;
        write!(f, "p50 {:6.1} us  p99 {:6.1} us  bulk {:6.0} MB/s", us(self.p50), us(self.p99), self.bulk_mb_s)
    }
}

type Dialled = std::pin::Pin<Box<dyn Future<Output = Box<dyn Stream>>>>;

fn measure(dial: impl FnOnce(String) -> Dialled, serve: impl FnOnce(mpsc::Sender<String>) + Send + 'static) -> Got {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || serve(tell));
    let addr = told.recv().unwrap();
    runtime().block_on(async {
        let mut stream = dial(addr).await;
        let (out, mut back) = ([7u8; SIZE], [0u8; SIZE]);
        let mut times = Vec::with_capacity(TRIPS);
        for i in 0..WARM + TRIPS {
            let start = Instant::now();
            stream.write_all(&out).await.unwrap();
            stream.flush().await.unwrap();
            stream.read_exact(&mut back).await.unwrap();
            if i >= WARM {
                times.push(start.elapsed());
            }
        }
        times.sort();
        // The end of the trips: a byte that is no echo, then as much as can be sent, then its count.
        stream.write_all(&[0; SIZE]).await.unwrap();
        let (piece, start) = (vec![1u8; 64 << 10], Instant::now());
        for _ in 0..BULK / piece.len() {
            stream.write_all(&piece).await.unwrap();
        }
        stream.flush().await.unwrap();
        stream.read_exact(&mut back[..1]).await.unwrap();
        let bulk_mb_s = BULK as f64 / 1e6 / start.elapsed().as_secs_f64();
        Got { p50: times[TRIPS / 2], p99: times[TRIPS * 99 / 100], bulk_mb_s }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn echo(mut stream: impl Stream) {
    let mut piece = [0u8; SIZE];
    loop {
        stream.read_exact(&mut piece).await.unwrap();
        if piece[0] == 0 {
            break;
        }
        stream.write_all(&piece).await.unwrap();
        stream.flush().await.unwrap();
    }
    let (mut left, mut room) = (BULK, vec![0u8; 128 << 10]);
    while left > 0 {
        left -= stream.read(&mut room).await.unwrap();
    }
    stream.write_all(&[1]).await.unwrap();
    stream.flush().await.unwrap();
    // Until the other side is done with it.
    let _ = stream.read(&mut room).await;
}

async fn raw_dial(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn serve_raw(tell: mpsc::Sender<String>) {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        tell.send(listener.local_addr().unwrap().to_string()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        echo(stream).await;
    });
}

fn config(seed: u8, listen: &[&str]) -> Config {
    let listen = listen.iter().map(|s| s.to_string()).collect();
    Config { listen, mdns: false, ..Config::new([seed; 32]) }
}

async fn net_dial(addr: &str) -> Box<dyn Stream> {
    let (net, _incoming) = Net::start(config(1, &[])).await.unwrap();
    let peer = net.dial(addr).await.unwrap();
    let stream = net.open(&peer).await.unwrap();
    // The connection lives as long as the node; the bench ends with the process.
    std::mem::forget(net);
    stream
}

fn serve_net(listen: &str, tell: mpsc::Sender<String>) {
    runtime().block_on(async {
        let (net, mut incoming) = Net::start(config(2, &[listen])).await.unwrap();
        tell.send(net.addrs()[0].clone()).unwrap();
        let (_, stream) = incoming.next().await.unwrap();
        echo(stream).await;
    });
}
