//! The worker, seen from the node: one fork server, and the processes it made that wait for a job.
//!
//! A process is made before the job that will have it, so that starting a job costs one message. If the worker dies its
//! processes die with it, and it is started again; a job that had one ends `lost`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};

use crate::message::{Hash, News, Order, PACKET_MAX, Packet, receive, send};
use crate::{Error, Result};

/// Processes that wait for a job.
const SPARES: usize = 2;
/// How long a job waits for a process when none is there.
const SPARE_WAIT: Duration = Duration::from_secs(10);
/// How long the first restart waits; each one after it twice as long, up to `RESTART_MAX`, until a worker was ready.
const RESTART_MIN: Duration = Duration::from_millis(50);
const RESTART_MAX: Duration = Duration::from_secs(10);

/// A process that waits for a job.
pub struct Spare {
    pub pid: i32,
    /// Its socket.
    pub link: OwnedFd,
    /// The process, whatever becomes of its number.
    pub pidfd: OwnedFd,
    /// How it ended; an error when the worker died first.
    pub gone: oneshot::Receiver<Gone>,
}

impl Spare {
    fn has_died(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    pub status: i32,
    pub user_us: u64,
    pub sys_us: u64,
    pub peak_kb: u64,
}

/// The fork server and its waiting processes.
pub struct Pool {
    command: Vec<OsString>,
    cache: PathBuf,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    control: Option<Arc<AsyncFd<OwnedFd>>>,
    engine: Option<String>,
    spares: VecDeque<Spare>,
    /// Forks that were ordered and have not come.
    ordered: usize,
    waits: HashMap<i32, oneshot::Sender<Gone>>,
    loaded: HashSet<Hash>,
    starts: u64,
    failure: Option<String>,
}

impl Pool {
    /// Starts the worker; must be called on a tokio runtime. The worker ends when the pool is dropped.
    pub fn start(command: Vec<OsString>, cache: PathBuf) -> Arc<Pool> {
        let pool = Arc::new(Pool { command, cache, state: Mutex::default(), news: Notify::new() });
        tokio::spawn(keep(Arc::downgrade(&pool)));
        pool
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine's id, or why there is none yet.
    pub fn engine(&self) -> Result<String, String> {
        let state = self.lock();
        state.engine.clone().ok_or_else(|| state.failure.clone().unwrap_or_else(|| "starting".into()))
    }

    /// How often a worker was started.
    pub fn starts(&self) -> u64 {
        self.lock().starts
    }

    /// A process for one job.
    /// # Errors
    /// `NoWorker` where none comes within 10 s.
    pub async fn take(&self) -> Result<Spare> {
        let deadline = tokio::time::Instant::now() + SPARE_WAIT;
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            {
                let mut state = self.lock();
                while let Some(spare) = state.spares.pop_front() {
                    if spare.has_died() {
                        continue; // its death is known to the system and not yet told by the worker
                    }
                    if state.spares.is_empty() {
                        state.order_forks(1);
                    }
                    return Ok(spare);
                }
                state.order_forks(1);
            }
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                return Err(Error::NoWorker {
                    why: self.engine().err().unwrap_or_else(|| "it makes no process".into()),
                });
            }
        }
    }

    /// Makes up for the processes taken: called when a job has ended, so that its start does not wait for it.
    pub fn refill(&self) {
        self.lock().order_forks(SPARES);
    }

    /// Has the worker keep the program `hash`, and makes new waiting processes that begin with it.
    pub fn load(&self, hash: Hash) {
        let mut state = self.lock();
        if state.loaded.insert(hash) {
            state.order(&Order::Load { hash });
            state.spares.clear(); // their sockets close, which is their order to go
            state.ordered = 0;
            state.order_forks(SPARES);
        }
    }
}

impl State {
    fn order(&self, order: &Order) {
        if let Some(control) = &self.control {
            // A full socket or a dead worker: the keeper sees the second, and the first means thousands of orders.
            let _ = send(control.as_raw_fd(), &order.encode(), &[]);
        }
    }

    /// Orders processes until `wanted` are there or on their way.
    fn order_forks(&mut self, wanted: usize) {
        while self.engine.is_some() && self.spares.len() + self.ordered < wanted {
            self.ordered += 1;
            self.order(&Order::Fork);
        }
    }
}

/// Keeps a worker running for as long as the pool is used.
async fn keep(pool: Weak<Pool>) {
    let mut pause = RESTART_MIN;
    loop {
        let Some(strong) = pool.upgrade() else { return };
        let started = strong.spawn();
        drop(strong);
        let why = match started {
            Ok((control, child)) => {
                let why = listen(&pool, &control).await;
                stop(child).await;
                why
            }
            Err(why) => why.to_string(),
        };
        let Some(strong) = pool.upgrade() else { return };
        {
            let mut state = strong.lock();
            if state.engine.is_some() {
                pause = RESTART_MIN;
            }
            let starts = state.starts;
            // Dropping the waits tells the jobs; dropping the spares' sockets those processes that still live.
            *state = State { starts, failure: Some(why), ..State::default() };
        }
        drop(strong);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RESTART_MAX);
    }
}

async fn stop(mut child: std::process::Child) {
    let _ = child.kill();
    let _ = tokio::task::spawn_blocking(move || child.wait()).await;
}

impl Pool {
    fn spawn(&self) -> std::io::Result<(Arc<AsyncFd<OwnedFd>>, std::process::Child)> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let (program, args) = self.command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        // Nothing of the node's environment reaches a process that strangers' code runs in.
        let child = command.args(args).env_clear().stdin(theirs).stdout(Stdio::null()).spawn()?;
        let control = Arc::new(watched(ours)?);
        let cache = self.cache.as_os_str().as_bytes().to_vec();
        send(control.as_raw_fd(), &Order::Start { cache }.encode(), &[])?;
        let mut state = self.lock();
        state.control = Some(control.clone());
        state.starts += 1;
        Ok((control, child))
    }

    fn hear(&self, news: News, fds: Vec<OwnedFd>) {
        let mut state = self.lock();
        match news {
            News::Ready { engine } => {
                state.engine = Some(engine);
                state.failure = None;
                state.order_forks(SPARES);
            }
            News::Forked { pid } => {
                state.ordered = state.ordered.saturating_sub(1);
                if let Ok([link, pidfd]) = <[OwnedFd; 2]>::try_from(fds) {
                    let (tell, gone) = oneshot::channel();
                    state.waits.insert(pid, tell);
                    state.spares.push_back(Spare { pid, link, pidfd, gone });
                }
            }
            News::Reaped { pid, status, user_us, sys_us, peak_kb } => {
                state.spares.retain(|spare| spare.pid != pid); // one that died before it had a job
                if let Some(tell) = state.waits.remove(&pid) {
                    let _ = tell.send(Gone { status, user_us, sys_us, peak_kb });
                }
            }
        }
        drop(state);
        self.news.notify_waiters();
    }
}

/// `fd`, made one whose calls do not wait, to be waited on until it can be read.
/// # Errors
/// As fcntl(2) and epoll_ctl(2).
pub fn watched(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    nix::fcntl::fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // SAFETY: an owned descriptor stays the same open one until it is dropped, by the AsyncFd and after its registration.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|e| e.into_parts().1)
}

/// Hears the worker's news until it is gone or the pool is; says why.
async fn listen(pool: &Weak<Pool>, control: &AsyncFd<OwnedFd>) -> String {
    let mut buf = vec![0; PACKET_MAX];
    loop {
        let got = control.async_io(Interest::READABLE, |fd| Ok(receive(fd, &mut buf)?)).await;
        let (len, fds) = match got {
            Ok((0, _)) => return "the worker ended".into(),
            Ok(got) => got,
            Err(e) => return format!("the worker: {e}"),
        };
        let Some(pool) = pool.upgrade() else { return String::new() };
        match News::decode(&buf[..len]) {
            Ok(news) => pool.hear(news, fds),
            Err(e) => return format!("the worker: {e}"),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The keeper holds the socket too, and waits on it: the end of both directions wakes the worker and it.
        if let Some(control) = &self.lock().control {
            let _ = nix::sys::socket::shutdown(control.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }
}
