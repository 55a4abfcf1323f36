//! Changing attributes, all or none: what can be undone first, the length last but for the times it would change.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use fs_ninep::{Attr, Error, Kind, Result, SetAttr, SetTime, Time};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{Gid, Uid, fchownat};

use crate::lock;
use crate::node::Node;
use crate::quota::Held;
use crate::sys::{self, Stat, failed};

/// Permission bits that a caller may set: no set-id bits, which would lend out the rights of the node's user.
pub(crate) const MODE_BITS: u32 = 0o1777;

/// Applies `set` to `node`. May block.
pub(crate) fn setattr(node: &Arc<Node>, set: SetAttr) -> Result<()> {
    node.host.changes()?;
    let fd = node.fd()?;
    let was = sys::stat(fd.as_fd()).map_err(failed)?;
    if set.size.is_some() && node.ty() != Attr::REGULAR {
        return Err(if node.is_dir() { Kind::IsDir } else { Kind::Invalid }.into());
    }
    if set.atime.or(set.mtime).is_some() {
        // Whether times may be set is found out by setting those that are there, before anything is changed for good.
        set_times(fd.as_fd(), Some(SetTime::To(was.atime)), Some(SetTime::To(was.mtime)))
            .or_else(|e| if explicit(set) { Err(e) } else { Ok(()) })?;
    }
    if set.uid.or(set.gid).is_some() {
        chown(fd.as_fd(), set.uid, set.gid)?;
    }
    let owned = |e: Error| {
        undo(e, || if set.uid.or(set.gid).is_some() { chown(fd.as_fd(), Some(was.uid), Some(was.gid)) } else { Ok(()) })
    };
    if let Some(mode) = set.mode {
        chmod(node, &fd, keep_setgid(&was, mode)).map_err(owned)?;
    }
    if let Some(size) = set.size {
        let undone =
            |e| owned(undo(e, || if set.mode.is_some() { chmod(node, &fd, was.mode & 0o7777) } else { Ok(()) }));
        resize(node, &fd, size).map_err(undone)?;
    }
    match set.atime.or(set.mtime) {
        Some(_) => set_times(fd.as_fd(), set.atime, set.mtime),
        None => Ok(()),
    }
}

fn explicit(set: SetAttr) -> bool {
    [set.atime, set.mtime].iter().flatten().any(|t| matches!(t, SetTime::To(_)))
}

/// Gives back `error` after `undo`, whose own failure adds nothing the caller could act on.
fn undo(error: Error, undo: impl FnOnce() -> Result<()>) -> Error {
    undo().err();
    error
}

/// The mode to set where `mode` was asked for: a directory's group inheritance stays as it is.
pub(crate) fn keep_setgid(was: &Stat, mode: u32) -> u32 {
    mode & MODE_BITS | if was.is_dir() { was.mode & 0o2000 } else { 0 }
}

/// Sets permission bits through the descriptor: fchmod(2) refuses an O_PATH one.
pub(crate) fn chmod(node: &Node, fd: &Held, mode: u32) -> Result<()> {
    if node.ty() == Attr::SYMLINK {
        return Err(Kind::NotSupported.into());
    }
    let name = sys::proc_name(fd.as_fd());
    let mode = Mode::from_bits_truncate(mode);
    fchmodat(node.host.proc_fd.as_fd(), name.as_str(), mode, FchmodatFlags::FollowSymlink).map_err(failed)
}

fn chown(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    fchownat(fd, c"", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::AT_EMPTY_PATH).map_err(failed)
}

fn resize(node: &Node, fd: &Held, size: u64) -> Result<()> {
    let len = i64::try_from(size).map_err(|_| Kind::TooBig)?;
    let open = lock(&node.writer).upgrade();
    let cut = || {
        match &open {
            Some(writer) => nix::unistd::ftruncate(writer.as_fd(), len),
            None => sys::reopen(node.host.proc_fd.as_fd(), fd.as_fd(), OFlag::O_WRONLY)
                .and_then(|file| nix::unistd::ftruncate(file, len)),
        }
        .map_err(failed)
    };
    match &node.host.quota {
        Some(quota) => quota.counted(|| sys::stat(fd.as_fd()).map(|s| s.size).map_err(failed), |_| size, cut),
        None => cut(),
    }
}

fn set_times(fd: BorrowedFd<'_>, atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()> {
    sys::set_times(fd, spec(atime), spec(mtime)).map_err(failed)
}

fn spec(time: Option<SetTime>) -> libc::timespec {
    match time {
        None => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        Some(SetTime::Now) => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
        Some(SetTime::To(Time { sec, nsec })) => libc::timespec { tv_sec: sec, tv_nsec: nsec.min(999_999_999).into() },
    }
}
