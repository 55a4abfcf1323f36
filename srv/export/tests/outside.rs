//! What peers see, hold and lose.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fs_ninep::{Call, Caller, Error, File, Kind, Name, OpenFile, OpenFlags, PeerId, SetAttr, SetTime, Tree};
use fs_tree::{At, Events, Line, Records, Row, Service};
use srv_export::{Config, Exports};

const ME: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
const ANN: &str = "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV";
const BOB: &str = "12D3KooWHdiAxVd8uMQR1hGWXccidmfCwLqcMpGwR6QcTP6QRMuD";

/// A service to grant: a value, a control file, a stream that waits.
#[derive(Default)]
struct Cpu {
    events: Events,
    writes: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Q {
    Root,
    Info,
    Ctl,
    Event,
    Own,
}

impl Service for Cpu {
    type Q = Q;
    #[rustfmt::skip]
    const TREE: &'static [Row<Q>] = &[
        fs_tree::dir   ("",      Q::Root,  0o555),
        fs_tree::value ("info",  Q::Info,  0o444),
        fs_tree::ctl   ("ctl",   Q::Ctl,   0o666),
        fs_tree::stream("event", Q::Event, 0o444),
        fs_tree::value ("own",   Q::Own,   0o600),
    ];

    fn read<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Bytes> {
        Box::pin(async move { Ok(format!("{} {:?}\n", at.caller.identity, at.q).into()) })
    }

    fn write<'a>(&'a self, _at: &'a At<Q>, _lines: &'a [Line]) -> Call<'a, ()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(())))
    }

    fn stream(&self, _at: &At<Q>) -> Result<Box<dyn Records>, Error> {
        Ok(self.events.subscribe())
    }
}

/// A node with exports, and a home on disk.
struct World {
    home: tempfile::TempDir,
    cpu: Arc<Cpu>,
    exports: Arc<Exports>,
    tree: Arc<dyn Tree>,
}

impl World {
    fn new() -> World {
        let home = tempfile::tempdir().unwrap();
        for dir in [".ipos", "photos/sub", "books"] {
            fs::create_dir_all(home.path().join(dir)).unwrap();
        }
        fs::write(home.path().join("photos/a"), "alpha").unwrap();
        fs::write(home.path().join("photos/sub/b"), "beta").unwrap();
        let cpu = Arc::new(Cpu::default());
        let exports = start(home.path(), &cpu).unwrap();
        let tree = exports.tree();
        World { home, cpu, exports, tree }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().canonicalize().unwrap().join(path)
    }

    /// The owner writes `line` to `file` of export/; HOME in it is the home.
    async fn own(&self, file: &str, line: &str) -> Result<(), Error> {
        let line = line.replace("HOME", &self.path("").to_string_lossy());
        let root = self.tree.attach(&owner(), "").await?;
        let ctl = open_at(&root, file, OpenFlags::WRONLY).await?;
        ctl.write(0, Bytes::from(line.replace(';', "\n") + "\n")).await.map(drop)
    }

    async fn own_read(&self, file: &str) -> String {
        let root = self.tree.attach(&owner(), "").await.unwrap();
        read(&root, file).await.unwrap()
    }

    /// A new export, and its capability's attach name.
    async fn export(&self, lines: &str) -> (String, String) {
        let n = self.own_read("clone").await.trim().to_owned();
        self.own(&format!("{n}/ctl"), lines).await.unwrap();
        let cap = self.own_read(&format!("{n}/cap")).await;
        let name = cap.trim().strip_prefix(&format!("ipos:{ME}/")).unwrap();
        (n, format!("cap/{name}"))
    }

    async fn root(&self, caller: &Caller) -> Arc<dyn File> {
        self.exports.outside().attach(caller, "").await.unwrap()
    }

    async fn attach(&self, caller: &Caller, aname: &str) -> Result<Arc<dyn File>, Error> {
        self.exports.outside().attach(caller, aname).await
    }
}

fn start(home: &Path, cpu: &Arc<Cpu>) -> Result<Arc<Exports>, srv_export::Error> {
    let names = |name: &str| match name {
        "ann" => Some(PeerId::new(ANN)),
        "bob" => Some(PeerId::new(BOB)),
        _ => None,
    };
    let config = Config {
        id: PeerId::new(ME),
        file: home.join(".ipos/exports"),
        names: Arc::new(names),
        home: home.join(".ipos"),
        mounts: Vec::new(),
    };
    Exports::new(vec![("cpu".to_owned(), fs_tree::serve(cpu.clone()))], config)
}

fn owner() -> Caller {
    Caller::owner(nix_uid())
}

fn nix_uid() -> u32 {
    // The owner of what this process makes.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid()
}

fn peer(id: &str) -> Caller {
    Caller::peer(PeerId::new(id))
}

fn names(path: &str) -> Vec<Name> {
    Name::path(path).unwrap()
}

async fn walk(dir: &Arc<dyn File>, path: &str) -> Result<Arc<dyn File>, Error> {
    dir.walk(&names(path)).await.end
}

async fn open_at(dir: &Arc<dyn File>, path: &str, flags: OpenFlags) -> Result<Arc<dyn OpenFile>, Error> {
    walk(dir, path).await?.open(flags).await
}

async fn read(dir: &Arc<dyn File>, path: &str) -> Result<String, Error> {
    let open = open_at(dir, path, OpenFlags::RDONLY).await?;
    Ok(String::from_utf8_lossy(&open.read(0, 1 << 16).await?).into_owned())
}

async fn ls(dir: &Arc<dyn File>) -> Result<String, Error> {
    let open = dir.open(OpenFlags::RDONLY).await?;
    let mut all = Vec::new();
    let mut cookie = 0;
    loop {
        let entries = open.readdir(cookie, 1).await?;
        let Some(last) = entries.last() else { break };
        cookie = last.cookie;
        all.extend(entries.iter().map(|e| e.name.to_string()));
    }
    all.sort();
    Ok(all.join(" "))
}

fn kind<T>(result: Result<T, Error>) -> Kind {
    result.err().map(|e| e.kind()).expect("refused")
}

#[tokio::test]
async fn what_is_not_granted_cannot_be_seen() {
    let w = World::new();
    w.own("ctl", "grant ann /cpu;grant ann HOME/photos;grant bob HOME/books rw").await.unwrap();
    for (caller, want) in [
        (peer(ANN), "cpu photos"),
        (peer(BOB), "books"),
        (peer(ME), "books cpu photos"),
        (owner(), "books cpu photos"),
        (peer("12D3KooWnobody"), ""),
        (Caller::none(), ""),
    ] {
        let root = w.root(&caller).await;
        assert_eq!(ls(&root).await.unwrap(), want, "{caller:?}");
        for name in ["cpu", "photos", "books", "etc"] {
            let held = want.split(' ').any(|n| n == name);
            let found = walk(&root, name).await.map(drop).map_err(|e| e.kind());
            assert_eq!(found, if held { Ok(()) } else { Err(Kind::NotFound) }, "{caller:?} {name}");
        }
    }
    assert_eq!(kind(w.attach(&peer(ANN), "cpu").await), Kind::NotFound);
    assert_eq!(kind(w.attach(&peer(ANN), "/").await), Kind::NotFound);
    let root = w.root(&peer(ANN)).await;
    assert_eq!(read(&root, "cpu/info").await.unwrap(), format!("{ANN} Info\n"), "the service sees who calls");
    assert_eq!(read(&root, "cpu/../photos/sub/../../photos/a").await.unwrap(), "alpha", "the root is above them");
    assert_eq!(read(&root, "photos/../../../photos/sub/b").await.unwrap(), "beta");
    assert_eq!(kind(walk(&root, "photos/../books").await), Kind::NotFound);
    let sub = walk(&root, "photos/sub").await.unwrap();
    let (top, _) = sub.walk_getattr(&names("../..")).await.unwrap();
    assert_eq!((top.server(), top.qid()), (root.server(), root.qid()));
    assert_eq!(kind(read(&root, "cpu/own").await), Kind::Denied, "a grant is not ownership");
    assert_eq!(kind(root.mkdir(&names("x")[0], 0o777).await), Kind::ReadOnly);
    w.own("ctl", "grant any /cpu ro").await.unwrap();
    assert_eq!(ls(&w.root(&peer("12D3KooWnobody")).await).await.unwrap(), "cpu");
    assert_eq!(ls(&w.root(&Caller::none()).await).await.unwrap(), "", "any peer, not anybody");
}

#[tokio::test]
async fn a_grant_taken_back_is_felt_at_once() {
    let w = World::new();
    w.own("ctl", "grant ann /cpu;grant bob /cpu;grant ann HOME/photos").await.unwrap();
    let (ann, bob) = (w.root(&peer(ANN)).await, w.root(&peer(BOB)).await);
    let event = open_at(&ann, "cpu/event", OpenFlags::RDONLY).await.unwrap();
    let bobs = open_at(&bob, "cpu/event", OpenFlags::RDONLY).await.unwrap();
    let file = open_at(&ann, "photos/a", OpenFlags::RDONLY).await.unwrap();
    let dir = walk(&ann, "photos/sub").await.unwrap();
    let waiting = tokio::spawn(async move { event.read(0, 100).await });
    tokio::task::yield_now().await;
    w.own("ctl", "revoke ann /cpu;revoke ann /photos").await.unwrap();
    let e = waiting.await.unwrap().unwrap_err();
    assert_eq!(
        (e.kind(), e.to_string()),
        (Kind::Expired, "/cpu was taken back by its owner; ask for a new grant".into())
    );
    assert_eq!(kind(file.read(0, 1).await), Kind::Expired);
    assert_eq!(kind(dir.getattr().await), Kind::Expired);
    assert_eq!(kind(walk(&dir, "b").await), Kind::Expired);
    assert_eq!(kind(dir.walk_getattr(&names("b")).await.map(drop)), Kind::Expired);
    assert_eq!(ls(&ann).await.unwrap(), "");
    assert_eq!(kind(walk(&ann, "cpu").await), Kind::NotFound);
    w.cpu.events.send("still");
    assert_eq!(bobs.read(0, 100).await.unwrap(), "still\n", "another's is untouched");
    w.own("ctl", "grant ann /cpu").await.unwrap();
    assert!(read(&ann, "cpu/info").await.is_ok());
    assert_eq!(kind(dir.getattr().await), Kind::Expired, "a new grant does not bring an old handle back");
}

/// Every call that changes something, on a directory that has `a` and `sub/b`.
async fn changes(dir: &Arc<dyn File>) -> Vec<(&'static str, Result<(), Error>)> {
    let n = |name: &str| names(name).remove(0);
    let a = walk(dir, "a").await.unwrap();
    let sub = walk(dir, "sub").await.unwrap();
    let set = |set: SetAttr| a.setattr(set);
    vec![
        ("open wr", a.open(OpenFlags::WRONLY).await.map(drop)),
        ("open rw", a.open(OpenFlags::RDWR).await.map(drop)),
        ("open trunc", a.open(OpenFlags(OpenFlags::TRUNC)).await.map(drop)),
        ("open creat", a.open(OpenFlags(OpenFlags::CREAT)).await.map(drop)),
        ("size", set(SetAttr { size: Some(3), ..SetAttr::default() }).await),
        ("mode", set(SetAttr { mode: Some(0o600), ..SetAttr::default() }).await),
        ("times", set(SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() }).await),
        ("create", dir.create(&n("new"), OpenFlags::RDWR, 0o644).await.map(drop)),
        ("mkdir", dir.mkdir(&n("newdir"), 0o755).await.map(drop)),
        ("symlink", dir.symlink(&n("ln"), b"a").await.map(drop)),
        ("link", dir.link(&n("hard"), &a).await),
        ("rename", dir.rename(&n("sub"), dir, &n("sub2")).await),
        ("rename back", dir.rename(&n("sub2"), dir, &n("sub")).await),
        ("rename self", a.rename_self(Some(&sub), &n("a")).await),
        ("unlink", sub.unlink(&n("b"), false).await),
        ("remove", walk(dir, "sub/a").await.unwrap_or(a).remove().await),
    ]
}

#[tokio::test]
async fn read_only_is_read_only_to_every_call() {
    let w = World::new();
    w.own("ctl", "grant ann HOME/photos;grant ann /cpu ro").await.unwrap();
    let root = w.root(&peer(ANN)).await;
    let photos = walk(&root, "photos").await.unwrap();
    for (call, result) in changes(&photos).await {
        assert_eq!(kind(result), Kind::ReadOnly, "{call}");
    }
    assert_eq!(read(&photos, "a").await.unwrap(), "alpha");
    assert_eq!(ls(&photos).await.unwrap(), "a sub");
    assert_eq!(photos.getattr().await.unwrap().mode & 0o222, 0, "the bits say so");
    assert_eq!(walk(&photos, "a").await.unwrap().getattr().await.unwrap().mode & 0o222, 0);
    assert!(photos.statfs().await.is_ok());
    let entries = photos.open(OpenFlags::RDONLY).await.unwrap().readdir(0, 100).await.unwrap();
    for entry in entries {
        assert!(entry.attr.is_none_or(|attr| attr.mode & 0o222 == 0));
        if let Some(file) = entry.file {
            assert_eq!(kind(file.open(OpenFlags::RDWR).await.map(drop)), Kind::ReadOnly);
        }
    }
    // A directory read that has the files at hand gives them under the same terms.
    let cpu = walk(&root, "cpu").await.unwrap();
    let entries = cpu.open(OpenFlags::RDONLY).await.unwrap().readdir(0, 100).await.unwrap();
    let ctl = entries.into_iter().find(|e| e.name.as_bytes() == b"ctl").and_then(|e| e.file).unwrap();
    assert_eq!(kind(ctl.open(OpenFlags::WRONLY).await.map(drop)), Kind::ReadOnly);
    let e = open_at(&root, "cpu/ctl", OpenFlags::WRONLY).await.err().unwrap();
    assert_eq!((e.kind(), e.to_string()), (Kind::ReadOnly, "/cpu is granted read-only; ask its owner for rw".into()));
    assert!(read(&root, "cpu/info").await.is_ok());

    w.own("ctl", "grant ann /photos rw;grant ann /cpu rw").await.unwrap();
    let ctl = open_at(&root, "cpu/ctl", OpenFlags::WRONLY).await.unwrap();
    ctl.write(0, Bytes::from_static(b"one\ntw")).await.unwrap();
    let a = open_at(&photos, "a", OpenFlags::RDWR).await.unwrap();
    assert_eq!(a.write(5, Bytes::from_static(b"!")).await.unwrap(), 1, "the terms of a grant change under open files");
    w.own("ctl", "grant ann /photos ro;grant ann /cpu ro").await.unwrap();
    assert_eq!(kind(a.write(0, Bytes::from_static(b"x")).await), Kind::ReadOnly);
    assert_eq!(kind(a.fsync(false).await), Kind::ReadOnly);
    assert_eq!(kind(ctl.write(0, Bytes::from_static(b"o\n")).await), Kind::ReadOnly);
    assert_eq!(kind(ctl.flush().await), Kind::ReadOnly, "nor does closing it obey the rest of a line");
    assert_eq!(w.cpu.writes.load(Ordering::Relaxed), 1);
    assert_eq!(fs::read_to_string(w.path("photos/a")).unwrap(), "alpha!");

    w.own("ctl", "grant ann /photos rw").await.unwrap();
    for (call, result) in changes(&photos).await {
        assert!(result.is_ok(), "{call}: {result:?}");
    }
    assert_eq!(kind(photos.remove().await), Kind::Busy);
    assert_eq!(kind(photos.rename_self(None, &names("x")[0]).await), Kind::Busy);
    assert!(w.path("photos").is_dir());
}

#[tokio::test]
async fn files_of_two_grants_do_not_mix() {
    let w = World::new();
    w.own("ctl", "grant ann HOME/photos rw;grant ann HOME/books rw").await.unwrap();
    let root = w.root(&peer(ANN)).await;
    let (photos, books) = (walk(&root, "photos").await.unwrap(), walk(&root, "books").await.unwrap());
    let a = walk(&photos, "a").await.unwrap();
    let name = names("a").remove(0);
    assert_eq!(kind(photos.rename(&name, &books, &name).await), Kind::CrossDevice);
    assert_eq!(kind(books.link(&name, &a).await), Kind::CrossDevice);
    assert_eq!(kind(a.rename_self(Some(&root), &name).await), Kind::CrossDevice);
    // The same directory, held twice: what one hold may, the other may not have to.
    w.own("ctl", "grant bob /photos ro").await.unwrap();
    let bobs = walk(&w.root(&peer(BOB)).await, "photos/a").await.unwrap();
    assert_eq!(kind(photos.link(&names("l")[0], &bobs).await), Kind::CrossDevice);
}

#[tokio::test]
async fn a_directory_takes_no_more_than_its_limit() {
    let w = World::new();
    w.own("ctl", "grant ann HOME/books rw max=1K").await.unwrap();
    let books = walk(&w.root(&peer(ANN)).await, "books").await.unwrap();
    let made = books.create(&names("x")[0], OpenFlags::RDWR, 0o644).await.unwrap();
    assert_eq!(made.open.write(0, Bytes::from(vec![1; 1000])).await.unwrap(), 1000);
    let more = made.open.write(1000, Bytes::from(vec![1; 1000])).await;
    assert!(more.map_or_else(|e| matches!(e.kind(), Kind::NoSpace | Kind::Exhausted), |n| n <= 24));
    // A second way in counts against the same limit.
    let again = walk(&w.root(&peer(ANN)).await, "books").await.unwrap();
    let y = again.create(&names("y")[0], OpenFlags::RDWR, 0o644).await.unwrap();
    let more = y.open.write(0, Bytes::from(vec![1; 1000])).await;
    assert!(more.map_or_else(|e| matches!(e.kind(), Kind::NoSpace | Kind::Exhausted), |n| n <= 24));
}

#[tokio::test]
async fn a_capability_does_what_it_says() {
    let w = World::new();
    let (n, cap) = w.export("bind HOME/photos /p;to ann;uses 3").await;
    let dir = w.attach(&peer(ANN), &cap).await.unwrap();
    assert_eq!(ls(&dir).await.unwrap(), "a sub");
    assert_eq!(read(&dir, "sub/../../../a").await.unwrap(), "alpha", "nothing is above it");
    let made = dir.create(&names("c")[0], OpenFlags::RDWR, 0o644).await.unwrap();
    made.open.write(0, Bytes::from_static(b"gamma")).await.unwrap();
    assert_eq!(fs::read_to_string(w.path("photos/c")).unwrap(), "gamma");
    w.own(&format!("{n}/ctl"), "ro").await.unwrap();
    assert_eq!(kind(made.open.write(0, Bytes::from_static(b"x")).await), Kind::ReadOnly);
    assert_eq!(ls(&w.root(&peer(ANN)).await).await.unwrap(), "", "a capability is no grant");
    let status = w.own_read(&format!("{n}/status")).await;
    for line in [
        "capability good",
        "name /p",
        "access ro",
        &format!("to {ANN}"),
        "uses_left 2",
        "max_bytes unlimited",
        "in_use 1",
    ] {
        assert!(status.lines().any(|l| l == line), "{line}: {status}");
    }

    let e = w.attach(&peer(BOB), &cap).await.err().unwrap();
    assert_eq!(
        e.to_string(),
        format!("the capability of export {n} is for another peer; ask for one made \"to\" this node")
    );
    let unknown = w.attach(&peer(BOB), "cap/99#00000000000000000000000000000000").await.err().unwrap();
    let wrong = format!("cap/{n}#00000000000000000000000000000000");
    assert_eq!(w.attach(&peer(BOB), &wrong).await.err().unwrap(), unknown, "nothing tells which exports there are");
    assert_eq!(unknown.kind(), Kind::NotFound);
    assert_eq!(kind(w.attach(&Caller::none(), &cap).await), Kind::NotFound);

    w.attach(&peer(ANN), &cap).await.unwrap();
    w.attach(&peer(ANN), &cap).await.unwrap();
    let e = w.attach(&peer(ANN), &cap).await.err().unwrap();
    assert_eq!(
        (e.kind(), e.to_string()),
        (Kind::Exhausted, format!("the capability of export {n} is used up after 3 uses; ask for another"))
    );
    assert!(dir.getattr().await.is_ok(), "what is in use goes on");
    w.own(&format!("{n}/ctl"), "to bob").await.unwrap();
    assert_eq!(kind(dir.getattr().await), Kind::Expired, "it is another's now");
}

#[tokio::test]
async fn at_home_the_owner_uses_its_own_capability() {
    let w = World::new();
    let (n, cap) = w.export("bind HOME/photos /p").await;
    for caller in [owner(), peer(ME)] {
        assert_eq!(read(&w.attach(&caller, &cap).await.unwrap(), "a").await.unwrap(), "alpha");
    }
    w.own(&format!("{n}/ctl"), &format!("to {ME}")).await.unwrap();
    assert!(w.attach(&owner(), &cap).await.is_ok());
    assert_eq!(kind(w.attach(&peer(ANN), &cap).await), Kind::Denied);
}

#[tokio::test]
async fn a_capability_taken_back_is_felt_at_once() {
    for take_back in ["revoke", "free", "rmdir"] {
        let w = World::new();
        let (n, cap) = w.export("bind HOME/photos /p").await;
        let dir = w.attach(&peer(ANN), &cap).await.unwrap();
        let file = open_at(&dir, "a", OpenFlags::RDWR).await.unwrap();
        let listing = dir.open(OpenFlags::RDONLY).await.unwrap();
        match take_back {
            "rmdir" => {
                let root = w.tree.attach(&owner(), "").await.unwrap();
                root.unlink(&names(&n)[0], true).await.unwrap();
            }
            verb => w.own(&format!("{n}/ctl"), verb).await.unwrap(),
        }
        let want = format!("export {n} was taken back by its owner; ask for another");
        for (call, e) in [
            ("read", file.read(0, 1).await.err()),
            ("write", file.write(0, Bytes::from_static(b"x")).await.err()),
            ("fsync", file.fsync(false).await.err()),
            ("flush", file.flush().await.err()),
            ("readdir", listing.readdir(0, 9).await.err()),
            ("getattr", dir.getattr().await.err()),
            ("walk", walk(&dir, "a").await.err()),
            ("open", dir.open(OpenFlags::RDONLY).await.err()),
            ("create", dir.create(&names("z")[0], OpenFlags::RDWR, 0o600).await.err()),
            ("statfs", dir.statfs().await.err()),
            ("readlink", dir.readlink().await.err()),
            ("attach", w.attach(&peer(ANN), &cap).await.err()),
        ] {
            let e = e.unwrap_or_else(|| panic!("{take_back}: {call} went through"));
            assert_eq!((e.kind(), e.to_string()), (Kind::Expired, want.clone()), "{take_back}: {call}");
        }
        assert_eq!(fs::read_to_string(w.path("photos/a")).unwrap(), "alpha");
    }
}

#[tokio::test(start_paused = true)]
async fn a_capability_ends_in_time() {
    let w = World::new();
    let (n, cap) = w.export("bind HOME/photos /p;ttl 10").await;
    let dir = w.attach(&peer(ANN), &cap).await.unwrap();
    let file = open_at(&dir, "a", OpenFlags::RDONLY).await.unwrap();
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    assert!(file.read(0, 1).await.is_ok());
    w.own(&format!("{n}/ctl"), "ttl 20").await.unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(file.read(0, 1).await.is_ok(), "a longer time holds for what is open");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let e = file.read(0, 1).await.unwrap_err();
    assert_eq!(
        (e.kind(), e.to_string()),
        (Kind::Expired, format!("the capability of export {n} has expired; ask for another, with a longer ttl"))
    );
    assert_eq!(w.attach(&peer(ANN), &cap).await.err().unwrap(), e);
    assert!(w.own_read(&format!("{n}/status")).await.starts_with("capability expired\n"));
}

#[tokio::test]
async fn grants_outlive_the_node_and_capabilities_do_not() {
    let w = World::new();
    w.own("ctl", "grant ann /cpu ro;grant ann HOME/photos max=100").await.unwrap();
    let (kept, cap) = w.export("bind HOME/books /books;grant bob rw").await;
    let (lost, lost_cap) = w.export("bind HOME/photos /p").await;
    let grants = w.own_read("grants").await;
    assert_eq!(grants, format!("{ANN}\t/cpu\tro\t-\t-\n{ANN}\t/photos\tro\t100\t0\n{BOB}\t/books\trw\t-\t{kept}\n"));
    let file = w.path(".ipos/exports");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let World { home, cpu, exports, tree } = w;
    drop((exports, tree));
    let exports = start(home.path(), &cpu).unwrap();
    let w = World { tree: exports.tree(), exports, home, cpu };
    assert_eq!(w.own_read("grants").await, grants);
    assert_eq!(ls(&w.root(&peer(ANN)).await).await.unwrap(), "cpu photos");
    assert!(walk(&w.root(&peer(BOB)).await, "books").await.is_ok());
    for cap in [cap, lost_cap] {
        assert_eq!(kind(w.attach(&peer(ANN), &cap).await), Kind::NotFound);
    }
    let root = w.tree.attach(&owner(), "").await.unwrap();
    assert_eq!(kind(walk(&root, &lost).await), Kind::NotFound);
    assert_ne!(w.own_read("clone").await.trim(), kept, "a number that stands is not given again");
}

#[tokio::test]
async fn a_write_that_cannot_be_kept_changes_nothing() {
    let w = World::new();
    w.own("ctl", "grant ann /cpu").await.unwrap();
    fs::create_dir(w.path(".ipos/exports.new")).unwrap();
    assert!(w.own("ctl", "revoke ann /cpu").await.is_err());
    assert!(w.own("ctl", "grant bob /cpu").await.is_err());
    assert!(walk(&w.root(&peer(ANN)).await, "cpu").await.is_ok());
    assert_eq!(w.own_read("grants").await.lines().count(), 1);
    fs::remove_dir(w.path(".ipos/exports.new")).unwrap();
    w.own("ctl", "revoke ann /cpu").await.unwrap();
    fs::write(w.path(".ipos/exports"), "ipos exports 1\nnonsense\n").unwrap();
    let e = start(w.home.path(), &w.cpu).err().unwrap();
    assert!(e.to_string().contains(".ipos/exports: line 2: neither export, grant nor end"), "{e}");
    assert_eq!(fs::read_to_string(w.path(".ipos/exports")).unwrap(), "ipos exports 1\nnonsense\n");
}

#[tokio::test]
async fn refusals_are_told_in_error_and_the_tree_is_the_owners() {
    let w = World::new();
    let e = w.own("ctl", "grant carl /cpu").await.unwrap_err();
    assert_eq!(w.own_read("error").await, format!("{e}\n"));
    let n = w.own_read("clone").await.trim().to_owned();
    for (line, want) in [
        ("bind HOME/none /p", "none: No such file or directory"),
        ("bind HOME/photos/a /p", "photos/a is not a directory; bind the directory it lies in"),
        ("bind HOME/.ipos /p", "this node's keys and state; those are not shown"),
        ("bind HOME /p", "this node's keys and state; bind a directory inside it"),
        ("bind HOME/photos /cpu", "/cpu is one of this node's own trees; choose another name"),
    ] {
        let e = w.own(&format!("{n}/ctl"), line).await.unwrap_err();
        assert!(e.to_string().contains(want), "{line}: {e}");
        assert_eq!(w.own_read(&format!("{n}/error")).await, format!("{e}\n"));
    }
    w.exports.mounted(&w.path("photos"));
    let e = w.own(&format!("{n}/ctl"), "bind HOME/photos/sub /p").await.unwrap_err();
    assert!(e.to_string().contains("is in this node's own tree; write \"grant WHO /TREE\" to export/ctl"), "{e}");
    assert!(w.own_read(&format!("{n}/status")).await.starts_with("capability new\n"));
    let outside = w.tree.attach(&peer(ANN), "").await.unwrap();
    for path in ["ctl", "grants", "clone", &format!("{n}/cap")] {
        assert_eq!(kind(read(&outside, path).await), Kind::Denied, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_export_never_used_goes_by_itself() {
    let w = World::new();
    let unused = w.own_read("clone").await.trim().to_owned();
    let (used, _) = w.export("bind HOME/photos /p").await;
    tokio::time::sleep(fs_tree::IDLE * 2).await;
    let root = w.tree.attach(&owner(), "").await.unwrap();
    assert_eq!(kind(walk(&root, &unused).await), Kind::NotFound);
    assert!(walk(&root, &used).await.is_ok());
}

#[tokio::test]
async fn a_link_put_in_the_way_leads_nowhere() {
    let w = World::new();
    w.own("ctl", "grant ann HOME/photos rw;grant ann HOME/photos/sub").await.unwrap();
    let World { home, cpu, exports, tree } = w;
    drop((exports, tree));
    let exports = start(home.path(), &cpu).unwrap();
    let w = World { tree: exports.tree(), exports, home, cpu };
    // What ann may do in photos, before anybody has looked at sub since the start.
    let root = w.root(&peer(ANN)).await;
    let photos = walk(&root, "photos").await.unwrap();
    let n = |name: &str| names(name).remove(0);
    photos.rename(&n("sub"), &photos, &n("old")).await.unwrap();
    photos.symlink(&n("sub"), b"../.ipos").await.unwrap();
    let e = walk(&root, "sub").await.err().unwrap();
    assert_eq!(e.kind(), Kind::Denied);
    assert!(e.to_string().contains("photos/sub leads elsewhere now: a symbolic link stands in the way"), "{e}");
    assert_eq!(ls(&root).await.unwrap(), "photos sub", "it is listed, and walking to it says what is wrong");
}

/// Over the wire as between two nodes.
#[tokio::test]
async fn revocation_is_felt_over_a_connection() {
    let w = World::new();
    w.own("ctl", "grant ann /cpu").await.unwrap();
    let (here, there) = tokio::io::duplex(1 << 16);
    let server = fs_ninep::serve(here, w.exports.outside(), peer(ANN), fs_ninep::Limits::default());
    let server = tokio::spawn(server);
    let client = fs_ninep::Client::connect(there, fs_ninep::ClientConfig::default()).await.unwrap();
    let root = client.attach("", "").await.unwrap();
    assert_eq!(ls(&root).await.unwrap(), "cpu");
    assert_eq!(kind(walk(&root, "photos").await), Kind::NotFound);
    let event = open_at(&root, "cpu/event", OpenFlags::RDONLY).await.unwrap();
    let waiting = tokio::spawn(async move { event.read(0, 100).await });
    assert_eq!(read(&root, "cpu/info").await.unwrap(), format!("{ANN} Info\n"));
    w.own("ctl", "revoke ann /cpu").await.unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
    assert_eq!(kind(cut), Kind::Expired);
    assert_eq!(ls(&root).await.unwrap(), "");

    let (n, cap) = w.export("bind HOME/photos /p;to ann").await;
    let dir = client.attach("", &cap).await.unwrap();
    assert_eq!(read(&dir, "sub/b").await.unwrap(), "beta");
    w.own(&format!("{n}/ctl"), "free").await.unwrap();
    let e = client.attach("", &cap).await.err().unwrap();
    assert_eq!(
        (e.kind(), e.to_string()),
        (Kind::Expired, format!("export {n} was taken back by its owner; ask for another"))
    );
    assert_eq!(kind(dir.getattr().await), Kind::Expired);
    drop((client, root, dir));
    server.abort();
}

#[tokio::test]
async fn one_use_is_one_attach_however_many_come_at_once() {
    let w = World::new();
    let (n, cap) = w.export("bind HOME/photos /p").await;
    for round in 0..20 {
        // A new limit opens the directory anew: every attach waits for that, and then they are many.
        w.own(&format!("{n}/ctl"), &format!("uses 1;max {}", 1000 + round)).await.unwrap();
        let (outside, ann) = (w.exports.outside(), peer(ANN));
        let tries = futures::future::join_all((0..8).map(|_| outside.attach(&ann, &cap))).await;
        let refused: Vec<Kind> = tries.into_iter().filter_map(|t| t.err()).map(|e| e.kind()).collect();
        assert_eq!(refused, [Kind::Exhausted; 7]);
    }
}

#[tokio::test]
async fn a_write_given_up_is_done_or_not_and_the_file_agrees() {
    let w = World::new();
    for n in 0..50 {
        let write = w.own("ctl", if n % 2 == 0 { "grant ann /cpu" } else { "revoke ann /cpu" });
        let polls = n % 5;
        let mut write = Box::pin(write);
        for _ in 0..polls {
            if futures::poll!(write.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(write);
    }
    // The writer that may still be at work goes before this one.
    w.own("ctl", "grant bob /cpu").await.unwrap();
    let told = w.own_read("grants").await;
    let kept = start(w.home.path(), &w.cpu).unwrap();
    let root = kept.tree().attach(&owner(), "").await.unwrap();
    assert_eq!(read(&root, "grants").await.unwrap(), told);
}

#[tokio::test]
async fn a_secret_is_in_cap_and_nowhere_else() {
    let w = World::new();
    let (n, cap) = w.export("bind HOME/photos /p;grant ann").await;
    let secret = cap.split_once('#').unwrap().1.to_owned();
    assert_eq!(secret.len(), 32);
    for path in ["grants", "error", &format!("{n}/ctl"), &format!("{n}/grants"), &format!("{n}/status")] {
        assert!(!w.own_read(path).await.contains(&secret), "{path}");
    }
    assert!(!fs::read_to_string(w.path(".ipos/exports")).unwrap().contains(&secret));
    w.own(&format!("{n}/ctl"), "free").await.unwrap();
    let e = w.attach(&peer(ANN), &cap).await.err().unwrap();
    assert!(!e.to_string().contains(&secret));
}
