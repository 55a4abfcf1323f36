//! One connection as its callers see it: tags, fids, what is under way.
//!
//! A caller encodes its request into the shared output and waits in its tag's slot; one driver task does all I/O, so that
//! many calls share a write and a reply wakes its caller alone. A tag is free again on its R, or on the Rflush of the
//! flush that followed it; a fid number on Rclunk. Nothing here blocks; the lock is held for table work and never across
//! a drop of somebody's handle.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::SetOnce;

use super::ClientConfig;
use crate::buffer::Output;
use crate::wire::{Dialect, HEADER, NOFID, Reply, Request};
use crate::{Attr, Error, Kind, Result, ServerId};

/// Most calls under way at once. Flushes and clunks may take the tags above.
pub const CALLS_MAX: usize = 32_000;
/// Quarters of the call timeout that a call is given.
const PATIENCE: u64 = 4;

/// A connection that stands, or stood.
pub struct Conn {
    pub dialect: Dialect,
    pub msize: u32,
    pub config: ClientConfig,
    pub server: ServerId,
    pub dead: SetOnce<Error>,
    state: Mutex<State>,
}

/// What the lock guards.
pub struct State {
    pub out: Output,
    pub driver: Option<Waker>,
    pub closing: bool,
    slots: Vec<Slot>,
    free_tags: Vec<u16>,
    free_fids: Vec<u32>,
    next_fid: u32,
    calls: usize,
    epoch: u64,
    timed: usize,
}

enum Slot {
    Free,
    /// A caller waits.
    Waiting {
        ty: u8,
        waker: Option<Waker>,
        keep: Keep,
        since: Option<u64>,
    },
    /// The answer, until its caller takes it.
    Answered(Keep, Bytes),
    /// The caller gave up; its flush is under way. `keep` goes when the answer has come, the tag when Rflush has.
    Abandoned {
        ty: u8,
        keep: Option<Keep>,
    },
    /// A flush of the tag `old`.
    Flush {
        old: u16,
        since: u64,
    },
    /// A clunk nobody waits for.
    Clunk {
        fid: u32,
    },
}

/// What a request holds on to until it is settled.
#[derive(Default)]
pub struct Keep {
    /// A fid that must not be reused before.
    pub fid: Option<Arc<Fid>>,
    /// That the fid becomes a file when as many qids come.
    pub binds: Option<usize>,
    /// Where what a read at this offset brought goes when nobody waits for it any more.
    pub read: Option<(Arc<HandBack>, u64)>,
}

/// Live reads that were given up. What they bring all the same is the next read's.
#[derive(Default)]
pub struct HandBack(Mutex<Returned>);

#[derive(Default)]
struct Returned {
    abandoned: usize,
    data: VecDeque<(u64, Bytes)>,
    wakers: Vec<Waker>,
}

/// A fid number, given back when dropped: by a clunk where the server has bound it.
pub struct Fid {
    pub link: Arc<Link>,
    pub id: u32,
    state: AtomicU8,
}

const UNBOUND: u8 = 0;
const BOUND: u8 = 1;
const LOST: u8 = 2;

/// Held by every handle of the connection; when the last goes, the connection closes.
pub struct Link(pub Arc<Conn>);

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closing = true;
        state.wake_driver();
    }
}

impl State {
    fn tag(&mut self) -> Option<u16> {
        if let Some(tag) = self.free_tags.pop() {
            return Some(tag);
        }
        let tag = u16::try_from(self.slots.len()).ok().filter(|&t| t < crate::wire::NOTAG)?;
        self.slots.push(Slot::Free);
        Some(tag)
    }

    fn free(&mut self, tag: u16) -> Slot {
        self.free_tags.push(tag);
        mem::replace(&mut self.slots[tag as usize], Slot::Free)
    }

    pub fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Whether the driver must keep time.
    pub fn is_timed(&self) -> bool {
        self.timed > 0
    }
}

impl Conn {
    pub fn new(dialect: Dialect, msize: u32, config: ClientConfig) -> Conn {
        let state = State {
            out: Output::default(),
            driver: None,
            closing: false,
            slots: Vec::new(),
            free_tags: Vec::new(),
            free_fids: Vec::new(),
            next_fid: 0,
            calls: 0,
            epoch: 0,
            timed: 0,
        };
        Conn { dialect, msize, config, server: ServerId::fresh(), dead: SetOnce::new(), state: Mutex::new(state) }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The largest payload of one message.
    pub fn payload_max(&self) -> u32 {
        self.msize - HEADER
    }

    /// Whether the server is known to obey pipelined requests in order.
    pub fn pipelines(&self) -> bool {
        self.dialect == Dialect::Ipos
    }

    pub fn is_linux(&self) -> bool {
        self.dialect.is_linux()
    }

    /// Sends `request`; the answer is the future. A call that may wait for ever is not timed.
    pub fn send(&self, request: &Request, keep: Keep, timed: bool) -> Result<Answer<'_>> {
        let mut state = self.lock();
        if let Some(e) = self.dead.get() {
            return Err(e.clone());
        }
        let room = state.calls < CALLS_MAX;
        let tag = room.then(|| state.tag()).flatten();
        let tag = tag.ok_or_else(|| Error::new(Kind::Again, "too many calls under way on this connection"))?;
        let since = timed.then_some(state.epoch);
        state.timed += usize::from(timed);
        state.calls += 1;
        state.slots[tag as usize] = Slot::Waiting { ty: request.ty() + 1, waker: None, keep, since };
        state.out.push(|o| request.encode_head(self.dialect, tag, o));
        state.wake_driver();
        Ok(Answer { conn: self, tag, taken: false })
    }

    /// Decodes a frame that [`Answer`] gave; what does not decode ends the connection.
    pub fn decode<'a>(&self, frame: &'a Bytes) -> Result<Reply<'a>> {
        match Reply::decode(self.dialect, frame) {
            Ok((_, Reply::Lerror { ecode, ename })) => Err(refusal(Kind::from_errno(ecode), ename.0)),
            Ok((_, Reply::Error { ename })) => Err(refusal(Kind::from_text(&String::from_utf8_lossy(ename)), ename)),
            Ok((_, reply)) => Ok(reply),
            Err(bad) => Err(self.broken(bad)),
        }
    }

    /// The server broke the protocol: the connection is dropped.
    pub fn broken(&self, what: impl std::fmt::Display) -> Error {
        let e = Error::new(Kind::Protocol, format!("the server broke the protocol: {what}"));
        self.fail(e.clone());
        e
    }

    /// Ends the connection for `why`; every call under way ends with it. The first reason stays.
    pub fn fail(&self, why: Error) {
        if self.dead.set(why).is_err() {
            return;
        }
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let mut slots = mem::take(&mut state.slots);
        for slot in &mut slots {
            if let Slot::Waiting { waker, .. } = slot {
                wakers.extend(waker.take());
            }
            if let Slot::Waiting { keep: Keep { read: Some((read, _)), .. }, .. }
            | Slot::Abandoned { keep: Some(Keep { read: Some((read, _)), .. }), .. } = slot
            {
                wakers.extend(read.settle(0, None));
            }
        }
        state.closing = true;
        state.wake_driver();
        drop(state);
        drop(slots);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes in one frame from the server.
    pub fn receive(&self, frame: Bytes) -> Result<()> {
        let broken = |what: String| Error::new(Kind::Protocol, format!("the server broke the protocol: {what}"));
        let (Some(&ty), Some(tag)) = (frame.get(4), frame.get(5..7)) else { return Err(broken("no tag".into())) };
        let tag = u16::from_le_bytes([tag[0], tag[1]]);
        let error = if self.is_linux() { 7 } else { 107 };
        let mut guard = self.lock();
        let state = &mut *guard;
        let slot = state.slots.get_mut(tag as usize).ok_or_else(|| broken(format!("an answer to tag {tag}")))?;
        match slot {
            Slot::Waiting { ty: want, waker, keep, since } if ty == *want || ty == error => {
                keep.bind(self.dialect, &frame);
                let (waker, keep) = (waker.take(), mem::take(keep));
                state.timed -= usize::from(since.is_some());
                *slot = Slot::Answered(keep, frame);
                drop(guard);
                waker.into_iter().for_each(Waker::wake);
            }
            Slot::Abandoned { ty: want, keep: keep @ Some(_) } if ty == *want || ty == error => {
                let keep = keep.take();
                drop(guard);
                keep.into_iter().for_each(|k| k.late(self.dialect, &frame));
            }
            Slot::Flush { old, .. } if ty == 109 => {
                let old = *old;
                state.free(tag);
                state.timed -= 1;
                state.calls -= 1;
                let slot = state.free(old);
                drop(guard);
                if let Slot::Abandoned { keep: Some(keep), .. } = slot {
                    keep.unanswered();
                }
            }
            Slot::Clunk { fid } if ty == 121 || ty == error => {
                let fid = *fid;
                state.free_fids.push(fid);
                state.free(tag);
            }
            _ => return Err(broken(format!("an answer of type {ty} to tag {tag}"))),
        }
        Ok(())
    }

    /// A quarter of the call timeout has passed: wakes those who waited for four.
    pub fn tick(&self) {
        let mut late = Vec::new();
        let mut state = self.lock();
        state.epoch += 1;
        let now = state.epoch;
        let mut dead = false;
        for slot in &mut state.slots {
            match slot {
                Slot::Waiting { waker, since: Some(since), .. } if now > *since + PATIENCE => late.extend(waker.take()),
                Slot::Flush { since, .. } if now > *since + PATIENCE => dead = true,
                _ => {}
            }
        }
        drop(state);
        late.into_iter().for_each(Waker::wake);
        if dead {
            let text = format!("the server answered nothing for {} ms", 2 * self.config.call_timeout_ms);
            self.fail(Error::new(Kind::TimedOut, text));
        }
    }

    /// A fid that nothing is bound to.
    pub fn fid(link: &Arc<Link>) -> Result<Arc<Fid>> {
        let mut state = link.0.lock();
        let next = state.next_fid;
        let id = match state.free_fids.pop() {
            Some(id) => id,
            None if next < NOFID => {
                state.next_fid += 1;
                next
            }
            None => return Err(Kind::TooManyFiles.into()),
        };
        drop(state);
        Ok(Arc::new(Fid { link: link.clone(), id, state: AtomicU8::new(UNBOUND) }))
    }

    /// Attributes as this side shows them.
    pub fn shown(&self, mut attr: Attr) -> Attr {
        if let Some((uid, gid)) = self.config.ids {
            (attr.uid, attr.gid) = (uid, gid);
        }
        attr
    }
}

fn refusal(kind: Kind, text: &[u8]) -> Error {
    let text = String::from_utf8_lossy(text);
    if text.is_empty() || text == kind.text() || text == kind.wire_text() {
        kind.into()
    } else {
        Error::new(kind, text)
    }
}

impl Keep {
    /// Holds `fid`.
    pub fn fid(fid: &Arc<Fid>) -> Keep {
        Keep { fid: Some(fid.clone()), ..Keep::default() }
    }

    /// Holds `fid`, which becomes a file when `names` qids come.
    pub fn binds(fid: &Arc<Fid>, names: usize) -> Keep {
        Keep { binds: Some(names), ..Keep::fid(fid) }
    }

    fn bind(&self, dialect: Dialect, frame: &Bytes) {
        let (Some(fid), Some(names)) = (&self.fid, self.binds) else { return };
        let bound = match Reply::decode(dialect, frame) {
            Ok((_, Reply::Walk { qids })) => qids.len() == names,
            Ok((_, Reply::Attach { .. })) => true,
            _ => false,
        };
        if bound {
            fid.set_bound();
        }
    }

    /// An answer that nobody waits for any more, and that counts all the same.
    fn late(self, dialect: Dialect, frame: &Bytes) {
        self.bind(dialect, frame);
        if let Some((read, offset)) = &self.read {
            let data = match Reply::decode(dialect, frame) {
                Ok((_, Reply::Read { data })) if !data.is_empty() => Some(data),
                _ => None,
            };
            read.settle(*offset, data).into_iter().for_each(Waker::wake);
        }
    }

    fn unanswered(self) {
        if let Some((read, _)) = &self.read {
            read.settle(0, None).into_iter().for_each(Waker::wake);
        }
    }
}

impl HandBack {
    fn lock(&self) -> MutexGuard<'_, Returned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn abandon(&self) {
        self.lock().abandoned += 1;
    }

    fn settle(&self, offset: u64, data: Option<Bytes>) -> Vec<Waker> {
        let mut returned = self.lock();
        returned.abandoned = returned.abandoned.saturating_sub(1);
        returned.data.extend(data.map(|d| (offset, d)));
        mem::take(&mut returned.wakers)
    }

    /// Waits until no read that was given up is under way, then gives at most `count` bytes of what one brought. What is
    /// at another offset than the reader is was passed by: it is dropped.
    pub fn poll(&self, cx: &mut Context, offset: u64, count: u32) -> Poll<Option<Bytes>> {
        let mut returned = self.lock();
        if returned.abandoned > 0 {
            if !returned.wakers.iter().any(|w| w.will_wake(cx.waker())) {
                returned.wakers.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        while let Some((at, mut data)) = returned.data.pop_front() {
            if at == offset {
                let rest = data.split_off(data.len().min(count as usize));
                if !rest.is_empty() {
                    returned.data.push_front((at + data.len() as u64, rest));
                }
                return Poll::Ready(Some(data));
            }
        }
        Poll::Ready(None)
    }
}

impl Fid {
    pub fn conn(&self) -> &Conn {
        &self.link.0
    }

    fn set_bound(&self) {
        self.state.store(BOUND, Ordering::Release);
    }

    /// The next message frees the fid (Tremove): until it is answered nobody may have the number.
    pub fn set_lost(&self) {
        self.state.store(LOST, Ordering::Release);
    }

    /// The server has let go of the fid.
    pub fn set_unbound(&self) {
        self.state.store(UNBOUND, Ordering::Release);
    }
}

impl Drop for Fid {
    fn drop(&mut self) {
        let conn = &self.link.0;
        let mut state = conn.lock();
        match *self.state.get_mut() {
            UNBOUND => state.free_fids.push(self.id),
            BOUND if !conn.dead.initialized() => {
                // without a tag the number stays bound for ever: the server's limit on fids is the worse for one
                let Some(tag) = state.tag() else { return };
                state.slots[tag as usize] = Slot::Clunk { fid: self.id };
                let clunk = Request::Clunk { fid: self.id };
                state.out.push(|o| clunk.encode_head(conn.dialect, tag, o));
                state.wake_driver();
            }
            _ => {}
        }
    }
}

/// A call under way. Dropping it flushes the call.
pub struct Answer<'a> {
    conn: &'a Conn,
    tag: u16,
    taken: bool,
}

impl Future for Answer<'_> {
    type Output = Result<Bytes>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<Result<Bytes>> {
        let mut state = self.conn.lock();
        if let Some(e) = self.conn.dead.get() {
            drop(state);
            self.taken = true;
            return Poll::Ready(Err(e.clone()));
        }
        let epoch = state.epoch;
        match &mut state.slots[self.tag as usize] {
            Slot::Waiting { since: Some(since), .. } if epoch > *since + PATIENCE => {
                drop(state);
                let text = format!("no answer in {} ms", self.conn.config.call_timeout_ms);
                Poll::Ready(Err(Error::new(Kind::TimedOut, text))) // the drop flushes
            }
            Slot::Waiting { waker, .. } => {
                if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            _ => {
                let slot = state.free(self.tag);
                state.calls -= 1;
                drop(state);
                self.taken = true;
                match slot {
                    Slot::Answered(_, frame) => Poll::Ready(Ok(frame)),
                    _ => Poll::Ready(Err(Kind::Io.into())),
                }
            }
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let mut guard = self.conn.lock();
        if self.taken || self.conn.dead.initialized() {
            return;
        }
        let state = &mut *guard;
        match mem::replace(&mut state.slots[self.tag as usize], Slot::Free) {
            Slot::Waiting { ty, keep, since, .. } => {
                state.timed -= usize::from(since.is_some());
                if let Some((read, _)) = &keep.read {
                    read.abandon();
                }
                state.slots[self.tag as usize] = Slot::Abandoned { ty, keep: Some(keep) };
                let Some(tag) = state.tag() else { return }; // then its answer alone can settle it
                state.slots[tag as usize] = Slot::Flush { old: self.tag, since: state.epoch };
                state.timed += 1;
                let flush = Request::Flush { oldtag: self.tag };
                state.out.push(|o| flush.encode_head(self.conn.dialect, tag, o));
                state.wake_driver();
            }
            Slot::Answered(keep, frame) => {
                state.free_tags.push(self.tag);
                state.calls -= 1;
                drop(guard);
                if let Some((read, _)) = &keep.read {
                    read.abandon();
                }
                keep.late(self.conn.dialect, &frame);
            }
            other => state.slots[self.tag as usize] = other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_was_handed_back_is_read_once_at_its_offset_by_whoever_waits() {
        let (back, count) = (HandBack::default(), Arc::new(Count(AtomicUsize::new(0))));
        let other = Arc::new(Count(AtomicUsize::new(0)));
        let (waker, second) = (count.clone().into(), other.clone().into());
        let cx = &mut Context::from_waker(&waker);
        back.abandon();
        assert!(back.poll(cx, 5, 10).is_pending());
        assert!(back.poll(&mut Context::from_waker(&second), 5, 10).is_pending(), "a second reader waits too");
        back.settle(5, Some(Bytes::from_static(b"late"))).into_iter().for_each(Waker::wake);
        assert_eq!((count.0.load(Ordering::Relaxed), other.0.load(Ordering::Relaxed)), (1, 1));
        assert_eq!(back.poll(cx, 5, 3), Poll::Ready(Some(Bytes::from_static(b"lat"))));
        assert_eq!(back.poll(cx, 8, 3), Poll::Ready(Some(Bytes::from_static(b"e"))));
        assert_eq!(back.poll(cx, 9, 3), Poll::Ready(None));
        back.abandon();
        back.settle(9, Some(Bytes::from_static(b"passed by")));
        assert_eq!(back.poll(cx, 0, 3), Poll::Ready(None));
    }
}
