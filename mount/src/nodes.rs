//! Node ids: what the kernel calls the files it was shown.
//!
//! A directory or live file is known by its path, (parent, name), while the same file stands there: one id at two paths
//! would make the kernel move the directory from one to the other (`pwd` of a shell inside changes, a cycle is EIO).
//! A plain file is known by its identity, so that its hard links share one page cache. `st_ino` is a hash of the
//! identity in both cases: `find` sees a loop for what it is. Ids are never used twice.
//!
//! The kernel counts its references (`nlookup`) and says when it drops them; a node also lives while it has children.
//! A node's file may be missing, when a directory listing told everything but the handle; it is walked to on first use.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use fs_ninep::{File, Name, Qid, ServerId};

use crate::abi::ROOT;

/// A file's identity: server and qid path.
pub type Identity = (ServerId, u64);

struct Node {
    parent: u64,
    name: Option<Name>,
    identity: Identity,
    qid: Qid,
    file: Option<Arc<dyn File>>,
    epoch: u64,
    nlookup: u64,
    children: u64,
    opened: Option<[u32; 2]>,
}

impl Node {
    fn plain(&self) -> bool {
        !self.qid.is_live() && !self.qid.is_dir()
    }
}

/// What was found under a name.
pub struct Found {
    /// Its name.
    pub name: Name,
    /// Its server.
    pub server: ServerId,
    /// Its qid.
    pub qid: Qid,
    /// Its handle, where there is one.
    pub file: Option<Arc<dyn File>>,
}

/// How to come to a node's file.
pub enum Way {
    /// Here it is.
    File(Arc<dyn File>),
    /// Walk there.
    Walk(Arc<dyn File>, Vec<Name>),
}

/// Every node that the kernel knows. As large as its inode cache; it forgets under memory pressure.
pub struct Nodes {
    nodes: HashMap<u64, Node>,
    paths: HashMap<(u64, Name), u64>,
    plain: HashMap<Identity, u64>,
    last: u64,
    epoch: u64,
}

impl Nodes {
    /// The root alone.
    pub fn new(root: Arc<dyn File>) -> Nodes {
        let qid = root.qid();
        let node = Node {
            parent: ROOT,
            name: None,
            identity: (root.server(), qid.path),
            qid,
            file: Some(root),
            epoch: 0,
            nlookup: 1,
            children: 0,
            opened: None,
        };
        Nodes {
            nodes: HashMap::from([(ROOT, node)]),
            paths: HashMap::new(),
            plain: HashMap::new(),
            last: ROOT,
            epoch: 0,
        }
    }

    /// The file behind `id`, or the way to it; `None` for an id that was forgotten.
    pub fn way(&self, id: u64) -> Option<Way> {
        let (mut at, mut names) = (id, Vec::new());
        loop {
            let node = self.nodes.get(&at)?;
            // After a change of the name space another directory may stand at the path; what a plain handle holds stays.
            let current = node.epoch == self.epoch || at == ROOT || !node.qid.is_dir();
            match (&node.file, &node.name) {
                (Some(file), _) if current && names.is_empty() => return Some(Way::File(file.clone())),
                (Some(file), _) if current => {
                    names.reverse();
                    return Some(Way::Walk(file.clone(), names));
                }
                (_, Some(name)) => names.push(name.clone()),
                (_, None) => return None,
            }
            at = node.parent;
        }
    }

    /// A walk to `id` arrived at `file`. False where another file than the node's stands there now: a directory is
    /// whatever stands at its path, but a file's node must not change under those who have it open.
    pub fn arrived(&mut self, id: u64, file: &Arc<dyn File>) -> bool {
        let epoch = self.epoch;
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let (qid, identity) = (file.qid(), (file.server(), file.qid().path));
        if node.identity != identity && !(node.qid.is_dir() && qid.is_dir()) {
            return false;
        }
        (node.identity, node.qid, node.file, node.epoch) = (identity, qid, Some(file.clone()), epoch);
        true
    }

    /// The id of what was found in `parent`, with one more reference.
    pub fn intern(&mut self, parent: u64, found: Found) -> u64 {
        let identity = (found.server, found.qid.path);
        let plain = !found.qid.is_live() && !found.qid.is_dir();
        let place = (parent, found.name);
        let known = if plain { self.plain.get(&identity) } else { self.paths.get(&place) };
        let known = known.copied().filter(|id| {
            let same = |n: &Node| n.identity == identity && n.qid.ty == found.qid.ty && n.plain() == plain;
            self.nodes.get(id).is_some_and(same)
        });
        let id = known.unwrap_or_else(|| self.insert(parent, &place.1, identity, found.qid));
        self.place(id, place);
        let epoch = self.epoch;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.nlookup += 1;
            node.qid = found.qid;
            if found.file.is_some() {
                (node.file, node.epoch) = (found.file, epoch);
            }
        }
        id
    }

    fn insert(&mut self, parent: u64, name: &Name, identity: Identity, qid: Qid) -> u64 {
        self.last += 1;
        let node = Node {
            parent,
            name: Some(name.clone()),
            identity,
            qid,
            file: None,
            epoch: self.epoch,
            nlookup: 0,
            children: 0,
            opened: None,
        };
        if node.plain() {
            self.plain.insert(identity, self.last);
        }
        self.nodes.insert(self.last, node);
        self.paths.insert((parent, name.clone()), self.last);
        self.hold(parent);
        self.last
    }

    /// Lets `id` stand at `place` and nowhere else.
    fn place(&mut self, id: u64, place: (u64, Name)) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(name) = node.name.clone() else { return };
        let old = (node.parent, name);
        if old != place {
            (node.parent, node.name) = (place.0, Some(place.1.clone()));
            self.vacate(id, old.clone());
            self.hold(place.0);
            self.release(old.0);
        }
        self.paths.insert(place, id);
    }

    fn vacate(&mut self, id: u64, place: (u64, Name)) {
        if let Entry::Occupied(entry) = self.paths.entry(place)
            && *entry.get() == id
        {
            entry.remove();
        }
    }

    fn hold(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.children += 1;
        }
    }

    fn release(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.children -= 1;
        }
        self.sweep(id);
    }

    /// The kernel drops `count` references to `id`.
    pub fn forget(&mut self, id: u64, count: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.nlookup = node.nlookup.saturating_sub(count);
        }
        self.sweep(id);
    }

    fn sweep(&mut self, id: u64) {
        let mut id = id;
        while id != ROOT && self.nodes.get(&id).is_some_and(|n| n.nlookup == 0 && n.children == 0) {
            let Some(node) = self.nodes.remove(&id) else { return };
            if let Some(name) = node.name {
                self.vacate(id, (node.parent, name));
            }
            if self.plain.get(&node.identity) == Some(&id) {
                self.plain.remove(&node.identity);
            }
            id = node.parent;
            if let Some(parent) = self.nodes.get_mut(&id) {
                parent.children -= 1;
            }
        }
    }

    /// `name` is gone from `parent`.
    pub fn unlinked(&mut self, parent: u64, name: Name) {
        self.paths.remove(&(parent, name));
    }

    /// What stood at `old` stands at `new` now.
    pub fn renamed(&mut self, old: (u64, Name), new: (u64, Name)) {
        self.paths.remove(&new);
        if let Some(id) = self.paths.get(&old).copied() {
            self.place(id, new);
        }
    }

    /// The attributes of `id` were seen, with this qid.
    pub fn seen(&mut self, id: u64, qid: Qid) {
        if let Some(node) = self.nodes.get_mut(&id)
            && node.identity.1 == qid.path
        {
            node.qid.version = qid.version;
        }
    }

    /// `id` was opened, and its server now calls its version `version`. True if what the kernel cached of it at the
    /// last opening is still good.
    pub fn opened(&mut self, id: u64, version: u32) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let now = Some([node.qid.version, version]);
        std::mem::replace(&mut node.opened, now) == now
    }

    /// The name space has changed: directories are walked to anew.
    pub fn renew(&mut self) {
        self.epoch += 1;
    }

    /// Every name that the kernel may have cached.
    pub fn names(&self) -> Vec<(u64, Name)> {
        self.paths.keys().cloned().collect()
    }
}

/// The inode number of a file: a mix of its identity in which neighbours lie far apart, never 0.
pub fn ino(identity: Identity) -> u64 {
    let mut h = identity.0.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ identity.1;
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (h ^ (h >> 31)).max(1)
}
