//! What stat(2) shows of a served file, and the little that may be set.

use fs_ninep::{Attr, Error, File, Identity, Kind, Result, SetAttr};

use crate::node::{Node, READ, WRITE};
use crate::{Service, Shape};

/// The user and group id shown for who is no user of this machine.
const NOBODY: u32 = 65534;

impl<S: Service> Node<S> {
    /// The attributes of a file that stands. A text's size is its snapshot's; who may not read it learns no size.
    pub async fn attr(&self) -> Result<Attr> {
        let server = &self.server;
        let qid = self.qid();
        let reads = self.allow(READ).is_ok();
        let (size, mtime) = match self.shape() {
            Shape::Value | Shape::Ctl | Shape::Error if reads => match self.text().await {
                Ok(text) => (text.len() as u64, server.changed(qid.path, &text)),
                Err(e) if e.kind() == Kind::NotFound => return Err(e),
                Err(_) => (0, server.started),
            },
            Shape::Log if reads => {
                let size = server.service.log(&self.at)?.len();
                (size, server.changed(qid.path, &size.to_le_bytes()))
            }
            Shape::Special => {
                let size = server.service.len(&self.at);
                (size, server.changed(qid.path, &size.to_le_bytes()))
            }
            _ => (0, server.started),
        };
        Ok(Attr { size, blocks: size.div_ceil(512), atime: mtime, mtime, ctime: mtime, ..self.bare_attr() })
    }

    /// The attributes that need nothing asked.
    fn bare_attr(&self) -> Attr {
        let server = &self.server;
        let (uid, gid) = match server.service.owner(&self.at) {
            None => (server.uid, server.gid),
            Some(Identity::Local { uid }) if uid == server.uid => (uid, server.gid),
            Some(Identity::Local { uid }) => (uid, NOBODY),
            Some(_) => (NOBODY, NOBODY),
        };
        let ty = if self.is_dir() { Attr::DIR } else { Attr::REGULAR };
        let (atime, mtime, ctime) = (server.started, server.started, server.started);
        let mode = ty | self.row().mode & 0o7777;
        Attr { qid: self.qid(), mode, uid, gid, nlink: 1, blksize: 4096, atime, mtime, ctime, ..Attr::default() }
    }

    /// The attributes for a directory entry, where they cost no question to the service.
    pub fn entry_attr(&self) -> Option<Attr> {
        match self.shape() {
            Shape::Dir | Shape::Stream | Shape::Rpc | Shape::Clone => Some(self.bare_attr()),
            _ => None,
        }
    }

    pub fn check_setattr(&self, set: SetAttr) -> Result<()> {
        let now = self.bare_attr();
        let same = |new: Option<u32>, old: u32| new.is_none_or(|n| n == old);
        let same_mode = set.mode.is_none_or(|m| m & 0o7777 == now.mode & 0o7777);
        if !same_mode || !same(set.uid, now.uid) || !same(set.gid, now.gid) {
            return Err(Error::new(Kind::NotPermitted, "the mode and owner of a served file are the server's"));
        }
        match set.size {
            None => Ok(()),
            Some(_) if self.is_dir() => Err(Kind::IsDir.into()),
            Some(0) => self.allow(WRITE),
            Some(_) => Err(Error::new(Kind::Invalid, "the length of a served file is the server's")),
        }
    }
}
