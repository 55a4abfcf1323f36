//! The mount point: mounting, finding out who stands there, unmounting.
//!
//! Root (also of a user name space) asks the kernel; anybody else asks fusermount3, which is setuid and hands the open
//! device over a socket. A mount is ended only after its device number was compared: another may stand on top by now.

use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::error::{Error, Result};

/// The type findmnt shows.
const TYPE: &str = "fuse.ipos";
/// How long a live mount may take to answer one stat before it is taken for live.
const PROBE: Duration = Duration::from_secs(1);

/// A mounted directory.
#[derive(Clone, Debug)]
pub struct Point {
    /// The directory, absolute.
    pub dir: PathBuf,
    /// The mount's device, as mountinfo writes it.
    device: String,
}

/// Mounts on `dir` and gives the kernel's side of the connection.
pub fn attach(dir: &Path, allow_other: bool) -> Result<(Point, OwnedFd)> {
    detach_stale(dir)?;
    let dir = dir.canonicalize().map_err(|cause| Error::Dir { dir: dir.into(), cause })?;
    let meta = dir.metadata().map_err(|cause| Error::Dir { dir: dir.clone(), cause })?;
    if !meta.is_dir() {
        return Err(Error::Dir { cause: io::Error::from_raw_os_error(Errno::ENOTDIR as i32), dir });
    }
    let device = open_device()?;
    let fd = match ask_kernel(&dir, &device, allow_other) {
        Ok(()) => device,
        Err(Errno::EPERM) => ask_fusermount(&dir, allow_other)?,
        Err(e) => return Err(Error::Refused { verb: "mount", dir, cause: e.into() }),
    };
    let device = mounted(&dir)?.map(|m| m.device).unwrap_or_default();
    Ok((Point { dir, device }, fd))
}

fn open_device() -> Result<OwnedFd> {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(file) => Ok(file.into()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(Error::DeviceDenied),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(Errno::ENODEV as i32) => {
            Err(Error::NoDevice)
        }
        Err(e) => Err(e.into()),
    }
}

fn ask_kernel(dir: &Path, device: &OwnedFd, allow_other: bool) -> nix::Result<()> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let mut data = format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", device.as_raw_fd());
    if allow_other {
        data.push_str(",allow_other,default_permissions");
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("ipos"), dir, Some(TYPE), flags, Some(data.as_str()))
}

fn ask_fusermount(dir: &Path, allow_other: bool) -> Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut options = String::from("rw,nosuid,nodev,fsname=ipos,subtype=ipos");
    if allow_other {
        options.push_str(",allow_other,default_permissions");
    }
    let mut command = Command::new("fusermount3");
    // Its standard input is the one descriptor a child gets without a race with other children.
    command.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(theirs)).args(["-o", &options, "--"]).arg(dir);
    let out = fusermount(&mut command)?;
    drop(command);
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        return Err(Error::Fusermount { dir: dir.into(), said });
    }
    ours.set_nonblocking(true)?;
    receive(&ours)
}

fn fusermount(command: &mut Command) -> Result<Output> {
    match command.stdout(Stdio::null()).stderr(Stdio::piped()).output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NoFusermount),
        other => Ok(other?),
    }
}

fn receive(socket: &UnixStream) -> Result<OwnedFd> {
    let mut byte = [0];
    let mut space = nix::cmsg_space!(i32);
    let mut data = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .map_err(io::Error::from)?;
    for control in message.cmsgs().map_err(io::Error::from)? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(&fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

/// One line of mountinfo.
struct Line {
    device: String,
    ty: String,
}

/// What is mounted on `dir`, the topmost; `None` where nothing is. Asks nobody's file server.
fn mounted(dir: &Path) -> Result<Option<Line>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(topmost(&table, dir))
}

fn topmost(table: &[u8], dir: &Path) -> Option<Line> {
    let line = table.split(|&b| b == b'\n').rfind(|line| {
        let point = line.split(|&b| b == b' ').nth(4);
        point.is_some_and(|p| unescape(p) == dir.as_os_str().as_bytes())
    })?;
    let line = String::from_utf8_lossy(line);
    let device = line.split(' ').nth(2)?.to_owned();
    let ty = line.split(" - ").nth(1)?.split(' ').next()?.to_owned();
    Some(Line { device, ty })
}

/// mountinfo writes blanks, tabs, newlines and backslashes as `\ooo`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&b, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| b == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match octal {
            Some(d) => {
                out.push(d.iter().fold(0u8, |n, c| n.wrapping_mul(8).wrapping_add(c - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
    out
}

/// `dir` as mountinfo names it, found without asking whatever is mounted on it.
fn absolute(dir: &Path) -> Result<PathBuf> {
    let fault = |cause| Error::Dir { dir: dir.into(), cause };
    let whole = std::path::absolute(dir).map_err(fault)?;
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) if name != ".." => Ok(parent.canonicalize().map_err(fault)?.join(name)),
        _ => whole.canonicalize().map_err(fault),
    }
}

/// Detaches what a killed ipos left on `dir`; true if there was such a mount.
///
/// # Errors
/// `Served` if an ipos that is alive is mounted there; `Dir` where `dir` cannot be looked at.
pub fn detach_stale(dir: &Path) -> Result<bool> {
    let dir = match std::fs::read_link(dir) {
        Ok(target) => absolute(&dir.parent().unwrap_or(Path::new("/")).join(target))?,
        Err(_) => absolute(dir)?,
    };
    if mounted(&dir)?.is_none_or(|m| m.ty != TYPE) {
        return Ok(false);
    }
    match probe(&dir) {
        Some(Errno::ENOTCONN | Errno::ECONNABORTED) => {
            leave(&dir, true)?;
            Ok(true)
        }
        _ => Err(Error::Served { dir }),
    }
}

/// What stat(2) of `dir` says; nothing where it succeeds, or hangs. From a thread of its own: the server asked may be
/// this very process, or hang.
fn probe(dir: &Path) -> Option<Errno> {
    let (tell, hear) = mpsc::channel();
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        let answer = std::fs::symlink_metadata(&dir).err();
        let _ = tell.send(answer.and_then(|e| e.raw_os_error()).map(Errno::from_raw));
    });
    hear.recv_timeout(PROBE).ok().flatten()
}

/// Unmounts `dir`; `lazy`: at once, also under open files, which go on until closed.
fn leave(dir: &Path, lazy: bool) -> Result<()> {
    let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(dir, flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => {
            let out = fusermount(Command::new("fusermount3").arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(dir))?;
            match out.status.success() {
                true => Ok(()),
                false => Err(Error::Fusermount {
                    dir: dir.into(),
                    said: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
                }),
            }
        }
        Err(e) => Err(Error::Refused { verb: "unmount", dir: dir.into(), cause: e.into() }),
    }
}

impl Point {
    /// Unmounts, cleanly where nobody has a file open, else lazily. May wait for dirty pages of a mapping to be written
    /// back through the mount, so never call it on the thread that serves. A mount of somebody else is left alone.
    pub fn detach(&self) -> Result<()> {
        if mounted(&self.dir)?.is_none_or(|m| m.device != self.device) {
            return Ok(());
        }
        leave(&self.dir, false).or_else(|_| leave(&self.dir, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let table = b"\
29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
60 29 0:50 / /n/ipos rw,nosuid,nodev - fuse.ipos ipos rw,user_id=0\n\
61 29 0:51 / /a\\040b\\134 rw shared:2 master:1 - tmpfs tmpfs rw\n\
62 60 0:52 / /n/ipos rw - tmpfs tmpfs rw\n\
63 29 0:53 / /short\n";
        for (dir, want) in [
            ("/", Some(("8:1", "ext4"))),
            ("/n/ipos", Some(("0:52", "tmpfs"))),
            ("/a b\\", Some(("0:51", "tmpfs"))),
            ("/a", None),
            ("/short", None),
        ] {
            let line = topmost(table, Path::new(dir));
            assert_eq!(line.as_ref().map(|l| (&*l.device, &*l.ty)), want, "{dir}");
        }
    }

    #[test]
    fn escapes() {
        for (written, meant) in
            [("a\\040b", "a b"), ("\\134", "\\"), ("\\04", "\\04"), ("\\", "\\"), ("\\089", "\\089")]
        {
            assert_eq!(unescape(written.as_bytes()), meant.as_bytes(), "{written}");
        }
        assert_eq!(unescape(b"\\777"), [0xff]);
    }
}
