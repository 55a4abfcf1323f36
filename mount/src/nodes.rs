//! Node ids: what the kernel calls the files it was shown.
//!
//! A directory or live file is known by its path, (parent, name), while the same file stands there: one id at two paths
//! would make the kernel move the directory from one to the other (`pwd` of a shell inside changes, a cycle is EIO).
//! A plain file is known by its identity, so that its hard links share one page cache. `st_ino` is a hash of the
//! identity in both cases: `find` sees a loop for what it is. Ids are never used twice.
//!
//! The kernel counts its references (`nlookup`) and says when it drops them; a node also lives while it has children.
//! A node's file may be missing, when a directory listing told everything but the handle, or when more than
//! [`HANDLES_MAX`] have been used since: it is walked to on use. What is open keeps its handle, for its name may go.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fs_ninep::{File, Name, Qid, ServerId};

use crate::abi::ROOT;

/// Handles kept of files that are not open: each may be a fid on another machine.
pub const HANDLES_MAX: usize = 4096;

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
    opens: u64,
    opened: Option<[u32; 2]>,
    size: u64,
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
    /// Its size, in bytes.
    pub size: u64,
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
    /// Nodes that were given a handle, the oldest first.
    handles: VecDeque<u64>,
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
            opens: 0,
            opened: None,
            size: 0,
        };
        Nodes {
            nodes: HashMap::from([(ROOT, node)]),
            paths: HashMap::new(),
            plain: HashMap::new(),
            handles: VecDeque::new(),
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
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let (qid, identity) = (file.qid(), (file.server(), file.qid().path));
        if node.identity != identity && !(node.qid.is_dir() && qid.is_dir()) {
            return false;
        }
        (node.identity, node.qid) = (identity, qid);
        self.handle(id, file.clone());
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
        if let Some(node) = self.nodes.get_mut(&id) {
            node.nlookup += 1;
            (node.qid, node.size) = (found.qid, found.size);
        }
        if let Some(file) = found.file {
            self.handle(id, file);
        }
        id
    }

    /// Gives `id` its handle, and takes it from the one that has had its own for longest.
    fn handle(&mut self, id: u64, file: Arc<dyn File>) {
        let epoch = self.epoch;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.epoch = epoch;
        if node.file.replace(file).is_none() {
            self.handles.push_back(id);
        }
        // Those that are open go to the end; if all are, there are as many as files open.
        for _ in HANDLES_MAX..self.handles.len().min(HANDLES_MAX + 8) {
            let Some(oldest) = self.handles.pop_front() else { return };
            match self.nodes.get_mut(&oldest) {
                Some(node) if node.opens > 0 => self.handles.push_back(oldest),
                Some(node) => node.file = None,
                None => {}
            }
        }
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
            opens: 0,
            opened: None,
            size: 0,
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

    /// The attributes of `id` were seen, with this qid and size.
    pub fn seen(&mut self, id: u64, qid: Qid, size: u64) {
        if let Some(node) = self.nodes.get_mut(&id)
            && node.identity.1 == qid.path
        {
            (node.qid.version, node.size) = (qid.version, size);
        }
    }

    /// The size of `id`, as the kernel was last told.
    pub fn size(&self, id: u64) -> u64 {
        self.nodes.get(&id).map_or(0, |node| node.size)
    }

    /// `id` was opened, and its server now calls its version `version`. True if what the kernel cached of it at the
    /// last opening is still good.
    pub fn opened(&mut self, id: u64, version: u32) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        node.opens += 1;
        let now = Some([node.qid.version, version]);
        std::mem::replace(&mut node.opened, now) == now
    }

    /// One opening of `id` has ended.
    pub fn closed(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opens = node.opens.saturating_sub(1);
        }
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

#[cfg(test)]
pub mod tests {
    use std::any::Any;
    use std::future::Future;
    use std::pin::Pin;

    use fs_ninep::{Attr, Call, Kind, OpenFile, OpenFlags, QidType, Walk};

    use super::*;

    struct Still(Qid);

    impl File for Still {
        fn server(&self) -> ServerId {
            ServerId(9)
        }

        fn qid(&self) -> Qid {
            self.0
        }

        fn as_any(&self) -> &dyn Any {
            self
        }

        fn walk<'a>(&'a self, _names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
            Box::pin(async { Walk::stopped(Vec::new(), Kind::NotFound) })
        }

        fn getattr(&self) -> Call<'_, Attr> {
            Box::pin(async { Err(Kind::Io.into()) })
        }

        fn open(&self, _flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
            Box::pin(async { Err(Kind::Io.into()) })
        }
    }

    /// `d5`: directory 5; `l5`: live file 5; `p5`: plain file 5.
    pub fn file(text: &str) -> Arc<dyn File> {
        let (ty, version) = match &text[..1] {
            "d" => (QidType::DIR, 0),
            "l" => (QidType::FILE, 0),
            _ => (QidType::FILE, 7),
        };
        Arc::new(Still(Qid { ty, version, path: text[1..].parse().unwrap() }))
    }

    fn name(text: &str) -> Name {
        Name::new(text.to_owned()).unwrap()
    }

    fn nodes() -> Nodes {
        Nodes::new(file("d1"))
    }

    fn look(nodes: &mut Nodes, parent: u64, as_name: &str, what: &str, handle: bool) -> u64 {
        let file = file(what);
        let found = Found {
            name: name(as_name),
            server: file.server(),
            qid: file.qid(),
            size: 0,
            file: handle.then_some(file),
        };
        nodes.intern(parent, found)
    }

    /// Each line is done in turn: `PARENT NAME FILE  ID` is a lookup and the id it must give, `- ID N` a forget,
    /// `mv PARENT NAME PARENT NAME` a rename, `rm PARENT NAME` an unlink, `= N` how many nodes there must be.
    fn check(script: &str) {
        let mut nodes = nodes();
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |i: usize| words[i].parse::<u64>().unwrap();
            match words[0] {
                "-" => nodes.forget(number(1), number(2)),
                "mv" => nodes.renamed((number(1), name(words[2])), (number(3), name(words[4]))),
                "rm" => nodes.unlinked(number(1), name(words[2])),
                "=" => assert_eq!(nodes.nodes.len() as u64, number(1), "{line} in {script}"),
                _ => assert_eq!(look(&mut nodes, number(0), words[1], words[2], true), number(3), "{line} in {script}"),
            }
        }
    }

    #[test]
    fn ids() {
        check("1 a d5  2\n 1 a d5  2\n 1 b d5  3"); // a directory: by its path
        check("1 a l5  2\n 1 b l5  3"); // a live file: so too
        check("1 a p5  2\n 1 b p5  2"); // a plain file: by what it is
        check("1 a d5  2\n 1 a d6  3\n 1 a d5  4"); // another directory at the same path
        check("1 a d1  2\n 2 a d1  3\n 3 a d1  4"); // a cycle goes down, never back
        check("1 a p5  2\n 1 a l5  3\n 1 a d5  4"); // another kind of file
    }

    #[test]
    fn references() {
        check("1 a d5  2\n 1 a d5  2\n - 2 1\n = 2\n - 2 1\n = 1\n 1 a d5  3");
        check("1 a d5  2\n 2 b p6  3\n - 2 1\n = 3\n - 3 1\n = 1"); // a parent lives as long as its children
        check("1 a d5  2\n 1 a d6  3\n - 2 1\n 1 a d6  3\n - 3 2\n = 1"); // one replaced is forgotten in its turn
        check("1 a p5  2\n 1 b p5  2\n - 2 2\n = 1\n 1 a p5  3");
        check("- 9 1\n - 1 5\n = 1\n 1 a d5  2"); // nobody, and the root
        check("1 a d5  2\n - 2 9\n = 1"); // more than there were
    }

    #[test]
    fn renames() {
        check("1 a d5  2\n mv 1 a 1 b\n 1 b d5  2\n 1 a d5  3");
        check("1 a d5  2\n 1 b d6  3\n mv 1 a 1 b\n 1 b d5  2\n - 3 1\n 1 b d5  2");
        check("1 a d5  2\n 1 b d6  3\n mv 1 a 3 c\n 3 c d5  2\n - 3 1\n = 3\n - 2 2\n = 1");
        check("1 a d5  2\n rm 1 a\n 1 a d5  3");
        check("mv 1 x 1 y\n = 1");
    }

    fn way(nodes: &Nodes, id: u64) -> String {
        match nodes.way(id) {
            None => "none".into(),
            Some(Way::File(f)) => format!("{}", f.qid().path),
            Some(Way::Walk(f, names)) => names.iter().fold(f.qid().path.to_string(), |path, n| format!("{path}/{n}")),
        }
    }

    #[test]
    fn a_file_without_a_handle_is_walked_to() {
        let mut nodes = nodes();
        let a = look(&mut nodes, 1, "a", "d5", true);
        let b = look(&mut nodes, a, "b", "d6", false);
        let c = look(&mut nodes, b, "c", "p7", false);
        for (id, want) in [(1, "1"), (a, "5"), (b, "5/b"), (c, "5/b/c"), (99, "none")] {
            assert_eq!(way(&nodes, id), want);
        }
        assert!(!nodes.arrived(c, &file("p8")), "a file's node is never another file's");
        assert!(nodes.arrived(b, &file("d8")), "a directory is what stands at its path");
        assert!(nodes.arrived(c, &file("p7")));
        assert_eq!(way(&nodes, c), "7");
    }

    #[test]
    fn handles_are_bounded_and_open_files_keep_theirs() {
        let mut nodes = nodes();
        let kept = look(&mut nodes, 1, "kept", "p2", true);
        nodes.opened(kept, 7);
        let ids: Vec<u64> = (3..3 * HANDLES_MAX as u64)
            .map(|n| look(&mut nodes, 1, &format!("f{n}"), &format!("p{n}"), true))
            .collect();
        let held = nodes.nodes.values().filter(|n| n.file.is_some()).count();
        assert!((HANDLES_MAX - 1..=HANDLES_MAX + 1).contains(&held), "{held}");
        assert_eq!(way(&nodes, ids[0]), "1/f3");
        assert_eq!(way(&nodes, *ids.last().unwrap()), format!("{}", 3 * HANDLES_MAX - 1));
        assert_eq!(way(&nodes, kept), "2");
        nodes.closed(kept);
        ids.iter().for_each(|&id| nodes.forget(id, 1));
        assert_eq!(nodes.nodes.len(), 2);
    }

    #[test]
    fn a_new_name_space_is_walked_anew() {
        let mut nodes = nodes();
        let a = look(&mut nodes, 1, "a", "d5", true);
        let b = look(&mut nodes, a, "b", "d6", true);
        let c = look(&mut nodes, b, "c", "p7", true);
        nodes.renew();
        for (id, want) in [(1, "1"), (a, "1/a"), (b, "1/a/b"), (c, "7")] {
            assert_eq!(way(&nodes, id), want);
        }
        assert!(nodes.arrived(a, &file("d9")));
        assert_eq!(way(&nodes, b), "9/b");
    }

    #[test]
    fn a_cache_is_kept_while_the_version_stays() {
        let mut nodes = nodes();
        let a = look(&mut nodes, 1, "a", "p5", true);
        let seen = |version| Qid { ty: QidType::FILE, version, path: 5 };
        assert!(!nodes.opened(a, 7), "the first opening has nothing to keep");
        assert!(nodes.opened(a, 7));
        nodes.seen(a, seen(8), 0);
        assert!(!nodes.opened(a, 7), "a stat saw another version");
        assert!(!nodes.opened(a, 8), "the opening itself did");
        assert!(nodes.opened(a, 8));
        assert!(!nodes.opened(99, 1));
    }

    #[test]
    fn inode_numbers_differ() {
        let all = (0..50).flat_map(|s| (0..50).map(move |p| ino((ServerId(s), p))));
        assert_eq!(all.collect::<std::collections::HashSet<_>>().len(), 2500);
    }
}
