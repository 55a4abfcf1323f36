//! peers/ and n/ over pipes: verbs and their refusals, one session a peer, loss and renewal, persistence.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_host::{Host, HostConfig};
use fs_ninep::{
    Call, Caller, Error, File, Filter, Kind, Limits, Name, OpenFile, OpenFlags, PeerId, Remote, Result, Stream,
    Transport, Tree,
};
use fs_tree::{At, Events, Records, Row, Service, dir, stream, value};
use srv_peers::{Config, NAMES, Peers, REST_MS, TREE};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};
use tokio::time::timeout;

const ME: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
const ANN: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
const BOB: &str = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq";
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// How a peer behaves.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Up,
    /// Refuses connections.
    Down,
    /// Accepts them and says nothing.
    Mute,
}

struct Machine {
    tree: Arc<dyn Tree>,
    mood: Mood,
    /// The tasks that serve; aborting one cuts its connection.
    served: Vec<tokio::task::AbortHandle>,
    /// The far ends of mute connections.
    held: Vec<tokio::io::DuplexStream>,
}

/// A transport of pipes. An address is `pipe/p2p/ID`, or `pipe/NAME`.
#[derive(Default)]
struct Pipes {
    hosts: Mutex<HashMap<PeerId, Machine>>,
    opens: AtomicUsize,
    trips: Arc<AtomicUsize>,
    known: Mutex<HashMap<PeerId, Vec<String>>>,
    filters: Mutex<Vec<Filter>>,
}

impl Pipes {
    fn host(&self, id: &str, tree: Arc<dyn Tree>) {
        let host = Machine { tree, mood: Mood::Up, served: Vec::new(), held: Vec::new() };
        self.hosts.lock().unwrap().insert(PeerId::new(id), host);
    }

    fn set(&self, id: &str, mood: Mood) {
        self.hosts.lock().unwrap().get_mut(&PeerId::new(id)).unwrap().mood = mood;
    }

    /// Cuts every connection with `id`.
    fn cut(&self, id: &str) {
        let mut hosts = self.hosts.lock().unwrap();
        let host = hosts.get_mut(&PeerId::new(id)).unwrap();
        host.held.clear();
        host.served.drain(..).for_each(|s| s.abort());
    }

    fn opens(&self) -> usize {
        self.opens.load(Ordering::SeqCst)
    }

    fn trips(&self) -> usize {
        self.trips.load(Ordering::SeqCst)
    }
}

impl Transport for Pipes {
    fn id(&self) -> PeerId {
        PeerId::new(ME)
    }

    fn addrs(&self) -> Vec<String> {
        vec![format!("pipe/p2p/{ME}")]
    }

    fn dial<'a>(&'a self, addr: &'a str) -> Call<'a, PeerId> {
        let id = PeerId::new(addr.rsplit('/').next().unwrap());
        let found = match self.hosts.lock().unwrap().get(&id) {
            _ if !addr.starts_with("pipe/") => {
                Err(Error::new(Kind::Invalid, format!("{addr:?} is no address to dial")))
            }
            Some(host) if host.mood != Mood::Down => Ok(id.clone()),
            _ => Err(Error::new(Kind::Unreachable, format!("{addr}: connection refused"))),
        };
        if found.is_ok() {
            self.learn(&id, addr).unwrap();
        }
        Box::pin(std::future::ready(found))
    }

    fn open<'a>(&'a self, peer: &'a PeerId) -> Call<'a, Box<dyn Stream>> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            // As a dial does, it takes a moment: others come meanwhile.
            tokio::task::yield_now().await;
            let mut hosts = self.hosts.lock().unwrap();
            let down = || Error::new(Kind::Refused, "connection refused");
            let host = hosts.get_mut(peer).filter(|h| h.mood != Mood::Down).ok_or_else(down)?;
            let (near, far) = duplex(1 << 16);
            if host.mood == Mood::Mute {
                host.held.push(far);
            } else {
                let serve = fs_ninep::serve(far, host.tree.clone(), Caller::peer(self.id()), Limits::default());
                host.served.push(tokio::spawn(serve).abort_handle());
            }
            Ok(Box::new(Counted { stream: near, trips: self.trips.clone(), heard: true }) as Box<dyn Stream>)
        })
    }

    fn known(&self, peer: &PeerId) -> Vec<String> {
        self.known.lock().unwrap().get(peer).cloned().unwrap_or_default()
    }

    fn learn(&self, peer: &PeerId, addr: &str) -> Result<()> {
        let mut known = self.known.lock().unwrap();
        let addrs = known.entry(peer.clone()).or_default();
        addrs.retain(|a| a != addr);
        addrs.insert(0, addr.into());
        Ok(())
    }

    fn hangup<'a>(&'a self, peer: &'a PeerId) -> Call<'a, ()> {
        if self.hosts.lock().unwrap().contains_key(peer) {
            self.cut(peer.as_str());
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn find<'a>(&'a self, peer: &'a PeerId) -> Call<'a, Vec<String>> {
        let known = self.known(peer);
        let none = || Error::new(Kind::NotFound, format!("{peer}: nobody that was asked knows it"));
        Box::pin(std::future::ready(if known.is_empty() { Err(none()) } else { Ok(known) }))
    }

    fn bootstrap<'a>(&'a self, addr: &'a str) -> Call<'a, PeerId> {
        self.dial(addr)
    }

    fn filter(&self, rules: &[Filter]) -> Result<()> {
        if let Some(bad) = rules.iter().find(|r| r.pattern == "moon") {
            return Err(Error::new(Kind::Invalid, format!("{:?} is no pattern", bad.pattern)));
        }
        *self.filters.lock().unwrap() = rules.to_vec();
        Ok(())
    }
}

/// Counts the times it is written to after it was read: the round trips.
struct Counted {
    stream: tokio::io::DuplexStream,
    trips: Arc<AtomicUsize>,
    heard: bool,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard |= read.is_ready();
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        if std::mem::replace(&mut self.heard, false) {
            self.trips.fetch_add(1, Ordering::SeqCst);
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a peer shows: a word, and a stream that never says anything.
struct Demo {
    word: &'static str,
    silence: Events,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum D {
    Root,
    Word,
    Live,
    Sub,
    Deep,
}

impl Service for Demo {
    type Q = D;
    #[rustfmt::skip]
    const TREE: &'static [Row<D>] = &[
        dir   ("",         D::Root, 0o555),
        value ("word",     D::Word, 0o444),
        stream("live",     D::Live, 0o444),
        dir   ("sub",      D::Sub,  0o555),
        value ("sub/deep", D::Deep, 0o444),
    ];

    fn read<'a>(&'a self, _: &'a At<D>) -> Call<'a, Bytes> {
        Box::pin(std::future::ready(Ok(self.word.into())))
    }

    fn stream(&self, _: &At<D>) -> Result<Box<dyn Records>> {
        Ok(self.silence.subscribe())
    }
}

fn demo(word: &'static str) -> Arc<dyn Tree> {
    fs_tree::serve(Arc::new(Demo { word, silence: Events::new() }))
}

struct Rig {
    pipes: Arc<Pipes>,
    peers: Arc<Peers>,
    tree: Arc<dyn File>,
    names: Arc<dyn File>,
    dir: tempfile::TempDir,
}

fn start(pipes: &Arc<Pipes>, dir: &Path) -> Result<Arc<Peers>> {
    Peers::new(pipes.clone(), Config { path: dir.join("peers") })
}

/// This node, and ann who is up and shows the word.
async fn rig(word: &'static str) -> Rig {
    let pipes = Arc::new(Pipes::default());
    pipes.host(ANN, demo(word));
    pipes.host(BOB, demo("bob"));
    let dir = tempfile::tempdir().unwrap();
    let peers = start(&pipes, dir.path()).unwrap();
    let owner = Caller::owner(0);
    let tree = peers.tree().attach(&owner, "").await.unwrap();
    let names = peers.names().attach(&owner, "").await.unwrap();
    Rig { pipes, peers, tree, names, dir }
}

async fn walk(root: &Arc<dyn File>, path: &str) -> Result<Arc<dyn File>> {
    root.walk(&Name::path(path).unwrap()).await.end
}

async fn write(root: &Arc<dyn File>, path: &str, text: &str) -> Result<()> {
    let open = walk(root, path).await?.open(OpenFlags::WRONLY).await?;
    open.write(0, text.to_owned().into()).await?;
    open.flush().await
}

async fn cat_file(file: &Arc<dyn File>) -> Result<String> {
    let open = file.open(OpenFlags::RDONLY).await?;
    let mut text = Vec::new();
    loop {
        let part = open.read(text.len() as u64, 4096).await?;
        if part.is_empty() {
            return Ok(String::from_utf8(text).unwrap());
        }
        text.extend_from_slice(&part);
    }
}

async fn cat(root: &Arc<dyn File>, path: &str) -> Result<String> {
    cat_file(&walk(root, path).await?).await
}

async fn ls(root: &Arc<dyn File>, path: &str) -> Result<Vec<String>> {
    let open = walk(root, path).await?.open(OpenFlags(OpenFlags::DIRECTORY)).await?;
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let entries = open.readdir(cookie, 100).await?;
        let Some(last) = entries.last() else { return Ok(names) };
        cookie = last.cookie;
        names.extend(entries.iter().map(|e| e.name.to_string()));
    }
}

#[tokio::test]
async fn dial_names_a_peer_and_its_tree_is_there() {
    let rig = rig("hello").await;
    assert_eq!(ls(&rig.tree, "").await.unwrap(), ["ctl", "error", "event", "near"]);
    write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\n")).await.unwrap();
    assert_eq!(ls(&rig.tree, "").await.unwrap(), ["ctl", "error", "event", "near", "ann"]);
    assert_eq!(cat(&rig.tree, "ann/id").await.unwrap(), format!("{ANN}\n"));
    assert_eq!(cat(&rig.tree, "ann/addrs").await.unwrap(), format!("pipe/p2p/{ANN}\n"));
    assert_eq!(cat(&rig.tree, "ann/latency").await.unwrap(), "-\n");
    assert!(cat(&rig.tree, "ann/status").await.unwrap().starts_with("idle "));

    assert_eq!(ls(&rig.names, "").await.unwrap(), ["ann"]);
    let ann = walk(&rig.names, "ann").await.unwrap();
    let before = ann.getattr().await.unwrap();
    assert!(before.is_dir());
    assert_eq!(rig.pipes.opens(), 0, "listing n/, even with attributes, dials nobody");
    assert_eq!(ls(&rig.names, "ann").await.unwrap(), ["word", "live", "sub"]);
    assert_eq!((ann.getattr().await.unwrap().qid, ann.qid()), (before.qid, before.qid), "the same directory as before");
    assert_eq!(cat(&rig.names, "ann/sub/deep").await.unwrap(), "hello");
    assert!(cat(&rig.tree, "ann/status").await.unwrap().starts_with("connected "));
    assert_eq!(rig.peers.lookup("ann"), Some(PeerId::new(ANN)));
    assert_eq!(rig.peers.lookup(ANN), Some(PeerId::new(ANN)));
    assert_eq!((rig.peers.lookup("moon"), rig.peers.lookup(ME)), (None, None));
    assert_eq!(rig.peers.name_of(&PeerId::new(ANN)).as_deref(), Some("ann"));

    // By its id too, unlisted; an id nobody heard of is not there, nor is this node.
    assert_eq!(cat(&rig.names, &format!("{ANN}/word")).await.unwrap(), "hello");
    for nobody in [BOB, ME, "moon"] {
        assert_eq!(walk(&rig.names, nobody).await.err().unwrap().kind(), Kind::NotFound, "{nobody}");
    }
    assert_eq!(rig.pipes.opens(), 1, "one session for all");
}

#[tokio::test]
async fn both_trees_are_the_owners_alone() {
    let rig = rig("hello").await;
    write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\n")).await.unwrap();
    let other = Caller::peer(PeerId::new(BOB));
    let tree = rig.peers.tree().attach(&other, "").await.unwrap();
    let names = rig.peers.names().attach(&other, "").await.unwrap();
    for (root, path) in [(&tree, "ctl"), (&tree, "ann/id"), (&names, "ann"), (&names, "ann/word")] {
        assert_eq!(cat(root, path).await.unwrap_err().kind(), Kind::Denied, "{path}");
    }
}

/// What is written to which ctl, and what comes of it: the kind and a part of the text, or the names after it.
#[tokio::test]
async fn verbs_and_refusals() {
    let rig = rig("hello").await;
    let (ctl, ann) = ("ctl", "ann/ctl");
    for (file, text, want) in [
        (ctl, "dial pipe/p2p/ANN", "ok R3pq-last8"),
        (ctl, "forget ANN", "ok "),
        (ctl, "dial pipe/p2p/ANN ann", "ok ann"),
        (ctl, "dial pipe/p2p/ANN", "ok ann"),
        (ctl, "frob", "Invalid no command here; there are: dial hangup"),
        (ctl, "dial", "Invalid dial MULTIADDR [NAME]"),
        (ctl, "dial a b c", "Invalid dial MULTIADDR [NAME]"),
        (ctl, "dial moon", "Invalid is no address to dial"),
        (ctl, "dial pipe/moon x", "Unreachable connection refused"),
        (ctl, "dial pipe/p2p/moon x", "Invalid is no peer id"),
        (ctl, "dial pipe/p2p/ME me", "Invalid is this node itself"),
        (ctl, "dial pipe/p2p/BOB ann", "Exists is the name of"),
        (ctl, "dial pipe/p2p/BOB a/b", "Invalid cannot be a name"),
        (ctl, "dial pipe/p2p/BOB ctl", "Invalid a file has that name"),
        (ctl, "hangup", "Invalid hangup NAME"),
        (ctl, "hangup moon", "NotFound no peer has this name"),
        (ctl, "name ann", "Invalid name PEER NAME"),
        (ctl, "name moon x", "NotFound no peer has this name"),
        (ctl, "name ann ''", "Invalid it is empty"),
        (ctl, "forget moon", "NotFound no peer has this name"),
        (ctl, "forget BOB", "NotFound no peer has this name"),
        (ctl, "find moon", "Invalid is no peer id"),
        (ctl, "find BOB", "NotFound nobody that was asked knows it"),
        (ctl, "find ANN", "ok ann"),
        (ctl, "bootstrap moon", "Invalid is no address"),
        (ctl, "bootstrap pipe/p2p/ANN", "ok ann"),
        (ctl, "filter", "Invalid filter allow|deny|drop PATTERN"),
        (ctl, "filter perhaps *", "Invalid filter allow|deny|drop PATTERN"),
        (ctl, "filter deny moon", "Invalid is no pattern"),
        (ctl, "filter drop 192.0.2.7", "NotFound no filter rule has this pattern"),
        (ctl, "name ann 'a", "Invalid a quote is not closed"),
        // All of one write or none.
        (ctl, "name ann ann2\nforget moon", "NotFound no peer has this name"),
        (ctl, "name ann ann2\ndial pipe/moon x", "Unreachable connection refused"),
        (ctl, "filter deny 192.0.2.7\nfilter deny moon", "Invalid is no pattern"),
        (ctl, "name ann ann2\nname ann2 ann", "ok ann"),
        (ctl, "dial pipe/p2p/BOB bob\nname ann ann3", "ok ann3 bob"),
        (ctl, "name bob ann3", "Exists is the name of"),
        (ctl, "name ann3 ann\nforget bob", "ok ann"),
        (ann, "hangup now", "Invalid write \"hangup\""),
        (ann, "find ANN", "Invalid no command here; there are: dial hangup name forget"),
        (ann, "name ctl", "Invalid a file has that name"),
        (ann, "dial", "ok ann"),
        (ann, "hangup", "ok ann"),
        (ann, "name ann2", "ok ann2"),
        ("ann2/ctl", "forget", "ok "),
    ] {
        let before = (cat(&rig.tree, "ctl").await.unwrap(), rig.peers.lookup("ann"));
        let line = text.replace("ANN", ANN).replace("BOB", BOB).replace("ME", ME);
        match write(&rig.tree, file, &format!("{line}\n")).await {
            Ok(()) => {
                let names = ls(&rig.names, "").await.unwrap().join(" ").replace(&ANN[44..], "R3pq-last8");
                assert_eq!(format!("ok {names}"), want, "{text}");
            }
            Err(e) => {
                let (kind, part) = want.split_once(' ').unwrap();
                assert!(format!("{:?}", e.kind()) == kind && e.to_string().contains(part), "{text}: {e:?}");
                let place = file.replace("ctl", "error");
                assert_eq!(cat(&rig.tree, &place).await.unwrap(), format!("{e}\n"), "{text}");
                assert_eq!((cat(&rig.tree, "ctl").await.unwrap(), rig.peers.lookup("ann")), before, "{text}");
            }
        }
    }
}

#[tokio::test]
async fn filter_rules_are_kept_in_order_and_reach_the_transport() {
    let rig = rig("hello").await;
    write(&rig.tree, "ctl", "filter allow 192.0.2.7\nfilter deny 192.0.2.0/24\n").await.unwrap();
    assert_eq!(cat(&rig.tree, "ctl").await.unwrap(), "filter allow 192.0.2.7\nfilter deny 192.0.2.0/24\n");
    write(&rig.tree, "ctl", "filter deny 192.0.2.7\n").await.unwrap();
    write(&rig.tree, "ctl", "filter drop 192.0.2.0/24\n").await.unwrap();
    assert_eq!(*rig.pipes.filters.lock().unwrap(), [Filter { allow: false, pattern: "192.0.2.7".into() }]);
}

#[tokio::test]
async fn names_addresses_and_rules_outlive_the_node() {
    let rig = rig("hello").await;
    write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\nfilter deny 192.0.2.7\n")).await.unwrap();
    let again = Arc::new(Pipes::default());
    again.host(ANN, demo("later"));
    let peers = start(&again, rig.dir.path()).unwrap();
    assert_eq!(again.filters.lock().unwrap().len(), 1);
    assert_eq!(again.known(&PeerId::new(ANN)), [format!("pipe/p2p/{ANN}")]);
    let names = peers.names().attach(&Caller::owner(0), "").await.unwrap();
    assert_eq!(cat(&names, "ann/word").await.unwrap(), "later");

    // What is not ours is refused by name, and stays.
    let path = rig.dir.path().join("peers");
    std::fs::write(&path, "moon\n").unwrap();
    let e = start(&again, rig.dir.path()).err().unwrap();
    assert!(e.kind() == Kind::Invalid && e.to_string().contains(path.to_str().unwrap()), "{e}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "moon\n");
}

#[tokio::test]
async fn a_table_that_cannot_be_saved_is_unchanged() {
    let rig = rig("hello").await;
    std::fs::create_dir(rig.dir.path().join("peers.new")).unwrap();
    let e = write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\nfilter deny *\n")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Io, "{e}");
    assert!(rig.peers.lookup("ann").is_none() && rig.pipes.filters.lock().unwrap().is_empty());
    assert_eq!(cat(&rig.tree, "ctl").await.unwrap(), "");
}

#[tokio::test]
async fn users_at_the_same_time_share_one_dial_and_its_failure() {
    let rig = rig("hello").await;
    write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\n")).await.unwrap();
    for (mood, good) in [(Mood::Down, false), (Mood::Up, true)] {
        rig.pipes.set(ANN, mood);
        let before = rig.pipes.opens();
        let uses = (0..20).map(|_| {
            let names = rig.names.clone();
            tokio::spawn(async move { cat(&names, "ann/word").await })
        });
        for done in uses.collect::<Vec<_>>() {
            let got = done.await.unwrap();
            assert_eq!(
                got.as_ref().map_err(|e| e.kind()).map(|w| w.as_str()),
                if good { Ok("hello") } else { Err(Kind::Unreachable) }
            );
        }
        assert_eq!(rig.pipes.opens() - before, 1);
        // The next attempt is made after a rest.
        tokio::time::sleep(Duration::from_millis(REST_MS)).await;
    }
}

#[tokio::test]
async fn an_unreachable_peer_fails_in_time_and_says_why() {
    let rig = rig("hello").await;
    write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\n")).await.unwrap();
    for (mood, why) in [(Mood::Down, "connection refused"), (Mood::Mute, "no answer")] {
        rig.pipes.set(ANN, mood);
        let start = Instant::now();
        let e = ls(&rig.names, "ann").await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(e.kind(), Kind::Unreachable, "{e}");
        let status = cat(&rig.tree, "ann/status").await.unwrap();
        assert!(status.starts_with("unreachable ") && status.contains(why), "{status}");
        // At once now, without another dial; the rest of the tree is not held up.
        let (start, opens) = (Instant::now(), rig.pipes.opens());
        assert_eq!(ls(&rig.names, "ann").await.unwrap_err().kind(), Kind::Unreachable);
        assert!(start.elapsed() < Duration::from_millis(REST_MS / 2) && rig.pipes.opens() == opens);
        assert_eq!(ls(&rig.names, "").await.unwrap(), ["ann"]);
        tokio::time::sleep(Duration::from_millis(REST_MS)).await;
    }
    // A user who dials need not wait for the rest.
    rig.pipes.set(ANN, Mood::Down);
    assert!(ls(&rig.names, "ann").await.is_err());
    rig.pipes.set(ANN, Mood::Up);
    write(&rig.tree, "ann/ctl", "dial\n").await.unwrap();
    assert_eq!(cat(&rig.names, "ann/word").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_peer_dies_and_what_was_walked_to_lives_on() {
    let rig = rig("hello").await;
    write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\n")).await.unwrap();
    let dir = walk(&rig.names, "ann/sub").await.unwrap();
    let file = walk(&dir, "deep").await.unwrap();
    let (server, qid) = (file.server(), dir.qid());
    let live = walk(&rig.names, "ann/live").await.unwrap().open(OpenFlags::RDONLY).await.unwrap();
    let list = dir.open(OpenFlags(OpenFlags::DIRECTORY)).await.unwrap();
    let reading = live.clone();
    let reading = tokio::spawn(async move { reading.read(0, 100).await });
    tokio::task::yield_now().await;

    let mut events = stream_of(&rig.tree, "ann/event").await;
    rig.pipes.set(ANN, Mood::Down);
    rig.pipes.cut(ANN);
    let e = timeout(LONG, reading).await.unwrap().unwrap().unwrap_err();
    assert!(e.kind() == Kind::Unreachable && e.to_string().contains("the connection was lost"), "{e}");
    assert!(next(&mut events).await.starts_with("lost\t"));
    assert!(cat(&rig.tree, "ann/status").await.unwrap().starts_with("lost "));
    assert_eq!(file.getattr().await.unwrap_err().kind(), Kind::Unreachable);
    assert!(next(&mut events).await.starts_with("unreachable\t"));

    // Back, as another process would be.
    rig.pipes.host(ANN, demo("again"));
    tokio::time::sleep(Duration::from_millis(REST_MS)).await;
    assert_eq!(cat_file(&file).await.unwrap(), "again");
    assert_eq!(cat(&dir, "deep").await.unwrap(), "again");
    assert_eq!(cat(&dir, "../word").await.unwrap(), "again");
    assert_eq!(file.server(), server);
    assert_eq!(dir.qid().ty, qid.ty);
    assert!(next(&mut events).await.starts_with("connected\t"));
    // What was open stays lost.
    assert_eq!(live.read(0, 100).await.unwrap_err().kind(), Kind::Unreachable);
    assert_eq!(list.readdir(0, 100).await.err().unwrap().kind(), Kind::Unreachable);
}

async fn stream_of(root: &Arc<dyn File>, path: &str) -> Arc<dyn OpenFile> {
    walk(root, path).await.unwrap().open(OpenFlags::RDONLY).await.unwrap()
}

async fn next(stream: &mut Arc<dyn OpenFile>) -> String {
    String::from_utf8(timeout(LONG, stream.read(0, 4096)).await.unwrap().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_hangup_ends_what_is_under_way_and_the_next_use_dials() {
    let rig = rig("hello").await;
    write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\n")).await.unwrap();
    let mut all = stream_of(&rig.tree, "event").await;
    let live = stream_of(&rig.names, "ann/live").await;
    let reading = tokio::spawn(async move { live.read(0, 100).await });
    tokio::task::yield_now().await;
    write(&rig.tree, "ctl", "hangup ann\n").await.unwrap();
    assert_eq!(timeout(LONG, reading).await.unwrap().unwrap().unwrap_err().kind(), Kind::Unreachable);
    let status = cat(&rig.tree, "ann/status").await.unwrap();
    assert!(status.starts_with("hungup ") && status.ends_with(" the user hung up\n"), "{status}");
    assert_eq!(cat(&rig.names, "ann/word").await.unwrap(), "hello");
    write(&rig.tree, "ctl", "name ann ann2\n").await.unwrap();
    assert_eq!(next(&mut all).await, format!("forgotten\tann\t{ANN}\nnamed\tann2\t{ANN}\n"));
}

#[tokio::test]
async fn a_walk_with_its_attributes_is_one_trip() {
    let rig = rig("hello").await;
    write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\n")).await.unwrap();
    let ann = walk(&rig.names, "ann").await.unwrap();
    ls(&rig.names, "ann").await.unwrap();
    for (path, size) in [("word", 5), ("sub/deep", 5), ("sub", 0)] {
        let before = rig.pipes.trips();
        let (file, attr) = ann.walk_getattr(&Name::path(path).unwrap()).await.unwrap();
        assert_eq!((attr.size, rig.pipes.trips() - before), (size, 1), "{path}");
        assert_eq!(file.qid(), attr.qid);
    }
}

#[tokio::test]
async fn a_service_attaches_by_peer_and_aname() {
    let rig = rig("hello").await;
    let ann = PeerId::new(ANN);
    let root = rig.peers.attach(&ann, "").await.unwrap();
    assert_eq!(cat(&root, "word").await.unwrap(), "hello");
    assert_eq!(rig.peers.attach(&ann, "cap/1#x").await.err().unwrap().kind(), Kind::NotFound);
    assert_eq!(rig.peers.attach(&PeerId::new(ME), "").await.err().unwrap().kind(), Kind::Invalid);
    rig.peers.show(demo("own"));
    assert_eq!(cat(&rig.peers.attach(&PeerId::new(ME), "").await.unwrap(), "word").await.unwrap(), "own");
    let (opens, nobody) = (rig.pipes.opens(), PeerId::new("12D3KooWLostLostLostLostLostLostLostLostLostLostLost"));
    assert_eq!(opens, 1);
    assert_eq!(rig.peers.attach(&nobody, "").await.err().unwrap().kind(), Kind::Unreachable);
    rig.pipes.cut(ANN);
    rig.pipes.host(ANN, demo("again"));
    let got = timeout(LONG, async {
        loop {
            match cat(&root, "word").await {
                Ok(word) if word == "again" => return word,
                // Until the loss is noticed.
                _ => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(got.await.unwrap(), "again");
}

/// A host directory at the other end: what changes files goes through, and a handle never becomes another file.
#[tokio::test]
async fn files_of_a_remote_disk_are_changed_and_renewed() {
    let rig = rig("hello").await;
    let disk = tempfile::tempdir().unwrap();
    let shown = || Arc::new(Host::open(disk.path(), HostConfig::default()).unwrap()) as Arc<dyn Tree>;
    rig.pipes.host(ANN, shown());
    write(&rig.tree, "ctl", &format!("dial pipe/p2p/{ANN} ann\ndial pipe/p2p/{BOB} bob\n")).await.unwrap();
    let root = walk(&rig.names, "ann").await.unwrap();
    let name = |n: &str| Name::new(n.to_owned()).unwrap();
    let sub = root.mkdir(&name("d"), 0o755).await.unwrap();
    let made = sub.create(&name("a"), OpenFlags::RDWR, 0o644).await.unwrap();
    made.open.write(0, "text".into()).await.unwrap();
    sub.rename(&name("a"), &root, &name("b")).await.unwrap();
    assert_eq!(std::fs::read_to_string(disk.path().join("b")).unwrap(), "text");
    let link = root.symlink(&name("l"), b"b").await.unwrap();
    assert_eq!(link.readlink().await.unwrap(), "b");
    let b = walk(&root, "b").await.unwrap();
    root.link(&name("c"), &b).await.unwrap();
    let bob = walk(&rig.names, "bob").await.unwrap();
    assert_eq!(root.link(&name("x"), &bob).await.unwrap_err().kind(), Kind::CrossDevice);
    assert_eq!(root.rename(&name("b"), &bob, &name("x")).await.unwrap_err().kind(), Kind::CrossDevice);
    root.unlink(&name("c"), false).await.unwrap();

    // A file that came with a directory's entries is as lasting as one that was walked to.
    let list = root.open(OpenFlags(OpenFlags::DIRECTORY)).await.unwrap();
    let entries = list.readdir(0, 100).await.unwrap();
    assert_eq!(entries.len(), 3);
    let listed = entries.iter().find(|e| e.name.as_bytes() == b"b").unwrap().file.clone();

    // Another file of the same name, while the connection was away.
    std::fs::write(disk.path().join("new"), "other").unwrap();
    std::fs::rename(disk.path().join("new"), disk.path().join("b")).unwrap();
    rig.pipes.cut(ANN);
    rig.pipes.host(ANN, shown());
    let stale = timeout(LONG, async {
        loop {
            match b.getattr().await {
                Err(e) if e.kind() == Kind::Unreachable => tokio::task::yield_now().await,
                result => return result,
            }
        }
    });
    let e = stale.await.unwrap().unwrap_err();
    assert!(e.kind() == Kind::Stale && e.to_string().contains("/b is another file now"), "{e}");
    assert_eq!(cat(&root, "b").await.unwrap(), "other");
    assert_eq!(ls(&root, "d").await.unwrap(), [""; 0]);
    if let Some(listed) = listed {
        assert_eq!(listed.getattr().await.unwrap_err().kind(), Kind::Stale);
    }
}

#[test]
fn the_manual_lists_both_trees() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man/man4/peers.4");
    let page = std::fs::read_to_string(page).unwrap();
    let synopsis = page.split(".Sh ").find(|s| s.starts_with("SYNOPSIS")).unwrap();
    let told: Vec<Vec<&str>> =
        synopsis.split(".El").map(|l| l.lines().filter_map(|l| l.strip_prefix(".It Pa ")).collect()).collect();
    assert_eq!(
        told,
        [
            fs_tree::paths(TREE).iter().map(String::as_str).collect(),
            fs_tree::paths(NAMES).iter().map(String::as_str).collect(),
            vec![]
        ]
    );
}
