//! One name space: the table in force, the devices, and the ways files are found through it.
//!
//! A text is applied to a copy of the table, which replaces it when every line has taken effect and nobody else was
//! faster (else once more, on a new copy): a text that waits for a dead machine holds nobody up, and a dropped apply
//! changes nothing. Lookups work on a snapshot of the table and hold no lock while they wait.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use fs_ninep::{Call, Caller, File, Kind, Name, OpenFlags, Result, ServerId, Time, Walk};
use fs_tree::Events;
use tokio::sync::watch;

use crate::Error;
use crate::link::{Link, lock, lost};
use crate::path::{Id, absolute};
use crate::root::Own;
use crate::table::{self, Base, Flags, Order, Origin};
use crate::text::{self, Command, Line, New, TEXT_MAX};
use crate::union;

/// The mount table of a running name space.
pub type Table = table::Table<Arc<Link>>;
/// What stands at one mount point.
pub type Head = table::Head<Arc<Link>>;
/// One member of a union.
pub type Member = table::Member<Arc<Link>>;

/// How deep `. file` may nest.
pub const INCLUDE_DEPTH_MAX: usize = 8;

/// How many callers' last refusals are kept.
pub const REFUSALS_MAX: usize = 64;

/// Bytes of a refusal's text that are kept.
pub const REFUSAL_BYTES_MAX: usize = 4096;

/// What the word after `mount` means.
pub trait Resolve: Send + Sync {
    /// The root of the tree that `source` (a capability `ipos:PEER/M#SECRET`, `srv/NAME`, …) stands for, attached to as
    /// `spec` (empty: its main tree).
    /// # Errors
    /// `NotFound` or `Invalid` for a source that means nothing here, `Unreachable`, or what its server answers.
    fn mount<'a>(&'a self, source: &'a str, spec: &'a str) -> Call<'a, Arc<dyn File>>;
}

/// What a name space is made of.
pub struct Space {
    pub devices: Vec<(String, Arc<dyn File>)>,
    pub resolve: Arc<dyn Resolve>,
    pub vars: HashMap<String, String>,
    /// Of the root and its own files.
    pub server: ServerId,
    /// The user and group those belong to: this process's.
    pub ids: (u32, u32),
    table: Mutex<Arc<Table>>,
    changed: Mutex<Time>,
    generation: AtomicU64,
    changes: watch::Sender<u64>,
    /// A line for each line obeyed.
    pub events: Events,
    refusals: Mutex<VecDeque<(Caller, String)>>,
}

/// A file found through the table.
pub struct Found {
    /// How to find it again.
    pub origin: Origin,
    /// Its file.
    pub file: Arc<dyn File>,
}

impl Space {
    pub fn new(
        devices: Vec<(String, Arc<dyn File>)>,
        resolve: Arc<dyn Resolve>,
        vars: HashMap<String, String>,
        table: Arc<Table>,
    ) -> Arc<Space> {
        let devices = devices.into_iter().map(|(n, f)| (n.strip_prefix('#').unwrap_or(&n).to_owned(), f)).collect();
        Arc::new(Space {
            devices,
            resolve,
            vars,
            server: ServerId::fresh(),
            ids: (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
            table: Mutex::new(table),
            changed: Mutex::new(Time::now()),
            generation: AtomicU64::new(1),
            changes: watch::Sender::new(1),
            events: Events::new(),
            refusals: Mutex::default(),
        })
    }

    /// Rises with every change of the table.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The table, and the generation it belongs to or a later one's predecessor.
    pub fn table(&self) -> (Arc<Table>, u64) {
        let table = lock(&self.table);
        (table.clone(), self.generation())
    }

    /// When the table changed last.
    pub fn changed(&self) -> Time {
        *lock(&self.changed)
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The table as text; `secrets`: so that it can be applied again.
    pub fn text(&self, secrets: bool) -> String {
        text::print(&self.table().0, secrets, |member| member.link.note())
    }

    /// Locks the table for good.
    pub fn nomnt(&self) {
        let mut table = lock(&self.table);
        if !table.locked() {
            let mut next = Table::clone(&table);
            next.lock();
            self.put(&mut table, next);
            self.events.send("nomnt");
        }
    }

    fn put(&self, place: &mut Arc<Table>, next: Table) {
        *place = Arc::new(next);
        *lock(&self.changed) = Time::now();
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes.send_replace(generation);
    }

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
        let text = self.whole(table, file).await.map_err(|why| Error::New { path: absolute(file), why })?;
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
                let hide = |why| Error::New { path: text::redact(source), why: hide(source, why) };
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
                let file = walk(&file, names).await.map_err(|why| Error::New { path, why })?;
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
                let found = found.map_err(|why| Error::New { path: absolute(path), why })?;
                Ok(vec![member(found.origin, written, flags, Link::new(found.file))])
            }
        }
    }

    fn no_device(&self, name: &str) -> Error {
        let known: Vec<_> = self.devices.iter().map(|(name, _)| format!("#{name}")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(" ") };
        Error::Device { name: name.to_owned(), known }
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
                let found = self.find(table, old).await.map_err(|why| Error::Old {
                    path: absolute(old),
                    last: old.last().map(Name::to_string).unwrap_or_default(),
                    why,
                })?;
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

    /// The file at `path`, by the members' order where a union is on the way.
    pub async fn find(&self, table: &Table, path: &[Name]) -> Result<Found> {
        let Some((depth, head)) = table.nearest(path) else {
            let name = path.first().map(Name::to_string).unwrap_or_default();
            return Err(Error::Name { name }.into());
        };
        let rest = &path[depth..];
        if rest.is_empty() {
            let first = &head.members[0];
            return Ok(Found { origin: first.origin.clone(), file: first.link.file() });
        }
        let (i, walk) = union::walk(self, head, rest, &|| absolute(path)).await?;
        Ok(Found { origin: head.members[i].origin.join(rest), file: walk.end? })
    }

    /// Where the walk of a member begins.
    async fn begin(&self, base: &Base) -> Result<Arc<dyn File>> {
        match base {
            Base::Device(name) => {
                let device = self.devices.iter().find(|(n, _)| n == name);
                device.map(|(_, file)| file.clone()).ok_or_else(|| self.no_device(name).into())
            }
            Base::Mount { source, spec } => self.resolve.mount(source, spec).await.map_err(|e| hide(source, e)),
        }
    }

    /// A member's file once more, by the path it came by, where `epoch` was of no more use; `None` if there is no other
    /// way to it than the handle there is.
    /// # Errors
    /// `Gone`, or what the servers on the way answer.
    pub async fn again(&self, member: &Member, epoch: u64) -> Result<Option<Arc<dyn File>>> {
        let (file, now) = member.link.current();
        if now != epoch {
            return Ok(Some(file));
        }
        let Origin { base, names } = &member.origin;
        if matches!(base, Base::Device(_)) && names.is_empty() {
            return Ok(None);
        }
        let found = match self.begin(base).await {
            Ok(start) => walk(&start, names).await,
            Err(e) => Err(e),
        };
        match found {
            Ok(found) if found.qid().is_dir() == file.qid().is_dir() => {
                member.link.replace(found.clone());
                Ok(Some(found))
            }
            Err(e) if e.kind() != Kind::NotFound => Err(e),
            _ => {
                member.link.gone();
                Err(Error::Gone { member: text::name(member) }.into())
            }
        }
    }

    /// Walks `names` from a member, by its path once more where the handle is of no more use. An error is of the first
    /// name; a walk that came further is the answer.
    pub async fn walk_member(&self, member: &Member, names: &[Name]) -> Result<Walk> {
        let (file, epoch) = member.link.current();
        match begun(file.walk(names).await) {
            Err(e) if lost(e.kind()) => match self.again(member, epoch).await? {
                Some(file) => begun(file.walk(names).await),
                None => Err(e),
            },
            walk => walk,
        }
    }

    /// Keeps what is to be read in `error` by `caller`.
    pub fn refused(&self, caller: &Caller, refusal: impl std::fmt::Display) {
        let mut text = refusal.to_string();
        let end = (0..=REFUSAL_BYTES_MAX).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
        text.truncate(end);
        let mut refusals = lock(&self.refusals);
        refusals.retain(|(c, _)| c != caller);
        if refusals.len() == REFUSALS_MAX {
            refusals.pop_front();
        }
        refusals.push_back((caller.clone(), text));
    }

    /// The text of the last refusal to `caller`.
    pub fn refusal(&self, caller: &Caller) -> Option<String> {
        lock(&self.refusals).iter().find(|(c, _)| c == caller).map(|(_, text)| text.clone())
    }
}

/// `error` without the secret of `source`, where a server quotes it.
fn hide(source: &str, error: fs_ninep::Error) -> fs_ninep::Error {
    match source.split_once('#') {
        Some((_, secret)) if !secret.is_empty() && error.explained() => {
            fs_ninep::Error::new(error.kind(), error.to_string().replace(secret, "*"))
        }
        _ => error,
    }
}

fn member(origin: Origin, written: Option<Vec<Name>>, flags: Flags, link: Arc<Link>) -> Member {
    Member { seq: 0, origin, written, flags: Flags { order: Order::Replace, ..flags }, link }
}

/// Which file it is.
pub fn id(file: &Arc<dyn File>) -> Id {
    (file.server(), file.qid().path)
}

async fn walk(file: &Arc<dyn File>, names: &[Name]) -> Result<Arc<dyn File>> {
    if names.is_empty() { Ok(file.clone()) } else { file.walk(names).await.end }
}

fn begun(walk: Walk) -> Result<Walk> {
    match walk.end {
        Err(e) if walk.qids.is_empty() => Err(e),
        end => Ok(Walk { qids: walk.qids, end }),
    }
}
