//! The system calls, each with a safe face.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use fs_ninep::{Attr, Kind, Result, Time};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

/// An errno as an error of the tree.
pub fn failed(errno: Errno) -> fs_ninep::Error {
    Kind::from_errno(errno as u32).into()
}

/// The name of a descriptor in [`proc_fd`].
pub fn proc_name(fd: BorrowedFd<'_>) -> String {
    fd.as_raw_fd().to_string()
}

/// The directory of this process's descriptors.
pub fn proc_fd() -> Result<OwnedFd> {
    nix::fcntl::open(c"/proc/self/fd", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(failed)
}

fn how(flags: OFlag, mode: Mode, cached: bool) -> OpenHow {
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let cache = if cached { ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED) } else { ResolveFlag::empty() };
    OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).mode(mode).resolve(beneath | cache)
}

/// The file `name` of the directory `dir`, itself if it is a link. `cached`: EAGAIN rather than a look at the disk.
pub fn walk(dir: BorrowedFd<'_>, name: &[u8], cached: bool) -> nix::Result<OwnedFd> {
    openat2(dir, OsStr::from_bytes(name), how(OFlag::O_PATH, Mode::empty(), cached))
}

/// The directory `dir` opened to be listed.
pub fn open_dir(dir: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
    openat2(dir, c".", how(flags, Mode::empty(), false))
}

/// A new regular file `name` in `dir`.
pub fn create(dir: BorrowedFd<'_>, name: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    openat2(dir, OsStr::from_bytes(name), how(flags, mode, false))
}

/// The file of `fd` opened anew; never waits for a lease holder.
pub fn reopen(proc_fd: BorrowedFd<'_>, fd: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    openat(proc_fd, proc_name(fd).as_str(), flags, Mode::empty())
}

/// A symbolic link's target.
pub fn read_link(fd: BorrowedFd<'_>) -> nix::Result<Vec<u8>> {
    nix::fcntl::readlinkat(fd, c"").map(OsStringExt::into_vec)
}

/// What statx(2) says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    /// When the file was made: tells two files apart that had one inode number after the other.
    pub born: Time,
    /// Which mount it was reached over.
    pub mount: u64,
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u64,
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
}

impl Stat {
    pub fn is_dir(&self) -> bool {
        self.mode & Attr::TYPE == Attr::DIR
    }
}

/// The attributes of `fd` itself, as the host has them at hand: never asks a network or FUSE server.
pub fn stat_now(fd: BorrowedFd<'_>) -> nix::Result<Stat> {
    statx(fd, c"", libc::AT_STATX_DONT_SYNC)
}

/// The attributes of `fd` itself.
pub fn stat(fd: BorrowedFd<'_>) -> nix::Result<Stat> {
    statx(fd, c"", libc::AT_STATX_SYNC_AS_STAT)
}

/// The attributes of `name` in `dir`, as the host has them at hand.
pub fn stat_name(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<Stat> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    statx(dir, &name, libc::AT_STATX_DONT_SYNC)
}

fn statx(dir: BorrowedFd<'_>, name: &CStr, sync: i32) -> nix::Result<Stat> {
    let mut st = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = sync | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;
    // SAFETY: `dir` is open, `name` ends in a NUL, and `st` has room for one statx.
    Errno::result(unsafe { libc::statx(dir.as_raw_fd(), name.as_ptr(), flags, mask, st.as_mut_ptr()) })?;
    // SAFETY: all zeroes is a valid statx, and the call filled in the rest.
    let st = unsafe { st.assume_init() };
    let time = |t: libc::statx_timestamp| Time { sec: t.tv_sec, nsec: t.tv_nsec };
    Ok(Stat {
        dev: libc::makedev(st.stx_dev_major, st.stx_dev_minor),
        ino: st.stx_ino,
        born: if st.stx_mask & libc::STATX_BTIME != 0 { time(st.stx_btime) } else { Time::default() },
        mount: st.stx_mnt_id,
        mode: st.stx_mode.into(),
        nlink: st.stx_nlink.into(),
        uid: st.stx_uid,
        gid: st.stx_gid,
        rdev: libc::makedev(st.stx_rdev_major, st.stx_rdev_minor),
        size: st.stx_size,
        blksize: st.stx_blksize.into(),
        blocks: st.stx_blocks,
        atime: time(st.stx_atime),
        mtime: time(st.stx_mtime),
        ctime: time(st.stx_ctime),
    })
}

fn offset(at: u64) -> nix::Result<libc::off_t> {
    libc::off_t::try_from(at).map_err(|_| Errno::EINVAL)
}

/// Appends to `buf` what is at `at`, up to its spare capacity; 0 is the end of the file. `flags` are preadv2(2)'s.
pub fn read(fd: BorrowedFd<'_>, buf: &mut Vec<u8>, at: u64, flags: i32) -> nix::Result<usize> {
    let spare = buf.spare_capacity_mut();
    let iov = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
    // SAFETY: `fd` is open and `iov` is the spare room of `buf`, which is borrowed for the call.
    let n = Errno::result(unsafe { libc::preadv2(fd.as_raw_fd(), &iov, 1, offset(at)?, flags) })? as usize;
    // SAFETY: the kernel has filled `n` bytes of the spare room.
    unsafe { buf.set_len(buf.len() + n) };
    Ok(n)
}

/// Writes `data` at `at`, or at the end where the descriptor appends. `flags` are pwritev2(2)'s.
pub fn write(fd: BorrowedFd<'_>, data: &[u8], at: u64, flags: i32) -> nix::Result<usize> {
    let iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: `fd` is open, and the kernel only reads what `iov` names, which is borrowed for the call.
    let n = Errno::result(unsafe { libc::pwritev2(fd.as_raw_fd(), &iov, 1, offset(at)?, flags) })?;
    Ok(n as usize)
}

/// Sets the times of `fd` itself, link or not.
pub fn set_times(fd: BorrowedFd<'_>, atime: libc::timespec, mtime: libc::timespec) -> nix::Result<()> {
    let times = [atime, mtime];
    // SAFETY: `fd` is open, the empty name ends in its NUL, and `times` is two time stamps.
    let done = unsafe { libc::utimensat(fd.as_raw_fd(), c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) };
    Errno::result(done).map(drop)
}

/// One name of a directory as the host lists it, and where the listing goes on after it.
pub struct RawEntry {
    pub name: Vec<u8>,
    pub next: u64,
}

/// The next entries of an open directory, `.` and `..` left out; `None` at the end.
pub fn entries(dir: BorrowedFd<'_>) -> nix::Result<Option<Vec<RawEntry>>> {
    const HEADER: usize = 19;
    let mut buf = [0u64; 4096];
    let bytes = std::mem::size_of_val(&buf);
    // SAFETY: `dir` is open and `buf` has room for `bytes` bytes.
    let got = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buf.as_mut_ptr(), bytes) };
    let got = Errno::result(got)? as usize;
    if got == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has filled `got` bytes, at most `bytes`, of `buf`; any byte is a valid u8.
    let mut rest = unsafe { std::slice::from_raw_parts(buf.as_ptr().cast::<u8>(), got) };
    let mut list = Vec::new();
    // linux_dirent64: d_ino 8 bytes, d_off 8, d_reclen 2, d_type 1, then the name and a NUL.
    while rest.len() > HEADER {
        let next = u64::from_ne_bytes(rest[8..16].try_into().unwrap_or_default());
        let len = usize::from(u16::from_ne_bytes([rest[16], rest[17]])).clamp(HEADER, rest.len());
        let name: Vec<u8> = rest[HEADER..len].iter().copied().take_while(|&b| b != 0).collect();
        if name != b"." && name != b".." {
            list.push(RawEntry { name, next });
        }
        rest = &rest[len..];
    }
    Ok(Some(list))
}

/// Goes on listing `dir` at `cookie`, 0 for the start.
pub fn seek(dir: BorrowedFd<'_>, cookie: u64) -> nix::Result<()> {
    nix::unistd::lseek(dir.as_fd(), cookie as libc::off_t, nix::unistd::Whence::SeekSet).map(drop)
}
