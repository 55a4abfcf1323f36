//! One function a request: from the kernel's words to the tree's, and back.
//!
//! Each is a future that owns what it needs, so that it can wait apart from the reader. Node references are counted in
//! the same step that ends the future, so a request that was dropped has counted nothing.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fs_ninep::{Attr, Error, File, Kind, Name, OpenFile, OpenFlags, Qid, Result, SetAttr};
use futures::future::try_join_all;

use crate::abi::{Fields, Op, Out, Request, Valid, fopen};
use crate::list;
use crate::nodes::{Found, Way, ino};
use crate::opens::{Open, OpenedDir, OpenedFile};
use crate::session::{Session, Work};

/// The access modes and flags a tree hears of; their values are the same on every Linux.
const FLAGS: u32 = 3 | OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::TRUNC | OpenFlags::APPEND | OpenFlags::NONBLOCK;
/// Calls for one read or write that a server's iounit splits which are under way at a time.
const SPLIT_MAX: usize = 16;

/// The work that answers `request`; `keep` makes a write's data outlive the message.
/// # Errors
/// What is refused without asking a tree.
pub fn start(s: &Arc<Session>, request: Request<'_>, keep: impl FnOnce(&[u8]) -> Bytes) -> Result<Work, Kind> {
    let (s, node) = (s.clone(), request.node);
    Ok(match request.op {
        Op::Lookup { name } => Box::pin(lookup(s, node, walk_name(name)?)),
        Op::Getattr => Box::pin(getattr(s, node)),
        Op::Setattr { set } => Box::pin(setattr(s, node, set)),
        Op::Readlink => Box::pin(async move { Ok(Out::Bytes(file(&s, node).await?.readlink().await?)) }),
        Op::Symlink { name, target } => Box::pin(symlink(s, node, new_name(name)?, Bytes::copy_from_slice(target))),
        Op::Mknod { name, mode } => Box::pin(mknod(s, node, new_name(name)?, mode)),
        Op::Mkdir { name, mode } => Box::pin(mkdir(s, node, new_name(name)?, mode)),
        Op::Unlink { name } => Box::pin(unlink(s, node, walk_name(name)?, false)),
        Op::Rmdir { name } => Box::pin(unlink(s, node, walk_name(name)?, true)),
        // renameat2(2): EINVAL is how a file system says that it has none of the flags; callers do without.
        Op::Rename { flags: 1.., .. } => return Err(Kind::Invalid),
        Op::Rename { name, dir, new, .. } => Box::pin(rename(s, (node, walk_name(name)?), (dir, new_name(new)?))),
        Op::Link { old, name } => Box::pin(link(s, node, new_name(name)?, old)),
        Op::Open { flags } => Box::pin(open(s, node, OpenFlags(flags & FLAGS))),
        Op::Create { name, flags, mode } => Box::pin(create(s, node, new_name(name)?, OpenFlags(flags & FLAGS), mode)),
        Op::Read { fh, offset, size } => {
            let opened = opened(&s, fh)?;
            Box::pin(read(s, opened, offset, size))
        }
        Op::Write { fh, offset, data } => {
            let opened = opened(&s, fh)?;
            Box::pin(write(s, opened, offset, keep(data)))
        }
        Op::Statfs => Box::pin(async move { Ok(Out::Fields(Fields::statfs(&file(&s, node).await?.statfs().await?))) }),
        Op::Release { fh } | Op::Releasedir { fh } => Box::pin(release(s, fh)),
        Op::Fsync { fh, data_only } => Box::pin(fsync(opened(&s, fh)?.open.clone(), data_only)),
        Op::Fsyncdir { fh, data_only } => Box::pin(fsync(listing(&s, fh)?.open.clone(), data_only)),
        Op::Flush { fh } => {
            let opened = opened(&s, fh)?;
            Box::pin(flush(s, opened))
        }
        Op::Opendir => Box::pin(opendir(s, node)),
        Op::Readdir { fh, offset, size, plus } => {
            let dir = listing(&s, fh)?;
            Box::pin(list::readdir(s, node, dir, offset, size, plus))
        }
        Op::Destroy => Box::pin(async { Ok(Out::empty()) }),
        // No xattrs (asked for two times a file by `ls -l`), access, poll, lseek, fallocate, copy_file_range, ioctl: once
        // refused so, the kernel does without and never asks again. The rest never comes here.
        Op::Init { .. } | Op::Other { .. } | Op::Forget { .. } | Op::BatchForget { .. } => {
            return Err(Kind::NotImplemented);
        }
        Op::Interrupt { .. } | Op::NotifyReply => return Err(Kind::NotImplemented),
    })
}

fn walk_name(name: &[u8]) -> Result<Name, Kind> {
    Name::walk(Bytes::copy_from_slice(name)).map_err(|e| e.kind())
}

fn new_name(name: &[u8]) -> Result<Name, Kind> {
    Name::new(Bytes::copy_from_slice(name)).map_err(|e| e.kind())
}

fn opened(s: &Session, fh: u64) -> Result<Arc<OpenedFile>, Kind> {
    s.opens().file(fh).ok_or(Kind::BadFile)
}

fn listing(s: &Session, fh: u64) -> Result<Arc<OpenedDir>, Kind> {
    s.opens().dir(fh).ok_or(Kind::BadFile)
}

/// The file behind a node.
/// # Errors
/// `Stale` if it was replaced by another before it was ever walked to, or the node is unknown.
pub async fn file(s: &Session, node: u64) -> Result<Arc<dyn File>> {
    let way = s.nodes().way(node);
    match way {
        Some(Way::File(file)) => Ok(file),
        Some(Way::Walk(base, names)) => {
            let file = base.walk(&names).await.end?;
            if s.nodes().arrived(node, &file) { Ok(file) } else { Err(Kind::Stale.into()) }
        }
        None => Err(Kind::Stale.into()),
    }
}

/// The kernel learns of `file`, found as `name` in `parent`.
pub fn entry(s: &Session, parent: u64, name: Name, file: Arc<dyn File>, attr: &Attr) -> Fields {
    let identity = (file.server(), attr.qid.path);
    let found = Found { name, server: identity.0, qid: attr.qid, size: attr.size, file: Some(file) };
    let node = s.nodes().intern(parent, found);
    Fields::entry(node, Valid::of(attr.qid), ino(identity), attr)
}

async fn lookup(s: Arc<Session>, parent: u64, name: Name) -> Result<Out> {
    let (file, attr) = file(&s, parent).await?.walk_getattr(std::slice::from_ref(&name)).await?;
    Ok(Out::Fields(entry(&s, parent, name, file, &attr)))
}

async fn attributes(s: &Session, node: u64, file: &Arc<dyn File>) -> Result<Out> {
    let attr = file.getattr().await?;
    s.nodes().seen(node, attr.qid, attr.size);
    Ok(Out::Fields(Fields::attributes(Valid::of(attr.qid), ino((file.server(), attr.qid.path)), &attr)))
}

async fn getattr(s: Arc<Session>, node: u64) -> Result<Out> {
    let file = file(&s, node).await?;
    attributes(&s, node, &file).await
}

async fn setattr(s: Arc<Session>, node: u64, set: SetAttr) -> Result<Out> {
    let file = file(&s, node).await?;
    if set != SetAttr::default() {
        file.setattr(set).await?;
    }
    attributes(&s, node, &file).await
}

async fn symlink(s: Arc<Session>, parent: u64, name: Name, target: Bytes) -> Result<Out> {
    let made = file(&s, parent).await?.symlink(&name, &target).await?;
    made_entry(&s, parent, name, made).await
}

async fn mkdir(s: Arc<Session>, parent: u64, name: Name, mode: u32) -> Result<Out> {
    let made = file(&s, parent).await?.mkdir(&name, mode & 0o7777).await?;
    made_entry(&s, parent, name, made).await
}

async fn made_entry(s: &Session, parent: u64, name: Name, made: Arc<dyn File>) -> Result<Out> {
    let attr = made.getattr().await?;
    Ok(Out::Fields(entry(s, parent, name, made, &attr)))
}

async fn mknod(s: Arc<Session>, parent: u64, name: Name, mode: u32) -> Result<Out> {
    if mode & Attr::TYPE != Attr::REGULAR {
        return Err(Error::new(Kind::NotPermitted, "only plain files can be made here, no devices, pipes or sockets"));
    }
    let flags = OpenFlags(OpenFlags::WRONLY.0 | OpenFlags::CREAT | OpenFlags::EXCL);
    let made = file(&s, parent).await?.create(&name, flags, mode & 0o7777).await?;
    made_entry(&s, parent, name, made.file).await
}

async fn unlink(s: Arc<Session>, parent: u64, name: Name, dir: bool) -> Result<Out> {
    file(&s, parent).await?.unlink(&name, dir).await?;
    s.nodes().unlinked(parent, name);
    Ok(Out::empty())
}

async fn rename(s: Arc<Session>, old: (u64, Name), new: (u64, Name)) -> Result<Out> {
    let (from, to) = (file(&s, old.0).await?, file(&s, new.0).await?);
    from.rename(&old.1, &to, &new.1).await?;
    s.nodes().renamed(old, new);
    Ok(Out::empty())
}

async fn link(s: Arc<Session>, parent: u64, name: Name, old: u64) -> Result<Out> {
    let (dir, old) = (file(&s, parent).await?, file(&s, old).await?);
    dir.link(&name, &old).await?;
    let (file, attr) = dir.walk_getattr(std::slice::from_ref(&name)).await?;
    Ok(Out::Fields(entry(&s, parent, name, file, &attr)))
}

fn enter(s: &Session, node: u64, file: &Arc<dyn File>, open: Arc<dyn OpenFile>, flags: OpenFlags) -> (u64, u32) {
    let qid = file.qid();
    let keep = s.nodes().opened(node, qid.version);
    let fh = s.opens().insert(Open::File(Arc::new(OpenedFile { open, node, live: qid.is_live() })));
    (fh, open_flags(qid, flags, keep))
}

fn open_flags(qid: Qid, flags: OpenFlags, keep: bool) -> u32 {
    let cache = match (qid.is_live(), flags.0 & 3) {
        // Read and written: a conversation. With a file position, a blocked read would hold the lock a write needs.
        (true, 2) => fopen::DIRECT_IO | fopen::STREAM | fopen::NONSEEKABLE,
        // Not STREAM when only read: `head -n1` seeks back over what it did not print, and complains if it cannot.
        (true, _) => fopen::DIRECT_IO,
        (false, _) if keep => fopen::KEEP_CACHE,
        (false, _) => 0,
    };
    if flags.writes() { cache } else { cache | fopen::NOFLUSH }
}

async fn open(s: Arc<Session>, node: u64, flags: OpenFlags) -> Result<Out> {
    let file = file(&s, node).await?;
    let open = file.open(flags).await?;
    let (fh, flags) = enter(&s, node, &file, open, flags);
    Ok(Out::Fields(Fields::new().open(fh, flags)))
}

async fn create(s: Arc<Session>, parent: u64, name: Name, flags: OpenFlags, mode: u32) -> Result<Out> {
    let made = file(&s, parent).await?.create(&name, flags, mode & 0o7777).await?;
    let attr = made.file.getattr().await?;
    let identity = (made.file.server(), attr.qid.path);
    let found = Found { name, server: identity.0, qid: attr.qid, size: attr.size, file: Some(made.file.clone()) };
    let node = s.nodes().intern(parent, found);
    let (fh, flags) = enter(&s, node, &made.file, made.open, flags);
    Ok(Out::Fields(Fields::entry(node, Valid::of(attr.qid), ino(identity), &attr).open(fh, flags)))
}

async fn opendir(s: Arc<Session>, node: u64) -> Result<Out> {
    let open = file(&s, node).await?.open(OpenFlags(OpenFlags::DIRECTORY)).await?;
    let fh = s.opens().insert(Open::Dir(Arc::new(OpenedDir::new(open))));
    Ok(Out::Fields(Fields::new().open(fh, 0)))
}

/// A live file gives what one call gives. Of a plain one the kernel takes a short read for the end of the file and cuts
/// the size it remembers, so what was asked is read to the last byte, or to the end it knows of, or to none.
async fn read(s: Arc<Session>, opened: Arc<OpenedFile>, offset: u64, size: u32) -> Result<Out> {
    let open = &opened.open;
    let first = match (opened.live, open.iounit()) {
        (false, unit @ 1..) if unit < size => return split(open, offset, size, unit).await,
        _ => open.read(offset, size).await?,
    };
    let got = first.len() as u64;
    if opened.live || got == 0 || got >= u64::from(size) || offset + got == s.nodes().size(opened.node) {
        return Ok(Out::Bytes(cut(first, size)));
    }
    fill(open, offset, size, first).await
}

fn cut(mut bytes: Bytes, size: u32) -> Bytes {
    bytes.truncate(size as usize);
    bytes
}

async fn fill(open: &Arc<dyn OpenFile>, offset: u64, size: u32, first: Bytes) -> Result<Out> {
    let next = open.read(offset + first.len() as u64, size - first.len() as u32).await?;
    if next.is_empty() {
        return Ok(Out::Bytes(first));
    }
    let mut all = BytesMut::with_capacity(size as usize);
    all.extend_from_slice(&first);
    all.extend_from_slice(&cut(next, size - first.len() as u32));
    while (all.len() as u32) < size {
        let left = size - all.len() as u32;
        let next = cut(open.read(offset + all.len() as u64, left).await?, left);
        if next.is_empty() {
            break;
        }
        all.extend_from_slice(&next);
    }
    Ok(Out::Bytes(all.freeze()))
}

/// Several reads of the server's own size side by side; what lies after a short one is dropped.
async fn split(open: &Arc<dyn OpenFile>, offset: u64, size: u32, unit: u32) -> Result<Out> {
    let unit = unit.max(size.div_ceil(SPLIT_MAX as u32));
    let parts = (0..size.div_ceil(unit)).map(|i| {
        let at = i * unit;
        let count = unit.min(size - at);
        async move {
            match fill(open, offset + u64::from(at), count, Bytes::new()).await? {
                Out::Bytes(bytes) => Ok::<_, Error>((bytes, count)),
                _ => Err(Kind::Io.into()),
            }
        }
    });
    let mut all = BytesMut::with_capacity(size as usize);
    for (bytes, count) in try_join_all(parts).await? {
        all.extend_from_slice(&bytes);
        if bytes.len() < count as usize {
            break;
        }
    }
    Ok(Out::Bytes(all.freeze()))
}

/// A live file is given the whole of a write in one call, a record being a record; a plain one until all is taken.
async fn write(s: Arc<Session>, opened: Arc<OpenedFile>, offset: u64, data: Bytes) -> Result<Out> {
    let len = data.len() as u32;
    let mut taken = opened.open.write(offset, data.clone()).await?.min(len);
    while !opened.live && taken > 0 && taken < len {
        let rest = data.slice(taken as usize..);
        match opened.open.write(offset + u64::from(taken), rest).await {
            Ok(0) | Err(_) => break,
            Ok(n) => taken = taken.saturating_add(n).min(len),
        }
    }
    s.settle().await;
    Ok(Out::Fields(Fields::written(taken)))
}

async fn release(s: Arc<Session>, fh: u64) -> Result<Out> {
    let gone = s.opens().remove(fh);
    if let Some(Open::File(file)) = &gone {
        s.nodes().closed(file.node);
    }
    Ok(Out::empty())
}

async fn fsync(open: Arc<dyn OpenFile>, data_only: bool) -> Result<Out> {
    open.fsync(data_only).await?;
    Ok(Out::empty())
}

async fn flush(s: Arc<Session>, opened: Arc<OpenedFile>) -> Result<Out> {
    opened.open.flush().await?;
    s.settle().await;
    Ok(Out::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_ninep::QidType;

    #[test]
    fn flags_of_an_opening() {
        use fopen::{DIRECT_IO, KEEP_CACHE, NOFLUSH, NONSEEKABLE, STREAM};
        let (rd, wr, rdwr) = (OpenFlags::RDONLY, OpenFlags::WRONLY, OpenFlags::RDWR);
        for (version, flags, keep, want) in [
            (0, rd, false, DIRECT_IO | NOFLUSH),
            (0, rd, true, DIRECT_IO | NOFLUSH),
            (0, wr, false, DIRECT_IO),
            (0, rdwr, false, DIRECT_IO | STREAM | NONSEEKABLE),
            (7, rd, false, NOFLUSH),
            (7, rd, true, NOFLUSH | KEEP_CACHE),
            (7, rdwr, false, 0),
            (7, wr, true, KEEP_CACHE),
        ] {
            let qid = Qid { ty: QidType::FILE, version, path: 1 };
            assert_eq!(open_flags(qid, flags, keep), want, "{version} {flags:?} {keep}");
        }
    }
}
