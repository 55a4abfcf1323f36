//! The words of WASI preview 1: error numbers, flags, the layout of what crosses into the program's memory.
//!
//! Every address and length comes from the program and is checked here; nothing past its memory is touched.

use fs_ninep::{Attr, Error, Kind, Time};

/// A WASI error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u16);

/// What a host function gives: nothing, or the number the program sees.
pub type Result<T, E = Errno> = std::result::Result<T, E>;

impl Errno {
    pub const BADF: Errno = Errno(8);
    pub const FAULT: Errno = Errno(21);
    pub const INVAL: Errno = Errno(28);
    pub const IO: Errno = Errno(29);
    pub const ISDIR: Errno = Errno(31);
    pub const LOOP: Errno = Errno(32);
    pub const MFILE: Errno = Errno(33);
    pub const NAMETOOLONG: Errno = Errno(37);
    pub const NOENT: Errno = Errno(44);
    pub const NOSYS: Errno = Errno(52);
    pub const NOTDIR: Errno = Errno(54);
    pub const NOTSUP: Errno = Errno(58);
    pub const OVERFLOW: Errno = Errno(61);
    pub const SPIPE: Errno = Errno(70);
}

impl From<Kind> for Errno {
    fn from(kind: Kind) -> Errno {
        Errno(match kind {
            Kind::NotPermitted => 63,
            Kind::NotFound => 44,
            Kind::Interrupted => 27,
            Kind::Io => 29,
            Kind::BadFile => 8,
            Kind::Again => 6,
            Kind::NoMemory => 48,
            Kind::Denied => 2,
            Kind::Busy => 10,
            Kind::Exists => 20,
            Kind::CrossDevice => 75,
            Kind::NotDir => 54,
            Kind::IsDir => 31,
            Kind::Invalid => 28,
            Kind::TooManyFiles => 33,
            Kind::TooBig => 22,
            Kind::NoSpace => 51,
            Kind::NotSeekable => 70,
            Kind::ReadOnly => 69,
            Kind::TooManyLinks => 34,
            Kind::BrokenPipe => 64,
            Kind::NameTooLong => 37,
            Kind::NotImplemented => 52,
            Kind::NotEmpty => 55,
            Kind::Loop => 32,
            Kind::NoData => 44,
            Kind::Protocol => 65,
            Kind::Overflow => 61,
            Kind::MessageTooLong => 35,
            Kind::NotSupported => 58,
            Kind::TimedOut => 73,
            Kind::Refused => 14,
            Kind::Unreachable => 23,
            Kind::Stale => 72,
            Kind::Exhausted => 19,
            // A mount that is gone: what a program expects of a disk that is.
            Kind::Reset | Kind::Expired | Kind::Other(_) => 29,
        })
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Errno {
        error.kind().into()
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Errno {
        Error::from(error).into()
    }
}

/// The file types of a directory entry and of a file's attributes.
pub mod filetype {
    pub const UNKNOWN: u8 = 0;
    pub const CHARACTER: u8 = 2;
    pub const DIRECTORY: u8 = 3;
    pub const REGULAR: u8 = 4;
    pub const SYMLINK: u8 = 7;
}

/// The bits of an open descriptor's flags.
pub mod fdflags {
    pub const APPEND: u16 = 1;
    pub const NONBLOCK: u16 = 4;
}

/// The bits of how a path is opened.
pub mod oflags {
    pub const CREAT: u16 = 1;
    pub const DIRECTORY: u16 = 2;
    pub const EXCL: u16 = 4;
    pub const TRUNC: u16 = 8;
}

/// The rights that matter here: what a descriptor may be used for.
pub mod rights {
    pub const FD_READ: u64 = 1 << 1;
    pub const FD_SEEK: u64 = 1 << 2;
    pub const FD_TELL: u64 = 1 << 5;
    pub const FD_WRITE: u64 = 1 << 6;
    pub const POLL: u64 = 1 << 27;
    pub const ALL: u64 = (1 << 30) - 1;
}

/// Follow a symbolic link that a path ends in.
pub const LOOKUP_FOLLOW: i32 = 1;

/// The program's linear memory during one call.
pub struct Memory<'a>(pub &'a mut [u8]);

impl Memory<'_> {
    /// `len` bytes at `ptr`, to be written.
    pub fn bytes_mut(&mut self, ptr: i32, len: usize) -> Result<&mut [u8]> {
        let start = ptr as u32 as usize;
        let end = start.checked_add(len).ok_or(Errno::FAULT)?;
        self.0.get_mut(start..end).ok_or(Errno::FAULT)
    }

    /// `len` bytes at `ptr`, to be read.
    pub fn bytes(&self, ptr: i32, len: i32) -> Result<&[u8]> {
        let start = ptr as u32 as usize;
        let end = start.checked_add(len as u32 as usize).ok_or(Errno::FAULT)?;
        self.0.get(start..end).ok_or(Errno::FAULT)
    }

    /// Stores `bytes` at `ptr`.
    pub fn put(&mut self, ptr: i32, bytes: &[u8]) -> Result<()> {
        self.bytes_mut(ptr, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    pub fn put_u32(&mut self, ptr: i32, value: u32) -> Result<()> {
        self.put(ptr, &value.to_le_bytes())
    }

    pub fn put_u64(&mut self, ptr: i32, value: u64) -> Result<()> {
        self.put(ptr, &value.to_le_bytes())
    }

    pub fn u32(&self, ptr: i32) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(ptr, 4)?.try_into().map_err(|_| Errno::FAULT)?))
    }

    pub fn u64(&self, ptr: i32) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(ptr, 8)?.try_into().map_err(|_| Errno::FAULT)?))
    }

    /// The buffers of a scattered read or gathered write, checked: pairs of start and length.
    /// # Errors
    /// `INVAL` for more than 1024 of them (IOV_MAX), `FAULT` for one that leaves the memory.
    pub fn vectors(&self, ptr: i32, count: i32) -> Result<Vec<(usize, usize)>> {
        if !(0..=1024).contains(&count) {
            return Err(Errno::INVAL);
        }
        let table = self.bytes(ptr, count * 8)?;
        let mut out = Vec::with_capacity(count as usize);
        for pair in table.chunks_exact(8) {
            let start = u32::from_le_bytes([pair[0], pair[1], pair[2], pair[3]]) as usize;
            let len = u32::from_le_bytes([pair[4], pair[5], pair[6], pair[7]]) as usize;
            if start.checked_add(len).is_none_or(|end| end > self.0.len()) {
                return Err(Errno::FAULT);
            }
            out.push((start, len));
        }
        Ok(out)
    }

    /// Spreads `from` over the buffers, which together are at least as long.
    pub fn scatter(&mut self, vectors: &[(usize, usize)], mut from: &[u8]) {
        for (start, len) in vectors {
            let n = from.len().min(*len);
            self.0[*start..start + n].copy_from_slice(&from[..n]);
            from = &from[n..];
        }
    }

    /// The first `max` bytes of the buffers, in one piece.
    pub fn gather(&self, vectors: &[(usize, usize)], max: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(total(vectors).min(max));
        for (start, len) in vectors {
            let n = (*len).min(max - out.len());
            out.extend_from_slice(&self.0[*start..start + n]);
        }
        out
    }
}

/// How long the buffers are together.
pub fn total(vectors: &[(usize, usize)]) -> usize {
    vectors.iter().fold(0, |sum, (_, len)| sum.saturating_add(*len))
}

/// The file type of `mode`.
pub fn type_of_mode(mode: u32) -> u8 {
    match mode & Attr::TYPE {
        Attr::DIR => filetype::DIRECTORY,
        Attr::REGULAR => filetype::REGULAR,
        Attr::SYMLINK => filetype::SYMLINK,
        0o020000 => filetype::CHARACTER,
        _ => filetype::UNKNOWN,
    }
}

/// Nanoseconds since 1970; times before that, and after the year 2554, are cut off.
pub fn nanos(time: Time) -> u64 {
    u64::try_from(time.sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::from(time.nsec))
}

/// A file's attributes as the program reads them.
pub fn filestat(attr: &Attr) -> [u8; 64] {
    let mut out = [0; 64];
    out[0..8].copy_from_slice(&1u64.to_le_bytes());
    out[8..16].copy_from_slice(&attr.qid.path.to_le_bytes());
    out[16] = type_of_mode(attr.mode);
    out[24..32].copy_from_slice(&attr.nlink.to_le_bytes());
    out[32..40].copy_from_slice(&attr.size.to_le_bytes());
    for (at, time) in [(40, attr.atime), (48, attr.mtime), (56, attr.ctime)] {
        out[at..at + 8].copy_from_slice(&nanos(time).to_le_bytes());
    }
    out
}

/// An open descriptor's state as the program reads it.
pub fn fdstat(ty: u8, flags: u16, rights: u64) -> [u8; 24] {
    let mut out = [0; 24];
    out[0] = ty;
    out[2..4].copy_from_slice(&flags.to_le_bytes());
    out[8..16].copy_from_slice(&rights.to_le_bytes());
    out[16..24].copy_from_slice(&rights::ALL.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_number_of_its_own_but_the_lost_ones() {
        let mut seen = std::collections::HashMap::new();
        for &kind in Kind::ALL {
            let n = Errno::from(kind).0;
            assert!((1..=76).contains(&n), "{kind:?}");
            if let Some(other) = seen.insert(n, kind) {
                let expected = [Kind::Io, Kind::Reset, Kind::Expired, Kind::NotFound, Kind::NoData];
                assert!(expected.contains(&kind) && expected.contains(&other), "{kind:?} {other:?}");
            }
        }
        assert_eq!(Errno::from(Kind::NotDir), Errno::NOTDIR);
        assert_eq!(Errno::from(Kind::NotFound), Errno::NOENT);
        assert_eq!(Errno::from(Kind::Io), Errno::IO);
    }

    #[test]
    fn no_address_leaves_the_memory() {
        let mut bytes = [0u8; 32];
        let mut memory = Memory(&mut bytes);
        for (ptr, len, ok) in
            [(0, 32, true), (32, 0, true), (31, 2, false), (-1, 1, false), (0, -1, false), (33, 0, false)]
        {
            assert_eq!(memory.bytes(ptr, len).is_ok(), ok, "{ptr} {len}");
        }
        memory.put(0, &[8, 0, 0, 0, 24, 0, 0, 0, 8, 0, 0, 0, 25, 0, 0, 0]).unwrap();
        assert_eq!(memory.vectors(0, 1), Ok(vec![(8, 24)]));
        assert_eq!(memory.vectors(8, 1), Err(Errno::FAULT));
        assert_eq!(memory.vectors(0, -1), Err(Errno::INVAL));
        assert_eq!(memory.vectors(0, 1025), Err(Errno::INVAL));
        assert_eq!(memory.vectors(0, 1024), Err(Errno::FAULT));
    }
}
