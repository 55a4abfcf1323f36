//! mount: FUSE over the file-server trait. See fuse(5).
//!
//! [`Mount::start`] mounts a tree's root on a directory and serves it on the runtime it is called in, until it is
//! unmounted. The request loop is ours because the kernel's interrupts must end a waiting read (a process blocked in one
//! that is not answered cannot be killed), and because node ids must be per path while inode numbers are per file. With
//! those two gone, what is left of a FUSE library is one mount(2) and one handshake, so those are here too.

mod abi;
mod error;
mod list;
mod nodes;
mod opens;
mod ops;
mod point;
mod session;
mod spin;

use std::path::Path;
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use fs_ninep::File;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::sync::watch;

pub use error::{Error, Result};
pub use point::detach_stale;
pub use session::PARKED_MAX;

use point::Point;
use session::{Config, Session};

/// How long a dropped [`Mount`] waits for the kernel to let go.
const LEAVE: Duration = Duration::from_secs(1);

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Let other users in, by the files' modes. An ordinary user needs `user_allow_other` in /etc/fuse.conf.
    pub allow_other: bool,
    /// How long to look for the next request before sleeping. Costs processor time only after a request.
    pub spin: Duration,
    /// A request that waits longer is answered EINTR; `None`: as long as the kernel's own limit allows.
    pub answer_within: Option<Duration>,
    /// Rises when the tree's names change at once (bind, mount, unmount): the kernel forgets what it cached.
    pub changes: Option<watch::Receiver<u64>>,
}

impl Default for Options {
    fn default() -> Options {
        Options { allow_other: false, spin: Duration::from_micros(50), answer_within: None, changes: None }
    }
}

/// A mounted tree. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    point: Point,
    ended: watch::Receiver<bool>,
}

impl Mount {
    /// Mounts `root` on `dir` and serves it by tasks of the current runtime. A mount that a killed ipos left there is
    /// detached first. Call it within a runtime that has its io and time drivers on.
    /// # Errors
    /// Each says what to type: `NoDevice`, `DeviceDenied`, `NoFusermount`, `Fusermount`, `Served`, `Dir`, `Refused`.
    pub fn start(root: Arc<dyn File>, dir: &Path, options: Options) -> Result<Mount> {
        let (point, device) = point::attach(dir, options.allow_other)?;
        let served = session::greet(&device).and_then(|minor| {
            let flags = OFlag::from_bits_retain(fcntl(&device, FcntlArg::F_GETFL).map_err(std::io::Error::from)?);
            fcntl(&device, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(std::io::Error::from)?;
            Ok(minor)
        });
        let minor = match served {
            Ok(minor) => minor,
            Err(e) => {
                // With the device closed nothing of the mount can hang.
                drop(device);
                let _ = point.detach();
                return Err(e);
            }
        };
        let (tell, ended) = watch::channel(false);
        let answer_within = options.answer_within.or_else(kernel_limit);
        let session = Session::new(device, root, Config { changes: options.changes.clone(), answer_within, minor });
        let follower = options.changes.map(|changes| tokio::spawn(follow(Arc::downgrade(&session), changes)));
        let left = point.clone();
        tokio::spawn(async move {
            // The mount is gone; or the connection is, by an abort or a fault of the device, and then its mount is dead.
            let _ = session.serve(options.spin).await;
            follower.inspect(|f| f.abort());
            let _ = tokio::task::spawn_blocking(move || left.detach()).await;
            let _ = tell.send(true);
        });
        Ok(Mount { point, ended })
    }

    /// The mount point.
    pub fn dir(&self) -> &Path {
        &self.point.dir
    }

    /// Waits until the mount is gone, whoever unmounted it, and its last open file is closed.
    pub async fn done(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Unmounts; where files are open, the name goes at once and they live on until closed.
    /// # Errors
    /// `Refused` or `Fusermount`: it is still mounted.
    pub async fn unmount(&self) -> Result<()> {
        if *self.ended.borrow() {
            return Ok(());
        }
        let point = self.point.clone();
        // Not here: the kernel may write dirty pages back, through this very thread.
        tokio::task::spawn_blocking(move || point.detach()).await.map_err(std::io::Error::from)?
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if *self.ended.borrow() {
            return;
        }
        let point = self.point.clone();
        let (tell, hear) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = point.detach();
            let _ = tell.send(());
        });
        let _ = hear.recv_timeout(LEAVE);
    }
}

/// Tells the kernel of changes that no request through this mount brought about.
async fn follow(session: Weak<Session>, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        match session.upgrade() {
            Some(session) => session.settle().await,
            None => return,
        }
    }
}

/// An administrator may let the kernel abort a connection on which one request waits too long (`fs.fuse`, seconds, 0:
/// no limit). A read of an event file waits as long as it must, so it is answered well before that.
fn kernel_limit() -> Option<Duration> {
    let read = |name| std::fs::read_to_string(format!("/proc/sys/fs/fuse/{name}")).unwrap_or_default();
    limit(&read("default_request_timeout"), &read("max_request_timeout"))
}

fn limit(default: &str, max: &str) -> Option<Duration> {
    let seconds = |text: &str| text.trim().parse::<u64>().ok().filter(|&s| s > 0);
    let least = [seconds(default), seconds(max)].into_iter().flatten().min()?;
    Some(Duration::from_millis(least.saturating_mul(400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_limit() {
        for (default, max, want_ms) in [
            ("0\n", "0\n", None),
            ("", "", None),
            ("10\n", "0\n", Some(4000)),
            ("0\n", "20\n", Some(8000)),
            ("30\n", "20\n", Some(8000)),
            ("x", "-1", None),
        ] {
            assert_eq!(limit(default, max), want_ms.map(Duration::from_millis), "{default:?} {max:?}");
        }
    }
}
