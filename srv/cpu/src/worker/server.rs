//! The fork server: waits for orders from the node and for the ends of its children.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, fork, setsid};

use super::job;
use super::module::{Program, Store};
use crate::message::{Hash, News, Order, PACKET_MAX, Packet, receive, send};

/// Programs kept in memory; the one used longest ago makes room.
const LOADED_MAX: usize = 64;

/// What every child begins with.
pub struct Kit {
    pub store: Store,
    loaded: VecDeque<(Hash, Rc<Program>)>,
}

impl Kit {
    /// The program kept in memory under `hash`.
    pub fn program(&self, hash: &Hash) -> Option<Rc<Program>> {
        self.loaded.iter().find(|(h, _)| h == hash).map(|(_, program)| program.clone())
    }

    fn load(&mut self, hash: Hash) {
        if self.program(&hash).is_some() {
            return;
        }
        if let Some(program) = self.store.load(&hash) {
            if self.loaded.len() == LOADED_MAX {
                self.loaded.pop_front();
            }
            self.loaded.push_back((hash, Rc::new(program)));
        }
    }
}

/// Why the worker ends before the node does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}")]
    System(&'static str, Errno),
    #[error("engine: {0:#}")]
    Engine(wasmtime::Error),
    #[error("an order that is none: {0}")]
    Order(&'static str),
}

/// Serves the node at `control` until it goes away.
/// # Errors
/// What keeps it from doing so while the node is there.
pub fn run(control: OwnedFd) -> Result<(), Error> {
    match serve(control) {
        // The node is gone, and its jobs go with this process.
        Err(Error::System(_, Errno::EPIPE | Errno::ECONNRESET)) => Ok(()),
        other => other,
    }
}

fn serve(control: OwnedFd) -> Result<(), Error> {
    let say = |what: &'static str| move |e: Errno| Error::System(what, e);
    let _ = setsid(); // an interrupt from the node's terminal is the node's business
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|e| say("/dev/null")(Errno::from_raw(e.raw_os_error().unwrap_or(0))))?;
    nix::unistd::dup2_stdin(&null).and_then(|()| nix::unistd::dup2_stdout(&null)).map_err(say("dup2"))?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().map_err(say("sigprocmask"))?;
    let signals =
        SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(say("signalfd"))?;

    let mut buf = vec![0; PACKET_MAX];
    let (len, _) = receive(&control, &mut buf).map_err(say("first order"))?;
    let Ok(Order::Start { cache }) = Order::decode(&buf[..len]) else {
        return Err(Error::Order("the first is not a start"));
    };
    let cache = PathBuf::from(OsString::from_vec(cache));
    let store = Store::new(&cache).map_err(Error::Engine)?;
    let engine = store.id.clone();
    let mut kit = Kit { store, loaded: VecDeque::new() };
    tell(&control, &News::Ready { engine }, &[]).map_err(say("ready"))?;

    loop {
        let mut fds =
            [PollFd::new(control.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(say("poll"))?,
        };
        let [orders, ends] = fds.map(|fd| fd.revents().is_some_and(|r| !r.is_empty()));
        if ends {
            while let Ok(Some(_)) = signals.read_signal() {}
            reap(&control).map_err(say("reap"))?;
        }
        if orders {
            let (len, _) = receive(&control, &mut buf).map_err(say("order"))?;
            if len == 0 {
                return Ok(());
            }
            match Order::decode(&buf[..len]) {
                Ok(Order::Fork) => spawn(&control, &kit).map_err(say("fork"))?,
                Ok(Order::Load { hash }) => kit.load(hash),
                Ok(Order::Start { .. }) => return Err(Error::Order("a second start")),
                Err(_) => return Err(Error::Order("it does not decode")),
            }
        }
    }
}

fn tell(control: &OwnedFd, news: &News, fds: &[RawFd]) -> nix::Result<()> {
    send(control.as_raw_fd(), &news.encode(), fds)
}

/// Makes one process that waits for a job.
fn spawn(control: &OwnedFd, kit: &Kit) -> nix::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: this process has one thread, so the child may do all that the parent may.
    match unsafe { fork() }? {
        ForkResult::Child => job::wait(kit, theirs),
        ForkResult::Parent { child } => {
            drop(theirs);
            // SAFETY: the call makes a new descriptor or fails; the child is not reaped yet, so the number is its own.
            let pidfd = unsafe {
                match libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) {
                    -1 => return Err(Errno::last()),
                    fd => OwnedFd::from_raw_fd(fd as RawFd),
                }
            };
            tell(control, &News::Forked { pid: child.as_raw() }, &[ours.as_raw_fd(), pidfd.as_raw_fd()])
        }
    }
}

/// Tells the node of every child that has ended.
fn reap(control: &OwnedFd) -> nix::Result<()> {
    loop {
        let mut status = 0;
        // SAFETY: an rusage of zeros is one; the call fills it.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to locals that live through the call.
        let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage) };
        if pid <= 0 {
            return Ok(());
        }
        let us = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
        let (user_us, sys_us) = (us(usage.ru_utime), us(usage.ru_stime));
        let news = News::Reaped { pid, status, user_us, sys_us, peak_kb: usage.ru_maxrss as u64 };
        tell(control, &news, &[])?;
    }
}
