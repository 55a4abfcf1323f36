//! Where the name space is mounted when nobody says: /n/ipos, else ~/n/ipos.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::Error;
use crate::config::Config;

/// The default directory.
pub(crate) const DIR: &str = "/n/ipos";

/// `named`, else the configuration's, else [`DIR`] where this user may mount there, else `n/ipos` in their home
/// directory.
pub(crate) fn choose(named: Option<&Path>, config: &Config) -> Result<PathBuf, Error> {
    match named.or(config.mount.as_deref()) {
        Some(dir) => std::path::absolute(dir).map_err(Error::system(dir, "cannot be made absolute")),
        None if usable(Path::new(DIR)) => Ok(DIR.into()),
        None => Ok(std::env::var_os("HOME").map_or(DIR.into(), |home| Path::new(&home).join("n/ipos"))),
    }
}

/// A mount whose server died answers every look with this; mounting replaces it.
pub(crate) fn dead(dir: &Path) -> bool {
    fs::metadata(dir).is_err_and(|e| e.raw_os_error() == Some(Errno::ENOTCONN as i32))
}

/// Mounting wants write permission on the directory; a missing one must be one that can be made.
pub(crate) fn usable(dir: &Path) -> bool {
    let there = dir.ancestors().find(|d| dead(d) || d.exists());
    dead(dir) || there.is_some_and(|d| access(d, AccessFlags::W_OK).is_ok())
}

/// Every ipos mount this process can see, dead ones too.
pub(crate) fn mounts() -> io::Result<Vec<PathBuf>> {
    Ok(mounts_in(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// The mount points of type fuse.ipos in the text of proc_pid_mountinfo(5), whose blanks are written in octal.
fn mounts_in(mountinfo: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let dir = mount.split(' ').nth(4)?.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        source.starts_with("fuse.ipos ").then(|| PathBuf::from(dir))
    };
    mountinfo.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_our_mounts() {
        let text = "22 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw\n\
                    90 22 0:52 / /n/ipos rw,nosuid shared:9 - fuse.ipos ipos rw,user_id=0\n\
                    91 22 0:53 / /my\\040dir rw - fuse.ipos ipos rw\n\
                    92 22 0:54 / /other rw - fuse.sshfs ipos rw\n";
        assert_eq!(mounts_in(text), [Path::new("/n/ipos"), Path::new("/my dir")]);
    }
}
