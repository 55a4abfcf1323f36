//! Two real nodes: each uses the other's tree over one connection; one dies, and comes back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_ninep::{Call, Caller, File, Kind, Limits, Name, OpenFlags, Remote, Result, Transport, Tree};
use fs_tree::{At, Events, Records, Row, Service, dir, stream, value};
use srv_net::{Incoming, Net};
use srv_peers::{Config, Peers, REST_MS};
use tokio::time::timeout;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// What a node shows: a word, and a stream that never says anything.
struct Demo {
    word: &'static str,
    silence: Events,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum D {
    Root,
    Word,
    Live,
}

impl Service for Demo {
    type Q = D;
    const TREE: &'static [Row<D>] =
        &[dir("", D::Root, 0o555), value("word", D::Word, 0o444), stream("live", D::Live, 0o444)];

    fn read<'a>(&'a self, _: &'a At<D>) -> Call<'a, Bytes> {
        Box::pin(std::future::ready(Ok(self.word.into())))
    }

    fn stream(&self, _: &At<D>) -> Result<Box<dyn Records>> {
        Ok(self.silence.subscribe())
    }
}

fn config(seed: u8, listen: &str) -> srv_net::Config {
    srv_net::Config { listen: vec![listen.into()], mdns: false, ..srv_net::Config::new([seed; 32]) }
}

/// A node that shows `word` to whoever connects.
async fn node(seed: u8, listen: &str, word: &'static str) -> Arc<Net> {
    let (net, incoming) = Net::start(config(seed, listen)).await.unwrap();
    let tree = fs_tree::serve(Arc::new(Demo { word, silence: Events::new() }));
    tokio::spawn(serve_all(incoming, tree));
    net
}

async fn serve_all(mut incoming: Incoming, tree: Arc<dyn Tree>) {
    while let Some((peer, stream)) = incoming.next().await {
        tokio::spawn(fs_ninep::serve(stream, tree.clone(), Caller::peer(peer), Limits::default()));
    }
}

fn peers(net: &Arc<Net>, dir: &Path) -> Arc<Peers> {
    Peers::new(net.clone(), Config { path: dir.join("peers") }).unwrap()
}

async fn walk(root: &Arc<dyn File>, path: &str) -> Result<Arc<dyn File>> {
    root.walk(&Name::path(path)?).await.end
}

async fn cat(file: &Arc<dyn File>) -> Result<String> {
    let open = file.open(OpenFlags::RDONLY).await?;
    Ok(String::from_utf8(open.read(0, 4096).await?.to_vec()).unwrap())
}

async fn write(root: &Arc<dyn File>, path: &str, text: String) -> Result<()> {
    let open = walk(root, path).await?.open(OpenFlags::WRONLY).await?;
    open.write(0, text.into()).await.map(drop)
}

#[tokio::test]
async fn each_sees_the_other_over_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let bob = node(2, "/ip4/127.0.0.1/tcp/0", "bob's").await;
    let ann = node(1, "/ip4/127.0.0.1/tcp/0", "ann's").await;
    let of_ann = peers(&ann, dir.path());
    let owner = Caller::owner(0);
    let tree = of_ann.tree().attach(&owner, "").await.unwrap();
    let event = walk(&tree, "event").await.unwrap().open(OpenFlags::RDONLY).await.unwrap();
    write(&tree, "ctl", format!("dial {} bob\n", bob.addrs()[0])).await.unwrap();
    let told = [
        format!("connected\t-\t{}\t{}\tout\n", bob.id(), bob.addrs()[0]),
        format!("named\tbob\t{}\n", bob.id()),
        format!("disconnected\tbob\t{}\tthis node hung up\n", bob.id()),
    ];
    let status = cat(&walk(&tree, "bob/status").await.unwrap()).await.unwrap();
    assert!(
        status.starts_with("connected ") && status.trim_end().ends_with(&format!("dialled at {}", bob.addrs()[0])),
        "{status}"
    );
    let names = of_ann.names().attach(&owner, "").await.unwrap();
    assert_eq!(cat(&walk(&names, "bob/word").await.unwrap()).await.unwrap(), "bob's");

    // Bob follows a capability of ann's, who dialled him: the same connection carries it.
    let back = tempfile::tempdir().unwrap();
    let of_bob = peers(&bob, back.path());
    let mut events = bob.events();
    let root = of_bob.attach(&ann.id(), "").await.unwrap();
    assert_eq!(cat(&walk(&root, "word").await.unwrap()).await.unwrap(), "ann's");
    assert!(events.try_recv().is_err(), "no second connection");
    let tree = of_bob.tree().attach(&owner, "").await.unwrap();
    let stranger = walk(&tree, &format!("{}/status", ann.id())).await.unwrap();
    assert!(cat(&stranger).await.unwrap().contains("it dialled, from"));
    let near = cat(&walk(&of_ann.tree().attach(&owner, "").await.unwrap(), "near").await.unwrap()).await.unwrap();
    assert_eq!(near, format!("{}\t{}\tdial\tbob\tconnected\n", bob.id(), bob.addrs()[0]));

    // A hangup closes the connection for both; ann's tree tells all of it, in order.
    let tree = of_ann.tree().attach(&owner, "").await.unwrap();
    let latency = walk(&tree, "bob/latency").await.unwrap();
    let measured = timeout(LONG, async {
        while cat(&latency).await.unwrap() == "-\n" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    measured.await.unwrap();
    assert!(cat(&latency).await.unwrap().trim().parse::<f64>().unwrap() > 0.0);
    write(&tree, "ctl", "hangup bob\n".into()).await.unwrap();
    assert!(ann.link(&bob.id()).is_none());
    assert!(cat(&walk(&tree, "bob/status").await.unwrap()).await.unwrap().starts_with("hungup "));
    let mut got = String::new();
    while got.len() < told.concat().len() {
        got += std::str::from_utf8(&timeout(LONG, event.read(0, 4096)).await.unwrap().unwrap()).unwrap();
    }
    assert_eq!(got, told.concat());
}

#[tokio::test]
async fn another_key_than_the_address_names_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bob = node(2, "/ip4/127.0.0.1/tcp/0", "bob's").await;
    let ann = node(1, "/ip4/127.0.0.1/tcp/0", "ann's").await;
    let of_ann = peers(&ann, dir.path());
    let tree = of_ann.tree().attach(&Caller::owner(0), "").await.unwrap();
    let addr = bob.addrs()[0].replace(bob.id().as_str(), "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN");
    let e = write(&tree, "ctl", format!("dial {addr} bob\n")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Denied);
    let told = cat(&walk(&tree, "error").await.unwrap()).await.unwrap();
    assert!(told.contains(bob.id().as_str()) && of_ann.lookup("bob").is_none(), "{told}");
}

/// How the other node ends.
#[derive(Debug)]
enum End {
    /// Its sockets close, as when it is killed.
    Killed,
    /// It says nothing any more, as when its machine is gone.
    Silent,
}

/// A node on a thread and runtime of its own, which ends as told.
fn doomed(listen: &str, word: &'static str) -> (String, tokio::sync::oneshot::Sender<End>) {
    let listen = listen.to_owned();
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let how = runtime.block_on(async {
            let net = node(2, &listen, word).await;
            tell.send(net.addrs()[0].clone()).unwrap();
            ended.await.unwrap()
        });
        match how {
            End::Killed => runtime.shutdown_background(),
            End::Silent => std::mem::forget(runtime),
        }
    });
    (told.recv().unwrap(), end)
}

#[tokio::test]
async fn a_peer_dies_under_ls_and_read_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let ann = node(1, "/ip4/127.0.0.1/tcp/0", "ann's").await;
    let of_ann = peers(&ann, dir.path());
    let owner = Caller::owner(0);
    let tree = of_ann.tree().attach(&owner, "").await.unwrap();
    let names = of_ann.names().attach(&owner, "").await.unwrap();
    let status = || async { cat(&walk(&tree, "bob/status").await.unwrap()).await.unwrap() };

    let (addr, doom) = doomed("/ip4/127.0.0.1/tcp/0", "first");
    write(&tree, "ctl", format!("dial {addr} bob\n")).await.unwrap();
    let root = walk(&names, "bob").await.unwrap();
    let word = walk(&root, "word").await.unwrap();
    assert_eq!(cat(&word).await.unwrap(), "first");

    let (reading, start) = (read_live(&root).await, Instant::now());
    doom.send(End::Killed).unwrap();
    let e = timeout(LONG, reading).await.unwrap().unwrap().unwrap_err();
    assert!(
        e.kind() == Kind::Unreachable && start.elapsed() < Duration::from_secs(1),
        "{e} after {:?}",
        start.elapsed()
    );
    assert_eq!(word.getattr().await.unwrap_err().kind(), Kind::Unreachable);
    let told = status().await;
    assert!(told.starts_with("unreachable ") && told.contains("connection refused"), "{told}");

    // Another process at the same address: what was walked to before is good again, without a command.
    let (_, doom) = doomed(addr.rsplit_once("/p2p/").unwrap().0, "second");
    tokio::time::sleep(Duration::from_millis(REST_MS)).await;
    assert_eq!(cat(&word).await.unwrap(), "second");
    assert!(status().await.starts_with("connected "));

    let (reading, start) = (read_live(&root).await, Instant::now());
    doom.send(End::Silent).unwrap();
    let listing = tokio::spawn(async move { word.getattr().await });
    for call in [
        tokio::spawn(async { reading.await.unwrap().map(drop) }),
        tokio::spawn(async { listing.await.unwrap().map(drop) }),
    ] {
        assert_eq!(timeout(LONG, call).await.unwrap().unwrap().unwrap_err().kind(), Kind::Unreachable);
        assert!(start.elapsed() < Duration::from_secs(5), "noticed after {:?}", start.elapsed());
    }
    let told = status().await;
    assert!(told.starts_with("lost ") && told.contains("nothing was heard from it for 4 s"), "{told}");
}

/// A read that waits on the other node.
async fn read_live(root: &Arc<dyn File>) -> tokio::task::JoinHandle<Result<Bytes>> {
    let live = walk(root, "live").await.unwrap().open(OpenFlags::RDONLY).await.unwrap();
    let reading = tokio::spawn(async move { live.read(0, 100).await });
    tokio::task::yield_now().await;
    reading
}
