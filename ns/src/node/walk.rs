//! Walking: from mount point to mount point, one call for what lies between.

use std::sync::{Arc, Mutex};

use fs_ninep::{Attr, File, Kind, Name, Qid, Result, Walk};

use super::{At, Node, Place, Since, ask, node};
use crate::Error;
use crate::link::{lock, lost};
use crate::path::{Path, absolute};
use crate::root::Own;
use crate::space::{Head, Table, id};

impl Node {
    /// The file `names` further down in the same member.
    pub(super) fn child(
        &self,
        place: &Place,
        names: &[Name],
        qids: &[Qid],
        file: Arc<dyn File>,
        since: Since,
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
        let at = At::One(self.place(&place.head, place.member, place.depth, file));
        let mut since = since;
        if since.below {
            let (table, _) = self.space.table();
            let names = path.names();
            since.below = table.below(&names).is_some();
            // Something was bound on the way meanwhile: to be looked at again.
            if !table.nearest(&names).is_some_and(|(_, head)| Arc::ptr_eq(head, &place.head)) {
                since.generation = 0;
            }
        }
        Ok(self.node(path, at, since))
    }

    /// The mount point `head` at `path`.
    pub(super) fn mounted(&self, path: Path, head: &Arc<Head>, table: &Table, generation: u64) -> Arc<Node> {
        let below = table.below(&path.names()).is_some();
        let at = At::head(head, path.depth());
        self.node(path, at, Since { generation, below })
    }

    /// The mount point that `names` lead to, by way of the table alone.
    pub(super) fn head_at(&self, name: &Name) -> Result<Option<Arc<Node>>> {
        let (table, generation) = self.space.table();
        let mut names = self.path.names();
        names.push(name.clone());
        let Some(head) = table.head(&names) else { return Ok(None) };
        let first = &head.members[0].link.file();
        let path = if first.qid().is_dir() { self.path.enter(name, id(first)) } else { self.path.join(name, None) };
        Ok(Some(self.mounted(path.map_err(|e| self.refuse(e))?, head, &table, generation)))
    }

    /// Walks names none of which is `..` or a mount point.
    pub(super) async fn run(&self, names: &[Name]) -> Walk {
        let (at, since) = match self.now().await {
            Ok(now) => now,
            Err(e) => return Walk::stopped(Vec::new(), e),
        };
        match at {
            At::One(place) => self.run_place(&place, since, names).await,
            At::Union(head) => {
                let path = || absolute(&[&self.path.names()[..], names].concat());
                match self.walk_head(&head, names, &path).await {
                    Ok((member, walk)) => {
                        let place = self.member(&head, member);
                        self.came(&place, since, names, walk)
                    }
                    Err(e) => Walk::stopped(Vec::new(), e),
                }
            }
            At::Own(_) => Walk::stopped(Vec::new(), Kind::NotDir),
            At::Root => match (Own::named(&names[0]), names) {
                (Some(own), [name]) => match self.path.join(name, None) {
                    Ok(path) => {
                        let node = self.node(path, At::Own(own), Since { below: false, ..since });
                        Walk { qids: vec![own.qid()], end: Ok(node) }
                    }
                    Err(e) => Walk::stopped(Vec::new(), e),
                },
                (Some(own), _) => Walk::stopped(vec![own.qid()], Kind::NotDir),
                (None, _) => Walk::stopped(Vec::new(), Error::Name { name: names[0].to_string() }),
            },
        }
    }

    pub(super) async fn run_place(&self, place: &Arc<Place>, since: Since, names: &[Name]) -> Walk {
        let walk = place.file.walk(names).await;
        match &walk.end {
            Err(e) if lost(e.kind()) && walk.qids.is_empty() => {
                let e = e.clone();
                let _: Result<()> = self.heard(place, Err(e.clone()));
                match self.heal(place).await {
                    Ok(Some(place)) => {
                        let walk = place.file.walk(names).await;
                        self.came(&place, since, names, walk)
                    }
                    Ok(None) => Walk::stopped(Vec::new(), e),
                    Err(e) => Walk::stopped(Vec::new(), e),
                }
            }
            _ => self.came(place, since, names, walk),
        }
    }

    pub(super) fn came(&self, place: &Place, since: Since, names: &[Name], walk: Walk) -> Walk {
        let Walk { qids, end } = walk;
        match end {
            Ok(file) => {
                place.link().up();
                match self.child(place, names, &qids, file, since) {
                    Ok(node) => Walk { qids, end: Ok(node) },
                    Err(e) => Walk::stopped(qids[..names.len() - 1].to_vec(), e),
                }
            }
            Err(e) => Walk::stopped(qids, self.note(e)),
        }
    }

    /// Walks any names: from mount point to mount point, one call for what lies between.
    pub(super) async fn steps(self: Arc<Node>, names: &[Name]) -> Walk {
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
    pub(super) fn plain(&self, names: &[Name]) -> usize {
        let (table, _) = self.space.table();
        let mut path = self.path.names();
        let end = names.iter().position(|name| {
            path.push(name.clone());
            name.is_parent() || table.head(&path).is_some()
        });
        end.unwrap_or(names.len())
    }

    pub(super) async fn up(&self) -> Result<Arc<Node>> {
        let path = self.path.parent();
        let (table, generation) = self.space.table();
        let names = path.names();
        let at = self.find(&table, &names).await?;
        let below = table.below(&names).is_some();
        Ok(self.node(path, at, Since { generation, below }))
    }

    /// This node again.
    pub(super) fn same(&self) -> Arc<Node> {
        let state = Mutex::new(lock(&self.state).clone());
        Arc::new(Node { space: self.space.clone(), caller: self.caller.clone(), path: self.path.clone(), state })
    }

    pub(super) async fn look_down(&self, names: &[Name]) -> Result<(Arc<dyn File>, Attr)> {
        let (at, since) = self.now().await?;
        let straight = !names.is_empty() && !names.iter().any(Name::is_parent);
        if let At::One(mut place) = at
            && straight
            && (!since.below || self.plain(names) == names.len())
        {
            let (file, attr) = ask!(self, place, file => file.walk_getattr(names))?;
            return Ok((self.child(&place, names, &[], file, since)?, attr));
        }
        let file = self.walk(names).await.end?;
        let attr = file.getattr().await?;
        Ok((file, attr))
    }
}

fn own(file: Arc<dyn File>) -> Option<Arc<Node>> {
    node(&file).map(Node::same)
}
