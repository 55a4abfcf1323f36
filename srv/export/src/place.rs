//! export: which directories of this machine may be shown. Blocks on the disk.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::error::Error;

/// What is never shown: the node's own tree, where it is mounted, and its keys and state.
#[derive(Clone, Debug, Default)]
pub struct Private {
    mounts: Vec<PathBuf>,
    home: PathBuf,
}

impl Private {
    pub fn new(home: &Path, mounts: &[PathBuf]) -> Private {
        let mut private = Private { mounts: Vec::new(), home: real(home) };
        mounts.iter().for_each(|dir| private.mounted(dir));
        private
    }

    /// The node's tree is mounted at `dir` too.
    pub fn mounted(&mut self, dir: &Path) {
        self.mounts.push(dir.to_owned());
        self.mounts.push(real(dir));
    }

    /// The node's own mount points.
    pub fn mounts(&self) -> &[PathBuf] {
        &self.mounts
    }

    /// The directory that `path` means, links followed.
    pub fn place(&self, path: &str) -> Result<PathBuf, Error> {
        let given = Path::new(path);
        if !given.is_absolute() {
            return Err(Error::Relative { path: path.to_owned() });
        }
        // First by the text alone: the node's own tree is not asked for itself.
        self.check_mounts(&lexical(given))?;
        let place = given.canonicalize().map_err(|source| Error::Io { path: given.to_owned(), source })?;
        self.check_mounts(&place)?;
        if place.starts_with(&self.home) {
            return Err(Error::OwnState { path: place, home: self.home.clone() });
        }
        if self.home.starts_with(&place) {
            return Err(Error::HoldsState { path: place, home: self.home.clone() });
        }
        if !place.is_dir() {
            return Err(Error::NotDir { path: place });
        }
        Ok(place)
    }

    fn check_mounts(&self, path: &Path) -> Result<(), Error> {
        match self.mounts.iter().any(|mount| path.starts_with(mount)) {
            true => Err(Error::OwnTree { path: path.to_owned() }),
            false => Ok(()),
        }
    }
}

/// `path` without links in the directories above it. Its last element is not looked at: it may be a mount that nobody
/// answers for any more.
fn real(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|p| p.canonicalize().ok());
    parent.map_or_else(|| lexical(path), |p| p.join(path.file_name().unwrap_or(OsStr::new(""))))
}

fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_may_be_shown() {
        let tmp = tempfile::tempdir().unwrap();
        let top = tmp.path().canonicalize().unwrap();
        for dir in ["me/photos", "me/.ipos/keys", "n/ipos/cpu", "me/.ipos2"] {
            fs::create_dir_all(top.join(dir)).unwrap();
        }
        fs::write(top.join("me/file"), "").unwrap();
        symlink(top.join("me/photos"), top.join("link")).unwrap();
        symlink(top.join("n/ipos"), top.join("me/mnt")).unwrap();
        symlink(top.join("me/.ipos"), top.join("state")).unwrap();
        symlink(top.join("me"), top.join("ich")).unwrap();
        // The home is given through a link, as a user's HOME may be.
        let mut private = Private::new(&top.join("ich/.ipos"), &[]);
        assert!(private.place(&top.join("n/ipos").to_string_lossy()).is_ok());
        private.mounted(&top.join("n/ipos"));
        for (path, want) in [
            ("me/photos", "ok me/photos"),
            ("link", "ok me/photos"),
            ("me/../me/./photos/", "ok me/photos"),
            ("ich/photos", "ok me/photos"),
            ("me/.ipos2", "ok me/.ipos2"),
            ("n", "ok n"),
            ("me/none", "NotFound"),
            ("me/file", "NotDir"),
            ("me", "NotPermitted: TOP/me holds TOP/me/.ipos, this node's keys and state; bind a directory inside it"),
            ("", "NotPermitted"),
            ("me/.ipos", "NotPermitted: TOP/me/.ipos is in TOP/me/.ipos, this node's keys and state"),
            ("me/.ipos/keys", "NotPermitted"),
            ("state/keys", "NotPermitted"),
            ("n/ipos", "NotPermitted: TOP/n/ipos is in this node's own tree; write \"grant WHO /TREE\" to export/ctl"),
            ("n/ipos/cpu", "NotPermitted"),
            ("n/ipos/none", "NotPermitted: TOP/n/ipos/none is in this node's own tree"),
            ("me/mnt/cpu", "NotPermitted"),
            ("me/../n/ipos", "NotPermitted"),
        ] {
            let got = match private.place(&top.join(path).to_string_lossy()) {
                Ok(place) => format!("ok {}", place.strip_prefix(&top).unwrap().display()),
                Err(e) => format!("{:?}: {e}", e.kind()).replace(&*top.to_string_lossy(), "TOP"),
            };
            assert!(got.starts_with(want), "{path}: {got}");
        }
        assert!(matches!(private.place("me"), Err(Error::Relative { .. })));
    }
}
