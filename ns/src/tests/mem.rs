//! A file server in memory that can die, hang and forget its handles; it counts the calls it gets.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Created, DirEntry, File, Kind, Name, OpenFile, OpenFlags, Qid, QidType, Result, ServerId, Walk,
};

use tokio::sync::watch;

use crate::link::lock;

#[derive(Clone)]
enum Inode {
    Dir(BTreeMap<Name, u64>),
    File(Vec<u8>),
    Graft(Arc<Mem>),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Health {
    Well,
    Hangs,
    Fails(Kind),
}

pub struct Mem {
    server: ServerId,
    inodes: Mutex<BTreeMap<u64, Inode>>,
    next: AtomicU64,
    health: watch::Sender<Health>,
    epoch: AtomicU64,
    pub calls: AtomicUsize,
    /// Listings come without files.
    pub bare: AtomicBool,
}

pub struct MemFile {
    mem: Arc<Mem>,
    ino: u64,
    epoch: u64,
}

impl Mem {
    /// A tree with these files; a name that ends in `/` is a directory.
    pub fn new(files: &str) -> Arc<Mem> {
        let mem = Arc::new(Mem {
            server: ServerId::fresh(),
            inodes: Mutex::new(BTreeMap::from([(1, Inode::Dir(BTreeMap::new()))])),
            next: AtomicU64::new(2),
            health: watch::Sender::new(Health::Well),
            epoch: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            bare: AtomicBool::new(false),
        });
        for file in files.split(' ').filter(|f| !f.is_empty()) {
            let (path, text) = file.split_once('=').unwrap_or((file, ""));
            let names = Name::path(path).unwrap();
            let mut dir = 1;
            for (i, name) in names.iter().enumerate() {
                let leaf = i + 1 == names.len() && !path.ends_with('/');
                let inode = if leaf { Inode::File(text.into()) } else { Inode::Dir(BTreeMap::new()) };
                dir = mem.add(dir, name, inode);
            }
        }
        mem
    }

    fn add(&self, dir: u64, name: &Name, inode: Inode) -> u64 {
        let mut inodes = lock(&self.inodes);
        let Some(Inode::Dir(names)) = inodes.get_mut(&dir) else { panic!("not a directory") };
        if let Some(ino) = names.get(name) {
            return *ino;
        }
        let ino = self.next.fetch_add(1, Ordering::Relaxed);
        names.insert(name.clone(), ino);
        inodes.insert(ino, inode);
        ino
    }

    /// Another tree stands at the root's `name`: a walk into it gives that server's file.
    pub fn graft(&self, name: &str, mem: &Arc<Mem>) {
        self.add(1, &Name::new(name.to_owned()).unwrap(), Inode::Graft(mem.clone()));
    }

    /// `name` in the root is the root itself.
    pub fn cycle(&self, name: &str) {
        let mut inodes = lock(&self.inodes);
        let Some(Inode::Dir(names)) = inodes.get_mut(&1) else { panic!("no root") };
        names.insert(Name::new(name.to_owned()).unwrap(), 1);
    }

    pub fn remove(&self, name: &str) {
        let mut inodes = lock(&self.inodes);
        let Some(Inode::Dir(names)) = inodes.get_mut(&1) else { panic!("no root") };
        names.remove(&Name::new(name.to_owned()).unwrap());
    }

    pub fn set(&self, health: Health) {
        self.health.send_replace(health);
    }

    /// Every handle given so far fails with `Reset` from now on.
    pub fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    pub fn root(self: &Arc<Mem>) -> Arc<dyn File> {
        Arc::new(MemFile::at(self, 1))
    }

    async fn turn(&self, epoch: u64) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut health = self.health.subscribe();
        let health = *health.wait_for(|h| *h != Health::Hangs).await.map_err(|_| Kind::Io)?;
        match health {
            Health::Fails(kind) => Err(kind.into()),
            Health::Well if epoch != self.epoch.load(Ordering::Relaxed) => Err(Kind::Reset.into()),
            _ => Ok(()),
        }
    }

    fn qid(&self, ino: u64) -> Qid {
        match lock(&self.inodes).get(&ino) {
            Some(Inode::File(_)) | None => Qid { ty: QidType::FILE, version: 1, path: ino },
            Some(Inode::Dir(_)) => Qid { ty: QidType::DIR, version: 1, path: ino },
            Some(Inode::Graft(mem)) => mem.qid(1),
        }
    }

    fn attr(&self, ino: u64) -> Result<Attr> {
        let qid = self.qid(ino);
        match lock(&self.inodes).get(&ino) {
            Some(Inode::Dir(_) | Inode::Graft(_)) => {
                Ok(Attr { qid, mode: Attr::DIR | 0o755, nlink: 2, ..Attr::default() })
            }
            Some(Inode::File(b)) => {
                Ok(Attr { qid, mode: Attr::REGULAR | 0o644, nlink: 1, size: b.len() as u64, ..Attr::default() })
            }
            None => Err(Kind::Stale.into()),
        }
    }

    fn names<T>(&self, ino: u64, f: impl FnOnce(&mut BTreeMap<Name, u64>) -> Result<T>) -> Result<T> {
        match lock(&self.inodes).get_mut(&ino) {
            Some(Inode::Dir(names)) => f(names),
            _ => Err(Kind::NotDir.into()),
        }
    }
}

impl MemFile {
    fn at(mem: &Arc<Mem>, ino: u64) -> MemFile {
        MemFile { mem: mem.clone(), ino, epoch: mem.epoch.load(Ordering::Relaxed) }
    }

    fn step(&self, name: &Name) -> Result<MemFile> {
        let ino = self.mem.names(self.ino, |names| names.get(name).copied().ok_or(Kind::NotFound.into()))?;
        match lock(&self.mem.inodes).get(&ino) {
            Some(Inode::Graft(mem)) => Ok(MemFile::at(mem, 1)),
            _ => Ok(MemFile::at(&self.mem, ino)),
        }
    }
}

impl File for MemFile {
    fn server(&self) -> ServerId {
        self.mem.server
    }

    fn qid(&self) -> Qid {
        self.mem.qid(self.ino)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(async move {
            if let Err(e) = self.mem.turn(self.epoch).await {
                return Walk::stopped(Vec::new(), e);
            }
            let mut at = MemFile { mem: self.mem.clone(), ino: self.ino, epoch: self.epoch };
            let mut qids = Vec::new();
            for name in names {
                let server = at.mem.server;
                at = match at.step(name) {
                    Ok(next) => next,
                    Err(e) => return Walk::stopped(qids, e),
                };
                if at.mem.server != server
                    && let Err(e) = at.mem.turn(at.epoch).await
                {
                    return Walk::stopped(qids, e);
                }
                qids.push(at.qid());
            }
            Walk { qids, end: Ok(Arc::new(at)) }
        })
    }

    fn walk_getattr<'a>(&'a self, names: &'a [Name]) -> Call<'a, (Arc<dyn File>, Attr)> {
        Box::pin(async move {
            let file = self.walk(names).await.end?;
            let attr = self.mem.attr(file.qid().path)?;
            Ok((file, attr))
        })
    }

    fn getattr(&self) -> Call<'_, Attr> {
        Box::pin(async {
            self.mem.turn(self.epoch).await?;
            self.mem.attr(self.ino)
        })
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        Box::pin(async move {
            self.mem.turn(self.epoch).await?;
            if flags.has(OpenFlags::TRUNC)
                && let Some(Inode::File(b)) = lock(&self.mem.inodes).get_mut(&self.ino)
            {
                b.clear();
            }
            let open: Arc<dyn OpenFile> = Arc::new(MemFile { mem: self.mem.clone(), ..*self });
            Ok(open)
        })
    }

    fn create<'a>(&'a self, name: &'a Name, flags: OpenFlags, _mode: u32) -> Call<'a, Created> {
        Box::pin(async move {
            self.mem.turn(self.epoch).await?;
            if self.mem.names(self.ino, |names| Ok(names.contains_key(name)))? && flags.has(OpenFlags::EXCL) {
                return Err(Kind::Exists.into());
            }
            let ino = self.mem.add(self.ino, name, Inode::File(Vec::new()));
            let (file, open) = (MemFile::at(&self.mem, ino), MemFile::at(&self.mem, ino));
            Ok(Created { file: Arc::new(file), open: Arc::new(open) })
        })
    }

    fn mkdir<'a>(&'a self, name: &'a Name, _mode: u32) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            self.mem.turn(self.epoch).await?;
            if self.mem.names(self.ino, |names| Ok(names.contains_key(name)))? {
                return Err(Kind::Exists.into());
            }
            let file: Arc<dyn File> =
                Arc::new(MemFile::at(&self.mem, self.mem.add(self.ino, name, Inode::Dir(BTreeMap::new()))));
            Ok(file)
        })
    }

    fn link<'a>(&'a self, name: &'a Name, file: &'a Arc<dyn File>) -> Call<'a, ()> {
        Box::pin(async move {
            self.mem.turn(self.epoch).await?;
            let file = file.as_any().downcast_ref::<MemFile>().ok_or(Kind::CrossDevice)?;
            self.mem.names(self.ino, |names| {
                names.insert(name.clone(), file.ino);
                Ok(())
            })
        })
    }

    fn unlink<'a>(&'a self, name: &'a Name, _dir: bool) -> Call<'a, ()> {
        Box::pin(async move {
            self.mem.turn(self.epoch).await?;
            self.mem.names(self.ino, |names| names.remove(name).map(drop).ok_or(Kind::NotFound.into()))
        })
    }

    fn rename<'a>(&'a self, old: &'a Name, dir: &'a Arc<dyn File>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(async move {
            self.mem.turn(self.epoch).await?;
            let dir = dir.as_any().downcast_ref::<MemFile>().ok_or(Kind::CrossDevice)?;
            let ino = self.mem.names(self.ino, |names| names.remove(old).ok_or(Kind::NotFound.into()))?;
            self.mem.names(dir.ino, |names| {
                names.insert(new.clone(), ino);
                Ok(())
            })
        })
    }

    fn remove(&self) -> Call<'_, ()> {
        Box::pin(async {
            self.mem.turn(self.epoch).await?;
            for inode in lock(&self.mem.inodes).values_mut() {
                if let Inode::Dir(names) = inode {
                    names.retain(|_, ino| *ino != self.ino);
                }
            }
            Ok(())
        })
    }

    fn rename_self<'a>(&'a self, dir: Option<&'a Arc<dyn File>>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(async move {
            self.remove().await?;
            let dir = dir.and_then(|d| d.as_any().downcast_ref::<MemFile>()).ok_or(Kind::CrossDevice)?;
            self.mem.names(dir.ino, |names| {
                names.insert(new.clone(), self.ino);
                Ok(())
            })
        })
    }
}

impl OpenFile for MemFile {
    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        Box::pin(async move {
            self.mem.turn(self.epoch).await?;
            match lock(&self.mem.inodes).get(&self.ino) {
                Some(Inode::File(b)) => {
                    let start = (offset as usize).min(b.len());
                    Ok(Bytes::copy_from_slice(&b[start..(start + count as usize).min(b.len())]))
                }
                _ => Err(Kind::IsDir.into()),
            }
        })
    }

    fn write(&self, _offset: u64, data: Bytes) -> Call<'_, u32> {
        Box::pin(async move {
            self.mem.turn(self.epoch).await?;
            match lock(&self.mem.inodes).get_mut(&self.ino) {
                Some(Inode::File(b)) => b.extend_from_slice(&data),
                _ => return Err(Kind::IsDir.into()),
            }
            Ok(data.len() as u32)
        })
    }

    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        Box::pin(async move {
            self.mem.turn(self.epoch).await?;
            let names = self.mem.names(self.ino, |names| Ok(names.clone()))?;
            let bare = self.mem.bare.load(Ordering::Relaxed);
            let entry = |(i, (name, ino)): (usize, (Name, u64))| DirEntry {
                qid: self.mem.qid(ino),
                cookie: i as u64 + 1,
                attr: self.mem.attr(ino).ok(),
                file: self.step(&name).ok().filter(|_| !bare).map(|f| Arc::new(f) as Arc<dyn File>),
                name,
            };
            Ok(names.into_iter().enumerate().skip(cookie as usize).take(entries_max).map(entry).collect())
        })
    }
}
