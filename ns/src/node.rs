//! A file of a name space: a path, and the server's file that stands there now.
//!
//! A node passes calls straight on to its server's file; below its mount point no table is looked at and a walk of many
//! names is one call. When the table has changed at or above its path the path is looked up again; when the server has
//! lost the handle (`Reset`, `Unreachable`, `Stale`) the way to it is walked again, from the member's own origin.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Caller, Created, DirEntry, File, Kind, Name, OpenFile, OpenFlags, Qid, QidType, Result, ServerId,
    SetAttr, StatFs, Walk,
};

use crate::Error;
use crate::link::{Link, lock, lost, silent};
use crate::path::{Path, absolute};
use crate::root::{self, Own};
use crate::space::{Head, Member, Space, Table, id};
use crate::union;

/// A file of a name space.
pub struct Node {
    space: Arc<Space>,
    caller: Caller,
    path: Path,
    state: Mutex<State>,
}

/// What the node stood for when it was looked at last.
struct State {
    generation: u64,
    at: At,
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

/// Asks a place's file, once more by its path where the handle is lost.
macro_rules! ask {
    ($node:expr, $place:expr, $file:ident => $call:expr) => {{
        let $file = &$place.file;
        let answer = $call.await;
        match $node.heard($place, answer) {
            Err(e) if lost(e.kind()) => match $node.heal($place).await? {
                Some(place) => {
                    let $file = &place.file;
                    let answer = $call.await;
                    $node.heard(&place, answer)
                }
                None => Err(e),
            },
            answer => answer,
        }
    }};
}

impl Node {
    /// The root of `space` as `caller` sees it.
    pub fn root(space: &Arc<Space>, caller: Caller) -> Arc<Node> {
        let state = State { generation: 0, at: At::Root, below: true };
        Arc::new(Node { space: space.clone(), caller, path: Path::default(), state: Mutex::new(state) })
    }

    fn node(&self, path: Path, at: At, below: bool, generation: u64) -> Arc<Node> {
        let state = Mutex::new(State { generation, at, below });
        Arc::new(Node { space: self.space.clone(), caller: self.caller.clone(), path, state })
    }

    /// What stands here now, and whether a mount point lies below.
    async fn now(&self) -> Result<(At, bool)> {
        let (at, below, same) = {
            let state = lock(&self.state);
            (state.at.clone(), state.below, state.generation == self.space.generation())
        };
        match &at {
            At::One(place) if same && place.lost.load(Ordering::Relaxed) => match self.heal(place).await? {
                Some(place) => Ok((At::One(place), below)),
                None => Ok((at, below)),
            },
            _ if same => Ok((at, below)),
            _ => self.look(at).await,
        }
    }

    /// Looks the path up again, unless its mount point is as it was.
    async fn look(&self, was: At) -> Result<(At, bool)> {
        let (table, generation) = self.space.table();
        let names = self.path.names();
        let below = table.below(&names).is_some();
        let at = match (table.nearest(&names), was) {
            (Some((_, head)), At::One(place)) if Arc::ptr_eq(head, &place.head) => At::One(place),
            (_, At::Own(own)) => At::Own(own),
            _ if names.is_empty() => At::Root,
            _ => self.find(&table, &names).await?,
        };
        let mut state = lock(&self.state);
        if state.generation < generation {
            *state = State { generation, at: at.clone(), below };
        }
        Ok((at, below))
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
            self.space.refused(&self.caller, e.to_string());
        }
        e
    }

    /// A refusal of the name space itself, kept for `error`.
    fn refuse(&self, e: Error) -> fs_ninep::Error {
        self.space.refused(&self.caller, e.to_string());
        e.into()
    }

    /// The file `names` further down in the same member.
    fn child(
        &self,
        place: &Place,
        names: &[Name],
        qids: &[Qid],
        file: Arc<dyn File>,
        below: bool,
    ) -> Result<Arc<Node>> {
        let server = file.server();
        let mut path = self.path.clone();
        for (i, name) in names.iter().enumerate() {
            let qid = if i + 1 == names.len() { Some(file.qid()) } else { qids.get(i).copied() };
            path = match qid {
                Some(qid) if qid.is_dir() => path.enter(name, (server, qid.path)),
                _ => path.join(name, None),
            }
            .map_err(|e| self.refuse(e))?;
        }
        let (table, generation) = if below { self.space.table() } else { (Arc::default(), self.generation()) };
        let below = below && table.below(&path.names()).is_some();
        let head = &place.head;
        Ok(self.node(path, At::One(self.place(head, place.member, place.depth, file)), below, generation))
    }

    fn generation(&self) -> u64 {
        lock(&self.state).generation
    }

    /// The mount point `head` at `path`.
    fn mounted(&self, path: Path, head: &Arc<Head>, table: &Table, generation: u64) -> Arc<Node> {
        let below = table.below(&path.names()).is_some();
        let at = At::head(head, path.depth());
        self.node(path, at, below, generation)
    }

    /// The mount point that `names` lead to, by way of the table alone.
    fn head_at(&self, name: &Name) -> Result<Option<Arc<Node>>> {
        let (table, generation) = self.space.table();
        let mut names = self.path.names();
        names.push(name.clone());
        let Some(head) = table.head(&names) else { return Ok(None) };
        let first = &head.members[0].link.file();
        let path = if first.qid().is_dir() { self.path.enter(name, id(first)) } else { self.path.join(name, None) };
        Ok(Some(self.mounted(path.map_err(|e| self.refuse(e))?, head, &table, generation)))
    }

    /// Walks names none of which is `..` or a mount point.
    async fn run(&self, names: &[Name]) -> Walk {
        let (at, below) = match self.now().await {
            Ok(now) => now,
            Err(e) => return Walk::stopped(Vec::new(), e),
        };
        match at {
            At::One(place) => self.run_place(&place, below, names).await,
            At::Union(head) => {
                let path = || absolute(&[&self.path.names()[..], names].concat());
                match self.walk_head(&head, names, &path).await {
                    Ok((member, walk)) => {
                        let place = self.place(&head, member, self.path.depth(), head.members[member].link.file());
                        self.came(&place, below, names, walk)
                    }
                    Err(e) => Walk::stopped(Vec::new(), e),
                }
            }
            At::Own(_) => Walk::stopped(Vec::new(), Kind::NotDir),
            At::Root => match (Own::named(&names[0]), names) {
                (Some(own), [name]) => match self.path.join(name, None) {
                    Ok(path) => {
                        let node = self.node(path, At::Own(own), false, self.space.generation());
                        Walk { qids: vec![own.qid()], end: Ok(node) }
                    }
                    Err(e) => Walk::stopped(Vec::new(), e),
                },
                (Some(own), _) => Walk::stopped(vec![own.qid()], Kind::NotDir),
                (None, _) => Walk::stopped(Vec::new(), Error::Name { name: names[0].to_string() }),
            },
        }
    }

    async fn run_place(&self, place: &Arc<Place>, below: bool, names: &[Name]) -> Walk {
        let walk = place.file.walk(names).await;
        match &walk.end {
            Err(e) if lost(e.kind()) && walk.qids.is_empty() => {
                let e = e.clone();
                let _: Result<()> = self.heard(place, Err(e.clone()));
                match self.heal(place).await {
                    Ok(Some(place)) => {
                        let walk = place.file.walk(names).await;
                        self.came(&place, below, names, walk)
                    }
                    Ok(None) => Walk::stopped(Vec::new(), e),
                    Err(e) => Walk::stopped(Vec::new(), e),
                }
            }
            _ => self.came(place, below, names, walk),
        }
    }

    fn came(&self, place: &Place, below: bool, names: &[Name], walk: Walk) -> Walk {
        let Walk { qids, end } = walk;
        match end {
            Ok(file) => {
                place.link().up();
                match self.child(place, names, &qids, file, below) {
                    Ok(node) => Walk { qids, end: Ok(node) },
                    Err(e) => Walk::stopped(qids[..names.len() - 1].to_vec(), e),
                }
            }
            Err(e) => Walk::stopped(qids, self.note(e)),
        }
    }

    /// Walks any names: from mount point to mount point, one call for what lies between.
    async fn steps(self: Arc<Node>, names: &[Name]) -> Walk {
        let mut node = self;
        let mut qids = Vec::with_capacity(names.len());
        let mut rest = names;
        while let Some((name, tail)) = rest.split_first() {
            if name.is_parent() {
                node = match node.up().await {
                    Ok(up) => up,
                    Err(e) => return Walk::stopped(qids, e),
                };
                qids.push(node.qid());
                rest = tail;
                continue;
            }
            let plain = node.plain(rest);
            if plain == 0 {
                node = match node.head_at(name) {
                    Ok(Some(head)) => head,
                    Ok(None) => return Walk::stopped(qids, Kind::NotFound),
                    Err(e) => return Walk::stopped(qids, e),
                };
                qids.push(node.qid());
                rest = tail;
                continue;
            }
            let walk = node.run(&rest[..plain]).await;
            qids.extend(walk.qids);
            node = match walk.end.map(own) {
                Ok(Some(next)) => next,
                Ok(None) => return Walk::stopped(qids, Kind::NotDir),
                Err(e) => return Walk::stopped(qids, e),
            };
            rest = &rest[plain..];
        }
        Walk { qids, end: Ok(node) }
    }

    /// How many of `names` can be walked before a `..` or a mount point.
    fn plain(&self, names: &[Name]) -> usize {
        let (table, _) = self.space.table();
        let mut path = self.path.names();
        let end = names.iter().position(|name| {
            path.push(name.clone());
            name.is_parent() || table.head(&path).is_some()
        });
        end.unwrap_or(names.len())
    }

    async fn up(&self) -> Result<Arc<Node>> {
        let path = self.path.parent();
        let (table, generation) = self.space.table();
        let names = path.names();
        let at = self.find(&table, &names).await?;
        let below = table.below(&names).is_some();
        Ok(self.node(path, at, below, generation))
    }

    /// This node again.
    fn same(&self) -> Arc<Node> {
        let state = lock(&self.state);
        self.node(self.path.clone(), state.at.clone(), state.below, state.generation)
    }

    async fn look_down(&self, names: &[Name]) -> Result<(Arc<dyn File>, Attr)> {
        let (at, below) = self.now().await?;
        if let At::One(place) = &at
            && !names.is_empty()
            && !names.iter().any(Name::is_parent)
            && (!below || self.plain(names) == names.len())
        {
            let (file, attr) = ask!(self, place, file => file.walk_getattr(names))?;
            // The healed place, where there is one.
            let place = match &lock(&self.state).at {
                At::One(now) => now.clone(),
                _ => place.clone(),
            };
            return Ok((self.child(&place, names, &[], file, below)?, attr));
        }
        let file = self.walk(names).await.end?;
        let attr = file.getattr().await?;
        Ok((file, attr))
    }

    async fn attributes(&self) -> Result<Attr> {
        match self.now().await? {
            (At::Root, _) => Ok(root::attr(&self.space, &self.caller, self.qid(), Attr::DIR | 0o555, 0)),
            (At::Own(own), _) => Ok(own.attr(&self.space, &self.caller)),
            (At::One(place), below) => {
                let mut attr = ask!(self, &place, file => file.getattr())?;
                if below {
                    attr.qid.version = 0;
                }
                Ok(attr)
            }
            (At::Union(head), _) => {
                union::getattr(&self.space, &head, &|| self.path.to_string()).await.map_err(|e| self.note(e))
            }
        }
    }

    async fn opened(&self, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        let (at, _) = self.now().await?;
        let dir = !matches!(at, At::One(_) | At::Own(_));
        if dir && (flags.writes() || flags.has(OpenFlags::TRUNC)) {
            return Err(Kind::IsDir.into());
        }
        match at {
            At::Root => self.list_root(),
            At::Own(own) => own.open(&self.space, &self.caller, flags),
            At::One(place) => {
                let open = ask!(self, &place, file => file.open(flags))?;
                if !place.file.qid().is_dir() {
                    return Ok(open);
                }
                let place = match &lock(&self.state).at {
                    At::One(now) => now.clone(),
                    _ => place,
                };
                Ok(Arc::new(Dir { node: self.same(), place, open }))
            }
            At::Union(head) => {
                let list = union::list(&self.space, &head, &|| self.path.to_string()).await;
                let list = list.map_err(|e| self.note(e))?;
                let depth = self.path.depth();
                let mut entries = Vec::with_capacity(list.len());
                for (member, entry) in list {
                    let place = self.place(&head, member, depth, head.members[member].link.file());
                    entries.push(self.entry(&place, entry));
                }
                Ok(listing(entries))
            }
        }
    }

    fn list_root(&self) -> Result<Arc<dyn OpenFile>> {
        let (table, generation) = self.space.table();
        let mut entries = Vec::new();
        for own in Own::ALL {
            let name = Name::new(own.name())?;
            let file = self.node(self.path.join(&name, None)?, At::Own(own), false, generation);
            entries.push(DirEntry { name, qid: own.qid(), cookie: 0, attr: None, file: Some(file) });
        }
        for (path, _) in table.heads().filter(|(path, _)| path.len() == 1) {
            if let Some(node) = self.head_at(&path[0])? {
                let (name, qid) = (path[0].clone(), node.qid());
                entries.push(DirEntry { name, qid, cookie: 0, attr: None, file: Some(node) });
            }
        }
        Ok(listing(entries))
    }

    /// A server's entry as this name space shows it: a mount point shows what is mounted.
    fn entry(&self, place: &Place, entry: DirEntry) -> DirEntry {
        let below = lock(&self.state).below;
        if below && let Ok(Some(node)) = self.head_at(&entry.name) {
            return DirEntry { qid: node.qid(), attr: None, file: Some(node), ..entry };
        }
        let name = std::slice::from_ref(&entry.name);
        let child = entry.file.clone().and_then(|f| self.child(place, name, &[], f, below).ok());
        DirEntry { file: child.map(|c| c as Arc<dyn File>), ..entry }
    }

    /// Refused where `name` in this directory is or holds a mount point.
    fn free(&self, name: &Name) -> Result<()> {
        let (table, _) = self.space.table();
        let mut names = self.path.names();
        names.push(name.clone());
        if let Some(at) = table.within(&names) {
            return Err(self.refuse(Error::MountPoint { path: absolute(&names), at: absolute(at) }));
        }
        match &names[..] {
            [name] if Own::named(name).is_some() => Err(self.refuse(Error::Own { name: name.to_string() })),
            _ => Ok(()),
        }
    }

    /// Where the union `head` has `name`, if it does.
    async fn has(&self, head: &Head, name: &Name) -> Result<Option<(usize, Arc<dyn File>)>> {
        let path = || format!("{}/{name}", self.path);
        match self.walk_head(head, std::slice::from_ref(name), &path).await {
            Ok((member, walk)) => Ok(Some((member, walk.end?))),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The member of a union that takes new files.
    fn taker(&self, head: &Head) -> Result<usize> {
        let taker = head.members.iter().position(|m| m.flags.create);
        taker.ok_or_else(|| self.refuse(Error::NoCreate { path: self.path.to_string() }))
    }

    /// Where a new `name` is made: the place of its directory.
    async fn maker(&self, name: &Name) -> Result<Arc<Place>> {
        let (at, below) = self.now().await?;
        if below && self.head_at(name)?.is_some() {
            return Err(Kind::Exists.into());
        }
        match at {
            At::Root if Own::named(name).is_some() => Err(Kind::Exists.into()),
            At::Root => Err(self.refuse(Error::RootCreate { name: name.to_string() })),
            At::Own(_) => Err(Kind::NotDir.into()),
            At::One(place) => Ok(place),
            At::Union(head) => {
                if self.has(&head, name).await?.is_some() {
                    return Err(Kind::Exists.into());
                }
                let member = self.taker(&head)?;
                Ok(self.place(&head, member, self.path.depth(), head.members[member].link.file()))
            }
        }
    }

    fn made(&self, place: &Place, name: &Name, file: Arc<dyn File>) -> Result<Arc<dyn File>> {
        let below = lock(&self.state).below;
        Ok(self.child(place, std::slice::from_ref(name), &[], file, below)?)
    }

    async fn created(&self, name: &Name, flags: OpenFlags, mode: u32) -> Result<Created> {
        if !flags.has(OpenFlags::EXCL)
            && let Some(file) = self.stands(name).await?
        {
            let open = file.open(flags).await?;
            return Ok(Created { file, open });
        }
        let place = self.maker(name).await?;
        let made = place.file.create(name, flags, mode).await;
        let Created { file, open } = self.heard(&place, made)?;
        Ok(Created { file: self.made(&place, name, file)?, open })
    }

    /// What stands at `name` already, where its server cannot be left to say so.
    async fn stands(&self, name: &Name) -> Result<Option<Arc<dyn File>>> {
        let (at, below) = self.now().await?;
        if below && let Some(node) = self.head_at(name)? {
            return Ok(Some(node));
        }
        match at {
            At::One(_) => Ok(None),
            At::Root if Own::named(name).is_none() => Ok(None),
            At::Union(head) => match self.has(&head, name).await? {
                Some((member, file)) => {
                    let place = self.place(&head, member, self.path.depth(), head.members[member].link.file());
                    Ok(Some(self.made(&place, name, file)?))
                }
                None => Ok(None),
            },
            At::Root | At::Own(_) => Ok(Some(self.run(std::slice::from_ref(name)).await.end?)),
        }
    }

    /// The directory that holds `name`: where a lookup finds it.
    async fn holder(&self, name: &Name) -> Result<(Arc<Place>, Option<Arc<Head>>)> {
        self.free(name)?;
        match self.now().await?.0 {
            At::Root => Err(Error::Name { name: name.to_string() }.into()),
            At::Own(_) => Err(Kind::NotDir.into()),
            At::One(place) => Ok((place, None)),
            At::Union(head) => match self.has(&head, name).await? {
                Some((member, _)) => {
                    let file = head.members[member].link.file();
                    Ok((self.place(&head, member, self.path.depth(), file), Some(head)))
                }
                None => Err(Kind::NotFound.into()),
            },
        }
    }

    /// The directory of this union or place that a file of `from` moves into as `name`.
    async fn receiver(&self, name: &Name, from: &Place) -> Result<Arc<Place>> {
        self.free(name)?;
        let apart = || self.refuse(Error::Apart { path: format!("{}/{name}", self.path) });
        let place = match self.now().await?.0 {
            At::Root => return Err(self.refuse(Error::RootCreate { name: name.to_string() })),
            At::Own(_) => return Err(Kind::NotDir.into()),
            At::One(place) => place,
            At::Union(head) => {
                let stands = self.has(&head, name).await?.map(|(member, _)| member);
                let own = head.members.iter().position(|m| Arc::ptr_eq(&m.link, &from.member().link));
                let own = own.filter(|_| from.depth == self.path.depth());
                let member = match (own, stands) {
                    // An earlier member's file would hide the new one.
                    (Some(own), Some(stands)) if stands < own => return Err(apart()),
                    (Some(own), _) => own,
                    (None, Some(stands)) => stands,
                    (None, None) => self.taker(&head)?,
                };
                self.place(&head, member, self.path.depth(), head.members[member].link.file())
            }
        };
        if place.file.server() == from.file.server() { Ok(place) } else { Err(apart()) }
    }

    async fn renamed(&self, old: &Name, dir: &Node, new: &Name) -> Result<()> {
        let (from, _) = self.holder(old).await?;
        let to = dir.receiver(new, &from).await?;
        self.heard(&from, from.file.rename(old, &to.file, new).await)
    }

    /// This very file, where the name space lets it be moved or removed.
    async fn movable(&self) -> Result<Arc<Place>> {
        let names = self.path.names();
        if let Some(at) = self.space.table().0.within(&names) {
            return Err(self.refuse(Error::MountPoint { path: absolute(&names), at: absolute(at) }));
        }
        match self.now().await?.0 {
            At::One(place) => Ok(place),
            At::Own(own) => Err(self.refuse(Error::Own { name: own.name().to_owned() })),
            At::Root | At::Union(_) => Err(self.refuse(Error::Root)),
        }
    }

    async fn renamed_self(&self, dir: Option<&Arc<dyn File>>, new: &Name) -> Result<()> {
        let place = self.movable().await?;
        let to = match dir {
            Some(dir) => match node(dir) {
                Some(node) => node.receiver(new, &place).await?,
                None => return Err(self.refuse(Error::Apart { path: self.path.to_string() })),
            },
            None => self.up().await?.receiver(new, &place).await?,
        };
        self.heard(&place, place.file.rename_self(Some(&to.file), new).await)
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

fn own(file: Arc<dyn File>) -> Option<Arc<Node>> {
    node(&file).map(Node::same)
}

impl File for Node {
    fn server(&self) -> ServerId {
        match &lock(&self.state).at {
            At::Root | At::Own(_) => self.space.server,
            At::One(place) => place.file.server(),
            At::Union(head) => head.members[0].link.file().server(),
        }
    }

    fn qid(&self) -> Qid {
        let state = lock(&self.state);
        match &state.at {
            At::Root => Qid { ty: QidType::DIR, version: 0, path: 0 },
            At::Own(own) => own.qid(),
            At::One(place) if state.below => Qid { version: 0, ..place.file.qid() },
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
                Ok((At::One(place), false)) if !names.iter().any(Name::is_parent) => {
                    self.run_place(&place, false, names).await
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
            let place = self.maker(name).await?;
            let made = place.file.mkdir(name, mode).await;
            self.made(&place, name, self.heard(&place, made)?)
        })
    }

    fn symlink<'a>(&'a self, name: &'a Name, target: &'a [u8]) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let place = self.maker(name).await?;
            let made = place.file.symlink(name, target).await;
            self.made(&place, name, self.heard(&place, made)?)
        })
    }

    fn link<'a>(&'a self, name: &'a Name, file: &'a Arc<dyn File>) -> Call<'a, ()> {
        Box::pin(async move {
            let to = self.maker(name).await?;
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
                At::One(place) => ask!(self, &place, file => file.readlink()),
                _ => Err(Kind::Invalid.into()),
            }
        })
    }

    fn unlink<'a>(&'a self, name: &'a Name, dir: bool) -> Call<'a, ()> {
        Box::pin(async move {
            let (place, _) = self.holder(name).await?;
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
                At::One(place) => ask!(self, &place, file => file.statfs()),
                At::Union(head) => head.members[0].link.file().statfs().await,
                At::Own(_) | At::Root => Ok(StatFs { ty: 0x0102_1997, bsize: 4096, namelen: 255, ..StatFs::default() }),
            }
        })
    }
}

/// A server's open directory, its entries as the name space shows them.
struct Dir {
    node: Arc<Node>,
    place: Arc<Place>,
    open: Arc<dyn OpenFile>,
}

impl OpenFile for Dir {
    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        Box::pin(async move {
            let mut entries = self.open.readdir(cookie, entries_max).await?;
            if lock(&self.node.state).below || entries.iter().any(|e| e.file.is_some()) {
                entries = entries.into_iter().map(|e| self.node.entry(&self.place, e)).collect();
            }
            Ok(entries)
        })
    }

    fn fsync(&self, data_only: bool) -> Call<'_, ()> {
        self.open.fsync(data_only)
    }

    fn flush(&self) -> Call<'_, ()> {
        self.open.flush()
    }
}

/// A directory as it was when it was opened.
struct Listing {
    entries: Vec<DirEntry>,
}

fn listing(mut entries: Vec<DirEntry>) -> Arc<dyn OpenFile> {
    for (i, entry) in entries.iter_mut().enumerate() {
        entry.cookie = i as u64 + 1;
    }
    Arc::new(Listing { entries })
}

impl OpenFile for Listing {
    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        let start = usize::try_from(cookie).unwrap_or(usize::MAX).min(self.entries.len());
        let end = start.saturating_add(entries_max).min(self.entries.len());
        Box::pin(std::future::ready(Ok(self.entries[start..end].to_vec())))
    }
}
