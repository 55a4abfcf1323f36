//! What a mount costs: one attribute, one short file, a listing, a large file; beside bindfs and the file system itself.
//!
//! Each server is a process of its own, as bindfs is. On one core only the work counts; on two, waking the other is most of
//! it; unpinned, the scheduler chooses between the two.
//!
//!     cargo bench -p mount

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_host::{Host, HostConfig};
use fs_ninep::{Call, Caller, Client, ClientConfig, Kind, Limits};
use fs_tree::{At, Row, Service, dir, value};
use mount::{Mount, Options};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Size of the large file, in bytes.
const LARGE: usize = 256 << 20;
/// Entries of the long listing.
const ENTRIES: usize = 10_000;

struct Demo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Q {
    Root,
    Status,
    Many,
    One,
}

impl Service for Demo {
    type Q = Q;
    #[rustfmt::skip]
    const TREE: &'static [Row<Q>] = &[
        dir  ("",         Q::Root,   0o555),
        value("status",   Q::Status, 0o444),
        dir  ("many",     Q::Many,   0o555),
        value("many/{n}", Q::One,    0o444),
    ];

    fn list<'a>(&'a self, _at: &'a At<Q>) -> Call<'a, Vec<String>> {
        Box::pin(async { Ok((0..ENTRIES).map(|n| format!("f{n:05}")).collect()) })
    }

    fn find<'a>(&'a self, at: &'a At<Q>) -> Call<'a, ()> {
        let known = at.key().starts_with('f');
        Box::pin(async move { if known { Ok(()) } else { Err(Kind::NotFound.into()) } })
    }

    fn read<'a>(&'a self, _at: &'a At<Q>) -> Call<'a, Bytes> {
        Box::pin(async { Ok(Bytes::from_static(b"up 12 s\n")) })
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|a| a == "serve") {
        serve(&args[at + 1..]);
        return ExitCode::SUCCESS;
    }
    if let Err(e) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        println!("not run: mount: /dev/fuse: {e}");
        return ExitCode::SUCCESS;
    }
    // `cargo test --benches` runs this too: a round or two each, to see that it works.
    let rounds = if args.iter().any(|a| a == "--bench") { 20_000 } else { 20 };
    let temp = tempfile::tempdir().expect("a temporary directory");
    let base = temp.path();
    for name in ["host", "point", "bind"] {
        std::fs::create_dir(base.join(name)).expect("a directory");
    }
    std::fs::write(base.join("host/status"), "up 12 s\n").expect("a file");
    latencies(base, rounds);
    listings(base);
    throughput(base, if rounds > 1000 { LARGE } else { LARGE / 64 });
    ExitCode::SUCCESS
}

/// The server: `serve KIND DIR SPIN_US CORE|any HOST`.
fn serve(args: &[String]) {
    let [kind, point, spin, core, host] = args else { panic!("serve KIND DIR SPIN_US CORE|any HOST") };
    pin(core.parse().ok());
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    rt.block_on(async {
        let root = match kind.as_str() {
            "demo" => fs_tree::serve(Arc::new(Demo)).attach(&Caller::owner(0), "").await.expect("a root"),
            "remote" => far_demo().await,
            "host" => Host::open(Path::new(host), HostConfig::default()).expect("a host directory").root(),
            other => panic!("no such tree: {other}"),
        };
        let spin = Duration::from_micros(spin.parse().expect("microseconds"));
        let mount = Mount::start(root, Path::new(point), Options { spin, ..Options::default() }).expect("a mount");
        println!("up");
        mount.done().await;
    });
}

/// The same tree through 9P, served by another thread over a socket: what a neighbour's tree costs without the network.
async fn far_demo() -> Arc<dyn fs_ninep::File> {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    [&ours, &theirs].iter().for_each(|s| s.set_nonblocking(true).expect("not to block"));
    std::thread::spawn(move || {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        rt.block_on(async {
            let stream = tokio::net::UnixStream::from_std(theirs).expect("a stream");
            let tree = fs_tree::serve(Arc::new(Demo));
            let _ = fs_ninep::serve(stream, tree, Caller::owner(0), Limits::default()).await;
        });
    });
    let stream = tokio::net::UnixStream::from_std(ours).expect("a stream");
    let client = Client::connect(stream, ClientConfig::default()).await.expect("a connection");
    client.attach("bench", "").await.expect("a root")
}

fn pin(core: Option<usize>) {
    let mut set = CpuSet::new();
    match core {
        Some(core) => set.set(core).expect("a core"),
        None => (0..CpuSet::count()).for_each(|core| set.set(core).expect("a core")),
    }
    sched_setaffinity(Pid::from_raw(0), &set).expect("to pin");
}

/// A server on a directory, ended with it.
struct Served {
    child: Child,
    dir: std::path::PathBuf,
}

impl Served {
    fn ours(kind: &str, dir: &Path, spin_us: u64, core: Option<usize>, host: &Path) -> Served {
        let core = core.map_or("any".to_owned(), |c| c.to_string());
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("serve").arg(kind).arg(dir).arg(spin_us.to_string()).arg(core).arg(host);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a server");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("its first line");
        assert_eq!(line, "up\n");
        Served { child, dir: dir.into() }
    }

    fn bindfs(host: &Path, dir: &Path, core: Option<usize>, ttl: &str) -> Option<Served> {
        let mut command = match core {
            Some(core) => {
                let mut c = Command::new("taskset");
                c.args(["-c", &core.to_string(), "bindfs"]);
                c
            }
            None => Command::new("bindfs"),
        };
        command.args(["-f", "-o", &format!("attr_timeout={ttl},entry_timeout={ttl}")]).arg(host).arg(dir);
        let child = command.spawn().ok()?;
        let mut served = Served { child, dir: dir.into() };
        let start = Instant::now();
        while device(dir) == device(dir.parent()?) {
            if served.child.try_wait().ok()?.is_some() || start.elapsed() > Duration::from_secs(10) {
                return None;
            }
            std::thread::yield_now();
        }
        Some(served)
    }
}

fn device(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |m| m.dev())
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        let _ = self.child.wait();
    }
}

/// Half the samples are below the first, a hundredth above the second; microseconds.
struct Figures {
    p50: f64,
    p99: f64,
}

fn measure(rounds: usize, mut call: impl FnMut()) -> Figures {
    (0..rounds / 10).for_each(|_| call());
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let us = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e6;
    Figures { p50: us(50), p99: us(99) }
}

/// An fstat that no cache may answer.
fn fstat(file: &File) {
    // SAFETY: statx is plain old data, for which all zeros is a value.
    let mut buf: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_FORCE_SYNC;
    // SAFETY: the descriptor is open, the path an empty C string, and the buffer as large as the call writes.
    let done = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_BASIC_STATS, &mut buf) };
    assert_eq!(done, 0);
}

fn latencies(base: &Path, rounds: usize) {
    println!("{:34} {:>9} {:>9} {:>9} {:>9}", "microseconds", "fstat p50", "p99", "cat p50", "p99");
    let (point, bind) = (base.join("point"), base.join("bind"));
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    for (name, client, core) in
        [("one core", Some(0), Some(0)), ("two cores", Some(0), Some(1)), ("unpinned", None, None)]
    {
        if core > client && cores < 2 {
            println!("not run: {name}: there is one");
            continue;
        }
        let mut anchor = None;
        pin(client);
        match Served::bindfs(&base.join("host"), &bind, core, "0") {
            Some(_served) => anchor = Some(one_latency(&format!("bindfs, {name}"), &bind, rounds, None)),
            None => println!("not run: bindfs, {name}: bindfs did not start"),
        }
        for spin in [0, 50] {
            let served = Served::ours("demo", &point, spin, core, base);
            one_latency(&format!("ipos, {name}, spin {spin}"), &point, rounds, anchor);
            drop(served);
        }
        let served = Served::ours("remote", &point, 50, core, base);
        one_latency(&format!("ipos over 9P, {name}, spin 50"), &point, rounds, anchor);
        drop(served);
    }
    pin(None);
}

fn one_latency(name: &str, dir: &Path, rounds: usize, anchor: Option<f64>) -> f64 {
    let path = dir.join("status");
    let file = File::open(&path).expect("the file");
    let stat = measure(rounds, || fstat(&file));
    let mut buf = [0; 4096];
    let cat = measure(rounds / 4, || {
        let mut file = File::open(&path).expect("the file");
        while file.read(&mut buf).expect("its text") > 0 {}
    });
    let ratio = anchor.map_or(String::new(), |a| format!("   {:.2} x bindfs", stat.p50 / a));
    println!("{name:34} {:9.1} {:9.1} {:9.1} {:9.1}{ratio}", stat.p50, stat.p99, cat.p50, cat.p99);
    stat.p50
}

fn listings(base: &Path) {
    let point = base.join("point");
    let many = base.join("host/many");
    std::fs::create_dir(&many).expect("a directory");
    for n in 0..ENTRIES {
        std::fs::write(many.join(format!("f{n:05}")), "up 12 s\n").expect("a file");
    }
    let native = ls(&many);
    println!("ls -l of {ENTRIES}: native {native:.0} ms");
    for (kind, name) in [("demo", "synthetic"), ("host", "host directory"), ("remote", "synthetic over 9P")] {
        let served = Served::ours(kind, &point, 50, None, &base.join("host"));
        let took = ls(&point.join("many"));
        println!("ls -l of {ENTRIES}: {name} {took:.0} ms, {:.1} x native", took / native);
        drop(served);
    }
    match Served::bindfs(&base.join("host"), &base.join("bind"), None, "1") {
        Some(_served) => {
            let bound = ls(&base.join("bind/many"));
            println!("ls -l of {ENTRIES}: bindfs {bound:.0} ms, {:.1} x native", bound / native);
        }
        None => println!("not run: ls -l of bindfs: bindfs did not start"),
    }
}

/// `ls -l` of a directory nobody has looked at yet, in milliseconds.
fn ls(dir: &Path) -> f64 {
    let start = Instant::now();
    let out = Command::new("ls").arg("-l").arg(dir).output().expect("ls");
    let took = start.elapsed();
    assert_eq!(out.stdout.split(|&b| b == b'\n').filter(|l| l.starts_with(b"-")).count(), ENTRIES);
    took.as_secs_f64() * 1e3
}

/// Reads of 1 MiB from end to end, GB/s: with the file in nobody's cache, in the host's, and in the mount's own.
fn throughput(base: &Path, len: usize) {
    let large = base.join("host/large");
    let mut file = File::create(&large).expect("a file");
    let piece: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    (0..len / piece.len()).for_each(|_| file.write_all(&piece).expect("to write"));
    file.sync_all().expect("to sync");
    let cold = || {
        // Only this file's pages, which needs no root.
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    };
    cold();
    let native = [read_through(&large), read_through(&large), read_through(&large)];
    row("read, native", native, native);
    let point = base.join("point");
    for (name, served) in [
        ("read, ipos", Some(Served::ours("host", &point, 50, None, &base.join("host")))),
        ("read, bindfs", Served::bindfs(&base.join("host"), &base.join("bind"), None, "1")),
    ] {
        let Some(served) = served else {
            println!("not run: {name}: it did not start");
            continue;
        };
        let path = served.dir.join("large");
        cold();
        let first = read_through(&path);
        drop_cache(&path);
        read_through(&large);
        row(name, [first, read_through(&path), read_through(&path)], native);
    }
}

/// Forgets what the mount itself has cached of the file.
fn drop_cache(path: &Path) {
    let file = File::open(path).expect("the file");
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
}

fn read_through(path: &Path) -> f64 {
    let mut buf = vec![0; 1 << 20];
    let start = Instant::now();
    let mut file = File::open(path).expect("the file");
    let mut total = 0;
    loop {
        match file.read(&mut buf).expect("its bytes") {
            0 => return total as f64 / start.elapsed().as_secs_f64() / 1e9,
            n => total += n,
        }
    }
}

fn row(name: &str, rates: [f64; 3], native: [f64; 3]) {
    print!("{name:13}");
    for (state, rate, native) in [("cold", 0), ("host warm", 1), ("warm", 2)].map(|(s, i)| (s, rates[i], native[i])) {
        print!("  {state} {rate:5.2} GB/s ({:.2} x native)", rate / native);
    }
    println!();
}
