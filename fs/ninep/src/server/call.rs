//! What a request does to the tree: one function a request, each a call of the trait. No tables here.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::wire::{AT_REMOVEDIR, Dirent, DirentAttr, Few, Reply, Stat, mask, mode, perm};
use crate::{
    Attr, DirEntry, Error, File, Kind, Name, OpenFile, OpenFlags, Qid, QidType, Result, SetAttr, SetTime, Time,
};

/// What a call ends with: an answer, or what the fid table takes in before it answers.
pub enum Done {
    Reply(Reply<'static>),
    Target(Bytes),
    Stat(Attr),
    Attached(Arc<dyn File>),
    Walked(Few<Qid>, Option<Arc<dyn File>>),
    Opened { qid: Qid, open: Arc<dyn OpenFile> },
    Created { file: Arc<dyn File>, open: Arc<dyn OpenFile> },
    Entries(Bytes, Cursor),
}

/// The cookies of `.` and `..`: below the end mark of ext4's hashes, above what else counts or hashes.
const DOT: u64 = 0x7fff_ffff_ffff_fff0;
const DOTDOT: u64 = DOT + 1;

/// Where a 9P2000 reader of a directory is: the only offset it may go on at, and the cookie that stands for it.
#[derive(Clone, Copy, Default)]
pub struct Cursor {
    offset: u64,
    cookie: u64,
}

pub async fn walk(file: Arc<dyn File>, names: Vec<Name>) -> Result<Done> {
    let walk = file.walk(&names).await;
    let qids = Few::collect(walk.qids).map_err(|_| Error::from(Kind::Protocol))?;
    match walk.end {
        Ok(file) => Ok(Done::Walked(qids, Some(file))),
        Err(e) if qids.is_empty() => Err(e),
        Err(_) => Ok(Done::Walked(qids, None)),
    }
}

pub async fn open(file: Arc<dyn File>, flags: OpenFlags) -> Result<Done> {
    let open = file.open(flags).await?;
    Ok(Done::Opened { qid: file.qid(), open })
}

pub async fn create(dir: Arc<dyn File>, name: Name, flags: OpenFlags, mode: u32) -> Result<Done> {
    let made = dir.create(&name, flags, mode & 0o7777).await?;
    Ok(Done::Created { file: made.file, open: made.open })
}

/// Tcreate: the permissions are masked by the directory's; a directory is made and opened.
pub async fn create_plain(dir: Arc<dyn File>, name: Name, flags: OpenFlags, asked: u32) -> Result<Done> {
    let above = dir.getattr().await?.mode & 0o777;
    if asked & perm::DIR != 0 {
        let file = dir.mkdir(&name, asked & (!0o777 | above) & 0o777).await?;
        let open = file.open(OpenFlags::RDONLY).await?;
        return Ok(Done::Created { file, open });
    }
    let flags = OpenFlags(flags.0 | OpenFlags::CREAT | OpenFlags::EXCL);
    create(dir, name, flags, asked & (!0o666 | above) & 0o777).await
}

pub async fn read(open: Arc<dyn OpenFile>, offset: u64, count: u32) -> Result<Done> {
    let mut data = open.read(offset, count).await?;
    data.truncate(count as usize);
    Ok(Done::Reply(Reply::Read { data }))
}

pub async fn write(open: Arc<dyn OpenFile>, offset: u64, data: Bytes) -> Result<Done> {
    let len = data.len() as u32;
    let count = open.write(offset, data).await?.min(len);
    Ok(Done::Reply(Reply::Write { count }))
}

/// Clunk of an open fid: what a close reports; `remove` for one opened to be removed when clunked.
pub async fn clunk(open: Arc<dyn OpenFile>, remove: Option<Arc<dyn File>>) -> Result<Done> {
    let flushed = open.flush().await;
    drop(open);
    if let Some(file) = remove {
        file.remove().await?;
    }
    flushed.map(|()| Done::Reply(Reply::Clunk {}))
}

pub async fn remove(file: Arc<dyn File>) -> Result<Done> {
    file.remove().await.map(|()| Done::Reply(Reply::Remove {}))
}

pub async fn stat(file: Arc<dyn File>) -> Result<Done> {
    file.getattr().await.map(Done::Stat)
}

pub async fn getattr(file: Arc<dyn File>) -> Result<Done> {
    let attr = file.getattr().await?;
    Ok(Done::Reply(Reply::Getattr { valid: mask::BASIC, attr }))
}

pub async fn setattr(file: Arc<dyn File>, set: SetAttr) -> Result<Done> {
    file.setattr(set).await.map(|()| Done::Reply(Reply::Setattr {}))
}

pub async fn readlink(file: Arc<dyn File>) -> Result<Done> {
    file.readlink().await.map(Done::Target)
}

pub async fn statfs(file: Arc<dyn File>) -> Result<Done> {
    let s = file.statfs().await?;
    Ok(Done::Reply(Reply::Statfs {
        ty: s.ty,
        bsize: s.bsize,
        blocks: s.blocks,
        bfree: s.bfree,
        bavail: s.bavail,
        files: s.files,
        ffree: s.ffree,
        fsid: s.fsid,
        namelen: s.namelen,
    }))
}

/// Tfsync: durable; a live file also obeys a last line without its newline.
pub async fn fsync(open: Arc<dyn OpenFile>, data_only: bool, live: bool) -> Result<Done> {
    open.fsync(data_only).await?;
    if live {
        open.flush().await?;
    }
    Ok(Done::Reply(Reply::Fsync {}))
}

pub async fn mkdir(dir: Arc<dyn File>, name: Name, mode: u32) -> Result<Done> {
    let qid = dir.mkdir(&name, mode & 0o7777).await?.qid();
    Ok(Done::Reply(Reply::Mkdir { qid }))
}

pub async fn symlink(dir: Arc<dyn File>, name: Name, target: Bytes) -> Result<Done> {
    let qid = dir.symlink(&name, &target).await?.qid();
    Ok(Done::Reply(Reply::Symlink { qid }))
}

pub async fn link(dir: Arc<dyn File>, name: Name, file: Arc<dyn File>) -> Result<Done> {
    dir.link(&name, &file).await.map(|()| Done::Reply(Reply::Link {}))
}

pub async fn rename(file: Arc<dyn File>, dir: Arc<dyn File>, name: Name) -> Result<Done> {
    file.rename_self(Some(&dir), &name).await.map(|()| Done::Reply(Reply::Rename {}))
}

pub async fn renameat(from: Arc<dyn File>, old: Name, to: Arc<dyn File>, new: Name) -> Result<Done> {
    from.rename(&old, &to, &new).await.map(|()| Done::Reply(Reply::Renameat {}))
}

pub async fn unlinkat(dir: Arc<dyn File>, name: Name, flags: u32) -> Result<Done> {
    dir.unlink(&name, flags & AT_REMOVEDIR != 0).await.map(|()| Done::Reply(Reply::Unlinkat {}))
}

/// What a Twstat asks for, checked before any of it is done: a rename stands alone, so that all of it happens or none.
pub enum Change {
    Nothing,
    Rename(Name),
    Attr(SetAttr),
}

/// Reads a Twstat's record: all ones and the empty string leave a thing alone.
pub fn change(stat: &Stat, is_dir: bool) -> Result<Change> {
    let keep = Stat::KEEP;
    // muid is not looked at: Linux names its user there in a rename
    if stat.ty != keep.ty || stat.dev != keep.dev || stat.qid != keep.qid {
        return Err(Error::new(Kind::NotPermitted, "wstat cannot change a file's type, device or qid"));
    }
    let number = |text: &[u8]| match text {
        b"" => Ok(None),
        text => match std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(Error::new(Kind::Invalid, "users and groups are numbers here")),
        },
    };
    let seconds = |n| SetTime::To(Time { sec: i64::from(n), nsec: 0 });
    let mode = (stat.mode != keep.mode).then_some(stat.mode);
    if mode.is_some_and(|m| (m & perm::DIR != 0) != is_dir || m & !(perm::DIR | 0o777) != 0) {
        return Err(Error::new(Kind::Invalid, "wstat can change permission bits only"));
    }
    let size = (stat.length != keep.length).then_some(stat.length);
    if is_dir && size.is_some_and(|s| s != 0) {
        return Err(Error::from(Kind::IsDir));
    }
    let set = SetAttr {
        mode: mode.map(|m| m & 0o777),
        uid: number(stat.uid)?,
        gid: number(stat.gid)?,
        size: if is_dir { None } else { size },
        atime: (stat.atime != keep.atime).then(|| seconds(stat.atime)),
        mtime: (stat.mtime != keep.mtime).then(|| seconds(stat.mtime)),
    };
    match (stat.name.is_empty(), set == SetAttr::default()) {
        (true, true) => Ok(Change::Nothing),
        (true, false) => Ok(Change::Attr(set)),
        (false, true) => Ok(Change::Rename(Name::new(stat.name.to_vec())?)),
        (false, false) => Err(Error::new(Kind::Invalid, "rename in a wstat of its own")),
    }
}

pub async fn wstat(file: Arc<dyn File>, open: Option<(Arc<dyn OpenFile>, bool)>, change: Change) -> Result<Done> {
    match (change, open) {
        (Change::Attr(set), _) => file.setattr(set).await?,
        (Change::Rename(name), _) => {
            let parent = Name::walk("..")?;
            if file.walk(&[parent, name.clone()]).await.end.is_ok() {
                return Err(Error::new(Kind::Exists, format!("{name} exists: wstat does not replace")));
            }
            file.rename_self(None, &name).await?;
        }
        (Change::Nothing, Some((open, live))) => {
            fsync(open, false, live).await?;
        }
        (Change::Nothing, None) => {}
    }
    Ok(Done::Reply(Reply::Wstat {}))
}

fn d_type(qid: Qid) -> u8 {
    match (qid.is_dir(), qid.is_symlink()) {
        (true, _) => 4,
        (_, true) => 10,
        _ => 8,
    }
}

/// A Treaddir's payload as it fills: entries, with attributes or without.
struct Entries {
    out: BytesMut,
    room: usize,
    attrs: bool,
    full: bool,
}

impl Entries {
    fn add(&mut self, name: &[u8], qid: Qid, offset: u64, attr: Option<Attr>) {
        let before = self.out.len();
        let entry = Dirent { qid, offset, ty: d_type(qid), name };
        if self.attrs {
            DirentAttr { entry, attr }.encode(&mut self.out);
        } else {
            entry.encode(&mut self.out);
        }
        if self.out.len() > self.room {
            self.out.truncate(before);
            self.full = true;
        }
    }
}

/// Treaddir: `.` and `..` first, then what the tree lists; as many whole entries as `count` bytes hold.
pub async fn readdir(
    dir: Arc<dyn File>,
    open: Arc<dyn OpenFile>,
    offset: u64,
    count: u32,
    attrs: bool,
) -> Result<Done> {
    let mut to = Entries { out: BytesMut::new(), room: count as usize, attrs, full: false };
    if offset == 0 {
        to.add(b".", dir.qid(), DOT, None);
    }
    if !to.full && (offset == 0 || offset == DOT) {
        let parent = [Name::walk("..")?];
        let qid = dir.walk(&parent).await.end.map_or(dir.qid(), |p| p.qid());
        to.add(b"..", qid, DOTDOT, None);
    }
    let cookie = if matches!(offset, DOT | DOTDOT) { 0 } else { offset };
    if !to.full {
        let entries_max = 1 + (to.room - to.out.len()) / Dirent::size(1);
        for e in open.readdir(cookie, entries_max).await? {
            to.add(e.name.as_bytes(), e.qid, e.cookie, e.attr);
            if to.full {
                break;
            }
        }
    }
    if to.full && to.out.is_empty() {
        return Err(Error::new(Kind::Invalid, format!("{count} bytes hold no directory entry")));
    }
    let data = to.out.freeze();
    Ok(Done::Reply(if attrs { Reply::Readdirattr { data } } else { Reply::Readdir { data } }))
}

/// A 9P2000 directory read: whole stat records, from the start or from where the last one ended.
pub async fn stats(dir: Arc<dyn File>, open: Arc<dyn OpenFile>, at: Cursor, offset: u64, count: u32) -> Result<Done> {
    let mut at = match offset {
        0 => Cursor::default(),
        o if o == at.offset => at,
        o => {
            return Err(Error::new(
                Kind::Invalid,
                format!("directory read at {o}, the next record is at {}", at.offset),
            ));
        }
    };
    let (mut out, mut record) = (BytesMut::new(), BytesMut::new());
    'full: loop {
        let entries = open.readdir(at.cookie, 1 + count as usize / 64).await?;
        let end = entries.is_empty();
        for e in entries {
            let cookie = e.cookie;
            let Some(attr) = entry_attr(&dir, &e).await? else {
                at.cookie = cookie;
                continue;
            };
            record.clear();
            with_stat(&attr, e.name.as_bytes(), |s| s.encode(&mut record));
            if out.len() + record.len() > count as usize {
                if out.is_empty() {
                    return Err(Error::new(Kind::Invalid, format!("{count} bytes hold no stat record")));
                }
                break 'full;
            }
            out.extend_from_slice(&record);
            at.cookie = cookie;
        }
        if end || !out.is_empty() {
            break;
        }
    }
    at.offset = offset + out.len() as u64;
    Ok(Done::Entries(out.freeze(), at))
}

/// An entry's attributes; none for a file that went since.
async fn entry_attr(dir: &Arc<dyn File>, e: &DirEntry) -> Result<Option<Attr>> {
    let attr = match (&e.attr, &e.file) {
        (Some(attr), _) => Ok(attr.clone()),
        (None, Some(file)) => file.getattr().await,
        (None, None) => dir.walk_getattr(std::slice::from_ref(&e.name)).await.map(|(_, attr)| attr),
    };
    match attr {
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        // a file that can be listed and not looked at is listed: only its qid is known
        Err(e2) if e2.kind() == Kind::Denied => Ok(Some(Attr { qid: e.qid, ..Attr::default() })),
        attr => attr.map(Some),
    }
}

/// Gives `then` the 9P2000 record of a file.
pub fn with_stat<R>(attr: &Attr, name: &[u8], then: impl FnOnce(&Stat) -> R) -> R {
    let (uid, gid) = (attr.uid.to_string(), attr.gid.to_string());
    let bit = |bit: QidType, perm| if attr.qid.ty.0 & bit.0 != 0 { perm } else { 0 };
    let special = bit(QidType::DIR, perm::DIR) | bit(QidType::APPEND, perm::APPEND) | bit(QidType::EXCL, perm::EXCL);
    then(&Stat {
        ty: 0,
        dev: 0,
        qid: attr.qid,
        mode: special | attr.mode & 0o777,
        atime: attr.atime.sec.clamp(0, u32::MAX.into()) as u32,
        mtime: attr.mtime.sec.clamp(0, u32::MAX.into()) as u32,
        length: if attr.qid.is_dir() { 0 } else { attr.size },
        name,
        uid: uid.as_bytes(),
        gid: gid.as_bytes(),
        muid: uid.as_bytes(),
    })
}

/// Topen's mode as open(2)'s flags.
pub fn flags(mode: u8) -> OpenFlags {
    let access = match mode & mode::ACCESS {
        1 => OpenFlags::WRONLY.0,
        2 => OpenFlags::RDWR.0,
        _ => OpenFlags::RDONLY.0, // 3, execute, reads
    };
    OpenFlags(access | if mode & mode::TRUNC != 0 { OpenFlags::TRUNC } else { 0 })
}

/// Tsetattr's fields as the trait's.
pub fn set(valid: u32, mode: u32, uid: u32, gid: u32, size: u64, atime: Time, mtime: Time) -> SetAttr {
    let has = |bit| valid & bit != 0;
    let time = |any, exact, t| match (has(any), has(exact)) {
        (true, true) => Some(SetTime::To(t)),
        (true, false) => Some(SetTime::Now),
        (false, _) => None,
    };
    SetAttr {
        mode: has(mask::MODE).then_some(mode & 0o7777),
        uid: has(mask::UID).then_some(uid),
        gid: has(mask::GID).then_some(gid),
        size: has(mask::SIZE).then_some(size),
        atime: time(mask::ATIME, mask::ATIME_SET, atime),
        mtime: time(mask::MTIME, mask::MTIME_SET, mtime),
    }
}
