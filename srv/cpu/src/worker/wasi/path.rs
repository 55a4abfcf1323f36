//! Calls that take a path: each starts at a directory descriptor and stays under the job's root.

use std::rc::Rc;

use fs_ninep::{Kind, OpenFlags};

use super::Host;
use super::abi::{self, Errno, LOOKUP_FOLLOW, Memory, Result, fdflags, oflags, rights};
use super::fds::{Fd, OpenDir, OpenFile, open_flags, times};
use crate::worker::client::Fid;
use crate::worker::paths::{Dir, Found, Last, parent, resolve};

fn last(lookup: i32) -> Last {
    if lookup & LOOKUP_FOLLOW != 0 { Last::Follow } else { Last::Keep }
}

impl Host {
    fn found(&mut self, memory: &Memory, fd: i32, lookup: Last, path: i32, len: i32) -> Result<Found> {
        let base = self.dir(fd)?;
        Ok(resolve(&self.root, &base, memory.bytes(path, len)?, lookup)?)
    }

    fn place(&mut self, memory: &Memory, fd: i32, path: i32, len: i32) -> Result<(Rc<Fid>, fs_ninep::Name)> {
        let base = self.dir(fd)?;
        Ok(parent(&self.root, &base, memory.bytes(path, len)?)?)
    }

    pub fn path_create_directory(&mut self, m: &mut Memory, fd: i32, path: i32, len: i32) -> Result<()> {
        match self.place(m, fd, path, len) {
            Ok((dir, name)) => Ok(dir.mkdir(&name, 0o777)?),
            // The root, or a path that ends in `..`: whatever it is, it is there.
            Err(Errno::INVAL) => Err(Kind::Exists.into()),
            Err(e) => Err(e),
        }
    }

    pub fn path_filestat_get(
        &mut self,
        m: &mut Memory,
        fd: i32,
        lookup: i32,
        path: i32,
        len: i32,
        out: i32,
    ) -> Result<()> {
        let attr = self.found(m, fd, last(lookup), path, len)?.fid.getattr()?;
        m.put(out, &abi::filestat(&attr))
    }

    #[allow(clippy::too_many_arguments)] // the shape is the standard's
    pub fn path_filestat_set_times(
        &mut self,
        m: &mut Memory,
        fd: i32,
        lookup: i32,
        path: i32,
        len: i32,
        atim: i64,
        mtim: i64,
        flags: i32,
    ) -> Result<()> {
        let set = times(atim, mtim, flags)?;
        Ok(self.found(m, fd, last(lookup), path, len)?.fid.setattr(set)?)
    }

    #[allow(clippy::too_many_arguments)] // the shape is the standard's
    pub fn path_link(
        &mut self,
        m: &mut Memory,
        old_fd: i32,
        lookup: i32,
        old: i32,
        old_len: i32,
        new_fd: i32,
        new: i32,
        new_len: i32,
    ) -> Result<()> {
        let from = self.found(m, old_fd, last(lookup), old, old_len)?;
        let (dir, name) = self.place(m, new_fd, new, new_len)?;
        Ok(dir.link(&name, &from.fid)?)
    }

    #[allow(clippy::too_many_arguments)] // the shape is the standard's
    pub fn path_open(
        &mut self,
        m: &mut Memory,
        fd: i32,
        lookup: i32,
        path: i32,
        len: i32,
        how: i32,
        base: i64,
        _inheriting: i64,
        fdflags: i32,
        out: i32,
    ) -> Result<()> {
        let how = Opening::new(how as u16, base as u64, fdflags as u16);
        let opened = self.open(m, fd, last(lookup), path, len, how)?;
        let number = self.insert(opened)?;
        m.put_u32(out, number as u32)
    }

    fn open(&mut self, m: &Memory, fd: i32, lookup: Last, path: i32, len: i32, how: Opening) -> Result<Fd> {
        if how.creates && how.exclusive {
            let (dir, name) = self.place(m, fd, path, len)?;
            return how.create(&dir, &name);
        }
        let found = match self.found(m, fd, lookup, path, len) {
            Err(Errno::NOENT) if how.creates => {
                let (dir, name) = self.place(m, fd, path, len)?;
                return how.create(&dir, &name);
            }
            other => other?,
        };
        if found.qid.is_symlink() {
            return Err(Errno::LOOP);
        }
        if found.qid.is_dir() || how.directory {
            return match (found.qid.is_dir(), how.truncates || how.creates || (how.writes && !how.directory)) {
                (false, _) => Err(Errno::NOTDIR),
                (true, true) => Err(Errno::ISDIR),
                (true, false) => Ok(Fd::Dir(OpenDir::new(Dir { fid: found.fid, path: found.path }))),
            };
        }
        // The walk made this fid for us alone, unless the path was that of the start itself, which is a directory.
        let fid = Rc::try_unwrap(found.fid).map_err(|_| Errno::IO)?;
        let qid = fid.open(how.flags())?;
        if how.truncates {
            self.writes += 1;
        }
        Ok(Fd::File(OpenFile::new(fid, qid, how.reads, how.writes, how.append)))
    }

    #[allow(clippy::too_many_arguments)] // the shape is the standard's
    pub fn path_readlink(
        &mut self,
        m: &mut Memory,
        fd: i32,
        path: i32,
        len: i32,
        buf: i32,
        buf_len: i32,
        used: i32,
    ) -> Result<()> {
        let target = self.found(m, fd, Last::Keep, path, len)?.fid.readlink()?;
        let n = target.len().min(buf_len as u32 as usize);
        m.put(buf, &target[..n])?;
        m.put_u32(used, n as u32)
    }

    pub fn path_remove_directory(&mut self, m: &mut Memory, fd: i32, path: i32, len: i32) -> Result<()> {
        let (dir, name) = self.place(m, fd, path, len)?;
        Ok(dir.unlink(&name, true)?)
    }

    pub fn path_unlink_file(&mut self, m: &mut Memory, fd: i32, path: i32, len: i32) -> Result<()> {
        let (dir, name) = self.place(m, fd, path, len)?;
        Ok(dir.unlink(&name, false)?)
    }

    #[allow(clippy::too_many_arguments)] // the shape is the standard's
    pub fn path_rename(
        &mut self,
        m: &mut Memory,
        old_fd: i32,
        old: i32,
        old_len: i32,
        new_fd: i32,
        new: i32,
        new_len: i32,
    ) -> Result<()> {
        let (from, old) = self.place(m, old_fd, old, old_len)?;
        let (to, new) = self.place(m, new_fd, new, new_len)?;
        self.writes += 1;
        Ok(from.rename(&old, &to, &new)?)
    }

    pub fn path_symlink(
        &mut self,
        m: &mut Memory,
        target: i32,
        target_len: i32,
        fd: i32,
        path: i32,
        len: i32,
    ) -> Result<()> {
        let (dir, name) = self.place(m, fd, path, len)?;
        Ok(dir.symlink(&name, m.bytes(target, target_len)?)?)
    }
}

/// What a path_open asks for.
#[derive(Clone, Copy)]
struct Opening {
    creates: bool,
    exclusive: bool,
    truncates: bool,
    directory: bool,
    reads: bool,
    writes: bool,
    append: bool,
}

impl Opening {
    fn new(how: u16, base: u64, flags: u16) -> Opening {
        let has = |bit| how & bit != 0;
        Opening {
            creates: has(oflags::CREAT),
            exclusive: has(oflags::EXCL),
            truncates: has(oflags::TRUNC),
            directory: has(oflags::DIRECTORY),
            reads: base & rights::FD_READ != 0,
            writes: base & rights::FD_WRITE != 0,
            append: flags & fdflags::APPEND != 0,
        }
    }

    fn flags(self) -> OpenFlags {
        let mut flags = open_flags(self.reads, self.writes);
        for (set, bit) in [(self.truncates, OpenFlags::TRUNC), (self.append, OpenFlags::APPEND)] {
            flags |= if set { bit } else { 0 };
        }
        OpenFlags(flags)
    }

    fn create(self, dir: &Rc<Fid>, name: &fs_ninep::Name) -> Result<Fd> {
        let mut flags = self.flags().0 | OpenFlags::CREAT;
        if self.exclusive {
            flags |= OpenFlags::EXCL;
        }
        let fid = dir.walk(&[])?.1.ok_or(Errno::NOENT)?;
        let qid = fid.create(name, OpenFlags(flags), 0o666)?;
        Ok(Fd::File(OpenFile::new(fid, qid, self.reads, self.writes, self.append)))
    }
}
