//! A file of a name space: a path, and the server's file that stands there now.
//!
//! A node passes calls straight on to its server's file; below its mount point no table is looked at and a walk of many
//! names is one call. When the table has changed at or above its path the path is looked up again; when the server has
//! lost the handle (`Reset`, `Unreachable`, `Stale`) the way to it is walked again, from the member's own origin.

mod change;
mod dir;
mod walk;

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Caller, Created, File, Kind, Name, OpenFile, OpenFlags, Qid, Result, ServerId, SetAttr, StatFs, Walk,
};

use crate::Error;
use crate::link::{Link, lock, lost, silent};
use crate::path::{Path, absolute};
use crate::root::{self, Own};
use crate::space::{Head, Member, Space, Table};
use crate::union;

/// A file of a name space.
pub struct Node {
    space: Arc<Space>,
    caller: Caller,
    path: Path,
    state: Mutex<State>,
}

/// What the node stood for when it was looked at last.
#[derive(Clone)]
struct State {
    at: At,
    since: Since,
    /// What a listing said of it, before it was looked at.
    seen: Option<(ServerId, Qid)>,
}

/// The table by which a path was looked at. What is found from there is as old, whatever was bound while it was sought.
#[derive(Clone, Copy)]
struct Since {
    /// 0 before anything was looked at.
    generation: u64,
    /// A mount point lies below.
    below: bool,
}

/// What stands at a path.
#[derive(Clone)]
enum At {
    Root,
    Own(Own),
    One(Arc<Place>),
    Union(Arc<Head>),
}

/// A file of one member.
struct Place {
    head: Arc<Head>,
    /// The member it was found in.
    member: usize,
    /// How many names lead to the mount point.
    depth: usize,
    file: Arc<dyn File>,
    /// The member's file that `file` was walked from.
    epoch: u64,
    /// The server has lost the handle.
    lost: AtomicBool,
}

impl Place {
    fn member(&self) -> &Member {
        &self.head.members[self.member]
    }

    fn link(&self) -> &Link {
        &self.member().link
    }
}

/// Asks the file of `$place`, once more by its path where the handle is lost: `$place` is then the new one.
macro_rules! ask {
    ($node:ident, $place:ident, $file:ident => $call:expr) => {{
        let $file = &$place.file;
        let answer = $call.await;
        match $node.heard(&$place, answer) {
            Err(e) if lost(e.kind()) => match $node.heal(&$place).await? {
                Some(healed) => {
                    $place = healed;
                    let $file = &$place.file;
                    let answer = $call.await;
                    $node.heard(&$place, answer)
                }
                None => Err(e),
            },
            answer => answer,
        }
    }};
}
use ask;

impl Node {
    /// The root of `space` as `caller` sees it.
    pub fn root(space: &Arc<Space>, caller: Caller) -> Arc<Node> {
        let state = State { at: At::Root, since: Since { generation: 0, below: true }, seen: None };
        Arc::new(Node { space: space.clone(), caller, path: Path::default(), state: Mutex::new(state) })
    }

    fn node(&self, path: Path, at: At, since: Since) -> Arc<Node> {
        let state = Mutex::new(State { at, since, seen: None });
        Arc::new(Node { space: self.space.clone(), caller: self.caller.clone(), path, state })
    }

    /// What stands here now.
    async fn now(&self) -> Result<(At, Since)> {
        let (at, since, same) = {
            let state = lock(&self.state);
            (state.at.clone(), state.since, state.since.generation == self.space.generation())
        };
        match &at {
            At::One(place) if same && place.lost.load(Ordering::Relaxed) => match self.heal(place).await? {
                Some(place) => Ok((At::One(place), since)),
                None => Ok((at, since)),
            },
            _ if same => Ok((at, since)),
            _ => self.look(at).await,
        }
    }

    /// Looks the path up again, unless its mount point is as it was.
    async fn look(&self, was: At) -> Result<(At, Since)> {
        let (table, generation) = self.space.table();
        let names = self.path.names();
        let since = Since { generation, below: table.below(&names).is_some() };
        let at = match (table.nearest(&names), was) {
            (Some((_, head)), At::One(place)) if Arc::ptr_eq(head, &place.head) => At::One(place),
            (_, At::Own(own)) => At::Own(own),
            _ if names.is_empty() => At::Root,
            _ => self.find(&table, &names).await?,
        };
        let mut state = lock(&self.state);
        if state.since.generation < generation {
            *state = State { at: at.clone(), since, seen: None };
        }
        Ok((at, since))
    }

    /// What stands at `names`.
    async fn find(&self, table: &Table, names: &[Name]) -> Result<At> {
        let Some((depth, head)) = table.nearest(names) else {
            return match names {
                [] => Ok(At::Root),
                [name] if Own::named(name).is_some() => Ok(At::Own(Own::named(name).unwrap_or(Own::Ns))),
                [name, ..] if Own::named(name).is_some() => Err(Kind::NotDir.into()),
                [name, ..] => Err(Error::Name { name: name.to_string() }.into()),
            };
        };
        let rest = &names[depth..];
        if rest.is_empty() {
            return Ok(At::head(head, depth));
        }
        let (member, walk) = self.walk_head(head, rest, &|| absolute(names)).await?;
        Ok(At::One(self.place(head, member, depth, walk.end?)))
    }

    async fn walk_head(&self, head: &Head, rest: &[Name], path: &(dyn Fn() -> String + Sync)) -> Result<(usize, Walk)> {
        union::walk(&self.space, head, rest, path).await.map_err(|e| self.note(e))
    }

    /// The member's directory itself, of a union that stands here.
    fn member(&self, head: &Arc<Head>, member: usize) -> Arc<Place> {
        self.place(head, member, self.path.depth(), head.members[member].link.file())
    }

    fn place(&self, head: &Arc<Head>, member: usize, depth: usize, file: Arc<dyn File>) -> Arc<Place> {
        let epoch = head.members[member].link.epoch();
        Arc::new(Place { head: head.clone(), member, depth, file, epoch, lost: AtomicBool::new(false) })
    }

    /// Walks the way to a lost handle again; `None` where there is no other way than the one just tried.
    async fn heal(&self, place: &Arc<Place>) -> Result<Option<Arc<Place>>> {
        let again = self.space.again(place.member(), place.epoch).await;
        let again = again.map_err(|e| self.note(e))?;
        let rest = &self.path.names()[place.depth..];
        let file = match (again, rest) {
            (None, []) => {
                place.lost.store(false, Ordering::Relaxed);
                return Ok(None);
            }
            (Some(file), []) => file,
            (again, rest) => {
                let start = again.unwrap_or_else(|| place.link().file());
                let found = start.walk(rest).await.end.map_err(|e| self.note(e))?;
                if found.qid().is_dir() != place.file.qid().is_dir() {
                    return Err(Kind::Stale.into());
                }
                found
            }
        };
        let healed = self.place(&place.head, place.member, place.depth, file);
        let mut state = lock(&self.state);
        if matches!(&state.at, At::One(p) if Arc::ptr_eq(p, place)) {
            state.at = At::One(healed.clone());
        }
        Ok(Some(healed))
    }

    /// Learns from an answer how the handle and its server are.
    fn heard<T>(&self, place: &Place, answer: Result<T>) -> Result<T> {
        match answer {
            Ok(value) => {
                place.link().up();
                Ok(value)
            }
            Err(e) => {
                if lost(e.kind()) {
                    place.lost.store(true, Ordering::Relaxed);
                }
                if silent(e.kind()) && place.depth == self.path.depth() {
                    place.link().down(false);
                }
                Err(self.note(e))
            }
        }
    }

    /// Keeps for `error` why a server could not be asked.
    fn note(&self, e: fs_ninep::Error) -> fs_ninep::Error {
        if e.explained() && silent(e.kind()) {
            self.space.refused(&self.caller, &e);
        }
        e
    }

    /// A refusal of the name space itself, kept for `error`.
    fn refuse(&self, e: Error) -> fs_ninep::Error {
        self.space.refused(&self.caller, &e);
        e.into()
    }

    async fn attributes(&self) -> Result<Attr> {
        match self.now().await? {
            (At::Root, _) => Ok(root::attr(&self.space, self.qid(), Attr::DIR | 0o555, 0)),
            (At::Own(own), _) => Ok(own.attr(&self.space, &self.caller)),
            (At::One(mut place), since) => {
                let mut attr = ask!(self, place, file => file.getattr())?;
                if since.below {
                    attr.qid.version = 0;
                }
                Ok(attr)
            }
            (At::Union(head), _) => {
                union::getattr(&self.space, &head, &|| self.path.to_string()).await.map_err(|e| self.note(e))
            }
        }
    }
}

impl At {
    fn head(head: &Arc<Head>, depth: usize) -> At {
        match &head.members[..] {
            [only] => {
                let (file, epoch) = only.link.current();
                let place = Place { head: head.clone(), member: 0, depth, file, epoch, lost: AtomicBool::new(false) };
                At::One(Arc::new(place))
            }
            _ => At::Union(head.clone()),
        }
    }
}

/// The node that `file` is.
fn node(file: &Arc<dyn File>) -> Option<&Node> {
    file.as_any().downcast_ref::<Node>()
}

impl File for Node {
    fn server(&self) -> ServerId {
        let state = lock(&self.state);
        if let Some((server, _)) = state.seen {
            return server;
        }
        match &state.at {
            At::Root | At::Own(_) => self.space.server,
            At::One(place) => place.file.server(),
            At::Union(head) => head.members[0].link.file().server(),
        }
    }

    fn qid(&self) -> Qid {
        let state = lock(&self.state);
        if let Some((_, qid)) = state.seen {
            return qid;
        }
        match &state.at {
            At::Root => root::ROOT,
            At::Own(own) => own.qid(),
            At::One(place) if state.since.below => Qid { version: 0, ..place.file.qid() },
            At::One(place) => place.file.qid(),
            At::Union(head) => Qid { version: 0, ..head.members[0].link.file().qid() },
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(async move {
            if names.is_empty() {
                return Walk { qids: Vec::new(), end: Ok(self.same()) };
            }
            match self.now().await {
                Ok((At::One(place), since)) if !since.below && !names.iter().any(Name::is_parent) => {
                    self.run_place(&place, since, names).await
                }
                Ok(_) => self.same().steps(names).await,
                Err(e) => Walk::stopped(Vec::new(), e),
            }
        })
    }

    fn getattr(&self) -> Call<'_, Attr> {
        Box::pin(self.attributes())
    }

    fn walk_getattr<'a>(&'a self, names: &'a [Name]) -> Call<'a, (Arc<dyn File>, Attr)> {
        Box::pin(self.look_down(names))
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        Box::pin(self.opened(flags))
    }

    fn create<'a>(&'a self, name: &'a Name, flags: OpenFlags, mode: u32) -> Call<'a, Created> {
        Box::pin(self.created(name, flags, mode))
    }

    fn mkdir<'a>(&'a self, name: &'a Name, mode: u32) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let (place, since) = self.maker(name).await?;
            let made = place.file.mkdir(name, mode).await;
            self.made(&place, name, self.heard(&place, made)?, since)
        })
    }

    fn symlink<'a>(&'a self, name: &'a Name, target: &'a [u8]) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let (place, since) = self.maker(name).await?;
            let made = place.file.symlink(name, target).await;
            self.made(&place, name, self.heard(&place, made)?, since)
        })
    }

    fn link<'a>(&'a self, name: &'a Name, file: &'a Arc<dyn File>) -> Call<'a, ()> {
        Box::pin(async move {
            let (to, _) = self.maker(name).await?;
            let apart = || self.refuse(Error::Apart { path: format!("{}/{name}", self.path) });
            let Some(node) = node(file) else { return Err(apart()) };
            match node.now().await?.0 {
                At::One(place) if place.file.server() == to.file.server() => {
                    self.heard(&to, to.file.link(name, &place.file).await)
                }
                _ => Err(apart()),
            }
        })
    }

    fn readlink(&self) -> Call<'_, Bytes> {
        Box::pin(async move {
            match self.now().await?.0 {
                At::One(mut place) => ask!(self, place, file => file.readlink()),
                _ => Err(Kind::Invalid.into()),
            }
        })
    }

    fn unlink<'a>(&'a self, name: &'a Name, dir: bool) -> Call<'a, ()> {
        Box::pin(async move {
            let place = self.holder(name).await?;
            self.heard(&place, place.file.unlink(name, dir).await)
        })
    }

    fn remove(&self) -> Call<'_, ()> {
        Box::pin(async move {
            let place = self.movable().await?;
            self.heard(&place, place.file.remove().await)
        })
    }

    fn rename<'a>(&'a self, old: &'a Name, dir: &'a Arc<dyn File>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(async move {
            match node(dir) {
                Some(dir) => self.renamed(old, dir, new).await,
                None => Err(self.refuse(Error::Apart { path: format!("{}/{old}", self.path) })),
            }
        })
    }

    fn rename_self<'a>(&'a self, dir: Option<&'a Arc<dyn File>>, new: &'a Name) -> Call<'a, ()> {
        Box::pin(self.renamed_self(dir, new))
    }

    fn setattr(&self, set: SetAttr) -> Call<'_, ()> {
        Box::pin(async move {
            match self.now().await?.0 {
                At::One(place) => self.heard(&place, place.file.setattr(set).await),
                At::Union(head) => head.members[0].link.file().setattr(set).await,
                At::Own(_) if set.mode.is_none() && set.uid.is_none() && set.gid.is_none() => Ok(()),
                At::Own(_) | At::Root => Err(Kind::NotPermitted.into()),
            }
        })
    }

    fn statfs(&self) -> Call<'_, StatFs> {
        Box::pin(async move {
            match self.now().await?.0 {
                At::One(mut place) => ask!(self, place, file => file.statfs()),
                At::Union(head) => head.members[0].link.file().statfs().await,
                At::Own(_) | At::Root => Ok(StatFs { ty: 0x0102_1997, bsize: 4096, namelen: 255, ..StatFs::default() }),
            }
        })
    }
}
