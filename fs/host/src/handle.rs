//! The file of a host directory as the trait shows it: what cannot wait is done at once, the rest on a blocking thread.

use std::any::Any;
use std::ffi::OsStr;
use std::future::Future;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Created, Error, File, Kind, Name, OpenFile, OpenFlags, Qid, Result, ServerId, SetAttr, StatFs, Walk,
};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, renameat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use crate::blocking;
use crate::dir::OpenDir;
use crate::file::OpenRegular;
use crate::lock;
use crate::node::{Node, Place, RACES_MAX};
use crate::quota::Held;
use crate::setattr::{MODE_BITS, chmod, keep_setgid, setattr};
use crate::sys::{self, failed};

/// A handle on a file.
pub(crate) struct Handle(pub Arc<Node>);

impl Handle {
    /// Runs `work` on a blocking thread.
    async fn wait<T: Send + 'static>(&self, work: impl FnOnce(&Arc<Node>) -> Result<T> + Send + 'static) -> Result<T> {
        let node = self.0.clone();
        blocking(move || work(&node)).await
    }
}

/// `name` where it can be made, moved or removed.
fn plain(name: &Name) -> Result<&OsStr> {
    match name.is_parent() {
        true => Err(Error::new(Kind::Invalid, "\"..\" names no file of this directory")),
        false => Ok(OsStr::from_bytes(name.as_bytes())),
    }
}

/// The node behind `file`, which must be of the same host directory.
fn same_host(node: &Node, file: &Arc<dyn File>) -> Result<Arc<Node>> {
    let other = file.as_any().downcast_ref::<Handle>().filter(|h| Arc::ptr_eq(&h.0.host, &node.host));
    other.map(|h| h.0.clone()).ok_or(Kind::CrossDevice.into())
}

/// The flags of open(2) that a caller may choose.
fn open_flags(flags: OpenFlags) -> OFlag {
    let access = match (flags.reads(), flags.writes()) {
        (true, true) => OFlag::O_RDWR,
        (false, true) => OFlag::O_WRONLY,
        _ => OFlag::O_RDONLY,
    };
    let chosen = OFlag::O_APPEND | OFlag::O_TRUNC | OFlag::O_SYNC | OFlag::O_DSYNC;
    access | OFlag::from_bits_truncate(flags.0 as i32) & chosen
}

fn changes_by_opening(flags: OpenFlags) -> bool {
    flags.writes() || flags.has(OpenFlags::TRUNC)
}

fn walk_on(mut at: Arc<Node>, names: &[Name], cached: bool) -> (Vec<Qid>, Result<Arc<Node>>) {
    let mut qids = Vec::with_capacity(names.len());
    for name in names {
        match at.step(name, cached) {
            Ok(next) => at = next,
            Err(e) => {
                // What was found goes along, so that the walk can go on from there.
                return (qids, if cached && e.kind() == Kind::Again { Ok(at) } else { Err(e) });
            }
        }
        qids.push(at.qid());
    }
    (qids, Ok(at))
}

fn open(node: &Arc<Node>, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
    if changes_by_opening(flags) {
        if node.is_dir() {
            return Err(Kind::IsDir.into());
        }
        node.host.changes()?;
    }
    match node.ty() {
        Attr::DIR => {
            let (slot, pin) = (node.host.slot()?, node.fd()?);
            let fd = sys::open_dir(pin.as_fd()).map_err(failed)?;
            Ok(Arc::new(OpenDir::new(node.clone(), fd, pin, slot)))
        }
        _ if flags.has(OpenFlags::DIRECTORY) => Err(Kind::NotDir.into()),
        Attr::REGULAR => open_regular(node, flags),
        Attr::SYMLINK => Err(Kind::Loop.into()),
        _ => Err(Error::new(Kind::Denied, "devices, pipes and sockets of the host are shown and not served")),
    }
}

fn open_regular(node: &Arc<Node>, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
    let (slot, pin) = (node.host.slot()?, node.fd()?);
    let reopen = || sys::reopen(node.host.proc_fd.as_fd(), pin.as_fd(), open_flags(flags)).map_err(failed);
    let fd = match &node.host.quota {
        Some(quota) if flags.has(OpenFlags::TRUNC) => {
            quota.counted(|| sys::stat(pin.as_fd()).map(|s| s.size).map_err(failed), |_| 0, reopen)?
        }
        _ => reopen()?,
    };
    let stat = sys::stat_now(fd.as_fd()).map_err(failed)?;
    // Whoever keeps what they have read compares the version that the open finds.
    node.attr(&stat);
    let fd = Arc::new(Held::new(&node.host, fd, (stat.dev, stat.ino)));
    if flags.writes() {
        *lock(&node.writer) = Arc::downgrade(&fd);
    }
    Ok(Arc::new(OpenRegular::new(node.host.clone(), fd, flags, pin, slot)))
}

fn create(dir: &Arc<Node>, name: &Name, flags: OpenFlags, mode: u32) -> Result<(Arc<Node>, Arc<dyn OpenFile>)> {
    plain(name)?;
    for _ in 0..RACES_MAX {
        match create_new(dir, name, flags, mode) {
            Err(e) if e.kind() == Kind::Exists && !flags.has(OpenFlags::EXCL) => {}
            made => return made,
        }
        match dir.step(name, false) {
            Ok(node) => {
                let file = open(&node, flags)?;
                return Ok((node, file));
            }
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Err(Kind::Busy.into())
}

/// The file is made by its own name only, never by opening what stands there: that could be a device or a pipe.
fn create_new(dir: &Arc<Node>, name: &Name, flags: OpenFlags, mode: u32) -> Result<(Arc<Node>, Arc<dyn OpenFile>)> {
    let fd = dir.fd()?;
    dir.host.changes().map_err(|e| match sys::stat_name(fd.as_fd(), name.as_bytes()) {
        Ok(_) => Kind::Exists.into(),
        Err(_) => e,
    })?;
    dir.not_deepest()?;
    let slot = dir.host.slot()?;
    let bits = Mode::from_bits_truncate(mode & MODE_BITS);
    let made = sys::create(fd.as_fd(), name.as_bytes(), open_flags(flags), bits).map_err(failed)?;
    let path = sys::reopen(dir.host.proc_fd.as_fd(), made.as_fd(), OFlag::O_PATH).map_err(failed)?;
    let (node, stat) = dir.child(name, path)?;
    let pin = node.fd()?;
    set_mode(&node, &pin, stat, mode)?;
    let held = Arc::new(Held::new(&dir.host, made, (stat.dev, stat.ino)));
    if flags.writes() {
        *lock(&node.writer) = Arc::downgrade(&held);
    }
    Ok((node, Arc::new(OpenRegular::new(dir.host.clone(), held, flags, pin, slot))))
}

/// Gives a new file the bits that the process's own umask took from it: the caller has applied theirs.
fn set_mode(node: &Node, fd: &Held, stat: sys::Stat, mode: u32) -> Result<()> {
    let want = keep_setgid(&stat, mode);
    if stat.mode & 0o7777 == want { Ok(()) } else { chmod(node, fd, want) }
}

fn mkdir(dir: &Arc<Node>, name: &Name, mode: u32) -> Result<Arc<Node>> {
    dir.host.changes()?;
    dir.not_deepest()?;
    let fd = dir.fd()?;
    mkdirat(fd.as_fd(), plain(name)?, Mode::from_bits_truncate(mode & MODE_BITS)).map_err(failed)?;
    let (node, stat) = dir.child(name, dir.host.find(&fd, name, false)?)?;
    set_mode(&node, &*node.fd()?, stat, mode)?;
    Ok(node)
}

fn symlink(dir: &Arc<Node>, name: &Name, target: &[u8]) -> Result<Arc<Node>> {
    dir.host.changes()?;
    dir.not_deepest()?;
    let fd = dir.fd()?;
    symlinkat(OsStr::from_bytes(target), fd.as_fd(), plain(name)?).map_err(failed)?;
    Ok(dir.child(name, dir.host.find(&fd, name, false)?)?.0)
}

fn link(dir: &Arc<Node>, name: &Name, file: &Arc<Node>) -> Result<()> {
    dir.host.changes()?;
    let (dir_fd, fd, name) = (dir.fd()?, file.fd()?, plain(name)?);
    let (proc_fd, old) = (dir.host.proc_fd.as_fd(), sys::proc_name(fd.as_fd()));
    match linkat(proc_fd, old.as_str(), dir_fd.as_fd(), name, AtFlags::AT_SYMLINK_FOLLOW) {
        // A link's magic name cannot be followed any further: it is linked by its own name.
        Err(Errno::ELOOP) if file.ty() == Attr::SYMLINK => {
            let (place, from) = file.checked_place()?;
            linkat(from.as_fd(), plain(&place.name)?, dir_fd.as_fd(), name, AtFlags::empty())
        }
        done => done,
    }
    .map_err(failed)
}

/// Holds the file at `name`, so that the end of it is counted when the last holder lets go.
fn hold_counted(dir: &Arc<Node>, name: &Name) -> Option<Arc<Node>> {
    dir.host.quota.as_ref().and_then(|_| dir.step(name, false).ok())
}

fn unlink(dir: &Arc<Node>, name: &Name, is_dir: bool) -> Result<()> {
    dir.host.changes()?;
    let (fd, text) = (dir.fd()?, plain(name)?);
    let _victim = hold_counted(dir, name);
    let flag = if is_dir { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
    unlinkat(fd.as_fd(), text, flag).map_err(failed)
}

fn rename(from: &Arc<Node>, old: &Name, to: &Arc<Node>, new: &Name) -> Result<()> {
    from.host.changes()?;
    let (from_fd, to_fd) = (from.fd()?, to.fd()?);
    let _victim = hold_counted(to, new);
    renameat2(from_fd.as_fd(), plain(old)?, to_fd.as_fd(), plain(new)?, RenameFlags::empty()).map_err(failed)
}

fn rename_self(node: &Arc<Node>, dir: Option<Arc<Node>>, new: &Name) -> Result<()> {
    node.host.changes()?;
    let (place, _) = node.checked_place()?;
    let dir = dir.unwrap_or_else(|| place.dir.clone());
    rename(&place.dir, &place.name, &dir, new)?;
    node.move_to(Place { dir, name: new.clone() });
    Ok(())
}

fn statfs(node: &Arc<Node>) -> Result<StatFs> {
    let fs = nix::sys::statfs::fstatfs(node.fd()?.as_fd()).map_err(failed)?;
    let bsize = u32::try_from(fs.block_size()).unwrap_or(4096).max(1);
    let room = node.host.quota.as_ref().map_or(u64::MAX, |q| q.left() / u64::from(bsize));
    Ok(StatFs {
        ty: fs.filesystem_type().0 as u32,
        bsize,
        blocks: fs.blocks(),
        bfree: fs.blocks_free(),
        bavail: if node.host.readonly { 0 } else { fs.blocks_available().min(room) },
        files: fs.files(),
        ffree: fs.files_free(),
        fsid: 0,
        namelen: 255,
    })
}

impl File for Handle {
    fn server(&self) -> ServerId {
        self.0.host.id
    }

    fn qid(&self) -> Qid {
        self.0.qid()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(async move {
            let (mut qids, mut end) = walk_on(self.0.clone(), names, true);
            if let (Ok(at), true) = (&end, qids.len() < names.len()) {
                let (at, rest) = (at.clone(), names[qids.len()..].to_vec());
                let (more, last) = match blocking(move || Ok(walk_on(at, &rest, false))).await {
                    Ok(walked) => walked,
                    Err(e) => (Vec::new(), Err(e)),
                };
                qids.extend(more);
                end = last;
            }
            Walk { qids, end: end.map(|node| Arc::new(Handle(node)) as Arc<dyn File>) }
        })
    }

    fn getattr(&self) -> Call<'_, Attr> {
        Box::pin(async move {
            match self.0.fd_cached() {
                Some(fd) if self.0.is_local() => Ok(self.0.attr(&sys::stat(fd.as_fd()).map_err(failed)?)),
                _ => self.wait(|node| Ok(node.attr(&sys::stat(node.fd()?.as_fd()).map_err(failed)?))).await,
            }
        })
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        Box::pin(async move {
            match self.0.fd_cached() {
                Some(_fd) if self.0.is_local() && !changes_by_opening(flags) => open(&self.0, flags),
                _ => self.wait(move |node| open(node, flags)).await,
            }
        })
    }

    fn create<'a>(&'a self, name: &'a Name, flags: OpenFlags, mode: u32) -> Call<'a, Created> {
        Box::pin(async move {
            let name = name.clone();
            let (node, open) = self.wait(move |dir| create(dir, &name, flags, mode)).await?;
            Ok(Created { file: Arc::new(Handle(node)), open })
        })
    }

    fn mkdir<'a>(&'a self, name: &'a Name, mode: u32) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let name = name.clone();
            let node = self.wait(move |dir| mkdir(dir, &name, mode)).await?;
            Ok(Arc::new(Handle(node)) as Arc<dyn File>)
        })
    }

    fn symlink<'a>(&'a self, name: &'a Name, target: &'a [u8]) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let (name, target) = (name.clone(), target.to_vec());
            let node = self.wait(move |dir| symlink(dir, &name, &target)).await?;
            Ok(Arc::new(Handle(node)) as Arc<dyn File>)
        })
    }

    fn link<'a>(&'a self, name: &'a Name, file: &'a Arc<dyn File>) -> Call<'a, ()> {
        Box::pin(async move {
            let (name, file) = (name.clone(), same_host(&self.0, file)?);
            self.wait(move |dir| link(dir, &name, &file)).await
        })
    }

    fn readlink(&self) -> Call<'_, Bytes> {
        Box::pin(async move {
            match self.0.ty() {
                Attr::SYMLINK => self.wait(|node| Ok(sys::read_link(node.fd()?.as_fd()).map_err(failed)?.into())).await,
                _ => Err(Kind::Invalid.into()),
            }
        })
    }

    fn unlink<'a>(&'a self, name: &'a Name, is_dir: bool) -> Call<'a, ()> {
        Box::pin(async move {
            let name = name.clone();
            self.wait(move |dir| unlink(dir, &name, is_dir)).await
        })
    }

    fn remove(&self) -> Call<'_, ()> {
        Box::pin(self.wait(|node| {
            node.host.changes()?;
            let (place, _) = node.checked_place()?;
            unlink(&place.dir, &place.name, node.is_dir())
        }))
    }

    fn rename<'a>(&'a self, old: &'a Name, dir: &'a Arc<dyn File>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(async move {
            let (old, to, new) = (old.clone(), same_host(&self.0, dir)?, new.clone());
            self.wait(move |from| rename(from, &old, &to, &new)).await
        })
    }

    fn rename_self<'a>(&'a self, dir: Option<&'a Arc<dyn File>>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(async move {
            let (to, new) = (dir.map(|d| same_host(&self.0, d)).transpose()?, new.clone());
            self.wait(move |node| rename_self(node, to, &new)).await
        })
    }

    fn setattr(&self, set: SetAttr) -> Call<'_, ()> {
        Box::pin(self.wait(move |node| setattr(node, set)))
    }

    fn statfs(&self) -> Call<'_, StatFs> {
        Box::pin(self.wait(statfs))
    }
}
