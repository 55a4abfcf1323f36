//! Two real nodes on this machine, for the tour and for the tests: processes and state directories of their own, speaking
//! libp2p over loopback TCP. Nothing of them is left when the stage is dropped.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::umount::unmount;

/// How long a node may take to say that it is ready, a debug build on a busy machine included.
const READY: Duration = Duration::from_secs(60);

/// How long a node may take to end: 5 seconds by ipos-node(8), and as much again for a busy machine.
const END: Duration = Duration::from_secs(10);

/// A directory of its own under the system's for temporary files, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    /// # Errors
    /// What mkdir(2) answered.
    pub fn new() -> io::Result<Scratch> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ipos-{}-{n}", std::process::id()));
        fs::create_dir(&dir)?;
        Ok(Scratch(dir))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_to_the_system = fs::remove_dir_all(&self.0);
    }
}

/// One running `ipos node` or `ipos mount`. Ended, and its mount taken away, when dropped.
pub struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: PathBuf,
    mount: Option<PathBuf>,
}

impl Process {
    /// Starts `program` with `arguments` on `home`, as `--home HOME` would; what it complains of goes to `HOME.log`.
    /// `mount`: the directory it is to mount, for the time when it has died.
    /// # Errors
    /// What the system answered.
    pub fn start(program: &Path, home: &Path, arguments: &[&str], mount: Option<&Path>) -> io::Result<Process> {
        let log = home.with_extension("log");
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(program);
        command.arg("--home").arg(home).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        // SAFETY: prctl(2) alone is called between fork and exec, which is async-signal-safe. Whoever is killed before it
        // could end its nodes leaves none of them behind, nor their mounts.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGTERM)?)) };
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Process { child, stdout: BufReader::new(stdout), log, mount: mount.map(Path::to_owned) })
    }

    /// The next line it prints.
    /// # Errors
    /// `TimedOut` after a minute; what it complained of, when it ended instead.
    pub fn line(&mut self) -> io::Result<String> {
        if self.stdout.buffer().is_empty() {
            let mut fds = [PollFd::new(self.stdout.get_ref().as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::try_from(READY).unwrap_or(PollTimeout::MAX))? == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "not ready in 60 s"));
            }
        }
        let mut line = String::new();
        match self.stdout.read_line(&mut line)? {
            0 => Err(io::Error::other(self.log().trim().to_owned())),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _gone_already = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it as an administrator would, and gives its exit status; `None` where it had to be killed.
    pub fn stop(&mut self) -> Option<i32> {
        let _gone_already = kill(self.pid(), Signal::SIGTERM);
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.code(),
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(_) => break,
            }
        }
        self.kill();
        None
    }

    /// The rest of its output, once it has ended.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        let _cut = self.stdout.read_to_string(&mut rest);
        rest
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        if let Some(dir) = &self.mount {
            let _not_mounted = unmount(dir, true);
        }
    }
}

/// Ann, a node with a mount attached to it, and Bob, a mount that is the node; Ann has not heard of Bob.
pub struct Stage {
    /// Bob's mount and node.
    pub bob: Process,
    /// Ann's mount, of another process than her node.
    pub ann_mount: Process,
    /// Ann's node.
    pub ann: Process,
    /// The address Ann's node printed.
    pub addr: String,
    /// The program the nodes run.
    program: PathBuf,
    dir: Scratch,
}

/// Settings under which a node speaks to nobody it is not told of.
const QUIET: &str = "mdns = false\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n";

impl Stage {
    /// Starts both from the program `program`.
    /// # Errors
    /// What the system answered, or what a node complained of.
    pub fn start(program: &Path) -> io::Result<Stage> {
        let dir = Scratch::new()?;
        for name in ["ann", "bob"] {
            let home = dir.path().join(name);
            fs::create_dir(&home)?;
            fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
            fs::write(home.join("config.toml"), QUIET)?;
        }
        fs::create_dir(dir.path().join("work"))?;
        let (mut ann, addr) = Stage::start_ann(program, &dir)?;
        let mounted = |name: &str, arguments: &[&str]| {
            let at = dir.path().join(name).with_extension("mnt");
            let mut process = Process::start(program, &dir.path().join(name), arguments, Some(&at))?;
            process.line().map(|_| process).map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))
        };
        let at = |name: &str| dir.path().join(name).with_extension("mnt").display().to_string();
        let ann_mount = mounted("ann", &["mount", &at("ann")]).inspect_err(|_| ann.kill())?;
        let bob = mounted("bob", &["mount", "--name", "bob", &at("bob")])?;
        Ok(Stage { bob, ann_mount, ann, addr, program: program.to_owned(), dir })
    }

    fn start_ann(program: &Path, dir: &Scratch) -> io::Result<(Process, String)> {
        let mut ann = Process::start(program, &dir.path().join("ann"), &["node", "--name", "ann"], None)?;
        let addr = ann.line()?;
        Ok((ann, addr))
    }

    /// Starts Ann's node again after it was ended; it has a new port and the old key.
    /// # Errors
    /// As [`Stage::start`].
    pub fn restart_ann(&mut self) -> io::Result<()> {
        self.ann.stop();
        (self.ann, self.addr) = Stage::start_ann(&self.program, &self.dir)?;
        Ok(())
    }

    /// A path under the stage's directory: `ann`, `bob` are the homes, `ann.mnt`, `bob.mnt` the mounts, `work` is free.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The names and ids of the nodes, for the placeholders of a transcript.
    /// # Errors
    /// What the read of Bob's id answered.
    pub fn names(&self) -> io::Result<Vec<(String, String)>> {
        let bob = fs::read_to_string(self.path("bob.mnt/self/id"))?.trim().to_owned();
        let ann = self.addr.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(vec![("ann".into(), ann), ("bob".into(), bob)])
    }

    /// What a transcript finds in its environment: `N` Bob's mount, `A` Ann's, `ANN` her address, `W` a directory of
    /// Bob's own, `IPOS_HOME` Bob's home, and `ipos` in `PATH`.
    pub fn env(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.path(name).display().to_string();
        let bin = self.program.parent().unwrap_or(Path::new("/"));
        let programs = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        [
            ("N", path("bob.mnt")),
            ("A", path("ann.mnt")),
            ("ANN", self.addr.clone()),
            ("W", path("work")),
            ("IPOS_HOME", path("bob")),
            ("PATH", programs),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into()
    }
}
