//! The state directory: where it is, what lies in it, who holds it. See ipos(1), FILES.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;

use crate::Error;

/// A state directory, there or to be made.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

/// The right to run a node on a home; given up when dropped, and by the system when the process dies.
#[derive(Debug)]
pub(crate) struct Hold(#[expect(dead_code, reason = "held, not used")] Flock<File>);

impl Home {
    /// `--home`, else `$IPOS_HOME`, else `~/.ipos`; made absolute.
    pub(crate) fn find(flag: Option<&Path>, verb: &'static str) -> Result<Home, Error> {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let named = flag.map(Path::to_owned).or_else(|| var("IPOS_HOME"));
        let path = named.or_else(|| Some(var("HOME")?.join(".ipos"))).ok_or(Error::Homeless { verb })?;
        let path = std::path::absolute(&path).map_err(Error::system(path, "cannot be made absolute"))?;
        Ok(Home(path))
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The Unix socket that serves the name space to the user's own processes.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("9p.sock")
    }

    /// The key store.
    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The user's own namespace(6) lines, obeyed at start.
    pub(crate) fn namespace(&self) -> PathBuf {
        self.0.join("namespace")
    }

    /// A directory of a service under the home, made with mode 0700 where it is missing.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.0.join(name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(Error::system(&path, "cannot be made"))?;
        Ok(path)
    }

    /// The process that runs a node on it; nothing is made or changed by asking.
    pub(crate) fn held_by(&self) -> io::Result<Option<Pid>> {
        let file = match File::open(self.0.join("lock")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((file, Errno::EWOULDBLOCK)) => holder(file).map(Some),
            Err((_, errno)) => Err(errno.into()),
            Ok(_) => Ok(None),
        }
    }

    /// Makes the directory where it is missing and takes it for this process: one node a home.
    /// # Errors
    /// `Taken` while another process holds it.
    pub(crate) fn hold(&self) -> Result<Hold, Error> {
        self.dir("")?;
        let path = self.0.join("lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        match Flock::lock(open.map_err(Error::system(&path, "cannot be opened"))?, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let text = format!("{}\n", std::process::id());
                let kept = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
                kept.map_err(Error::system(&path, "cannot be written"))?;
                Ok(Hold(file))
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                let pid = holder(file).map_err(Error::system(&path, "cannot be read"))?;
                Err(Error::Taken { home: self.0.clone(), pid })
            }
            Err((_, errno)) => Err(Error::system(&path, "cannot be locked")(errno.into())),
        }
    }
}

/// Who wrote the lock that is held.
fn holder(mut lock: File) -> io::Result<Pid> {
    let mut text = String::new();
    lock.read_to_string(&mut text)?;
    Ok(Pid::from_raw(text.trim().parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_a_home() {
        let dir = std::env::temp_dir().join(format!("ipos-home-{}", std::process::id()));
        let home = Home::find(Some(&dir), "node").unwrap();
        assert_eq!(home.held_by().unwrap(), None);
        let first = home.hold().unwrap();
        assert_eq!(home.held_by().unwrap(), Some(Pid::this()));
        let refusal = home.hold().unwrap_err().to_string();
        let pid = std::process::id();
        assert!(refusal.contains(&format!("process id {pid}")) && refusal.contains("\"ipos mount\""), "{refusal}");
        drop(first);
        drop(home.hold().unwrap());
        fs::remove_dir_all(dir).unwrap();
    }
}
