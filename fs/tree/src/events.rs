//! A broadcaster of records: every reader has its own bounded queue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::{Bytes, BytesMut};
use fs_ninep::Call;
use tokio::sync::Notify;

use crate::Records;

/// Records that wait for one reader at most; past it the oldest go and a record `lost N` says how many.
pub const EVENTS_MAX: usize = 1024;

/// Bytes that wait for one reader at most.
pub const EVENTS_BYTES_MAX: usize = 1 << 20;

/// Sends each record to every reader there is at that moment. Dropping it ends their streams.
#[derive(Default)]
pub struct Events {
    readers: Mutex<Vec<Weak<Reader>>>,
}

#[derive(Default)]
struct Reader {
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Bytes>,
    bytes: usize,
    lost: u64,
    ended: bool,
}

impl Events {
    /// A broadcaster without readers.
    pub fn new() -> Events {
        Events::default()
    }

    /// Sends `record`, one line; its newline is added where it is missing. Never waits.
    pub fn send(&self, record: impl Into<Bytes>) {
        let record = newline_ended(record.into());
        lock(&self.readers).retain(|reader| match reader.upgrade() {
            Some(reader) => {
                lock(&reader.queue).push(record.clone());
                reader.more.notify_one();
                true
            }
            None => false,
        });
    }

    /// A reader placed at now.
    pub fn subscribe(&self) -> Box<dyn Records> {
        let reader = Arc::new(Reader::default());
        let mut readers = lock(&self.readers);
        readers.retain(|r| r.strong_count() > 0);
        readers.push(Arc::downgrade(&reader));
        Box::new(Subscription(reader))
    }

    /// Ends every reader's stream, after what waits for it. Later readers are not ended.
    pub fn end(&self) {
        for reader in lock(&self.readers).drain(..).filter_map(|r| r.upgrade()) {
            lock(&reader.queue).ended = true;
            reader.more.notify_one();
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.end();
    }
}

impl Queue {
    fn push(&mut self, record: Bytes) {
        self.bytes += record.len();
        self.records.push_back(record);
        while self.records.len() > EVENTS_MAX || (self.bytes > EVENTS_BYTES_MAX && self.records.len() > 1) {
            self.bytes -= self.records.pop_front().map_or(0, |r| r.len());
            self.lost += 1;
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        if self.lost > 0 {
            return Some(format!("lost {}\n", std::mem::take(&mut self.lost)).into());
        }
        let record = self.records.pop_front()?;
        self.bytes -= record.len();
        Some(record)
    }
}

struct Subscription(Arc<Reader>);

impl Records for Subscription {
    fn next(&mut self) -> Call<'_, Option<Bytes>> {
        Box::pin(async move {
            loop {
                {
                    let mut queue = lock(&self.0.queue);
                    match queue.pop() {
                        None if !queue.ended => {}
                        record => return Ok(record),
                    }
                }
                self.0.more.notified().await;
            }
        })
    }

    fn try_next(&mut self) -> Option<Bytes> {
        lock(&self.0.queue).pop()
    }
}

fn newline_ended(record: Bytes) -> Bytes {
    if record.ends_with(b"\n") {
        return record;
    }
    let mut line = BytesMut::with_capacity(record.len() + 1);
    line.extend_from_slice(&record);
    line.extend_from_slice(b"\n");
    line.freeze()
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn every_reader_gets_every_record_from_its_start_on() {
        let events = Events::new();
        events.send("before");
        let (mut a, mut b) = (events.subscribe(), events.subscribe());
        events.send("one");
        events.send("two\n");
        assert_eq!(a.next().await.unwrap().unwrap(), "one\n");
        assert_eq!((a.try_next().unwrap(), a.try_next()), (Bytes::from("two\n"), None));
        assert!(a.next().now_or_never().is_none(), "waits, and a dropped wait loses nothing");
        drop(events);
        assert_eq!(a.next().await.unwrap(), None);
        assert_eq!(b.next().await.unwrap().unwrap(), "one\n");
        assert_eq!(b.next().await.unwrap().unwrap(), "two\n");
        assert_eq!(b.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_and_is_told() {
        let events = Events::new();
        let mut slow = events.subscribe();
        (0..EVENTS_MAX + 3).for_each(|n| events.send(n.to_string()));
        assert_eq!(slow.next().await.unwrap().unwrap(), "lost 3\n");
        assert_eq!(slow.next().await.unwrap().unwrap(), "3\n");
        let big = Bytes::from(vec![b'x'; EVENTS_BYTES_MAX / 2]);
        (0..3).for_each(|_| events.send(big.clone()));
        assert_eq!(slow.next().await.unwrap().unwrap(), format!("lost {}\n", EVENTS_MAX - 1 + 2));
        assert_eq!(slow.next().await.unwrap().unwrap().len(), big.len() + 1);
        assert_eq!(slow.try_next(), None);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let events = Arc::new(Events::new());
        let mut reader = events.subscribe();
        let waiting = tokio::spawn(async move { reader.next().await });
        tokio::task::yield_now().await;
        events.send("now");
        assert_eq!(waiting.await.unwrap().unwrap().unwrap(), "now\n");
    }
}
