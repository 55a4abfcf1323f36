//! A file of a host directory: where it stands, which file it is, and its descriptor while it has one.
//!
//! What may block says so. A node's place is a guess that is checked: `dir` and `name` found it once, and what is found
//! there again must be the same file.

use std::hash::BuildHasher;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use fs_ninep::{Attr, Error, Kind, Name, Qid, QidType, Result};
use nix::errno::Errno;

use crate::mounts::{self, MountKind};
use crate::quota::Held;
use crate::sys::{self, Stat, failed};
use crate::{DEPTH_MAX, Shared, lock};

/// How often a call begins again that lost a race with a change on the host.
pub(crate) const RACES_MAX: usize = 8;

pub(crate) struct Node {
    pub host: Arc<Shared>,
    ident: Ident,
    /// S_IFMT bits.
    ty: u32,
    mount: u64,
    kind: MountKind,
    depth: u32,
    path: u64,
    version: AtomicU32,
    place: Mutex<Option<Place>>,
    fd: Mutex<Option<Arc<Held>>>,
    /// Since the pool last looked.
    used: AtomicBool,
    /// The last opening for writing: a file may be cut through it after its mode forbids it.
    pub writer: Mutex<Weak<Held>>,
}

/// One file, of all that a host ever had.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ident {
    pub dev: u64,
    pub ino: u64,
    born: (i64, u32),
}

impl Ident {
    pub fn of(stat: &Stat) -> Ident {
        Ident { dev: stat.dev, ino: stat.ino, born: (stat.born.sec, stat.born.nsec) }
    }

    fn inode(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// Where a file was found; the root has none.
#[derive(Clone)]
pub(crate) struct Place {
    pub dir: Arc<Node>,
    pub name: Name,
}

impl Node {
    /// The root of a tree. Its descriptor stays open.
    pub fn root(host: Arc<Shared>, fd: OwnedFd, stat: Stat, kind: MountKind) -> Arc<Node> {
        let node = Arc::new(Node::bare(host, &stat, kind, None));
        *lock(&node.fd) = Some(Arc::new(Held::new(&node.host, fd, node.ident.inode())));
        node
    }

    fn bare(host: Arc<Shared>, stat: &Stat, kind: MountKind, place: Option<Place>) -> Node {
        let ident = Ident::of(stat);
        let path = host.hash.hash_one(ident);
        let version = AtomicU32::new(version(&host, stat, kind));
        let depth = place.as_ref().map_or(0, |p| p.dir.depth + 1);
        Node {
            host,
            ident,
            ty: stat.mode & Attr::TYPE,
            mount: stat.mount,
            kind,
            depth,
            path,
            version,
            place: Mutex::new(place),
            fd: Mutex::default(),
            used: AtomicBool::new(true),
            writer: Mutex::default(),
        }
    }

    /// The file of `fd`, which `name` of this directory led to.
    /// # Errors
    /// `Denied` for the root of a forbidden mount, `NameTooLong` below [`DEPTH_MAX`].
    pub fn child(self: &Arc<Node>, name: &Name, fd: OwnedFd) -> Result<(Arc<Node>, Stat)> {
        self.not_deepest()?;
        let stat = sys::stat_now(fd.as_fd()).map_err(failed)?;
        let kind = self.kind_of(&stat)?;
        let place = Place { dir: self.clone(), name: name.clone() };
        let node = Arc::new(Node::bare(self.host.clone(), &stat, kind, Some(place)));
        node.keep(fd);
        Ok((node, stat))
    }

    /// Refuses where nothing can stand any deeper.
    pub fn not_deepest(&self) -> Result<()> {
        match self.depth < DEPTH_MAX {
            true => Ok(()),
            false => Err(Error::new(Kind::NameTooLong, format!("{DEPTH_MAX} directories deep is as deep as it goes"))),
        }
    }

    fn kind_of(&self, stat: &Stat) -> Result<MountKind> {
        if stat.mount == self.mount { Ok(self.kind) } else { mounts::kind(stat.mount, &self.host.forbid) }
    }

    fn keep(self: &Arc<Node>, fd: OwnedFd) -> Arc<Held> {
        let held = Arc::new(Held::new(&self.host, fd, self.ident.inode()));
        *lock(&self.fd) = Some(held.clone());
        self.host.pool.admit(self);
        held
    }

    /// Closes its descriptor, unless it was used since the last time or something uses it now.
    pub fn let_go(&self) -> bool {
        let mut fd = lock(&self.fd);
        let used = self.used.swap(false, Ordering::Relaxed);
        match &*fd {
            Some(held) if used || Arc::strong_count(held) > 1 => false,
            _ => {
                *fd = None;
                true
            }
        }
    }

    /// Its descriptor, where it is open.
    pub fn held(&self) -> Option<Arc<Held>> {
        self.used.store(true, Ordering::Relaxed);
        lock(&self.fd).clone()
    }

    /// Its descriptor, found again if that needs no wait.
    pub fn fd_cached(self: &Arc<Node>) -> Option<Arc<Held>> {
        self.held().or_else(|| {
            let place = self.place()?;
            let found = self.host.find(&*place.dir.held()?, &place.name, true).ok()?;
            self.is_found(found.as_fd()).ok()?;
            Some(self.keep(found))
        })
    }

    /// Checks that `fd` is this file.
    fn is_found(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let stat = sys::stat_now(fd).map_err(failed)?;
        if Ident::of(&stat) == self.ident && stat.mount == self.mount { Ok(()) } else { Err(Kind::Stale.into()) }
    }

    /// Its descriptor, found again where it was closed. May block.
    /// # Errors
    /// `Stale` where another file has its place now.
    pub fn fd(self: &Arc<Node>) -> Result<Arc<Held>> {
        let mut below = Vec::new();
        let mut at = self.clone();
        let mut fd = loop {
            match at.held() {
                Some(held) => break held,
                None => {
                    let place = at.place().ok_or(Kind::Stale)?;
                    below.push((at, place.name));
                    at = place.dir;
                }
            }
        };
        while let Some((node, name)) = below.pop() {
            let found = node.host.find(&fd, &name, false).map_err(|e| match e.kind() {
                Kind::NotFound | Kind::NotDir => Kind::Stale.into(),
                _ => e,
            })?;
            node.is_found(found.as_fd())?;
            fd = node.keep(found);
        }
        Ok(fd)
    }

    /// The file `name` in this directory. `cached`: `Again` rather than a wait for the disk.
    pub fn step(self: &Arc<Node>, name: &Name, cached: bool) -> Result<Arc<Node>> {
        if name.is_parent() {
            return if self.is_dir() {
                Ok(self.place().map_or(self.clone(), |p| p.dir))
            } else {
                Err(Kind::NotDir.into())
            };
        }
        let fd = if cached { self.fd_cached().ok_or(Kind::Again)? } else { self.fd()? };
        let found = self.host.find(&fd, name, cached)?;
        Ok(self.child(name, found)?.0)
    }

    /// The place it was found at, checked: `name` in `dir` is this file now. May block.
    /// # Errors
    /// `NotFound` where it is not there any more, `Busy` for the root.
    pub fn checked_place(self: &Arc<Node>) -> Result<(Place, Arc<Held>)> {
        let place = self.place().ok_or_else(|| Error::new(Kind::Busy, "the root of a shared directory stays"))?;
        let dir = place.dir.fd()?;
        let stat = sys::stat_name(dir.as_fd(), place.name.as_bytes()).map_err(failed)?;
        if Ident::of(&stat) == self.ident { Ok((place, dir)) } else { Err(Kind::NotFound.into()) }
    }

    pub fn place(&self) -> Option<Place> {
        lock(&self.place).clone()
    }

    pub fn move_to(&self, place: Place) {
        *lock(&self.place) = Some(place);
    }

    pub fn is_dir(&self) -> bool {
        self.ty == Attr::DIR
    }

    /// S_IFMT bits.
    pub fn ty(&self) -> u32 {
        self.ty
    }

    /// Whether what is asked of its descriptor is answered without waiting.
    pub fn is_local(&self) -> bool {
        self.kind != MountKind::Slow
    }

    pub fn qid(&self) -> Qid {
        Qid { ty: qid_type(self.ty), version: self.version.load(Ordering::Relaxed), path: self.path }
    }

    /// The attributes of this file that `stat` tells.
    pub fn attr(&self, stat: &Stat) -> Attr {
        self.version.store(version(&self.host, stat, self.kind), Ordering::Relaxed);
        attr(self.qid(), stat)
    }

    /// The qid and attributes of an entry of this directory; `None` for what may not be entered.
    pub fn entry(&self, stat: &Stat) -> Option<(Qid, Attr)> {
        let kind = self.kind_of(stat).ok()?;
        let path = self.host.hash.hash_one(Ident::of(stat));
        let qid = Qid { ty: qid_type(stat.mode & Attr::TYPE), version: version(&self.host, stat, kind), path };
        Some((qid, attr(qid, stat)))
    }
}

impl Drop for Node {
    /// Lets go of the directories above one by one: a recursion would be as deep as the tree.
    fn drop(&mut self) {
        let mut above = lock(&self.place).take();
        while let Some(dir) = above.and_then(|place| Arc::into_inner(place.dir)) {
            above = lock(&dir.place).take();
        }
    }
}

impl Shared {
    /// The file `name` of the directory `dir`. `cached`: `Again` rather than a wait for the disk.
    pub fn find(&self, dir: &Held, name: &Name, cached: bool) -> Result<OwnedFd> {
        let mut tries = 0..RACES_MAX;
        loop {
            match sys::walk(dir.as_fd(), name.as_bytes(), cached) {
                Err(Errno::EMFILE | Errno::ENFILE) if tries.next().is_some() => self.pool.halve(),
                Err(Errno::EAGAIN) if !cached && tries.next().is_some() => {}
                found => return found.map_err(failed),
            }
        }
    }
}

fn qid_type(ty: u32) -> QidType {
    match ty {
        Attr::DIR => QidType::DIR,
        Attr::SYMLINK => QidType::SYMLINK,
        _ => QidType::FILE,
    }
}

fn attr(qid: Qid, s: &Stat) -> Attr {
    Attr {
        qid,
        mode: s.mode,
        uid: s.uid,
        gid: s.gid,
        nlink: if s.is_dir() { 1 } else { s.nlink },
        rdev: s.rdev,
        size: s.size,
        blksize: s.blksize,
        blocks: s.blocks,
        atime: s.atime,
        mtime: s.mtime,
        ctime: s.ctime,
    }
}

/// A number that differs when the content does; 0 for what the kernel makes up at each read.
fn version(host: &Shared, stat: &Stat, kind: MountKind) -> u32 {
    match kind {
        MountKind::Live => 0,
        _ => (host.hash.hash_one((stat.mtime, stat.ctime, stat.size)) as u32).max(1),
    }
}
