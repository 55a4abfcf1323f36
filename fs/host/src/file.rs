//! An open file of the host.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fs_ninep::{Call, Kind, OpenFile, OpenFlags, Result};
use nix::errno::Errno;

use crate::quota::Held;
use crate::sys::{self, failed};
use crate::{IO_MAX, Shared, Slot, blocking};

/// An open regular file.
pub(crate) struct OpenRegular(Arc<State>);

struct State {
    host: Arc<Shared>,
    fd: Arc<Held>,
    flags: OpenFlags,
    /// The file system answers a write at once or not at all; most local ones refuse to say.
    writes_now: AtomicBool,
    /// Keeps the handle it was opened from good, when the name goes.
    _pin: Arc<Held>,
    _slot: Slot,
}

impl OpenRegular {
    pub fn new(host: Arc<Shared>, fd: Arc<Held>, flags: OpenFlags, pin: Arc<Held>, slot: Slot) -> OpenRegular {
        OpenRegular(Arc::new(State { host, fd, flags, writes_now: AtomicBool::new(true), _pin: pin, _slot: slot }))
    }
}

/// What a read that may not wait has found.
enum Now {
    /// Everything there is to read.
    All(Vec<u8>),
    /// So much; the rest is on the disk.
    Part(Vec<u8>),
}

impl State {
    fn read_now(&self, offset: u64, count: usize) -> Result<Now> {
        let mut buf = Vec::with_capacity(count);
        while buf.len() < count {
            let at = offset + buf.len() as u64;
            match sys::read(self.fd.as_fd(), &mut buf, at, libc::RWF_NOWAIT) {
                Ok(0) => return Ok(Now::All(buf)),
                Ok(_) => {}
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(Now::Part(buf)),
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(Now::All(buf))
    }

    fn read_rest(&self, mut buf: Vec<u8>, offset: u64, count: usize) -> Result<Vec<u8>> {
        while buf.len() < count {
            let at = offset + buf.len() as u64;
            match sys::read(self.fd.as_fd(), &mut buf, at, 0) {
                Ok(0) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) if !buf.is_empty() => break,
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(buf)
    }

    /// Writes what the page cache takes without waiting: `None` where it takes nothing, or the file is counted.
    fn write_now(&self, data: &[u8], offset: u64) -> Result<Option<usize>> {
        if self.host.quota.is_some() || !self.writes_now.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match sys::write(self.fd.as_fd(), data, offset, libc::RWF_NOWAIT) {
            Ok(n) => Ok(Some(n)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                self.writes_now.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(e) => Err(failed(e)),
        }
    }

    fn write_all(&self, data: &[u8], offset: u64) -> Result<usize> {
        let Some(quota) = &self.host.quota else { return self.write_rest(data, offset) };
        let size = || sys::stat(self.fd.as_fd()).map(|s| s.size).map_err(failed);
        let len = data.len() as u64;
        let end = |size: u64| match self.flags.has(OpenFlags::APPEND) {
            true => size.saturating_add(len),
            false => size.max(offset.saturating_add(len)),
        };
        quota.counted(size, end, || self.write_rest(data, offset))
    }

    fn write_rest(&self, data: &[u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < data.len() {
            match sys::write(self.fd.as_fd(), &data[done..], offset + done as u64, 0) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::EINTR) => {}
                Err(_) if done > 0 => break,
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(done)
    }
}

/// `buf` without the room that a short read left.
fn fitted(buf: Vec<u8>) -> Bytes {
    if buf.len() < buf.capacity() / 2 { Bytes::copy_from_slice(&buf) } else { buf.into() }
}

/// An offset past which nothing can be.
fn beyond(offset: u64, count: u64) -> bool {
    offset.checked_add(count).is_none_or(|end| end > i64::MAX as u64)
}

pub(crate) fn sync(fd: BorrowedFd<'_>, data_only: bool) -> Result<()> {
    if data_only { nix::unistd::fdatasync(fd) } else { nix::unistd::fsync(fd) }.map_err(failed)
}

impl OpenFile for OpenRegular {
    fn iounit(&self) -> u32 {
        IO_MAX
    }

    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        Box::pin(async move {
            let count = count.min(IO_MAX);
            if !self.0.flags.reads() {
                return Err(Kind::BadFile.into());
            }
            if beyond(offset, count.into()) {
                return Ok(Bytes::new());
            }
            let count = count as usize;
            let buf = match self.0.read_now(offset, count)? {
                Now::All(buf) => buf,
                Now::Part(buf) => {
                    let state = self.0.clone();
                    blocking(move || state.read_rest(buf, offset, count)).await?
                }
            };
            Ok(fitted(buf))
        })
    }

    fn write(&self, offset: u64, data: Bytes) -> Call<'_, u32> {
        Box::pin(async move {
            if !self.0.flags.writes() {
                return Err(Kind::BadFile.into());
            }
            let data = data.slice(..data.len().min(IO_MAX as usize));
            if beyond(offset, data.len() as u64) {
                return Err(Kind::TooBig.into());
            }
            let done = self.0.write_now(&data, offset)?.unwrap_or(0);
            if done == data.len() {
                return Ok(done as u32);
            }
            let (state, rest) = (self.0.clone(), data.slice(done..));
            let more = blocking(move || state.write_all(&rest, offset + done as u64)).await;
            match more {
                Err(_) if done > 0 => Ok(done as u32),
                more => Ok((done + more?) as u32),
            }
        })
    }

    fn fsync(&self, data_only: bool) -> Call<'_, ()> {
        let state = self.0.clone();
        Box::pin(blocking(move || sync(state.fd.as_fd(), data_only)))
    }
}
