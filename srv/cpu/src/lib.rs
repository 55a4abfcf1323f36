//! srv-cpu: jobs: programs run for a caller, one numbered directory each. See cpu(4).
//!
//! A job is New, Running or Ended. Opening `clone` is the only way to make one. Its program runs in a process of its own,
//! forked by the worker (`pool`), on the name space the job was given (`space`), which this process serves to it over 9P;
//! its output is kept here in spools. Lock order: table, then job; no lock is held across an await. Only reads of
//! `stdout`, `stderr` and `wait`, writes of a full `stdin`, and `kill` wait.

mod device;
mod files;
mod input;
mod job;
mod limits;
mod message;
mod pool;
mod readonly;
mod run;
mod scratch;
mod space;
mod spool;
mod table;
mod tree;
mod verbs;
pub mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use fs_ninep::{Kind, Remote, Tree};

pub use limits::Limits;
pub use table::{ENDED_KEPT, JOBS_MAX, JOBS_USER_MAX, RUNNING_MAX};
pub use tree::TREE;

use files::Files;
use table::Table;

/// How a node's cpu is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name: the one directory in the root of the tree.
    pub name: String,
    /// Where spools and compiled programs are kept; made, mode 0700, where it is missing.
    pub dir: PathBuf,
    /// The command that runs [`worker::main`], program first.
    pub worker: Vec<OsString>,
    /// What a job may use unless it asks for less or, within the node's own bounds, for more.
    pub limits: Limits,
}

/// The jobs of one node.
pub struct Cpu {
    table: Arc<Table>,
    tree: Arc<dyn Tree>,
}

impl Cpu {
    /// Starts the worker and serves no job yet. Must be called on a tokio runtime; the worker ends when the `Cpu` and
    /// its tree are dropped.
    /// # Errors
    /// `Dir` where the directory cannot be made, `Worker` for an empty command. That the command fails is told in
    /// `info`, and tried again.
    pub fn start(config: Config, remote: Arc<dyn Remote>) -> Result<Arc<Cpu>> {
        let table = Table::start(config, remote)?;
        let tree = fs_tree::serve(Arc::new(Files::new(table.clone())));
        Ok(Arc::new(Cpu { table, tree }))
    }

    /// The tree: its root holds one directory, named after the node.
    pub fn tree(&self) -> Arc<dyn Tree> {
        self.tree.clone()
    }

    /// Kills every job and waits until their processes are gone.
    pub async fn stop(&self) {
        self.table.stop().await;
    }
}

/// The result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request about jobs failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory of spools and programs.
    #[error("{path}: {why}; jobs need a directory of their own there")]
    Dir {
        /// Where.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// No command.
    #[error("the worker's command is empty")]
    Worker,
    /// The worker is not there.
    #[error("no worker process: {why}; it is started again by itself, see info")]
    NoWorker {
        /// What happened to the last one.
        why: String,
    },
    /// The node's table is full.
    #[error("{have} jobs are all this node holds; free one (rmdir), or try again later")]
    TableFull {
        /// How many there are.
        have: usize,
    },
    /// The caller's share is used up.
    #[error("{have} jobs are all one user may hold here; free one (rmdir)")]
    QuotaFull {
        /// How many there are.
        have: usize,
    },
    /// The node runs as many as it may.
    #[error("{running} jobs run, which is all this node does at once; try again later")]
    Crowded {
        /// How many run.
        running: usize,
    },
    /// No such word.
    #[error("unknown word {word:?}; cpu(4) lists the words of ctl")]
    Word {
        /// The word.
        word: String,
    },
    /// A word of the manual that this node does not do.
    #[error("{word}: {why}")]
    Unsupported {
        /// The word.
        word: &'static str,
        /// What is there instead.
        why: &'static str,
    },
    /// A word with the wrong arguments.
    #[error("usage: {usage}")]
    Usage {
        /// How it is written.
        usage: &'static str,
    },
    /// A number or value out of bounds.
    #[error("limit {name}: {value:?} is not {bounds}")]
    Limit {
        /// Which limit.
        name: &'static str,
        /// What was asked.
        value: String,
        /// What may be asked.
        bounds: String,
    },
    /// Something of a job that is past changing.
    #[error("{word}: the job is {phase}, and this is for a job that is {need}")]
    Order {
        /// What was asked.
        word: &'static str,
        /// What the job is.
        phase: &'static str,
        /// What it would have to be.
        need: &'static str,
    },
    /// Nothing to run.
    #[error("no program; write \"exec PROGRAM ARG...\" to ctl, or its words, one a line, to args")]
    NoProgram,
    /// A file of the job's name space.
    #[error("{path}: {why}")]
    File {
        /// Its path there.
        path: String,
        /// Why not.
        why: fs_ninep::Error,
    },
    /// A directory, a device: nothing that can be run.
    #[error("{path}: not a file that can be run")]
    NotProgram {
        /// Its path there.
        path: String,
    },
    /// Too much text.
    #[error("{what} have {len} bytes, {max} are the most")]
    TooLong {
        /// Arguments or environment.
        what: &'static str,
        /// How many bytes.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// A line of `env`.
    #[error("env: {line:?} is not NAME=value")]
    Env {
        /// The line.
        line: String,
    },
    /// What a mount line names.
    #[error("{source_text:?}: a job mounts capabilities, as export/M/cap shows them: ipos:PEER/M#SECRET")]
    Source {
        /// The word, without its secret.
        source_text: String,
    },
    /// How a mount is wanted.
    #[error("{mode:?}: after the mount point stands ro or rw, or nothing")]
    Mode {
        /// The word.
        mode: String,
    },
    /// The system refused something that it seldom refuses.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        why: std::io::Error,
    },
}

impl Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Dir { .. } | Error::System { .. } => Kind::Io,
            Error::Worker | Error::NoWorker { .. } => Kind::Again,
            Error::TableFull { .. } | Error::QuotaFull { .. } | Error::Crowded { .. } => Kind::Again,
            Error::Unsupported { .. } => Kind::NotSupported,
            Error::Order { .. } => Kind::Busy,
            Error::File { why, .. } => why.kind(),
            Error::NotProgram { .. } => Kind::Denied,
            Error::TooLong { .. } => Kind::TooBig,
            Error::Word { .. }
            | Error::Usage { .. }
            | Error::Limit { .. }
            | Error::NoProgram
            | Error::Env { .. }
            | Error::Source { .. }
            | Error::Mode { .. } => Kind::Invalid,
        }
    }
}

impl From<Error> for fs_ninep::Error {
    fn from(e: Error) -> fs_ninep::Error {
        fs_ninep::Error::new(e.kind(), e)
    }
}
