//! One job, in its own process: waits for what to run, walls itself in, runs it, says how it ended.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{getppid, setsid};
use wasmtime::Trap;

use super::client::{Conn, Fid};
use super::module::{MODULE_MAX, Program, Refusal, Store};
use super::server::Kit;
use super::wasi::{Exit, Host, OverLimit, Start};
use crate::message::{End, Hash, Job, PACKET_MAX, Packet, Report, receive, send};

/// Where the socket to the node stands: the first number after the standard three.
const LINK: i32 = 3;
/// Descriptors of this process: the node's socket, the tree, three pipes, and what a compilation opens.
const NOFILE: u64 = 32;
/// Address space while a program compiles, beyond what the worker had, in bytes.
const COMPILE_SPACE: u64 = 2 << 30;
/// Address space beyond what the worker had: one linear memory is reserved whole, 4 GiB and its guards.
const RUN_SPACE: u64 = 6 << 30;
/// The largest file this process may write: compiled code.
const CODE_MAX: u64 = 1 << 30;
/// Of a text that tells how a job ended, in bytes.
const TEXT_MAX: usize = 1024;

/// Waits for a job on `link` and runs it. The node closing its end is the order to go.
pub fn wait(kit: &Kit, link: OwnedFd) -> ! {
    let code = catch_unwind(AssertUnwindSafe(|| {
        let space = isolate(link).ok()?;
        let mut buf = vec![0; PACKET_MAX];
        let (len, fds) = receive(&LINK, &mut buf).ok().filter(|(len, _)| *len > 0)?;
        let job = Job::decode(&buf[..len]).ok()?;
        let [ninep, stdin, stdout, stderr] = <[OwnedFd; 4]>::try_from(fds).ok()?;
        drop(buf);
        let conn = Conn::new(UnixStream::from(ninep));
        report(&match run(kit, &job, conn, [stdin, stdout, stderr], space) {
            Ok(done) => done,
            Err(text) => Report::Done { end: End::Refused, fuel: 0, memory_peak: 0, text: cut(text) },
        });
        Some(())
    }));
    if let Err(panic) = &code {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
        report(&Report::Done { end: End::Refused, fuel: 0, memory_peak: 0, text: cut(format!("worker: {text}")) });
    }
    // SAFETY: ends this process at once; nothing of the worker's may be unwound or flushed here.
    unsafe { libc::_exit(0) }
}

fn cut(mut text: String) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.replace(['\n', '\r'], " ")
}

fn report(report: &Report) {
    let _ = send(LINK, &report.encode(), &[]); // a node that is gone is told nothing
}

/// Cuts this process off from all it does not need; gives the address space it has.
fn isolate(link: OwnedFd) -> nix::Result<u64> {
    let parent = getppid();
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent || parent.as_raw() == 1 {
        return Err(nix::errno::Errno::ESRCH);
    }
    let _ = setsid();
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    SigSet::all().thread_unblock()?;
    // Whoever started the node may have had it ignore some, as nohup(1) does; a note and the alarm must end a job.
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGXCPU] {
        // SAFETY: the default action runs no code of this process.
        unsafe { sigaction(signal, &SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty()))? };
    }
    // SAFETY: 0 to 2 are /dev/null and this process's own; the link moves to its number, all others are closed. What
    // the worker kept in them is never used or dropped on this side of the fork: this process ends by _exit.
    unsafe {
        if libc::dup2(0, 2) == -1 || libc::dup2(link.as_raw_fd(), LINK) == -1 {
            return Err(nix::errno::Errno::last());
        }
        std::mem::forget(link);
        if libc::syscall(libc::SYS_close_range, LINK + 1, libc::c_uint::MAX, 0) == -1 {
            return Err(nix::errno::Errno::last());
        }
    }
    for (resource, max) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_FSIZE, CODE_MAX),
        (Resource::RLIMIT_NOFILE, NOFILE),
    ] {
        lower(resource, max)?;
    }
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let space = pages * 4096;
    lower(Resource::RLIMIT_AS, space + RUN_SPACE)?;
    Ok(space)
}

/// Lowers a limit for good; one that is lower already stays.
fn lower(resource: Resource, max: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let max = max.min(hard);
    setrlimit(resource, max, max)
}

/// SIGXCPU after an amount of processor time.
struct Alarm(libc::timer_t);

impl Alarm {
    fn new() -> Result<Alarm, String> {
        // SAFETY: a sigevent of zeros is one; it is filled before use.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGXCPU;
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both pointers are to locals that live through the call.
        match unsafe { libc::timer_create(libc::CLOCK_PROCESS_CPUTIME_ID, &mut event, &mut timer) } {
            0 => Ok(Alarm(timer)),
            _ => Err(format!("timer_create: {}", std::io::Error::last_os_error())),
        }
    }

    /// Goes off `ms` more milliseconds of processor time from now, and not as it was set before.
    fn set(&self, ms: u64) -> Result<(), String> {
        let sec = (ms / 1000) as libc::time_t;
        let at = libc::timespec { tv_sec: sec, tv_nsec: (ms % 1000) as libc::c_long * 1_000_000 };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval: never, it_value: at };
        // SAFETY: the timer is this process's own; its old value is not asked for.
        match unsafe { libc::timer_settime(self.0, 0, &spec, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(format!("timer_settime: {}", std::io::Error::last_os_error())),
        }
    }
}

/// Processor time this process has used, in milliseconds.
fn cpu_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is that of `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

fn run(kit: &Kit, job: &Job, conn: Rc<Conn>, pipes: [OwnedFd; 3], space: u64) -> Result<Report, String> {
    let alarm = Alarm::new()?;
    let program = match job.hash.and_then(|hash| kit.program(&hash)) {
        Some(program) => program,
        None => fetch(kit, job, &conn, &alarm, space)?,
    };
    lower(Resource::RLIMIT_FSIZE, 0).map_err(|e| format!("RLIMIT_FSIZE: {e}"))?;
    alarm.set(job.cpu_ms)?;
    let [stdin, stdout, stderr] = pipes;
    let host = Host::new(Start {
        args: job.args.clone(),
        env: job.env.clone(),
        files_max: job.files as usize,
        memory_max: job.mem as usize,
        stdin,
        stdout,
        stderr,
        root: Rc::new(conn.root()),
    });
    Ok(execute(&kit.store, &program, host, job.fuel))
}

/// The program that the worker does not hold: from disk, or read from the job's tree and compiled.
fn fetch(kit: &Kit, job: &Job, conn: &Rc<Conn>, alarm: &Alarm, space: u64) -> Result<Rc<Program>, String> {
    if let Some((hash, program)) = job.hash.and_then(|hash| Some((hash, kit.store.load(&hash)?))) {
        report(&Report::Loaded { hash, compile_ms: 0 });
        return Ok(Rc::new(program));
    }
    let wasm = read(&conn.attach(b"program").map_err(|e| format!("the program cannot be read: {e}"))?)?;
    let hash: Hash = *blake3::hash(&wasm).as_bytes();
    if let Some(program) = kit.program(&hash) {
        report(&Report::Loaded { hash, compile_ms: 0 });
        return Ok(program);
    }
    if let Some(program) = kit.store.load(&hash) {
        report(&Report::Loaded { hash, compile_ms: 0 });
        return Ok(Rc::new(program));
    }
    report(&Report::Compiling);
    alarm.set(job.compile_ms)?;
    let hard = getrlimit(Resource::RLIMIT_AS).map_or(space + RUN_SPACE, |(_, hard)| hard);
    let _ = setrlimit(Resource::RLIMIT_AS, (space + COMPILE_SPACE).min(hard), hard);
    let before = cpu_ms();
    let program = kit.store.compile(&hash, &wasm).map_err(|e| e.to_string())?;
    report(&Report::Loaded { hash, compile_ms: cpu_ms() - before });
    let _ = setrlimit(Resource::RLIMIT_AS, hard, hard);
    Ok(Rc::new(program))
}

/// The whole of a program, if it is one.
fn read(fid: &Fid) -> Result<Vec<u8>, String> {
    let unread = |e: fs_ninep::Error| format!("the program cannot be read: {e}");
    fid.open(fs_ninep::OpenFlags::RDONLY).map_err(unread)?;
    let mut wasm = Vec::new();
    loop {
        let piece = fid.read(wasm.len() as u64, u32::MAX).map_err(unread)?;
        if piece.is_empty() {
            break;
        }
        wasm.extend_from_slice(&piece);
        if wasm.len() > MODULE_MAX {
            return Err(Refusal::Size.to_string());
        }
        if wasm.len() >= 8 {
            Store::check(&wasm).map_err(|e| e.to_string())?;
        }
    }
    Store::check(&wasm).map_err(|e| e.to_string())?;
    Ok(wasm)
}

/// Runs the program to its end.
fn execute(store: &Store, program: &Program, host: Host, fuel: u64) -> Report {
    let mut store = wasmtime::Store::new(&store.engine, host);
    store.limiter(|host| &mut host.meter);
    // Copying a module's data in is counted by the engine and is not the program's work; a start function is.
    let unbilled = if program.starts { 0 } else { u64::MAX - fuel };
    let result = store
        .set_fuel(fuel.saturating_add(unbilled))
        .and_then(|()| program.pre.instantiate(&mut store))
        .and_then(|instance| instance.get_typed_func::<(), ()>(&mut store, "_start"))
        .and_then(|start| {
            if !program.starts {
                store.set_fuel(fuel)?;
            }
            start.call(&mut store, ())
        });
    let left = store.get_fuel().unwrap_or(0);
    let (end, text) = match result {
        Ok(()) => (End::Exited(0), String::new()),
        Err(e) => classify(&e),
    };
    let memory_peak = store.data().meter.memory_peak as u64;
    Report::Done { end, fuel: fuel.saturating_sub(left), memory_peak, text: cut(text) }
}

fn classify(e: &wasmtime::Error) -> (End, String) {
    if let Some(Exit(code)) = e.downcast_ref() {
        return (End::Exited(*code), String::new());
    }
    let end = match (e.downcast_ref::<Trap>(), e.is::<OverLimit>()) {
        (Some(Trap::OutOfFuel), _) => End::Fuel,
        (_, true) => End::Mem,
        _ => End::Trap,
    };
    (end, e.root_cause().to_string())
}
