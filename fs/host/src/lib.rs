//! fs-host: a host directory as a file tree, served handle-relative. See host(4).
//!
//! A [`Host`] is made by srv/export for a granted directory and by the node for the user's own. Every file is reached by
//! one openat2(2) of one name under its directory's descriptor, beneath it and through no link, so that no `..`, symbolic
//! link or race leads out; links are handed over as links. A path string is looked at once, in [`Host::open`].
//!
//! A handle's descriptor (O_PATH) may be closed while it is idle, and is found again by its name in its directory and
//! checked to be the same file; what is open, and what a call uses, stays. The node's one thread does what the kernel's
//! caches can answer and hands the rest to blocking threads; a call handed over runs to its end even when it is dropped.

mod dir;
mod file;
mod handle;
mod mounts;
mod node;
mod pool;
mod quota;
mod setattr;
mod sys;

use std::hash::RandomState;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use fs_ninep::{Call, Caller, Error, File, Kind, Result, ServerId, Tree};

use crate::handle::Handle;
use crate::node::Node;
use crate::pool::Pool;
use crate::quota::Quota;

/// Idle files of one host directory whose descriptors are kept: finding one again costs 5 us, and a process may have no
/// more than 1024 descriptors for all it does.
pub const HANDLES_MAX: usize = 256;

/// Open files and directories of one host directory.
pub const OPEN_MAX: usize = 1024;

/// Directories between the root and a file, at most.
pub const DEPTH_MAX: u32 = 4096;

/// Symbolic links followed on the way to a shared directory, as many as the kernel follows.
pub const LINKS_MAX: usize = 40;

/// The largest single read or write, in bytes.
pub const IO_MAX: u32 = 1 << 20;

/// How a host directory is served.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Refuse every change.
    pub readonly: bool,
    /// How many bytes may be added, in all, while this `Host` lives: what files grow by, less what shrinking and removing
    /// them gives back, never below 0.
    pub bytes_max: Option<u64>,
    /// Idle descriptors kept.
    pub handles_max: usize,
    /// Files open at once; one more is `TooManyFiles`.
    pub open_max: usize,
    /// Symbolic links followed on the way to the directory; 0 for a path that had none when it was allowed, so that nobody
    /// who may write above it can make it mean another.
    pub links_max: usize,
    /// Mount points that must never be entered, beside every ipos mount: the node's own, under another type name.
    pub forbid: Vec<PathBuf>,
}

impl Default for HostConfig {
    fn default() -> HostConfig {
        let (handles_max, open_max) = (HANDLES_MAX, OPEN_MAX);
        HostConfig { readonly: false, bytes_max: None, handles_max, open_max, links_max: LINKS_MAX, forbid: Vec::new() }
    }
}

/// A host directory, served.
pub struct Host {
    root: Arc<Node>,
}

/// What the handles of one host directory share.
pub(crate) struct Shared {
    id: ServerId,
    readonly: bool,
    quota: Option<Quota>,
    pool: Pool,
    opens: AtomicUsize,
    open_max: usize,
    forbid: Vec<PathBuf>,
    /// Makes qid paths: nobody outside can make two files collide.
    hash: RandomState,
    /// `/proc/self/fd`: how a file's descriptor is opened again to be read or written.
    proc_fd: OwnedFd,
}

impl Host {
    /// Serves the directory `path`. May block on the disk, and never enters a mount that is forbidden.
    /// # Errors
    /// `NotFound`, `NotDir`; `Loop` for more than `links_max` links; `Denied` where the way leads into an ipos mount or a
    /// forbidden one.
    pub fn open(path: &Path, config: HostConfig) -> Result<Host> {
        let (fd, stat) = mounts::open_path(path, config.links_max, &config.forbid)?;
        if !stat.is_dir() {
            return Err(Error::new(Kind::NotDir, format!("{}: not a directory", path.display())));
        }
        let mount = mounts::kind(stat.mount, &config.forbid)?;
        let shared = Arc::new(Shared {
            id: ServerId::fresh(),
            readonly: config.readonly,
            quota: config.bytes_max.map(Quota::new),
            pool: Pool::new(config.handles_max),
            opens: AtomicUsize::new(0),
            open_max: config.open_max,
            forbid: config.forbid,
            hash: RandomState::new(),
            proc_fd: sys::proc_fd()?,
        });
        Ok(Host { root: Node::root(shared, fd, stat, mount) })
    }

    /// Its root directory.
    pub fn root(&self) -> Arc<dyn File> {
        Arc::new(Handle(self.root.clone()))
    }

    /// Bytes added so far, where there is a limit: see [`HostConfig::bytes_max`].
    pub fn bytes_used(&self) -> u64 {
        self.root.host.quota.as_ref().map_or(0, Quota::used)
    }
}

impl Tree for Host {
    fn attach<'a>(&'a self, _caller: &'a Caller, aname: &'a str) -> Call<'a, Arc<dyn File>> {
        let root = if aname.is_empty() { Ok(self.root()) } else { Err(Kind::NotFound.into()) };
        Box::pin(std::future::ready(root))
    }
}

impl Shared {
    /// Refuses where nothing may change.
    fn changes(&self) -> Result<()> {
        match self.readonly {
            true => Err(Error::new(Kind::ReadOnly, "this directory was shared to be read only")),
            false => Ok(()),
        }
    }

    /// Room for one more open file.
    fn slot(self: &Arc<Shared>) -> Result<Slot> {
        let slot = Slot(self.clone());
        if self.opens.fetch_add(1, Ordering::Relaxed) >= self.open_max {
            return Err(Error::new(Kind::TooManyFiles, format!("{} files are open here; close one", self.open_max)));
        }
        Ok(slot)
    }
}

/// One open file's place in the count.
pub(crate) struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.opens.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::new(Kind::Io, e)))
}
