//! Making, removing and renaming: in whose directory it is done, and when it is refused.

use std::sync::Arc;

use fs_ninep::{Created, File, Kind, Name, OpenFlags, Result};

use super::{At, Node, Place, Since, node};
use crate::Error;
use crate::path::absolute;
use crate::root::Own;
use crate::space::Head;

impl Node {
    /// Refused where `name` in this directory is or holds a mount point.
    pub(super) fn free(&self, name: &Name) -> Result<()> {
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
    pub(super) async fn has(&self, head: &Head, name: &Name) -> Result<Option<(usize, Arc<dyn File>)>> {
        let path = || format!("{}/{name}", self.path);
        match self.walk_head(head, std::slice::from_ref(name), &path).await {
            Ok((member, walk)) => Ok(Some((member, walk.end?))),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The member of a union that takes new files.
    pub(super) fn taker(&self, head: &Head) -> Result<usize> {
        let taker = head.members.iter().position(|m| m.flags.create);
        taker.ok_or_else(|| self.refuse(Error::NoCreate { path: self.path.to_string() }))
    }

    /// Where a new `name` is made: the place of its directory.
    pub(super) async fn maker(&self, name: &Name) -> Result<(Arc<Place>, Since)> {
        let (at, since) = self.now().await?;
        if since.below && self.head_at(name)?.is_some() {
            return Err(Kind::Exists.into());
        }
        match at {
            At::Root if Own::named(name).is_some() => Err(Kind::Exists.into()),
            At::Root => Err(self.refuse(Error::RootCreate { name: name.to_string() })),
            At::Own(_) => Err(Kind::NotDir.into()),
            At::One(place) => Ok((place, since)),
            At::Union(head) => {
                if self.has(&head, name).await?.is_some() {
                    return Err(Kind::Exists.into());
                }
                let member = self.taker(&head)?;
                Ok((self.member(&head, member), since))
            }
        }
    }

    pub(super) fn made(&self, place: &Place, name: &Name, file: Arc<dyn File>, since: Since) -> Result<Arc<dyn File>> {
        Ok(self.child(place, std::slice::from_ref(name), &[], file, since)?)
    }

    pub(super) async fn created(&self, name: &Name, flags: OpenFlags, mode: u32) -> Result<Created> {
        if !flags.has(OpenFlags::EXCL)
            && let Some(file) = self.stands(name).await?
        {
            let open = file.open(flags).await?;
            return Ok(Created { file, open });
        }
        let (place, since) = self.maker(name).await?;
        let made = place.file.create(name, flags, mode).await;
        let Created { file, open } = self.heard(&place, made)?;
        Ok(Created { file: self.made(&place, name, file, since)?, open })
    }

    /// What stands at `name` already, where its server cannot be left to say so.
    pub(super) async fn stands(&self, name: &Name) -> Result<Option<Arc<dyn File>>> {
        let (at, since) = self.now().await?;
        if since.below
            && let Some(node) = self.head_at(name)?
        {
            return Ok(Some(node));
        }
        match at {
            At::One(_) => Ok(None),
            At::Root if Own::named(name).is_none() => Ok(None),
            At::Union(head) => match self.has(&head, name).await? {
                Some((member, file)) => {
                    let place = self.member(&head, member);
                    Ok(Some(self.made(&place, name, file, since)?))
                }
                None => Ok(None),
            },
            At::Root | At::Own(_) => Ok(Some(self.run(std::slice::from_ref(name)).await.end?)),
        }
    }

    /// The directory that holds `name`: where a lookup finds it.
    pub(super) async fn holder(&self, name: &Name) -> Result<Arc<Place>> {
        self.free(name)?;
        match self.now().await?.0 {
            At::Root => Err(Error::Name { name: name.to_string() }.into()),
            At::Own(_) => Err(Kind::NotDir.into()),
            At::One(place) => Ok(place),
            At::Union(head) => match self.has(&head, name).await? {
                Some((member, _)) => Ok(self.member(&head, member)),
                None => Err(Kind::NotFound.into()),
            },
        }
    }

    /// The directory of this union or place that a file of `from` moves into as `name`.
    pub(super) async fn receiver(&self, name: &Name, from: &Place) -> Result<Arc<Place>> {
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
                self.member(&head, member)
            }
        };
        if place.file.server() == from.file.server() { Ok(place) } else { Err(apart()) }
    }

    pub(super) async fn renamed(&self, old: &Name, dir: &Node, new: &Name) -> Result<()> {
        let from = self.holder(old).await?;
        let to = dir.receiver(new, &from).await?;
        self.heard(&from, from.file.rename(old, &to.file, new).await)
    }

    /// This very file, where the name space lets it be moved or removed.
    pub(super) async fn movable(&self) -> Result<Arc<Place>> {
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

    pub(super) async fn renamed_self(&self, dir: Option<&Arc<dyn File>>, new: &Name) -> Result<()> {
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
