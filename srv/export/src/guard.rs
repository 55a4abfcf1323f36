//! export: a file of one of the owner's trees as a holder sees it: cut when the hold ends, read-only where it says so.
//!
//! What comes out of a guarded file is guarded: what a walk finds, what a directory read has at hand, what is opened or
//! created. What goes in (the directory of a rename, the file of a link) must be of the same hold.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Created, DirEntry, Error, File, Kind, Name, OpenFile, OpenFlags, Qid, Result, ServerId, SetAttr,
    StatFs, Walk,
};

use crate::hold::Hold;

/// The write bits of a mode.
const WRITE_BITS: u32 = 0o222;

/// A file under a hold.
pub struct Guard {
    file: Arc<dyn File>,
    hold: Arc<Hold>,
    /// Elements below what was granted; `..` at 0 leads to `up`.
    depth: usize,
    /// The directory that what was granted stands in; `None`: `..` stays.
    up: Option<Arc<dyn File>>,
}

impl Guard {
    /// The top of what was granted.
    pub fn new(file: Arc<dyn File>, hold: Arc<Hold>, up: Option<Arc<dyn File>>) -> Guard {
        Guard { file, hold, depth: 0, up }
    }

    fn at(&self, file: Arc<dyn File>, depth: usize) -> Guard {
        Guard { file, hold: self.hold.clone(), depth, up: self.up.clone() }
    }

    fn below(&self, file: Arc<dyn File>, depth: usize) -> Arc<dyn File> {
        Arc::new(self.at(file, depth))
    }

    /// Where a walk of `names` leaves what was granted, and else how deep it ends.
    fn descend(&self, names: &[Name]) -> std::result::Result<usize, usize> {
        let mut depth = self.depth;
        for (n, name) in names.iter().enumerate() {
            match (name.is_parent(), depth) {
                (false, _) => depth += 1,
                (true, 0) if self.up.is_some() => return Err(n),
                (true, _) => depth = depth.saturating_sub(1),
            }
        }
        Ok(depth)
    }

    /// The file behind `file`, where it is of the same hold.
    fn inner<'a>(&self, file: &'a Arc<dyn File>) -> Result<&'a Arc<dyn File>> {
        let same = file.as_any().downcast_ref::<Guard>().filter(|g| Arc::ptr_eq(&g.hold, &self.hold));
        same.map(|g| &g.file).ok_or(Kind::CrossDevice.into())
    }

    /// The top of what was granted is not the holder's to move or remove.
    fn check_moves(&self) -> Result<()> {
        self.hold.check_writes()?;
        if self.depth > 0 {
            return Ok(());
        }
        Err(Error::new(Kind::Busy, "this is the top of what was granted; it cannot be moved or removed"))
    }

    fn seen(&self, attr: Attr) -> Attr {
        let mode = if self.hold.is_readonly() { attr.mode & !WRITE_BITS } else { attr.mode };
        Attr { mode, ..attr }
    }

    async fn walk_out(&self, names: &[Name], at: usize) -> Walk {
        let Some(up) = &self.up else { return Walk::stopped(Vec::new(), Kind::NotFound) };
        let mut walk = self.file.walk(&names[..at]).await;
        if walk.end.is_err() {
            return walk;
        }
        walk.qids.push(up.qid());
        let rest = up.walk(&names[at + 1..]).await;
        walk.qids.extend(rest.qids);
        Walk { qids: walk.qids, end: rest.end }
    }
}

/// A call that a hold guards: refused at once where `check` refuses.
fn guarded<'a, T: Send + 'a>(hold: &'a Hold, check: Result<()>, call: impl FnOnce() -> Call<'a, T>) -> Call<'a, T> {
    match check {
        Ok(()) => Box::pin(hold.guard(call())),
        Err(e) => Box::pin(std::future::ready(Err(e))),
    }
}

impl File for Guard {
    fn server(&self) -> ServerId {
        self.file.server()
    }

    fn qid(&self) -> Qid {
        self.file.qid()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(async move {
            if let Err(e) = self.hold.check() {
                return Walk::stopped(Vec::new(), e);
            }
            let walk = async {
                Ok(match self.descend(names) {
                    Err(at) => self.walk_out(names, at).await,
                    Ok(depth) => {
                        let walk = self.file.walk(names).await;
                        Walk { qids: walk.qids, end: walk.end.map(|file| self.below(file, depth)) }
                    }
                })
            };
            self.hold.guard(Box::pin(walk)).await.unwrap_or_else(|e| Walk::stopped(Vec::new(), e))
        })
    }

    fn getattr(&self) -> Call<'_, Attr> {
        guarded(&self.hold, self.hold.check(), || {
            Box::pin(async { self.file.getattr().await.map(|attr| self.seen(attr)) })
        })
    }

    fn walk_getattr<'a>(&'a self, names: &'a [Name]) -> Call<'a, (Arc<dyn File>, Attr)> {
        guarded(&self.hold, self.hold.check(), move || {
            Box::pin(async move {
                match self.descend(names) {
                    Err(at) => {
                        let file = self.walk_out(names, at).await.end?;
                        let attr = file.getattr().await?;
                        Ok((file, attr))
                    }
                    Ok(depth) => {
                        let (file, attr) = self.file.walk_getattr(names).await?;
                        Ok((self.below(file, depth), self.seen(attr)))
                    }
                }
            })
        })
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        let changes = flags.writes() || flags.has(OpenFlags::TRUNC) || flags.has(OpenFlags::CREAT);
        let check = if changes { self.hold.check_writes() } else { self.hold.check() };
        guarded(&self.hold, check, || {
            Box::pin(async move {
                let open = self.file.open(flags).await?;
                Ok(opened(open, self.at(self.file.clone(), self.depth), flags))
            })
        })
    }

    fn create<'a>(&'a self, name: &'a Name, flags: OpenFlags, mode: u32) -> Call<'a, Created> {
        guarded(&self.hold, self.hold.check_writes(), move || {
            Box::pin(async move {
                let made = self.file.create(name, flags, mode).await?;
                let guard = self.at(made.file.clone(), self.depth + 1);
                Ok(Created { file: self.below(made.file, self.depth + 1), open: opened(made.open, guard, flags) })
            })
        })
    }

    fn mkdir<'a>(&'a self, name: &'a Name, mode: u32) -> Call<'a, Arc<dyn File>> {
        guarded(&self.hold, self.hold.check_writes(), move || {
            Box::pin(async move { self.file.mkdir(name, mode).await.map(|dir| self.below(dir, self.depth + 1)) })
        })
    }

    fn symlink<'a>(&'a self, name: &'a Name, target: &'a [u8]) -> Call<'a, Arc<dyn File>> {
        guarded(&self.hold, self.hold.check_writes(), move || {
            Box::pin(async move { self.file.symlink(name, target).await.map(|file| self.below(file, self.depth + 1)) })
        })
    }

    fn link<'a>(&'a self, name: &'a Name, file: &'a Arc<dyn File>) -> Call<'a, ()> {
        guarded(&self.hold, self.hold.check_writes(), move || {
            Box::pin(async move { self.file.link(name, self.inner(file)?).await })
        })
    }

    fn readlink(&self) -> Call<'_, Bytes> {
        guarded(&self.hold, self.hold.check(), || self.file.readlink())
    }

    fn unlink<'a>(&'a self, name: &'a Name, dir: bool) -> Call<'a, ()> {
        guarded(&self.hold, self.hold.check_writes(), move || self.file.unlink(name, dir))
    }

    fn remove(&self) -> Call<'_, ()> {
        guarded(&self.hold, self.check_moves(), || self.file.remove())
    }

    fn rename<'a>(&'a self, old: &'a Name, dir: &'a Arc<dyn File>, new: &'a Name) -> Call<'a, ()> {
        guarded(&self.hold, self.hold.check_writes(), move || {
            Box::pin(async move { self.file.rename(old, self.inner(dir)?, new).await })
        })
    }

    fn rename_self<'a>(&'a self, dir: Option<&'a Arc<dyn File>>, new: &'a Name) -> Call<'a, ()> {
        guarded(&self.hold, self.check_moves(), move || {
            Box::pin(async move {
                let dir = dir.map(|dir| self.inner(dir)).transpose()?;
                self.file.rename_self(dir, new).await
            })
        })
    }

    fn setattr(&self, set: SetAttr) -> Call<'_, ()> {
        guarded(&self.hold, self.hold.check_writes(), move || self.file.setattr(set))
    }

    fn statfs(&self) -> Call<'_, StatFs> {
        guarded(&self.hold, self.hold.check(), || self.file.statfs())
    }
}

/// An open file under a hold.
struct GuardedOpen {
    open: Arc<dyn OpenFile>,
    /// The file itself.
    at: Guard,
    /// Opened to be written: closing it may still change something.
    writes: bool,
}

fn opened(open: Arc<dyn OpenFile>, at: Guard, flags: OpenFlags) -> Arc<dyn OpenFile> {
    Arc::new(GuardedOpen { open, at, writes: flags.writes() })
}

impl GuardedOpen {
    fn entry(&self, entry: DirEntry) -> DirEntry {
        let file = entry.file.map(|file| self.at.below(file, self.at.depth + 1));
        DirEntry { file, attr: entry.attr.map(|attr| self.at.seen(attr)), ..entry }
    }

    fn check_close(&self) -> Result<()> {
        if self.writes { self.at.hold.check_writes() } else { self.at.hold.check() }
    }
}

impl OpenFile for GuardedOpen {
    fn iounit(&self) -> u32 {
        self.open.iounit()
    }

    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        guarded(&self.at.hold, self.at.hold.check(), || self.open.read(offset, count))
    }

    fn write(&self, offset: u64, data: Bytes) -> Call<'_, u32> {
        guarded(&self.at.hold, self.at.hold.check_writes(), || self.open.write(offset, data))
    }

    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        guarded(&self.at.hold, self.at.hold.check(), move || {
            Box::pin(async move {
                let entries = self.open.readdir(cookie, entries_max).await?;
                Ok(entries.into_iter().map(|entry| self.entry(entry)).collect())
            })
        })
    }

    fn fsync(&self, data_only: bool) -> Call<'_, ()> {
        guarded(&self.at.hold, self.check_close(), move || self.open.fsync(data_only))
    }

    /// A flush obeys what is left of a line or value, so it changes something where a write could.
    fn flush(&self) -> Call<'_, ()> {
        guarded(&self.at.hold, self.check_close(), || self.open.flush())
    }
}
