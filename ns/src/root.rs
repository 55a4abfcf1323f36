//! The root directory's own files: `ns`, `error`, `event`. See ns(4).

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use fs_ninep::{Attr, Call, Caller, Error, Kind, Name, OpenFile, OpenFlags, Qid, QidType, Result};
use fs_tree::{Records, Row, ctl, error, stream};

use crate::space::Space;
use crate::text::TEXT_MAX;

/// A file of the root that is the name space's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Read: the name space as text. Write: lines to obey.
    Ns,
    /// Read: the last refusal to the caller.
    Error,
    /// Read: a line a change.
    Event,
}

/// Every file of the root that is the name space's own; mount points stand beside them.
#[rustfmt::skip]
pub const TREE: &[Row<Own>] = &[
    ctl   ("ns",    Own::Ns,    0o600), // bind, mount, unmount, clear, nomnt
    error ("error", Own::Error, 0o400),
    stream("event", Own::Event, 0o400), // the lines obeyed
];

/// The root directory. Its number is far from those that servers count up from 1: a face that looks at qids alone, over
/// one connection, takes no file of theirs for one of these.
pub const ROOT: Qid = Qid { ty: QidType::DIR, version: 0, path: 0x6e73_0000_0000_0000 };

impl Own {
    fn row(self) -> &'static Row<Own> {
        &TREE[self as usize]
    }

    /// The one called `name`.
    pub fn named(name: &Name) -> Option<Own> {
        TREE.iter().find(|row| row.path.as_bytes() == name.as_bytes()).map(|row| row.q)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().path
    }

    /// Its qid.
    pub fn qid(self) -> Qid {
        Qid { ty: QidType::FILE, version: 0, path: ROOT.path + 1 + self as u64 }
    }

    /// Its attributes for `caller`.
    pub fn attr(self, space: &Space, caller: &Caller) -> Attr {
        let mode = if self == Own::Ns && space.table().0.locked() { 0o400 } else { self.row().mode };
        attr(space, self.qid(), Attr::REGULAR | mode, self.text(space, caller).len() as u64)
    }

    fn text(self, space: &Space, caller: &Caller) -> Bytes {
        match self {
            Own::Ns => space.text(false).into(),
            Own::Error => space.refusal(caller).map(|text| text + "\n").unwrap_or_default().into(),
            Own::Event => Bytes::new(),
        }
    }

    /// Opens it.
    /// # Errors
    /// `Denied` for a write of what is only read; `NotPermitted` for a write of `ns` after `nomnt`.
    pub fn open(self, space: &Arc<Space>, caller: &Caller, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        if flags.has(OpenFlags::DIRECTORY) {
            return Err(Kind::NotDir.into());
        }
        if flags.writes() {
            if self != Own::Ns {
                return Err(Kind::Denied.into());
            }
            space.table().0.unlocked().inspect_err(|e| space.refused(caller, e))?;
        }
        if self == Own::Event {
            let lines = tokio::sync::Mutex::new(Lines { lines: space.events.subscribe(), rest: Bytes::new() });
            return Ok(Arc::new(Stream { lines, wait: !flags.has(OpenFlags::NONBLOCK) }));
        }
        let text = if flags.reads() { self.text(space, caller) } else { Bytes::new() };
        let (space, caller, writes) = (space.clone(), caller.clone(), flags.writes());
        Ok(Arc::new(Text { text, space, caller, writes, tail: tokio::sync::Mutex::default() }))
    }
}

/// The attributes of a file of the name space itself: its times are the table's.
pub fn attr(space: &Space, qid: Qid, mode: u32, size: u64) -> Attr {
    let time = space.changed();
    let (uid, gid) = space.ids;
    let times = Attr { atime: time, mtime: time, ctime: time, ..Attr::default() };
    Attr { qid, mode, uid, gid, nlink: 1, size, blksize: 4096, ..times }
}

/// `ns` or `error`, open: what it said when it was opened, and a line not written to its end yet.
struct Text {
    text: Bytes,
    space: Arc<Space>,
    caller: Caller,
    writes: bool,
    /// Held while lines are obeyed: writes to one opening take effect in their order.
    tail: tokio::sync::Mutex<Vec<u8>>,
}

impl Text {
    async fn obey(&self, bytes: Vec<u8>) -> Result<()> {
        let obeyed = match String::from_utf8(bytes) {
            Ok(text) => self.space.apply(&text).await.map_err(Error::from),
            Err(_) => Err(Error::new(Kind::Invalid, "ns: not UTF-8 text")),
        };
        obeyed.inspect_err(|e| self.space.refused(&self.caller, e))
    }

    async fn take(&self, data: Bytes) -> Result<u32> {
        let mut kept = self.tail.lock().await;
        let mut bytes = kept.clone();
        bytes.extend_from_slice(&data);
        if bytes.len() > TEXT_MAX {
            kept.clear();
            let text = format!("ns: at most {TEXT_MAX} bytes at once; write fewer lines at a time");
            let refusal = Error::new(Kind::MessageTooLong, text);
            self.space.refused(&self.caller, &refusal);
            return Err(refusal);
        }
        let lines = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        let tail = bytes.split_off(lines);
        let obeyed = if lines == 0 { Ok(()) } else { self.obey(bytes).await };
        // A refused write leaves nothing behind: what comes next is a line of its own.
        *kept = if obeyed.is_ok() { tail } else { Vec::new() };
        obeyed.map(|()| data.len() as u32)
    }
}

impl OpenFile for Text {
    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.text.len());
        let end = start.saturating_add(count as usize).min(self.text.len());
        Box::pin(std::future::ready(Ok(self.text.slice(start..end))))
    }

    fn write(&self, _offset: u64, data: Bytes) -> Call<'_, u32> {
        if !self.writes {
            return Box::pin(std::future::ready(Err(Kind::BadFile.into())));
        }
        Box::pin(self.take(data))
    }

    fn flush(&self) -> Call<'_, ()> {
        Box::pin(async {
            let mut tail = self.tail.lock().await;
            if tail.is_empty() {
                return Ok(());
            }
            let obeyed = self.obey(tail.clone()).await;
            tail.clear();
            obeyed
        })
    }
}

/// `event`, open: one reader's place.
struct Stream {
    lines: tokio::sync::Mutex<Lines>,
    wait: bool,
}

struct Lines {
    lines: Box<dyn Records>,
    /// What a read with too small a count left of a line.
    rest: Bytes,
}

impl Stream {
    /// The next whole lines that fit into `count` bytes; a line longer than that in parts.
    async fn next(&self, count: usize) -> Result<Bytes> {
        let mut lines = self.lines.lock().await;
        if lines.rest.is_empty() {
            let ready = lines.lines.try_next();
            let line = if ready.is_none() && self.wait { lines.lines.next().await? } else { ready };
            lines.rest = line.unwrap_or_default();
        }
        let mut out = BytesMut::new();
        while !lines.rest.is_empty() && (out.is_empty() || lines.rest.len() <= count - out.len()) {
            let n = lines.rest.len().min(count);
            out.extend_from_slice(&lines.rest[..n]);
            lines.rest.advance(n);
            if lines.rest.is_empty() {
                lines.rest = lines.lines.try_next().unwrap_or_default();
            } else {
                break;
            }
        }
        Ok(out.freeze())
    }
}

impl OpenFile for Stream {
    fn read(&self, _offset: u64, count: u32) -> Call<'_, Bytes> {
        Box::pin(self.next(count as usize))
    }
}
