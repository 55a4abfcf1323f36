//! Which mounts a host directory may lead into, and what kind of file system each is.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use fs_ninep::{Attr, Error, Kind, Result};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::sys::{self, Stat, failed};

/// How the files of a mount behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// On this machine: what is cached can be asked without waiting.
    Local,
    /// Over a network, or served by a process: every question may wait.
    Slow,
    /// Made up by the kernel at each read: never to be cached.
    Live,
}

/// The kind of the mount `id` (statx(2) stx_mnt_id).
/// # Errors
/// `Denied` for an ipos mount or one at a path of `forbid`: this process serves it, and would wait for itself.
pub fn kind(id: u64, forbid: &[PathBuf]) -> Result<MountKind> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    match table.split(|&b| b == b'\n').filter_map(Mount::parse).find(|m| m.id == id) {
        Some(m) if m.ty == "fuse.ipos" || forbid.contains(&m.point) => Err(Error::new(
            Kind::Denied,
            format!("{}: an ipos mount cannot be shared as a host directory; bind its tree instead", m.point.display()),
        )),
        Some(m) => Ok(m.kind()),
        None => Ok(MountKind::Slow),
    }
}

/// One line of proc_pid_mountinfo(5).
struct Mount {
    id: u64,
    point: PathBuf,
    ty: String,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|&b| b == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let point = unescape(fields.nth(3)?);
        let ty = fields.skip_while(|f| *f != b"-").nth(1)?;
        Some(Mount { id, point, ty: String::from_utf8_lossy(ty).into_owned() })
    }

    fn kind(&self) -> MountKind {
        let ty = self.ty.split('.').next().unwrap_or_default();
        match ty {
            "proc" | "sysfs" | "cgroup" | "cgroup2" | "debugfs" | "tracefs" | "configfs" | "securityfs" | "bpf" => {
                MountKind::Live
            }
            "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "afs" | "fuse" | "fuseblk" | "virtiofs" | "lustre" => {
                MountKind::Slow
            }
            _ => MountKind::Local,
        }
    }
}

/// A mount point as the kernel writes it: blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&b, after)) = rest.split_first() {
        let octal = |d: &[u8]| d.iter().try_fold(0u32, |n, &c| Some(n * 8 + (c as char).to_digit(8)?));
        match (b, after.get(..3).and_then(octal).and_then(|n| u8::try_from(n).ok())) {
            (b'\\', Some(code)) => {
                out.push(code);
                rest = &after[3..];
            }
            _ => {
                out.push(b);
                rest = after;
            }
        }
    }
    OsString::from_vec(out).into()
}

/// Opens `path` as the kernel would, one element at a time, asking nothing of a forbidden mount on the way and following
/// at most `links_max` symbolic links.
pub fn open_path(path: &Path, links_max: usize, forbid: &[PathBuf]) -> Result<(OwnedFd, Stat)> {
    let missing = |e| Error::new(failed(e).kind(), format!("{}: {}", path.display(), failed(e)));
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let start = |p: &Path| open(if p.is_absolute() { "/" } else { "." }, flags, Mode::empty());
    let mut at = start(path).map_err(missing)?;
    let mut stat = sys::stat_now(at.as_fd()).map_err(missing)?;
    let mut links = 0;
    let mut left: VecDeque<OsString> = elements(path);
    while let Some(name) = left.pop_front() {
        let next = openat(at.as_fd(), name.as_os_str(), flags, Mode::empty()).map_err(missing)?;
        let next_stat = sys::stat_now(next.as_fd()).map_err(missing)?;
        if next_stat.mount != stat.mount {
            kind(next_stat.mount, forbid)?;
        }
        if next_stat.mode & Attr::TYPE != Attr::SYMLINK {
            (at, stat) = (next, next_stat);
            continue;
        }
        links += 1;
        if links > links_max {
            return Err(Error::new(Kind::Loop, format!("{}: too many symbolic links", path.display())));
        }
        let target = sys::read_link(next.as_fd()).map_err(missing)?;
        let target = Path::new(OsStr::from_bytes(&target));
        elements(target).into_iter().rev().for_each(|e| left.push_front(e));
        if target.is_absolute() {
            at = start(target).map_err(missing)?;
            stat = sys::stat_now(at.as_fd()).map_err(missing)?;
        }
    }
    Ok((at, stat))
}

fn elements(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    named.map(|c| c.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        for (line, expect) in [
            (
                "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw",
                Some((36, "/mnt2", "ext3", MountKind::Local)),
            ),
            ("7 1 0:5 / /a\\040b rw - proc proc rw", Some((7, "/a b", "proc", MountKind::Live))),
            ("8 1 0:5 / /n/ipos rw shared:3 - fuse.ipos ipos rw", Some((8, "/n/ipos", "fuse.ipos", MountKind::Slow))),
            ("9 1 0:5 / /x\\134y rw - nfs4 h:/e rw", Some((9, "/x\\y", "nfs4", MountKind::Slow))),
            ("", None),
            ("x", None),
            ("1 2 3", None),
        ] {
            let got = Mount::parse(line.as_bytes()).map(|m| (m.id, m.point.clone(), m.ty.clone(), m.kind()));
            assert_eq!(got, expect.map(|(id, p, t, k)| (id, PathBuf::from(p), t.to_string(), k)), "{line}");
        }
    }
}
