//! The connection to the kernel: reading requests, starting them, answering, interrupts.
//!
//! One task reads the device; each request's future is polled once where it was read, and most are answered there and
//! then. What must wait becomes a task, known by the kernel's number for the request, and whoever takes that number out
//! of the table answers: the task when it is done, or an interrupt, which drops the future and says EINTR. The kernel
//! sends an interrupt only after its request was read, and the one reader starts a request before it reads on: so an
//! interrupt for an unknown number is for a request that was answered, and is dropped.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fs_ninep::{Error, File, Kind, Result};
use nix::errno::Errno;
use nix::sys::uio::writev;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, unix::AsyncFdReadyGuard};
use tokio::sync::watch;
use tokio::task::{AbortHandle, yield_now};

use crate::abi::{self, Malformed, Op, Out, Request};
use crate::nodes::Nodes;
use crate::opens::Opens;
use crate::ops;
use crate::spin::Spin;

/// Requests that may wait at a time; one more is answered EAGAIN.
pub const PARKED_MAX: usize = 16_384;
/// Requests answered in a row before other tasks of the thread get their turn.
const BURST: u32 = 16;
/// How long a change of the name space waits for an old kernel to forget names.
const SETTLE: Duration = Duration::from_millis(200);
/// A write from this size on keeps the read buffer; a smaller one is copied out of it.
const COPY_MAX: usize = 16 * 1024;

/// A request under way.
pub type Work = Pin<Box<dyn Future<Output = Result<Out>> + Send>>;

/// One connection. Lock order: none of its locks is taken under another.
pub struct Session {
    device: Arc<OwnedFd>,
    nodes: Mutex<Nodes>,
    opens: Mutex<Opens>,
    parked: Mutex<HashMap<u64, AbortHandle>>,
    changes: Mutex<Option<watch::Receiver<u64>>>,
    answer_within: Option<Duration>,
    minor: u32,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection is told besides the tree.
pub struct Config {
    /// Rises when the name space changes.
    pub changes: Option<watch::Receiver<u64>>,
    /// A request that waits longer is answered EINTR.
    pub answer_within: Option<Duration>,
    /// The kernel's minor protocol number.
    pub minor: u32,
}

/// Reads the kernel's INIT and answers it; gives its minor number.
pub fn greet(device: &OwnedFd) -> crate::Result<u32> {
    let mut buf = vec![0; abi::BUFFER];
    let n = nix::unistd::read(device, &mut buf).map_err(io::Error::from)?;
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let request = abi::decode(&buf[..n]).map_err(|_| broken())?;
    let Op::Init { major, minor, readahead, flags } = request.op else { return Err(broken().into()) };
    if major != abi::MAJOR || minor < abi::MINOR_MIN {
        send(device, request.unique, Err(Kind::Protocol));
        return Err(crate::Error::Version { major, minor });
    }
    let out = Out::Fields(abi::Fields::init(minor, readahead, flags & abi::init::WANTED));
    send(device, request.unique, Ok(&out));
    Ok(minor)
}

/// Writes one reply. The kernel takes it at once, or has forgotten the request: nothing to do in either case.
fn send(device: &OwnedFd, unique: u64, reply: Result<&Out, Kind>) {
    let (error, body) = match reply {
        Ok(out) => (0, out.as_bytes()),
        Err(kind) => (-(errno(kind) as i32), &[][..]),
    };
    let header = abi::out_header(body.len(), error, unique);
    let _ = writev(device, &[IoSlice::new(&header), IoSlice::new(body)]);
}

/// The number for a reply. The kernel drops a reply with a number it does not know, and then the caller waits for ever.
fn errno(kind: Kind) -> u32 {
    match kind.errno() {
        n if n == 0 || n >= abi::ERRNO_END => Kind::Io.errno(),
        n => n,
    }
}

/// A tree's refusal as the kernel may hear it: "not implemented" would switch the operation off for the whole mount.
fn refusal(error: &Error) -> Kind {
    match error.kind() {
        Kind::NotImplemented => Kind::NotSupported,
        kind => kind,
    }
}

impl Session {
    /// A connection that was greeted.
    pub fn new(device: OwnedFd, root: Arc<dyn File>, config: Config) -> Arc<Session> {
        Arc::new(Session {
            device: Arc::new(device),
            nodes: Mutex::new(Nodes::new(root)),
            opens: Mutex::default(),
            parked: Mutex::default(),
            changes: Mutex::new(config.changes),
            answer_within: config.answer_within,
            minor: config.minor,
        })
    }

    /// The nodes.
    pub fn nodes(&self) -> MutexGuard<'_, Nodes> {
        lock(&self.nodes)
    }

    /// The open files.
    pub fn opens(&self) -> MutexGuard<'_, Opens> {
        lock(&self.opens)
    }

    /// Serves until the kernel closes the connection.
    /// # Errors
    /// What the device said, if it was not the end of the mount.
    pub async fn serve(self: Arc<Session>, spin: Duration) -> io::Result<()> {
        let end = self.read_all(spin).await;
        let parked = std::mem::take(&mut *lock(&self.parked));
        parked.into_values().for_each(|task| task.abort());
        end
    }

    async fn read_all(self: &Arc<Session>, spin: Duration) -> io::Result<()> {
        // The end of the mount shows as an error, not as something to read.
        let interest = Interest::READABLE | Interest::ERROR;
        // SAFETY: what is registered is a share of the open device, which names it until it is dropped with `device`.
        let device = unsafe { AsyncFd::register_with_interest(self.device.clone(), interest)? };
        let mut buf = BytesMut::with_capacity(abi::BUFFER);
        let mut spin = Spin::new(spin);
        loop {
            let mut ready: AsyncFdReadyGuard<'_, _> = device.ready(interest).await?;
            let mut burst = 0;
            loop {
                match read_request(&self.device, &mut buf) {
                    Ok(()) => {
                        self.request(&mut buf);
                        burst += 1;
                        if burst % BURST == 0 {
                            yield_now().await;
                        }
                        spin.answered();
                    }
                    // Every other task of this thread has its turn between two looks.
                    Err(Errno::EAGAIN) if spin.again() => yield_now().await,
                    Err(Errno::EAGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    // ENOENT: the caller was killed before its request was read.
                    Err(Errno::EINTR | Errno::ENOENT) => {}
                    Err(Errno::ENODEV | Errno::ECONNABORTED) => return Ok(()),
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }

    fn request(self: &Arc<Session>, buf: &mut BytesMut) {
        // The data of a large write are not copied: the buffer goes with them, and comes back when they are dropped.
        let large = buf.len() > COPY_MAX;
        let whole = if large { buf.split().freeze() } else { Bytes::new() };
        let message: &[u8] = if large { &whole } else { buf };
        match abi::decode(message) {
            Ok(Request { op: Op::Interrupt { unique }, .. }) => self.interrupt(unique),
            Ok(Request { node, op: Op::Forget { count }, .. }) => self.nodes().forget(node, count),
            Ok(Request { op: Op::BatchForget { list }, .. }) => {
                let mut nodes = self.nodes();
                abi::forgotten(list).for_each(|(node, count)| nodes.forget(node, count));
            }
            Ok(Request { op: Op::NotifyReply, .. }) => {}
            Ok(request) => {
                let unique = request.unique;
                let keep = |data: &[u8]| if large { whole.slice_ref(data) } else { Bytes::copy_from_slice(data) };
                match ops::start(self, request, keep) {
                    Ok(work) => self.start(unique, work),
                    Err(kind) => send(&self.device, unique, Err(kind)),
                }
            }
            Err(Malformed { unique: Some(unique) }) => send(&self.device, unique, Err(Kind::Io)),
            Err(Malformed { unique: None }) => {}
        }
        buf.clear();
    }

    fn start(self: &Arc<Session>, unique: u64, mut work: Work) {
        let mut cx = Context::from_waker(Waker::noop());
        // A panic in a tree ends one request, not the mount.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx))) {
            Ok(Poll::Ready(done)) => self.reply(unique, done),
            Ok(Poll::Pending) => self.park(unique, work),
            Err(_) => self.reply(unique, Err(Kind::Io.into())),
        }
    }

    fn park(self: &Arc<Session>, unique: u64, work: Work) {
        let mut parked = lock(&self.parked);
        if parked.len() >= PARKED_MAX {
            drop(parked);
            return self.reply(unique, Err(Kind::Again.into()));
        }
        // Made before the task starts, so that the request is answered even if its future panics.
        let claim = Claim { session: self.clone(), unique, done: Err(Kind::Io.into()) };
        let limit = self.answer_within;
        let task = tokio::spawn(async move {
            let done = match limit {
                None => work.await,
                Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or(Err(Kind::Interrupted.into())),
            };
            claim.answer(done);
        });
        parked.insert(unique, task.abort_handle());
    }

    fn interrupt(&self, unique: u64) {
        let task = lock(&self.parked).remove(&unique);
        if let Some(task) = task {
            task.abort();
            send(&self.device, unique, Err(Kind::Interrupted));
        }
    }

    fn reply(&self, unique: u64, done: Result<Out>) {
        match done {
            Ok(out) => send(&self.device, unique, Ok(&out)),
            Err(e) => send(&self.device, unique, Err(refusal(&e))),
        }
    }

    /// If the name space has changed, makes the kernel look names up anew, before whoever changed it is answered.
    pub async fn settle(&self) {
        if !self.changed() {
            return;
        }
        self.nodes().renew();
        if self.minor >= abi::MINOR_EPOCH {
            return notify(&self.device, abi::NOTIFY_INC_EPOCH, &[]);
        }
        // Kernels before 6.16 are told name by name, and take the lock of the directory for it, which a lookup that waits
        // for an answer of this thread may hold: so on another, and not to be waited for in vain.
        let (names, device) = (self.nodes().names(), self.device.clone());
        let flags = if self.minor >= abi::MINOR_EXPIRE { abi::EXPIRE_ONLY } else { 0 };
        let told = tokio::task::spawn_blocking(move || {
            for (parent, name) in names {
                notify(&device, abi::NOTIFY_INVAL_ENTRY, &abi::inval_entry(parent, name.as_bytes(), flags));
            }
        });
        let _ = tokio::time::timeout(SETTLE, told).await;
    }

    fn changed(&self) -> bool {
        let mut changes = lock(&self.changes);
        let Some(rx) = changes.as_mut() else { return false };
        match rx.has_changed() {
            Ok(changed) => {
                rx.mark_unchanged();
                changed
            }
            Err(_) => {
                *changes = None;
                false
            }
        }
    }
}

fn notify(device: &OwnedFd, code: i32, body: &[u8]) {
    let header = abi::out_header(body.len(), code, 0);
    let _ = writev(device, &[IoSlice::new(&header), IoSlice::new(body)]);
}

/// A waiting request's right to answer: used when its task ends, however that happens, unless an interrupt was first.
struct Claim {
    session: Arc<Session>,
    unique: u64,
    done: Result<Out>,
}

impl Claim {
    fn answer(mut self, done: Result<Out>) {
        self.done = done;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if lock(&self.session.parked).remove(&self.unique).is_some() {
            let done = std::mem::replace(&mut self.done, Err(Kind::Io.into()));
            self.session.reply(self.unique, done);
        }
    }
}

fn read_request(device: &OwnedFd, buf: &mut BytesMut) -> nix::Result<()> {
    buf.reserve(abi::BUFFER);
    let spare = buf.spare_capacity_mut();
    // SAFETY: the pointer and length are those of writable memory that `buf` owns; the kernel writes at most that much.
    let n = unsafe { libc::read(device.as_fd().as_raw_fd(), spare.as_mut_ptr().cast(), abi::BUFFER) };
    let n = Errno::result(n)? as usize;
    // SAFETY: the kernel has written the first `n` bytes.
    unsafe { buf.set_len(n) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};

    use super::*;
    use crate::nodes::Found;

    /// What the kernel would read, as (code, body).
    fn heard(kernel: &OwnedFd) -> Vec<(i32, Vec<u8>)> {
        let mut all = Vec::new();
        let mut buf = [0; 4096];
        while let Ok(n @ 16..) = nix::sys::socket::recv(kernel.as_raw_fd(), &mut buf, MsgFlags::MSG_DONTWAIT) {
            assert_eq!(buf[..4], (n as u32).to_ne_bytes());
            assert_eq!(buf[8..16], [0; 8], "a notification has no request");
            let code = i32::from_ne_bytes([buf[4], buf[5], buf[6], buf[7]]);
            all.push((code, buf[16..n].to_vec()));
        }
        all
    }

    #[test]
    fn a_changed_name_space_is_told_to_every_kernel_in_its_words() {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (minor, want) in [
            (45, vec![(8, vec![])]),
            (38, vec![(3, abi::inval_entry(1, b"name", 1))]),
            (28, vec![(3, abi::inval_entry(1, b"name", 0))]),
        ] {
            let (device, kernel) =
                socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
            let (tell, changes) = watch::channel(0);
            let config = Config { changes: Some(changes), answer_within: None, minor };
            let session = Session::new(device, crate::nodes::tests::file("d1"), config);
            let file = crate::nodes::tests::file("d2");
            let name = fs_ninep::Name::new("name").unwrap();
            session
                .nodes()
                .intern(1, Found { name, server: file.server(), qid: file.qid(), size: 0, file: Some(file) });
            rt.block_on(session.settle());
            assert_eq!(heard(&kernel), vec![], "nothing has changed");
            tell.send_replace(1);
            rt.block_on(session.settle());
            assert_eq!(heard(&kernel), want, "7.{minor}");
            rt.block_on(session.settle());
            assert_eq!(heard(&kernel), vec![], "and not again");
        }
    }

    #[test]
    fn errors_the_kernel_takes() {
        for (said, heard) in [
            (Kind::NotFound, 2),
            (Kind::NotImplemented, 95),
            (Kind::Other(0), 5),
            (Kind::Other(511), 511),
            (Kind::Other(512), 5),
            (Kind::Other(9999), 5),
        ] {
            assert_eq!(errno(refusal(&said.into())), heard, "{said:?}");
        }
    }
}
