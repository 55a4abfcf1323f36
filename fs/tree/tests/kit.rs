//! Every rule of the kit, on a small service that has a file of each kind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Caller, DirEntry, Error, File, Identity, Kind, Name, OpenFile, OpenFlags, PeerId, Result, SetAttr,
    SetTime, Tree,
};
use fs_tree::*;
use futures::FutureExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Q {
    Root,
    Info,
    Secret,
    Event,
    Ctl,
    Error,
    Query,
    Clone,
    Log,
    Job,
    JobCtl,
    JobNote,
    JobError,
    JobIn,
    JobSpecial,
    Names,
    Name,
    Other,
}

#[rustfmt::skip]
const TREE: &[Row<Q>] = &[
    dir    ("",                Q::Root,       0o555),
    value  ("info",            Q::Info,       0o444),
    value  ("secret",          Q::Secret,     0o600),
    stream ("event",           Q::Event,      0o444),
    ctl    ("ctl",             Q::Ctl,        0o220),
    error  ("error",           Q::Error,      0o444),
    rpc    ("query",           Q::Query,      0o666),
    clone  ("clone",           Q::Clone,      0o666),
    log    ("log",             Q::Log,        0o444),
    dir    ("{n}",             Q::Job,        0o500),
    ctl    ("{n}/ctl",         Q::JobCtl,     0o600),
    value  ("{n}/note",        Q::JobNote,    0o600),
    error  ("{n}/error",       Q::JobError,   0o400),
    stream ("{n}/in",          Q::JobIn,      0o600),
    special("{n}/special",     Q::JobSpecial, 0o600),
    dir    ("names",           Q::Names,      0o555),
    value  ("names/{name}",    Q::Name,       0o444),
    graft  ("other",           Q::Other,      0o555),
];

/// One record of what the service was asked to do.
#[derive(Default)]
struct Demo {
    did: Mutex<Vec<String>>,
    info: Mutex<String>,
    jobs: Mutex<Vec<(String, Identity, String)>>,
    names: Mutex<Vec<String>>,
    events: Events,
    log: Mutex<Option<Arc<Memory>>>,
    made: AtomicUsize,
    asked: AtomicUsize,
    hidden: Mutex<Option<Q>>,
    other: Mutex<Option<Arc<dyn File>>>,
}

impl Demo {
    fn did(&self, what: impl ToString) {
        self.did.lock().unwrap().push(what.to_string());
    }

    fn job<T>(&self, key: &str, then: impl FnOnce(&mut (String, Identity, String)) -> T) -> Result<T> {
        let mut jobs = self.jobs.lock().unwrap();
        jobs.iter_mut().find(|j| j.0 == key).map(then).ok_or(Kind::NotFound.into())
    }
}

struct Special;

impl OpenFile for Special {
    fn read(&self, _: u64, _: u32) -> Call<'_, Bytes> {
        Box::pin(async { Ok("special".into()) })
    }
}

impl Service for Demo {
    type Q = Q;
    const TREE: &'static [Row<Q>] = TREE;

    fn list<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Vec<String>> {
        Box::pin(async move {
            match at.q {
                Q::Job => Ok(self.jobs.lock().unwrap().iter().map(|j| j.0.clone()).collect()),
                Q::Name => Ok(self.names.lock().unwrap().clone()),
                q => panic!("{q:?} is no list"),
            }
        })
    }

    fn owner(&self, at: &At<Q>) -> Option<Identity> {
        at.keys.first().and_then(|k| self.job(k, |j| j.1.clone()).ok())
    }

    fn visible(&self, at: &At<Q>) -> bool {
        *self.hidden.lock().unwrap() != Some(at.q)
    }

    fn read<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Bytes> {
        Box::pin(async move {
            match at.q {
                Q::Info => Ok(self.info.lock().unwrap().clone().into()),
                Q::Secret => Ok("hush\n".into()),
                Q::JobNote => self.job(at.key(), |j| j.2.clone().into()),
                Q::JobCtl => Ok(format!("{}\n", at.key()).into()),
                Q::Name => Ok(format!("<{}>\n", at.key()).into()),
                _ => Err(Kind::NotSupported.into()),
            }
        })
    }

    fn write<'a>(&'a self, at: &'a At<Q>, lines: &'a [Line]) -> Call<'a, ()> {
        Box::pin(async move {
            if let Some(bad) = lines.iter().find(|l| l.words[0] == "bad") {
                return Err(Error::new(Kind::Invalid, format!("{}: no such verb", bad.text)));
            }
            let all: Vec<String> = lines.iter().map(|l| l.words.join("|")).collect();
            self.did(format!("{:?} {}: {}", at.q, at.key(), all.join("; ")));
            Ok(())
        })
    }

    fn set<'a>(&'a self, at: &'a At<Q>, text: Bytes) -> Call<'a, ()> {
        Box::pin(async move {
            if text.starts_with(b"bad") {
                return Err(Error::new(Kind::Invalid, "bad is no note"));
            }
            self.job(at.key(), |j| j.2 = String::from_utf8_lossy(&text).into_owned())
        })
    }

    fn log(&self, _: &At<Q>) -> Result<Arc<dyn Log>> {
        Ok(self.log.lock().unwrap().get_or_insert_with(|| Arc::new(Memory::new(16))).clone())
    }

    fn stream(&self, _: &At<Q>) -> Result<Box<dyn Records>> {
        Ok(self.events.subscribe())
    }

    fn ask<'a>(&'a self, _: &'a At<Q>, request: Bytes) -> Call<'a, Bytes> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            match &request[..] {
                b"bad" => Err(Error::new(Kind::Invalid, "bad question")),
                b"slow" => std::future::pending().await,
                r => Ok(r.to_ascii_uppercase().into()),
            }
        })
    }

    fn make<'a>(&'a self, at: &'a At<Q>) -> Call<'a, String> {
        Box::pin(async move {
            if self.jobs.lock().unwrap().len() >= 3 {
                return Err(Error::new(Kind::Again, "3 jobs of 3 in use; free one"));
            }
            let n = self.made.fetch_add(1, Ordering::Relaxed).to_string();
            self.jobs.lock().unwrap().push((n.clone(), at.caller.identity.clone(), String::new()));
            Ok(n)
        })
    }

    fn idle(&self, at: &At<Q>) {
        self.did(format!("idle {}", at.key()));
        if self.job(at.key(), |j| j.2.is_empty()).unwrap_or(false) {
            self.jobs.lock().unwrap().retain(|j| j.0 != at.key());
        }
    }

    fn remove<'a>(&'a self, at: &'a At<Q>) -> Call<'a, ()> {
        Box::pin(async move {
            match at.q {
                Q::Job if self.job(at.key(), |j| j.2 == "busy")? => Err(Error::new(Kind::Busy, "it is running")),
                Q::Job => {
                    self.jobs.lock().unwrap().retain(|j| j.0 != at.key());
                    Ok(())
                }
                _ => Err(Kind::ReadOnly.into()),
            }
        })
    }

    fn open<'a>(&'a self, _: &'a At<Q>, _: OpenFlags) -> Call<'a, Arc<dyn OpenFile>> {
        Box::pin(async { Ok(Arc::new(Special) as Arc<dyn OpenFile>) })
    }

    fn len(&self, _: &At<Q>) -> u64 {
        7
    }

    fn graft<'a>(&'a self, _: &'a At<Q>) -> Call<'a, Arc<dyn File>> {
        Box::pin(async { self.other.lock().unwrap().clone().ok_or(Kind::Unreachable.into()) })
    }
}

/// A served demo, and three who look at it.
struct World {
    demo: Arc<Demo>,
    tree: Arc<dyn Tree>,
    /// What the caller under test keeps open, so that nothing turns idle by itself.
    root: Arc<dyn File>,
}

fn me() -> Caller {
    Caller::owner(nix::unistd::getuid().as_raw())
}

fn ann() -> Caller {
    Caller::peer(PeerId::new("ann"))
}

fn bob() -> Caller {
    Caller::peer(PeerId::new("bob"))
}

async fn world() -> World {
    let demo = Arc::new(Demo::default());
    let tree = serve(demo.clone());
    let root = tree.attach(&me(), "").await.unwrap();
    World { demo, tree, root }
}

impl World {
    async fn by(&self, caller: Caller) -> World {
        let root = self.tree.attach(&caller, "").await.unwrap();
        World { demo: self.demo.clone(), tree: self.tree.clone(), root }
    }

    async fn at(&self, path: &str) -> Result<Arc<dyn File>> {
        self.root.walk(&Name::path(path).unwrap()).await.end
    }

    async fn open(&self, path: &str, flags: u32) -> Result<Arc<dyn OpenFile>> {
        self.at(path).await?.open(OpenFlags(flags)).await
    }

    async fn attr(&self, path: &str) -> Attr {
        self.at(path).await.unwrap().getattr().await.unwrap()
    }

    async fn cat(&self, path: &str) -> String {
        match self.open(path, 0).await {
            Err(e) => format!("! {e}"),
            Ok(open) => text(&*open, 0).await,
        }
    }

    /// `echo TEXT > path`, as a shell does it: opened to be cut, written, closed.
    async fn echo(&self, path: &str, text: &str) -> Result<()> {
        let open = self.open(path, 0o1001).await?;
        open.write(0, Bytes::copy_from_slice(text.as_bytes())).await?;
        open.flush().await
    }

    async fn ls(&self, path: &str) -> String {
        let Ok(open) = self.open(path, 0).await else { return "!".into() };
        names(&open.readdir(0, 100).await.unwrap())
    }

    fn did(&self) -> String {
        std::mem::take(&mut *self.demo.did.lock().unwrap()).join(" / ")
    }
}

fn names(entries: &[DirEntry]) -> String {
    entries.iter().map(|e| e.name.to_string()).collect::<Vec<_>>().join(" ")
}

async fn text(open: &dyn OpenFile, from: u64) -> String {
    String::from_utf8(open.read(from, 4096).await.unwrap().to_vec()).unwrap()
}

fn kind<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|e| e.kind())
}

#[tokio::test]
async fn the_synopsis() {
    assert_eq!(paths(TREE).len(), TREE.len() - 1);
    assert_eq!(&paths(TREE)[8..10], ["{n}", "{n}/ctl"]);
}

#[tokio::test]
async fn walks() {
    let w = world().await;
    *w.demo.names.lock().unwrap() = vec!["a/b".into(), "ctl".into()];
    for (path, outcome) in [
        ("", "1"),
        ("info", "1"),
        ("names/a%2Fb", "2"),
        ("names/..", "2"),
        ("names/../..", "3"),
        ("names/../../info", "4"),
        ("moon", "0 file does not exist"),
        ("names/moon", "1 file does not exist"),
        ("names/a%2fb", "1 file does not exist"),
        ("info/x", "1 not a directory"),
        ("info/..", "1 not a directory"),
        ("{n}", "0 file does not exist"),
        ("7", "0 file does not exist"),
        ("names/{name}", "1 file does not exist"),
    ] {
        let names = Name::path(path).unwrap();
        let walk = w.root.walk(&names).await;
        let got = match walk.end {
            Ok(file) => {
                let last = walk.qids.last().copied().unwrap_or(w.root.qid());
                assert_eq!(file.qid(), last, "{path}");
                assert_eq!(file.server(), w.root.server());
                format!("{}", names.len().max(1))
            }
            Err(e) => format!("{} {e}", walk.qids.len()),
        };
        assert_eq!(got, outcome, "{path}");
    }
    assert_eq!(kind(w.tree.attach(&me(), "other").await), Some(Kind::NotFound));
    assert_eq!(kind(w.root.walk(&[Name::new(&b"\xff"[..]).unwrap()]).await.end), Some(Kind::NotFound));
}

#[tokio::test]
async fn qids_are_stable_live_and_never_shared() {
    let w = world().await;
    *w.demo.names.lock().unwrap() = vec!["a".into(), "b".into()];
    let mut seen = std::collections::HashSet::new();
    for path in ["", "info", "names", "names/a", "names/b", "event"] {
        let qid = w.at(path).await.unwrap().qid();
        assert_eq!((qid.version, qid.is_dir()), (0, matches!(path, "" | "names")), "{path}");
        assert_eq!(qid, w.by(ann()).await.at(path).await.unwrap().qid(), "{path}");
        assert!(seen.insert(qid.path), "{path}");
    }
    assert_ne!(world().await.root.server(), w.root.server());
}

#[tokio::test]
async fn attributes() {
    let w = world().await;
    *w.demo.info.lock().unwrap() = "four\n".into();
    w.demo.log(&At { q: Q::Log, keys: vec![], caller: me() }).unwrap();
    w.demo.log.lock().unwrap().as_ref().unwrap().append(b"a line\n");
    let _job = w.by(ann()).await.open("clone", 0).await.unwrap();
    w.demo.job("0", |j| j.2 = "xyz".into()).unwrap();
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    for (path, mode, size, owner) in [
        ("", 0o040555, 0, (uid, gid)),
        ("info", 0o100444, 5, (uid, gid)),
        ("secret", 0o100600, 5, (uid, gid)),
        ("event", 0o100444, 0, (uid, gid)),
        ("ctl", 0o100220, 0, (uid, gid)),
        ("clone", 0o100666, 0, (uid, gid)),
        ("log", 0o100444, 7, (uid, gid)),
        ("0", 0o040500, 0, (65534, 65534)),
        ("0/ctl", 0o100600, 2, (65534, 65534)),
        ("0/note", 0o100600, 3, (65534, 65534)),
        ("0/special", 0o100600, 7, (65534, 65534)),
    ] {
        let a = w.attr(path).await;
        let (file, together) = w.root.walk_getattr(&Name::path(path).unwrap()).await.unwrap();
        assert_eq!((file.qid(), &together), (a.qid, &a), "{path}");
        assert_eq!((a.mode, a.size, (a.uid, a.gid), a.nlink), (mode, size, owner, 1), "{path}");
        assert_eq!(a.qid, w.at(path).await.unwrap().qid());
    }
    assert_eq!(w.by(bob()).await.attr("secret").await.size, 0, "who may not read it learns no size");
    let before = w.attr("info").await.mtime;
    assert_eq!(w.attr("info").await.mtime, before, "an unchanged text keeps its time");
    *w.demo.info.lock().unwrap() = "five\n".into();
    assert!(w.attr("info").await.mtime > before, "a changed one of the same length does not");
}

#[tokio::test]
async fn permissions() {
    let w = world().await;
    let _job = w.by(ann()).await.open("clone", 0).await.unwrap();
    for (who, path, flags, refused) in [
        (me(), "info", 0, None),
        (bob(), "info", 0, None),
        (me(), "info", 1, Some(Kind::Denied)),
        (me(), "secret", 0, None),
        (bob(), "secret", 0, Some(Kind::Denied)),
        (Caller::none(), "secret", 0, Some(Kind::Denied)),
        (me(), "ctl", 1, None),
        (me(), "ctl", 2, Some(Kind::Denied)),
        (ann(), "ctl", 1, Some(Kind::Denied)),
        (me(), "0/ctl", 2, None),
        (ann(), "0/ctl", 2, None),
        (bob(), "0/ctl", 0, Some(Kind::Denied)),
        (bob(), "0", 0, Some(Kind::Denied)),
        (me(), "0", 0, None),
        (me(), "0", 1, Some(Kind::IsDir)),
        (me(), "info", OpenFlags::DIRECTORY, Some(Kind::NotDir)),
    ] {
        let got = kind(w.by(who.clone()).await.open(path, flags).await);
        assert_eq!(got, refused, "{who:?} {path} {flags:o}");
    }
}

#[tokio::test]
async fn what_is_hidden_is_not_there() {
    let w = world().await;
    let before = w.at("info").await.unwrap();
    *w.demo.hidden.lock().unwrap() = Some(Q::Info);
    assert_eq!(kind(w.at("info").await), Some(Kind::NotFound));
    assert!(!w.ls("").await.contains("info"));
    assert_eq!(kind(before.getattr().await), Some(Kind::NotFound), "a handle does not outlive the permission");
    assert_eq!(kind(before.open(OpenFlags::RDONLY).await), Some(Kind::NotFound));
    *w.demo.hidden.lock().unwrap() = Some(Q::Root);
    assert_eq!(kind(w.tree.attach(&me(), "").await), Some(Kind::NotFound));
}

#[tokio::test]
async fn a_directory_that_is_gone_is_gone_for_its_handles() {
    let w = world().await;
    let job = w.open("clone", 0).await.unwrap();
    let (dir, ctl) = (w.at("0").await.unwrap(), w.at("0/ctl").await.unwrap());
    w.demo.jobs.lock().unwrap().clear();
    for file in [dir, ctl] {
        assert_eq!(kind(file.getattr().await), Some(Kind::NotFound));
        assert_eq!(kind(file.open(OpenFlags::RDONLY).await), Some(Kind::NotFound));
    }
    assert_eq!(text(&*job, 0).await, "0\n", "what is open stays readable");
}

#[tokio::test]
async fn a_value_is_one_snapshot_an_open() {
    let w = world().await;
    *w.demo.info.lock().unwrap() = "first\n".into();
    let open = w.open("info", 0).await.unwrap();
    *w.demo.info.lock().unwrap() = "second\n".into();
    assert_eq!(open.read(0, 3).await.unwrap(), "fir");
    assert_eq!(open.read(3, 100).await.unwrap(), "st\n");
    assert_eq!(open.read(6, 100).await.unwrap(), "");
    assert_eq!(open.read(u64::MAX, u32::MAX).await.unwrap(), "");
    assert_eq!(open.read(0, 100).await.unwrap(), "first\n");
    assert_eq!(kind(open.write(0, "x".into()).await), Some(Kind::BadFile));
    assert_eq!(w.cat("info").await, "second\n");
}

#[tokio::test]
async fn a_value_is_replaced_at_flush() {
    let w = world().await;
    let _job = w.open("clone", 0).await.unwrap();
    let note = w.open("0/note", 0o1002).await.unwrap();
    note.write(0, "two ".into()).await.unwrap();
    note.write(4, "parts".into()).await.unwrap();
    assert_eq!(w.cat("0/note").await, "");
    note.flush().await.unwrap();
    note.flush().await.unwrap();
    assert_eq!(w.cat("0/note").await, "two parts");
    w.echo("0/note", "").await.unwrap();
    assert_eq!(w.cat("0/note").await, "two parts", "nothing written, nothing set");
    assert_eq!(kind(w.echo("0/note", "bad").await), Some(Kind::Invalid));
    assert_eq!(w.cat("0/error").await, "bad is no note\n");
    let big = Bytes::from(vec![b'x'; TEXT_MAX]);
    note.write(0, big).await.unwrap();
    assert_eq!(kind(note.write(0, "y".into()).await), Some(Kind::MessageTooLong));
    drop(note);
    assert_eq!(w.cat("0/note").await, "two parts", "a lost connection sets nothing");
}

#[tokio::test]
async fn commands() {
    let w = world().await;
    for (writes, outcome) in [
        (&["go\n"] as &[&str], "Ctl : go"),
        (&["go 'a b' c\nstop\n"], "Ctl : go|a b|c; stop"),
        (&["g", "o\nst", "op\n"], "Ctl : go / Ctl : stop"),
        (&["\n \n"], ""),
        (&["go"], "Ctl : go"),
        (&["a\nb"], "Ctl : a / Ctl : b"),
        (&["a\nbad x\n"], "! bad x: no such verb"),
        (&["a\nbad"], "Ctl : a ! bad: no such verb"),
        (&["a 'b\n"], "! a 'b: a quote is not closed"),
        (&["a\0\n"], "! a command holds a NUL"),
    ] {
        let open = w.open("ctl", 0o1001).await.unwrap();
        let mut failed = String::new();
        for write in writes {
            if let Err(e) = open.write(99, Bytes::from_static(write.as_bytes())).await {
                failed = format!("! {e}");
            }
        }
        if let Err(e) = open.flush().await {
            failed = format!(" ! {e}");
        }
        let got = w.did() + &failed;
        assert_eq!(got, outcome, "{writes:?}");
        if let Some((_, why)) = got.split_once("! ") {
            assert_eq!(w.cat("error").await, format!("{why}\n"));
        }
    }
    let open = w.open("ctl", 1).await.unwrap();
    assert_eq!(kind(open.write(0, Bytes::from_static(b"\xff\n")).await), Some(Kind::Invalid));
    assert_eq!(w.cat("error").await, "a command is not UTF-8 text\n");
    w.echo("ctl", "fine\n").await.unwrap();
    assert_eq!(w.cat("error").await, "a command is not UTF-8 text\n", "success leaves it");
}

#[tokio::test]
async fn a_refused_write_takes_its_unfinished_line_along() {
    let w = world().await;
    let open = w.open("ctl", 1).await.unwrap();
    assert!(open.write(0, "bad\nhal".into()).await.is_err());
    open.write(0, "go\n".into()).await.unwrap();
    assert_eq!(w.did(), "Ctl : go");
}

#[tokio::test]
async fn an_unfinished_line_is_bounded() {
    let w = world().await;
    let open = w.open("ctl", 1).await.unwrap();
    open.write(0, "go ".into()).await.unwrap();
    open.write(0, vec![b'x'; TEXT_MAX - 3].into()).await.unwrap();
    assert_eq!(kind(open.write(0, "y".into()).await), Some(Kind::MessageTooLong));
    let mut long = b"a\n".to_vec();
    long.extend(vec![b'x'; TEXT_MAX + 1]);
    assert_eq!(kind(open.write(0, long.into()).await), Some(Kind::MessageTooLong));
    assert_eq!(w.did(), "", "nothing of a refused write is obeyed");
    open.write(0, "\n".into()).await.unwrap();
    assert_eq!(w.did().len(), "Ctl : go|".len() + TEXT_MAX - 3);
    assert!(w.cat("error").await.starts_with("a line or value over 65536 bytes"));
}

#[tokio::test]
async fn a_refusal_is_told_to_whom_it_was_given() {
    let w = world().await;
    let (a, b) = (w.by(ann()).await, w.by(bob()).await);
    let (_x, _y) = (a.open("clone", 0).await.unwrap(), b.open("clone", 0).await.unwrap());
    assert!(a.echo("0/ctl", "bad a\n").await.is_err());
    assert!(b.echo("1/ctl", "bad b\n").await.is_err());
    assert_eq!(a.cat("0/error").await, "bad a: no such verb\n");
    assert_eq!(b.cat("1/error").await, "bad b: no such verb\n");
    assert_eq!(a.attr("0/error").await.size, 20);
    assert_eq!(w.cat("0/error").await, "");
    assert_eq!(a.cat("error").await, "");
}

#[tokio::test]
async fn create_opens_what_is_there() {
    let w = world().await;
    let create = |name: &str, flags: u32| {
        let (root, name) = (w.root.clone(), Name::new(name.to_owned()).unwrap());
        async move { root.create(&name, OpenFlags(flags), 0o644).await }
    };
    let made = create("ctl", 0o1101).await.unwrap();
    made.open.write(0, "go\n".into()).await.unwrap();
    assert_eq!((w.did(), made.file.qid()), ("Ctl : go".into(), w.at("ctl").await.unwrap().qid()));
    for (name, flags, expect) in [
        ("ctl", 0o301, Kind::Exists),
        ("moon", 0o101, Kind::ReadOnly),
        ("names", 0o101, Kind::IsDir),
        ("info", 0o101, Kind::Denied),
    ] {
        assert_eq!(kind(create(name, flags).await), Some(expect), "{name}");
    }
    let mkdir = |name: &'static str| {
        let root = w.root.clone();
        async move { kind(root.mkdir(&Name::new(name).unwrap(), 0o755).await) }
    };
    assert_eq!((mkdir("names").await, mkdir("moon").await), (Some(Kind::Exists), Some(Kind::ReadOnly)));
    let (info, new) = (Name::new("info").unwrap(), Name::new("new").unwrap());
    assert_eq!(kind(w.root.rename(&info, &w.root, &new).await), Some(Kind::ReadOnly));
    assert_eq!(kind(w.root.symlink(&new, b"info").await), Some(Kind::ReadOnly));
}

#[tokio::test]
async fn setattr_means_nothing_and_says_so() {
    let w = world().await;
    let now = SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() };
    let size = |n| SetAttr { size: Some(n), ..SetAttr::default() };
    let mode = |m| SetAttr { mode: Some(m), ..SetAttr::default() };
    for (path, set, refused) in [
        ("ctl", size(0), None),
        ("ctl", size(1), Some(Kind::Invalid)),
        ("info", size(0), Some(Kind::Denied)),
        ("names", size(0), Some(Kind::IsDir)),
        ("info", now, None),
        ("info", mode(0o444), None),
        ("info", mode(0o644), Some(Kind::NotPermitted)),
        ("info", SetAttr { uid: Some(12345), ..now }, Some(Kind::NotPermitted)),
        ("info", SetAttr { gid: Some(12345), ..now }, Some(Kind::NotPermitted)),
    ] {
        assert_eq!(kind(w.at(path).await.unwrap().setattr(set).await), refused, "{path} {set:?}");
    }
}

#[tokio::test]
async fn directories() {
    let w = world().await;
    let fixed = "info secret event ctl error query clone log names other";
    assert_eq!(w.ls("").await, fixed);
    let open = w.open("", 0).await.unwrap();
    let first = open.readdir(0, 4).await.unwrap();
    let _job = w.open("clone", 0).await.unwrap();
    let rest = open.readdir(first[3].cookie, 100).await.unwrap();
    assert_eq!(format!("{} {}", names(&first), names(&rest)), fixed, "one listing from start to end");
    assert_eq!(names(&open.readdir(first[1].cookie, 2).await.unwrap()), "event ctl", "a cookie can be used again");
    let end = rest.last().unwrap().cookie;
    for _ in 0..2 {
        assert!(open.readdir(end, 9).await.unwrap().is_empty());
        assert!(open.readdir(u64::MAX, 9).await.unwrap().is_empty());
    }
    assert_eq!(names(&open.readdir(0, 100).await.unwrap()), format!("{fixed} 0"), "rewinding lists anew");
    for entry in open.readdir(0, 100).await.unwrap() {
        if let Some(file) = entry.file {
            let attr = file.getattr().await.unwrap();
            assert_eq!((file.qid(), attr.qid), (entry.qid, entry.qid), "{}", entry.name);
            assert!(entry.attr.is_none_or(|a| a == attr), "{}", entry.name);
        }
    }
    assert_eq!(kind(open.read(0, 1).await), Some(Kind::IsDir));
    *w.demo.names.lock().unwrap() = vec!["a/b".into(), "x".repeat(300), "".into(), "..".into()];
    assert_eq!(w.ls("names").await, "a%2Fb % %2E%2E");
    for (path, content) in [("names/a%2Fb", "<a/b>\n"), ("names/%", "<>\n"), ("names/%2E%2E", "<..>\n")] {
        assert_eq!(w.cat(path).await, content);
    }
}

#[tokio::test]
async fn a_key_named_like_a_file() {
    let w = world().await;
    w.demo.jobs.lock().unwrap().push(("ctl".into(), Identity::None, "hidden?".into()));
    assert!(w.ls("").await.ends_with("%63tl"));
    assert_eq!(w.cat("%63tl/note").await, "hidden?");
    assert!(!w.at("ctl").await.unwrap().qid().is_dir());
}

#[tokio::test]
async fn logs() {
    let w = world().await;
    assert_eq!(w.cat("log").await, "");
    let log = w.demo.log.lock().unwrap().clone().unwrap();
    let (early, late) = (w.open("log", 0).await.unwrap(), w.open("log", 0).await.unwrap());
    log.append(b"one\ntwo\n");
    assert_eq!(text(&*early, 0).await, "one\ntwo\n");
    assert_eq!(text(&*early, 8).await, "");
    log.append(b"three\nfour\n");
    assert_eq!(w.attr("log").await.size, 19, "the length never shrinks");
    assert_eq!(text(&*early, 8).await, "three\nfour\n", "a follower misses nothing");
    assert_eq!(text(&*late, 0).await, "two\nthree\nfour\n", "a reader that begins at 0 begins at the oldest kept");
    assert_eq!(text(&*late, 15).await, "", "and comes to the end where its own count says");
    log.append(b"five\n");
    assert_eq!(text(&*late, 15).await, "five\n");
    assert_eq!(kind(w.open("log", 1).await), Some(Kind::Denied));
}

#[tokio::test]
async fn streams() {
    let w = world().await;
    let (a, b) = (w.open("event", 0).await.unwrap(), w.open("event", 0).await.unwrap());
    assert!(a.read(0, 100).now_or_never().is_none(), "waits");
    ["one", "two", "three"].into_iter().for_each(|r| w.demo.events.send(r));
    assert_eq!(a.read(77, 9).await.unwrap(), "one\ntwo\n", "whole records that fit");
    assert_eq!(a.read(0, 2).await.unwrap(), "th", "a larger one is split");
    assert_eq!(a.read(0, 0).await.unwrap(), "");
    assert_eq!(a.read(0, 100).await.unwrap(), "ree\n");
    assert_eq!(b.read(0, 100).await.unwrap(), "one\ntwo\nthree\n", "each fid has its own place");
    for _ in 0..3 {
        assert!(a.read(0, 100).now_or_never().is_none());
    }
    w.demo.events.send("four");
    assert_eq!(a.read(0, 100).await.unwrap(), "four\n", "dropped reads lose nothing");
    w.demo.events.end();
    assert_eq!(a.read(0, 100).await.unwrap(), "");
    assert_eq!(a.read(0, 100).await.unwrap(), "");
}

#[tokio::test]
async fn a_stream_opened_not_to_wait() {
    let w = world().await;
    let open = w.open("event", OpenFlags::NONBLOCK).await.unwrap();
    assert_eq!(open.read(0, 100).await.unwrap(), "");
    ["one", "two"].into_iter().for_each(|r| w.demo.events.send(r));
    assert_eq!(open.read(0, 5).await.unwrap(), "one\n");
    assert_eq!(open.read(0, 100).await.unwrap(), "two\n");
    assert_eq!(open.read(0, 100).await.unwrap(), "");
}

#[tokio::test]
async fn a_dialogue() {
    let w = world().await;
    let (open, other) = (w.open("query", 2).await.unwrap(), w.open("query", 2).await.unwrap());
    assert_eq!(text(&*open, 0).await, "", "no request, no reply");
    open.write(0, "hello".into()).await.unwrap();
    assert_eq!(text(&*other, 0).await, "");
    assert_eq!(open.read(5, 3).await.unwrap(), "HEL", "the offset, left by the write, means nothing");
    assert_eq!(open.read(8, 30).await.unwrap(), "LO");
    assert_eq!(text(&*open, 10).await, "");
    assert_eq!(text(&*open, 10).await, "");
    open.write(10, "again".into()).await.unwrap();
    assert_eq!(text(&*open, 15).await, "AGAIN");
    open.write(0, "bad".into()).await.unwrap();
    assert_eq!(kind(open.read(0, 9).await), Some(Kind::Invalid));
    assert_eq!((text(&*open, 0).await, w.cat("error").await), ("".into(), "bad question\n".into()));
    open.write(0, "slow".into()).await.unwrap();
    assert!(open.read(0, 9).now_or_never().is_none());
    open.write(0, "quick".into()).now_or_never().expect("a write never waits").unwrap();
    assert_eq!(text(&*open, 0).await, "QUICK");
    assert_eq!(w.demo.asked.load(Ordering::Relaxed), 5);
    let refused = open.write(0, vec![0; TEXT_MAX + 1].into()).await;
    assert_eq!(kind(refused), Some(Kind::MessageTooLong));
    assert_eq!(kind(w.open("query", 0).await.unwrap().write(0, "x".into()).await), Some(Kind::BadFile));
    assert_eq!(kind(w.open("query", 1).await.unwrap().read(0, 1).await), Some(Kind::BadFile));
}

#[tokio::test]
async fn clone_makes_a_directory_and_becomes_its_ctl() {
    let w = world().await;
    let a = w.by(ann()).await;
    assert_eq!(a.cat("clone").await, "0\n");
    let fid = a.open("clone", 2).await.unwrap();
    assert_eq!(
        (text(&*fid, 0).await, text(&*fid, 2).await, text(&*fid, 0).await),
        ("1\n".into(), "".into(), "1\n".into())
    );
    fid.write(2, "go x\n".into()).await.unwrap();
    assert_eq!(w.did(), "JobCtl 1: go|x");
    assert!(fid.write(0, "bad\n".into()).await.is_err());
    assert_eq!(a.cat("1/error").await, "bad: no such verb\n");
    assert_eq!(a.ls("1").await, "ctl note error in special");
    assert_eq!(a.cat("1/ctl").await, "1\n");
    assert_eq!(a.cat("1/special").await, "special");
    assert_eq!(a.cat("clone").await, "2\n");
    assert_eq!(kind(a.open("clone", 0).await), Some(Kind::Again));
    assert_eq!(a.cat("error").await, "3 jobs of 3 in use; free one\n");
}

#[tokio::test]
async fn a_file_without_a_position_has_an_end() {
    let w = world().await;
    let fid = w.open("clone", 2).await.unwrap();
    let mut reads = Vec::new();
    for _ in 0..6 {
        reads.push(String::from_utf8(fid.read(0, 1).await.unwrap().to_vec()).unwrap());
    }
    assert_eq!(reads, ["0", "\n", "", "0", "\n", ""], "as a shell reads, a byte at a time, at offset 0 each time");
    assert_eq!(fid.read(1, 9).await.unwrap(), "\n", "a position that is given counts");
    let only_read = w.open("0/ctl", 0).await.unwrap();
    assert_eq!((text(&*only_read, 0).await, text(&*only_read, 0).await), ("0\n".into(), "0\n".into()));
}

#[tokio::test]
async fn removal_is_the_owners() {
    let w = world().await;
    let (a, b) = (w.by(ann()).await, w.by(bob()).await);
    for _ in 0..3 {
        a.open("clone", 0).await.unwrap();
    }
    w.demo.job("1", |j| j.2 = "busy".into()).unwrap();
    *w.demo.names.lock().unwrap() = vec!["x".into()];
    for (who, path, dir, outcome) in [
        (&b, "0", true, Some(Kind::Denied)),
        (&a, "0", false, Some(Kind::IsDir)),
        (&a, "info", true, Some(Kind::NotDir)),
        (&a, "info", false, Some(Kind::ReadOnly)),
        (&w, "names", true, Some(Kind::ReadOnly)),
        (&w, "names/x", false, Some(Kind::ReadOnly)),
        (&a, "7", true, Some(Kind::NotFound)),
        (&a, "1", true, Some(Kind::Busy)),
        (&a, "0", true, None),
        (&a, "0", true, Some(Kind::NotFound)),
        (&w, "2", true, None),
    ] {
        let (dir_path, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = who.at(dir_path).await.unwrap();
        assert_eq!(kind(parent.unlink(&Name::new(name.to_owned()).unwrap(), dir).await), outcome, "{path}");
    }
    assert_eq!(a.cat("error").await, "it is running\n");
    w.demo.job("1", |j| j.2 = String::new()).unwrap();
    assert_eq!(kind(b.at("1").await.unwrap().remove().await), Some(Kind::Denied));
    a.at("1").await.unwrap().remove().await.unwrap();
    assert!(w.demo.jobs.lock().unwrap().is_empty());
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_made_directory_turns_idle_60_s_after_its_last_close() {
    let w = world().await;
    let fid = w.open("clone", 0).await.unwrap();
    pass(100).await;
    assert_eq!(w.did(), "", "it is open");
    drop(fid);
    pass(40).await;
    let special = w.open("0/special", 0).await.unwrap();
    pass(40).await;
    drop(special);
    pass(40).await;
    drop(w.open("0/in", 0).await.unwrap());
    pass(59).await;
    assert_eq!(w.did(), "", "every close begins anew");
    pass(2).await;
    assert_eq!(w.did(), "idle 0");
    assert_eq!(kind(w.at("0").await), Some(Kind::NotFound));

    drop(w.open("clone", 0).await.unwrap());
    w.echo("1/note", "used").await.unwrap();
    pass(61).await;
    assert_eq!(w.did(), "idle 1", "the service decides");
    w.at("1/ctl").await.unwrap();
    drop(w.open("1", 0).await.unwrap());
    pass(61).await;
    assert_eq!(w.did(), "idle 1", "and is asked again");

    drop(w.open("clone", 0).await.unwrap());
    w.root.unlink(&Name::new("2").unwrap(), true).await.unwrap();
    pass(61).await;
    assert_eq!(w.did(), "", "what was removed is not idle");
}

#[tokio::test]
async fn grafts() {
    let (w, other) = (world().await, world().await);
    assert_eq!(kind(w.at("other").await), Some(Kind::Unreachable));
    *w.demo.other.lock().unwrap() = Some(other.root.clone());
    *other.demo.info.lock().unwrap() = "of the other\n".into();
    assert_eq!(w.cat("other/info").await, "of the other\n");
    let root = w.at("other").await.unwrap();
    assert_eq!((root.server(), root.qid()), (other.root.server(), other.root.qid()));
    assert_eq!(w.at("other/names").await.unwrap().server(), other.root.server());
    let walk = w.root.walk(&Name::path("other/names/moon").unwrap()).await;
    assert_eq!((walk.qids.len(), kind(walk.end)), (2, Some(Kind::NotFound)));
    let entries = w.root.open(OpenFlags::RDONLY).await.unwrap().readdir(0, 100).await.unwrap();
    let graft = entries.iter().find(|e| e.name.as_bytes() == b"other").unwrap();
    assert!(graft.qid.is_dir() && graft.file.is_none(), "a listing enters no graft");
}
