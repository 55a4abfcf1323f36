//! Obeying text: each line on a copy of the table.

use std::sync::Arc;

use bytes::BytesMut;
use fs_ninep::{Kind, Name, OpenFlags, Result};

use super::find::{hide, walk};
use super::{INCLUDE_DEPTH_MAX, Member, Space, Table, id};
use crate::Error;
use crate::link::{Link, lock};
use crate::path::{Id, absolute};
use crate::root::Own;
use crate::table::{Base, Flags, Order, Origin};
use crate::text::{self, Command, Line, New, TEXT_MAX};

impl Space {
    /// Obeys every line of `text`, or none.
    /// # Errors
    /// Of the first line that cannot be obeyed.
    pub async fn apply(&self, text: &str) -> Result<(), Error> {
        let lines = text::parse(text, &self.vars)?;
        loop {
            let (was, _) = self.table();
            let mut next = Table::clone(&was);
            let mut done = Vec::new();
            self.lines(&mut next, &lines, 0, &mut done).await?;
            if done.is_empty() || self.commit(&was, next, done) {
                return Ok(());
            }
        }
    }

    /// Puts `next` in force and tells of the lines `done`; false when the table is no longer what it `was`.
    fn commit(&self, was: &Arc<Table>, next: Table, done: Vec<String>) -> bool {
        let mut table = lock(&self.table);
        if !Arc::ptr_eq(&table, was) {
            return false;
        }
        self.put(&mut table, next);
        for line in done {
            self.events.send(line);
        }
        true
    }

    async fn lines(
        &self,
        table: &mut Table,
        lines: &[Line],
        depth: usize,
        done: &mut Vec<String>,
    ) -> Result<(), Error> {
        for Line { number, command } in lines {
            let obeyed = match command {
                Command::Include(file) => Box::pin(self.include(table, file, depth, done)).await,
                command => self.obey(table, command).await.map(|()| done.push(text::line(command))),
            };
            obeyed.map_err(|why| Error::Line { number: *number, why: Box::new(why) })?;
        }
        Ok(())
    }

    async fn include(
        &self,
        table: &mut Table,
        file: &[Name],
        depth: usize,
        done: &mut Vec<String>,
    ) -> Result<(), Error> {
        table.unlocked()?;
        if depth == INCLUDE_DEPTH_MAX {
            return Err(Error::Nested { path: absolute(file), max: INCLUDE_DEPTH_MAX });
        }
        let text = self.whole(table, file).await.map_err(|why| Error::File { path: absolute(file), why })?;
        let lines = text::parse(&text, &self.vars)?;
        self.lines(table, &lines, depth + 1, done).await
    }

    async fn whole(&self, table: &Table, file: &[Name]) -> Result<String> {
        let open = self.find(table, file).await?.file.open(OpenFlags::RDONLY).await?;
        let mut text = BytesMut::new();
        loop {
            let part = open.read(text.len() as u64, TEXT_MAX as u32).await?;
            if part.is_empty() {
                break;
            }
            text.extend_from_slice(&part);
            if text.len() > TEXT_MAX {
                return Err(Kind::TooBig.into());
            }
        }
        String::from_utf8(text.into()).map_err(|_| Kind::Invalid.into())
    }

    async fn obey(&self, table: &mut Table, command: &Command) -> Result<(), Error> {
        table.unlocked()?;
        match command {
            Command::Bind { flags, new, old } => {
                let members = self.members(table, *flags, new).await?;
                self.bind(table, *flags, members, old).await
            }
            Command::Mount { flags, source, old, spec } => {
                self.over(old)?;
                let hide = |why| Error::File { path: text::redact(source), why: hide(source, why) };
                let file = self.resolve.mount(source, spec).await.map_err(hide)?;
                let base = Base::Mount { source: source.clone(), spec: spec.clone() };
                let origin = Origin { base, names: Vec::new() };
                self.bind(table, *flags, vec![member(origin, None, *flags, Link::new(file))], old).await
            }
            Command::Unmount { new, old } => self.unmount(table, new.as_deref(), old).await,
            Command::Clear => table.clear(),
            Command::Nomnt => {
                table.lock();
                Ok(())
            }
            Command::Include(_) => Ok(()),
        }
    }

    /// What `new` means now: one file, or the members of a union.
    async fn members(&self, table: &Table, flags: Flags, new: &New) -> Result<Vec<Member>, Error> {
        let path = match new {
            New::Device(name, names) => {
                let origin = Origin { base: Base::Device(name.clone()), names: names.clone() };
                let path = text::device(name, names);
                let file = self.begin(&origin.base).await.map_err(|_| self.no_device(name))?;
                let file = walk(&file, names).await.map_err(|why| Error::File { path, why })?;
                return Ok(vec![member(origin, None, flags, Link::new(file))]);
            }
            New::Path(path) => path,
        };
        self.over(path)?;
        let written = Some(path.clone());
        match table.head(path) {
            Some(head) if head.members.len() > 1 && flags.create => {
                Err(Error::CreateUnion { new: absolute(path), members: head.members.len() })
            }
            Some(head) => {
                let plain = head.members.len() == 1;
                let copy = |m: &Member| {
                    let written = if plain { written.clone() } else { m.written.clone() };
                    member(m.origin.clone(), written, flags, m.link.clone())
                };
                Ok(head.members.iter().map(copy).collect())
            }
            None => {
                let found = self.find(table, path).await;
                let found = found.map_err(|why| Error::File { path: absolute(path), why })?;
                Ok(vec![member(found.origin, written, flags, Link::new(found.file))])
            }
        }
    }

    /// Whether something can be bound over `path`: the root and its own files stay.
    fn over(&self, path: &[Name]) -> Result<(), Error> {
        match path {
            [] => Err(Error::Root),
            [first, ..] if Own::named(first).is_some() => Err(Error::Own { name: first.to_string() }),
            _ => Ok(()),
        }
    }

    async fn bind(&self, table: &mut Table, flags: Flags, new: Vec<Member>, old: &[Name]) -> Result<(), Error> {
        self.over(old)?;
        let dir = new.first().is_some_and(|m| m.link.file().qid().is_dir());
        let mut joined = None;
        let old_dir = match (table.head(old), old) {
            (Some(head), _) => Some(head.members[0].link.file().qid().is_dir()),
            (None, [_]) => None,
            (None, _) => {
                let found = self.find(table, old).await.map_err(|why| missing(old, why))?;
                let dir = found.file.qid().is_dir();
                let plain = Flags::default();
                joined = Some(member(found.origin, Some(old.to_vec()), plain, Link::new(found.file)));
                Some(dir)
            }
        };
        let what = || new.first().map(text::name).unwrap_or_default();
        if old_dir.is_some_and(|d| d != dir) {
            return Err(Error::Mixed { new: what(), old: absolute(old) });
        }
        if !dir && (flags.order != Order::Replace || flags.create) {
            return Err(Error::FileUnion { old: absolute(old) });
        }
        if dir && !flags.force && self.cycle(table, &new, old).await {
            return Err(Error::Cycle { new: what(), old: absolute(old) });
        }
        table.bind(old, flags.order, new, joined)
    }

    /// Whether one of `new` is a directory that `old` lies in. What cannot be asked is no cycle.
    async fn cycle(&self, table: &Table, new: &[Member], old: &[Name]) -> bool {
        let new: Vec<Id> = new.iter().map(|m| id(&m.link.file())).collect();
        for depth in 1..old.len() {
            let above = match table.head(&old[..depth]) {
                Some(head) => head.members.iter().map(|m| id(&m.link.file())).collect(),
                None => self.find(table, &old[..depth]).await.map(|f| vec![id(&f.file)]).unwrap_or_default(),
            };
            if above.iter().any(|id| new.contains(id)) {
                return true;
            }
        }
        false
    }

    async fn unmount(&self, table: &mut Table, new: Option<&str>, old: &[Name]) -> Result<(), Error> {
        self.over(old)?;
        let Some(word) = new else { return table.unmount(old, None).map(|_| ()) };
        let new = New::parse(word);
        let origin = match &new {
            Ok(New::Device(name, names)) => Some(Origin { base: Base::Device(name.clone()), names: names.clone() }),
            Ok(New::Path(path)) => table.origin(path),
            Err(_) => None,
        };
        let path = match &new {
            Ok(New::Path(path)) => Some(path),
            _ => None,
        };
        let said = |m: &Member| match &m.origin.base {
            Base::Mount { source, .. } if m.written.is_none() => source == word || text::redact(source) == word,
            _ => path.is_some() && m.written.as_ref() == path,
        };
        if table.unmount(old, Some(&said))? {
            return Ok(());
        }
        if origin.is_some() && table.unmount(old, Some(&|m: &Member| Some(&m.origin) == origin.as_ref()))? {
            return Ok(());
        }
        // By another path to the same file.
        let ids: Vec<Id> = match &new {
            Ok(new) => {
                let members = self.members(table, Flags::default(), new).await.unwrap_or_default();
                members.iter().map(|m| id(&m.link.file())).collect()
            }
            Err(_) => Vec::new(),
        };
        match table.unmount(old, Some(&|m: &Member| ids.contains(&id(&m.link.file()))))? {
            true => Ok(()),
            false => {
                let new = if word.starts_with('#') { word.to_owned() } else { text::redact(word) };
                Err(Error::NoMember { new, old: absolute(old) })
            }
        }
    }
}

/// What to say where `old` cannot be had.
fn missing(old: &[Name], why: fs_ninep::Error) -> Error {
    let path = absolute(old);
    match old.last() {
        Some(last) if why.kind() == Kind::NotFound => Error::Old { path, last: last.to_string(), why },
        _ => Error::File { path, why },
    }
}

fn member(origin: Origin, written: Option<Vec<Name>>, flags: Flags, link: Arc<Link>) -> Member {
    Member { seq: 0, origin, written, flags: Flags { order: Order::Replace, ..flags }, link }
}
