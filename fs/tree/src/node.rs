//! A file of a served tree, not yet open: walks, attributes, permissions, and how each kind is opened.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{
    Attr, Call, Created, Error, File, Kind, Name, OpenFile, OpenFlags, Qid, Result, ServerId, SetAttr, Walk,
};

use crate::made::{Held, hold};
use crate::open::{Dialogue, Directory, Guarded, LogFile, StreamFile};
use crate::percent::{decode_beside, encode_beside};
use crate::plan::Element;
use crate::server::Server;
use crate::text::{Takes, Text};
use crate::{At, Row, Service, Shape};

pub(crate) const READ: u32 = 4;
pub(crate) const WRITE: u32 = 2;
const EXEC: u32 = 1;

pub(crate) struct Node<S: Service> {
    pub server: Arc<Server<S>>,
    pub row: usize,
    pub at: At<S::Q>,
}

impl<S: Service> Clone for Node<S> {
    fn clone(&self) -> Node<S> {
        Node { server: self.server.clone(), row: self.row, at: self.at.clone() }
    }
}

impl<S: Service> Node<S> {
    pub fn row(&self) -> &'static Row<S::Q> {
        self.server.row(self.row)
    }

    pub fn shape(&self) -> Shape {
        self.row().shape
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.shape(), Shape::Dir | Shape::Graft)
    }

    /// The file of `row` in this directory, or further down or up; the keys are `keys`.
    fn at_row(&self, row: usize, keys: Vec<String>) -> Node<S> {
        let at = At { q: self.server.row(row).q, keys, caller: self.at.caller.clone() };
        Node { server: self.server.clone(), row, at }
    }

    fn child(&self, row: usize, key: Option<String>) -> Node<S> {
        let mut keys = Vec::with_capacity(self.at.keys.len() + 1);
        keys.extend(self.at.keys.iter().cloned().chain(key));
        self.at_row(row, keys)
    }

    fn above(&self, row: usize) -> Node<S> {
        self.at_row(row, self.at.keys[..self.server.plan.keys(row)].to_vec())
    }

    fn parent(&self) -> Node<S> {
        self.above(self.server.plan.parent(self.row))
    }

    fn visible(&self) -> bool {
        self.server.service.visible(&self.at)
    }

    /// Whether the caller is the file's owner: the first triad is theirs, the last everybody else's.
    fn owned(&self) -> bool {
        let caller = &self.at.caller;
        caller.is_owner() || self.server.service.owner(&self.at).is_some_and(|who| who == caller.identity)
    }

    /// Checks `want` against the row's mode. The node's owner may always look at a directory.
    pub fn allow(&self, want: u32) -> Result<()> {
        let mode = self.row().mode;
        let have = if self.owned() { mode >> 6 } else { mode };
        let looks = self.is_dir() && self.at.caller.is_owner() && want & WRITE == 0;
        if want & !have & 7 == 0 || looks {
            return Ok(());
        }
        let path = self.row().path;
        Err(Error::new(Kind::Denied, format!("{path}: mode {mode:04o} does not let {} in", self.at.caller.identity)))
    }

    /// That the file still stands and the caller may still know of it.
    async fn live(&self) -> Result<()> {
        if !self.visible() {
            return Err(Kind::NotFound.into());
        }
        let plan = &self.server.plan;
        match plan.upward(self.row).find(|&r| plan.element(r) == Element::Key) {
            None => Ok(()),
            Some(row) if row == self.row => self.server.service.find(&self.at).await,
            Some(row) => {
                let keyed = self.above(row);
                if !keyed.visible() {
                    return Err(Kind::NotFound.into());
                }
                self.server.service.find(&keyed.at).await
            }
        }
    }

    /// The file `name` of this directory; a graft is not entered yet.
    async fn lookup(&self, name: &Name) -> Result<Node<S>> {
        if !self.is_dir() {
            return Err(Kind::NotDir.into());
        }
        self.allow(EXEC)?;
        let plan = &self.server.plan;
        let missing = || Error::from(Kind::NotFound);
        let text = name.as_str().ok_or_else(missing)?;
        let children = plan.children(self.row);
        if let Some(&row) = children.iter().find(|&&r| matches!(plan.element(r), Element::Name(n) if n == text)) {
            let node = self.child(row, None);
            return if node.visible() { Ok(node) } else { Err(missing()) };
        }
        let key = decode_beside(text, plan.names(self.row)).ok_or_else(missing)?;
        for &row in children.iter().filter(|&&r| plan.element(r) == Element::Key) {
            let node = self.child(row, Some(key.clone()));
            if node.visible() {
                match self.server.service.find(&node.at).await {
                    Ok(()) => return Ok(node),
                    Err(e) if e.kind() == Kind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Err(missing())
    }

    /// The file a walk gives for it: itself, or what stands at a graft.
    async fn enter(self) -> Result<Arc<dyn File>> {
        if self.shape() != Shape::Graft {
            return Ok(Arc::new(self));
        }
        self.allow(EXEC)?;
        self.server.service.graft(&self.at).await
    }

    async fn walk_all(&self, names: &[Name]) -> Walk {
        let mut here = self.clone();
        let mut qids = Vec::with_capacity(names.len());
        for (done, name) in names.iter().enumerate() {
            let next = match name.is_parent() {
                true if here.is_dir() => Ok(here.parent()),
                true => Err(Kind::NotDir.into()),
                false => here.lookup(name).await,
            };
            match next {
                Err(e) => return Walk::stopped(qids, e),
                Ok(node) if node.shape() == Shape::Graft => {
                    let file = match node.enter().await {
                        Err(e) => return Walk::stopped(qids, e),
                        Ok(file) => file,
                    };
                    qids.push(file.qid());
                    let rest = &names[done + 1..];
                    if rest.is_empty() {
                        return Walk { qids, end: Ok(file) };
                    }
                    let walk = file.walk(rest).await;
                    qids.extend(walk.qids);
                    return Walk { qids, end: walk.end };
                }
                Ok(node) => {
                    qids.push(node.qid());
                    here = node;
                }
            }
        }
        Walk { qids, end: Ok(Arc::new(here)) }
    }

    /// The whole text that a read of this file gives now.
    pub async fn text(&self) -> Result<Bytes> {
        match self.shape() {
            Shape::Error => Ok(self.refusal().into()),
            Shape::Ctl => match self.server.service.read(&self.at).await {
                Err(e) if e.kind() == Kind::NotSupported => Ok(Bytes::new()),
                text => text,
            },
            _ => self.server.service.read(&self.at).await,
        }
    }

    fn refusal(&self) -> String {
        let dir = self.server.path(self.server.plan.parent(self.row), &self.at.keys);
        self.server.refusals.text(dir, &self.at.caller.identity)
    }

    /// Keeps the text of `error` for the `error` file of the nearest directory up that has one, and gives it back.
    pub fn refused(&self, error: Error) -> Error {
        let plan = &self.server.plan;
        let tells = |&dir: &usize| plan.children(dir).iter().any(|&r| self.server.row(r).shape == Shape::Error);
        if let Some(dir) = plan.upward(self.row).find(tells) {
            let path = self.server.path(dir, &self.at.keys[..plan.keys(dir)]);
            self.server.refusals.keep(path, &self.at.caller.identity, &error);
        }
        error
    }

    /// Every file of this directory that the caller may know of, with its name, in the order of the table, keys after it.
    pub async fn list(&self) -> Result<Vec<(Name, Node<S>)>> {
        let plan = &self.server.plan;
        let (mut fixed, mut keyed) = (Vec::new(), Vec::new());
        for &row in plan.children(self.row) {
            match plan.element(row) {
                Element::Name(name) => fixed.extend(Name::new(name).ok().map(|n| (n, self.child(row, None)))),
                _ => {
                    let at = At { q: self.server.row(row).q, ..self.at.clone() };
                    for key in self.server.service.list(&at).await? {
                        let name = encode_beside(&key, plan.names(self.row)).and_then(|n| Name::new(n).ok());
                        keyed.extend(name.map(|n| (n, self.child(row, Some(key)))));
                    }
                }
            }
        }
        fixed.append(&mut keyed);
        fixed.retain(|(_, node)| node.visible());
        Ok(fixed)
    }

    pub fn hold(&self) -> Option<Held<S>> {
        hold(&self.server, self.row, &self.at.keys)
    }

    async fn open_with(&self, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        self.live().await?;
        let mut want = if flags.reads() { READ } else { 0 };
        want |= if flags.writes() { WRITE } else { 0 };
        if self.is_dir() && flags.writes() {
            return Err(Kind::IsDir.into());
        }
        if !self.is_dir() && flags.has(OpenFlags::DIRECTORY) {
            return Err(Kind::NotDir.into());
        }
        self.allow(want)?;
        let service = &self.server.service;
        match self.shape() {
            Shape::Dir => Ok(Arc::new(Directory::new(self.clone(), self.list().await?))),
            Shape::Graft => service.graft(&self.at).await?.open(flags).await,
            Shape::Value => self.open_text(flags, Takes::Value).await,
            Shape::Ctl => self.open_text(flags, Takes::Lines).await,
            Shape::Error => self.open_text(flags, Takes::Nothing).await,
            Shape::Log => Ok(Arc::new(LogFile::new(service.log(&self.at)?, self.hold()))),
            Shape::Stream => Ok(Arc::new(StreamFile::new(service.stream(&self.at)?, flags, self.hold()))),
            Shape::Rpc => Ok(Arc::new(Dialogue::new(self.clone(), flags))),
            Shape::Clone => self.open_clone(flags).await,
            Shape::Special => {
                let open = service.open(&self.at, flags).await.map_err(|e| self.refused(e))?;
                Ok(match self.hold() {
                    Some(held) => Arc::new(Guarded::new(open, held)),
                    None => open,
                })
            }
        }
    }

    async fn open_text(&self, flags: OpenFlags, takes: Takes) -> Result<Arc<dyn OpenFile>> {
        let held = self.hold();
        let snapshot = if flags.reads() { self.text().await? } else { Bytes::new() };
        Ok(Arc::new(Text::new(self.clone(), flags, snapshot, takes, held)))
    }

    /// Makes the directory; nothing waits between its making and the fid that holds it.
    async fn open_clone(&self, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        let plan = &self.server.plan;
        let (dir_row, ctl_row) = plan.made_by(S::TREE, self.row).ok_or(Kind::NotSupported)?;
        let key = self.server.service.make(&self.at).await.map_err(|e| self.refused(e))?;
        let name = encode_beside(&key, plan.names(plan.parent(self.row))).unwrap_or_else(|| key.clone());
        let dir = self.child(dir_row, Some(key));
        self.server.made.begin(dir_row, dir.at.clone());
        let ctl = dir.child(ctl_row, None);
        let held = ctl.hold();
        Ok(Arc::new(Text::new(ctl, flags, format!("{name}\n").into(), Takes::Lines, held)))
    }

    /// Removes the file that a key names: for its owner, and only where the service allows it.
    async fn remove_node(&self) -> Result<()> {
        if self.server.plan.element(self.row) != Element::Key {
            return Err(Kind::ReadOnly.into());
        }
        if !self.owned() {
            let path = self.row().path;
            return Err(Error::new(Kind::Denied, format!("{path}: only its owner may remove {}", self.at.key())));
        }
        self.server.service.remove(&self.at).await.map_err(|e| self.parent().refused(e))?;
        self.server.made.end(self.row, &self.at.keys);
        Ok(())
    }
}

impl<S: Service> File for Node<S> {
    fn server(&self) -> ServerId {
        self.server.id
    }

    fn qid(&self) -> Qid {
        self.server.qid(self.row, &self.at.keys)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(self.walk_all(names))
    }

    /// What a walk has just found is not looked for again.
    fn walk_getattr<'a>(&'a self, names: &'a [Name]) -> Call<'a, (Arc<dyn File>, Attr)> {
        Box::pin(async move {
            let file = self.walk_all(names).await.end?;
            let attr = match file.as_any().downcast_ref::<Node<S>>() {
                Some(node) if !names.is_empty() => node.attr().await?,
                _ => file.getattr().await?,
            };
            Ok((file, attr))
        })
    }

    fn getattr(&self) -> Call<'_, Attr> {
        Box::pin(async move {
            self.live().await?;
            self.attr().await
        })
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        Box::pin(self.open_with(flags))
    }

    fn create<'a>(&'a self, name: &'a Name, flags: OpenFlags, _mode: u32) -> Call<'a, Created> {
        Box::pin(async move {
            let node = match self.lookup(name).await {
                Err(e) if e.kind() == Kind::NotFound => return Err(Kind::ReadOnly.into()),
                found => found?,
            };
            if flags.has(OpenFlags::EXCL) {
                return Err(Kind::Exists.into());
            }
            let file = node.enter().await?;
            let open = file.open(flags).await?;
            Ok(Created { file, open })
        })
    }

    fn mkdir<'a>(&'a self, name: &'a Name, _mode: u32) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            match self.lookup(name).await {
                Ok(_) => Err(Kind::Exists.into()),
                Err(e) if e.kind() == Kind::NotFound => Err(Kind::ReadOnly.into()),
                Err(e) => Err(e),
            }
        })
    }

    fn unlink<'a>(&'a self, name: &'a Name, dir: bool) -> Call<'a, ()> {
        Box::pin(async move {
            let node = self.lookup(name).await?;
            match (dir, node.is_dir()) {
                (true, false) => Err(Kind::NotDir.into()),
                (false, true) => Err(Kind::IsDir.into()),
                _ => node.remove_node().await,
            }
        })
    }

    fn remove(&self) -> Call<'_, ()> {
        Box::pin(async move {
            self.live().await?;
            self.remove_node().await
        })
    }

    fn setattr(&self, set: SetAttr) -> Call<'_, ()> {
        Box::pin(async move {
            self.live().await?;
            self.check_setattr(set)
        })
    }
}
