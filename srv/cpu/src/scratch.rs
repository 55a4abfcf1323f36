//! A job's private scratch space: a tree in memory that goes with the job.
//!
//! Every byte, and [`INODE_BYTES`] for each file, counts against the job's disk limit. One lock covers the whole tree: its
//! only user is one job, which makes one request at a time.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Created, DirEntry, File, Kind, Name, OpenFile, OpenFlags, Qid, QidType, Result, ServerId, SetAttr,
    SetTime, StatFs, Time, Walk,
};

/// What a file, directory or link costs beside its content, in bytes.
const INODE_BYTES: u64 = 512;

/// Directories below one another that can still be changed: what is deeper can only be read and removed.
const DEPTH_MAX: usize = 256;

/// Bytes of all scratch spaces of a node together: they are memory.
const TOTAL_MAX: u64 = 1 << 30;
/// A file's content is kept in pieces of this size; one that was never written is not kept.
const PIECE: usize = 4096;

/// What all scratch spaces of a node use together, in bytes.
pub type Total = Arc<AtomicU64>;

/// A scratch space.
pub struct Scratch {
    id: ServerId,
    next: AtomicU64,
    used: AtomicU64,
    max: AtomicU64,
    total: Total,
    tree: Mutex<()>,
}

struct Node {
    space: Arc<Scratch>,
    path: u64,
    state: Mutex<State>,
}

struct State {
    what: What,
    mode: u32,
    nlink: u64,
    version: u32,
    atime: Time,
    mtime: Time,
    ctime: Time,
}

enum What {
    Dir { names: BTreeMap<Name, Arc<Node>>, parent: Weak<Node> },
    File(Content),
    Link(Bytes),
}

/// A file's content: its length, and those pieces of it that were written.
#[derive(Default)]
struct Content {
    len: u64,
    pieces: BTreeMap<u64, Box<[u8; PIECE]>>,
}

/// Where the byte at `offset` stands: its piece, its place in it.
fn place(offset: u64) -> (u64, usize) {
    (offset / PIECE as u64, (offset % PIECE as u64) as usize)
}

impl Content {
    fn read(&self, offset: u64, count: u32) -> Bytes {
        let end = self.len.min(offset.saturating_add(u64::from(count)));
        let mut out = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap_or(0)];
        let mut done = 0;
        while done < out.len() {
            let (piece, from) = place(offset + done as u64);
            let n = (PIECE - from).min(out.len() - done);
            if let Some(piece) = self.pieces.get(&piece) {
                out[done..done + n].copy_from_slice(&piece[from..from + n]);
            }
            done += n;
        }
        out.into()
    }

    /// How many pieces a write of `count` bytes at `offset` adds.
    fn missing(&self, offset: u64, count: usize) -> u64 {
        let (first, last) = (place(offset).0, place(offset + count.saturating_sub(1) as u64).0);
        last - first + 1 - self.pieces.range(first..=last).count() as u64
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (piece, from) = place(offset + done as u64);
            let n = (PIECE - from).min(data.len() - done);
            let piece = self.pieces.entry(piece).or_insert_with(|| Box::new([0; PIECE]));
            piece[from..from + n].copy_from_slice(&data[done..done + n]);
            done += n;
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    /// Makes it `len` bytes long; gives how many pieces that took away.
    fn resize(&mut self, len: u64) -> u64 {
        let before = self.pieces.len();
        if len < self.len {
            let (last, from) = place(len);
            drop(self.pieces.split_off(&(last + u64::from(from > 0))));
            if let Some(piece) = self.pieces.get_mut(&last) {
                piece[from..].fill(0);
            }
        }
        self.len = len;
        (before - self.pieces.len()) as u64
    }
}

impl What {
    /// What it costs beside its inode.
    fn cost(&self) -> u64 {
        match self {
            What::Dir { .. } => 0,
            What::File(content) => (content.pieces.len() * PIECE) as u64,
            What::Link(target) => target.len() as u64,
        }
    }
}

impl Scratch {
    /// An empty space of at most `max` bytes, and as much as `total` leaves: its root.
    pub fn root(max: u64, total: Total) -> (Arc<Scratch>, Arc<dyn File>) {
        let space = Arc::new(Scratch {
            id: ServerId::fresh(),
            next: AtomicU64::new(1),
            used: AtomicU64::new(0),
            max: AtomicU64::new(max),
            total,
            tree: Mutex::new(()),
        });
        // The root costs nothing, so that a space of 0 bytes can be had.
        let root = space.node(What::Dir { names: BTreeMap::new(), parent: Weak::new() }, 0o777);
        space.used.fetch_add(INODE_BYTES, Ordering::Relaxed);
        space.total.fetch_add(INODE_BYTES, Ordering::Relaxed);
        (space, Arc::new(Handle(root)))
    }

    /// Changes the bound.
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Bytes used now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed).saturating_sub(INODE_BYTES)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes` more.
    fn charge(&self, bytes: u64) -> Result<()> {
        let max = self.max.load(Ordering::Relaxed).saturating_add(INODE_BYTES);
        let take = |from: &AtomicU64, max: u64| {
            let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= max);
            from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
        };
        if !take(&self.total, TOTAL_MAX) {
            return Err(Kind::NoSpace.into());
        }
        if !take(&self.used, max) {
            self.total.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Kind::NoSpace.into());
        }
        Ok(())
    }

    /// Gives `bytes` back.
    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn node(self: &Arc<Scratch>, what: What, mode: u32) -> Arc<Node> {
        let path = self.next.fetch_add(1, Ordering::Relaxed);
        let now = Time::now();
        let state = State { what, mode: mode & 0o7777, nlink: 1, version: 1, atime: now, mtime: now, ctime: now };
        Arc::new(Node { space: self.clone(), path, state: Mutex::new(state) })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let len = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).what.cost();
        self.space.release(INODE_BYTES + len);
        // One after the other: a deep tree would take as many stack frames if each node dropped its own.
        let mut left = self.take_children();
        while let Some(node) = left.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                left.append(&mut node.take_children());
            }
        }
    }
}

impl Node {
    fn take_children(&mut self) -> Vec<Arc<Node>> {
        match &mut self.state.get_mut().unwrap_or_else(PoisonError::into_inner).what {
            What::Dir { names, .. } => std::mem::take(names).into_values().collect(),
            _ => Vec::new(),
        }
    }

    /// The directories from this one up to the root, this one first.
    /// # Errors
    /// `NameTooLong` where there are more than [`DEPTH_MAX`].
    fn upward(self: &Arc<Node>) -> Result<Vec<Arc<Node>>> {
        let mut line = vec![self.clone()];
        loop {
            let last = &line[line.len() - 1];
            let next = last.parent();
            if Arc::ptr_eq(&next, last) {
                return Ok(line);
            }
            if line.len() == DEPTH_MAX {
                return Err(Kind::NameTooLong.into());
            }
            line.push(next);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn qid(&self) -> Qid {
        let state = self.state();
        let ty = match state.what {
            What::Dir { .. } => QidType::DIR,
            What::File(_) => QidType::FILE,
            What::Link(_) => QidType::SYMLINK,
        };
        Qid { ty, version: state.version, path: self.path }
    }

    fn attr(&self) -> Attr {
        let qid = self.qid();
        let state = self.state();
        let (ty, size) = match &state.what {
            What::Dir { names, .. } => (Attr::DIR, names.len() as u64),
            What::File(content) => (Attr::REGULAR, content.len),
            What::Link(target) => (Attr::SYMLINK, target.len() as u64),
        };
        Attr {
            qid,
            mode: ty | state.mode,
            nlink: state.nlink,
            size,
            blksize: 4096,
            blocks: size.div_ceil(512),
            atime: state.atime,
            mtime: state.mtime,
            ctime: state.ctime,
            ..Attr::default()
        }
    }

    fn child(&self, name: &Name) -> Result<Arc<Node>> {
        match &self.state().what {
            What::Dir { names, .. } => names.get(name).cloned().ok_or(Kind::NotFound.into()),
            _ => Err(Kind::NotDir.into()),
        }
    }

    fn parent(self: &Arc<Node>) -> Arc<Node> {
        match &self.state().what {
            What::Dir { parent, .. } => parent.upgrade().unwrap_or_else(|| self.clone()),
            _ => self.clone(),
        }
    }

    /// Works on the names of this directory.
    fn names<T>(&self, work: impl FnOnce(&mut BTreeMap<Name, Arc<Node>>) -> Result<T>) -> Result<T> {
        let mut state = self.state();
        let What::Dir { names, .. } = &mut state.what else { return Err(Kind::NotDir.into()) };
        let before = names.len();
        let done = work(names)?;
        let changed = names.len() != before;
        if changed {
            state.touch();
        }
        Ok(done)
    }

    /// Adds a new file of this kind under `name`.
    fn add(self: &Arc<Node>, name: &Name, what: What, mode: u32) -> Result<Arc<Node>> {
        if self.child(name).map_err(|e| e.kind()).err() != Some(Kind::NotFound) {
            self.names(|_| Ok(()))?;
            return Err(Kind::Exists.into());
        }
        if self.state().nlink == 0 {
            return Err(Kind::NotFound.into()); // a directory that was removed
        }
        if matches!(what, What::Dir { .. }) {
            self.upward()?;
        }
        self.space.charge(INODE_BYTES + what.cost())?;
        let node = self.space.node(what, mode);
        self.names(|names| {
            names.insert(name.clone(), node.clone());
            Ok(())
        })?;
        Ok(node)
    }

    /// Takes `name` out of this directory.
    fn remove(&self, name: &Name, dir: Option<bool>) -> Result<()> {
        let node = self.child(name)?;
        let is_dir = node.qid().is_dir();
        match dir {
            Some(true) if !is_dir => return Err(Kind::NotDir.into()),
            Some(false) if is_dir => return Err(Kind::IsDir.into()),
            _ => {}
        }
        if is_dir {
            node.names(|names| if names.is_empty() { Ok(()) } else { Err(Kind::NotEmpty.into()) })?;
        }
        self.names(|names| Ok(names.remove(name)))?;
        node.state().nlink -= 1;
        Ok(())
    }

    fn rename(self: &Arc<Node>, old: &Name, to: &Arc<Node>, new: &Name) -> Result<()> {
        let node = self.child(old)?;
        let is_dir = node.qid().is_dir();
        if to.upward()?.iter().any(|above| Arc::ptr_eq(above, &node)) {
            return Err(Kind::Invalid.into()); // a directory into itself
        }
        match to.child(new) {
            Ok(there) if Arc::ptr_eq(&there, &node) => return Ok(()),
            Ok(_) => to.remove(new, Some(is_dir))?,
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
        self.names(|names| Ok(names.remove(old)))?;
        if let What::Dir { parent, .. } = &mut node.state().what {
            *parent = Arc::downgrade(to);
        }
        to.names(|names| Ok(names.insert(new.clone(), node))).map(drop)
    }

    /// Makes the content `len` bytes long.
    fn resize(&self, len: u64) -> Result<()> {
        let mut state = self.state();
        let What::File(content) = &mut state.what else { return Err(Kind::IsDir.into()) };
        if i64::try_from(len).is_err() {
            return Err(Kind::TooBig.into());
        }
        self.space.release(content.resize(len) * PIECE as u64);
        state.touch();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8], append: bool) -> Result<u32> {
        let mut state = self.state();
        let What::File(content) = &mut state.what else { return Err(Kind::IsDir.into()) };
        if bytes.is_empty() {
            return Ok(0);
        }
        let offset = if append { content.len } else { offset };
        let end = offset.checked_add(bytes.len() as u64).filter(|end| i64::try_from(*end).is_ok());
        end.ok_or(fs_ninep::Error::from(Kind::TooBig))?;
        self.space.charge(content.missing(offset, bytes.len()) * PIECE as u64)?;
        content.write(offset, bytes);
        state.touch();
        Ok(bytes.len() as u32)
    }
}

impl State {
    fn touch(&mut self) {
        self.version = self.version.wrapping_add(1).max(1);
        self.mtime = Time::now();
        self.ctime = self.mtime;
    }
}

/// A file of the space.
struct Handle(Arc<Node>);

fn now<'a, T: Send + 'a>(result: Result<T>) -> Call<'a, T> {
    Box::pin(ready(result))
}

impl Handle {
    fn file(node: Arc<Node>) -> Arc<dyn File> {
        Arc::new(Handle(node))
    }

    /// The node of a handle of this very space.
    fn same<'a>(&self, file: &'a Arc<dyn File>) -> Result<&'a Arc<Node>> {
        let handle = file.as_any().downcast_ref::<Handle>().map(|h| &h.0);
        handle.filter(|node| node.space.id == self.0.space.id).ok_or(Kind::CrossDevice.into())
    }

    fn walk_now(&self, names: &[Name]) -> Walk {
        let _tree = self.0.space.lock();
        let mut at = self.0.clone();
        let mut qids = Vec::with_capacity(names.len());
        for name in names {
            let next = match name.is_parent() {
                true if at.qid().is_dir() => Ok(at.parent()),
                true => Err(Kind::NotDir.into()),
                false => at.child(name),
            };
            match next {
                Ok(node) => {
                    qids.push(node.qid());
                    at = node;
                }
                Err(e) => return Walk::stopped(qids, e),
            }
        }
        Walk { qids, end: Ok(Handle::file(at)) }
    }

    fn open_now(&self, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        let _tree = self.0.space.lock();
        let is_dir = self.0.qid().is_dir();
        match is_dir {
            true if flags.writes() => return Err(Kind::IsDir.into()),
            false if flags.has(OpenFlags::DIRECTORY) => return Err(Kind::NotDir.into()),
            false if self.0.qid().is_symlink() => return Err(Kind::Loop.into()),
            false if flags.has(OpenFlags::TRUNC) && flags.writes() => self.0.resize(0)?,
            _ => {}
        }
        Ok(Arc::new(Open { node: self.0.clone(), flags, listing: Mutex::default() }))
    }

    fn create_now(&self, name: &Name, flags: OpenFlags, mode: u32) -> Result<Created> {
        let node = {
            let _tree = self.0.space.lock();
            match self.0.child(name) {
                Ok(_) if flags.has(OpenFlags::EXCL) => return Err(Kind::Exists.into()),
                Ok(node) => node,
                Err(e) if e.kind() == Kind::NotFound => self.0.add(name, What::File(Content::default()), mode)?,
                Err(e) => return Err(e),
            }
        };
        let handle = Handle(node);
        let open = handle.open_now(flags)?;
        Ok(Created { file: Arc::new(handle), open })
    }

    fn link_now(&self, name: &Name, file: &Arc<dyn File>) -> Result<()> {
        let node = self.same(file)?;
        let _tree = self.0.space.lock();
        if node.qid().is_dir() {
            return Err(Kind::NotPermitted.into());
        }
        match self.0.child(name) {
            Ok(_) => return Err(Kind::Exists.into()),
            Err(e) if e.kind() != Kind::NotFound => return Err(e),
            Err(_) => {}
        }
        self.0.names(|names| Ok(names.insert(name.clone(), node.clone())))?;
        node.state().nlink += 1;
        Ok(())
    }

    fn setattr_now(&self, set: SetAttr) -> Result<()> {
        let _tree = self.0.space.lock();
        if let Some(size) = set.size {
            self.0.resize(size)?;
        }
        let mut state = self.0.state();
        let time = |set: SetTime| match set {
            SetTime::Now => Time::now(),
            SetTime::To(time) => time,
        };
        if let Some(mode) = set.mode {
            state.mode = mode & 0o7777;
        }
        if let Some(set) = set.atime {
            state.atime = time(set);
        }
        if let Some(set) = set.mtime {
            state.mtime = time(set);
        }
        state.ctime = Time::now();
        Ok(())
    }
}

impl File for Handle {
    fn server(&self) -> ServerId {
        self.0.space.id
    }

    fn qid(&self) -> Qid {
        self.0.qid()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(ready(self.walk_now(names)))
    }

    fn getattr(&self) -> Call<'_, Attr> {
        now(Ok(self.0.attr()))
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        now(self.open_now(flags))
    }

    fn create<'a>(&'a self, name: &'a Name, flags: OpenFlags, mode: u32) -> Call<'a, Created> {
        now(self.create_now(name, flags, mode))
    }

    fn mkdir<'a>(&'a self, name: &'a Name, mode: u32) -> Call<'a, Arc<dyn File>> {
        let _tree = self.0.space.lock();
        let what = What::Dir { names: BTreeMap::new(), parent: Arc::downgrade(&self.0) };
        now(self.0.add(name, what, mode).map(Handle::file))
    }

    fn symlink<'a>(&'a self, name: &'a Name, target: &'a [u8]) -> Call<'a, Arc<dyn File>> {
        let _tree = self.0.space.lock();
        now(self.0.add(name, What::Link(Bytes::copy_from_slice(target)), 0o777).map(Handle::file))
    }

    fn link<'a>(&'a self, name: &'a Name, file: &'a Arc<dyn File>) -> Call<'a, ()> {
        now(self.link_now(name, file))
    }

    fn readlink(&self) -> Call<'_, Bytes> {
        now(match &self.0.state().what {
            What::Link(target) => Ok(target.clone()),
            _ => Err(Kind::Invalid.into()),
        })
    }

    fn unlink<'a>(&'a self, name: &'a Name, dir: bool) -> Call<'a, ()> {
        let _tree = self.0.space.lock();
        now(self.0.remove(name, Some(dir)))
    }

    fn rename<'a>(&'a self, old: &'a Name, dir: &'a Arc<dyn File>, new: &'a Name) -> Call<'a, ()> {
        now(self.same(dir).and_then(|to| {
            let _tree = self.0.space.lock();
            self.0.rename(old, to, new)
        }))
    }

    fn setattr(&self, set: SetAttr) -> Call<'_, ()> {
        now(self.setattr_now(set))
    }

    fn statfs(&self) -> Call<'_, StatFs> {
        let max = self.0.space.max.load(Ordering::Relaxed);
        let free = max.saturating_sub(self.0.space.used()) / 4096;
        let (blocks, bsize, namelen) = (max / 4096, 4096, 255);
        now(Ok(StatFs { ty: 0x0102_1994, bsize, blocks, bfree: free, bavail: free, namelen, ..StatFs::default() }))
    }
}

/// One opening of a file or directory of the space.
struct Open {
    node: Arc<Node>,
    flags: OpenFlags,
    /// A directory's names as they were when the read began.
    listing: Mutex<Vec<(Name, Arc<Node>)>>,
}

impl OpenFile for Open {
    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        let _tree = self.node.space.lock();
        now(match &self.node.state().what {
            _ if !self.flags.reads() => Err(Kind::BadFile.into()),
            What::File(content) => Ok(content.read(offset, count)),
            _ => Err(Kind::IsDir.into()),
        })
    }

    fn write(&self, offset: u64, data: Bytes) -> Call<'_, u32> {
        let _tree = self.node.space.lock();
        now(match self.flags.writes() {
            true => self.node.write(offset, &data, self.flags.has(OpenFlags::APPEND)),
            false => Err(Kind::BadFile.into()),
        })
    }

    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        let _tree = self.node.space.lock();
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if cookie == 0 {
            match &self.node.state().what {
                What::Dir { names, .. } => *listing = names.iter().map(|(n, node)| (n.clone(), node.clone())).collect(),
                _ => return now(Err(Kind::NotDir.into())),
            }
        }
        let from = usize::try_from(cookie).unwrap_or(usize::MAX);
        let rest = listing.iter().enumerate().skip(from).take(entries_max);
        now(Ok(rest
            .map(|(i, (name, node))| DirEntry {
                name: name.clone(),
                qid: node.qid(),
                cookie: i as u64 + 1,
                attr: Some(node.attr()),
                file: Some(Handle::file(node.clone())),
            })
            .collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn room_is_taken_given_back_and_never_exceeded() {
        let (space, root) = Scratch::root(10_000, Total::default());
        let rdwr = OpenFlags::RDWR;
        let made = root.create(&name("a"), rdwr, 0o666).await.unwrap();
        made.open.write(0, vec![1; 4000].into()).await.unwrap();
        assert_eq!(space.used(), 4096 + 512);
        assert_eq!(made.open.write(4000, vec![1; 9000].into()).await.unwrap_err().kind(), Kind::NoSpace);
        assert_eq!(made.open.write(u64::MAX, vec![1].into()).await.unwrap_err().kind(), Kind::TooBig);
        // A terabyte that is a hole costs what is written into it.
        made.open.write(1 << 40, vec![2].into()).await.unwrap();
        assert_eq!(space.used(), 2 * 4096 + 512);
        assert_eq!(made.open.read((1 << 40) - 3, 9).await.unwrap(), [0, 0, 0, 2][..]);
        made.file.setattr(SetAttr { size: Some(10), ..SetAttr::default() }).await.unwrap();
        made.file.setattr(SetAttr { size: Some(12), ..SetAttr::default() }).await.unwrap();
        assert_eq!(made.open.read(8, 9).await.unwrap(), [1, 1, 0, 0][..], "what was cut off is gone");
        assert_eq!(space.used(), 4096 + 512);
        root.unlink(&name("a"), false).await.unwrap();
        assert_eq!(made.open.read(0, 9).await.unwrap().len(), 9, "an open file outlives its name");
        drop(made);
        assert_eq!(space.used(), 0);
        let mut files = 0;
        while root.create(&name(&files.to_string()), rdwr, 0o666).await.is_ok() {
            files += 1;
        }
        assert_eq!(files, 10_000 / INODE_BYTES);
        let (_, none) = Scratch::root(0, Total::default());
        assert_eq!(none.mkdir(&name("d"), 0o777).await.err().map(|e| e.kind()), Some(Kind::NoSpace));
    }

    #[tokio::test]
    async fn all_spaces_together_have_a_bound_too() {
        let total = Total::new(AtomicU64::new(TOTAL_MAX - 8_000));
        let (_space, first) = Scratch::root(u64::MAX, total.clone());
        let (_other, second) = Scratch::root(u64::MAX, total.clone());
        let hog = first.create(&name("hog"), OpenFlags::RDWR, 0o666).await.unwrap();
        hog.open.write(0, vec![1; 4096].into()).await.unwrap();
        let small = second.create(&name("small"), OpenFlags::RDWR, 0o666).await.unwrap();
        assert_eq!(small.open.write(0, vec![0; 4096].into()).await.unwrap_err().kind(), Kind::NoSpace);
        drop(hog);
        first.unlink(&name("hog"), false).await.unwrap();
        small.open.write(0, vec![0; 4096].into()).await.unwrap();
        drop((small, first, second));
        assert_eq!(total.load(Ordering::Relaxed), TOTAL_MAX - 8_000);
    }

    #[tokio::test]
    async fn names_move_as_rename_says() {
        let (_, root) = Scratch::root(1 << 20, Total::default());
        let a = root.mkdir(&name("a"), 0o777).await.unwrap();
        let b = a.mkdir(&name("b"), 0o777).await.unwrap();
        root.create(&name("f"), OpenFlags::RDWR, 0o666).await.unwrap();
        a.create(&name("g"), OpenFlags::RDWR, 0o666).await.unwrap();
        for (dir, old, to, new, expected) in [
            (&root, "a", &b, "x", Some(Kind::Invalid)),
            (&root, "a", &a, "x", Some(Kind::Invalid)),
            (&root, "f", &root, "a", Some(Kind::IsDir)),
            (&root, "a", &root, "f", Some(Kind::NotDir)),
            (&root, "nothing", &root, "f", Some(Kind::NotFound)),
            (&root, "f", &root, "f", None),
            (&root, "f", &a, "g", None),
            (&a, "b", &root, "b", None),
            (&root, "b", &a, "c", None),
        ] {
            let done = dir.rename(&name(old), to, &name(new)).await;
            assert_eq!(done.err().map(|e| e.kind()), expected, "{old} {new}");
        }
        let up = b.walk(&[Name::walk("..").unwrap(), name("g")]).await;
        assert!(up.end.is_ok(), "the parent of a moved directory is where it was moved");
        assert_eq!(root.unlink(&name("a"), true).await.unwrap_err().kind(), Kind::NotEmpty);
        let (_, other) = Scratch::root(1 << 20, Total::default());
        assert_eq!(a.rename(&name("g"), &other, &name("g")).await.unwrap_err().kind(), Kind::CrossDevice);
    }

    #[tokio::test]
    async fn a_deep_tree_ends_at_its_bound_and_one_made_deeper_by_renames_is_dropped_flat() {
        let (space, root) = Scratch::root(1 << 30, Total::default());
        let mut at = root.clone();
        let mut depth = 0;
        let refused = loop {
            match at.mkdir(&name("d"), 0o777).await {
                Ok(next) => at = next,
                Err(e) => break e.kind(),
            }
            depth += 1;
        };
        assert_eq!((depth, refused), (DEPTH_MAX, Kind::NameTooLong));
        for _ in 0..2_000 {
            // The whole tower under a new one of 100.
            let base = root.mkdir(&name("base"), 0o777).await.unwrap();
            let mut at = base.clone();
            for _ in 0..100 {
                at = at.mkdir(&name("d"), 0o777).await.unwrap();
            }
            root.rename(&name("d"), &at, &name("d")).await.unwrap();
            root.rename(&name("base"), &root, &name("d")).await.unwrap();
        }
        drop(at);
        root.unlink(&name("d"), true).await.unwrap_err();
        drop(root);
        assert_eq!(space.used.load(Ordering::Relaxed), 0);
    }
}
