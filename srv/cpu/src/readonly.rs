//! A tree that is only looked at: what a job mounts `ro`.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{Attr, Call, File, Kind, Name, OpenFile, OpenFlags, Qid, ServerId, SetAttr, StatFs, Walk};

/// A file of which everything can be read and nothing changed.
pub struct ReadOnly(pub Arc<dyn File>);

impl File for ReadOnly {
    fn server(&self) -> ServerId {
        self.0.server()
    }

    fn qid(&self) -> Qid {
        self.0.qid()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>> {
        Box::pin(async move {
            let walk = self.0.walk(names).await;
            Walk { qids: walk.qids, end: walk.end.map(|file| Arc::new(ReadOnly(file)) as Arc<dyn File>) }
        })
    }

    fn getattr(&self) -> Call<'_, Attr> {
        self.0.getattr()
    }

    fn walk_getattr<'a>(&'a self, names: &'a [Name]) -> Call<'a, (Arc<dyn File>, Attr)> {
        Box::pin(async move {
            let (file, attr) = self.0.walk_getattr(names).await?;
            Ok((Arc::new(ReadOnly(file)) as Arc<dyn File>, attr))
        })
    }

    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>> {
        if flags.writes() || flags.has(OpenFlags::TRUNC) {
            return Box::pin(std::future::ready(Err(Kind::ReadOnly.into())));
        }
        self.0.open(flags)
    }

    fn readlink(&self) -> Call<'_, Bytes> {
        self.0.readlink()
    }

    fn setattr(&self, _set: SetAttr) -> Call<'_, ()> {
        Box::pin(std::future::ready(Err(Kind::ReadOnly.into())))
    }

    fn statfs(&self) -> Call<'_, StatFs> {
        self.0.statfs()
    }
}
