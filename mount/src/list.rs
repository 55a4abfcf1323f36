//! Directory listings.
//!
//! The tree's cookies are the kernel's offsets as they are. `.` and `..`, which trees do not give, come first, under two
//! offsets that no server counts to. Entries are fetched many at a time and handed on as the kernel asks for them.

use std::collections::VecDeque;
use std::sync::Arc;

use fs_ninep::{Attr, DirEntry, File, Qid, QidType, Result};
use futures::future::join_all;

use crate::abi::{Entries, Fields, Out, Valid};
use crate::nodes::{Found, ino};
use crate::opens::{Ahead, OpenedDir};
use crate::ops;
use crate::session::Session;

/// Entries asked of a tree at a time.
const FETCH: usize = 512;
/// Attributes asked for at a time.
const LOOKS: usize = 64;
/// The offset after `.`; the one after `..` is the next.
const DOT: u64 = (1 << 62) + 1;

/// Answers READDIR and READDIRPLUS.
pub async fn readdir(
    s: Arc<Session>,
    node: u64,
    dir: Arc<OpenedDir>,
    offset: u64,
    size: u32,
    plus: bool,
) -> Result<Out> {
    let mut out = Entries::new(size, plus);
    let file = ops::file(&s, node).await?;
    let cookie = dots(&mut out, &file, offset);
    let mut ahead = dir.take(cookie);
    if ahead.entries.is_empty() && !ahead.end {
        let more = dir.open.readdir(cookie, FETCH).await?;
        ahead = Ahead { after: cookie, end: more.is_empty(), entries: VecDeque::from(more) };
    }
    let fit = out.fit(ahead.entries.iter().map(|e| e.name.as_bytes()));
    let batch: Vec<DirEntry> = ahead.entries.drain(..fit).collect();
    ahead.after = batch.last().map_or(cookie, |e| e.cookie);
    for chunk in batch.chunks(LOOKS) {
        match plus {
            true => push_plus(&s, node, &file, &mut out, chunk).await,
            false => push(&file, &mut out, chunk),
        }
    }
    dir.keep(ahead);
    Ok(out.done())
}

/// Puts `.` and `..` where they are due; gives the cookie to go on at.
fn dots(out: &mut Entries, file: &Arc<dyn File>, offset: u64) -> u64 {
    let here = Qid { ty: QidType::DIR, ..file.qid() };
    let ino = ino((file.server(), here.path));
    match offset {
        0 => {
            out.push(b".", DOT, ino, here, None);
            out.push(b"..", DOT + 1, ino, here, None);
            0
        }
        DOT => {
            out.push(b"..", DOT + 1, ino, here, None);
            0
        }
        o if o == DOT + 1 => 0,
        cookie => cookie,
    }
}

fn push(dir: &Arc<dyn File>, out: &mut Entries, chunk: &[DirEntry]) {
    for e in chunk {
        let server = e.file.as_ref().unwrap_or(dir).server();
        out.push(e.name.as_bytes(), e.cookie, ino((server, e.qid.path)), e.qid, None);
    }
}

/// An entry whose attributes cannot be had is given without: a listing does not fail for one dead file.
async fn push_plus(s: &Session, node: u64, dir: &Arc<dyn File>, out: &mut Entries, chunk: &[DirEntry]) {
    let looks = join_all(chunk.iter().filter(|e| e.attr.is_none()).map(|e| look(dir, e))).await;
    let mut looks = looks.into_iter();
    for e in chunk {
        let seen = match &e.attr {
            Some(attr) => Some((e.file.clone(), attr.clone())),
            None => looks.next().and_then(Result::ok).map(|(file, attr)| (Some(file), attr)),
        };
        let (number, entry) = match seen {
            Some((file, attr)) => found(s, node, dir, e, file, &attr),
            None => (ino((dir.server(), e.qid.path)), None),
        };
        out.push(e.name.as_bytes(), e.cookie, number, e.qid, entry);
    }
}

async fn look(dir: &Arc<dyn File>, e: &DirEntry) -> Result<(Arc<dyn File>, Attr)> {
    match &e.file {
        Some(file) => Ok((file.clone(), file.getattr().await?)),
        None => dir.walk_getattr(std::slice::from_ref(&e.name)).await,
    }
}

fn found(
    s: &Session,
    node: u64,
    dir: &Arc<dyn File>,
    e: &DirEntry,
    file: Option<Arc<dyn File>>,
    attr: &Attr,
) -> (u64, Option<Fields>) {
    let server = file.as_ref().unwrap_or(dir).server();
    let number = ino((server, attr.qid.path));
    let id = s.nodes().intern(node, Found { name: e.name.clone(), server, qid: attr.qid, size: attr.size, file });
    (number, Some(Fields::entry(id, Valid::of(attr.qid), number, attr)))
}
