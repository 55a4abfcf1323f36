//! WASI preview 1: the 46 functions a program may import, over the job's tree.
//!
//! One thread, one call at a time: a call that waits (a pipe, a remote file) holds the program and nobody else. There is
//! exactly one preopened directory, `/`: with a second one wasi-libc would resolve absolute paths under the wrong one.

mod abi;
mod fds;
mod path;
mod poll;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use wasmtime::{Caller, Extern, Linker, ResourceLimiter};

use self::abi::{Errno, Memory, Result};
use self::fds::{Fd, OpenDir, Pipe};
use super::client::Fid;
use super::paths::Dir;

/// The number of the one preopened directory.
const PREOPEN: usize = 3;
/// Elements of all tables of a module together.
const TABLE_MAX: usize = 1 << 20;

/// What a program's imports work on.
pub struct Host {
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
    root: Rc<Fid>,
    fds: Vec<Option<Fd>>,
    files_max: usize,
    /// Writes made so far: what was read ahead before one is not used after it.
    writes: u64,
    /// The limits of its memory.
    pub meter: Meter,
}

/// Why a program stopped that did not trap: proc_exit.
#[derive(Debug, thiserror::Error)]
#[error("exit {0}")]
pub struct Exit(pub i32);

/// The program grew past its limit.
#[derive(Debug, thiserror::Error)]
#[error("{what} of {wanted} is over the limit of {max}")]
pub struct OverLimit {
    what: &'static str,
    wanted: usize,
    max: usize,
}

/// The wall around a program's memory and tables.
pub struct Meter {
    memory_max: usize,
    /// The largest its memory was, in bytes.
    pub memory_peak: usize,
}

impl Meter {
    fn admit(what: &'static str, wanted: usize, max: usize) -> wasmtime::Result<bool> {
        if wanted > max { Err(wasmtime::Error::new(OverLimit { what, wanted, max })) } else { Ok(true) }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, _now: usize, wanted: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        Meter::admit("a memory", wanted, self.memory_max)?;
        self.memory_peak = self.memory_peak.max(wanted);
        Ok(true)
    }

    fn table_growing(&mut self, _now: usize, wanted: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        Meter::admit("a table", wanted, TABLE_MAX)
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        64
    }
}

/// What a program is started with.
pub struct Start {
    pub args: Vec<Vec<u8>>,
    pub env: Vec<Vec<u8>>,
    pub files_max: usize,
    pub memory_max: usize,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub root: Rc<Fid>,
}

impl Host {
    pub fn new(start: Start) -> Host {
        let pipe = |fd, writes| Some(Fd::Pipe(Pipe { fd, writes }));
        let root = Dir { fid: start.root.clone(), path: Vec::new() };
        Host {
            args: start.args,
            env: start.env,
            root: start.root,
            fds: vec![
                pipe(start.stdin, false),
                pipe(start.stdout, true),
                pipe(start.stderr, true),
                Some(Fd::Dir(OpenDir::new(root))),
            ],
            files_max: start.files_max.max(PREOPEN + 1),
            writes: 0,
            meter: Meter { memory_max: start.memory_max, memory_peak: 0 },
        }
    }

    fn args_get(&mut self, memory: &mut Memory, table: i32, text: i32) -> Result<()> {
        put_strings(memory, &self.args, table, text)
    }

    fn args_sizes_get(&mut self, memory: &mut Memory, count: i32, bytes: i32) -> Result<()> {
        put_sizes(memory, &self.args, count, bytes)
    }

    fn environ_get(&mut self, memory: &mut Memory, table: i32, text: i32) -> Result<()> {
        put_strings(memory, &self.env, table, text)
    }

    fn environ_sizes_get(&mut self, memory: &mut Memory, count: i32, bytes: i32) -> Result<()> {
        put_sizes(memory, &self.env, count, bytes)
    }

    fn proc_raise(&mut self, _: &mut Memory, _signal: i32) -> Result<()> {
        Err(Errno::NOSYS)
    }

    fn sock_accept(&mut self, _: &mut Memory, _fd: i32, _flags: i32, _out: i32) -> Result<()> {
        Err(Errno::NOTSUP)
    }

    #[allow(clippy::too_many_arguments)] // the shape is the standard's
    fn sock_recv(
        &mut self,
        _: &mut Memory,
        _fd: i32,
        _iovs: i32,
        _count: i32,
        _how: i32,
        _len: i32,
        _flags: i32,
    ) -> Result<()> {
        Err(Errno::NOTSUP)
    }

    fn sock_send(&mut self, _: &mut Memory, _fd: i32, _iovs: i32, _count: i32, _how: i32, _len: i32) -> Result<()> {
        Err(Errno::NOTSUP)
    }

    fn sock_shutdown(&mut self, _: &mut Memory, _fd: i32, _how: i32) -> Result<()> {
        Err(Errno::NOTSUP)
    }
}

fn put_strings(memory: &mut Memory, strings: &[Vec<u8>], mut table: i32, mut text: i32) -> Result<()> {
    for string in strings {
        memory.put_u32(table, text as u32)?;
        memory.put(text, string)?;
        memory.put(text.wrapping_add(string.len() as i32), &[0])?;
        table = table.wrapping_add(4);
        text = text.wrapping_add(string.len() as i32 + 1);
    }
    Ok(())
}

fn put_sizes(memory: &mut Memory, strings: &[Vec<u8>], count: i32, bytes: i32) -> Result<()> {
    memory.put_u32(count, strings.len() as u32)?;
    memory.put_u32(bytes, strings.iter().map(|s| s.len() as u32 + 1).sum())
}

const MODULE: &str = "wasi_snapshot_preview1";

macro_rules! host_functions {
    ($linker:ident, $($name:ident($($arg:ident: $ty:ty),*);)*) => {
        $($linker.func_wrap(MODULE, stringify!($name), |mut caller: Caller<'_, Host>, $($arg: $ty),*| {
            let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                return Err(wasmtime::Error::msg("the module exports no memory"));
            };
            let (data, host) = memory.data_and_store_mut(&mut caller);
            Ok(match host.$name(&mut Memory(data), $($arg),*) {
                Ok(()) => 0,
                Err(errno) => i32::from(errno.0),
            })
        })?;)*
    };
}

/// Everything a program may import.
/// # Errors
/// None that does not come from this table itself.
pub fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    host_functions! { linker,
        args_get(table: i32, text: i32);
        args_sizes_get(count: i32, bytes: i32);
        environ_get(table: i32, text: i32);
        environ_sizes_get(count: i32, bytes: i32);
        clock_res_get(id: i32, out: i32);
        clock_time_get(id: i32, precision: i64, out: i32);
        fd_advise(fd: i32, offset: i64, len: i64, advice: i32);
        fd_allocate(fd: i32, offset: i64, len: i64);
        fd_close(fd: i32);
        fd_datasync(fd: i32);
        fd_fdstat_get(fd: i32, out: i32);
        fd_fdstat_set_flags(fd: i32, flags: i32);
        fd_fdstat_set_rights(fd: i32, base: i64, inheriting: i64);
        fd_filestat_get(fd: i32, out: i32);
        fd_filestat_set_size(fd: i32, size: i64);
        fd_filestat_set_times(fd: i32, atim: i64, mtim: i64, flags: i32);
        fd_pread(fd: i32, iovs: i32, count: i32, offset: i64, out: i32);
        fd_prestat_get(fd: i32, out: i32);
        fd_prestat_dir_name(fd: i32, path: i32, len: i32);
        fd_pwrite(fd: i32, iovs: i32, count: i32, offset: i64, out: i32);
        fd_read(fd: i32, iovs: i32, count: i32, out: i32);
        fd_readdir(fd: i32, buf: i32, len: i32, cookie: i64, used: i32);
        fd_renumber(from: i32, to: i32);
        fd_seek(fd: i32, by: i64, whence: i32, out: i32);
        fd_sync(fd: i32);
        fd_tell(fd: i32, out: i32);
        fd_write(fd: i32, iovs: i32, count: i32, out: i32);
        path_create_directory(fd: i32, path: i32, len: i32);
        path_filestat_get(fd: i32, lookup: i32, path: i32, len: i32, out: i32);
        path_filestat_set_times(fd: i32, lookup: i32, path: i32, len: i32, atim: i64, mtim: i64, flags: i32);
        path_link(old_fd: i32, lookup: i32, old: i32, old_len: i32, new_fd: i32, new: i32, new_len: i32);
        path_open(fd: i32, lookup: i32, path: i32, len: i32, how: i32, base: i64, inheriting: i64, flags: i32, out: i32);
        path_readlink(fd: i32, path: i32, len: i32, buf: i32, buf_len: i32, used: i32);
        path_remove_directory(fd: i32, path: i32, len: i32);
        path_rename(old_fd: i32, old: i32, old_len: i32, new_fd: i32, new: i32, new_len: i32);
        path_symlink(target: i32, target_len: i32, fd: i32, path: i32, len: i32);
        path_unlink_file(fd: i32, path: i32, len: i32);
        poll_oneoff(subs: i32, out: i32, count: i32, stored: i32);
        proc_raise(signal: i32);
        sched_yield();
        random_get(buf: i32, len: i32);
        sock_accept(fd: i32, flags: i32, out: i32);
        sock_recv(fd: i32, iovs: i32, count: i32, how: i32, len: i32, flags: i32);
        sock_send(fd: i32, iovs: i32, count: i32, how: i32, len: i32);
        sock_shutdown(fd: i32, how: i32);
    }
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(Exit(code)))
    })?;
    Ok(())
}
