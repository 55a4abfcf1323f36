//! What a service gives the kit: lists, values, words obeyed.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{Call, Caller, File, Identity, Kind, OpenFile, OpenFlags, Result};

use crate::Row;

/// Where in the tree, and for whom: a row, the names its `{…}` elements have here (outermost first), the caller.
#[derive(Clone, Debug)]
pub struct At<Q> {
    /// The row.
    pub q: Q,
    /// The `{…}` elements' names, outermost first.
    pub keys: Vec<String>,
    /// Who calls.
    pub caller: Caller,
}

impl<Q> At<Q> {
    /// The innermost key; empty where the row has none.
    pub fn key(&self) -> &str {
        self.keys.last().map_or("", String::as_str)
    }
}

/// One command of a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As written, without the newline.
    pub text: String,
    /// Its words: split on blanks, quoted as rc does ('' inside quotes is a quote). Never empty: blank lines are dropped.
    pub words: Vec<String>,
}

/// An append-only file of bytes.
pub trait Log: Send + Sync + 'static {
    /// Its length now, in bytes.
    fn len(&self) -> u64;
    /// True when nothing was appended yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The offset of the oldest byte that is still kept. A read before it goes on from there: the kit moves the reader.
    fn start(&self) -> u64 {
        0
    }
    /// At most `count` bytes at `offset`; none at the end.
    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes>;
}

/// One reader's place in a stream of records.
pub trait Records: Send + 'static {
    /// Waits for the next record (with its newline); `None` is the end. Dropping the future loses no record.
    fn next(&mut self) -> Call<'_, Option<Bytes>>;
    /// The next record if it is there already.
    fn try_next(&mut self) -> Option<Bytes>;
}

fn absent<'a, T: Send + 'a>() -> Call<'a, T> {
    Box::pin(std::future::ready(Err(Kind::NotSupported.into())))
}

/// A synthetic file server. Each function is called only for rows of its shape, after the permission check; a call that
/// is not overridden refuses.
pub trait Service: Send + Sync + 'static {
    /// The service's names for its rows.
    type Q: Copy + Eq + Debug + Send + Sync + 'static;

    /// Every file, parents before children.
    const TREE: &'static [Row<Self::Q>];

    /// The names that stand for the row `at.q`, whose last element is a `{…}`; `at.keys` holds those above it. Names that
    /// a file name cannot carry are percent-encoded by the kit.
    fn list<'a>(&'a self, _at: &'a At<Self::Q>) -> Call<'a, Vec<String>> {
        absent()
    }

    /// Whether `at.key()` stands for the row `at.q`: asked by a walk. A service that can find what it does not list
    /// (a name dialled when walked into) overrides this.
    fn find<'a>(&'a self, at: &'a At<Self::Q>) -> Call<'a, ()> {
        Box::pin(async move {
            let above = At { keys: at.keys[..at.keys.len() - 1].to_vec(), ..at.clone() };
            if self.list(&above).await?.iter().any(|k| k == at.key()) { Ok(()) } else { Err(Kind::NotFound.into()) }
        })
    }

    /// Who owns the file at `at` and what lies under it; `None`: the node's owner.
    fn owner(&self, _at: &At<Self::Q>) -> Option<Identity> {
        None
    }

    /// Whether `at.caller` may know that the file at `at` exists. What this hides is not listed and not found.
    fn visible(&self, _at: &At<Self::Q>) -> bool {
        true
    }

    /// A value's (or readable control file's) whole text now. Cheap, never waits: it is rendered for every stat too.
    fn read<'a>(&'a self, _at: &'a At<Self::Q>) -> Call<'a, Bytes> {
        absent()
    }

    /// Obeys the commands of one write, all or none; returns when they have taken effect.
    fn write<'a>(&'a self, _at: &'a At<Self::Q>, _lines: &'a [Line]) -> Call<'a, ()> {
        absent()
    }

    /// Replaces a value by `text`, as written between open and close or in one write.
    fn set<'a>(&'a self, _at: &'a At<Self::Q>, _text: Bytes) -> Call<'a, ()> {
        absent()
    }

    /// A log's bytes.
    fn log(&self, _at: &At<Self::Q>) -> Result<Arc<dyn Log>> {
        Err(Kind::NotSupported.into())
    }

    /// A new reader of a stream, placed at now (or where the page says).
    fn stream(&self, _at: &At<Self::Q>) -> Result<Box<dyn Records>> {
        Err(Kind::NotSupported.into())
    }

    /// The reply to one request.
    fn ask<'a>(&'a self, _at: &'a At<Self::Q>, _request: Bytes) -> Call<'a, Bytes> {
        absent()
    }

    /// Makes a new directory beside the `clone` at `at` and gives its name. The clone's fid becomes that one's `ctl`.
    fn make<'a>(&'a self, _at: &'a At<Self::Q>) -> Call<'a, String> {
        absent()
    }

    /// A directory made by `clone` has had no open file for 60 s: free it if it was never used.
    fn idle(&self, _at: &At<Self::Q>) {}

    /// Removes the directory at `at` (rmdir).
    fn remove<'a>(&'a self, _at: &'a At<Self::Q>) -> Call<'a, ()> {
        Box::pin(std::future::ready(Err(Kind::ReadOnly.into())))
    }

    /// Opens a special file.
    fn open<'a>(&'a self, _at: &'a At<Self::Q>, _flags: OpenFlags) -> Call<'a, Arc<dyn OpenFile>> {
        absent()
    }

    /// The length of a special file, as stat shows it.
    fn len(&self, _at: &At<Self::Q>) -> u64 {
        0
    }

    /// The file that stands at a graft.
    fn graft<'a>(&'a self, _at: &'a At<Self::Q>) -> Call<'a, Arc<dyn File>> {
        absent()
    }
}
