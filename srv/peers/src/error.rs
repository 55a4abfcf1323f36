//! Why a command to peers/ is refused, and what to type instead.

use std::path::PathBuf;

use fs_ninep::{Kind, PeerId};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message above each shows")]
pub enum Error {
    /// A first word that is no verb.
    #[error("{verb:?} is no command here; there are: {known}")]
    Verb { verb: String, known: &'static str },
    /// A verb with words missing or left over.
    #[error("{text}: write {usage:?}")]
    Usage { text: String, usage: &'static str },
    /// A name nobody has.
    #[error("{name}: no peer has this name or id here; \"ls peers\" lists them, \"dial MULTIADDR {name}\" makes one")]
    Unknown { name: String },
    /// A name that cannot be one.
    #[error("{name:?} cannot be a name: {why}")]
    Name { name: String, why: &'static str },
    /// A name that another peer has.
    #[error("{name} is the name of {peer}; write \"forget {name}\" first, or choose another")]
    Taken { name: String, peer: PeerId },
    /// A peer id that cannot be one.
    #[error("{id:?} is no peer id; write one as self/id of the other node shows it")]
    PeerId { id: String },
    /// This node's own id or address.
    #[error("{what} is this node itself; its own files are not under n/ but beside it")]
    Own { what: String },
    /// No rule with that pattern.
    #[error("{pattern}: no filter rule has this pattern; \"cat peers/ctl\" lists them")]
    Rule { pattern: String },
    /// A table is full.
    #[error("{what}: {max} are kept at most; forget some")]
    Full { what: &'static str, max: usize },
    /// The peer could not be reached, or not in time.
    #[error("{who}: {why}")]
    Unreachable { who: String, why: String },
    /// The session died under a call.
    #[error("{who}: the connection was lost ({why}); it is dialled again at the next use")]
    Lost { who: String, why: String },
    /// A file walked to on an earlier connection is another one now.
    #[error("{who}: {path} is another file now than before the connection was lost; open it again")]
    Stale { who: String, path: String },
    /// The saved table cannot be understood.
    #[error("{}: line {line}: {why}; it is left as it is: repair it, or move it away to begin with none", path.display())]
    Table { path: PathBuf, line: usize, why: String },
    /// A saved address or rule that the transport does not take.
    #[error("{}: {name}: {why}; it is left as it is: repair it, or move it away to begin with none", path.display())]
    Address { path: PathBuf, name: String, why: String },
    /// The saved table cannot be read or written.
    #[error("{}: {why}", path.display())]
    Disk { path: PathBuf, why: String },
}

impl From<Error> for fs_ninep::Error {
    fn from(e: Error) -> fs_ninep::Error {
        let kind = match &e {
            Error::Verb { .. } | Error::Usage { .. } | Error::Name { .. } | Error::PeerId { .. } => Kind::Invalid,
            Error::Own { .. } | Error::Table { .. } | Error::Address { .. } => Kind::Invalid,
            Error::Unknown { .. } | Error::Rule { .. } => Kind::NotFound,
            Error::Taken { .. } => Kind::Exists,
            Error::Full { .. } => Kind::Exhausted,
            Error::Unreachable { .. } | Error::Lost { .. } => Kind::Unreachable,
            Error::Stale { .. } => Kind::Stale,
            Error::Disk { .. } => Kind::Io,
        };
        fs_ninep::Error::new(kind, e)
    }
}
