//! A small tree on the traits: every kind of live file, directories that may be entered under two names, counters.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, DirEntry, Error, File, Kind, Name, OpenFile, OpenFlags, Qid, QidType, Result, ServerId, SetAttr, Walk,
};
use tokio::sync::watch;

/// What a file is.
pub enum Body {
    Dir(Mutex<BTreeMap<String, Arc<Node>>>),
    Value(Box<dyn Fn() -> Bytes + Send + Sync>),
    Ctl(Mutex<Vec<String>>),
    Event(Bus),
    Talk,
    Refuses(Kind),
}

/// One file.
pub struct Node {
    path: u64,
    version: AtomicU32,
    mode: u32,
    pub body: Body,
    /// What its server reads at a time, and half of which it gives at a time; 0: all.
    unit: u32,
    pub looks: AtomicUsize,
    pub reads: AtomicUsize,
    last_flags: AtomicU32,
}

/// Records for every reader from its opening on, and how many readers wait.
pub struct Bus {
    records: watch::Sender<Vec<Bytes>>,
    waiting: watch::Sender<usize>,
}

impl Bus {
    pub fn publish(&self, record: impl Into<Bytes>) {
        self.records.send_modify(|r| r.push(record.into()));
    }

    /// Blocks until exactly `n` reads wait.
    pub fn wait_for_readers(&self, n: usize) {
        let mut rx = self.waiting.subscribe();
        let wait = async { tokio::time::timeout(super::mounted::LONG, rx.wait_for(|w| *w == n)).await.map(drop) };
        let rt = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        rt.block_on(wait).unwrap_or_else(|_| panic!("{} readers wait, not {n}", *self.waiting.borrow()));
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

fn node(mode: u32, version: u32, body: Body) -> Arc<Node> {
    node_of(mode, version, body, 0)
}

fn node_of(mode: u32, version: u32, body: Body, unit: u32) -> Arc<Node> {
    let path = NEXT.fetch_add(1, Ordering::Relaxed);
    let version = AtomicU32::new(version);
    let (looks, reads, last_flags) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU32::new(0));
    Arc::new(Node { path, version, mode, body, unit, looks, reads, last_flags })
}

pub fn dir<const N: usize>(entries: [(&str, Arc<Node>); N]) -> Arc<Node> {
    let entries = entries.into_iter().map(|(name, node)| (name.to_owned(), node)).collect();
    node(Attr::DIR | 0o755, 0, Body::Dir(Mutex::new(entries)))
}

pub fn value(text: &'static str) -> Arc<Node> {
    rendered(move || Bytes::from_static(text.as_bytes()))
}

pub fn rendered(render: impl Fn() -> Bytes + Send + Sync + 'static) -> Arc<Node> {
    node(Attr::REGULAR | 0o444, 0, Body::Value(Box::new(render)))
}

/// A plain file: the kernel may cache it as long as `version` stays.
pub fn plain(version: u32, render: impl Fn() -> Bytes + Send + Sync + 'static) -> Arc<Node> {
    node(Attr::REGULAR | 0o644, version, Body::Value(Box::new(render)))
}

/// A plain file of a server that reads `unit` bytes at a time and gives half of that.
pub fn choppy(bytes: Bytes, unit: u32) -> Arc<Node> {
    node_of(Attr::REGULAR | 0o644, 7, Body::Value(Box::new(move || bytes.clone())), unit)
}

pub fn ctl() -> Arc<Node> {
    node(Attr::REGULAR | 0o660, 0, Body::Ctl(Mutex::default()))
}

pub fn event() -> Arc<Node> {
    let bus = Bus { records: watch::Sender::new(Vec::new()), waiting: watch::Sender::new(0) };
    node(Attr::REGULAR | 0o444, 0, Body::Event(bus))
}

pub fn talk() -> Arc<Node> {
    node(Attr::REGULAR | 0o660, 0, Body::Talk)
}

/// A file whose every opening, reading of attributes apart, fails with `kind`.
pub fn refuses(kind: Kind) -> Arc<Node> {
    node(Attr::REGULAR | 0o666, 0, Body::Refuses(kind))
}

impl Node {
    pub fn add(&self, name: &str, node: &Arc<Node>) {
        let Body::Dir(entries) = &self.body else { panic!("not a directory") };
        entries.lock().unwrap().insert(name.to_owned(), node.clone());
    }

    pub fn bus(&self) -> &Bus {
        let Body::Event(bus) = &self.body else { panic!("not an event file") };
        bus
    }

    pub fn lines(&self) -> Vec<String> {
        let Body::Ctl(lines) = &self.body else { panic!("not a control file") };
        std::mem::take(&mut *lines.lock().unwrap())
    }

    pub fn set_version(&self, version: u32) {
        self.version.store(version, Ordering::Relaxed);
    }

    pub fn opened_with(&self) -> OpenFlags {
        OpenFlags(self.last_flags.load(Ordering::Relaxed))
    }

    fn qid(&self) -> Qid {
        let ty = if matches!(self.body, Body::Dir(_)) { QidType::DIR } else { QidType::FILE };
        Qid { ty, version: self.version.load(Ordering::Relaxed), path: self.path }
    }

    fn attr(&self) -> Attr {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let size = match &self.body {
            Body::Value(render) => render().len() as u64,
            _ => 0,
        };
        Attr { qid: self.qid(), mode: self.mode, nlink: 1, size, ..Attr::default() }
    }
}

/// A tree's root, all of one server.
pub fn root(node: Arc<Node>) -> Arc<dyn File> {
    Arc::new(Handle { server: ServerId::fresh(), node })
}

struct Handle {
    server: ServerId,
    node: Arc<Node>,
}

impl Handle {
    fn step(&self, name: &Name) -> Result<Arc<Node>> {
        let Body::Dir(entries) = &self.node.body else { return Err(Kind::NotDir.into()) };
        let entries = entries.lock().unwrap();
        entries.get(name.as_str().unwrap_or("")).cloned().ok_or(Kind::NotFound.into())
    }

    fn entries(&self) -> Result<Vec<DirEntry>> {
        let Body::Dir(entries) = &self.node.body else { return Err(Kind::NotDir.into()) };
        let entries = entries.lock().unwrap();
        let entry = |(i, (name, node)): (usize, (&String, &Arc<Node>))| DirEntry {
            name: Name::new(name.clone()).unwrap(),
            qid: node.qid(),
            cookie: i as u64 + 1,
            attr: None,
            file: None,
        };
        Ok(entries.iter().enumerate().map(entry).collect())
    }
}

fn now<'a, T: Send + 'a>(result: Result<T>) -> Call<'a, T> {
    Box::pin(ready(result))
}

impl File for Handle {
    fn server(&self) -> ServerId {
        self.server
    }

    fn qid(&self) -> Qid {
        self.node.qid()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        let mut at = Handle { server: self.server, node: self.node.clone() };
        let mut qids = Vec::new();
        for name in names {
            match at.step(name) {
                Ok(node) => at.node = node,
                Err(e) => return Box::pin(ready(Walk::stopped(qids, e))),
            }
            qids.push(at.node.qid());
        }
        Box::pin(ready(Walk { qids, end: Ok(Arc::new(at)) }))
    }

    fn getattr(&self) -> Call<'_, Attr> {
        now(Ok(self.node.attr()))
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        self.node.last_flags.store(flags.0, Ordering::Relaxed);
        let (mut snapshot, mut seen) = (Bytes::new(), 0);
        match &self.node.body {
            Body::Value(_) if flags.writes() => return now(Err(Kind::Denied.into())),
            Body::Value(render) => snapshot = render(),
            Body::Event(bus) => seen = bus.records.borrow().len(),
            Body::Refuses(kind) => return now(Err((*kind).into())),
            _ => {}
        }
        let (seen, said) = (AtomicUsize::new(seen), watch::Sender::new(Bytes::new()));
        let entries = self.entries().unwrap_or_default();
        now(Ok(Arc::new(Opening { node: self.node.clone(), flags, snapshot, entries, seen, said })))
    }

    fn setattr(&self, set: SetAttr) -> Call<'_, ()> {
        let harmless = SetAttr { size: Some(0), ..SetAttr::default() };
        now(if set == harmless { Ok(()) } else { Err(Kind::Denied.into()) })
    }

    fn mkdir<'a>(&'a self, name: &'a Name, _mode: u32) -> Call<'a, Arc<dyn File>> {
        let made = dir([]);
        self.node.add(name.as_str().unwrap_or("?"), &made);
        now(Ok(Arc::new(Handle { server: self.server, node: made })))
    }
}

struct Opening {
    node: Arc<Node>,
    flags: OpenFlags,
    snapshot: Bytes,
    entries: Vec<DirEntry>,
    seen: AtomicUsize,
    said: watch::Sender<Bytes>,
}

struct Waiting<'a>(&'a Bus);

impl<'a> Waiting<'a> {
    fn new(bus: &'a Bus) -> Waiting<'a> {
        bus.waiting.send_modify(|n| *n += 1);
        Waiting(bus)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|n| *n -= 1);
    }
}

impl Opening {
    async fn next(&self, bus: &Bus) -> Result<Bytes> {
        let mut rx = bus.records.subscribe();
        let at = self.seen.load(Ordering::Relaxed);
        if rx.borrow().len() <= at && self.flags.has(OpenFlags::NONBLOCK) {
            return Ok(Bytes::new());
        }
        let waiting = Waiting::new(bus);
        let record = rx.wait_for(|r| r.len() > at).await.map_err(|_| Kind::Io)?[at].clone();
        drop(waiting);
        self.seen.store(at + 1, Ordering::Relaxed);
        Ok(record)
    }

    fn obey(&self, lines: &Mutex<Vec<String>>, data: &[u8]) -> Result<u32> {
        let text = std::str::from_utf8(data).map_err(|_| Kind::Invalid)?;
        if text.lines().any(|l| l.starts_with("bad")) {
            return Err(Error::new(Kind::Invalid, "no such verb: bad"));
        }
        lines.lock().unwrap().extend(text.lines().map(str::to_owned));
        Ok(data.len() as u32)
    }
}

impl OpenFile for Opening {
    fn iounit(&self) -> u32 {
        self.node.unit
    }

    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        self.node.reads.fetch_add(1, Ordering::Relaxed);
        match &self.node.body {
            Body::Value(_) => {
                let from = (offset as usize).min(self.snapshot.len());
                let count = if self.node.unit == 0 { count } else { count.min(self.node.unit.div_ceil(2)) };
                let to = (from + count as usize).min(self.snapshot.len());
                now(Ok(self.snapshot.slice(from..to)))
            }
            Body::Event(bus) => Box::pin(self.next(bus)),
            Body::Talk => Box::pin(async {
                let mut rx = self.said.subscribe();
                let said = rx.wait_for(|s| !s.is_empty()).await.map_err(|_| Kind::Io)?.clone();
                Ok(said)
            }),
            _ => now(Ok(Bytes::new())),
        }
    }

    fn write(&self, _offset: u64, data: Bytes) -> Call<'_, u32> {
        match &self.node.body {
            Body::Ctl(lines) => now(self.obey(lines, &data)),
            Body::Talk => {
                let n = data.len() as u32;
                self.said.send_replace(data);
                now(Ok(n))
            }
            _ => now(Err(Kind::BadFile.into())),
        }
    }

    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        now(Ok(self.entries.iter().skip(cookie as usize).take(entries_max).cloned().collect()))
    }
}
