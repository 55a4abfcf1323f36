//! Descriptors: the program's three pipes, its one preopened directory, and what it opened itself.

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use bytes::Bytes;
use fs_ninep::{Attr, Qid, SetAttr, SetTime, Time};

use super::Host;
use super::abi::{self, Errno, Memory, Result, fdflags, filetype, rights};
use crate::worker::client::{Entry, Fid};
use crate::worker::paths::Dir;

/// What is read ahead of a program that reads a file in order, in bytes.
const AHEAD: usize = 128 * 1024;
/// What one directory read asks for, in bytes.
const READDIR_BYTES: u32 = 32 * 1024;

/// One descriptor.
pub enum Fd {
    Pipe(Pipe),
    Dir(OpenDir),
    File(OpenFile),
}

/// A pipe to or from the node.
pub struct Pipe {
    pub fd: OwnedFd,
    pub writes: bool,
}

/// An open directory; opened on the server by its first read.
pub struct OpenDir {
    pub dir: Dir,
    reading: Option<Reading>,
}

/// A directory read under way: the fid, the cookie the entries kept here follow, those entries.
struct Reading {
    fid: Fid,
    after: u64,
    entries: Vec<Entry>,
}

/// An open file.
pub struct OpenFile {
    pub fid: Fid,
    pub qid: Qid,
    pub reads: bool,
    pub writes: bool,
    pub append: bool,
    pub pos: u64,
    ahead: Ahead,
}

/// Bytes read and not yet asked for, good while nothing was written by this program since.
#[derive(Default)]
struct Ahead {
    offset: u64,
    bytes: Bytes,
    writes: u64,
}

impl OpenDir {
    pub fn new(dir: Dir) -> OpenDir {
        OpenDir { dir, reading: None }
    }
}

impl OpenFile {
    pub fn new(fid: Fid, qid: Qid, reads: bool, writes: bool, append: bool) -> OpenFile {
        OpenFile { fid, qid, reads, writes, append, pos: 0, ahead: Ahead::default() }
    }

    /// At most `count` bytes at `offset`: from what was read ahead, else from the server, ahead where that is safe.
    fn read(&mut self, offset: u64, count: usize, writes: u64, in_order: bool) -> Result<Bytes> {
        if !self.reads {
            return Err(Errno::BADF);
        }
        if count == 0 {
            return Ok(Bytes::new());
        }
        let kept = &self.ahead;
        if kept.writes == writes && offset >= kept.offset && offset < kept.offset + kept.bytes.len() as u64 {
            let start = (offset - kept.offset) as usize;
            let end = kept.bytes.len().min(start + count);
            return Ok(kept.bytes.slice(start..end));
        }
        let ahead = in_order && !self.qid.is_live() && count < AHEAD;
        let want = if ahead { AHEAD } else { count };
        let got = self.fid.read(offset, u32::try_from(want).unwrap_or(u32::MAX))?;
        if !ahead {
            return Ok(got);
        }
        self.ahead = Ahead { offset, bytes: got.clone(), writes };
        Ok(got.slice(..got.len().min(count)))
    }
}

impl Pipe {
    fn read(&self, buf: &mut [u8]) -> Result<usize> {
        if self.writes {
            return Err(Errno::BADF);
        }
        nix::unistd::read(&self.fd, buf).map_err(|e| std::io::Error::from(e).into())
    }

    fn write(&self, bytes: &[u8]) -> Result<usize> {
        if !self.writes {
            return Err(Errno::BADF);
        }
        nix::unistd::write(&self.fd, bytes).map_err(|e| std::io::Error::from(e).into())
    }

    /// The number poll(2) knows it by.
    pub fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

impl Host {
    pub fn fd(&mut self, fd: i32) -> Result<&mut Fd> {
        let slot = usize::try_from(fd).ok().and_then(|fd| self.fds.get_mut(fd));
        slot.and_then(Option::as_mut).ok_or(Errno::BADF)
    }

    fn file(&mut self, fd: i32) -> Result<&mut OpenFile> {
        match self.fd(fd)? {
            Fd::File(file) => Ok(file),
            Fd::Dir(_) => Err(Errno::ISDIR),
            Fd::Pipe(_) => Err(Errno::SPIPE),
        }
    }

    /// The directory that `fd` names, to start a path at.
    pub fn dir(&mut self, fd: i32) -> Result<Dir> {
        match self.fd(fd)? {
            Fd::Dir(open) => Ok(open.dir.clone()),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Puts `fd` at the lowest free number.
    /// # Errors
    /// `MFILE` at the job's limit of open files.
    pub fn insert(&mut self, fd: Fd) -> Result<i32> {
        let free = self.fds.iter().position(Option::is_none).unwrap_or(self.fds.len());
        if free >= self.files_max {
            return Err(Errno::MFILE);
        }
        if free == self.fds.len() {
            self.fds.push(None);
        }
        self.fds[free] = Some(fd);
        Ok(free as i32)
    }

    /// The attributes of what `fd` names.
    fn attr(&mut self, fd: i32) -> Result<Attr> {
        match self.fd(fd)? {
            Fd::File(file) => Ok(file.fid.getattr()?),
            Fd::Dir(open) => Ok(open.dir.fid.getattr()?),
            Fd::Pipe(_) => Ok(Attr { nlink: 1, ..Attr::default() }),
        }
    }

    pub fn fd_advise(&mut self, _: &mut Memory, fd: i32, _offset: i64, _len: i64, _advice: i32) -> Result<()> {
        self.fd(fd).map(drop)
    }

    pub fn fd_allocate(&mut self, _: &mut Memory, fd: i32, _offset: i64, _len: i64) -> Result<()> {
        self.fd(fd)?;
        Err(Errno::NOTSUP)
    }

    pub fn fd_close(&mut self, _: &mut Memory, fd: i32) -> Result<()> {
        self.fd(fd)?;
        self.fds[fd as usize] = None;
        Ok(())
    }

    pub fn fd_datasync(&mut self, _: &mut Memory, fd: i32) -> Result<()> {
        match self.fd(fd)? {
            Fd::File(file) => Ok(file.fid.fsync(true)?),
            _ => Ok(()),
        }
    }

    pub fn fd_sync(&mut self, _: &mut Memory, fd: i32) -> Result<()> {
        match self.fd(fd)? {
            Fd::File(file) => Ok(file.fid.fsync(false)?),
            _ => Ok(()),
        }
    }

    pub fn fd_fdstat_get(&mut self, memory: &mut Memory, fd: i32, out: i32) -> Result<()> {
        let stat = match self.fd(fd)? {
            Fd::Pipe(p) => abi::fdstat(
                filetype::UNKNOWN,
                0,
                rights::POLL | if p.writes { rights::FD_WRITE } else { rights::FD_READ },
            ),
            Fd::Dir(_) => abi::fdstat(
                filetype::DIRECTORY,
                0,
                rights::ALL & !(rights::FD_SEEK | rights::FD_TELL | rights::FD_READ | rights::FD_WRITE),
            ),
            Fd::File(file) => {
                let mut may = rights::ALL;
                if !file.reads {
                    may &= !rights::FD_READ;
                }
                if !file.writes {
                    may &= !rights::FD_WRITE;
                }
                abi::fdstat(filetype::REGULAR, if file.append { fdflags::APPEND } else { 0 }, may)
            }
        };
        memory.put(out, &stat)
    }

    pub fn fd_fdstat_set_flags(&mut self, _: &mut Memory, fd: i32, flags: i32) -> Result<()> {
        if let Fd::File(file) = self.fd(fd)? {
            file.append = flags as u16 & fdflags::APPEND != 0;
        } else if flags as u16 & fdflags::NONBLOCK != 0 {
            return Err(Errno::NOTSUP);
        }
        Ok(())
    }

    pub fn fd_fdstat_set_rights(&mut self, _: &mut Memory, fd: i32, _base: i64, _inheriting: i64) -> Result<()> {
        self.fd(fd).map(drop) // rights are no wall here: the tree's permissions are
    }

    pub fn fd_filestat_get(&mut self, memory: &mut Memory, fd: i32, out: i32) -> Result<()> {
        let attr = self.attr(fd)?;
        memory.put(out, &abi::filestat(&attr))
    }

    pub fn fd_filestat_set_size(&mut self, _: &mut Memory, fd: i32, size: i64) -> Result<()> {
        self.writes += 1;
        let size = u64::try_from(size).map_err(|_| Errno::INVAL)?;
        Ok(self.file(fd)?.fid.setattr(SetAttr { size: Some(size), ..SetAttr::default() })?)
    }

    pub fn fd_filestat_set_times(&mut self, _: &mut Memory, fd: i32, atim: i64, mtim: i64, flags: i32) -> Result<()> {
        let set = times(atim, mtim, flags)?;
        match self.fd(fd)? {
            Fd::File(file) => Ok(file.fid.setattr(set)?),
            Fd::Dir(open) => Ok(open.dir.fid.setattr(set)?),
            Fd::Pipe(_) => Err(Errno::BADF),
        }
    }

    pub fn fd_pread(&mut self, m: &mut Memory, fd: i32, iovs: i32, count: i32, offset: i64, out: i32) -> Result<()> {
        let vectors = m.vectors(iovs, count)?;
        let (offset, writes) = (u64::try_from(offset).map_err(|_| Errno::INVAL)?, self.writes);
        let got = self.file(fd)?.read(offset, abi::total(&vectors), writes, false)?;
        m.scatter(&vectors, &got);
        m.put_u32(out, got.len() as u32)
    }

    pub fn fd_pwrite(&mut self, m: &mut Memory, fd: i32, iovs: i32, count: i32, offset: i64, out: i32) -> Result<()> {
        let vectors = m.vectors(iovs, count)?;
        let offset = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
        self.writes += 1;
        let file = self.file(fd)?;
        if !file.writes {
            return Err(Errno::BADF);
        }
        let data = m.gather(&vectors, file.fid.write_max());
        m.put_u32(out, file.fid.write(offset, &data)?)
    }

    pub fn fd_prestat_get(&mut self, memory: &mut Memory, fd: i32, out: i32) -> Result<()> {
        if usize::try_from(fd) != Ok(super::PREOPEN) {
            return Err(Errno::BADF);
        }
        self.fd(fd)?;
        memory.put_u32(out, 0)?; // a directory
        memory.put_u32(out.wrapping_add(4), 1)
    }

    pub fn fd_prestat_dir_name(&mut self, memory: &mut Memory, fd: i32, path: i32, len: i32) -> Result<()> {
        if usize::try_from(fd) != Ok(super::PREOPEN) {
            return Err(Errno::BADF);
        }
        if len < 1 {
            return Err(Errno::NAMETOOLONG);
        }
        memory.put(path, b"/")
    }

    pub fn fd_read(&mut self, m: &mut Memory, fd: i32, iovs: i32, count: i32, out: i32) -> Result<()> {
        let vectors = m.vectors(iovs, count)?;
        let writes = self.writes;
        let n = match self.fd(fd)? {
            Fd::Pipe(pipe) => match vectors.iter().find(|(_, len)| *len > 0) {
                Some((start, len)) => pipe.read(&mut m.0[*start..start + len])?,
                None => 0,
            },
            Fd::File(file) => {
                let got = file.read(file.pos, abi::total(&vectors), writes, true)?;
                m.scatter(&vectors, &got);
                file.pos += got.len() as u64;
                got.len()
            }
            Fd::Dir(_) => return Err(Errno::ISDIR),
        };
        m.put_u32(out, n as u32)
    }

    pub fn fd_write(&mut self, m: &mut Memory, fd: i32, iovs: i32, count: i32, out: i32) -> Result<()> {
        let vectors = m.vectors(iovs, count)?;
        self.writes += 1;
        let n = match self.fd(fd)? {
            Fd::Pipe(pipe) => match &vectors[..] {
                [(start, len)] => pipe.write(&m.0[*start..start + len])?,
                more => pipe.write(&m.gather(more, AHEAD))?,
            },
            Fd::File(file) if !file.writes => return Err(Errno::BADF),
            Fd::File(file) => {
                if file.append {
                    file.pos = file.fid.getattr()?.size;
                }
                let data = m.gather(&vectors, file.fid.write_max());
                let n = file.fid.write(file.pos, &data)?;
                file.pos += u64::from(n);
                n as usize
            }
            Fd::Dir(_) => return Err(Errno::ISDIR),
        };
        m.put_u32(out, n as u32)
    }

    pub fn fd_seek(&mut self, memory: &mut Memory, fd: i32, by: i64, whence: i32, out: i32) -> Result<()> {
        let file = self.file(fd)?;
        let from = match whence {
            0 => 0,
            1 => file.pos,
            2 => file.fid.getattr()?.size,
            _ => return Err(Errno::INVAL),
        };
        file.pos = from.checked_add_signed(by).filter(|to| i64::try_from(*to).is_ok()).ok_or(Errno::INVAL)?;
        memory.put_u64(out, file.pos)
    }

    pub fn fd_tell(&mut self, memory: &mut Memory, fd: i32, out: i32) -> Result<()> {
        let pos = self.file(fd)?.pos;
        memory.put_u64(out, pos)
    }

    pub fn fd_renumber(&mut self, _: &mut Memory, from: i32, to: i32) -> Result<()> {
        self.fd(from)?;
        self.fd(to)?;
        if from != to {
            self.fds[to as usize] = self.fds[from as usize].take();
        }
        Ok(())
    }

    pub fn fd_readdir(&mut self, m: &mut Memory, fd: i32, buf: i32, len: i32, cookie: i64, used: i32) -> Result<()> {
        self.dir(fd)?;
        let Fd::Dir(open) = self.fd(fd)? else { return Err(Errno::NOTDIR) };
        let out = m.bytes_mut(buf, len as u32 as usize)?;
        let mut at = 0;
        let mut cookie = cookie as u64;
        while at < out.len() {
            let Some(entry) = open.after(cookie)? else { break };
            let mut record = [0; 24];
            record[0..8].copy_from_slice(&entry.cookie.to_le_bytes());
            record[8..16].copy_from_slice(&entry.qid.path.to_le_bytes());
            record[16..20].copy_from_slice(&(entry.name.len() as u32).to_le_bytes());
            record[20] = match () {
                () if entry.qid.is_dir() => filetype::DIRECTORY,
                () if entry.qid.is_symlink() => filetype::SYMLINK,
                () => filetype::REGULAR,
            };
            for part in [&record[..], &entry.name[..]] {
                let n = part.len().min(out.len() - at); // a record that is cut off tells the program to ask again
                out[at..at + n].copy_from_slice(&part[..n]);
                at += n;
            }
            cookie = entry.cookie;
        }
        m.put_u32(used, at as u32)
    }
}

impl OpenDir {
    /// The entry that follows `cookie` (0: the first).
    fn after(&mut self, cookie: u64) -> Result<Option<&Entry>> {
        let found = self.reading.as_ref().and_then(|r| r.position(cookie));
        let index = match found {
            Some(index) => index,
            None => {
                let fid = match self.reading.take() {
                    Some(reading) if cookie != 0 => reading.fid,
                    _ => open_again(&self.dir.fid)?,
                };
                let entries = fid.readdir(cookie, READDIR_BYTES)?;
                self.reading = Some(Reading { fid, after: cookie, entries });
                0
            }
        };
        Ok(self.reading.as_ref().and_then(|r| r.entries.get(index)))
    }
}

impl Reading {
    /// Where the entry after `cookie` stands among those kept; a rewind to 0 always asks anew.
    fn position(&self, cookie: u64) -> Option<usize> {
        if cookie == 0 {
            return None;
        }
        if cookie == self.after && !self.entries.is_empty() {
            return Some(0);
        }
        let next = self.entries.iter().position(|e| e.cookie == cookie)? + 1;
        (next < self.entries.len()).then_some(next)
    }
}

fn open_again(dir: &Rc<Fid>) -> Result<Fid> {
    let fid = dir.walk(&[])?.1.ok_or(Errno::NOENT)?;
    fid.open(fs_ninep::OpenFlags(fs_ninep::OpenFlags::DIRECTORY))?;
    Ok(fid)
}

/// The times that a call sets.
pub fn times(atim: i64, mtim: i64, flags: i32) -> Result<SetAttr> {
    let one = |to: i64, set: bool, now: bool| match (set, now) {
        (true, true) => Err(Errno::INVAL),
        (true, false) => {
            let nanos = to as u64;
            Ok(Some(SetTime::To(Time { sec: (nanos / 1_000_000_000) as i64, nsec: (nanos % 1_000_000_000) as u32 })))
        }
        (false, true) => Ok(Some(SetTime::Now)),
        (false, false) => Ok(None),
    };
    Ok(SetAttr {
        atime: one(atim, flags & 1 != 0, flags & 2 != 0)?,
        mtime: one(mtim, flags & 4 != 0, flags & 8 != 0)?,
        ..SetAttr::default()
    })
}

/// The flags of open(2) for what the program asked for.
pub fn open_flags(reads: bool, writes: bool) -> u32 {
    match (reads, writes) {
        (true, true) => 2,
        (false, true) => 1,
        _ => 0,
    }
}
