//! export: what is refused, and why.

use std::path::PathBuf;

use fs_ninep::Kind;

use crate::state::{EXPORTS_MAX, ExportId, GRANTS_MAX, Who};

/// What is refused, and why.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{got:?} is not understood; write \"{want}\"")]
    Usage { got: String, want: &'static str },
    #[error("{what} is a number from {min} to {max}, not {got:?}")]
    Number { what: &'static str, got: String, min: u64, max: u64 },
    #[error("no peer is known as {who}, and it is no peer id; dial it first, or write its id")]
    UnknownPeer { who: String },
    #[error("{path} is neither one of this node's trees ({trees}) nor the absolute path of a directory")]
    UnknownPath { path: String, trees: String },
    #[error("a tree is granted whole; write \"grant WHO /{tree}\"")]
    Whole { tree: String },
    #[error("max counts the bytes of a directory; the tree /{tree} has none")]
    MaxOfTree { tree: String },
    #[error("{name:?} is no name to show a directory by; write one element, as /photos")]
    BadName { name: String },
    #[error("/{name} is one of this node's own trees; choose another name")]
    TreeName { name: String },
    #[error("/{name} is shown by export {by} already; bind the directory under another name")]
    NameTaken { name: String, by: ExportId },
    #[error("export {id} shows {path} already; open clone to make another")]
    Bound { id: ExportId, path: PathBuf },
    #[error("export {id} shows nothing yet; write \"bind PATH /NAME\" to its ctl")]
    Unbound { id: ExportId },
    #[error("{who} does not hold {what}; read grants")]
    NotGranted { who: Who, what: String },
    #[error("\"free\" ends the export; it must be the last line of a write")]
    AfterFree,
    #[error("{EXPORTS_MAX} exports stand, that is all there can be; rmdir one")]
    ExportsFull,
    #[error("{GRANTS_MAX} grants stand, that is all there can be; write \"revoke WHO PATH\" for one")]
    GrantsFull,
    #[error("no export {id}")]
    NoExport { id: String },
    #[error("{path}: write the absolute path; the node's working directory is not the shell's")]
    Relative { path: String },
    #[error("{path} is in this node's own tree; write \"grant WHO /TREE\" to export/ctl for what stands there")]
    OwnTree { path: PathBuf },
    #[error("{path} is in {home}, this node's keys and state; those are not shown")]
    OwnState { path: PathBuf, home: PathBuf },
    #[error("{path} holds {home}, this node's keys and state; bind a directory inside it")]
    HoldsState { path: PathBuf, home: PathBuf },
    #[error(
        "{path} leads elsewhere now: a symbolic link stands in the way; free this export and bind the directory anew"
    )]
    Moved { path: PathBuf },
    #[error("{path} is not a directory; bind the directory it lies in")]
    NotDir { path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: line {line}: {why}; put it right, or move it away to start with no grants")]
    Damaged { path: PathBuf, line: usize, why: String },
    #[error("no random numbers for a capability: {0}")]
    Random(getrandom::Error),
    #[error("no such capability; ask who gave it to you for another")]
    NoCapability,
    #[error("the capability of export {id} is for another peer; ask for one made \"to\" this node")]
    WrongPeer { id: ExportId },
    #[error("the capability of export {id} is used up after {uses} uses; ask for another")]
    UsedUp { id: ExportId, uses: u64 },
    #[error("the capability of export {id} has expired; ask for another, with a longer ttl")]
    Expired { id: ExportId },
    #[error("export {id} was taken back by its owner; ask for another")]
    Revoked { id: ExportId },
    #[error("/{name} was taken back by its owner; ask for a new grant")]
    GrantRevoked { name: String },
    #[error("{what} is granted read-only; ask its owner for rw")]
    ReadOnly { what: String },
}

impl Error {
    /// What a program makes of it.
    pub fn kind(&self) -> Kind {
        use Error::*;
        match self {
            Usage { .. } | Number { .. } | UnknownPath { .. } | Whole { .. } | MaxOfTree { .. } | BadName { .. } => {
                Kind::Invalid
            }
            Unbound { .. } | AfterFree | Relative { .. } => Kind::Invalid,
            UnknownPeer { .. } | NotGranted { .. } | NoExport { .. } | NoCapability => Kind::NotFound,
            TreeName { .. } | NameTaken { .. } | Bound { .. } => Kind::Exists,
            ExportsFull | GrantsFull | UsedUp { .. } => Kind::Exhausted,
            OwnTree { .. } | OwnState { .. } | HoldsState { .. } => Kind::NotPermitted,
            WrongPeer { .. } | Moved { .. } => Kind::Denied,
            Expired { .. } | Revoked { .. } | GrantRevoked { .. } => Kind::Expired,
            ReadOnly { .. } => Kind::ReadOnly,
            NotDir { .. } => Kind::NotDir,
            Io { source, .. } => source.raw_os_error().map_or(Kind::Io, |n| Kind::from_errno(n.unsigned_abs())),
            Damaged { .. } | Random(_) => Kind::Io,
        }
    }
}

impl From<Error> for fs_ninep::Error {
    fn from(e: Error) -> fs_ninep::Error {
        fs_ninep::Error::new(e.kind(), e)
    }
}
