//! The codec: one frame to one message and back, for every dialect. See intro(5).
//!
//! Called by the server, the client and by programs that bring their own I/O (a blocking client on a socket). Pure: no
//! I/O, no clock. Strings borrow from the frame; a payload is a [`Bytes`] that shares it. Every length is checked against
//! the frame before anything is allocated. The dialect is an argument: nothing above this module has a type for each.

mod field;
mod message;
mod record;

pub use field::{BadFrame, DataOnly, Explained, Few, Uid, Why};
pub use message::{Reply, Request};
pub use record::{Dirent, DirentAttr, DirentAttrs, Dirents, Stat, Stats, Wstat};

use bytes::{BufMut, Bytes, BytesMut};

/// The tag of Tversion and of nothing else.
pub const NOTAG: u16 = 0xffff;
/// The fid that is none: Tattach without authentication.
pub const NOFID: u32 = 0xffff_ffff;
/// The n_uname that names nobody.
pub const NONUNAME: u32 = 0xffff_ffff;
/// Most names in one Twalk.
pub const NAMES_MAX: usize = 16;
/// Bytes before the payload of the largest header, rounded as every implementation does: iounit is msize less this.
pub const HEADER: u32 = 24;
/// The smallest msize worth speaking.
pub const MSIZE_MIN: u32 = 256;
/// size[4] type[1] tag[2].
pub const FRAME_MIN: usize = 7;

/// Open modes of 9P2000's Topen and Tcreate.
pub mod mode {
    /// The access bits: 0 read, 1 write, 2 both, 3 execute.
    pub const ACCESS: u8 = 3;
    /// Cut to length 0.
    pub const TRUNC: u8 = 0x10;
    /// Remove when clunked.
    pub const RCLOSE: u8 = 0x40;
}

/// Permission bits of 9P2000's Tcreate and stat records.
pub mod perm {
    /// A directory.
    pub const DIR: u32 = 0x8000_0000;
    /// Every write goes to the end.
    pub const APPEND: u32 = 0x4000_0000;
    /// One opener at a time.
    pub const EXCL: u32 = 0x2000_0000;
    /// Bits above the permissions that no plain file here has: mount, auth, temporary, and what .u adds.
    pub const OTHER: u32 = 0x1fff_fe00;
}

/// The bits of Tgetattr's request mask and Tsetattr's valid mask.
pub mod mask {
    /// Tgetattr: mode to blocks.
    pub const BASIC: u64 = 0x7ff;
    /// Tsetattr: mode.
    pub const MODE: u32 = 0x1;
    /// Tsetattr: uid.
    pub const UID: u32 = 0x2;
    /// Tsetattr: gid.
    pub const GID: u32 = 0x4;
    /// Tsetattr: size.
    pub const SIZE: u32 = 0x8;
    /// Tsetattr: atime, to now unless `ATIME_SET`.
    pub const ATIME: u32 = 0x10;
    /// Tsetattr: mtime, to now unless `MTIME_SET`.
    pub const MTIME: u32 = 0x20;
    /// Tsetattr: ctime; the server's business.
    pub const CTIME: u32 = 0x40;
    /// Tsetattr: atime to the time given.
    pub const ATIME_SET: u32 = 0x80;
    /// Tsetattr: mtime to the time given.
    pub const MTIME_SET: u32 = 0x100;
}

/// Tunlinkat: a directory is meant.
pub const AT_REMOVEDIR: u32 = 0x200;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// 9P2000: Plan 9's own.
    Plain,
    /// 9P2000.L: Linux's.
    L,
    /// 9P2000.L.ipos: .L, whose Rlerror carries the refusal's text, which lists directories with attributes, and whose
    /// server obeys pipelined requests in order.
    Ipos,
}

impl Dialect {
    /// Every dialect, the richest first.
    pub const ALL: &[Dialect] = &[Dialect::Ipos, Dialect::L, Dialect::Plain];

    /// Its version string.
    pub const fn version(self) -> &'static str {
        match self {
            Dialect::Plain => "9P2000",
            Dialect::L => "9P2000.L",
            Dialect::Ipos => "9P2000.L.ipos",
        }
    }

    /// What to answer to `version`: the dialect itself, or what is left of it after the parts behind its dots are dropped
    /// one by one. `None` is "unknown".
    pub fn negotiate(version: &[u8]) -> Option<Dialect> {
        let mut rest = version;
        loop {
            if let Some(d) = Dialect::ALL.iter().find(|d| d.version().as_bytes() == rest) {
                return Some(*d);
            }
            rest = &rest[..rest.iter().rposition(|&b| b == b'.')?];
        }
    }

    /// True for .L and what is built on it.
    pub const fn is_linux(self) -> bool {
        matches!(self, Dialect::L | Dialect::Ipos)
    }

    const fn any(self) -> bool {
        true
    }

    const fn is_ipos(self) -> bool {
        matches!(self, Dialect::Ipos)
    }

    const fn is_plain(self) -> bool {
        matches!(self, Dialect::Plain)
    }
}

/// The length of the frame that begins `bytes`, once its first four bytes are there.
/// # Errors
/// `Why::Size` for a length under 7 or over `msize`: the connection is of no more use.
pub fn frame_len(bytes: &[u8], msize: u32) -> Result<Option<usize>, Why> {
    let Some(size) = bytes.first_chunk::<4>() else { return Ok(None) };
    let size = u32::from_le_bytes(*size);
    if (size as usize) < FRAME_MIN || size > msize { Err(Why::Size) } else { Ok(Some(size as usize)) }
}

macro_rules! both_ways {
    ($message:ident) => {
        impl<'a> $message<'a> {
            /// Decodes one whole frame, as [`frame_len`] cut it.
            /// # Errors
            /// `BadFrame`: the tag, where there is one, and what is wrong with the rest.
            pub fn decode(dialect: Dialect, frame: &'a Bytes) -> Result<(u16, $message<'a>), BadFrame> {
                field::decode(dialect, frame, |ty, r| $message::get(dialect, ty, r))
            }

            /// Appends the whole frame to `out`.
            pub fn encode(&self, dialect: Dialect, tag: u16, out: &mut BytesMut) {
                if let Some(payload) = self.encode_head(dialect, tag, out) {
                    out.put_slice(payload);
                }
            }

            /// Appends all but the payload, which the caller sends right behind it: saves the copy. The frame's size
            /// counts the payload in.
            pub fn encode_head(&self, dialect: Dialect, tag: u16, out: &mut BytesMut) -> Option<&Bytes> {
                field::encode(dialect, self.ty(), tag, out, |w| self.put(w));
                self.payload().filter(|p| !p.is_empty())
            }
        }
    };
}

both_ways!(Request);
both_ways!(Reply);

#[cfg(test)]
mod tests;
