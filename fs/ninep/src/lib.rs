//! The file-server trait, and 9P on both sides of it.
//!
//! Everything ipos shows is a [`Tree`] of [`File`]s: a synthetic service, a host directory, a union, the tree of another
//! machine. The 9P server ([`serve`]), the FUSE mount, the host of a job and the name space call the trait; [`Client`]
//! implements it over a connection. In-process callers move no bytes through the codec. See intro(5).

mod buffer;
mod caller;
mod client;
mod error;
mod file;
mod name;
mod server;
mod stat;
pub mod wire;

pub use caller::{Caller, Identity, PeerId, Role};
pub use client::{Client, ClientConfig};
pub use error::{Error, Kind, Result};
pub use file::{
    Call, Created, File, Filter, Link, Near, OpenFile, PeerEvent, Remote, Stream, Transport, Tree, VALUE_IOUNIT, Walk,
};
pub use name::Name;
pub use server::{Limits, listen_tcp, listen_unix, serve};
pub use stat::{Attr, DirEntry, OpenFlags, Qid, QidType, ServerId, SetAttr, SetTime, StatFs, Time};
