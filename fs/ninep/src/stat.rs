//! What a file is: qid, attributes, directory entries, open flags. Values are Linux's, as 9P2000.L carries them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{File, Name};

/// One file server: two files are the same file when their server and qid path are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u64);

impl ServerId {
    /// An id no other server of this process has.
    pub fn fresh() -> ServerId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        ServerId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The type bits of a qid (intro(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QidType(pub u8);

impl QidType {
    /// A directory.
    pub const DIR: QidType = QidType(0x80);
    /// Append-only.
    pub const APPEND: QidType = QidType(0x40);
    /// One opener at a time.
    pub const EXCL: QidType = QidType(0x20);
    /// An authentication file.
    pub const AUTH: QidType = QidType(0x08);
    /// A symbolic link (9P2000.u, .L).
    pub const SYMLINK: QidType = QidType(0x02);
    /// A plain file.
    pub const FILE: QidType = QidType(0);
}

/// The server's name for one file. `version` 0 means: live, never cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Qid {
    /// Directory, append-only, …
    pub ty: QidType,
    /// Rises when the content changes; 0 for live files.
    pub version: u32,
    /// Unique on this server, not reused while it lives.
    pub path: u64,
}

impl Qid {
    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.ty.0 & QidType::DIR.0 != 0
    }

    /// True for a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.ty.0 & QidType::SYMLINK.0 != 0
    }

    /// True for a file whose content may differ at every look: not to be cached, its size is a hint.
    pub fn is_live(&self) -> bool {
        self.version == 0
    }
}

/// A time stamp: seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970, UTC.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}

impl Time {
    /// Now, by this machine's clock.
    pub fn now() -> Time {
        let d = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Time { sec: d.as_secs() as i64, nsec: d.subsec_nanos() }
    }
}

/// A file's attributes: `struct stat` in the words of Tgetattr.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// The file.
    pub qid: Qid,
    /// S_IFMT type bits and permissions, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links; 1 for directories.
    pub nlink: u64,
    /// Device number of a device file.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// Preferred size of a read.
    pub blksize: u64,
    /// 512-byte units used.
    pub blocks: u64,
    /// Last read.
    pub atime: Time,
    /// Last write.
    pub mtime: Time,
    /// Last change of attributes.
    pub ctime: Time,
}

impl Attr {
    /// S_IFMT.
    pub const TYPE: u32 = 0o170000;
    /// S_IFDIR.
    pub const DIR: u32 = 0o040000;
    /// S_IFREG.
    pub const REGULAR: u32 = 0o100000;
    /// S_IFLNK.
    pub const SYMLINK: u32 = 0o120000;

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & Attr::TYPE == Attr::DIR
    }
}

/// How one of a file's times is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// To the server's clock.
    Now,
    /// To this.
    To(Time),
}

/// The attributes a setattr changes; `None` leaves one alone. All or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length; 0 on a control file means nothing and succeeds.
    pub size: Option<u64>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last write.
    pub mtime: Option<SetTime>,
}

/// One name of a directory.
#[derive(Clone)]
pub struct DirEntry {
    /// Its name.
    pub name: Name,
    /// Its qid.
    pub qid: Qid,
    /// Where a readdir goes on after this entry: opaque, never 0, good for the life of the open directory.
    pub cookie: u64,
    /// Attributes, where the server has them at hand.
    pub attr: Option<Attr>,
    /// The file, where the server has it at hand: saves the walk.
    pub file: Option<Arc<dyn File>>,
}

/// statfs(2), in its own words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Magic number of the file system type.
    pub ty: u32,
    /// Bytes a block.
    pub bsize: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub bfree: u64,
    /// Blocks free to this caller.
    pub bavail: u64,
    /// Files in all.
    pub files: u64,
    /// Files free.
    pub ffree: u64,
    /// File system id.
    pub fsid: u64,
    /// Longest name.
    pub namelen: u32,
}

/// The flags of open(2), Linux's values on every host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// Read only.
    pub const RDONLY: OpenFlags = OpenFlags(0);
    /// Write only.
    pub const WRONLY: OpenFlags = OpenFlags(1);
    /// Read and write.
    pub const RDWR: OpenFlags = OpenFlags(2);
    /// Create if missing.
    pub const CREAT: u32 = 0o100;
    /// Fail if it exists.
    pub const EXCL: u32 = 0o200;
    /// Cut to length 0.
    pub const TRUNC: u32 = 0o1000;
    /// Every write goes to the end.
    pub const APPEND: u32 = 0o2000;
    /// A read returns what is there, and then end of file.
    pub const NONBLOCK: u32 = 0o4000;
    /// Fail if it is no directory.
    pub const DIRECTORY: u32 = 0o200000;

    /// True if reads are allowed.
    pub fn reads(self) -> bool {
        matches!(self.0 & 3, 0 | 2)
    }

    /// True if writes are allowed.
    pub fn writes(self) -> bool {
        matches!(self.0 & 3, 1 | 2)
    }

    /// True if `bit` is set.
    pub fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}
