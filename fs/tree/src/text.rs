//! An open value, control, error or clone file: a snapshot to read, text or lines to write.

use bytes::Bytes;
use fs_ninep::{Call, Error, Kind, OpenFile, OpenFlags, Result, VALUE_IOUNIT};
use tokio::sync::Mutex;

use crate::made::Held;
use crate::node::Node;
use crate::{Line, Service, words};

/// The longest unfinished line of a control file, and the longest text that replaces a value, in bytes.
pub const TEXT_MAX: usize = 64 << 10;

/// What a write to the file means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing can be written.
    Nothing,
    /// The new value, when the file is flushed.
    Value,
    /// Commands, at the end of each line.
    Lines,
}

pub(crate) struct Text<S: Service> {
    node: Node<S>,
    flags: OpenFlags,
    snapshot: Bytes,
    takes: Takes,
    /// Where reading goes on, in a file that is written as well.
    cursor: std::sync::Mutex<u64>,
    /// What was written and not taken yet. Held while commands are obeyed, so that those of one fid keep their order.
    pending: Mutex<Vec<u8>>,
    _held: Option<Held<S>>,
}

impl<S: Service> Text<S> {
    pub fn new(node: Node<S>, flags: OpenFlags, snapshot: Bytes, takes: Takes, held: Option<Held<S>>) -> Text<S> {
        Text { node, flags, snapshot, takes, cursor: Default::default(), pending: Mutex::default(), _held: held }
    }

    /// At most `count` bytes at `offset`. A file that is both read and written has no position in the kernel, which then
    /// says 0 each time: such a read goes on where the last ended, and after the end begins anew.
    fn part(&self, offset: u64, count: u32) -> Bytes {
        if !self.flags.writes() {
            return slice(&self.snapshot, offset, count);
        }
        let mut cursor = self.cursor.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let from = if offset == 0 { *cursor } else { offset };
        let part = slice(&self.snapshot, from, count);
        *cursor = if part.is_empty() && count > 0 { 0 } else { from + part.len() as u64 };
        part
    }

    async fn take(&self, data: &[u8]) -> Result<()> {
        let mut pending = self.pending.lock().await;
        let lines_end = match self.takes {
            Takes::Lines => data.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1),
            _ => 0,
        };
        let (lines, tail) = data.split_at(lines_end);
        if tail.len() + if lines.is_empty() { pending.len() } else { 0 } > TEXT_MAX {
            let text = format!("a line or value over {TEXT_MAX} bytes; nothing of this write was taken");
            return Err(Error::new(Kind::MessageTooLong, text));
        }
        if !lines.is_empty() {
            let mut text = std::mem::take(&mut *pending);
            text.extend_from_slice(lines);
            self.obey(text).await?;
        }
        pending.extend_from_slice(tail);
        Ok(())
    }

    async fn obey(&self, text: Vec<u8>) -> Result<()> {
        let lines = parse(text)?;
        if lines.is_empty() {
            return Ok(());
        }
        self.node.server.service.write(&self.node.at, &lines).await
    }

    async fn settle(&self) -> Result<()> {
        let mut pending = self.pending.lock().await;
        let text = std::mem::take(&mut *pending);
        match self.takes {
            _ if text.is_empty() => Ok(()),
            Takes::Value => self.node.server.service.set(&self.node.at, text.into()).await,
            _ => self.obey(text).await,
        }
    }
}

/// The commands in `text`; blank lines are dropped.
fn parse(text: Vec<u8>) -> Result<Vec<Line>> {
    let text = String::from_utf8(text).map_err(|_| Error::new(Kind::Invalid, "a command is not UTF-8 text"))?;
    if text.contains('\0') {
        return Err(Error::new(Kind::Invalid, "a command holds a NUL"));
    }
    let mut lines = Vec::new();
    for text in text.split_terminator('\n') {
        let words = words(text)?;
        if !words.is_empty() {
            lines.push(Line { text: text.to_owned(), words });
        }
    }
    Ok(lines)
}

impl<S: Service> OpenFile for Text<S> {
    fn iounit(&self) -> u32 {
        if self.takes == Takes::Value { VALUE_IOUNIT } else { 0 }
    }

    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        let part = match self.flags.reads() {
            true => Ok(self.part(offset, count)),
            false => Err(Kind::BadFile.into()),
        };
        Box::pin(std::future::ready(part))
    }

    fn write(&self, _offset: u64, data: Bytes) -> Call<'_, u32> {
        Box::pin(async move {
            if !self.flags.writes() || self.takes == Takes::Nothing {
                return Err(Kind::BadFile.into());
            }
            self.take(&data).await.map_err(|e| self.node.refused(e))?;
            Ok(data.len() as u32)
        })
    }

    fn flush(&self) -> Call<'_, ()> {
        Box::pin(async move { self.settle().await.map_err(|e| self.node.refused(e)) })
    }

    fn fsync(&self, _data_only: bool) -> Call<'_, ()> {
        self.flush()
    }
}

/// At most `count` bytes of `text` at `offset`.
pub(crate) fn slice(text: &Bytes, offset: u64, count: u32) -> Bytes {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let to = from.saturating_add(count as usize).min(text.len());
    text.slice(from..to)
}
