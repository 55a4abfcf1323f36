//! A fid that was walked to and not opened, as a [`File`].

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::conn::{Conn, Fid, Keep};
use super::open::RemoteOpen;
use crate::wire::{AT_REMOVEDIR, Few, NAMES_MAX, NONUNAME, Reply, Request, Stat, Wstat, mask, mode, perm};
use crate::{
    Attr, Call, Created, Error, File, Kind, Name, OpenFile, OpenFlags, Qid, Result, ServerId, SetAttr, SetTime, StatFs,
    Time, Walk,
};

/// A file of the server at the other end.
pub struct Remote {
    fid: Arc<Fid>,
    qid: Qid,
}

/// Takes the fields of the one answer that fits, else the server broke the protocol.
macro_rules! answer {
    ($conn:expr, $frame:expr, $reply:pat => $value:expr) => {
        match $conn.decode(&$frame)? {
            $reply => $value,
            _ => return Err($conn.broken("an answer of the wrong type")),
        }
    };
}
pub(super) use answer;

impl Remote {
    pub fn new(fid: Arc<Fid>, qid: Qid) -> Remote {
        Remote { fid, qid }
    }

    fn conn(&self) -> &Conn {
        self.fid.conn()
    }

    /// Sends a request that may not wait and whose answer holds on to this fid.
    async fn call(&self, request: Request<'_>) -> Result<Bytes> {
        self.conn().send(&request, Keep::fid(&self.fid), true)?.await
    }

    fn linux(&self) -> Result<()> {
        if self.conn().is_linux() {
            Ok(())
        } else {
            Err(Error::new(Kind::NotSupported, "9P2000 has no message for it"))
        }
    }

    /// One Twalk of at most 16 names from `from` to a new fid.
    async fn walk_few(&self, from: &Arc<Fid>, names: &[Name]) -> Result<(Arc<Fid>, Few<Qid>)> {
        let conn = self.conn();
        let fid = Conn::fid(&self.fid.link)?;
        let frame = conn.send(&twalk(from, &fid, names)?, Keep::binds(&fid, names.len()), true)?.await?;
        walked(conn, &frame, names).map(|qids| (fid, qids))
    }

    async fn walk_all(&self, names: &[Name]) -> Walk {
        let mut qids: Vec<Qid> = Vec::with_capacity(names.len());
        let mut from = self.fid.clone();
        for few in names.chunks(NAMES_MAX) {
            match self.walk_few(&from, few).await {
                Err(e) => return Walk::stopped(qids, e),
                Ok((fid, found)) => {
                    qids.extend_from_slice(&found);
                    if found.len() < few.len() {
                        let why = self.why_stopped(&from, few, found.len()).await;
                        return Walk::stopped(qids, why);
                    }
                    from = fid;
                }
            }
        }
        let qid = qids.last().copied().unwrap_or(self.qid);
        Walk { qids, end: Ok(Arc::new(Remote { fid: from, qid })) }
    }

    /// Rwalk does not say why a later name failed: walks to the last that was found and asks for the next alone.
    async fn why_stopped(&self, from: &Arc<Fid>, names: &[Name], found: usize) -> Error {
        let again = async {
            let (fid, qids) = self.walk_few(from, &names[..found]).await?;
            if qids.len() == found { self.walk_few(&fid, &names[found..=found]).await.map(drop) } else { Ok(()) }
        };
        again.await.err().unwrap_or_else(|| Kind::NotFound.into())
    }

    async fn look(&self) -> Result<Attr> {
        let frame = self.call(look(self.conn(), &self.fid)).await?;
        looked(self.conn(), &frame)
    }

    /// Walk and getattr in one trip.
    async fn walk_and_look(&self, names: &[Name]) -> Result<(Arc<dyn File>, Attr)> {
        let conn = self.conn();
        if names.len() > NAMES_MAX || !conn.pipelines() {
            let file = self.walk_all(names).await.end?;
            let attr = file.getattr().await?;
            return Ok((file, attr));
        }
        let fid = Conn::fid(&self.fid.link)?;
        let walk = conn.send(&twalk(&self.fid, &fid, names)?, Keep::binds(&fid, names.len()), true)?;
        let look = conn.send(&look(conn, &fid), Keep::fid(&fid), true)?;
        let (walk, look) = (walk.await, look.await);
        let qids = walked(conn, &walk?, names)?;
        if qids.len() < names.len() {
            return Err(self.why_stopped(&self.fid, names, qids.len()).await);
        }
        let attr = looked(conn, &look?)?;
        Ok((Arc::new(Remote { fid, qid: attr.qid }), attr))
    }

    /// Clones the fid and has `request` sent of the clone: in one trip, where the server obeys in order.
    async fn on_clone<'r>(&self, request: impl FnOnce(u32) -> Request<'r>) -> Result<(Arc<Fid>, Bytes)> {
        let conn = self.conn();
        let fid = Conn::fid(&self.fid.link)?;
        let walk = conn.send(&twalk(&self.fid, &fid, &[])?, Keep::binds(&fid, 0), true)?;
        let (walk, done) = if conn.pipelines() {
            let done = conn.send(&request(fid.id), Keep::fid(&fid), false)?;
            (walk.await, done.await)
        } else {
            walked(conn, &walk.await?, &[])?;
            return Ok((fid.clone(), conn.send(&request(fid.id), Keep::fid(&fid), false)?.await?));
        };
        walked(conn, &walk?, &[])?;
        Ok((fid, done?))
    }

    async fn open_clone(&self, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        let conn = self.conn();
        let linux = conn.is_linux();
        let (fid, frame) = self
            .on_clone(|fid| match linux {
                true => Request::Lopen { fid, flags: flags.0 & !(OpenFlags::CREAT | OpenFlags::EXCL) },
                false => Request::Open { fid, mode: plain_mode(flags) },
            })
            .await?;
        let (qid, iounit) = match conn.decode(&frame)? {
            Reply::Lopen { qid, iounit } | Reply::Open { qid, iounit } => (qid, iounit),
            _ => return Err(conn.broken("a wrong answer to open")),
        };
        Ok(Arc::new(RemoteOpen::new(fid, qid, iounit, flags)))
    }

    async fn create_here(&self, name: &Name, flags: OpenFlags, mode: u32) -> Result<Created> {
        let conn = self.conn();
        let fid = Conn::fid(&self.fid.link)?;
        let clone = conn.send(&twalk(&self.fid, &fid, &[])?, Keep::binds(&fid, 0), true)?;
        let (text, bits) = (name.as_bytes(), flags.0 | OpenFlags::CREAT);
        let create = Request::Lcreate { fid: fid.id, name: text, flags: bits, mode, gid: NONUNAME };
        let (file, qid, iounit);
        if conn.pipelines() {
            let create = conn.send(&create, Keep::fid(&fid), false)?;
            let made = Conn::fid(&self.fid.link)?;
            let again = conn.send(&twalk(&fid, &made, &[])?, Keep::binds(&made, 0), true)?;
            let (clone, create, again) = (clone.await, create.await, again.await);
            walked(conn, &clone?, &[])?;
            (qid, iounit) = answer!(conn, create?, Reply::Lcreate { qid, iounit } => (qid, iounit));
            walked(conn, &again?, &[])?;
            file = made;
        } else {
            walked(conn, &clone.await?, &[])?;
            let plain = Request::Create { fid: fid.id, name: text, perm: mode & 0o777, mode: plain_mode(flags) };
            let create = if conn.is_linux() { create } else { plain };
            let answer = conn.send(&create, Keep::fid(&fid), false)?.await?;
            (qid, iounit) = match conn.decode(&answer) {
                Ok(Reply::Lcreate { qid, iounit } | Reply::Create { qid, iounit }) => (qid, iounit),
                Ok(_) => return Err(conn.broken("a wrong answer to create")),
                Err(e) if e.kind() == Kind::Exists && !conn.is_linux() && !flags.has(OpenFlags::EXCL) => {
                    let file = self.walk_all(std::slice::from_ref(name)).await.end?;
                    let open = file.open(flags).await?;
                    return Ok(Created { file, open });
                }
                Err(e) => return Err(e),
            };
            let name = std::slice::from_ref(name);
            file = self.walk_few(&self.fid, name).await?.0;
        }
        let open = Arc::new(RemoteOpen::new(fid, qid, iounit, flags));
        Ok(Created { file: Arc::new(Remote { fid: file, qid }), open })
    }

    async fn mkdir_here(&self, name: &Name, mode: u32) -> Result<Arc<dyn File>> {
        let conn = self.conn();
        if conn.is_linux() {
            let mkdir = Request::Mkdir { dfid: self.fid.id, name: name.as_bytes(), mode, gid: NONUNAME };
            answer!(conn, self.call(mkdir).await?, Reply::Mkdir { .. } => ());
        } else {
            let perm = perm::DIR | mode & 0o777;
            let (_fid, frame) =
                self.on_clone(|fid| Request::Create { fid, name: name.as_bytes(), perm, mode: 0 }).await?;
            answer!(conn, frame, Reply::Create { .. } => ());
        }
        self.walk_all(std::slice::from_ref(name)).await.end
    }

    /// Tremove of a clone: the fid is gone whatever comes of it.
    async fn remove_clone(&self) -> Result<()> {
        let conn = self.conn();
        let (fid, _) = self.walk_few(&self.fid, &[]).await?;
        let answer = conn.send(&Request::Remove { fid: fid.id }, Keep::fid(&fid), true)?;
        fid.set_lost();
        let frame = answer.await?;
        fid.set_unbound();
        answer!(conn, frame, Reply::Remove {} => Ok(()))
    }

    /// `other`'s fid, where it is of this connection.
    fn same<'a>(&self, other: &'a Arc<dyn File>) -> Result<&'a Remote> {
        let other = other.as_any().downcast_ref::<Remote>();
        let here = other.filter(|o| Arc::ptr_eq(&o.fid.link.0, &self.fid.link.0));
        here.ok_or_else(|| Kind::CrossDevice.into())
    }

    async fn wstat(&self, stat: Stat<'_>) -> Result<()> {
        let frame = self.call(Request::Wstat { fid: self.fid.id, stat: Wstat(stat) }).await?;
        answer!(self.conn(), frame, Reply::Wstat {} => Ok(()))
    }

    async fn set(&self, set: SetAttr) -> Result<()> {
        if !self.conn().is_linux() {
            return self.wstat(plain_set(set, self.qid.is_dir())?).await;
        }
        let mut valid = 0;
        let mut bit = |on, bit| valid |= if on { bit } else { 0 };
        bit(set.mode.is_some(), mask::MODE);
        bit(set.uid.is_some(), mask::UID);
        bit(set.gid.is_some(), mask::GID);
        bit(set.size.is_some(), mask::SIZE);
        bit(set.atime.is_some(), mask::ATIME);
        bit(set.mtime.is_some(), mask::MTIME);
        bit(matches!(set.atime, Some(SetTime::To(_))), mask::ATIME_SET);
        bit(matches!(set.mtime, Some(SetTime::To(_))), mask::MTIME_SET);
        let time = |t| if let Some(SetTime::To(t)) = t { t } else { Time::default() };
        let setattr = Request::Setattr {
            fid: self.fid.id,
            valid,
            mode: set.mode.unwrap_or(0),
            uid: set.uid.unwrap_or(0),
            gid: set.gid.unwrap_or(0),
            size: set.size.unwrap_or(0),
            atime: time(set.atime),
            mtime: time(set.mtime),
        };
        answer!(self.conn(), self.call(setattr).await?, Reply::Setattr {} => Ok(()))
    }

    async fn rename_at(&self, old: &Name, dir: &Arc<dyn File>, new: &Name) -> Result<()> {
        let to = self.same(dir)?;
        if !self.conn().is_linux() {
            if to.qid.path != self.qid.path {
                return Err(Error::new(Kind::CrossDevice, "9P2000 renames within one directory only"));
            }
            let file = self.walk_all(std::slice::from_ref(old)).await.end?;
            return file.rename_self(None, new).await;
        }
        let (oldname, newname) = (old.as_bytes(), new.as_bytes());
        let rename = Request::Renameat { olddirfid: self.fid.id, oldname, newdirfid: to.fid.id, newname };
        answer!(self.conn(), self.call(rename).await?, Reply::Renameat {} => Ok(()))
    }

    async fn rename_this(&self, dir: Option<&Arc<dyn File>>, new: &Name) -> Result<()> {
        let parent = match (dir, self.conn().is_linux()) {
            (None, false) => return self.wstat(Stat { name: new.as_bytes(), ..Stat::KEEP }).await,
            (Some(_), false) => return Err(Error::new(Kind::CrossDevice, "9P2000 renames within one directory only")),
            (Some(dir), true) => self.same(dir)?.fid.clone(),
            (None, true) => self.walk_few(&self.fid, &[Name::walk("..")?]).await?.0,
        };
        let rename = Request::Rename { fid: self.fid.id, dfid: parent.id, name: new.as_bytes() };
        answer!(self.conn(), self.call(rename).await?, Reply::Rename {} => Ok(()))
    }

    async fn unlink_here(&self, name: &Name, dir: bool) -> Result<()> {
        if !self.conn().is_linux() {
            let file = self.walk_all(std::slice::from_ref(name)).await.end?;
            return match (file.qid().is_dir(), dir) {
                (true, false) => Err(Kind::IsDir.into()),
                (false, true) => Err(Kind::NotDir.into()),
                _ => file.remove().await,
            };
        }
        let flags = if dir { AT_REMOVEDIR } else { 0 };
        let unlink = Request::Unlinkat { dirfid: self.fid.id, name: name.as_bytes(), flags };
        answer!(self.conn(), self.call(unlink).await?, Reply::Unlinkat {} => Ok(()))
    }
}

fn twalk<'a>(from: &Fid, to: &Fid, names: &'a [Name]) -> Result<Request<'a>> {
    let names = Few::collect(names.iter().map(Name::as_bytes)).map_err(|e| Error::new(Kind::Invalid, e))?;
    Ok(Request::Walk { fid: from.id, newfid: to.id, names })
}

/// The qids of an Rwalk: not more than names, and none for names is a lie.
fn walked(conn: &Conn, frame: &Bytes, names: &[Name]) -> Result<Few<Qid>> {
    let qids = answer!(conn, frame, Reply::Walk { qids } => qids);
    if qids.len() > names.len() || (qids.is_empty() && !names.is_empty()) {
        return Err(conn.broken(format_args!("{} qids for {} names", qids.len(), names.len())));
    }
    Ok(qids)
}

fn look(conn: &Conn, fid: &Fid) -> Request<'static> {
    match conn.is_linux() {
        true => Request::Getattr { fid: fid.id, mask: mask::BASIC },
        false => Request::Stat { fid: fid.id },
    }
}

fn looked(conn: &Conn, frame: &Bytes) -> Result<Attr> {
    match conn.decode(frame)? {
        Reply::Getattr { attr, .. } => Ok(conn.shown(attr)),
        Reply::Stat { stat } => Ok(conn.shown(plain_attr(&stat.0))),
        _ => Err(conn.broken("a wrong answer to getattr")),
    }
}

/// The attributes that a 9P2000 stat record tells. Names of users that are no numbers are shown as nobody's.
pub fn plain_attr(s: &Stat) -> Attr {
    let id = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).unwrap_or(65_534);
    let time = |sec: u32| Time { sec: sec.into(), nsec: 0 };
    Attr {
        qid: s.qid,
        mode: s.mode & 0o777 | if s.mode & perm::DIR != 0 { Attr::DIR } else { Attr::REGULAR },
        uid: id(s.uid),
        gid: id(s.gid),
        nlink: 1,
        rdev: 0,
        size: s.length,
        blksize: 4096,
        blocks: s.length.div_ceil(512),
        atime: time(s.atime),
        mtime: time(s.mtime),
        ctime: time(s.mtime),
    }
}

fn plain_mode(flags: OpenFlags) -> u8 {
    let access = match (flags.reads(), flags.writes()) {
        (true, true) => 2,
        (false, true) => 1,
        _ => 0,
    };
    access | if flags.has(OpenFlags::TRUNC) { mode::TRUNC } else { 0 }
}

fn plain_set(set: SetAttr, dir: bool) -> Result<Stat<'static>> {
    if set.uid.is_some() || set.gid.is_some() {
        return Err(Error::new(Kind::NotSupported, "9P2000 cannot give a file to another user"));
    }
    let seconds = |t: Option<SetTime>| match t {
        None => u32::MAX,
        Some(SetTime::Now) => Time::now().sec as u32,
        Some(SetTime::To(t)) => t.sec.clamp(0, i64::from(u32::MAX) - 1) as u32,
    };
    let kind = if dir { perm::DIR } else { 0 };
    Ok(Stat {
        mode: set.mode.map_or(u32::MAX, |m| kind | m & 0o777),
        length: set.size.unwrap_or(u64::MAX),
        mtime: seconds(set.mtime),
        ..Stat::KEEP
    })
}

impl File for Remote {
    fn server(&self) -> ServerId {
        self.conn().server
    }

    fn qid(&self) -> Qid {
        self.qid
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(self.walk_all(names))
    }

    fn getattr(&self) -> Call<'_, Attr> {
        Box::pin(self.look())
    }

    fn walk_getattr<'a>(&'a self, names: &'a [Name]) -> Call<'a, (Arc<dyn File>, Attr)> {
        Box::pin(self.walk_and_look(names))
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        Box::pin(self.open_clone(flags))
    }

    fn create<'a>(&'a self, name: &'a Name, flags: OpenFlags, mode: u32) -> Call<'a, Created> {
        Box::pin(self.create_here(name, flags, mode))
    }

    fn mkdir<'a>(&'a self, name: &'a Name, mode: u32) -> Call<'a, Arc<dyn File>> {
        Box::pin(self.mkdir_here(name, mode))
    }

    fn symlink<'a>(&'a self, name: &'a Name, target: &'a [u8]) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            self.linux()?;
            let symlink = Request::Symlink { dfid: self.fid.id, name: name.as_bytes(), target, gid: NONUNAME };
            answer!(self.conn(), self.call(symlink).await?, Reply::Symlink { .. } => ());
            self.walk_all(std::slice::from_ref(name)).await.end
        })
    }

    fn link<'a>(&'a self, name: &'a Name, file: &'a Arc<dyn File>) -> Call<'a, ()> {
        Box::pin(async move {
            self.linux()?;
            let link = Request::Link { dfid: self.fid.id, fid: self.same(file)?.fid.id, name: name.as_bytes() };
            answer!(self.conn(), self.call(link).await?, Reply::Link {} => Ok(()))
        })
    }

    fn readlink(&self) -> Call<'_, Bytes> {
        Box::pin(async move {
            self.linux()?;
            let frame = self.call(Request::Readlink { fid: self.fid.id }).await?;
            answer!(self.conn(), frame, Reply::Readlink { target } => Ok(Bytes::copy_from_slice(target)))
        })
    }

    fn unlink<'a>(&'a self, name: &'a Name, dir: bool) -> Call<'a, ()> {
        Box::pin(self.unlink_here(name, dir))
    }

    fn remove(&self) -> Call<'_, ()> {
        Box::pin(self.remove_clone())
    }

    fn rename<'a>(&'a self, old: &'a Name, dir: &'a Arc<dyn File>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(self.rename_at(old, dir, new))
    }

    fn rename_self<'a>(&'a self, dir: Option<&'a Arc<dyn File>>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(self.rename_this(dir, new))
    }

    fn setattr(&self, set: SetAttr) -> Call<'_, ()> {
        Box::pin(self.set(set))
    }

    fn statfs(&self) -> Call<'_, StatFs> {
        Box::pin(async move {
            if self.linux().is_err() {
                return Ok(StatFs { ty: 0x0102_1997, bsize: 4096, namelen: 255, ..StatFs::default() });
            }
            let frame = self.call(Request::Statfs { fid: self.fid.id }).await?;
            answer!(self.conn(), frame, Reply::Statfs { ty, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen } =>
                Ok(StatFs { ty, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen }))
        })
    }
}
