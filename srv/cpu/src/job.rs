//! One job: what it is to run, where it stands, what it has used.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fs_ninep::Identity;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::input::Input;
use crate::limits::Limits;
use crate::space::Space;
use crate::spool::Spool;
use crate::{Error, Result};

/// Bytes of all arguments and of all environment lines of a job, together.
pub const ARGS_MAX: usize = 128 * 1024;
/// What each of them counts beside its length.
pub const ARG_COST: usize = 5;

/// What a job is to be.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Argument 0, the program, first.
    pub args: Vec<String>,
    /// `NAME=value`, each.
    pub env: Vec<String>,
    /// The directory of its name space that is `/` to it; the paths below are from there.
    pub dir: String,
    pub stdin: Source,
    /// A path that takes its output instead of the spool.
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    pub limits: Limits,
    pub spool_full: SpoolFull,
    /// How long it goes on when all its mounts are gone.
    pub linger: Duration,
}

/// Where a job's stdin comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file `stdin`.
    Written,
    /// Nowhere: it is at its end.
    Null,
    /// A path.
    Path(String),
}

/// What a full spool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolFull {
    Kill,
    Block,
}

impl Spec {
    pub fn new(limits: Limits) -> Spec {
        Spec {
            args: Vec::new(),
            env: Vec::new(),
            dir: "/".into(),
            stdin: Source::Written,
            stdout: None,
            stderr: None,
            limits,
            spool_full: SpoolFull::Kill,
            linger: Duration::from_secs(30),
        }
    }
}

/// Where a job stands.
#[derive(Clone, Debug)]
pub enum Phase {
    New,
    /// Its process is being prepared: nothing may be changed any more.
    Starting,
    Running {
        stopped: bool,
    },
    Ended(Arc<Outcome>),
}

impl Phase {
    /// The word of it.
    pub fn word(&self) -> &'static str {
        match self {
            Phase::New => "new",
            Phase::Starting => "starting",
            Phase::Running { stopped: false } => "running",
            Phase::Running { stopped: true } => "stopped",
            Phase::Ended(_) => "ended",
        }
    }
}

/// Why the node ends a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Killed,
    Wall,
    OutLimit,
    Disk,
    Lost,
}

/// How a job ended: the words of `wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Exited(i32),
    Signal(i32),
    Trap,
    Fuel,
    Wall,
    Mem,
    Disk,
    OutLimit,
    Killed,
    Lost,
    Refused,
}

impl Word {
    /// The word and its code, as `wait` shows them. What is no exit of the program's own has a code a shell can use.
    pub fn text(self) -> (&'static str, i32) {
        match self {
            Word::Exited(code) => ("exited", code),
            Word::Signal(number) => ("signal", number),
            Word::Trap => ("trap", 134),
            Word::Fuel => ("fuel", 152),
            Word::Wall => ("wall", 137),
            Word::Mem => ("mem", 137),
            Word::Disk => ("disk", 153),
            Word::OutLimit => ("outlimit", 153),
            Word::Killed => ("killed", 137),
            Word::Lost => ("lost", 129),
            Word::Refused => ("refused", 126),
        }
    }
}

impl From<Cause> for Word {
    fn from(cause: Cause) -> Word {
        match cause {
            Cause::Killed => Word::Killed,
            Cause::Wall => Word::Wall,
            Cause::OutLimit => Word::OutLimit,
            Cause::Disk => Word::Disk,
            Cause::Lost => Word::Lost,
        }
    }
}

/// The whole of how a job ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub word: Word,
    /// More of it, for a person; may be empty.
    pub text: String,
    pub usage: Usage,
}

/// What a job has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub user_ms: u64,
    pub sys_ms: u64,
    pub real_ms: u64,
    pub fuel: u64,
    pub peak_kb: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub compile_ms: u64,
}

impl Outcome {
    /// The line of `wait`.
    pub fn line(&self) -> String {
        let (word, code) = self.word.text();
        let Usage { user_ms, sys_ms, real_ms, fuel, peak_kb, bytes_in, bytes_out, .. } = self.usage;
        format!("{word} {code} {user_ms} {sys_ms} {real_ms} {fuel} {peak_kb} {bytes_in} {bytes_out} 0\n")
    }
}

/// A job.
pub struct Job {
    pub id: u64,
    pub owner: Identity,
    pub made: Instant,
    pub space: Space,
    pub input: Arc<Input>,
    pub stdout: Arc<Spool>,
    pub stderr: Arc<Spool>,
    pub spec: Mutex<Spec>,
    pub phase: watch::Sender<Phase>,
    /// Bytes that reached the job, and that came from it.
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub compile_ms: AtomicU64,
    /// A limit was changed, or something else a running job waits for.
    pub changed: Notify,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    process: Option<Process>,
    cause: Option<(Cause, String)>,
    /// When it is ended or forgotten, if its owner named a time.
    renewed: Option<Instant>,
    released: bool,
}

/// A job's process, while it lives.
struct Process {
    pid: i32,
    pidfd: OwnedFd,
    started: Instant,
}

impl Job {
    pub fn new(id: u64, owner: Identity, space: Space, limits: Limits) -> Job {
        Job {
            id,
            owner,
            made: Instant::now(),
            space,
            input: Arc::default(),
            stdout: Arc::default(),
            stderr: Arc::default(),
            spec: Mutex::new(Spec::new(limits)),
            phase: watch::Sender::new(Phase::New),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            compile_ms: AtomicU64::new(0),
            changed: Notify::new(),
            live: Mutex::default(),
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is to be.
    pub fn spec(&self) -> MutexGuard<'_, Spec> {
        self.spec.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Refuses `word` unless the job is new.
    /// # Errors
    /// `Order`.
    pub fn must_be_new(&self, word: &'static str) -> Result<()> {
        match &*self.phase.borrow() {
            Phase::New => Ok(()),
            other => Err(Error::Order { word, phase: other.word(), need: "new" }),
        }
    }

    /// Refuses `word` unless the job runs.
    /// # Errors
    /// `Order`.
    pub fn must_run(&self, word: &'static str) -> Result<()> {
        match &*self.phase.borrow() {
            Phase::Running { .. } => Ok(()),
            other => Err(Error::Order { word, phase: other.word(), need: "running" }),
        }
    }

    /// The process `pid` is this job's from now on.
    pub fn began(&self, pid: i32, pidfd: OwnedFd) {
        let mut live = self.live();
        live.process = Some(Process { pid, pidfd, started: Instant::now() });
        if live.cause.is_some() {
            live.signal(libc::SIGKILL); // it was killed while it was being started
        }
        drop(live);
        self.phase.send_replace(Phase::Running { stopped: false });
    }

    /// The process is gone: gives why the node ended it, if it did, and how long it ran.
    pub fn gone(&self) -> (Option<(Cause, String)>, u64) {
        let mut live = self.live();
        let process = live.process.take();
        (live.cause.take(), process.map_or(0, |p| p.started.elapsed().as_millis() as u64))
    }

    /// It has ended this way.
    pub fn end(&self, outcome: Outcome) {
        self.input.close();
        self.stdout.close();
        self.stderr.close();
        self.space.close();
        self.phase.send_replace(Phase::Ended(Arc::new(outcome)));
    }

    /// Sends `signal` to its process.
    pub fn signal(&self, signal: i32) {
        self.live().signal(signal);
    }

    /// Stops or continues its process.
    pub fn freeze(&self, stopped: bool) {
        self.signal(if stopped { libc::SIGSTOP } else { libc::SIGCONT });
        self.phase.send_if_modified(|phase| match phase {
            Phase::Running { stopped: was } => std::mem::replace(was, stopped) != stopped,
            _ => false,
        });
    }

    /// Ends it for `cause`, unless it is ending already; does not wait.
    pub fn stop(&self, cause: Cause, text: impl Into<String>) {
        let mut live = self.live();
        if live.cause.is_none() {
            live.cause = Some((cause, text.into()));
        }
        live.signal(libc::SIGKILL);
        drop(live);
        let was_new = self.phase.send_if_modified(|phase| {
            let new = matches!(phase, Phase::New);
            if new {
                *phase = Phase::Starting; // nobody else ends or starts it now
            }
            new
        });
        if was_new {
            let (cause, text) = self.gone().0.unwrap_or((Cause::Killed, String::new()));
            self.end(Outcome { word: cause.into(), text, usage: Usage::default() });
        }
    }

    /// Ends it and waits until its process is gone.
    pub async fn kill(&self) {
        self.stop(Cause::Killed, "");
        self.ended().await;
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> Option<Arc<Outcome>> {
        let mut phase = self.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Ended(_))).await.ok()?;
        match &*ended {
            Phase::Ended(outcome) => Some(outcome.clone()),
            _ => None,
        }
    }

    /// What it has used by now.
    pub fn usage(&self) -> Usage {
        if let Phase::Ended(outcome) = &*self.phase.borrow() {
            return outcome.usage;
        }
        let mut usage = Usage {
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            compile_ms: self.compile_ms.load(Ordering::Relaxed),
            ..Usage::default()
        };
        if let Some(process) = &self.live().process {
            usage.real_ms = process.started.elapsed().as_millis() as u64;
            process.look(&mut usage);
        }
        usage
    }

    /// Its owner keeps it for `term` from now.
    pub fn renew(&self, term: Duration) {
        self.live().renewed = Some(Instant::now() + term);
        self.changed.notify_waiters();
    }

    /// Its owner needs it no longer than it runs.
    pub fn release(&self) {
        self.live().released = true;
        self.changed.notify_waiters();
    }

    /// Until when its owner keeps it, if they said so, and whether it goes as soon as it has ended.
    pub fn lease(&self) -> (Option<Instant>, bool) {
        let live = self.live();
        (live.renewed, live.released)
    }
}

impl Live {
    fn signal(&self, signal: i32) {
        if let Some(process) = &self.process {
            let (fd, none) = (process.pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
            // SAFETY: the descriptor is a pidfd of ours; no information goes with the signal. That the process is gone
            // already is no failure.
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) };
        }
    }
}

impl Process {
    /// Fills in what the system counts of the running process.
    fn look(&self, usage: &mut Usage) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The second field is the command in parentheses, and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        let number = |i: usize| fields.get(i).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        usage.user_ms = number(11) * 10; // clock ticks, of which Linux shows 100 a second
        usage.sys_ms = number(12) * 10;
    }
}
