//! A file on another node that outlives its connection.
//!
//! It remembers the peer, the attach and the names walked, and walks them again where the session it was walked on has
//! died: whoever holds it (a mount, a name space) needs no remount. What was open stays lost, and says so. While the
//! session lives a call costs the one trip that the client makes of it.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Created, DirEntry, File, Kind, Name, OpenFile, OpenFlags, PeerId, Qid, QidType, Result, ServerId,
    SetAttr, StatFs, Walk,
};

use crate::session::Session;
use crate::{Error, Inner};

/// One attach to a peer: the tree that `aname` names there. Its files have one identity over all sessions.
pub(crate) struct Root {
    inner: Weak<Inner>,
    peer: PeerId,
    aname: String,
    server: ServerId,
    attached: tokio::sync::Mutex<Option<Bound>>,
}

impl Root {
    pub(crate) fn new(inner: Weak<Inner>, peer: PeerId, aname: String) -> Arc<Root> {
        let server = ServerId::fresh();
        Arc::new(Root { inner, peer, aname, server, attached: tokio::sync::Mutex::new(None) })
    }

    /// The root's file on the session that lives now, attaching where that was not done yet.
    pub(crate) async fn attach(&self) -> Result<Bound> {
        let stopped = || Error::Unreachable { who: self.peer.to_string(), why: "this node is stopping".into() };
        let session = self.inner.upgrade().ok_or_else(stopped)?.session(&self.peer).await?;
        let mut attached = self.attached.lock().await;
        if let Some(bound) = attached.as_ref().filter(|b| Arc::ptr_eq(&b.session, &session)) {
            return Ok(bound.clone());
        }
        let file = session.client.attach("", &self.aname).await.map_err(|e| session.explain(e))?;
        Ok(attached.insert(Bound { session, file }).clone())
    }

    /// Whether a session lives on which the root was attached.
    fn is_attached(&self) -> bool {
        // Held by somebody: an attach is under way, and a look may wait for it.
        self.attached.try_lock().map_or(true, |a| a.as_ref().is_some_and(|b| b.session.alive()))
    }

    /// Its file: dialled when it is used.
    pub(crate) fn file(self: &Arc<Root>) -> Arc<dyn File> {
        Arc::new(Far { root: self.clone(), place: Arc::new(Place::Root), bound: Mutex::new(None) })
    }
}

/// The qid of every root: the same before and after it was dialled. No server numbers a file so.
const ROOT_QID: Qid = Qid { ty: QidType::DIR, version: 0, path: u64::MAX };

/// A root as it looks while no session with the peer lives.
fn unseen() -> Attr {
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    Attr { qid: ROOT_QID, mode: Attr::DIR | 0o555, uid, gid, nlink: 1, blksize: 4096, ..Attr::default() }
}

/// The names walked from the root.
enum Place {
    Root,
    At { above: Arc<Place>, name: Name },
}

impl Place {
    fn join(self: &Arc<Place>, names: &[Name]) -> Arc<Place> {
        names.iter().fold(self.clone(), |above, name| match (&*above, name.is_parent()) {
            (Place::Root, true) => above,
            (Place::At { above, .. }, true) => above.clone(),
            _ => Arc::new(Place::At { above, name: name.clone() }),
        })
    }

    fn names(&self) -> Vec<Name> {
        let (mut names, mut here) = (Vec::new(), self);
        while let Place::At { above, name } = here {
            names.push(name.clone());
            here = above;
        }
        names.reverse();
        names
    }

    fn text(&self) -> String {
        self.names().iter().map(|n| format!("/{n}")).collect()
    }
}

/// A session and the file as it was walked to on it.
#[derive(Clone)]
pub(crate) struct Bound {
    session: Arc<Session>,
    file: Arc<dyn File>,
}

struct Far {
    root: Arc<Root>,
    place: Arc<Place>,
    bound: Mutex<Option<Bound>>,
}

/// A call on the file as it is on the live session, its error explained.
macro_rules! forward {
    ($self:ident, $file:ident => $call:expr) => {
        Box::pin(async move {
            let Bound { session, file: $file } = $self.bind().await?;
            $call.await.map_err(|e| session.explain(e))
        })
    };
}

impl Far {
    fn lock(&self) -> MutexGuard<'_, Option<Bound>> {
        self.bound.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The file at `names` from here, as walked to on `session`.
    fn beside(&self, names: &[Name], session: &Arc<Session>, file: Arc<dyn File>) -> Arc<dyn File> {
        let bound = Mutex::new(Some(Bound { session: session.clone(), file }));
        Arc::new(Far { root: self.root.clone(), place: self.place.join(names), bound })
    }

    /// The file on a session that lives: as it was walked to, or walked to again.
    async fn bind(&self) -> Result<Bound> {
        let before = self.lock().clone();
        if let Some(bound) = &before
            && bound.session.alive()
        {
            return Ok(bound.clone());
        }
        let Bound { session, file: root } = self.root.attach().await?;
        let file = match &*self.place {
            Place::Root => root,
            Place::At { .. } => root.walk(&self.place.names()).await.end.map_err(|e| session.explain(e))?,
        };
        if before.is_some_and(|b| is_another(b.file.qid(), file.qid())) {
            return Err(Error::Stale { who: self.root.peer.to_string(), path: self.place.text() }.into());
        }
        let bound = Bound { session, file };
        *self.lock() = Some(bound.clone());
        Ok(bound)
    }

    /// The file behind `file` on `session`, where it is of this attach.
    async fn same(&self, file: &Arc<dyn File>, session: &Arc<Session>) -> Result<Arc<dyn File>> {
        let far = file.as_any().downcast_ref::<Far>().filter(|f| Arc::ptr_eq(&f.root, &self.root));
        let bound = far.ok_or(Kind::CrossDevice)?.bind().await?;
        if Arc::ptr_eq(&bound.session, session) { Ok(bound.file) } else { Err(Kind::Again.into()) }
    }
}

/// Whether two looks at one name saw different files. Live files have no identity to compare, and a directory is what
/// stands at its name.
fn is_another(before: Qid, now: Qid) -> bool {
    before.ty != now.ty || (!before.is_dir() && !before.is_live() && before.path != now.path)
}

impl File for Far {
    fn server(&self) -> ServerId {
        self.root.server
    }

    fn qid(&self) -> Qid {
        match &*self.place {
            Place::Root => ROOT_QID,
            // Below the root a file was walked to, so it has been bound.
            Place::At { .. } => self.lock().as_ref().map_or(ROOT_QID, |b| b.file.qid()),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(async move {
            let Bound { session, file } = match self.bind().await {
                Ok(bound) => bound,
                Err(e) => return Walk::stopped(Vec::new(), e),
            };
            let walk = file.walk(names).await;
            let end = walk.end.map(|f| self.beside(names, &session, f)).map_err(|e| session.explain(e));
            Walk { qids: walk.qids, end }
        })
    }

    /// Looking at a root dials nobody: `ls -l` of n/ is not held up by peers that are away.
    fn getattr(&self) -> Call<'_, Attr> {
        Box::pin(async move {
            let is_root = matches!(*self.place, Place::Root);
            if is_root && !self.root.is_attached() {
                return Ok(unseen());
            }
            let Bound { session, file } = self.bind().await?;
            let attr = file.getattr().await.map_err(|e| session.explain(e))?;
            Ok(if is_root { Attr { qid: ROOT_QID, ..attr } } else { attr })
        })
    }

    fn walk_getattr<'a>(&'a self, names: &'a [Name]) -> Call<'a, (Arc<dyn File>, Attr)> {
        Box::pin(async move {
            if names.is_empty() {
                let clone =
                    Far { root: self.root.clone(), place: self.place.clone(), bound: Mutex::new(self.lock().clone()) };
                let attr = clone.getattr().await?;
                return Ok((Arc::new(clone) as Arc<dyn File>, attr));
            }
            let Bound { session, file } = self.bind().await?;
            let (file, attr) = file.walk_getattr(names).await.map_err(|e| session.explain(e))?;
            Ok((self.beside(names, &session, file), attr))
        })
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        Box::pin(async move {
            let Bound { session, file } = self.bind().await?;
            let open = file.open(flags).await.map_err(|e| session.explain(e))?;
            let (root, place) = (self.root.clone(), self.place.clone());
            Ok(Arc::new(FarOpen { root, place, session, open }) as Arc<dyn OpenFile>)
        })
    }

    fn create<'a>(&'a self, name: &'a Name, flags: OpenFlags, mode: u32) -> Call<'a, Created> {
        Box::pin(async move {
            let Bound { session, file } = self.bind().await?;
            let made = file.create(name, flags, mode).await.map_err(|e| session.explain(e))?;
            let file = self.beside(std::slice::from_ref(name), &session, made.file);
            let (root, place) = (self.root.clone(), self.place.join(std::slice::from_ref(name)));
            Ok(Created { file, open: Arc::new(FarOpen { root, place, session, open: made.open }) })
        })
    }

    fn mkdir<'a>(&'a self, name: &'a Name, mode: u32) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let Bound { session, file } = self.bind().await?;
            let made = file.mkdir(name, mode).await.map_err(|e| session.explain(e))?;
            Ok(self.beside(std::slice::from_ref(name), &session, made))
        })
    }

    fn symlink<'a>(&'a self, name: &'a Name, target: &'a [u8]) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let Bound { session, file } = self.bind().await?;
            let made = file.symlink(name, target).await.map_err(|e| session.explain(e))?;
            Ok(self.beside(std::slice::from_ref(name), &session, made))
        })
    }

    fn link<'a>(&'a self, name: &'a Name, file: &'a Arc<dyn File>) -> Call<'a, ()> {
        Box::pin(async move {
            let Bound { session, file: dir } = self.bind().await?;
            let file = self.same(file, &session).await?;
            dir.link(name, &file).await.map_err(|e| session.explain(e))
        })
    }

    fn readlink(&self) -> Call<'_, Bytes> {
        forward!(self, file => file.readlink())
    }

    fn unlink<'a>(&'a self, name: &'a Name, dir: bool) -> Call<'a, ()> {
        forward!(self, file => file.unlink(name, dir))
    }

    fn remove(&self) -> Call<'_, ()> {
        forward!(self, file => file.remove())
    }

    fn rename<'a>(&'a self, old: &'a Name, dir: &'a Arc<dyn File>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(async move {
            let Bound { session, file } = self.bind().await?;
            let dir = self.same(dir, &session).await?;
            file.rename(old, &dir, new).await.map_err(|e| session.explain(e))
        })
    }

    fn rename_self<'a>(&'a self, dir: Option<&'a Arc<dyn File>>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(async move {
            let Bound { session, file } = self.bind().await?;
            let dir = match dir {
                Some(dir) => Some(self.same(dir, &session).await?),
                None => None,
            };
            file.rename_self(dir.as_ref(), new).await.map_err(|e| session.explain(e))
        })
    }

    fn setattr(&self, set: SetAttr) -> Call<'_, ()> {
        forward!(self, file => file.setattr(set))
    }

    fn statfs(&self) -> Call<'_, StatFs> {
        forward!(self, file => file.statfs())
    }
}

/// An opening on one session; it ends with that.
struct FarOpen {
    root: Arc<Root>,
    place: Arc<Place>,
    session: Arc<Session>,
    open: Arc<dyn OpenFile>,
}

impl FarOpen {
    fn explained<'a, T: 'a>(&'a self, call: Call<'a, T>) -> Call<'a, T> {
        Box::pin(async move { call.await.map_err(|e| self.session.explain(e)) })
    }
}

impl OpenFile for FarOpen {
    fn iounit(&self) -> u32 {
        self.open.iounit()
    }

    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        self.explained(self.open.read(offset, count))
    }

    fn write(&self, offset: u64, data: Bytes) -> Call<'_, u32> {
        self.explained(self.open.write(offset, data))
    }

    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        Box::pin(async move {
            let read = self.open.readdir(cookie, entries_max).await;
            let mut entries = read.map_err(|e| self.session.explain(e))?;
            // A file that came with its entry outlives the connection like one that was walked to.
            for entry in &mut entries {
                if let Some(file) = entry.file.take() {
                    let place = self.place.join(std::slice::from_ref(&entry.name));
                    let bound = Mutex::new(Some(Bound { session: self.session.clone(), file }));
                    entry.file = Some(Arc::new(Far { root: self.root.clone(), place, bound }));
                }
            }
            Ok(entries)
        })
    }

    fn fsync(&self, data_only: bool) -> Call<'_, ()> {
        self.explained(self.open.fsync(data_only))
    }

    fn flush(&self) -> Call<'_, ()> {
        self.explained(self.open.flush())
    }
}
