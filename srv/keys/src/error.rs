//! keys: what is refused, and why.

use std::io;
use std::path::PathBuf;

use fs_ninep::Kind;

use crate::keyfile::FILE_LEN;
use crate::state::{KEYS_MAX, MESSAGE_MAX};

/// What the key agent refuses, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others than the owner may read a key file, or use the directory.
    #[error("{path}: mode is {mode:04o}, so others can get at the keys; type \"chmod {want:o} {path}\"")]
    Exposed {
        /// The file.
        path: PathText,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        want: u32,
    },
    /// The file belongs to somebody else.
    #[error(
        "{path}: belongs to user {uid}, and the node runs as user {me}; start the node as user {uid}, or type \"chown {me} {path}\""
    )]
    Foreign {
        /// The file.
        path: PathText,
        /// Whose it is.
        uid: u32,
        /// Who we are.
        me: u32,
    },
    /// The file is not a key file.
    #[error("{path}: damaged: {why}; put a copy of it back, or move it away to {without}")]
    Damaged {
        /// The file.
        path: PathText,
        /// What is wrong with it.
        why: Damage,
        /// What happens without it.
        without: &'static str,
    },
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathText,
        /// What the disk said.
        source: io::Error,
    },
    /// The machine has no random numbers.
    #[error("no random numbers for a new key: {0}")]
    Random(getrandom::Error),
    /// Not a name for a key.
    #[error("{name:?} cannot name a key; use 1 to 32 of a-z, 0-9, - and _, beginning with a letter")]
    BadName {
        /// What was written.
        name: String,
    },
    /// No key has this name.
    #[error("no key is named {name}; read list")]
    NotFound {
        /// What was written.
        name: String,
    },
    /// A key has this name.
    #[error("a key named {name} exists; write \"delete {name}\" first, or choose another name")]
    Exists {
        /// What was written.
        name: String,
    },
    /// One write names a key twice.
    #[error("one write names {name} twice; write the lines one after the other")]
    Twice {
        /// What was written.
        name: String,
    },
    /// The node's own key stays.
    #[error("node is the key this node is known by; stop the node and move its file away to become another node")]
    Node,
    /// The table is full.
    #[error("{KEYS_MAX} keys are held, that is all an agent holds; write \"delete NAME\"")]
    Full,
    /// The words make no request.
    #[error("{got:?} is not understood; write \"{want}\"")]
    Usage {
        /// What was written.
        got: String,
        /// What could be.
        want: &'static str,
    },
    /// A number that is no hex, or of another length.
    #[error("the {what} is not {want}")]
    Hex {
        /// Which word.
        what: &'static str,
        /// What it should be.
        want: &'static str,
    },
    /// The message is too long.
    #[error("the message has {len} bytes, {MESSAGE_MAX} can be signed; sign its hash")]
    Long {
        /// Its length.
        len: usize,
    },
}

/// A path as messages show it.
#[derive(Debug)]
pub struct PathText(pub PathBuf);

impl std::fmt::Display for PathText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}

/// What is wrong with a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Another length than a key file has.
    #[error("{0} bytes, a key file has {FILE_LEN}")]
    Size(u64),
    /// Not the text of a key file.
    #[error("not the text of a key file")]
    Text,
    /// The halves do not belong together.
    #[error("its public half does not belong to its private half")]
    Halves,
    /// A directory, link or device.
    #[error("not a plain file")]
    NotPlain,
    /// Its name is not one a key can have.
    #[error("its name cannot name a key")]
    Name,
}

impl Error {
    /// What a program makes of it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Exposed { .. } | Error::Foreign { .. } => Kind::Denied,
            Error::Damaged { .. } | Error::Io { .. } | Error::Random(_) => Kind::Io,
            Error::NotFound { .. } => Kind::NotFound,
            Error::Exists { .. } => Kind::Exists,
            Error::Node => Kind::NotPermitted,
            Error::Full => Kind::Exhausted,
            Error::Long { .. } => Kind::MessageTooLong,
            Error::BadName { .. } | Error::Twice { .. } | Error::Usage { .. } | Error::Hex { .. } => Kind::Invalid,
        }
    }
}

impl From<Error> for fs_ninep::Error {
    fn from(e: Error) -> fs_ninep::Error {
        fs_ninep::Error::new(e.kind(), e)
    }
}
