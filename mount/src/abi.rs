//! The kernel's side: what /dev/fuse carries, as `linux/fuse.h` 7.45 lays it out.
//!
//! Requests are decoded without a copy, and a short or unknown one is an error of its own; replies are put together
//! field by field. Nothing here waits or calls anybody.

use bytes::Bytes;
use fs_ninep::{Attr, Qid, SetAttr, SetTime, StatFs, Time};

/// The protocol's major number; every kernel since 2.6.14 speaks it.
pub const MAJOR: u32 = 7;
/// The minor number we know; the kernel and we use the smaller.
pub const MINOR: u32 = 45;
/// The oldest minor whose structures are those below (Linux 4.20 had 28).
pub const MINOR_MIN: u32 = 28;
/// The minor that has [`NOTIFY_INC_EPOCH`] (Linux 6.16).
pub const MINOR_EPOCH: u32 = 44;
/// The minor that has [`EXPIRE_ONLY`] (Linux 6.2).
pub const MINOR_EXPIRE: u32 = 38;
/// The node id of the root.
pub const ROOT: u64 = 1;
/// The largest write, in bytes: 256 pages, the most a kernel gives without a sysctl.
pub const WRITE_MAX: u32 = 1 << 20;
/// A read buffer must hold the largest write and its headers, or the kernel answers EINVAL.
pub const BUFFER: usize = WRITE_MAX as usize + 4096;
/// An errno the kernel takes in a reply is below this; it drops a reply with a larger one, and its caller hangs.
pub const ERRNO_END: u32 = 512;

/// Flags of INIT. Bits from 32 up travel in `flags2`.
pub mod init {
    /// Several reads of one file at a time.
    pub const ASYNC_READ: u64 = 1 << 0;
    /// O_TRUNC comes with OPEN.
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    /// Writes over 4 KiB.
    pub const BIG_WRITES: u64 = 1 << 5;
    /// A change of mtime or size drops cached pages.
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    /// READDIRPLUS.
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    /// READDIRPLUS only where it pays.
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// O_DIRECT requests of one call at a time in flight.
    pub const ASYNC_DIO: u64 = 1 << 15;
    /// Lookups and reads of one directory side by side.
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    /// A read after an abort says so (ECONNABORTED).
    pub const ABORT_ERROR: u64 = 1 << 21;
    /// `max_pages` is meant.
    pub const MAX_PAGES: u64 = 1 << 22;
    /// `flags2` is meant.
    pub const INIT_EXT: u64 = 1 << 30;
    /// Shared mappings of files opened with DIRECT_IO.
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;

    /// What we ask for. Not WRITEBACK_CACHE: the kernel would own the sizes of synthetic files. Not POSIX_LOCKS or
    /// FLOCK_LOCKS: locks stay in the kernel. Not HANDLE_KILLPRIV: the kernel clears setuid bits by SETATTR.
    pub const WANTED: u64 = ASYNC_READ
        | ATOMIC_O_TRUNC
        | BIG_WRITES
        | AUTO_INVAL_DATA
        | DO_READDIRPLUS
        | READDIRPLUS_AUTO
        | ASYNC_DIO
        | PARALLEL_DIROPS
        | ABORT_ERROR
        | MAX_PAGES
        | INIT_EXT
        | DIRECT_IO_ALLOW_MMAP;
}

/// Flags of an OPEN reply.
pub mod fopen {
    /// No page cache.
    pub const DIRECT_IO: u32 = 1 << 0;
    /// Pages cached before are still good.
    pub const KEEP_CACHE: u32 = 1 << 1;
    /// No lseek.
    pub const NONSEEKABLE: u32 = 1 << 2;
    /// No file position at all: a blocked read holds no lock that a write needs.
    pub const STREAM: u32 = 1 << 4;
    /// No FLUSH at close.
    pub const NOFLUSH: u32 = 1 << 5;
}

/// Notification: every name known to the kernel is to be looked up anew.
pub const NOTIFY_INC_EPOCH: i32 = 8;
/// Notification: one name is to be looked up anew.
pub const NOTIFY_INVAL_ENTRY: i32 = 3;

/// Of an INVAL_ENTRY: the name is looked up anew, and what is mounted below it stays.
pub const EXPIRE_ONLY: u32 = 1;

/// Length of a request's header.
const HEADER: usize = 40;

/// A request, as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The kernel's number for it.
    pub unique: u64,
    /// The node it is about.
    pub node: u64,
    /// What is asked.
    pub op: Op<'a>,
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// First message of a connection.
    Init { major: u32, minor: u32, readahead: u32, flags: u64 },
    /// The kernel is going.
    Destroy,
    /// A name of a directory.
    Lookup { name: &'a [u8] },
    /// References dropped; no reply.
    Forget { count: u64 },
    /// The same for many nodes; no reply.
    BatchForget { list: &'a [u8] },
    /// stat(2).
    Getattr,
    /// chmod, chown, truncate, utimens.
    Setattr { set: SetAttr },
    /// readlink(2).
    Readlink,
    /// symlink(2).
    Symlink { name: &'a [u8], target: &'a [u8] },
    /// mknod(2).
    Mknod { name: &'a [u8], mode: u32 },
    /// mkdir(2).
    Mkdir { name: &'a [u8], mode: u32 },
    /// unlink(2).
    Unlink { name: &'a [u8] },
    /// rmdir(2).
    Rmdir { name: &'a [u8] },
    /// renameat2(2).
    Rename { name: &'a [u8], dir: u64, new: &'a [u8], flags: u32 },
    /// link(2) of node `old`.
    Link { old: u64, name: &'a [u8] },
    /// open(2).
    Open { flags: u32 },
    /// open(2) of a name that was not there.
    Create { name: &'a [u8], flags: u32, mode: u32 },
    /// read(2).
    Read { fh: u64, offset: u64, size: u32 },
    /// write(2); the data are the message's last bytes.
    Write { fh: u64, offset: u64, data: &'a [u8] },
    /// statfs(2).
    Statfs,
    /// The last descriptor of an opening is gone.
    Release { fh: u64 },
    /// fsync(2).
    Fsync { fh: u64, data_only: bool },
    /// One descriptor of an opening is gone.
    Flush { fh: u64 },
    /// opendir(3).
    Opendir,
    /// readdir(3), with attributes or without.
    Readdir { fh: u64, offset: u64, size: u32, plus: bool },
    /// As Release.
    Releasedir { fh: u64 },
    /// As Fsync.
    Fsyncdir { fh: u64, data_only: bool },
    /// The caller of request `unique` got a signal; no reply.
    Interrupt { unique: u64 },
    /// The kernel answers a notification of ours; no reply.
    NotifyReply,
    /// Anything else: answered ENOSYS, upon which the kernel does without and does not ask again.
    Other { opcode: u32 },
}

/// A message that is no request: too short for what it says it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Whom to answer, where that much could be read.
    pub unique: Option<u64>,
}

struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&b| b == 0)?;
        let name = self.bytes(end)?;
        self.bytes(1)?;
        Some(name)
    }
}

/// Takes a message apart.
/// # Errors
/// [`Malformed`] when it is shorter than its kind needs.
pub fn decode(message: &[u8]) -> Result<Request<'_>, Malformed> {
    let mut t = Take(message);
    let mut head = || -> Option<(u32, u32, u64, u64)> {
        let all = (t.u32()?, t.u32()?, t.u64()?, t.u64()?);
        t.bytes(HEADER - 24)?;
        Some(all)
    };
    let Some((len, opcode, unique, node)) = head() else { return Err(Malformed { unique: None }) };
    if len as usize != message.len() {
        return Err(Malformed { unique: Some(unique) });
    }
    match body(opcode, &mut t) {
        Some(op) => Ok(Request { unique, node, op }),
        None => Err(Malformed { unique: Some(unique) }),
    }
}

fn body<'a>(opcode: u32, t: &mut Take<'a>) -> Option<Op<'a>> {
    Some(match opcode {
        1 => Op::Lookup { name: t.name()? },
        2 => Op::Forget { count: t.u64()? },
        3 => Op::Getattr,
        4 => Op::Setattr { set: setattr(t)? },
        5 => Op::Readlink,
        6 => Op::Symlink { name: t.name()?, target: t.name()? },
        8 => {
            let mode = t.u32()?;
            t.bytes(12)?;
            Op::Mknod { mode, name: t.name()? }
        }
        9 => {
            let mode = t.u32()?;
            t.u32()?;
            Op::Mkdir { mode, name: t.name()? }
        }
        10 => Op::Unlink { name: t.name()? },
        11 => Op::Rmdir { name: t.name()? },
        12 => {
            let dir = t.u64()?;
            Op::Rename { dir, flags: 0, name: t.name()?, new: t.name()? }
        }
        45 => {
            let (dir, flags, _) = (t.u64()?, t.u32()?, t.u32()?);
            Op::Rename { dir, flags, name: t.name()?, new: t.name()? }
        }
        13 => Op::Link { old: t.u64()?, name: t.name()? },
        14 => Op::Open { flags: t.u32()? },
        15 => read(t)?,
        16 => write(t)?,
        17 => Op::Statfs,
        18 => Op::Release { fh: t.u64()? },
        20 => Op::Fsync { fh: t.u64()?, data_only: t.u32()? & 1 != 0 },
        25 => Op::Flush { fh: t.u64()? },
        26 => init_in(t)?,
        27 => Op::Opendir,
        28 | 44 => match read(t)? {
            Op::Read { fh, offset, size } => Op::Readdir { fh, offset, size, plus: opcode == 44 },
            _ => return None,
        },
        29 => Op::Releasedir { fh: t.u64()? },
        30 => Op::Fsyncdir { fh: t.u64()?, data_only: t.u32()? & 1 != 0 },
        35 => {
            let (flags, mode) = (t.u32()?, t.u32()?);
            t.bytes(8)?;
            Op::Create { flags, mode, name: t.name()? }
        }
        36 => Op::Interrupt { unique: t.u64()? },
        38 => Op::Destroy,
        41 => Op::NotifyReply,
        42 => {
            let count = t.u32()? as usize;
            t.u32()?;
            Op::BatchForget { list: t.bytes(count.checked_mul(16)?)? }
        }
        opcode => Op::Other { opcode },
    })
}

fn init_in<'a>(t: &mut Take<'a>) -> Option<Op<'a>> {
    let (major, minor, readahead, low) = (t.u32()?, t.u32()?, t.u32()?, t.u32()?);
    let high = if u64::from(low) & init::INIT_EXT != 0 { t.u32()? } else { 0 };
    Some(Op::Init { major, minor, readahead, flags: u64::from(low) | u64::from(high) << 32 })
}

fn read<'a>(t: &mut Take<'a>) -> Option<Op<'a>> {
    let (fh, offset, size) = (t.u64()?, t.u64()?, t.u32()?);
    Some(Op::Read { fh, offset, size })
}

fn write<'a>(t: &mut Take<'a>) -> Option<Op<'a>> {
    let (fh, offset, size) = (t.u64()?, t.u64()?, t.u32()?);
    t.bytes(20)?;
    let data = t.bytes(size as usize)?;
    if !t.0.is_empty() {
        return None;
    }
    Some(Op::Write { fh, offset, data })
}

fn setattr(t: &mut Take<'_>) -> Option<SetAttr> {
    let (valid, _, _, size, _) = (t.u32()?, t.u32()?, t.u64()?, t.u64()?, t.u64()?);
    let (atime, mtime, _) = (t.u64()?, t.u64()?, t.u64()?);
    let (atimensec, mtimensec, _) = (t.u32()?, t.u32()?, t.u32()?);
    let (mode, _, uid, gid) = (t.u32()?, t.u32()?, t.u32()?, t.u32()?);
    let has = |bit: u32| valid & (1 << bit) != 0;
    let time = |set, now, sec: u64, nsec| match (has(set), has(now)) {
        (_, true) => Some(SetTime::Now),
        (true, false) => Some(SetTime::To(Time { sec: sec as i64, nsec })),
        (false, false) => None,
    };
    Some(SetAttr {
        mode: has(0).then_some(mode & !Attr::TYPE),
        uid: has(1).then_some(uid),
        gid: has(2).then_some(gid),
        size: has(3).then_some(size),
        atime: time(4, 7, atime, atimensec),
        mtime: time(5, 8, mtime, mtimensec),
    })
}

/// The pairs (node, count) of a BATCH_FORGET.
pub fn forgotten(list: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    list.chunks_exact(16).filter_map(|pair| {
        let mut t = Take(pair);
        Some((t.u64()?, t.u64()?))
    })
}

/// The largest reply of fixed size: an entry and an opening.
const FIXED: usize = 144;

/// A reply's body.
pub enum Out {
    /// Fields.
    Fields(Fields),
    /// Bytes a tree gave.
    Bytes(Bytes),
    /// Directory entries.
    Vec(Vec<u8>),
}

impl Out {
    /// Success without a word.
    pub fn empty() -> Out {
        Out::Fields(Fields::new())
    }

    /// The bytes that follow the header.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Out::Fields(f) => &f.buf[..f.len],
            Out::Bytes(b) => b,
            Out::Vec(v) => v,
        }
    }
}

/// A reply of fixed size under construction.
pub struct Fields {
    len: usize,
    buf: [u8; FIXED],
}

impl Fields {
    /// Nothing yet.
    pub fn new() -> Fields {
        Fields { len: 0, buf: [0; FIXED] }
    }

    fn put(mut self, bytes: &[u8]) -> Fields {
        self.buf[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    fn u16(self, n: u16) -> Fields {
        self.put(&n.to_ne_bytes())
    }

    fn u32(self, n: u32) -> Fields {
        self.put(&n.to_ne_bytes())
    }

    fn u64(self, n: u64) -> Fields {
        self.put(&n.to_ne_bytes())
    }

    /// `fuse_init_out`.
    pub fn init(minor: u32, readahead: u32, flags: u64) -> Fields {
        let f = Fields::new().u32(MAJOR).u32(minor.min(MINOR)).u32(readahead).u32(flags as u32);
        // Background requests (readahead) in flight, and where the kernel calls that congestion.
        let f = f.u16(64).u16(48).u32(WRITE_MAX).u32(1);
        f.u16((WRITE_MAX / 4096) as u16).u16(0).u32((flags >> 32) as u32).put(&[0; 28])
    }

    /// `fuse_entry_out`.
    pub fn entry(node: u64, valid: Valid, ino: u64, attr: &Attr) -> Fields {
        let f = Fields::new().u64(node).u64(0).u64(valid.entry_ms / 1000).u64(valid.attr_ms / 1000);
        f.u32((valid.entry_ms % 1000) as u32 * 1_000_000).u32((valid.attr_ms % 1000) as u32 * 1_000_000).attr(ino, attr)
    }

    /// `fuse_attr_out`.
    pub fn attributes(valid: Valid, ino: u64, attr: &Attr) -> Fields {
        let f = Fields::new().u64(valid.attr_ms / 1000).u32((valid.attr_ms % 1000) as u32 * 1_000_000).u32(0);
        f.attr(ino, attr)
    }

    /// `fuse_open_out`, alone or after an entry.
    pub fn open(self, fh: u64, flags: u32) -> Fields {
        self.u64(fh).u32(flags).u32(0)
    }

    /// `fuse_write_out`.
    pub fn written(count: u32) -> Fields {
        Fields::new().u32(count).u32(0)
    }

    /// `fuse_statfs_out`.
    pub fn statfs(s: &StatFs) -> Fields {
        let f = Fields::new().u64(s.blocks).u64(s.bfree).u64(s.bavail).u64(s.files).u64(s.ffree);
        f.u32(s.bsize).u32(s.namelen.min(255)).u32(s.bsize).put(&[0; 28])
    }

    fn attr(self, ino: u64, a: &Attr) -> Fields {
        let f = self.u64(ino).u64(a.size).u64(a.blocks);
        let f = f.u64(a.atime.sec as u64).u64(a.mtime.sec as u64).u64(a.ctime.sec as u64);
        let f = f.u32(a.atime.nsec).u32(a.mtime.nsec).u32(a.ctime.nsec);
        let f = f.u32(mode(a)).u32(u32::try_from(a.nlink).unwrap_or(u32::MAX)).u32(a.uid).u32(a.gid);
        f.u32(rdev(a.rdev)).u32(blksize(a.blksize)).u32(0)
    }
}

/// The mode with type bits, which a server may have left out.
fn mode(a: &Attr) -> u32 {
    match (a.mode & Attr::TYPE, a.qid) {
        (0, q) => a.mode | kind(q),
        _ => a.mode & 0o177777,
    }
}

fn kind(q: Qid) -> u32 {
    match (q.is_dir(), q.is_symlink()) {
        (true, _) => Attr::DIR,
        (_, true) => Attr::SYMLINK,
        _ => Attr::REGULAR,
    }
}

/// The kernel takes the logarithm of this: a server's zero or odd number must not reach it.
fn blksize(n: u64) -> u32 {
    match n {
        512..=0x10_0000 if n.is_power_of_two() => n as u32,
        _ => 4096,
    }
}

/// 12 bits of major and 20 of minor, as the kernel packs a device number in 32 bits.
fn rdev(dev: u64) -> u32 {
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xfff00) << 12
}

/// How long the kernel may believe a reply, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Valid {
    /// The name.
    pub entry_ms: u64,
    /// The attributes.
    pub attr_ms: u64,
}

impl Valid {
    /// Plain files and directories keep for a second, which is the most a change elsewhere may go unseen. Attributes of
    /// live ones keep just long enough that the fstat after an open costs no second trip.
    pub fn of(qid: Qid) -> Valid {
        match (qid.is_live(), qid.is_dir()) {
            (false, _) => Valid { entry_ms: 1000, attr_ms: 1000 },
            (true, true) => Valid { entry_ms: 1000, attr_ms: 10 },
            (true, false) => Valid { entry_ms: 10, attr_ms: 10 },
        }
    }
}

/// A list of directory entries that may not grow over what the kernel asked for.
pub struct Entries {
    buf: Vec<u8>,
    size: usize,
    plus: bool,
}

impl Entries {
    /// Room for `size` bytes of entries, with attributes or without.
    pub fn new(size: u32, plus: bool) -> Entries {
        let size = (size as usize).min(WRITE_MAX as usize);
        Entries { buf: Vec::with_capacity(size), size, plus }
    }

    fn len_of(&self, name: &[u8]) -> usize {
        (if self.plus { 128 + 24 } else { 24 }) + name.len().next_multiple_of(8)
    }

    /// How many of `names`, in order, fit.
    pub fn fit<'n>(&self, names: impl Iterator<Item = &'n [u8]>) -> usize {
        let mut left = self.size - self.buf.len();
        names
            .take_while(|n| {
                self.len_of(n) <= left && {
                    left -= self.len_of(n);
                    true
                }
            })
            .count()
    }

    /// Adds a name, after which a reader goes on at `offset`. `entry` is what a lookup would have answered; without one
    /// the kernel takes the name alone. False where it does not fit.
    pub fn push(&mut self, name: &[u8], offset: u64, ino: u64, qid: Qid, entry: Option<Fields>) -> bool {
        if self.fit(std::iter::once(name)) == 0 {
            return false;
        }
        if self.plus {
            let entry = entry.unwrap_or_else(|| Fields::new().put(&[0; 128]));
            self.buf.extend_from_slice(&entry.buf[..entry.len]);
        }
        for word in [ino, offset] {
            self.buf.extend_from_slice(&word.to_ne_bytes());
        }
        for half in [name.len() as u32, kind(qid) >> 12] {
            self.buf.extend_from_slice(&half.to_ne_bytes());
        }
        self.buf.extend_from_slice(name);
        self.buf.resize(self.buf.len().next_multiple_of(8), 0);
        true
    }

    /// The reply.
    pub fn done(self) -> Out {
        Out::Vec(self.buf)
    }
}

/// `fuse_out_header`.
pub fn out_header(len: usize, error: i32, unique: u64) -> [u8; 16] {
    let mut h = [0; 16];
    h[..4].copy_from_slice(&((16 + len) as u32).to_ne_bytes());
    h[4..8].copy_from_slice(&error.to_ne_bytes());
    h[8..].copy_from_slice(&unique.to_ne_bytes());
    h
}

/// `fuse_notify_inval_entry_out` and its name.
pub fn inval_entry(parent: u64, name: &[u8], flags: u32) -> Vec<u8> {
    let mut out = parent.to_ne_bytes().to_vec();
    out.extend_from_slice(&(name.len() as u32).to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(name);
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_ninep::QidType;

    /// A request of the kernel: `words` are `4:N` and `8:N` for numbers, `+N` for N zero bytes, else a name.
    fn message(opcode: u32, words: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for word in words.split_whitespace() {
            match word.split_at(2.min(word.len())) {
                ("4:", n) => body.extend_from_slice(&n.parse::<u32>().unwrap().to_ne_bytes()),
                ("8:", n) => body.extend_from_slice(&n.parse::<u64>().unwrap().to_ne_bytes()),
                _ if word.starts_with('+') => body.resize(body.len() + word[1..].parse::<usize>().unwrap(), 0),
                _ => body.extend_from_slice(&[word.as_bytes(), &[0]].concat()),
            }
        }
        let mut all = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        all.extend_from_slice(&opcode.to_ne_bytes());
        all.extend_from_slice(&7u64.to_ne_bytes());
        all.extend_from_slice(&3u64.to_ne_bytes());
        all.resize(HEADER, 0);
        all.extend(body);
        all
    }

    fn size(size: u64) -> SetAttr {
        SetAttr { size: Some(size), ..SetAttr::default() }
    }

    /// Every request that has a body, as the kernel writes it and as it is understood.
    fn table() -> Vec<(u32, &'static str, Op<'static>)> {
        let times = SetAttr {
            atime: Some(SetTime::Now),
            mtime: Some(SetTime::To(Time { sec: 9, nsec: 5 })),
            mode: Some(0o644),
            ..SetAttr::default()
        };
        vec![
            (1, "ab", Op::Lookup { name: b"ab" }),
            (2, "8:4", Op::Forget { count: 4 }),
            (4, "4:8 4:0 8:0 8:11 8:0 8:0 8:0 8:0 4:0 4:0 4:0 4:0 4:0 4:0 4:0 4:0", Op::Setattr { set: size(11) }),
            (
                4,
                "4:177 4:0 8:0 8:0 8:0 8:0 8:9 8:0 4:0 4:5 4:0 4:33188 4:0 4:0 4:0 4:0",
                Op::Setattr { set: SetAttr { atime: Some(SetTime::Now), ..times } },
            ),
            (6, "ab to", Op::Symlink { name: b"ab", target: b"to" }),
            (8, "4:33188 4:0 4:0 4:0 ab", Op::Mknod { name: b"ab", mode: 0o100644 }),
            (9, "4:493 4:0 ab", Op::Mkdir { name: b"ab", mode: 0o755 }),
            (10, "ab", Op::Unlink { name: b"ab" }),
            (11, "ab", Op::Rmdir { name: b"ab" }),
            (12, "8:5 ab cd", Op::Rename { name: b"ab", dir: 5, new: b"cd", flags: 0 }),
            (45, "8:5 4:1 4:0 ab cd", Op::Rename { name: b"ab", dir: 5, new: b"cd", flags: 1 }),
            (13, "8:5 ab", Op::Link { old: 5, name: b"ab" }),
            (14, "4:2 4:0", Op::Open { flags: 2 }),
            (15, "8:1 8:2 4:3 4:0 8:0 4:0 4:0", Op::Read { fh: 1, offset: 2, size: 3 }),
            (16, "8:1 8:2 4:3 4:0 8:0 4:0 4:0 ab", Op::Write { fh: 1, offset: 2, data: b"ab\0" }),
            (18, "8:1 4:0 4:0 8:0", Op::Release { fh: 1 }),
            (20, "8:1 4:1 4:0", Op::Fsync { fh: 1, data_only: true }),
            (25, "8:1 4:0 4:0 8:0", Op::Flush { fh: 1 }),
            (26, "4:7 4:45 4:131072 4:1 4:16", Op::Init { major: 7, minor: 45, readahead: 131072, flags: 1 }),
            (
                26,
                "4:7 4:45 4:131072 4:1073741825 4:16",
                Op::Init { major: 7, minor: 45, readahead: 131072, flags: 1 | 1 << 30 | 1 << 36 },
            ),
            (28, "8:1 8:2 4:3 4:0 8:0 4:0 4:0", Op::Readdir { fh: 1, offset: 2, size: 3, plus: false }),
            (44, "8:1 8:2 4:3 4:0 8:0 4:0 4:0", Op::Readdir { fh: 1, offset: 2, size: 3, plus: true }),
            (29, "8:1 4:0 4:0 8:0", Op::Releasedir { fh: 1 }),
            (30, "8:1 4:0 4:0", Op::Fsyncdir { fh: 1, data_only: false }),
            (35, "4:66 4:420 4:0 4:0 ab", Op::Create { name: b"ab", flags: 0o102, mode: 0o644 }),
            (36, "8:6", Op::Interrupt { unique: 6 }),
            (42, "4:1 4:0 8:5 8:2", Op::BatchForget { list: &[5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0] }),
        ]
    }

    #[test]
    fn requests() {
        for (opcode, words, op) in table() {
            let message = message(opcode, words);
            assert_eq!(decode(&message), Ok(Request { unique: 7, node: 3, op }), "{opcode} {words}");
        }
        for (opcode, op) in [(3, Op::Getattr), (5, Op::Readlink), (17, Op::Statfs), (27, Op::Opendir)] {
            assert_eq!(decode(&message(opcode, "")).map(|r| r.op), Ok(op));
        }
        assert_eq!(decode(&message(22, "4:0 4:0 user.x")).map(|r| r.op), Ok(Op::Other { opcode: 22 }));
    }

    #[test]
    fn no_short_message_is_understood() {
        for (opcode, words, op) in table() {
            let whole = message(opcode, words);
            for len in 0..whole.len() {
                let mut cut = whole[..len].to_vec();
                assert_eq!(decode(&cut), Err(Malformed { unique: (len >= HEADER).then_some(7) }));
                if len < HEADER {
                    continue;
                }
                // The same with a header that says so: what is not read of a request may be missing.
                cut[..4].copy_from_slice(&(len as u32).to_ne_bytes());
                match decode(&cut) {
                    Ok(request) => assert_eq!(request.op, op, "{opcode} {words} cut to {len}"),
                    Err(malformed) => assert_eq!(malformed, Malformed { unique: Some(7) }),
                }
            }
        }
    }

    #[test]
    fn a_reply_has_the_kernels_length() {
        let (attr, valid) = (Attr::default(), Valid { entry_ms: 1500, attr_ms: 10 });
        for (fields, len) in [
            (Fields::init(45, 0, 0), 64),
            (Fields::entry(1, valid, 1, &attr), 128),
            (Fields::entry(1, valid, 1, &attr).open(1, 0), 144),
            (Fields::attributes(valid, 1, &attr), 104),
            (Fields::new().open(1, 0), 16),
            (Fields::written(1), 8),
            (Fields::statfs(&StatFs::default()), 80),
        ] {
            assert_eq!(fields.len, len);
        }
        let entry = Fields::entry(1, valid, 1, &attr);
        assert_eq!(entry.buf[16..24], 1u64.to_ne_bytes(), "seconds of the name");
        assert_eq!(entry.buf[32..40], [500_000_000u32.to_ne_bytes(), 10_000_000u32.to_ne_bytes()].concat());
    }

    #[test]
    fn what_a_server_may_not_tell_the_kernel() {
        for (said, heard) in [(0, 4096), (1, 4096), (4096, 4096), (1 << 20, 1 << 20), (1 << 21, 4096), (5000, 4096)] {
            assert_eq!(blksize(said), heard, "{said}");
        }
        let dir = Qid { ty: QidType::DIR, ..Qid::default() };
        for (said, qid, heard) in [
            (0o755, dir, 0o040755),
            (0o644, Qid::default(), 0o100644),
            (0o777, Qid { ty: QidType::SYMLINK, ..dir }, 0o120777),
            (0xffff_0000 | 0o100600, Qid::default(), 0o100600),
        ] {
            assert_eq!(mode(&Attr { mode: said, qid, ..Attr::default() }), heard, "{said:o}");
        }
        assert_eq!(rdev(libc::makedev(8, 17)), 0x811);
        assert_eq!(rdev(libc::makedev(259, 70_000)), 0x1111_0370);
    }

    #[test]
    fn a_listing_keeps_to_its_size() {
        for plus in [false, true] {
            let one = if plus { 160 } else { 32 };
            for (size, fit) in [(0, 0), (one - 1, 0), (one, 1), (3 * one + 7, 3)] {
                let mut list = Entries::new(size, plus);
                assert_eq!(list.fit([&b"abcdefgh"[..]; 9].into_iter()), fit as usize);
                let pushed = (0..9).filter(|n| list.push(b"abcdefgh", *n, 1, Qid::default(), None)).count();
                assert_eq!(pushed, fit as usize, "{size} {plus}");
                assert_eq!(list.done().as_bytes().len(), (fit * one) as usize);
            }
        }
    }
}
