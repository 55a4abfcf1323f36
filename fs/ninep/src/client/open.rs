//! An open fid, as an [`OpenFile`].

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::conn::{Answer, Conn, Fid, HandBack, Keep};
use super::file::{answer, plain_attr};
use crate::wire::{DataOnly, Dirent, DirentAttrs, Dirents, Reply, Request, Stat, Stats, Wstat};
use crate::{Attr, Call, DirEntry, Error, Kind, Name, OpenFile, OpenFlags, Qid, Result, VALUE_IOUNIT};

/// Messages of one large read or write that are under way at once.
const WINDOW: usize = 32;

/// A file of the server at the other end, open.
pub struct RemoteOpen {
    fid: Arc<Fid>,
    qid: Qid,
    iounit: u32,
    writes: bool,
    /// Whether something live was written that is obeyed at its close: a line that is not ended, or a value.
    partial: AtomicBool,
    back: Arc<HandBack>,
    listing: Mutex<Listing>,
}

/// What a 9P2000 directory read brought, and where the next must begin.
#[derive(Default)]
struct Listing {
    next: u64,
    entries: VecDeque<(u64, DirEntry)>,
}

impl RemoteOpen {
    pub fn new(fid: Arc<Fid>, qid: Qid, iounit: u32, flags: OpenFlags) -> RemoteOpen {
        let max = fid.conn().payload_max();
        let iounit = if iounit == 0 { max } else { iounit.min(max) };
        RemoteOpen {
            fid,
            qid,
            iounit,
            writes: flags.writes(),
            partial: AtomicBool::new(false),
            back: Arc::default(),
            listing: Mutex::default(),
        }
    }

    fn conn(&self) -> &Conn {
        self.fid.conn()
    }

    fn ask(&self, offset: u64, count: u32, keep: Keep) -> Result<Answer<'_>> {
        self.conn().send(&Request::Read { fid: self.fid.id, offset, count }, keep, false)
    }

    async fn answer(&self, answer: Answer<'_>, count: u32) -> Result<Bytes> {
        let conn = self.conn();
        let frame = answer.await?;
        let data = answer!(conn, frame, Reply::Read { data } => data);
        if data.len() > count as usize {
            return Err(conn.broken(format_args!("{} bytes for a read of {count}", data.len())));
        }
        Ok(data)
    }

    /// One message, whose shortness is final. What a read that was given up brought comes first.
    async fn read_live(&self, offset: u64, count: u32) -> Result<Bytes> {
        let count = count.min(self.iounit);
        if let Some(data) = poll_fn(|cx| self.back.poll(cx, offset, count)).await {
            return Ok(data);
        }
        let keep = Keep { read: Some((self.back.clone(), offset)), ..Keep::fid(&self.fid) };
        self.answer(self.ask(offset, count, keep)?, count).await
    }

    /// As many messages as it takes, a window of them under way.
    async fn read_window(&self, offset: u64, count: u32) -> Result<Bytes> {
        let mut parts = chunks(offset, count, self.iounit);
        let (mut under_way, mut out) = (VecDeque::new(), BytesMut::new());
        loop {
            while under_way.len() < WINDOW
                && let Some((at, len)) = parts.next()
            {
                under_way.push_back((self.ask(at, len, Keep::fid(&self.fid))?, len));
            }
            let Some((answer, len)) = under_way.pop_front() else { return Ok(out.freeze()) };
            let data = match self.answer(answer, len).await {
                Err(e) if out.is_empty() => return Err(e),
                Err(_) => return Ok(out.freeze()),
                Ok(data) => data,
            };
            out.extend_from_slice(&data);
            if data.len() < len as usize {
                return Ok(out.freeze());
            }
        }
    }

    fn send(&self, offset: u64, data: Bytes) -> Result<Answer<'_>> {
        let write = Request::Write { fid: self.fid.id, offset, data };
        self.conn().send(&write, Keep::fid(&self.fid), false)
    }

    async fn written(&self, answer: Answer<'_>, len: u32) -> Result<u32> {
        let conn = self.conn();
        let frame = answer.await?;
        let count = answer!(conn, frame, Reply::Write { count } => count);
        if count > len {
            return Err(conn.broken(format_args!("{count} bytes written of {len}")));
        }
        Ok(count)
    }

    async fn write_live(&self, offset: u64, mut data: Bytes) -> Result<u32> {
        data.truncate(self.iounit as usize);
        let (len, ended) = (data.len() as u32, data.last() == Some(&b'\n'));
        let count = self.written(self.send(offset, data)?, len).await?;
        self.partial.store(!(ended && count == len) || self.iounit <= VALUE_IOUNIT, Ordering::Relaxed);
        Ok(count)
    }

    async fn write_window(&self, offset: u64, data: Bytes) -> Result<u32> {
        let mut parts = chunks(offset, u32::try_from(data.len()).unwrap_or(u32::MAX), self.iounit);
        let (mut under_way, mut total) = (VecDeque::new(), 0);
        loop {
            while under_way.len() < WINDOW
                && let Some((at, len)) = parts.next()
            {
                let start = (at - offset) as usize;
                under_way.push_back((self.send(at, data.slice(start..start + len as usize))?, len));
            }
            let Some((answer, len)) = under_way.pop_front() else { return Ok(total) };
            match self.written(answer, len).await {
                Err(e) if total == 0 => return Err(e),
                Err(_) => return Ok(total),
                Ok(count) => total += count,
            }
            if !total.is_multiple_of(self.iounit) {
                return Ok(total);
            }
        }
    }

    async fn sync(&self, data_only: bool) -> Result<()> {
        let conn = self.conn();
        let (fid, linux) = (self.fid.id, conn.is_linux());
        let sync = match linux {
            true => Request::Fsync { fid, data_only: DataOnly(data_only.into()) },
            false => Request::Wstat { fid, stat: Wstat(Stat::KEEP) },
        };
        let frame = conn.send(&sync, Keep::fid(&self.fid), false)?.await?;
        match conn.decode(&frame)? {
            Reply::Fsync {} | Reply::Wstat {} => Ok(()),
            _ => Err(conn.broken("a wrong answer to fsync")),
        }
    }

    async fn list(&self, mut cookie: u64, entries_max: usize) -> Result<Vec<DirEntry>> {
        let conn = self.conn();
        // a node of ours sends attributes along, where it has them at hand
        let attrs = conn.pipelines();
        let each = if attrs { 224 } else { 64 };
        let count = u32::try_from(entries_max.saturating_mul(each)).unwrap_or(u32::MAX);
        let (fid, count) = (self.fid.id, count.max(4096).min(conn.payload_max()));
        loop {
            let ask = match attrs {
                true => Request::Readdirattr { fid, offset: cookie, count },
                false => Request::Readdir { fid, offset: cookie, count },
            };
            let frame = conn.send(&ask, Keep::fid(&self.fid), true)?.await?;
            let data = match conn.decode(&frame)? {
                Reply::Readdir { data } | Reply::Readdirattr { data } => data,
                _ => return Err(conn.broken("a wrong answer to readdir")),
            };
            if data.len() > count as usize {
                return Err(conn.broken(format_args!("{} bytes for a readdir of {count}", data.len())));
            }
            let (mut entries, mut offset) = (Vec::new(), cookie);
            let mut take = |e: Dirent, attr: Option<Attr>| {
                if e.offset == 0 {
                    return Err(conn.broken("a directory entry whose cookie is 0"));
                }
                offset = e.offset;
                if !matches!(e.name, b"." | b"..") && entries.len() < entries_max {
                    let name = Name::new(e.name.to_vec()).map_err(|e| conn.broken(e))?;
                    let attr = attr.map(|a| conn.shown(a));
                    entries.push(DirEntry { name, qid: e.qid, cookie: e.offset, attr, file: None });
                }
                Ok(())
            };
            if attrs {
                for e in DirentAttrs::new(&data) {
                    let e = e.map_err(|e| conn.broken(e))?;
                    take(e.entry, e.attr)?;
                }
            } else {
                for e in Dirents::new(&data) {
                    take(e.map_err(|e| conn.broken(e))?, None)?;
                }
            }
            cookie = offset;
            if data.is_empty() || !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    fn listing(&self) -> MutexGuard<'_, Listing> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A 9P2000 directory goes on only where the last read ended: an older cookie starts over and reads up to it.
    async fn list_plain(&self, cookie: u64, entries_max: usize) -> Result<Vec<DirEntry>> {
        let mut restarted = false;
        loop {
            let next = {
                let mut l = self.listing();
                let first = l.entries.front().map_or(l.next, |(start, _)| *start);
                if cookie < first && !mem::replace(&mut restarted, true) {
                    *l = Listing::default();
                }
                l.entries.retain(|(start, _)| *start >= cookie);
                if !l.entries.is_empty() {
                    return Ok(l.entries.iter().take(entries_max).map(|(_, e)| e.clone()).collect());
                }
                l.next
            };
            let conn = self.conn();
            let count = conn.payload_max();
            let data = self.answer(self.ask(next, count, Keep::fid(&self.fid))?, count).await?;
            if data.is_empty() {
                return Ok(Vec::new());
            }
            let (mut start, mut entries) = (next, VecDeque::new());
            for stat in Stats::new(&data) {
                let stat = stat.map_err(|e| conn.broken(e))?;
                let name = Name::new(stat.name.to_vec()).map_err(|e| conn.broken(e))?;
                let mut record = BytesMut::new();
                stat.encode(&mut record);
                let end = start + record.len() as u64;
                let attr = Some(conn.shown(plain_attr(&stat)));
                entries.push_back((start, DirEntry { name, qid: stat.qid, cookie: end, attr, file: None }));
                start = end;
            }
            *self.listing() = Listing { next: start, entries };
        }
    }
}

fn chunks(offset: u64, count: u32, most: u32) -> impl Iterator<Item = (u64, u32)> {
    (0..count).step_by(most as usize).map(move |at| (offset.saturating_add(at.into()), most.min(count - at)))
}

impl OpenFile for RemoteOpen {
    fn iounit(&self) -> u32 {
        self.iounit
    }

    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        Box::pin(async move {
            if self.qid.is_live() {
                return self.read_live(offset, count).await;
            }
            if count <= self.iounit {
                return self.answer(self.ask(offset, count, Keep::fid(&self.fid))?, count).await;
            }
            self.read_window(offset, count).await
        })
    }

    fn write(&self, offset: u64, data: Bytes) -> Call<'_, u32> {
        Box::pin(async move {
            if self.qid.is_live() { self.write_live(offset, data).await } else { self.write_window(offset, data).await }
        })
    }

    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        Box::pin(async move {
            if !self.qid.is_dir() {
                return Err(Error::from(Kind::NotDir));
            }
            if self.conn().is_linux() {
                self.list(cookie, entries_max).await
            } else {
                self.list_plain(cookie, entries_max).await
            }
        })
    }

    fn fsync(&self, data_only: bool) -> Call<'_, ()> {
        Box::pin(self.sync(data_only))
    }

    /// Writes were answered, so that a close has nothing to report, except of a live file whose last line is not ended, or
    /// which is taken as a whole: obeying that may fail.
    fn flush(&self) -> Call<'_, ()> {
        Box::pin(async move {
            if !self.writes || !self.partial.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.sync(false).await?;
            self.partial.store(false, Ordering::Relaxed);
            Ok(())
        })
    }
}
