//! Opening; directories as the name space shows them.

use std::sync::Arc;

use fs_ninep::{Call, DirEntry, File, Kind, Name, OpenFile, OpenFlags, Result};

use super::{At, Node, Place, Since, ask};
use crate::link::{lock, lost};
use crate::root::TREE;
use crate::union;

impl Node {
    pub(super) async fn opened(&self, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        let (at, since) = self.now().await?;
        let dir = !matches!(at, At::One(_) | At::Own(_));
        if dir && (flags.writes() || flags.has(OpenFlags::TRUNC)) {
            return Err(Kind::IsDir.into());
        }
        match at {
            At::Root => self.list_root(),
            At::Own(own) => own.open(&self.space, &self.caller, flags),
            At::One(mut place) => {
                let open = ask!(self, place, file => file.open(flags))?;
                if !place.file.qid().is_dir() {
                    return Ok(open);
                }
                Ok(Arc::new(Dir { node: self.same(), place, since, open }))
            }
            At::Union(head) => {
                let list = union::list(&self.space, &head, &|| self.path.to_string()).await;
                let list = list.map_err(|e| self.note(e))?;
                let mut entries = Vec::with_capacity(list.len());
                for (member, entry) in list {
                    let place = self.member(&head, member);
                    entries.push(self.told(&place, self.entry(&place, entry, since)));
                }
                Ok(listing(entries))
            }
        }
    }

    pub(super) fn list_root(&self) -> Result<Arc<dyn OpenFile>> {
        let (table, generation) = self.space.table();
        let mut entries = Vec::new();
        for own in TREE.iter().map(|row| row.q) {
            let name = Name::new(own.name())?;
            let file = self.node(self.path.join(&name, None)?, At::Own(own), Since { generation, below: false });
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

    /// An entry whose attributes a union's member told and whose file it did not: with a file to be walked to when it is
    /// used, so that the attributes are not taken for another member's.
    pub(super) fn told(&self, place: &Place, entry: DirEntry) -> DirEntry {
        let path = match &entry.attr {
            Some(_) if entry.file.is_none() => self.path.join(&entry.name, None),
            _ => return entry,
        };
        let Ok(path) = path else { return entry };
        let node = self.node(path, At::Root, Since { generation: 0, below: false });
        lock(&node.state).seen = Some((place.file.server(), entry.qid));
        DirEntry { file: Some(node), ..entry }
    }

    /// A server's entry as this name space shows it: a mount point shows what is mounted.
    pub(super) fn entry(&self, place: &Place, entry: DirEntry, since: Since) -> DirEntry {
        if since.below
            && let Ok(Some(node)) = self.head_at(&entry.name)
        {
            return DirEntry { qid: node.qid(), attr: None, file: Some(node), ..entry };
        }
        let name = std::slice::from_ref(&entry.name);
        let child = entry.file.clone().and_then(|f| self.child(place, name, &[], f, since).ok());
        DirEntry { file: child.map(|c| c as Arc<dyn File>), ..entry }
    }
}

/// A server's open directory, its entries as the name space shows them.
struct Dir {
    node: Arc<Node>,
    place: Arc<Place>,
    since: Since,
    open: Arc<dyn OpenFile>,
}

impl OpenFile for Dir {
    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        Box::pin(async move {
            let mut entries = self.open.readdir(cookie, entries_max).await?;
            if self.since.below || entries.iter().any(|e| e.file.is_some()) {
                entries = entries.into_iter().map(|e| self.node.entry(&self.place, e, self.since)).collect();
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
