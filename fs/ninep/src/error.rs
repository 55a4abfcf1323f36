//! Errors, and the one table between kinds, Linux errno numbers and 9P texts. No other file spells an errno.

use std::fmt;

/// The result of a call on a tree.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $errno:literal $text:literal,)*) => {
        /// What went wrong, as a caller can act on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
            /// An errno that a server sent and this table does not name.
            Other(u16),
        }

        impl Kind {
            /// Every kind that has a name.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// The Linux errno number, on every host.
            pub const fn errno(self) -> u32 {
                match self {
                    $(Kind::$kind => $errno,)*
                    Kind::Other(n) => n as u32,
                }
            }

            /// The text that 9P2000 clients know it by.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Kind::$kind => $text,)*
                    Kind::Other(_) => "unknown error",
                }
            }
        }
    };
}

kinds! {
    /// The caller may not, whoever they are.
    NotPermitted 1 "operation not permitted",
    /// No such file, peer, job, …
    NotFound 2 "file does not exist",
    /// Cancelled by a flush or a signal.
    Interrupted 4 "interrupted",
    /// The storage or the other side failed.
    Io 5 "i/o error",
    /// A fid or descriptor that is not open that way.
    BadFile 9 "bad use of fid",
    /// Nothing there now, or a table is full for the moment.
    Again 11 "resource temporarily unavailable",
    /// Out of memory for this caller.
    NoMemory 12 "out of memory",
    /// Permission denied.
    Denied 13 "permission denied",
    /// In use.
    Busy 16 "file in use",
    /// Already there.
    Exists 17 "file already exists",
    /// Source and target are of different servers.
    CrossDevice 18 "cross-device link",
    /// Not a directory.
    NotDir 20 "not a directory",
    /// Is a directory.
    IsDir 21 "file is a directory",
    /// A word, number or order that makes no sense here.
    Invalid 22 "bad argument",
    /// Too many open files.
    TooManyFiles 24 "too many open files",
    /// Larger than a file may be.
    TooBig 27 "file too big",
    /// No room left.
    NoSpace 28 "no space left on device",
    /// Cannot seek.
    NotSeekable 29 "illegal seek",
    /// Nothing can be written here.
    ReadOnly 30 "read-only file system",
    /// Too many hard links.
    TooManyLinks 31 "too many links",
    /// Nobody reads any more.
    BrokenPipe 32 "broken pipe",
    /// A name over 255 bytes.
    NameTooLong 36 "file name too long",
    /// The server does not know this message.
    NotImplemented 38 "function not implemented",
    /// The directory is not empty.
    NotEmpty 39 "directory not empty",
    /// A cycle of links or binds.
    Loop 40 "too many levels of symbolic links",
    /// No such extended attribute.
    NoData 61 "no data available",
    /// The other side broke the protocol.
    Protocol 71 "protocol error",
    /// A number that does not fit.
    Overflow 75 "value too large",
    /// The message is too long.
    MessageTooLong 90 "message too long",
    /// Meaningless on this file.
    NotSupported 95 "operation not supported",
    /// The connection was cut.
    Reset 104 "connection reset",
    /// No answer in time.
    TimedOut 110 "timed out",
    /// Nobody listens there.
    Refused 111 "connection refused",
    /// No way to that machine.
    Unreachable 113 "host unreachable",
    /// The handle's file is gone for good.
    Stale 116 "stale file handle",
    /// A quota is used up.
    Exhausted 122 "quota exceeded",
    /// A capability or lease has ended.
    Expired 127 "expired",
}

impl Kind {
    /// The kind of a Linux errno number.
    pub fn from_errno(errno: u32) -> Kind {
        let named = Kind::ALL.iter().copied().find(|k| k.errno() == errno);
        named.unwrap_or(Kind::Other(u16::try_from(errno).unwrap_or(5)))
    }

    /// The kind's text in an Rerror. Linux looks a text up as a whole, so that where it does not know Plan 9's words it
    /// is told its own.
    pub const fn wire_text(self) -> &'static str {
        match self {
            Kind::NotPermitted => "Operation not permitted",
            Kind::Interrupted => "Interrupted system call",
            Kind::Io => "Input/output error",
            Kind::BadFile => "Bad file descriptor",
            Kind::Again => "Resource temporarily unavailable",
            Kind::NoMemory => "Cannot allocate memory",
            Kind::Busy => "Device or resource busy",
            Kind::CrossDevice => "Invalid cross-device link",
            Kind::NotDir => "Not a directory",
            Kind::IsDir => "Is a directory",
            Kind::Invalid => "Invalid argument",
            Kind::TooManyFiles => "Too many open files",
            Kind::TooBig => "File too large",
            Kind::NoSpace => "No space left on device",
            Kind::NotSeekable => "Illegal seek",
            Kind::ReadOnly => "Read-only file system",
            Kind::TooManyLinks => "Too many links",
            Kind::BrokenPipe => "Broken pipe",
            Kind::NameTooLong => "File name too long",
            Kind::NotImplemented => "Function not implemented",
            Kind::NotEmpty => "Directory not empty",
            Kind::Loop => "Too many levels of symbolic links",
            Kind::NoData => "No data available",
            Kind::Protocol => "Protocol error",
            Kind::MessageTooLong => "Message too long",
            Kind::NotSupported => "Operation not supported",
            Kind::Reset => "Connection reset by peer",
            Kind::TimedOut => "Connection timed out",
            Kind::Refused => "Connection refused",
            Kind::Unreachable => "No route to host",
            Kind::Stale => "Stale file handle",
            Kind::Exhausted => "Disk quota exceeded",
            _ => self.text(),
        }
    }

    /// The kind of a 9P2000 error text: the longest known text it contains, Plan 9's or Linux's, else `Io`.
    pub fn from_text(text: &str) -> Kind {
        let both = Kind::ALL.iter().flat_map(|&k| [(k, k.text()), (k, k.wire_text())]);
        let known = both.filter(|(_, t)| text.contains(t));
        known.max_by_key(|(_, t)| t.len()).map_or(Kind::Io, |(k, _)| k)
    }
}

/// Why a call failed: a kind for programs, a text for people. The text is the last refusal's in an `error` file.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    text: Option<Box<str>>,
}

impl Error {
    /// A failure of `kind` that `text` explains: what failed, why, what to type next.
    pub fn new(kind: Kind, text: impl fmt::Display) -> Error {
        Error { kind, text: Some(text.to_string().into()) }
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether there is more to say than the kind's own text.
    pub fn explained(&self) -> bool {
        self.text.is_some()
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Error {
        Error { kind, text: None }
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Error {
        use std::io::ErrorKind as E;
        match (e.raw_os_error(), e.kind()) {
            (Some(errno), _) => Kind::from_errno(errno as u32).into(),
            (None, E::UnexpectedEof | E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe) => {
                Error::new(Kind::Reset, e)
            }
            (None, E::TimedOut) => Error::new(Kind::TimedOut, e),
            (None, _) => Error::new(Kind::Io, e),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.as_deref().unwrap_or(self.kind.text()))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.kind)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_both_dialects() {
        for &k in Kind::ALL {
            assert_eq!(Kind::from_errno(k.errno()), k);
            assert_eq!(Kind::from_text(k.text()), k, "{}", k.text());
            assert_eq!(Kind::from_text(k.wire_text()), k, "{}", k.wire_text());
        }
        assert_eq!(Kind::from_errno(9999), Kind::Other(9999));
        assert_eq!(Kind::from_text("moon: file does not exist"), Kind::NotFound);
        assert_eq!(Kind::from_text("moonstruck"), Kind::Io);
    }
}
