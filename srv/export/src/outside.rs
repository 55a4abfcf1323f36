//! export: what peers attach to. The root shows a peer what it holds, by name, and nothing else is there for it.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fs_ninep::{
    Attr, Call, Caller, DirEntry, Error, File, Kind, Name, OpenFile, OpenFlags, PeerId, Qid, QidType, Result, ServerId,
    Tree, Walk,
};

use crate::guard::Guard;
use crate::state::{State, What};
use crate::{Exports, Held};

/// The tree that peers are served.
pub struct Outside(pub Arc<Exports>);

impl Tree for Outside {
    fn attach<'a>(&'a self, caller: &'a Caller, aname: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            match aname.strip_prefix("cap/") {
                Some(capability) => self.capability(caller, capability).await,
                None if aname.is_empty() => {
                    Ok(Arc::new(Root { exports: self.0.clone(), caller: caller.clone() }) as Arc<dyn File>)
                }
                None => Err(Kind::NotFound.into()),
            }
        })
    }
}

impl Outside {
    async fn capability(&self, caller: &Caller, text: &str) -> Result<Arc<dyn File>> {
        let exports = &self.0;
        // Over its own tree the node's owner is the node: jobs at home follow capabilities too.
        let own = caller.is_owner().then_some(&exports.id);
        let peer = caller.peer_id().or(own).ok_or(crate::Error::NoCapability)?;
        let id = exports.state().capability(text, peer, exports.now_ms())?;
        let host = exports.host(id).await?;
        // Looked at again: a last use may have gone while the directory was opened.
        let state = exports.state();
        state.capability(text, peer, exports.now_ms())?;
        let export = &state.exports[&id];
        let held = Held::Capability { id, turn: export.turn, peer: peer.clone() };
        let hold = exports.hold(&state, held).ok_or(crate::Error::Revoked { id })?;
        export.used.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Guard::new(host.root(), hold, None)))
    }
}

/// The qid path of the root; no file of this server has another.
const ROOT: u64 = 1;

/// A caller's root.
struct Root {
    exports: Arc<Exports>,
    caller: Caller,
}

impl Root {
    /// What the caller holds: the name it is seen by, and what holding it rests on.
    fn held(&self, state: &State) -> Vec<(String, What, Held)> {
        let named = |what: &What, held| Some((state.name_of(what)?.to_owned(), what.clone(), held));
        let here = |what: &What| match what {
            What::Tree(name) => self.exports.tree_names.contains(name),
            What::Export(_) => true,
        };
        let mut all: Vec<_> = match (self.owner(), self.caller.peer_id()) {
            (true, _) => {
                let trees = self.exports.tree_names.iter().map(|name| What::Tree(name.clone()));
                let shown = state.exports.keys().filter(|id| state.holders(**id).next().is_some());
                let all = trees.chain(shown.map(|id| What::Export(*id)));
                all.filter_map(|what| named(&what, Held::Own(what.clone()))).collect()
            }
            (false, Some(peer)) => {
                let held = state.held_by(peer).filter(|(what, ..)| here(what));
                held.filter_map(|(what, who, _)| named(what, Held::Grant(what.clone(), who.clone()))).collect()
            }
            (false, None) => Vec::new(),
        };
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn owner(&self) -> bool {
        let is_node = |peer: &PeerId| *peer == self.exports.id;
        self.caller.is_owner() || self.caller.peer_id().is_some_and(is_node)
    }

    fn again(&self) -> Arc<dyn File> {
        Arc::new(Root { exports: self.exports.clone(), caller: self.caller.clone() })
    }

    /// What the caller sees as `name`.
    async fn child(&self, name: &Name) -> Result<Arc<dyn File>> {
        let found = {
            let state = self.exports.state();
            let held = self.held(&state).into_iter().find(|(n, ..)| n.as_bytes() == name.as_bytes());
            held.and_then(|(_, what, held)| Some((what, self.exports.hold(&state, held)?)))
        };
        let (what, hold) = found.ok_or(Kind::NotFound)?;
        let file = match &what {
            What::Export(id) => self.exports.host(*id).await?.root(),
            What::Tree(name) => {
                let tree = self.exports.trees.iter().find(|(n, _)| n == name).ok_or(Kind::NotFound)?;
                tree.1.attach(&self.caller, "").await?
            }
        };
        hold.check()?;
        Ok(Arc::new(Guard::new(file, hold, Some(self.again()))))
    }

    fn attr(&self) -> Attr {
        Attr { qid: self.qid(), mode: Attr::DIR | 0o555, nlink: 1, blksize: 4096, ..Attr::default() }
    }
}

impl File for Root {
    fn server(&self) -> ServerId {
        self.exports.server
    }

    fn qid(&self) -> Qid {
        Qid { ty: QidType::DIR, version: 0, path: ROOT }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(async move {
            let mut qids = Vec::with_capacity(names.len());
            let ups = names.iter().take_while(|name| name.is_parent()).count();
            qids.resize(ups, self.qid());
            let Some((first, rest)) = names[ups..].split_first() else { return Walk { qids, end: Ok(self.again()) } };
            let file = match self.child(first).await {
                Ok(file) => file,
                Err(e) => return Walk::stopped(qids, e),
            };
            qids.push(file.qid());
            if rest.is_empty() {
                return Walk { qids, end: Ok(file) };
            }
            let walk = file.walk(rest).await;
            qids.extend(walk.qids);
            Walk { qids, end: walk.end }
        })
    }

    fn getattr(&self) -> Call<'_, Attr> {
        Box::pin(std::future::ready(Ok(self.attr())))
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        Box::pin(async move {
            if flags.writes() {
                return Err(Error::from(Kind::IsDir));
            }
            let names = self.held(&self.exports.state()).into_iter().map(|(name, ..)| name).collect();
            Ok(Arc::new(Listing { root: Root { exports: self.exports.clone(), caller: self.caller.clone() }, names })
                as Arc<dyn OpenFile>)
        })
    }
}

/// The open root: what was held when it was opened.
struct Listing {
    root: Root,
    names: Vec<String>,
}

impl OpenFile for Listing {
    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        Box::pin(async move {
            let from = usize::try_from(cookie).unwrap_or(usize::MAX);
            let mut entries = Vec::new();
            for (n, text) in self.names.iter().enumerate().skip(from) {
                if entries.len() == entries_max {
                    break;
                }
                let Ok(name) = Name::new(text.clone()) else { continue };
                // What cannot be entered now is listed all the same: a walk says what is wrong with it.
                let file = self.root.child(&name).await;
                let missing = Qid { ty: QidType::DIR, version: 0, path: ROOT + 1 + n as u64 };
                let qid = file.as_ref().map_or(missing, |f| f.qid());
                match file {
                    Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Expired) && !self.stands(text) => {}
                    file => entries.push(DirEntry { name, qid, cookie: n as u64 + 1, attr: None, file: file.ok() }),
                }
            }
            Ok(entries)
        })
    }
}

impl Listing {
    /// Whether the name is still one the caller may see.
    fn stands(&self, name: &str) -> bool {
        self.root.held(&self.root.exports.state()).iter().any(|(n, ..)| n == name)
    }
}
