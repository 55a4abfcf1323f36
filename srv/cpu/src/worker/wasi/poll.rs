//! Clocks, random bytes, waiting.

use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Host;
use super::abi::{Errno, Memory, Result};
use super::fds::Fd;

/// Subscriptions of one poll_oneoff.
const SUBSCRIPTIONS_MAX: i32 = 4096;
const HANGUP: u16 = 1;

/// What one subscription waits for.
enum Wait {
    Clock { due_ns: u64 },
    Pipe { raw: i32, writes: bool },
    Ready,
    Failed(Errno),
}

struct Subscription {
    userdata: u64,
    tag: u8,
    wait: Wait,
}

/// The host's name for a WASI clock.
fn clock(id: i32) -> Result<libc::clockid_t> {
    Ok(match id {
        0 => libc::CLOCK_REALTIME,
        1 => libc::CLOCK_MONOTONIC,
        2 => libc::CLOCK_PROCESS_CPUTIME_ID,
        3 => libc::CLOCK_THREAD_CPUTIME_ID,
        _ => return Err(Errno::INVAL),
    })
}

type ClockCall = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int;

/// What `call` (clock_gettime or clock_getres) says of the clock `id`, in nanoseconds.
fn ask_ns(call: ClockCall, id: libc::clockid_t) -> Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is that of `time`, which the call fills.
    if unsafe { call(id, &mut time) } != 0 {
        return Err(Errno::INVAL);
    }
    let sec = u64::try_from(time.tv_sec).map_err(|_| Errno::OVERFLOW)?;
    Ok(sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64))
}

fn now_ns(id: libc::clockid_t) -> Result<u64> {
    ask_ns(libc::clock_gettime, id)
}

impl Host {
    pub fn clock_res_get(&mut self, memory: &mut Memory, id: i32, out: i32) -> Result<()> {
        memory.put_u64(out, ask_ns(libc::clock_getres, clock(id)?)?)
    }

    pub fn clock_time_get(&mut self, memory: &mut Memory, id: i32, _precision: i64, out: i32) -> Result<()> {
        memory.put_u64(out, now_ns(clock(id)?)?)
    }

    pub fn random_get(&mut self, memory: &mut Memory, buf: i32, len: i32) -> Result<()> {
        let buf = memory.bytes_mut(buf, len as u32 as usize)?;
        for chunk in buf.chunks_mut(256) {
            // SAFETY: the pointer and length are those of `chunk`; up to 256 bytes the call is never cut short.
            let got = unsafe { libc::getrandom(chunk.as_mut_ptr().cast(), chunk.len(), 0) };
            if got != chunk.len() as isize {
                return Err(Errno::IO);
            }
        }
        Ok(())
    }

    pub fn sched_yield(&mut self, _: &mut Memory) -> Result<()> {
        std::thread::yield_now();
        Ok(())
    }

    pub fn poll_oneoff(&mut self, m: &mut Memory, subs: i32, out: i32, count: i32, stored: i32) -> Result<()> {
        if !(1..=SUBSCRIPTIONS_MAX).contains(&count) {
            return Err(Errno::INVAL);
        }
        m.bytes(out, count * 32)?;
        let mut waits = Vec::with_capacity(count as usize);
        for i in 0..count {
            waits.push(self.subscription(m, subs.wrapping_add(i * 48))?);
        }
        let events = wait(&waits)?;
        for (i, (sub, errno, hangup)) in events.iter().enumerate() {
            let at = out.wrapping_add(i as i32 * 32);
            let mut event = [0; 32];
            event[0..8].copy_from_slice(&sub.userdata.to_le_bytes());
            event[8..10].copy_from_slice(&errno.to_le_bytes());
            event[10] = sub.tag;
            event[16..24].copy_from_slice(&u64::from(sub.tag != 0).to_le_bytes());
            event[24..26].copy_from_slice(&if *hangup { HANGUP } else { 0 }.to_le_bytes());
            m.put(at, &event)?;
        }
        m.put_u32(stored, events.len() as u32)
    }

    fn subscription(&mut self, m: &Memory, at: i32) -> Result<Subscription> {
        let userdata = m.u64(at)?;
        let tag = m.bytes(at.wrapping_add(8), 1)?[0];
        let wait = match tag {
            0 => {
                let id = m.u32(at.wrapping_add(16))? as i32;
                let timeout_ns = m.u64(at.wrapping_add(24))?;
                let absolute = m.u32(at.wrapping_add(40))? & 1 != 0;
                match clock(id).and_then(now_ns) {
                    // Kept as a time on the monotonic clock, whatever clock it was given on.
                    Ok(now) => {
                        let left = if absolute { timeout_ns.saturating_sub(now) } else { timeout_ns };
                        Wait::Clock { due_ns: now_ns(libc::CLOCK_MONOTONIC)?.saturating_add(left) }
                    }
                    Err(e) => Wait::Failed(e),
                }
            }
            1 | 2 => match self.fd(m.u32(at.wrapping_add(16))? as i32) {
                Ok(Fd::Pipe(pipe)) if pipe.writes == (tag == 2) => Wait::Pipe { raw: pipe.raw(), writes: pipe.writes },
                Ok(Fd::File(_)) => Wait::Ready,
                Ok(_) => Wait::Failed(Errno::BADF),
                Err(e) => Wait::Failed(e),
            },
            _ => return Err(Errno::INVAL),
        };
        Ok(Subscription { userdata, tag, wait })
    }
}

/// Waits until one of them is there; gives those that are, with their error and whether the other end is gone.
fn wait(subs: &[Subscription]) -> Result<Vec<(&Subscription, u16, bool)>> {
    let at_once = subs.iter().any(|s| matches!(s.wait, Wait::Ready | Wait::Failed(_)));
    let due = subs.iter().filter_map(|s| if let Wait::Clock { due_ns } = s.wait { Some(due_ns) } else { None }).min();
    loop {
        let mut fds = Vec::new();
        for sub in subs {
            if let Wait::Pipe { raw, writes } = sub.wait {
                // SAFETY: the number is that of a pipe in the descriptor table, which nothing changes during this call.
                let fd = unsafe { BorrowedFd::borrow_raw(raw) };
                fds.push(PollFd::new(fd, if writes { PollFlags::POLLOUT } else { PollFlags::POLLIN }));
            }
        }
        let now = now_ns(libc::CLOCK_MONOTONIC)?;
        let timeout = match (at_once, due) {
            (true, _) => PollTimeout::ZERO,
            (false, Some(due)) => {
                let ms = due.saturating_sub(now).div_ceil(1_000_000).min(60_000);
                PollTimeout::from(ms as u16)
            }
            (false, None) => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(std::io::Error::from(e).into()),
        }
        let now = now_ns(libc::CLOCK_MONOTONIC)?;
        let mut seen = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let mut events = Vec::new();
        for sub in subs {
            match sub.wait {
                Wait::Ready => events.push((sub, 0, false)),
                Wait::Failed(e) => events.push((sub, e.0, false)),
                Wait::Clock { due_ns } if due_ns <= now => events.push((sub, 0, false)),
                Wait::Clock { .. } => {}
                Wait::Pipe { .. } => {
                    let got = seen.next().unwrap_or(PollFlags::empty());
                    if !got.is_empty() {
                        events.push((sub, 0, got.contains(PollFlags::POLLHUP)));
                    }
                }
            }
        }
        if !events.is_empty() {
            return Ok(events);
        }
    }
}
