//! One connection's protocol state: dialect and msize, fids, tags, limits, order. No I/O: frames in, answers out.
//!
//! Order: requests run at once and side by side, except that a fid being bound, moved, opened or read as a 9P2000
//! directory is *busy*: what names it waits in its queue and runs in the order it came. So a client may send walk, open
//! and read without waiting. A clunk also waits for what runs on its fid, but a read that waits on a live file is answered
//! (`interrupted`) first. A flush takes effect at once: it looks a last time whether the call has ended, else drops it.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use super::Limits;
use super::call::{self, Change, Cursor, Done};
use super::pool::{Job, Key, Pool};
use crate::buffer::Output;
use crate::wire::{
    BadFrame, Dialect, Explained, HEADER, MSIZE_MIN, NOFID, NOTAG, Reply, Request, Why, Wstat, mode, perm,
};
use crate::{Attr, Caller, Error, File, Kind, Name, OpenFile, OpenFlags, Result, Tree};

/// The most a frame may be before Tversion has said.
const FIRST_MSIZE: u32 = 8192;

/// A connection's state.
pub struct Session {
    tree: Arc<dyn Tree>,
    caller: Caller,
    limits: Limits,
    dialect: Option<Dialect>,
    msize: u32,
    fids: HashMap<u32, Fid>,
    tags: HashMap<u16, Pending>,
    pool: Pool<Result<Done>, After>,
    released: Vec<u32>,
    held_bytes: usize,
    parked_reads: usize,
    /// Answers, in the order they leave.
    pub out: Output,
}

#[derive(Default)]
struct Fid {
    file: Option<Arc<dyn File>>,
    name: Option<Name>,
    open: Option<Opened>,
    busy: bool,
    queue: VecDeque<u16>,
    running: usize,
    live_reads: Vec<u16>,
}

struct Opened {
    open: Arc<dyn OpenFile>,
    flags: OpenFlags,
    live: bool,
    dir: bool,
    remove: bool,
    cursor: Cursor,
}

enum Pending {
    Running(Key),
    Queued { fid: u32, frame: Bytes },
}

/// What a call's end means for the tables.
struct After {
    tag: u16,
    bytes: usize,
    then: Then,
}

enum Then {
    /// The fid becomes the file that was walked or attached to.
    Bind { fid: u32, name: Option<Name>, all: usize },
    /// The fid becomes open.
    Open { fid: u32, name: Option<Name>, flags: OpenFlags, remove: bool },
    /// A 9P2000 directory read moves the fid's cursor.
    Entries { fid: u32 },
    /// A read that may wait for ever.
    LiveRead { fid: u32 },
    /// Nothing but the answer.
    Answer { fid: u32 },
    /// Nothing but the answer, and that even when flushed: the fid is gone already.
    Gone { remove: bool },
    /// No answer: a file opened to be removed on clunk, whose connection or session ended.
    Unasked,
}

impl Then {
    fn fid(&self) -> Option<u32> {
        match *self {
            Then::Bind { fid, .. }
            | Then::Open { fid, .. }
            | Then::Entries { fid }
            | Then::LiveRead { fid }
            | Then::Answer { fid } => Some(fid),
            Then::Gone { .. } | Then::Unasked => None,
        }
    }

    fn makes_busy(&self) -> bool {
        matches!(self, Then::Bind { .. } | Then::Open { .. } | Then::Entries { .. })
    }
}

fn bad_fid(fid: u32) -> Error {
    Error::new(Kind::BadFile, format!("fid {fid} is not in use"))
}

fn unsupported(what: &str) -> Error {
    Error::new(Kind::NotSupported, format!("{what} is not served here"))
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::new(Kind::Invalid, "a name to attach to is UTF-8"))
}

fn name(bytes: &[u8]) -> Result<Name> {
    Name::new(bytes.to_vec())
}

impl Session {
    /// A connection on which nothing was said yet.
    pub fn new(tree: Arc<dyn Tree>, caller: Caller, limits: Limits) -> Session {
        Session {
            tree,
            caller,
            limits,
            dialect: None,
            msize: FIRST_MSIZE.min(limits.msize_max),
            fids: HashMap::new(),
            tags: HashMap::new(),
            pool: Pool::default(),
            released: Vec::new(),
            held_bytes: 0,
            parked_reads: 0,
            out: Output::default(),
        }
    }

    /// The largest frame to take.
    pub fn msize(&self) -> u32 {
        self.msize
    }

    /// Whether as much waits to be sent as may.
    pub fn is_full(&self) -> bool {
        self.out.len() >= self.limits.output_bytes_max
    }

    /// The task to wake when a call can go on.
    pub fn register(&self, waker: &Waker) {
        self.pool.register(waker);
    }

    /// Takes in one frame.
    /// # Errors
    /// `Protocol` for what ends the connection: no Tversion first, an R-message, a tag that is in use, a frame cut wrong.
    pub fn request(&mut self, frame: Bytes) -> Result<()> {
        let dialect = self.dialect.unwrap_or(Dialect::Plain);
        let broken = |what: String| Err(Error::new(Kind::Protocol, what));
        let (tag, request) = match Request::decode(dialect, &frame) {
            Ok(it) => it,
            Err(bad) => return self.bad_frame(dialect, bad),
        };
        if let Request::Version { msize, version } = request {
            return self.version(tag, msize, version);
        }
        if self.dialect.is_none() {
            return broken("a message before Tversion".into());
        }
        if let Request::Flush { oldtag } = request {
            self.flush(oldtag);
            self.answer(tag, &Reply::Flush {});
            self.settle();
            return Ok(());
        }
        if tag == NOTAG || self.tags.contains_key(&tag) {
            return broken(format!("tag {tag} is in use or none"));
        }
        if self.tags.len() >= self.limits.requests_max || self.held_bytes + frame.len() > self.limits.held_bytes_max {
            self.refuse(tag, &Error::new(Kind::Again, "too many requests without an answer on this connection"));
            return Ok(());
        }
        match self.must_wait(&request, None) {
            Some(fid) => self.queue(fid, tag, frame),
            None => self.run(tag, frame.len(), request),
        }
        self.settle();
        Ok(())
    }

    /// Takes in the calls that have ended; true if there was one.
    pub fn poll(&mut self) -> bool {
        let mut any = false;
        self.pool.sweep();
        while !self.is_full() {
            let Some((done, after)) = self.pool.next() else { break };
            any = true;
            self.unpark(&after);
            self.finish(done, after);
            self.settle();
        }
        any
    }

    /// Ends the session and gives the files that were opened to be removed now.
    pub fn close(&mut self) -> Vec<Arc<dyn File>> {
        self.pool.retain(|after| matches!(after.then, Then::Unasked));
        self.tags.clear();
        self.released.clear();
        (self.held_bytes, self.parked_reads) = (0, 0);
        let fids = mem::take(&mut self.fids).into_values();
        fids.filter_map(|fid| fid.open.filter(|o| o.remove).and(fid.file)).collect()
    }

    fn bad_frame(&mut self, dialect: Dialect, bad: BadFrame) -> Result<()> {
        let fatal = |why| Err(Error::new(Kind::Protocol, why));
        match bad.why {
            Why::Size => fatal(bad.to_string()),
            Why::Type(ty) if ty % 2 == 1 => fatal(format!("message type {ty} goes from server to client")),
            _ if self.dialect.is_none() || bad.tag == NOTAG || self.tags.contains_key(&bad.tag) => {
                fatal(bad.to_string())
            }
            Why::Type(_) => {
                self.refuse(bad.tag, &Error::new(Kind::NotSupported, format!("{bad} in {}", dialect.version())));
                Ok(())
            }
            _ => {
                self.refuse(bad.tag, &Error::new(Kind::Protocol, bad));
                Ok(())
            }
        }
    }

    fn version(&mut self, tag: u16, msize: u32, version: &[u8]) -> Result<()> {
        if tag != NOTAG {
            return Err(Error::new(Kind::Protocol, "Tversion's tag is not NOTAG"));
        }
        if msize < MSIZE_MIN {
            return Err(Error::new(Kind::Protocol, format!("msize {msize} is under {MSIZE_MIN}")));
        }
        for file in self.close() {
            self.start(NOTAG, 0, Then::Unasked, Box::pin(call::remove(file)));
        }
        self.dialect = Dialect::negotiate(version);
        let answer = self.dialect.map_or("unknown", Dialect::version);
        self.msize = if self.dialect.is_some() { msize.min(self.limits.msize_max) } else { FIRST_MSIZE };
        let reply = Reply::Version { msize: msize.min(self.limits.msize_max), version: answer.as_bytes() };
        self.out.push(|o| reply.encode_head(Dialect::Plain, NOTAG, o));
        Ok(())
    }

    fn flush(&mut self, oldtag: u16) {
        match self.tags.remove(&oldtag) {
            None => {}
            Some(Pending::Queued { fid, frame }) => {
                self.held_bytes -= frame.len();
                if let Some(entry) = self.fids.get_mut(&fid) {
                    entry.queue.retain(|&t| t != oldtag);
                    self.released.push(fid);
                }
            }
            Some(Pending::Running(key)) => match self.pool.poll(key) {
                Some((done, after)) => {
                    self.unpark(&after);
                    self.finish(done, after);
                }
                None => {
                    let Some(after) = self.pool.take(key) else { return };
                    self.unpark(&after);
                    self.cancelled(after);
                }
            },
        }
    }

    /// The tables after a call was dropped without an answer.
    fn cancelled(&mut self, after: After) {
        if let Then::Gone { remove } = after.then {
            let reply = if remove { Reply::Remove {} } else { Reply::Clunk {} };
            self.answer(after.tag, &reply);
        }
        self.release(&after.then);
    }

    fn release(&mut self, then: &Then) {
        let Some(fid) = then.fid() else { return };
        if let Some(entry) = self.fids.get_mut(&fid) {
            if then.makes_busy() {
                entry.busy = false;
            }
            self.released.push(fid);
        }
    }

    /// The fid that `request` must queue for: one it names that is busy or has others waiting; `head` is a fid whose
    /// queue it has come to the head of.
    fn must_wait(&self, request: &Request, head: Option<u32>) -> Option<u32> {
        let (a, b) = fids(request);
        let waits = |fid: &u32| {
            let Some(entry) = self.fids.get(fid) else { return false };
            let ends = matches!(request, Request::Clunk { .. } | Request::Remove { .. });
            entry.busy
                || (head != Some(*fid) && !entry.queue.is_empty())
                || (ends && entry.running > entry.live_reads.len())
        };
        [a, b].into_iter().flatten().find(waits)
    }

    fn queue(&mut self, fid: u32, tag: u16, frame: Bytes) {
        if let Some(entry) = self.fids.get_mut(&fid) {
            entry.queue.push_back(tag);
            self.held_bytes += frame.len();
            // what is kept for long must not keep the read buffer: its share of held_bytes_max would be a lie
            let frame = if frame.len() < 2048 { Bytes::copy_from_slice(&frame) } else { frame };
            self.tags.insert(tag, Pending::Queued { fid, frame });
        }
    }

    /// Runs what waited for fids that are free again, until nothing more can.
    fn settle(&mut self) {
        while let Some(fid) = self.released.pop() {
            let Some(entry) = self.fids.get_mut(&fid) else { continue };
            let Some(&tag) = entry.queue.front() else {
                if entry.file.is_none() && !entry.busy {
                    self.fids.remove(&fid);
                }
                continue;
            };
            let Some(Pending::Queued { frame, .. }) = self.tags.get(&tag) else {
                entry.queue.pop_front();
                self.released.push(fid);
                continue;
            };
            let frame = frame.clone();
            let Ok((_, request)) = Request::decode(self.dialect.unwrap_or(Dialect::Plain), &frame) else { continue };
            match self.must_wait(&request, Some(fid)) {
                Some(other) if other == fid => continue,
                other => {
                    self.fids.get_mut(&fid).and_then(|e| e.queue.pop_front());
                    self.tags.remove(&tag);
                    self.held_bytes -= frame.len();
                    self.released.push(fid);
                    match other {
                        Some(other) => self.queue(other, tag, frame),
                        None => self.run(tag, frame.len(), request),
                    }
                }
            }
        }
    }

    fn run(&mut self, tag: u16, bytes: usize, request: Request) {
        if let Err(e) = self.dispatch(tag, bytes, request) {
            self.refuse(tag, &e);
        }
    }

    /// Each request to its call. Errors here are answers.
    fn dispatch(&mut self, tag: u16, bytes: usize, request: Request) -> Result<()> {
        use Request as T;
        let (then, job): (Then, Job<Result<Done>>) = match request {
            T::Version { .. } | T::Flush { .. } => return Ok(()),
            T::Auth { .. } => return Err(Error::new(Kind::NotSupported, "no authentication is needed here")),
            T::Attach { fid, afid, aname, .. } => return self.attach(tag, bytes, fid, afid, text(aname)?),
            T::Walk { fid, newfid, names } => {
                let names = names.iter().map(|n| Name::walk(n.to_vec())).collect::<Result<Vec<_>>>()?;
                return self.walk(tag, bytes, fid, newfid, names);
            }
            T::Clunk { fid } => return self.clunk(tag, bytes, fid, false),
            T::Remove { fid } => return self.clunk(tag, bytes, fid, true),
            T::Read { fid, offset, count } => return self.read(tag, bytes, fid, offset, count),
            T::Write { fid, offset, data } => {
                let opened = self.opened(fid)?;
                if !opened.flags.writes() {
                    return Err(Error::new(Kind::BadFile, "the fid is not open to be written"));
                }
                in_range(offset, data.len() as u32)?;
                (Then::Answer { fid }, Box::pin(call::write(opened.open.clone(), offset, data)))
            }
            T::Open { fid, mode } => {
                let remove = mode & mode::RCLOSE != 0;
                return self.open(tag, bytes, fid, call::flags(mode), remove);
            }
            T::Lopen { fid, flags } => return self.open(tag, bytes, fid, OpenFlags(flags), false),
            T::Create { fid, name: n, perm, mode } => {
                if perm & perm::OTHER != 0 || perm & (perm::APPEND | perm::EXCL) != 0 {
                    return Err(unsupported("a create with special bits"));
                }
                let (dir, name, flags) = (self.unopened(fid)?, name(n)?, call::flags(mode));
                let then = Then::Open { fid, name: Some(name.clone()), flags, remove: mode & mode::RCLOSE != 0 };
                (then, Box::pin(call::create_plain(dir, name, flags, perm)))
            }
            T::Lcreate { fid, name: n, flags, mode, .. } => {
                let (dir, name, flags) = (self.unopened(fid)?, name(n)?, OpenFlags(flags | OpenFlags::CREAT));
                let then = Then::Open { fid, name: None, flags, remove: false };
                (then, Box::pin(call::create(dir, name, flags, mode)))
            }
            T::Stat { fid } => (Then::Answer { fid }, Box::pin(call::stat(self.file(fid)?))),
            T::Wstat { fid, stat } => {
                let file = self.file(fid)?;
                let change: Change = call::change(&stat.0, file.qid().is_dir())?;
                let open = self.opened(fid).ok().map(|o| (o.open.clone(), o.live));
                (Then::Answer { fid }, Box::pin(call::wstat(file, open, change)))
            }
            T::Statfs { fid } => (Then::Answer { fid }, Box::pin(call::statfs(self.file(fid)?))),
            T::Symlink { dfid: fid, name: n, target, .. } => {
                let target = Bytes::copy_from_slice(target);
                (Then::Answer { fid }, Box::pin(call::symlink(self.file(fid)?, name(n)?, target)))
            }
            T::Mknod { .. } => return Err(unsupported("mknod")),
            T::Rename { fid, dfid, name: n } => {
                (Then::Answer { fid }, Box::pin(call::rename(self.file(fid)?, self.file(dfid)?, name(n)?)))
            }
            T::Readlink { fid } => (Then::Answer { fid }, Box::pin(call::readlink(self.file(fid)?))),
            T::Getattr { fid, .. } => (Then::Answer { fid }, Box::pin(call::getattr(self.file(fid)?))),
            T::Setattr { fid, valid, mode, uid, gid, size, atime, mtime } => {
                let set = call::set(valid, mode, uid, gid, size, atime, mtime);
                (Then::Answer { fid }, Box::pin(call::setattr(self.file(fid)?, set)))
            }
            T::Xattrwalk { .. } | T::Xattrcreate { .. } => return Err(Kind::NotSupported.into()),
            T::Readdir { fid, offset, count } | T::Readdirattr { fid, offset, count } => {
                let attrs = matches!(request, T::Readdirattr { .. });
                let (file, opened, count) = (self.file(fid)?, self.opened(fid)?, self.clamp(count));
                if !opened.dir {
                    return Err(Kind::NotDir.into());
                }
                (Then::Answer { fid }, Box::pin(call::readdir(file, opened.open.clone(), offset, count, attrs)))
            }
            T::Fsync { fid, data_only } => {
                let opened = self.opened(fid)?;
                let job = call::fsync(opened.open.clone(), data_only.0 != 0, opened.live);
                (Then::Answer { fid }, Box::pin(job))
            }
            T::Lock { .. } | T::Getlock { .. } => return Err(unsupported("locking")),
            T::Link { dfid, fid, name: n } => {
                (Then::Answer { fid }, Box::pin(call::link(self.file(dfid)?, name(n)?, self.file(fid)?)))
            }
            T::Mkdir { dfid: fid, name: n, mode, .. } => {
                (Then::Answer { fid }, Box::pin(call::mkdir(self.file(fid)?, name(n)?, mode)))
            }
            T::Renameat { olddirfid: fid, oldname, newdirfid, newname } => {
                let (from, to) = (self.file(fid)?, self.file(newdirfid)?);
                (Then::Answer { fid }, Box::pin(call::renameat(from, name(oldname)?, to, name(newname)?)))
            }
            T::Unlinkat { dirfid: fid, name: n, flags } => {
                (Then::Answer { fid }, Box::pin(call::unlinkat(self.file(fid)?, name(n)?, flags)))
            }
        };
        self.start(tag, bytes, then, job);
        Ok(())
    }

    fn attach(&mut self, tag: u16, bytes: usize, fid: u32, afid: u32, aname: &str) -> Result<()> {
        if afid != NOFID {
            return Err(Error::new(Kind::BadFile, "no authentication is needed here: attach with afid NOFID"));
        }
        self.new_fid(fid)?;
        let (tree, caller, aname) = (self.tree.clone(), self.caller.clone(), aname.to_owned());
        let job = async move { tree.attach(&caller, &aname).await.map(Done::Attached) };
        self.start(tag, bytes, Then::Bind { fid, name: None, all: 0 }, Box::pin(job));
        Ok(())
    }

    fn walk(&mut self, tag: u16, bytes: usize, fid: u32, newfid: u32, names: Vec<Name>) -> Result<()> {
        let file = self.file(fid)?;
        let entry = self.fids.get(&fid).ok_or_else(|| bad_fid(fid))?;
        let linux = self.dialect.is_some_and(Dialect::is_linux);
        if entry.open.is_some() && !(linux && names.is_empty() && newfid != fid) {
            return Err(Error::new(Kind::BadFile, format!("fid {fid} is open: it cannot walk")));
        }
        let name = if linux { None } else { names.last().cloned().or_else(|| entry.name.clone()) };
        if newfid != fid {
            self.new_fid(newfid)?;
        }
        let then = Then::Bind { fid: newfid, name, all: names.len() };
        if names.is_empty() {
            let done = Done::Walked(crate::wire::Few::collect([]).map_err(|_| Kind::Protocol)?, Some(file));
            self.finish(Ok(done), After { tag, bytes, then });
        } else {
            self.start(tag, bytes, then, Box::pin(call::walk(file, names)));
        }
        Ok(())
    }

    fn open(&mut self, tag: u16, bytes: usize, fid: u32, flags: OpenFlags, remove: bool) -> Result<()> {
        let file = self.unopened(fid)?;
        if file.qid().is_dir() && flags.writes() {
            return Err(Kind::IsDir.into());
        }
        if flags.has(OpenFlags::DIRECTORY) && !file.qid().is_dir() {
            return Err(Kind::NotDir.into());
        }
        let then = Then::Open { fid, name: None, flags, remove };
        self.start(tag, bytes, then, Box::pin(call::open(file, flags)));
        Ok(())
    }

    fn read(&mut self, tag: u16, bytes: usize, fid: u32, offset: u64, count: u32) -> Result<()> {
        let (opened, count) = (self.opened(fid)?, self.clamp(count));
        if !opened.flags.reads() {
            return Err(Error::new(Kind::BadFile, "the fid is not open to be read"));
        }
        if opened.dir {
            if self.dialect.is_some_and(Dialect::is_linux) {
                return Err(Kind::IsDir.into());
            }
            let (open, cursor, dir) = (opened.open.clone(), opened.cursor, self.file(fid)?);
            let job = call::stats(dir, open, cursor, offset, count);
            self.start(tag, bytes, Then::Entries { fid }, Box::pin(job));
            return Ok(());
        }
        in_range(offset, count)?;
        let then = if opened.live { Then::LiveRead { fid } } else { Then::Answer { fid } };
        let job = call::read(opened.open.clone(), offset, count);
        self.start(tag, bytes, then, Box::pin(job));
        Ok(())
    }

    /// Tclunk and Tremove: the fid is gone whatever comes of it.
    fn clunk(&mut self, tag: u16, bytes: usize, fid: u32, remove: bool) -> Result<()> {
        self.file(fid)?;
        let reads = self.fids.get_mut(&fid).map(|e| mem::take(&mut e.live_reads)).unwrap_or_default();
        for read in reads {
            if let Some(Pending::Running(key)) = self.tags.remove(&read)
                && let Some(after) = self.pool.take(key)
            {
                self.unpark(&after);
                self.refuse(read, &Error::new(Kind::Interrupted, "the fid was clunked"));
            }
        }
        let entry = self.fids.get_mut(&fid).ok_or_else(|| bad_fid(fid))?;
        let (file, open) = (entry.file.take(), entry.open.take());
        if entry.queue.is_empty() {
            self.fids.remove(&fid);
        } else {
            self.released.push(fid);
        }
        let remove_on_clunk = open.as_ref().is_some_and(|o| o.remove);
        let job: Job<Result<Done>> = match (remove, open) {
            (true, open) => {
                drop(open);
                Box::pin(call::remove(file.ok_or_else(|| bad_fid(fid))?))
            }
            (false, Some(o)) => Box::pin(call::clunk(o.open, file.filter(|_| remove_on_clunk))),
            (false, None) => {
                self.answer(tag, &Reply::Clunk {});
                return Ok(());
            }
        };
        self.start(tag, bytes, Then::Gone { remove }, job);
        Ok(())
    }

    fn file(&self, fid: u32) -> Result<Arc<dyn File>> {
        self.fids.get(&fid).and_then(|f| f.file.clone()).ok_or_else(|| bad_fid(fid))
    }

    fn unopened(&self, fid: u32) -> Result<Arc<dyn File>> {
        match self.fids.get(&fid) {
            Some(Fid { open: Some(_), .. }) => Err(Error::new(Kind::BadFile, format!("fid {fid} is open already"))),
            _ => self.file(fid),
        }
    }

    fn opened(&self, fid: u32) -> Result<&Opened> {
        let entry = self.fids.get(&fid).ok_or_else(|| bad_fid(fid))?;
        entry.open.as_ref().ok_or_else(|| Error::new(Kind::BadFile, format!("fid {fid} is not open")))
    }

    /// Checks that `fid` may be bound and holds its place.
    fn new_fid(&mut self, fid: u32) -> Result<()> {
        if fid == NOFID || self.fids.get(&fid).is_some_and(|f| f.file.is_some() || f.busy) {
            return Err(Error::new(Kind::BadFile, format!("fid {fid} is in use or none")));
        }
        if self.fids.len() >= self.limits.fids_max {
            return Err(Error::new(Kind::TooManyFiles, format!("{} fids are in use", self.fids.len())));
        }
        self.fids.entry(fid).or_default();
        Ok(())
    }

    fn clamp(&self, count: u32) -> u32 {
        count.min(self.msize - HEADER)
    }

    fn start(&mut self, tag: u16, bytes: usize, then: Then, job: Job<Result<Done>>) {
        if then.makes_busy()
            && let Some(entry) = then.fid().and_then(|fid| self.fids.get_mut(&fid))
        {
            entry.busy = true;
        }
        match self.pool.start(job, After { tag, bytes, then }) {
            Ok((done, after)) => self.finish(done, after),
            Err(key) => self.park(tag, bytes, key),
        }
    }

    fn park(&mut self, tag: u16, bytes: usize, key: Key) {
        let Some(then) = self.pool.after(key).map(|a| &a.then) else { return };
        if matches!(then, Then::Unasked) {
            return;
        }
        let live = matches!(then, Then::LiveRead { .. });
        if live && self.parked_reads >= self.limits.parked_max {
            self.pool.take(key);
            self.refuse(tag, &Error::new(Kind::Again, "too many reads wait on this connection"));
            return;
        }
        if let Some(entry) = then.fid().and_then(|fid| self.fids.get_mut(&fid)) {
            entry.running += 1;
            if live {
                entry.live_reads.push(tag);
            }
        }
        self.parked_reads += usize::from(live);
        self.held_bytes += bytes;
        self.tags.insert(tag, Pending::Running(key));
    }

    /// Undoes [`Session::park`].
    fn unpark(&mut self, after: &After) {
        if matches!(after.then, Then::Unasked) {
            return;
        }
        self.tags.remove(&after.tag);
        self.held_bytes -= after.bytes;
        let live = matches!(after.then, Then::LiveRead { .. });
        self.parked_reads -= usize::from(live);
        if let Some(entry) = after.then.fid().and_then(|fid| self.fids.get_mut(&fid)) {
            entry.running -= 1;
            if live && let Some(i) = entry.live_reads.iter().position(|&t| t == after.tag) {
                entry.live_reads.swap_remove(i);
            }
        }
    }

    /// A call has ended: the tables, then the answer.
    fn finish(&mut self, done: Result<Done>, after: After) {
        let tag = after.tag;
        if matches!(after.then, Then::Unasked) {
            return;
        }
        self.release(&after.then);
        match (done, after.then) {
            (Err(e), _) => self.refuse(tag, &e),
            (Ok(Done::Reply(reply)), _) => self.answer(tag, &reply),
            (Ok(Done::Target(target)), _) => self.answer(tag, &Reply::Readlink { target: &target }),
            (Ok(Done::Stat(attr)), then) => self.answer_stat(tag, &attr, then.fid()),
            (Ok(Done::Attached(file)), then) => {
                let qid = file.qid();
                self.bind(then, file);
                self.answer(tag, &Reply::Attach { qid });
            }
            (Ok(Done::Walked(qids, file)), then) => {
                if let (Some(file), true) = (file, matches!(then, Then::Bind { all, .. } if all == qids.len())) {
                    self.bind(then, file);
                }
                self.answer(tag, &Reply::Walk { qids });
            }
            (Ok(Done::Opened { qid, open }), then) => self.opened_now(tag, then, None, qid, open),
            (Ok(Done::Created { file, open }), then) => {
                self.opened_now(tag, then, Some(file.clone()), file.qid(), open)
            }
            (Ok(Done::Entries(data, cursor)), then) => {
                if let Some(open) = then.fid().and_then(|f| self.fids.get_mut(&f)).and_then(|f| f.open.as_mut()) {
                    open.cursor = cursor;
                }
                self.answer(tag, &Reply::Read { data });
            }
        }
    }

    fn bind(&mut self, then: Then, file: Arc<dyn File>) {
        if let Then::Bind { fid, name, .. } = then
            && let Some(entry) = self.fids.get_mut(&fid)
        {
            (entry.file, entry.name) = (Some(file), name);
        }
    }

    fn opened_now(
        &mut self,
        tag: u16,
        then: Then,
        file: Option<Arc<dyn File>>,
        qid: crate::Qid,
        open: Arc<dyn OpenFile>,
    ) {
        let created = file.is_some();
        let iounit = open.iounit().min(self.msize - HEADER);
        if let Then::Open { fid, name, flags, remove } = then
            && let Some(entry) = self.fids.get_mut(&fid)
        {
            if created {
                (entry.file, entry.name) = (file, name);
            }
            let (live, dir) = (qid.is_live(), qid.is_dir());
            entry.open = Some(Opened { open, flags, live, dir, remove, cursor: Cursor::default() });
        }
        let plain = self.dialect == Some(Dialect::Plain);
        let reply = match (created, plain) {
            (false, false) => Reply::Lopen { qid, iounit },
            (true, false) => Reply::Lcreate { qid, iounit },
            (false, true) => Reply::Open { qid, iounit },
            (true, true) => Reply::Create { qid, iounit },
        };
        self.answer(tag, &reply);
    }

    fn answer_stat(&mut self, tag: u16, attr: &Attr, fid: Option<u32>) {
        let name = fid.and_then(|fid| self.fids.get(&fid)).and_then(|f| f.name.clone());
        let name = name.as_ref().map_or(&b"/"[..], Name::as_bytes);
        call::with_stat(attr, name, |stat| self.answer(tag, &Reply::Stat { stat: Wstat(*stat) }));
    }

    fn answer(&mut self, tag: u16, reply: &Reply) {
        let dialect = self.dialect.unwrap_or(Dialect::Plain);
        self.out.push(|o| reply.encode_head(dialect, tag, o));
    }

    /// An error as an answer. 9P2000 gets the kind's text, which Linux knows; our own nodes get the explanation.
    fn refuse(&mut self, tag: u16, e: &Error) {
        if self.dialect == Some(Dialect::Plain) {
            return self.answer(tag, &Reply::Error { ename: e.kind().wire_text().as_bytes() });
        }
        let text = if e.explained() { e.to_string() } else { String::new() };
        self.answer(tag, &Reply::Lerror { ecode: e.kind().errno(), ename: Explained(clip(&text)) });
    }
}

/// The longest text of a refusal that is sent, in bytes.
const TEXT_MAX: usize = 200;

fn clip(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(TEXT_MAX)]
}

fn in_range(offset: u64, count: u32) -> Result<()> {
    match offset.checked_add(count.into()).and_then(|end| i64::try_from(end).ok()) {
        Some(_) => Ok(()),
        None => Err(Error::new(Kind::Invalid, format!("offset {offset} and count {count} overflow"))),
    }
}

/// The fids a request names.
fn fids(request: &Request) -> (Option<u32>, Option<u32>) {
    use Request as T;
    match *request {
        T::Version { .. } | T::Auth { .. } | T::Flush { .. } => (None, None),
        T::Walk { fid, newfid, .. } | T::Xattrwalk { fid, newfid, .. } => (Some(fid), Some(newfid)),
        T::Rename { fid, dfid, .. } | T::Link { dfid, fid, .. } => (Some(fid), Some(dfid)),
        T::Renameat { olddirfid, newdirfid, .. } => (Some(olddirfid), Some(newdirfid)),
        T::Symlink { dfid, .. } | T::Mknod { dfid, .. } | T::Mkdir { dfid, .. } => (Some(dfid), None),
        T::Unlinkat { dirfid, .. } => (Some(dirfid), None),
        T::Attach { fid, .. }
        | T::Read { fid, .. }
        | T::Write { fid, .. }
        | T::Clunk { fid }
        | T::Remove { fid }
        | T::Open { fid, .. }
        | T::Create { fid, .. }
        | T::Stat { fid }
        | T::Wstat { fid, .. }
        | T::Statfs { fid }
        | T::Lopen { fid, .. }
        | T::Lcreate { fid, .. }
        | T::Readlink { fid }
        | T::Getattr { fid, .. }
        | T::Setattr { fid, .. }
        | T::Xattrcreate { fid, .. }
        | T::Readdir { fid, .. }
        | T::Readdirattr { fid, .. }
        | T::Fsync { fid, .. }
        | T::Lock { fid, .. }
        | T::Getlock { fid, .. } => (Some(fid), None),
    }
}
