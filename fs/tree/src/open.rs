//! Open directories, logs, streams, dialogues and special files.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fs_ninep::{Call, DirEntry, File, Kind, Name, OpenFile, OpenFlags, Result};
use tokio::sync::Mutex;

use crate::made::Held;
use crate::node::Node;
use crate::text::{TEXT_MAX, slice};
use crate::{Log, Records, Service};

/// An open directory: its entries as they were when reading it began.
pub(crate) struct Directory<S: Service> {
    node: Node<S>,
    listing: Mutex<Listing<S>>,
    _held: Option<Held<S>>,
}

struct Listing<S: Service> {
    entries: Arc<Vec<(Name, Node<S>)>>,
    /// A read from the start lists anew, except the first after the open.
    fresh: bool,
}

impl<S: Service> Directory<S> {
    pub fn new(node: Node<S>, entries: Vec<(Name, Node<S>)>) -> Directory<S> {
        let held = node.hold();
        Directory { node, listing: Mutex::new(Listing { entries: Arc::new(entries), fresh: true }), _held: held }
    }

    async fn entries(&self, rewound: bool) -> Result<Arc<Vec<(Name, Node<S>)>>> {
        let mut listing = self.listing.lock().await;
        if rewound && !std::mem::replace(&mut listing.fresh, false) {
            listing.entries = Arc::new(self.node.list().await?);
        }
        Ok(listing.entries.clone())
    }
}

impl<S: Service> OpenFile for Directory<S> {
    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        Box::pin(async move {
            let entries = self.entries(cookie == 0).await?;
            let from = usize::try_from(cookie).unwrap_or(usize::MAX);
            let rest = entries.iter().enumerate().skip(from).take(entries_max);
            Ok(rest.map(|(n, (name, node))| entry(name.clone(), node, n as u64 + 1)).collect())
        })
    }
}

fn entry<S: Service>(name: Name, node: &Node<S>, cookie: u64) -> DirEntry {
    // A graft is another server's file: only a walk finds out which.
    let file = (node.shape() != crate::Shape::Graft).then(|| Arc::new(node.clone()) as Arc<dyn File>);
    DirEntry { name, qid: node.qid(), cookie, attr: node.entry_attr(), file }
}

/// An open log.
pub(crate) struct LogFile<S: Service> {
    log: Arc<dyn Log>,
    /// What is added to a reader's offset: it grows when the reader comes to bytes that are no longer kept.
    shift: std::sync::Mutex<u64>,
    _held: Option<Held<S>>,
}

impl<S: Service> LogFile<S> {
    pub fn new(log: Arc<dyn Log>, held: Option<Held<S>>) -> LogFile<S> {
        LogFile { log, shift: std::sync::Mutex::new(0), _held: held }
    }

    fn place(&self, offset: u64) -> u64 {
        let mut shift = self.shift.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *shift = (*shift).max(self.log.start().saturating_sub(offset));
        offset.saturating_add(*shift)
    }
}

impl<S: Service> OpenFile for LogFile<S> {
    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        self.log.read(self.place(offset), count)
    }
}

/// An open stream: a cursor of its own.
pub(crate) struct StreamFile<S: Service> {
    waits: bool,
    reads: bool,
    cursor: Mutex<Cursor>,
    _held: Option<Held<S>>,
}

struct Cursor {
    records: Box<dyn Records>,
    /// Taken from `records` and not delivered: what did not fit, or whose read was cancelled.
    kept: VecDeque<Bytes>,
    ended: bool,
}

impl<S: Service> StreamFile<S> {
    pub fn new(records: Box<dyn Records>, flags: OpenFlags, held: Option<Held<S>>) -> StreamFile<S> {
        let cursor = Mutex::new(Cursor { records, kept: VecDeque::new(), ended: false });
        StreamFile { waits: !flags.has(OpenFlags::NONBLOCK), reads: flags.reads(), cursor, _held: held }
    }
}

impl Cursor {
    /// Waits until a record is kept, or the end.
    async fn fill(&mut self) -> Result<()> {
        if self.kept.is_empty() && !self.ended {
            match self.records.next().await? {
                Some(record) => self.kept.push_back(record),
                None => self.ended = true,
            }
        }
        Ok(())
    }

    /// Whole records up to `count` bytes; one that is larger alone is split.
    fn take(&mut self, count: usize) -> Bytes {
        let mut out = BytesMut::new();
        loop {
            let next = self.kept.pop_front().or_else(|| if self.ended { None } else { self.records.try_next() });
            let Some(mut record) = next else { return out.freeze() };
            if out.is_empty() && record.len() >= count {
                let rest = record.split_off(count);
                if !rest.is_empty() {
                    self.kept.push_front(rest);
                }
                return record;
            }
            if out.len() + record.len() > count {
                self.kept.push_front(record);
                return out.freeze();
            }
            out.extend_from_slice(&record);
        }
    }
}

impl<S: Service> OpenFile for StreamFile<S> {
    fn read(&self, _offset: u64, count: u32) -> Call<'_, Bytes> {
        Box::pin(async move {
            if !self.reads {
                return Err(Kind::BadFile.into());
            }
            if count == 0 {
                return Ok(Bytes::new());
            }
            let mut cursor = self.cursor.lock().await;
            if self.waits {
                cursor.fill().await?;
            }
            Ok(cursor.take(count as usize))
        })
    }
}

/// An open rpc file: a request, its reply, the next request.
pub(crate) struct Dialogue<S: Service> {
    node: Node<S>,
    flags: OpenFlags,
    turn: Mutex<Turn>,
    _held: Option<Held<S>>,
}

enum Turn {
    /// A request that no read has asked for a reply yet.
    Asked(Bytes),
    /// What is left of the reply.
    Reply(Bytes),
}

impl<S: Service> Dialogue<S> {
    pub fn new(node: Node<S>, flags: OpenFlags) -> Dialogue<S> {
        let held = node.hold();
        Dialogue { node, flags, turn: Mutex::new(Turn::Reply(Bytes::new())), _held: held }
    }
}

impl<S: Service> OpenFile for Dialogue<S> {
    /// The reply is worked out here and not in the write: a write that waits would keep every other writer of the file
    /// waiting, for the kernel lets one at a time into a file that shows no length.
    fn read(&self, _offset: u64, count: u32) -> Call<'_, Bytes> {
        Box::pin(async move {
            if !self.flags.reads() {
                return Err(Kind::BadFile.into());
            }
            let mut turn = self.turn.lock().await;
            if let Turn::Asked(request) = &*turn {
                let reply = self.node.server.service.ask(&self.node.at, request.clone()).await;
                *turn = Turn::Reply(Bytes::new());
                *turn = Turn::Reply(reply.map_err(|e| self.node.refused(e))?);
            }
            match &mut *turn {
                Turn::Reply(left) => {
                    let part = slice(left, 0, count);
                    *left = left.slice(part.len()..);
                    Ok(part)
                }
                Turn::Asked(_) => Ok(Bytes::new()),
            }
        })
    }

    fn write(&self, _offset: u64, data: Bytes) -> Call<'_, u32> {
        Box::pin(async move {
            if !self.flags.writes() {
                return Err(Kind::BadFile.into());
            }
            if data.len() > TEXT_MAX {
                return Err(Kind::MessageTooLong.into());
            }
            let len = data.len() as u32;
            *self.turn.lock().await = Turn::Asked(data);
            Ok(len)
        })
    }
}

/// A special file under a made directory: open until both are gone.
pub(crate) struct Guarded<S: Service> {
    open: Arc<dyn OpenFile>,
    _held: Held<S>,
}

impl<S: Service> Guarded<S> {
    pub fn new(open: Arc<dyn OpenFile>, held: Held<S>) -> Guarded<S> {
        Guarded { open, _held: held }
    }
}

impl<S: Service> OpenFile for Guarded<S> {
    fn iounit(&self) -> u32 {
        self.open.iounit()
    }

    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        self.open.read(offset, count)
    }

    fn write(&self, offset: u64, data: Bytes) -> Call<'_, u32> {
        self.open.write(offset, data)
    }

    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        self.open.readdir(cookie, entries_max)
    }

    fn fsync(&self, data_only: bool) -> Call<'_, ()> {
        self.open.fsync(data_only)
    }

    fn flush(&self) -> Call<'_, ()> {
        self.open.flush()
    }
}
