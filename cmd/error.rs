//! What a verb may answer instead of doing its work: printed as `ipos: TEXT` on standard error, exit status 1.

use std::io;
use std::path::PathBuf;

use nix::unistd::Pid;

/// Why a verb failed, and what to type next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key, type or number in the configuration.
    #[error("{}{}: {text}", file.display(), line.map(|l| format!(":{l}")).unwrap_or_default())]
    Config {
        /// The configuration.
        file: PathBuf,
        /// The line, from 1, where it is known.
        line: Option<usize>,
        /// What is wrong with it.
        text: String,
    },
    /// No way to tell the state directory.
    #[error("neither --home, IPOS_HOME nor HOME says where the state is; type: ipos --home DIR {verb}")]
    Homeless {
        /// What was being done.
        verb: &'static str,
    },
    /// A second node on one state directory.
    #[error("{}: the node with process id {pid} is running on it; type \"ipos mount\" to mount its name space, or \"kill {pid}\" to end it", home.display())]
    Taken {
        /// The state directory.
        home: PathBuf,
        /// The process that holds it.
        pid: Pid,
    },
    /// A verb that needs a running node.
    #[error("{}: no node is running on it; type: ipos --home {} mount &", home.display(), home.display())]
    NoNode {
        /// The state directory.
        home: PathBuf,
    },
    /// The node that a mount was attached to has ended.
    #[error("the node that was mounted is gone: {why}; type \"ipos mount\" to start one")]
    Gone {
        /// How its connection ended.
        why: fs_ninep::Error,
    },
    /// The node refused what was written or asked.
    #[error("{path}: {why}")]
    Refused {
        /// The file, from the root of the name space.
        path: String,
        /// The refusal: the text of `error` beside it where there is one.
        why: fs_ninep::Error,
    },
    /// The system refused.
    #[error("{}: {what}: {why}", path.display())]
    System {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as "cannot make".
        what: &'static str,
        /// What the system answered.
        why: io::Error,
    },
    /// A mount with open files or somebody's working directory in it.
    #[error("{}: files are open in it or a shell stands in it; leave it, or type: ipos umount --lazy {}", dir.display(), dir.display())]
    Busy {
        /// The mount.
        dir: PathBuf,
    },
    /// Nothing to unmount.
    #[error("{}: nothing is mounted there; \"ipos doctor\" lists the mounts", dir.display())]
    NotMounted {
        /// The directory.
        dir: PathBuf,
    },
    /// A part of the node that did not start.
    #[error("{part}: {why}")]
    Part {
        /// The part, by the name of its manual page.
        part: &'static str,
        /// Why not.
        why: String,
    },
}

impl Error {
    /// A refusal of the system about `path`.
    pub(crate) fn system(path: impl Into<PathBuf>, what: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |why| Error::System { path, what, why }
    }

    /// A part of the node that did not start.
    pub(crate) fn part<E: std::fmt::Display>(part: &'static str) -> impl FnOnce(E) -> Error {
        move |why| Error::Part { part, why: why.to_string() }
    }
}
