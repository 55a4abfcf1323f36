//! Union directories: whom to ask, and whose answer counts (namespace(6), "Unions").
//!
//! A union is one level deep: whoever has the first name of a walk has the rest. Members are asked in order, the next one
//! without waiting for those before it, but not at all once an earlier one has answered that it has the name. No answer
//! is never taken for "not there".

use std::collections::HashSet;

use fs_ninep::{Attr, Call, DirEntry, Kind, Name, OpenFlags, Result, Walk};
use futures::future::poll_immediate;
use futures::stream::{FuturesOrdered, StreamExt};

use crate::Error;
use crate::link::{lost, silent};
use crate::space::{Head, Member, Space};
use crate::text;

/// The most entries a union directory can be listed with.
pub const ENTRIES_MAX: usize = 65536;

/// Entries asked of a member at once.
const BATCH: usize = 1024;

/// Walks `names` from the first member that has the first of them. `path` is for the refusal.
/// # Errors
/// `NotFound` if every member said so; `Silent` if none has the name and some could not be asked; else the first refusal.
pub async fn walk(
    space: &Space,
    head: &Head,
    names: &[Name],
    path: &(dyn Fn() -> String + Sync),
) -> Result<(usize, Walk)> {
    if let [only] = &head.members[..] {
        return Ok((0, space.walk_member(only, names).await?));
    }
    let asked = first(&head.members, |m| Box::pin(m.link.ask(space.walk_member(m, names)))).await;
    asked.map_err(|refusals| verdict(&head.members, refusals, path))
}

/// The first answer by the order of the members, and whose it is; or every member's refusal. A member is asked before
/// those in front of it have answered, but not once one of them has.
async fn first<'a, T>(
    members: &'a [Member],
    ask: impl Fn(&'a Member) -> Call<'a, T>,
) -> Result<(usize, T), Vec<fs_ninep::Error>> {
    let mut asked = FuturesOrdered::new();
    let mut refusals = Vec::with_capacity(members.len());
    for member in members {
        asked.push_back(ask(member));
        while let Some(Some(answer)) = poll_immediate(asked.next()).await {
            match answer {
                Ok(answer) => return Ok((refusals.len(), answer)),
                Err(e) => refusals.push(e),
            }
        }
    }
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(answer) => return Ok((refusals.len(), answer)),
            Err(e) => refusals.push(e),
        }
    }
    Err(refusals)
}

/// What it means that no member has the name.
fn verdict(members: &[Member], refusals: Vec<fs_ninep::Error>, path: &(dyn Fn() -> String + Sync)) -> fs_ninep::Error {
    if let Some((member, why)) = members.iter().zip(&refusals).find(|(_, e)| silent(e.kind())) {
        return Error::Silent { path: path(), member: text::name(member), why: why.clone() }.into();
    }
    let plain = refusals.iter().find(|e| e.kind() != Kind::NotFound).or(refusals.first());
    plain.cloned().unwrap_or_else(|| Kind::NotFound.into())
}

/// The attributes of a union: its first live member's; writable only where some member takes new files.
/// # Errors
/// `Silent` or the first refusal, if no member answers.
pub async fn getattr(space: &Space, head: &Head, path: &(dyn Fn() -> String + Sync)) -> Result<Attr> {
    let asked = first(&head.members, |m| Box::pin(m.link.ask(attr_of(space, m)))).await;
    let (_, mut attr) = asked.map_err(|refusals| verdict(&head.members, refusals, path))?;
    if !head.members.iter().any(|m| m.flags.create) {
        attr.mode &= !0o222;
    }
    attr.nlink = 1;
    attr.qid.version = 0;
    Ok(attr)
}

async fn attr_of(space: &Space, member: &Member) -> Result<Attr> {
    let (file, epoch) = member.link.current();
    match file.getattr().await {
        Err(e) if lost(e.kind()) => match space.again(member, epoch).await? {
            Some(file) => file.getattr().await,
            None => Err(e),
        },
        answer => answer,
    }
}

/// The entries of all members that answer, each with its member: in member order, the first of equal names.
/// # Errors
/// The verdict over all, if no member answers; `Full` beyond [`ENTRIES_MAX`].
pub async fn list(space: &Space, head: &Head, path: &(dyn Fn() -> String + Sync)) -> Result<Vec<(usize, DirEntry)>> {
    let lists = futures::future::join_all(head.members.iter().map(|m| list_of(space, m))).await;
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    let mut refusals = Vec::new();
    for (i, list) in lists.into_iter().enumerate() {
        match list {
            Ok(list) => entries.extend(list.into_iter().filter(|e| seen.insert(e.name.clone())).map(|e| (i, e))),
            Err(e) => refusals.push(e),
        }
    }
    if refusals.len() == head.members.len() {
        return Err(verdict(&head.members, refusals, path));
    }
    if entries.len() > ENTRIES_MAX {
        return Err(Error::Full { what: "entries in a union directory", max: ENTRIES_MAX }.into());
    }
    Ok(entries)
}

async fn list_of(space: &Space, member: &Member) -> Result<Vec<DirEntry>> {
    let dir = member.link.ask(open_dir(space, member)).await?;
    let mut entries: Vec<DirEntry> = Vec::new();
    loop {
        let cookie = entries.last().map_or(0, |e| e.cookie);
        let more = member.link.ask(dir.readdir(cookie, BATCH)).await?;
        if more.is_empty() {
            return Ok(entries);
        }
        entries.extend(more);
        if entries.len() > ENTRIES_MAX {
            return Err(Error::Full { what: "entries in a union directory", max: ENTRIES_MAX }.into());
        }
    }
}

async fn open_dir(space: &Space, member: &Member) -> Result<std::sync::Arc<dyn fs_ninep::OpenFile>> {
    let flags = OpenFlags(OpenFlags::DIRECTORY);
    let (file, epoch) = member.link.current();
    match file.open(flags).await {
        Err(e) if lost(e.kind()) => match space.again(member, epoch).await? {
            Some(file) => file.open(flags).await,
            None => Err(e),
        },
        answer => answer,
    }
}
