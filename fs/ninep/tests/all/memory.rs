//! A tree in memory with one file of each temper: plain, live event, control, and names that are slow to walk to.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Caller, Created, DirEntry, Error, File, Kind, Name, OpenFile, OpenFlags, Qid, QidType, Result,
    ServerId, SetAttr, Tree, VALUE_IOUNIT, Walk,
};
use tokio::sync::{Notify, Semaphore};

pub struct Memory {
    root: Arc<Node>,
    pub shared: Arc<Shared>,
}

/// What tests look at and turn.
pub struct Shared {
    server: ServerId,
    next_path: AtomicU64,
    /// Walks to `slow` take one permit each.
    pub gate: Semaphore,
    pub events: Mutex<VecDeque<Bytes>>,
    pub event: Notify,
    /// Whole lines that `ctl` obeyed.
    pub lines: Mutex<Vec<String>>,
    /// Open handles now.
    pub open: AtomicUsize,
    /// Reads that wait on `event` now.
    pub waiting: AtomicUsize,
}

enum Body {
    Dir(BTreeMap<Name, Arc<Node>>),
    Plain(Vec<u8>, u32),
    Link(Bytes),
    Event,
    Ctl,
    Value,
}

pub struct Node {
    path: u64,
    mode: Mutex<u32>,
    body: Mutex<Body>,
    parent: Mutex<Weak<Node>>,
    shared: Arc<Shared>,
}

struct Handle(Arc<Node>);

struct Open {
    node: Arc<Node>,
    partial: Mutex<String>,
}

impl Memory {
    /// `a/b/c`, `big` (100,000 bytes), `empty/`, `event`, `ctl`, `link`, `ro/locked` (mode 0), `slow`, `text`.
    pub fn new() -> Arc<Memory> {
        let shared = Arc::new(Shared {
            server: ServerId::fresh(),
            next_path: AtomicU64::new(1),
            gate: Semaphore::new(0),
            events: Mutex::default(),
            event: Notify::new(),
            lines: Mutex::default(),
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        });
        let root = Node::new(&shared, Body::Dir(BTreeMap::new()), 0o755);
        let dir = || Body::Dir(BTreeMap::new());
        let a = root.add("a", dir(), 0o755);
        a.add("b", dir(), 0o755).add("c", Body::Plain(b"deep\n".to_vec(), 1), 0o644);
        root.add("big", Body::Plain((0..100_000u32).map(|i| (i % 251) as u8).collect(), 1), 0o644);
        root.add("empty", dir(), 0o755);
        root.add("event", Body::Event, 0o444);
        root.add("ctl", Body::Ctl, 0o666);
        root.add("link", Body::Link(Bytes::from_static(b"a/b")), 0o777);
        root.add("ro", dir(), 0o555).add("locked", Body::Plain(vec![], 1), 0);
        root.add("slow", Body::Plain(b"at last\n".to_vec(), 1), 0o644);
        root.add("text", Body::Plain(b"hello\n".to_vec(), 1), 0o644);
        Arc::new(Memory { root, shared })
    }

    pub fn root(&self) -> Arc<dyn File> {
        Arc::new(Handle(self.root.clone()))
    }

    pub fn add_value(&self) {
        self.root.add("value", Body::Value, 0o666);
    }

    pub fn fill(&self, dir: &str, files: usize) {
        let node = self.root.child(dir.as_bytes()).unwrap();
        for i in 0..files {
            node.add(&format!("file{i:05}"), Body::Plain(vec![0; i], 1), 0o644);
        }
    }

    pub fn post(&self, event: &str) {
        self.shared.events.lock().unwrap().push_back(Bytes::from(event.to_owned()));
        self.shared.event.notify_waiters();
    }
}

impl Tree for Memory {
    fn attach<'a>(&'a self, _caller: &'a Caller, aname: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            match aname {
                "" => Ok(self.root()),
                "moon" => Err(Error::new(Kind::NotFound, "no way to the moon; try \"\"")),
                _ => Err(Kind::NotFound.into()),
            }
        })
    }
}

impl Node {
    fn new(shared: &Arc<Shared>, body: Body, mode: u32) -> Arc<Node> {
        let path = shared.next_path.fetch_add(1, Relaxed);
        let (mode, body, parent) = (Mutex::new(mode), Mutex::new(body), Mutex::default());
        Arc::new(Node { path, mode, body, parent, shared: shared.clone() })
    }

    fn add(self: &Arc<Node>, name: &str, body: Body, mode: u32) -> Arc<Node> {
        let child = Node::new(&self.shared, body, mode);
        self.put(Name::new(name.to_owned()).unwrap(), child.clone());
        child
    }

    fn put(self: &Arc<Node>, name: Name, child: Arc<Node>) {
        *child.parent.lock().unwrap() = Arc::downgrade(self);
        if let Body::Dir(d) = &mut *self.body.lock().unwrap() {
            d.insert(name, child);
        }
    }

    fn child(&self, name: &[u8]) -> Result<Arc<Node>> {
        match &*self.body.lock().unwrap() {
            Body::Dir(d) => d.get(&Name::walk(name.to_vec())?).cloned().ok_or(Kind::NotFound.into()),
            _ => Err(Kind::NotDir.into()),
        }
    }

    fn name_of(&self, child: &Arc<Node>) -> Option<Name> {
        match &*self.body.lock().unwrap() {
            Body::Dir(d) => d.iter().find(|(_, n)| Arc::ptr_eq(n, child)).map(|(name, _)| name.clone()),
            _ => None,
        }
    }

    fn take(&self, name: &Name, dir: Option<bool>) -> Result<Arc<Node>> {
        let child = self.child(name.as_bytes())?;
        let empty = match &*child.body.lock().unwrap() {
            Body::Dir(d) => Some(d.is_empty()),
            _ => None,
        };
        match (empty, dir) {
            (Some(_), Some(false)) => return Err(Kind::IsDir.into()),
            (None, Some(true)) => return Err(Kind::NotDir.into()),
            (Some(false), _) => return Err(Kind::NotEmpty.into()),
            _ => {}
        }
        self.cut(name);
        Ok(child)
    }

    fn cut(&self, name: &Name) {
        if let Body::Dir(d) = &mut *self.body.lock().unwrap() {
            d.remove(name);
        }
    }

    fn writable(&self) -> Result<()> {
        if *self.mode.lock().unwrap() & 0o200 == 0 { Err(Kind::Denied.into()) } else { Ok(()) }
    }

    fn qid(&self) -> Qid {
        let (ty, version) = match &*self.body.lock().unwrap() {
            Body::Dir(_) => (QidType::DIR, 1),
            Body::Plain(_, version) => (QidType::FILE, *version),
            Body::Link(_) => (QidType::SYMLINK, 1),
            Body::Event | Body::Ctl | Body::Value => (QidType::FILE, 0),
        };
        Qid { ty, version, path: self.path }
    }

    fn attr(&self) -> Attr {
        let (ty, size) = match &*self.body.lock().unwrap() {
            Body::Dir(_) => (Attr::DIR, 0),
            Body::Plain(data, _) => (Attr::REGULAR, data.len()),
            Body::Link(target) => (Attr::SYMLINK, target.len()),
            Body::Event | Body::Ctl | Body::Value => (Attr::REGULAR, 0),
        };
        Attr { qid: self.qid(), mode: ty | *self.mode.lock().unwrap(), nlink: 1, size: size as u64, ..Attr::default() }
    }
}

fn ready<'a, T: Send + 'a>(result: Result<T>) -> Call<'a, T> {
    Box::pin(std::future::ready(result))
}

impl Handle {
    fn open_now(&self, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        let mode = *self.0.mode.lock().unwrap();
        if (flags.reads() && mode & 0o400 == 0) || (flags.writes() && mode & 0o200 == 0) {
            return Err(Error::new(Kind::Denied, format!("mode {mode:o} does not allow it")));
        }
        if let (Body::Plain(data, version), true) = (&mut *self.0.body.lock().unwrap(), flags.has(OpenFlags::TRUNC)) {
            data.clear();
            *version += 1;
        }
        self.0.shared.open.fetch_add(1, Relaxed);
        Ok(Arc::new(Open { node: self.0.clone(), partial: Mutex::default() }))
    }

    fn make(&self, name: &Name, body: Body, mode: u32) -> Result<Arc<Node>> {
        self.0.writable()?;
        if self.0.child(name.as_bytes()).is_ok() {
            return Err(Kind::Exists.into());
        }
        let node = Node::new(&self.0.shared, body, mode);
        self.0.put(name.clone(), node.clone());
        Ok(node)
    }

    fn parent(&self) -> Result<Arc<Node>> {
        self.0.parent.lock().unwrap().upgrade().ok_or(Kind::Stale.into())
    }
}

fn node(file: &Arc<dyn File>) -> Result<&Handle> {
    file.as_any().downcast_ref::<Handle>().ok_or(Kind::CrossDevice.into())
}

impl File for Handle {
    fn server(&self) -> ServerId {
        self.0.shared.server
    }

    fn qid(&self) -> Qid {
        self.0.qid()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(async move {
            let (mut at, mut qids) = (self.0.clone(), Vec::new());
            for name in names {
                if name.as_bytes() == b"slow" {
                    match self.0.shared.gate.acquire().await {
                        Ok(permit) => permit.forget(),
                        Err(_) => return Walk::stopped(qids, Kind::Io),
                    }
                }
                let up = at.parent.lock().unwrap().upgrade();
                let next = if name.is_parent() { Ok(up.unwrap_or(at.clone())) } else { at.child(name.as_bytes()) };
                match next {
                    Ok(next) => at = next,
                    Err(e) if e.kind() == Kind::NotFound => {
                        return Walk::stopped(qids, Error::new(Kind::NotFound, format!("no {name} here")));
                    }
                    Err(e) => return Walk::stopped(qids, e),
                }
                qids.push(at.qid());
            }
            Walk { qids, end: Ok(Arc::new(Handle(at))) }
        })
    }

    fn getattr(&self) -> Call<'_, Attr> {
        ready(Ok(self.0.attr()))
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        ready(self.open_now(flags))
    }

    fn create<'a>(&'a self, name: &'a Name, flags: OpenFlags, mode: u32) -> Call<'a, Created> {
        ready((|| {
            let node = match self.make(name, Body::Plain(vec![], 1), mode) {
                Err(e) if e.kind() == Kind::Exists && !flags.has(OpenFlags::EXCL) => self.0.child(name.as_bytes())?,
                other => other?,
            };
            let file = Arc::new(Handle(node));
            let open = file.open_now(flags)?;
            Ok(Created { file, open })
        })())
    }

    fn mkdir<'a>(&'a self, name: &'a Name, mode: u32) -> Call<'a, Arc<dyn File>> {
        ready(self.make(name, Body::Dir(BTreeMap::new()), mode).map(|n| Arc::new(Handle(n)) as _))
    }

    fn symlink<'a>(&'a self, name: &'a Name, target: &'a [u8]) -> Call<'a, Arc<dyn File>> {
        let body = Body::Link(Bytes::copy_from_slice(target));
        ready(self.make(name, body, 0o777).map(|n| Arc::new(Handle(n)) as _))
    }

    fn readlink(&self) -> Call<'_, Bytes> {
        ready(match &*self.0.body.lock().unwrap() {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Kind::Invalid.into()),
        })
    }

    fn unlink<'a>(&'a self, name: &'a Name, dir: bool) -> Call<'a, ()> {
        ready(self.0.writable().and_then(|()| self.0.take(name, Some(dir)).map(drop)))
    }

    fn remove(&self) -> Call<'_, ()> {
        ready((|| {
            let parent = self.parent()?;
            let name = parent.name_of(&self.0).ok_or(Kind::NotFound)?;
            parent.writable()?;
            parent.take(&name, None).map(drop)
        })())
    }

    fn rename<'a>(&'a self, old: &'a Name, dir: &'a Arc<dyn File>, new: &'a Name) -> Call<'a, ()> {
        ready((|| {
            let child = self.0.child(old.as_bytes())?;
            let to = node(dir)?;
            self.0.cut(old);
            to.0.put(new.clone(), child);
            Ok(())
        })())
    }

    fn rename_self<'a>(&'a self, dir: Option<&'a Arc<dyn File>>, new: &'a Name) -> Call<'a, ()> {
        ready((|| {
            let parent = self.parent()?;
            let name = parent.name_of(&self.0).ok_or(Kind::NotFound)?;
            let to = dir.map_or(Ok(parent.clone()), |d| node(d).map(|h| h.0.clone()))?;
            parent.cut(&name);
            to.put(new.clone(), self.0.clone());
            Ok(())
        })())
    }

    fn setattr(&self, set: SetAttr) -> Call<'_, ()> {
        if let Some(mode) = set.mode {
            *self.0.mode.lock().unwrap() = mode;
        }
        if let (Some(size), Body::Plain(data, version)) = (set.size, &mut *self.0.body.lock().unwrap()) {
            data.resize(size as usize, 0);
            *version += 1;
        }
        ready(Ok(()))
    }
}

impl OpenFile for Open {
    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        let shared = &self.node.shared;
        match &*self.node.body.lock().unwrap() {
            Body::Plain(data, _) => {
                let start = (offset as usize).min(data.len());
                let end = (start + count as usize).min(data.len());
                ready(Ok(Bytes::copy_from_slice(&data[start..end])))
            }
            Body::Event => Box::pin(async move {
                let _waiting = Count::up(&shared.waiting);
                loop {
                    let woken = shared.event.notified();
                    if let Some(mut event) = shared.events.lock().unwrap().pop_front() {
                        event.truncate(count as usize);
                        return Ok(event);
                    }
                    woken.await;
                }
            }),
            _ => ready(Ok(Bytes::new())),
        }
    }

    fn write(&self, offset: u64, new: Bytes) -> Call<'_, u32> {
        let len = new.len();
        match &mut *self.node.body.lock().unwrap() {
            Body::Plain(data, version) => {
                let (start, end) = (offset as usize, offset as usize + len);
                if data.len() < end {
                    data.resize(end, 0);
                }
                data[start..end].copy_from_slice(&new);
                *version += 1;
                ready(Ok(len as u32))
            }
            Body::Ctl => {
                let mut partial = self.partial.lock().unwrap();
                partial.push_str(&String::from_utf8_lossy(&new));
                while let Some(end) = partial.find('\n') {
                    let line: String = partial.drain(..=end).collect();
                    self.node.shared.lines.lock().unwrap().push(line.trim_end().to_owned());
                }
                ready(Ok(len as u32))
            }
            Body::Value => {
                self.partial.lock().unwrap().push_str(&String::from_utf8_lossy(&new));
                ready(Ok(len as u32))
            }
            _ => ready(Err(Kind::BadFile.into())),
        }
    }

    fn iounit(&self) -> u32 {
        if matches!(*self.node.body.lock().unwrap(), Body::Value) { VALUE_IOUNIT } else { 0 }
    }

    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        let body = self.node.body.lock().unwrap();
        let Body::Dir(d) = &*body else { return ready(Err(Kind::NotDir.into())) };
        let entries = d.iter().enumerate().skip(cookie as usize).take(entries_max);
        let entry = |(i, (name, node)): (usize, (&Name, &Arc<Node>))| {
            let file = Some(Arc::new(Handle(node.clone())) as _);
            DirEntry { name: name.clone(), qid: node.qid(), cookie: i as u64 + 1, attr: Some(node.attr()), file }
        };
        ready(Ok(entries.map(entry).collect()))
    }

    fn flush(&self) -> Call<'_, ()> {
        let rest = std::mem::take(&mut *self.partial.lock().unwrap());
        if rest.trim_end() == "bad" {
            return ready(Err(Error::new(Kind::Invalid, "\"bad\" is no command")));
        }
        if !rest.is_empty() {
            self.node.shared.lines.lock().unwrap().push(rest);
        }
        ready(Ok(()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.node.shared.open.fetch_sub(1, Relaxed);
    }
}

struct Count<'a>(&'a AtomicUsize);

impl Count<'_> {
    fn up(n: &AtomicUsize) -> Count<'_> {
        n.fetch_add(1, Relaxed);
        Count(n)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
