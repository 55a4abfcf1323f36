//! Calls under way on one connection, each woken alone.
//!
//! A call is polled once where it starts, with the waker it will keep: one that is ready costs no allocation here and one
//! that is not costs a slot. No task, thread or lock belongs to a parked call, and taking one out drops it at once, which
//! is what makes a flush exact.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// A call: it borrows nothing.
pub type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where a parked call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(usize);

/// Parked calls and what to do (`C`) when each ends (`T`).
pub struct Pool<T, C> {
    slots: Vec<Slot<T, C>>,
    free: Vec<usize>,
    rung: VecDeque<usize>,
    shared: Arc<Shared>,
}

struct Slot<T, C> {
    alarm: Arc<Alarm>,
    waker: Waker,
    call: Option<(Job<T>, C)>,
}

#[derive(Default)]
struct Shared {
    ready: Mutex<Vec<usize>>,
    task: AtomicWaker,
}

struct Alarm {
    slot: usize,
    rung: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Alarm>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Alarm>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
            self.shared.task.wake();
        }
    }
}

impl<T, C> Default for Pool<T, C> {
    fn default() -> Pool<T, C> {
        Pool { slots: Vec::new(), free: Vec::new(), rung: VecDeque::new(), shared: Arc::default() }
    }
}

impl<T, C> Pool<T, C> {
    /// The task to wake when a parked call can go on.
    pub fn register(&self, waker: &Waker) {
        self.shared.task.register(waker);
    }

    /// Starts `job`; what does not end at once is parked with `after`.
    pub fn start(&mut self, mut job: Job<T>, after: C) -> Result<(T, C), Key> {
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let slot = &mut self.slots[index];
        match job.as_mut().poll(&mut Context::from_waker(&slot.waker)) {
            Poll::Ready(done) => {
                self.free.push(index);
                Ok((done, after))
            }
            Poll::Pending => {
                slot.call = Some((job, after));
                Err(Key(index))
            }
        }
    }

    /// Notes which parked calls were woken: those that [`Pool::next`] looks at. A call that wakes itself for ever thus
    /// gets one turn a sweep.
    pub fn sweep(&mut self) {
        let mut ready = self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner);
        self.rung.extend(ready.drain(..));
    }

    /// The next of the woken calls that has ended.
    pub fn next(&mut self) -> Option<(T, C)> {
        loop {
            let index = self.rung.pop_front()?;
            if let Some(ended) = self.poll(Key(index)) {
                return Some(ended);
            }
        }
    }

    /// Looks once whether the call at `key` has ended.
    pub fn poll(&mut self, key: Key) -> Option<(T, C)> {
        let slot = &mut self.slots[key.0];
        slot.alarm.rung.store(false, Ordering::Release);
        let (job, _) = slot.call.as_mut()?;
        match job.as_mut().poll(&mut Context::from_waker(&slot.waker)) {
            Poll::Pending => None,
            Poll::Ready(done) => self.take(key).map(|after| (done, after)),
        }
    }

    /// What is to be done after the call at `key`.
    pub fn after(&self, key: Key) -> Option<&C> {
        self.slots[key.0].call.as_ref().map(|(_, after)| after)
    }

    /// Drops the call at `key` and gives back what was to be done after it.
    pub fn take(&mut self, key: Key) -> Option<C> {
        let (_, after) = self.slots[key.0].call.take()?;
        self.free.push(key.0);
        Some(after)
    }

    /// Drops every call for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(&C) -> bool) {
        for index in 0..self.slots.len() {
            if self.slots[index].call.as_ref().is_some_and(|(_, after)| !keep(after)) {
                mem::drop(self.take(Key(index)));
            }
        }
    }

    fn grow(&mut self) -> usize {
        let slot = self.slots.len();
        let alarm = Arc::new(Alarm { slot, rung: AtomicBool::new(false), shared: self.shared.clone() });
        self.slots.push(Slot { waker: alarm.clone().into(), alarm, call: None });
        slot
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn job(rx: oneshot::Receiver<u32>) -> Job<u32> {
        Box::pin(async move { rx.await.unwrap_or(0) })
    }

    #[test]
    fn each_call_is_woken_alone_and_dropped_at_once() {
        let mut pool = Pool::<u32, &str>::default();
        assert_eq!(pool.start(Box::pin(async { 7 }), "ready"), Ok((7, "ready")));
        let (tx, rx): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
        let keys: Vec<_> =
            rx.into_iter().zip(["a", "b", "c"]).map(|(rx, name)| pool.start(job(rx), name).unwrap_err()).collect();
        pool.sweep();
        assert_eq!(pool.next(), None);
        let mut tx = tx.into_iter();
        let (a, b, c) = (tx.next().unwrap(), tx.next().unwrap(), tx.next().unwrap());
        b.send(2).unwrap();
        pool.sweep();
        assert_eq!(pool.next(), Some((2, "b")));
        assert_eq!(pool.next(), None);
        assert_eq!(pool.take(keys[0]), Some("a"));
        assert!(a.is_closed(), "the call's future is gone");
        assert_eq!(pool.take(keys[0]), None);
        c.send(3).unwrap();
        assert_eq!(pool.poll(keys[2]), Some((3, "c")));
        pool.sweep();
        assert_eq!(pool.next(), None);
    }
}
