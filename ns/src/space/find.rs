//! Finding files: through the table, and once more when a server has lost one.

use std::sync::Arc;

use fs_ninep::{File, Kind, Name, Result, Walk};

use super::{Member, Space, Table};
use crate::link::lost;
use crate::path::absolute;
use crate::table::{Base, Origin};
use crate::{Error, text, union};

/// A file found through the table.
pub struct Found {
    /// How to find it again.
    pub origin: Origin,
    /// Its file.
    pub file: Arc<dyn File>,
}

impl Space {
    /// The file at `path`, by the members' order where a union is on the way.
    pub async fn find(&self, table: &Table, path: &[Name]) -> Result<Found> {
        let Some((depth, head)) = table.nearest(path) else {
            let name = path.first().map(Name::to_string).unwrap_or_default();
            return Err(Error::Name { name }.into());
        };
        let rest = &path[depth..];
        if rest.is_empty() {
            let first = &head.members[0];
            return Ok(Found { origin: first.origin.clone(), file: first.link.file() });
        }
        let (i, walk) = union::walk(self, head, rest, &|| absolute(path)).await?;
        Ok(Found { origin: head.members[i].origin.join(rest), file: walk.end? })
    }

    /// Where the walk of a member begins.
    pub(super) async fn begin(&self, base: &Base) -> Result<Arc<dyn File>> {
        match base {
            Base::Device(name) => {
                let device = self.devices.iter().find(|(n, _)| n == name);
                device.map(|(_, file)| file.clone()).ok_or_else(|| self.no_device(name).into())
            }
            Base::Mount { source, spec } => self.resolve.mount(source, spec).await.map_err(|e| hide(source, e)),
        }
    }

    /// A member's file once more, by the path it came by, where `epoch` was of no more use; `None` if there is no other
    /// way to it than the handle there is.
    /// # Errors
    /// `Gone`, or what the servers on the way answer.
    pub async fn again(&self, member: &Member, epoch: u64) -> Result<Option<Arc<dyn File>>> {
        let (file, now) = member.link.current();
        if now != epoch {
            return Ok(Some(file));
        }
        let Origin { base, names } = &member.origin;
        if matches!(base, Base::Device(_)) && names.is_empty() {
            return Ok(None);
        }
        let found = match self.begin(base).await {
            Ok(start) => walk(&start, names).await,
            Err(e) => Err(e),
        };
        match found {
            Ok(found) if found.qid().is_dir() == file.qid().is_dir() => {
                member.link.replace(found.clone());
                Ok(Some(found))
            }
            Err(e) if e.kind() != Kind::NotFound => Err(e),
            _ => {
                member.link.gone();
                Err(Error::Gone { member: text::name(member) }.into())
            }
        }
    }

    /// Walks `names` from a member, by its path once more where the handle is of no more use. An error is of the first
    /// name; a walk that came further is the answer.
    pub async fn walk_member(&self, member: &Member, names: &[Name]) -> Result<Walk> {
        let (file, epoch) = member.link.current();
        match begun(file.walk(names).await) {
            Err(e) if lost(e.kind()) => match self.again(member, epoch).await? {
                Some(file) => begun(file.walk(names).await),
                None => Err(e),
            },
            walk => walk,
        }
    }

    pub(super) fn no_device(&self, name: &str) -> Error {
        let known: Vec<_> = self.devices.iter().map(|(name, _)| format!("#{name}")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(" ") };
        Error::Device { name: name.to_owned(), known }
    }
}

/// `error` without the secret of `source`, where a server quotes it.
pub(super) fn hide(source: &str, error: fs_ninep::Error) -> fs_ninep::Error {
    match source.split_once('#') {
        Some((_, secret)) if !secret.is_empty() && error.explained() => {
            fs_ninep::Error::new(error.kind(), error.to_string().replace(secret, "*"))
        }
        _ => error,
    }
}

pub(super) async fn walk(file: &Arc<dyn File>, names: &[Name]) -> Result<Arc<dyn File>> {
    if names.is_empty() { Ok(file.clone()) } else { file.walk(names).await.end }
}

fn begun(walk: Walk) -> Result<Walk> {
    match walk.end {
        Err(e) if walk.qids.is_empty() => Err(e),
        end => Ok(Walk { qids: walk.qids, end }),
    }
}
