//! export: what of this node others may use. The owner grants whole trees and host directories to peers, and makes
//! capabilities for directories; peers see what they hold and nothing else. See export(4).
//!
//! [`Exports::tree`] is the owner's side, [`Exports::outside`] what a peer's connection is served. A write is obeyed on a
//! copy of the state, kept in the file where it must last, and then takes the state's place; what it takes back is cut
//! before it returns, open files and waiting calls too. Lock order: writers, state, holds or hosts. Only writes and the
//! first attach to a directory touch the disk, on a thread that may wait.

mod error;
mod files;
mod guard;
mod hold;
mod outside;
mod place;
mod saved;
mod state;
mod tree;
mod verbs;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use fs_host::{Host, HostConfig};
use fs_ninep::{Kind, PeerId, Result, ServerId, Tree};
use tokio::time::Instant;

pub use error::Error;
pub use state::{BEARER_TTL_S, BOUND_TTL_S, EXPORTS_MAX, ExportId, GRANTS_MAX, REVOKED_MAX};
pub use tree::{Q, TREE};
pub use verbs::TTL_S_MAX;

use hold::{Hold, NEVER, Of};
use place::Private;
use state::{Access, Context, Secret, State, What, Who};

/// The id of a peer by its name, as the node's user knows it.
pub type Names = Arc<dyn Fn(&str) -> Option<PeerId> + Send + Sync>;

/// How a node's exports are set up.
pub struct Config {
    /// The node, as capabilities name it.
    pub id: PeerId,
    /// The file that grants are kept in; its directory exists.
    pub file: PathBuf,
    /// How a name that is written becomes an id.
    pub names: Names,
    /// The node's state directory: never shown.
    pub home: PathBuf,
    /// Where the node's own tree is mounted: never shown. More can follow: [`Exports::mounted`].
    pub mounts: Vec<PathBuf>,
}

/// What of one node others may use.
pub struct Exports {
    id: PeerId,
    file: PathBuf,
    names: Names,
    /// The trees that can be granted, by name.
    trees: Vec<(String, Arc<dyn Tree>)>,
    tree_names: Vec<String>,
    private: Mutex<Private>,
    /// The outside root's.
    server: ServerId,
    base: Instant,
    /// One writer at a time, over its waits.
    writers: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    holds: Mutex<HashMap<Held, Weak<Hold>>>,
    hosts: Mutex<HashMap<ExportId, Served>>,
}

/// What a hold is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Held {
    /// A grant.
    Grant(What, Who),
    /// A capability as it stood at its `turn`, in this peer's hands.
    Capability { id: ExportId, turn: u64, peer: PeerId },
    /// The owner's own look at what others can see.
    Own(What),
}

/// A directory as it is served to whoever holds it: all count against one limit.
struct Served {
    path: PathBuf,
    max: Option<u64>,
    host: Arc<Host>,
}

impl Exports {
    /// The exports of a node that has `trees` to grant, as kept in the file. Blocks on the disk.
    /// # Errors
    /// `Damaged` and `Io` with the file's path, which is left as it is; `Random`.
    pub fn new(trees: Vec<(String, Arc<dyn Tree>)>, config: Config) -> Result<Arc<Exports>, Error> {
        let state = saved::load(&config.file, secret)?;
        Ok(Arc::new(Exports {
            id: config.id,
            file: config.file,
            names: config.names,
            tree_names: trees.iter().map(|(name, _)| name.clone()).collect(),
            trees,
            private: Mutex::new(Private::new(&config.home, &config.mounts)),
            server: ServerId::fresh(),
            base: Instant::now(),
            writers: Arc::default(),
            state: Mutex::new(state),
            holds: Mutex::default(),
            hosts: Mutex::default(),
        }))
    }

    /// The owner's tree, which stands at `export/`. Made once: each tree made has `error` files of its own.
    pub fn tree(self: &Arc<Self>) -> Arc<dyn Tree> {
        fs_tree::serve(Arc::new(files::Office(self.clone())))
    }

    /// What peers attach to: the empty name is the root of what the caller holds, `cap/M#SECRET` a capability's directory.
    pub fn outside(self: &Arc<Self>) -> Arc<dyn Tree> {
        Arc::new(outside::Outside(self.clone()))
    }

    /// The node's tree is mounted at `dir` from now on: no directory in it is shown.
    pub fn mounted(&self, dir: &Path) {
        lock(&self.private).mounted(dir);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Obeys `change` whole or not at all, and returns when it is durable and what it takes back is cut.
    async fn commit<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut State, &Context) -> Result<T, Error> + Send + 'static,
    ) -> Result<T> {
        let turn = self.writers.clone().lock_owned().await;
        let (exports, now_ms) = (self.clone(), self.now_ms());
        // To its end even when the caller gives up: the file and the state must not come apart.
        let done = tokio::task::spawn_blocking(move || {
            let done = exports.obey(now_ms, change);
            drop(turn);
            done
        });
        Ok(done.await.map_err(|_| Kind::Io)??)
    }

    /// [`Exports::commit`], by the one writer.
    fn obey<T>(&self, now_ms: u64, change: impl FnOnce(&mut State, &Context) -> Result<T, Error>) -> Result<T, Error> {
        let private = lock(&self.private).clone();
        let place = |path: &str| private.place(path);
        let context = Context { trees: &self.tree_names, names: &*self.names, place: &place, secret: &secret, now_ms };
        let mut next = self.state().clone();
        let kept = saved::encode(&next);
        let done = change(&mut next, &context)?;
        let keep = saved::encode(&next);
        if keep != kept {
            saved::save(&self.file, &keep)?;
        }
        *self.state() = next;
        self.settle();
        Ok(done)
    }

    /// Brings what peers hold open in line with the state.
    fn settle(&self) {
        let state = self.state();
        lock(&self.holds).retain(|held, hold| {
            let Some(hold) = hold.upgrade() else { return false };
            match self.terms(&state, held) {
                Some((access, ends_ms)) => {
                    hold.change(access, ends_ms);
                    true
                }
                None => {
                    hold.revoke();
                    false
                }
            }
        });
        lock(&self.hosts).retain(|id, served| {
            let export = state.exports.get(id);
            export.is_some_and(|e| e.shown.as_ref().is_some_and(|s| s.path == served.path) && e.max == served.max)
        });
    }

    /// What `held` allows, and until when; `None`: nothing any more.
    fn terms(&self, state: &State, held: &Held) -> Option<(Access, u64)> {
        match held {
            Held::Grant(what, who) => state.grants.get(&(what.clone(), who.clone())).map(|access| (*access, NEVER)),
            Held::Capability { id, turn, peer } => {
                let export = state.exports.get(id).filter(|e| e.turn == *turn)?;
                let theirs = export.to.as_ref().is_none_or(|to| to == peer);
                theirs.then(|| (export.access, export.ends_ms()))
            }
            Held::Own(What::Tree(_)) => Some((Access::Rw, NEVER)),
            Held::Own(What::Export(id)) => state.exports.contains_key(id).then_some((Access::Rw, NEVER)),
        }
    }

    /// The hold of `held`, which stands in `state`.
    fn hold(&self, state: &State, held: Held) -> Option<Arc<Hold>> {
        let (access, ends_ms) = self.terms(state, &held)?;
        let mut holds = lock(&self.holds);
        if let Some(hold) = holds.get(&held).and_then(Weak::upgrade) {
            return Some(hold);
        }
        holds.retain(|_, hold| hold.strong_count() > 0);
        let of = match &held {
            Held::Capability { id, .. } => Of::Capability { id: *id },
            Held::Grant(what, _) | Held::Own(what) => Of::Grant { name: state.name_of(what)?.to_owned() },
        };
        let hold = Arc::new(Hold::new(of, self.base, access, ends_ms));
        holds.insert(held, Arc::downgrade(&hold));
        Some(hold)
    }

    /// How many peers have the capability of export `id` in use, or a grant of it.
    fn in_use(&self, id: ExportId) -> usize {
        let of = |held: &Held| match held {
            Held::Grant(What::Export(e), _) | Held::Capability { id: e, .. } => *e == id,
            _ => false,
        };
        lock(&self.holds).iter().filter(|(held, hold)| of(held) && hold.strong_count() > 0).count()
    }

    /// The directory that export `id` shows.
    /// # Errors
    /// `Unbound`; what the host answers where the directory is gone.
    async fn host(&self, id: ExportId) -> Result<Arc<Host>> {
        let (path, max) = {
            let state = self.state();
            let export = state.exports.get(&id).ok_or(Error::Revoked { id })?;
            (export.shown.as_ref().ok_or(Error::Unbound { id })?.path.clone(), export.max)
        };
        let same = |s: &&Served| s.path == path && s.max == max;
        if let Some(served) = lock(&self.hosts).get(&id).filter(same) {
            return Ok(served.host.clone());
        }
        let forbid = lock(&self.private).mounts().to_vec();
        let dir = path.clone();
        // No link was in the path when it was bound; who may write above the directory could put one there since.
        let config = HostConfig { bytes_max: max, links_max: 0, forbid, ..HostConfig::default() };
        let opened = tokio::task::spawn_blocking(move || Host::open(&dir, config)).await.map_err(|_| Kind::Io)?;
        let opened = opened.map_err(|e| match e.kind() {
            Kind::Loop => Error::Moved { path: path.clone() }.into(),
            _ => e,
        })?;
        let mut hosts = lock(&self.hosts);
        // Who was first while we waited counts: the limit is one for all.
        if let Some(served) = hosts.get(&id).filter(same) {
            return Ok(served.host.clone());
        }
        let host = Arc::new(opened);
        hosts.insert(id, Served { path, max, host: host.clone() });
        Ok(host)
    }
}

fn secret() -> Result<Secret, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(Secret(bytes))
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
