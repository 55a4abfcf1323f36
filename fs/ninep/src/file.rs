//! The trait every tree implements and every face calls.
//!
//! A [`File`] is what an unopened fid names; an [`OpenFile`] what an opened one does. Handles, not paths: a handle keeps
//! its file when the name goes. Dropping a call's future cancels it (an implementation takes effect before its last
//! await, or not at all); dropping the last `Arc` of a handle clunks it. No call may hold a thread while it waits.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;

use crate::{
    Attr, Caller, DirEntry, Error, Kind, Name, OpenFlags, PeerId, Qid, Result, ServerId, SetAttr, StatFs, Time,
};

/// A call under way. Dropping it cancels the call.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A tree of files, before anybody has attached to it.
pub trait Tree: Send + Sync {
    /// The root that `caller` sees under the attach name `aname` (empty: the main tree).
    /// # Errors
    /// `NotFound` for an aname this tree does not have, `Denied` for one this caller may not have.
    fn attach<'a>(&'a self, caller: &'a Caller, aname: &'a str) -> Call<'a, Arc<dyn File>>;
}

/// How far a walk came.
pub struct Walk {
    /// One qid for each name that was found.
    pub qids: Vec<Qid>,
    /// The last file, or why the walk stopped.
    pub end: Result<Arc<dyn File>>,
}

impl Walk {
    /// A walk that stopped after `qids` for `error`.
    pub fn stopped(qids: Vec<Qid>, error: impl Into<Error>) -> Walk {
        Walk { qids, end: Err(error.into()) }
    }
}

/// What a create made: the file and its first opening.
pub struct Created {
    /// The new file.
    pub file: Arc<dyn File>,
    /// The same, open.
    pub open: Arc<dyn OpenFile>,
}

fn refuse<'a, T: Send + 'a>(kind: Kind) -> Call<'a, T> {
    Box::pin(std::future::ready(Err(kind.into())))
}

/// A file or directory that has been walked to and not been opened.
pub trait File: Send + Sync + 'static {
    /// The server it lives on; with the qid's path, its identity.
    fn server(&self) -> ServerId;

    /// Its qid as last seen.
    fn qid(&self) -> Qid;

    /// Itself, for a server that must recognise its own handles (rename, link).
    fn as_any(&self) -> &dyn Any;

    /// Walks `names` in order; none of them clones the handle. `..` stays at the attach root.
    fn walk<'a>(&'a self, names: &'a [Name]) -> Pin<Box<dyn Future<Output = Walk> + Send + 'a>>;

    /// The attributes now.
    fn getattr(&self) -> Call<'_, Attr>;

    /// Walks and looks: one trip where the server can.
    fn walk_getattr<'a>(&'a self, names: &'a [Name]) -> Call<'a, (Arc<dyn File>, Attr)> {
        Box::pin(async move {
            let file = self.walk(names).await.end?;
            let attr = file.getattr().await?;
            Ok((file, attr))
        })
    }

    /// Opens with the access and flags of open(2); a directory is opened to be read.
    /// # Errors
    /// `Denied` by permission; `IsDir` for a directory opened to be written.
    fn open(&self, flags: OpenFlags) -> Call<'_, Arc<dyn OpenFile>>;

    /// Creates `name` in this directory with `mode` and opens it.
    /// # Errors
    /// `Exists` with EXCL; `ReadOnly` where nothing can be created.
    fn create<'a>(&'a self, _name: &'a Name, _flags: OpenFlags, _mode: u32) -> Call<'a, Created> {
        refuse(Kind::ReadOnly)
    }

    /// Makes the directory `name` in this one.
    fn mkdir<'a>(&'a self, _name: &'a Name, _mode: u32) -> Call<'a, Arc<dyn File>> {
        refuse(Kind::ReadOnly)
    }

    /// Makes the symbolic link `name` to `target`.
    fn symlink<'a>(&'a self, _name: &'a Name, _target: &'a [u8]) -> Call<'a, Arc<dyn File>> {
        refuse(Kind::ReadOnly)
    }

    /// Makes `name` in this directory a second name of `file`.
    /// # Errors
    /// `CrossDevice` where `file` is of another server.
    fn link<'a>(&'a self, _name: &'a Name, _file: &'a Arc<dyn File>) -> Call<'a, ()> {
        refuse(Kind::ReadOnly)
    }

    /// A symbolic link's target.
    fn readlink(&self) -> Call<'_, Bytes> {
        refuse(Kind::Invalid)
    }

    /// Removes `name` from this directory; `dir` says whether a directory is meant (unlinkat(2)).
    fn unlink<'a>(&'a self, _name: &'a Name, _dir: bool) -> Call<'a, ()> {
        refuse(Kind::ReadOnly)
    }

    /// Removes this very file (Tremove).
    fn remove(&self) -> Call<'_, ()> {
        refuse(Kind::ReadOnly)
    }

    /// Renames `old` in this directory to `new` in `dir`, replacing what stood there (renameat(2)).
    /// # Errors
    /// `CrossDevice` where `dir` is of another server.
    fn rename<'a>(&'a self, _old: &'a Name, _dir: &'a Arc<dyn File>, _new: &'a Name) -> Call<'a, ()> {
        refuse(Kind::ReadOnly)
    }

    /// Renames this very file to `new` in `dir`, or in its own directory (Trename, wstat).
    fn rename_self<'a>(&'a self, _dir: Option<&'a Arc<dyn File>>, _new: &'a Name) -> Call<'a, ()> {
        refuse(Kind::ReadOnly)
    }

    /// Changes attributes, all or none.
    fn setattr(&self, _set: SetAttr) -> Call<'_, ()> {
        refuse(Kind::Denied)
    }

    /// The file system's figures.
    fn statfs(&self) -> Call<'_, StatFs> {
        Box::pin(std::future::ready(Ok(StatFs { ty: 0x0102_1997, bsize: 4096, namelen: 255, ..StatFs::default() })))
    }
}

/// The iounit of a live file that is obeyed when it is closed: only by it does a client know that a close may be refused
/// even after a last line that was ended.
pub const VALUE_IOUNIT: u32 = 64 << 10;

/// An open file or directory. Clones of one opening share it; dropping the last closes it.
pub trait OpenFile: Send + Sync + 'static {
    /// The largest read or write that is not split, in bytes; 0: no limit of its own. A live file that takes what was
    /// written as a whole when it is closed, and not line by line, says [`VALUE_IOUNIT`].
    fn iounit(&self) -> u32 {
        0
    }

    /// Reads at most `count` bytes at `offset`; fewer are final for this call, none is the end. May wait on a stream.
    fn read(&self, _offset: u64, _count: u32) -> Call<'_, Bytes> {
        refuse(Kind::IsDir)
    }

    /// Writes `data` at `offset` and says how much of it was taken.
    fn write(&self, _offset: u64, _data: Bytes) -> Call<'_, u32> {
        refuse(Kind::BadFile)
    }

    /// Entries after `cookie` (0: from the start), at most `entries_max`; none is the end. `.` and `..` are not among
    /// them: the face adds those.
    fn readdir(&self, _cookie: u64, _entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        refuse(Kind::NotDir)
    }

    /// What was written is durable when this returns.
    fn fsync(&self, _data_only: bool) -> Call<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// A descriptor of this opening is being closed: obey a partial last line, report what a close may report. May be
    /// called more than once, or not at all when the connection is lost.
    fn flush(&self) -> Call<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A connection: whatever carries bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A connection that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The other end's address, as multiaddr text.
    pub addr: String,
    /// Since when.
    pub since: Time,
    /// True when the peer dialled us.
    pub inbound: bool,
    /// The last round trip measured.
    pub latency: Option<Duration>,
}

/// A node that is known of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// The node.
    pub peer: PeerId,
    /// Where it can be dialled.
    pub addr: String,
    /// How it became known: `dial`, `peer` (it said so itself), `mdns`, `dht`.
    pub via: &'static str,
    /// Whether a connection to it stands.
    pub connected: bool,
}

/// What happens among the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// The first connection with a node stands.
    Connected {
        /// The node.
        peer: PeerId,
        /// The other end's address.
        addr: String,
        /// True when it dialled us.
        inbound: bool,
    },
    /// The last connection with a node is gone.
    Disconnected {
        /// The node.
        peer: PeerId,
        /// Why, for a person.
        why: String,
    },
    /// A node was heard of.
    Discovered {
        /// The node.
        peer: PeerId,
        /// Where it can be dialled.
        addr: String,
        /// As [`Near::via`].
        via: &'static str,
    },
}

/// A rule on who may be connected with. The first rule that matches decides; where none does, the connection may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Allow, else deny.
    pub allow: bool,
    /// An address block (`192.0.2.0/24`, `2001:db8::/32`, one address), a peer id, or `*`.
    pub pattern: String,
}

/// What carries connections between nodes. `srv/net` implements it; tests use pipes, for which the calls with a default
/// are enough.
pub trait Transport: Send + Sync + 'static {
    /// This node.
    fn id(&self) -> PeerId;

    /// The addresses this node can be dialled at, with its id, as multiaddr text.
    fn addrs(&self) -> Vec<String>;

    /// Connects to the node at a multiaddr and says who it is.
    /// # Errors
    /// `Invalid` for text that is no multiaddr, `Unreachable` where nobody answers, `Denied` where another key answers
    /// than the address names.
    fn dial<'a>(&'a self, addr: &'a str) -> Call<'a, PeerId>;

    /// Opens one connection to `peer`: over a link that stands, whoever dialled it, else dialling at the addresses known.
    /// # Errors
    /// `Unreachable`.
    fn open<'a>(&'a self, peer: &'a PeerId) -> Call<'a, Box<dyn Stream>>;

    /// The addresses `peer` would be dialled at, best first.
    fn known(&self, _peer: &PeerId) -> Vec<String> {
        Vec::new()
    }

    /// Takes an address of `peer` from a table kept elsewhere; nothing is dialled.
    /// # Errors
    /// `Invalid` for text that is no multiaddr or no peer id.
    fn learn(&self, _peer: &PeerId, _addr: &str) -> Result<()> {
        Ok(())
    }

    /// The link with `peer` that an open would use.
    fn link(&self, _peer: &PeerId) -> Option<Link> {
        None
    }

    /// Asks the DHT where `peer` can be dialled.
    /// # Errors
    /// `NotFound` where nobody who was asked knows.
    fn find<'a>(&'a self, _peer: &'a PeerId) -> Call<'a, Vec<String>> {
        refuse(Kind::NotSupported)
    }

    /// Joins the DHT through the node at a multiaddr and says who that is.
    /// # Errors
    /// As [`Transport::dial`].
    fn bootstrap<'a>(&'a self, _addr: &'a str) -> Call<'a, PeerId> {
        refuse(Kind::NotSupported)
    }

    /// The nodes known of.
    fn near(&self) -> Vec<Near> {
        Vec::new()
    }

    /// Closes every link with `peer`.
    fn hangup<'a>(&'a self, _peer: &'a PeerId) -> Call<'a, ()> {
        refuse(Kind::NotSupported)
    }

    /// Replaces the rules; links that they deny are closed.
    /// # Errors
    /// `Invalid` for a pattern that is none; the rules are unchanged then.
    fn filter(&self, _rules: &[Filter]) -> Result<()> {
        Err(Kind::NotSupported.into())
    }

    /// What happens from now on; a reader that lags is told how many events it missed.
    fn events(&self) -> broadcast::Receiver<PeerEvent> {
        broadcast::channel(1).1
    }
}

/// Trees of other nodes by their id: what a service uses to follow a capability. `srv/peers` implements it.
pub trait Remote: Send + Sync + 'static {
    /// Attaches to `aname` on `peer` over the session that this node keeps with it.
    /// # Errors
    /// `Unreachable`, `TimedOut`, or what the peer answered.
    fn attach<'a>(&'a self, peer: &'a PeerId, aname: &'a str) -> Call<'a, Arc<dyn File>>;
}
