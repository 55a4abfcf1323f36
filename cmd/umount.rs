//! `ipos umount [DIR]`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::config::Config;
use crate::home::Home;
use crate::{Error, place};

/// Unmount the name space
///
/// The `ipos mount` that serves it ends; a node that was started by `ipos node` goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct Umount {
    /// Detach now, even while files are open; what is open stays usable until it is closed
    #[arg(short = 'z', long)]
    lazy: bool,
    /// Where it is mounted [default: as for ipos mount]
    dir: Option<PathBuf>,
}

impl Umount {
    pub(crate) fn run(&self, home: &Home) -> Result<ExitCode, Error> {
        let dir = match &self.dir {
            Some(dir) => std::path::absolute(dir).map_err(Error::system(dir, "cannot be made absolute"))?,
            None => place::choose(None, &Config::read(&home.config())?)?,
        };
        unmount(&dir, self.lazy || place::dead(&dir)).map_err(|why| match why.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBUSY) => Error::Busy { dir: dir.clone() },
            Some(Errno::EINVAL) => Error::NotMounted { dir: dir.clone() },
            _ => Error::system(&dir, "cannot be unmounted")(why),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// By umount(2) where we may, else by the setuid helper, whose answer is a text only.
pub(crate) fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(dir, flags) {
        Err(Errno::EPERM) => {}
        done => return Ok(done?),
    }
    if !place::mounts()?.iter().any(|m| m == dir) {
        return Err(Errno::EINVAL.into());
    }
    let helper = Command::new("fusermount3").arg(if lazy { "-uz" } else { "-u" }).arg(dir).output()?;
    match String::from_utf8_lossy(&helper.stderr).trim() {
        _ if helper.status.success() => Ok(()),
        text if text.contains("busy") => Err(Errno::EBUSY.into()),
        text => Err(io::Error::other(text.to_owned())),
    }
}
