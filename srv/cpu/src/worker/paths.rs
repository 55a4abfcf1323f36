//! Paths of a job: from text to a fid, one walk where no symbolic link stands in the way.
//!
//! The server follows no link, so this does, at most [`LINKS_MAX`] of them for a path. Whatever a path says, it starts
//! at the root of the job's tree or below it, and `..` stays there.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use fs_ninep::{Error, Kind, Name, Qid, QidType, Result};

use super::client::Fid;

/// Links followed for one path: Linux's figure.
const LINKS_MAX: u32 = 40;
/// The longest path, in bytes: PATH_MAX of Linux.
const PATH_MAX: usize = 4096;
/// Names of one walk: MAXWELEM of walk(5).
const WALK_MAX: usize = 16;

/// A directory, by handle and by place: the names of its own path from the root, no link among them.
#[derive(Clone)]
pub struct Dir {
    pub fid: Rc<Fid>,
    pub path: Vec<Name>,
}

/// Where a path led.
pub struct Found {
    pub fid: Rc<Fid>,
    pub qid: Qid,
    pub path: Vec<Name>,
}

/// What becomes of a link that stands last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Last {
    Follow,
    Keep,
}

/// A path in pieces: where it starts, its names, whether it must end in a directory.
struct Path {
    absolute: bool,
    names: VecDeque<Name>,
    must_dir: bool,
}

fn split(path: &[u8]) -> Result<Path> {
    if path.is_empty() {
        return Err(Kind::NotFound.into());
    }
    if path.len() > PATH_MAX {
        return Err(Kind::NameTooLong.into());
    }
    let mut names = VecDeque::new();
    for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".") {
        names.push_back(Name::walk(Bytes::copy_from_slice(name))?);
    }
    Ok(Path {
        absolute: path[0] == b'/',
        names,
        must_dir: path.ends_with(b"/") || path.ends_with(b"/.") || path == b".",
    })
}

/// The file that `path` names, seen from `base`; `root` is where absolute paths start.
/// # Errors
/// `NotFound`, `NotDir`, `Loop` after 40 links, `NameTooLong`, or what the server answers.
pub fn resolve(root: &Rc<Fid>, base: &Dir, path: &[u8], last: Last) -> Result<Found> {
    let Path { absolute, names, must_dir } = split(path)?;
    let follow = must_dir || last == Last::Follow;
    let found = step(root, base, absolute, names, follow)?;
    if must_dir && !found.qid.is_dir() { Err(Kind::NotDir.into()) } else { Ok(found) }
}

/// The directory that holds the last name of `path`, and that name.
/// # Errors
/// `Invalid` where the path ends in `..` or names the root; else as [`resolve`].
pub fn parent(root: &Rc<Fid>, base: &Dir, path: &[u8]) -> Result<(Rc<Fid>, Name)> {
    let Path { absolute, mut names, .. } = split(path)?;
    let last = names.pop_back().ok_or(Error::from(Kind::Invalid))?;
    if last.is_parent() {
        return Err(Kind::Invalid.into());
    }
    let found = step(root, base, absolute, names, true)?;
    if found.qid.is_dir() { Ok((found.fid, last)) } else { Err(Kind::NotDir.into()) }
}

fn step(root: &Rc<Fid>, base: &Dir, absolute: bool, mut todo: VecDeque<Name>, follow: bool) -> Result<Found> {
    const DIR: Qid = Qid { ty: QidType::DIR, version: 0, path: 0 };
    let start = if absolute { Dir { fid: root.clone(), path: Vec::new() } } else { base.clone() };
    let mut at = Found { fid: start.fid, qid: DIR, path: start.path };
    let mut links = 0;
    while let Some(first) = todo.front() {
        if first.is_parent() {
            if !at.qid.is_dir() {
                return Err(Kind::NotDir.into());
            }
            let up = todo.pop_front().into_iter().collect::<Vec<_>>();
            if at.path.pop().is_some() {
                let fid = at.fid.walk(&up)?.1.ok_or(Error::from(Kind::NotFound))?;
                at = Found { fid: Rc::new(fid), qid: DIR, path: at.path };
            }
            continue;
        }
        let run: Vec<Name> = todo.iter().take_while(|n| !n.is_parent()).take(WALK_MAX).cloned().collect();
        let (qids, fid) = at.fid.walk(&run)?;
        let linked = match (qids.last(), &fid) {
            (Some(q), None) => q.is_symlink(),
            (Some(q), Some(_)) => q.is_symlink() && (follow || run.len() < todo.len()),
            (None, _) => false,
        };
        todo.drain(..qids.len().min(todo.len()));
        match (linked, fid) {
            (true, fid) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Kind::Loop.into());
                }
                at = through(root, at, &run[..qids.len()], fid, &mut todo)?;
            }
            (false, Some(fid)) => {
                at.path.extend(run);
                at = Found { fid: Rc::new(fid), qid: qids.last().copied().unwrap_or(at.qid), path: at.path };
            }
            (false, None) => {
                let in_dir = qids.last().is_none_or(Qid::is_dir);
                return Err(if in_dir { Kind::NotFound } else { Kind::NotDir }.into());
            }
        }
    }
    Ok(at)
}

/// Goes through the link that `run` ends in: puts its target in front of `todo`, gives where that target starts.
fn through(root: &Rc<Fid>, at: Found, run: &[Name], link: Option<Fid>, todo: &mut VecDeque<Name>) -> Result<Found> {
    let link = match link {
        Some(fid) => fid,
        None => at.fid.walk(run)?.1.ok_or(Error::from(Kind::NotFound))?,
    };
    let target = split(&link.readlink()?)?;
    for name in target.names.into_iter().rev() {
        todo.push_front(name);
    }
    let dir = Qid { ty: QidType::DIR, ..Qid::default() };
    if target.absolute {
        return Ok(Found { fid: root.clone(), qid: dir, path: Vec::new() });
    }
    let above = &run[..run.len() - 1];
    if above.is_empty() {
        return Ok(Found { qid: dir, ..at });
    }
    let fid = at.fid.walk(above)?.1.ok_or(Error::from(Kind::NotFound))?;
    let path = at.path.into_iter().chain(above.iter().cloned()).collect();
    Ok(Found { fid: Rc::new(fid), qid: dir, path })
}
