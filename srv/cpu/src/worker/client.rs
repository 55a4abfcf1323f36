//! 9P from inside a job: one connection to the node, one request at a time, blocking.
//!
//! The connection is made by the first request that needs it: a program that touches no file costs no message. A fid that
//! is dropped is clunked in front of the next request, so a clunk costs no trip of its own.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use fs_ninep::wire::{self, DataOnly, Dialect, Dirents, Few, Reply, Request, Uid, mask};
use fs_ninep::{Attr, Error, Kind, Name, OpenFlags, Qid, Result, SetAttr, SetTime, Time};

/// What is asked for in Tversion: 128 KiB of payload a message.
const MSIZE: u32 = 128 * 1024 + wire::HEADER;
/// The tag of the request whose reply is waited for.
const TAG: u16 = 0;
/// The tag of clunks, whose replies are dropped.
const CLUNK_TAG: u16 = 1;

/// A connection; every fid holds it.
pub struct Conn(RefCell<Wire>);

struct Wire {
    stream: UnixStream,
    msize: u32,
    greeted: bool,
    attached: bool,
    lost: bool,
    out: BytesMut,
    input: BytesMut,
    next_fid: u32,
    free: Vec<u32>,
    /// Clunks whose replies have not come yet.
    clunks: usize,
}

/// A file of the job's tree.
pub struct Fid {
    id: u32,
    conn: Rc<Conn>,
}

/// One name of a directory.
pub struct Entry {
    pub name: Bytes,
    pub qid: Qid,
    pub cookie: u64,
}

/// The fid of the root.
const ROOT: u32 = 0;

impl Conn {
    /// A connection over `stream`; nothing is sent yet.
    pub fn new(stream: UnixStream) -> Rc<Conn> {
        Rc::new(Conn(RefCell::new(Wire {
            stream,
            msize: MSIZE,
            greeted: false,
            attached: false,
            lost: false,
            out: BytesMut::new(),
            input: BytesMut::new(),
            next_fid: ROOT + 1,
            free: Vec::new(),
            clunks: 0,
        })))
    }

    /// The root of the job's tree; attached to when it is first used.
    pub fn root(self: &Rc<Conn>) -> Fid {
        Fid { id: ROOT, conn: self.clone() }
    }

    /// The file that the node serves under the attach name `aname`.
    /// # Errors
    /// What the node answers.
    pub fn attach(self: &Rc<Conn>, aname: &[u8]) -> Result<Fid> {
        let mut wire = self.0.borrow_mut();
        wire.greet()?;
        let id = wire.fid();
        wire.attach(id, aname)?;
        drop(wire);
        Ok(Fid { id, conn: self.clone() })
    }
}

impl Wire {
    fn fid(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next_fid += 1;
            self.next_fid - 1
        })
    }

    fn greet(&mut self) -> Result<()> {
        if self.greeted {
            return Ok(());
        }
        let frame = self
            .exchange(wire::NOTAG, &Request::Version { msize: MSIZE, version: Dialect::Ipos.version().as_bytes() })?;
        match Reply::decode(Dialect::Ipos, &frame) {
            Ok((_, Reply::Version { msize, version })) if version == Dialect::Ipos.version().as_bytes() => {
                self.msize = msize.min(MSIZE);
                self.greeted = true;
                Ok(())
            }
            _ => Err(self.broken()),
        }
    }

    fn attach(&mut self, fid: u32, aname: &[u8]) -> Result<()> {
        let n_uname = Uid(wire::NONUNAME);
        let frame = self.exchange(TAG, &Request::Attach { fid, afid: wire::NOFID, uname: b"", aname, n_uname })?;
        answer(&frame, |reply| matches!(reply, Reply::Attach { .. }).then_some(()))
    }

    /// Sends `request` and gives the frame that answers it.
    fn call(&mut self, request: &Request) -> Result<Bytes> {
        self.greet()?;
        if !self.attached {
            self.attach(ROOT, b"")?;
            self.attached = true;
        }
        self.exchange(TAG, request)
    }

    fn exchange(&mut self, tag: u16, request: &Request) -> Result<Bytes> {
        if self.lost {
            return Err(Kind::Reset.into());
        }
        request.encode(Dialect::Ipos, tag, &mut self.out);
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        if sent.is_err() {
            return Err(self.broken());
        }
        loop {
            let frame = self.frame()?;
            match u16::from_le_bytes([frame[5], frame[6]]) {
                CLUNK_TAG if self.clunks > 0 => self.clunks -= 1,
                got if got == tag => return Ok(frame),
                _ => return Err(self.broken()),
            }
        }
    }

    /// The next whole frame.
    fn frame(&mut self) -> Result<Bytes> {
        loop {
            match wire::frame_len(&self.input, self.msize) {
                Ok(Some(len)) if self.input.len() >= len => return Ok(self.input.split_to(len).freeze()),
                Ok(_) => {}
                Err(_) => return Err(self.broken()),
            }
            let have = self.input.len();
            self.input.resize(have + 16 * 1024, 0);
            let got = self.stream.read(&mut self.input[have..]);
            self.input.truncate(have + got.as_ref().map_or(0, |n| *n));
            if !matches!(got, Ok(1..)) {
                return Err(self.broken());
            }
        }
    }

    fn broken(&mut self) -> Error {
        self.lost = true;
        Kind::Reset.into()
    }

    fn clunk(&mut self, fid: u32) {
        if fid == ROOT {
            return;
        }
        Request::Clunk { fid }.encode(Dialect::Ipos, CLUNK_TAG, &mut self.out);
        self.clunks += 1;
        self.free.push(fid);
    }
}

/// What `want` takes from the reply, or the error the reply is.
fn answer<T>(frame: &Bytes, want: impl FnOnce(Reply) -> Option<T>) -> Result<T> {
    match Reply::decode(Dialect::Ipos, frame) {
        Ok((_, Reply::Lerror { ecode, .. })) => Err(Kind::from_errno(ecode).into()),
        Ok((_, reply)) => want(reply).ok_or(Kind::Protocol.into()),
        Err(_) => Err(Kind::Protocol.into()),
    }
}

macro_rules! expect {
    ($frame:expr, $pattern:pat => $value:expr) => {
        answer(&$frame, |reply| match reply {
            $pattern => Some($value),
            _ => None,
        })
    };
}

impl Fid {
    fn call(&self, request: &Request) -> Result<Bytes> {
        self.conn.0.borrow_mut().call(request)
    }

    /// Walks `names`: the qids found, and the file where all were. No name is a fresh fid of this very file.
    /// # Errors
    /// What the server says of the first name; a later one that is missing is no error.
    pub fn walk(&self, names: &[Name]) -> Result<(Vec<Qid>, Option<Fid>)> {
        let id = self.conn.0.borrow_mut().fid();
        let few = Few::collect(names.iter().map(Name::as_bytes)).map_err(|_| Error::from(Kind::Invalid))?;
        let reply = self.call(&Request::Walk { fid: self.id, newfid: id, names: few });
        let qids =
            reply.and_then(|frame| expect!(frame, Reply::Walk { qids } => qids.iter().copied().collect::<Vec<_>>()));
        match qids {
            Ok(qids) if qids.len() == names.len() => Ok((qids, Some(Fid { id, conn: self.conn.clone() }))),
            other => {
                self.conn.0.borrow_mut().free.push(id);
                other.map(|qids| (qids, None))
            }
        }
    }

    /// The attributes now.
    pub fn getattr(&self) -> Result<Attr> {
        let frame = self.call(&Request::Getattr { fid: self.id, mask: mask::BASIC })?;
        expect!(frame, Reply::Getattr { attr, .. } => attr)
    }

    /// Opens it.
    pub fn open(&self, flags: OpenFlags) -> Result<Qid> {
        let frame = self.call(&Request::Lopen { fid: self.id, flags: flags.0 })?;
        expect!(frame, Reply::Lopen { qid, .. } => qid)
    }

    /// Creates `name` in this directory; this fid is then the open file.
    pub fn create(&self, name: &Name, flags: OpenFlags, mode: u32) -> Result<Qid> {
        let request = Request::Lcreate { fid: self.id, name: name.as_bytes(), flags: flags.0, mode, gid: 0 };
        expect!(self.call(&request)?, Reply::Lcreate { qid, .. } => qid)
    }

    /// At most `count` bytes at `offset`, as much as one message carries.
    pub fn read(&self, offset: u64, count: u32) -> Result<Bytes> {
        let count = count.min(self.write_max() as u32);
        let frame = self.call(&Request::Read { fid: self.id, offset, count })?;
        let data = expect!(frame, Reply::Read { data } => data)?;
        if data.len() > count as usize { Err(Kind::Protocol.into()) } else { Ok(data) }
    }

    /// Writes `data` at `offset` and says how much was taken.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<u32> {
        let request = Request::Write { fid: self.id, offset, data: Bytes::copy_from_slice(data) };
        let count = expect!(self.call(&request)?, Reply::Write { count } => count)?;
        if count as usize > data.len() { Err(Kind::Protocol.into()) } else { Ok(count) }
    }

    /// The most bytes one message carries.
    pub fn write_max(&self) -> usize {
        self.conn.0.borrow().msize.saturating_sub(wire::HEADER) as usize
    }

    /// The entries after `cookie`, as many as `bytes` hold; none is the end.
    pub fn readdir(&self, cookie: u64, bytes: u32) -> Result<Vec<Entry>> {
        let count = bytes.min(self.write_max() as u32);
        let data = expect!(self.call(&Request::Readdir { fid: self.id, offset: cookie, count })?, Reply::Readdir { data } => data)?;
        let entry = |e: wire::Dirent| Entry { name: data.slice_ref(e.name), qid: e.qid, cookie: e.offset };
        Dirents::new(&data).map(|e| e.map(entry).map_err(|_| Kind::Protocol.into())).collect()
    }

    /// A symbolic link's target.
    pub fn readlink(&self) -> Result<Bytes> {
        let frame = self.call(&Request::Readlink { fid: self.id })?;
        expect!(frame, Reply::Readlink { target } => Bytes::copy_from_slice(target))
    }

    pub fn mkdir(&self, name: &Name, mode: u32) -> Result<()> {
        let request = Request::Mkdir { dfid: self.id, name: name.as_bytes(), mode, gid: 0 };
        expect!(self.call(&request)?, Reply::Mkdir { .. } => ())
    }

    pub fn symlink(&self, name: &Name, target: &[u8]) -> Result<()> {
        let request = Request::Symlink { dfid: self.id, name: name.as_bytes(), target, gid: 0 };
        expect!(self.call(&request)?, Reply::Symlink { .. } => ())
    }

    /// Makes `name` in this directory a second name of `file`.
    pub fn link(&self, name: &Name, file: &Fid) -> Result<()> {
        let request = Request::Link { dfid: self.id, fid: file.id, name: name.as_bytes() };
        expect!(self.call(&request)?, Reply::Link { .. } => ())
    }

    pub fn unlink(&self, name: &Name, dir: bool) -> Result<()> {
        let flags = if dir { wire::AT_REMOVEDIR } else { 0 };
        let request = Request::Unlinkat { dirfid: self.id, name: name.as_bytes(), flags };
        expect!(self.call(&request)?, Reply::Unlinkat { .. } => ())
    }

    /// Renames `old` in this directory to `new` in `dir`.
    pub fn rename(&self, old: &Name, dir: &Fid, new: &Name) -> Result<()> {
        let (oldname, newname) = (old.as_bytes(), new.as_bytes());
        let request = Request::Renameat { olddirfid: self.id, oldname, newdirfid: dir.id, newname };
        expect!(self.call(&request)?, Reply::Renameat { .. } => ())
    }

    pub fn setattr(&self, set: SetAttr) -> Result<()> {
        let mut valid = 0;
        let mut mark = |bit: u32, on: bool| valid |= if on { bit } else { 0 };
        mark(mask::SIZE, set.size.is_some());
        mark(mask::ATIME, set.atime.is_some());
        mark(mask::MTIME, set.mtime.is_some());
        let mut time = |set: Option<SetTime>, bit: u32| match set {
            Some(SetTime::To(time)) => {
                mark(bit, true);
                time
            }
            _ => Time::default(),
        };
        let (atime, mtime) = (time(set.atime, mask::ATIME_SET), time(set.mtime, mask::MTIME_SET));
        let size = set.size.unwrap_or(0);
        let request = Request::Setattr { fid: self.id, valid, mode: 0, uid: 0, gid: 0, size, atime, mtime };
        expect!(self.call(&request)?, Reply::Setattr { .. } => ())
    }

    pub fn fsync(&self, data_only: bool) -> Result<()> {
        let request = Request::Fsync { fid: self.id, data_only: DataOnly(u32::from(data_only)) };
        expect!(self.call(&request)?, Reply::Fsync { .. } => ())
    }
}

impl Drop for Fid {
    fn drop(&mut self) {
        self.conn.0.borrow_mut().clunk(self.id);
    }
}
