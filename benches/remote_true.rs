//! A remote `true`, typed in a shell: through FUSE, libp2p and /cpu, against `ssh` with a multiplexed connection.
//!
//! Both run on this machine, warm, in turns, each line given to one long-lived `sh`. What is timed is the same for all:
//! from the moment the shell is given the line until the mark it prints after the line has come back. For ipos the line
//! makes a job, mounts a capability of the caller's directory, runs a module out of that directory, reads its output and
//! its wait line; the removal of the job is not timed. For ssh it is `ssh HOST true` over a ControlMaster that stands.
//!
//!     cargo bench --bench remote_true

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipos::tour::{Scratch, Stage, build};
use ipos::transcript::Shell;

/// Rounds that are timed, after `WARM` that are not.
const ROUNDS: usize = 300;
const WARM: usize = 20;
const LIMIT: Duration = Duration::from_secs(20);

const ONE_LINER: &str =
    "n=$(cat clone); echo mount $CAP /p >$n/ns; echo exec /p/true.wasm >$n/ctl; cat $n/stdout; cat $n/wait";
const BUILTINS: &str = "exec 3<>clone; read n <&3; echo mount $CAP /p >$n/ns; echo exec /p/true.wasm >&3; read w <$n/wait; exec 3>&-; echo $w";

fn main() -> io::Result<()> {
    // `cargo test --benches` runs this too: one round each, no figures.
    let rounds = if std::env::args().any(|a| a == "--bench") { (WARM, ROUNDS) } else { (0, 1) };
    let stage = Stage::start(Path::new(env!("CARGO_BIN_EXE_ipos")))?;
    let programs = build(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let mut ipos = Shell::start(&stage.path("work"), &stage.env())?;
    say(&mut ipos, &format!("cp {}/true.wasm .", programs.display()))?;
    for line in SETUP {
        say(&mut ipos, line)?;
    }
    let ssh = match Ssh::start() {
        Ok(ssh) => Some(ssh),
        Err(e) => {
            println!("not run: ssh ({e})");
            None
        }
    };
    let mut ssh_shell = Shell::start(Path::new("/"), &[])?;
    let ssh_line = ssh.as_ref().map(|s| s.line("true"));
    if let Some(ssh) = &ssh {
        say(&mut ssh_shell, &ssh.line_in_background())?;
    }
    let (mut one_liner, mut builtins, mut anchor, mut floor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let before = cpu_of(&stage)?;
    for round in 0..rounds.0 + rounds.1 {
        let kept = round >= rounds.0;
        keep(&mut one_liner, kept, timed(&mut ipos, ONE_LINER)?);
        say(&mut ipos, "rmdir $n")?;
        if let Some(line) = &ssh_line {
            keep(&mut anchor, kept, timed(&mut ssh_shell, line)?);
        }
        keep(&mut builtins, kept, timed(&mut ipos, BUILTINS)?);
        say(&mut ipos, "rmdir $n")?;
        keep(&mut floor, kept, timed(&mut ssh_shell, "true")?);
    }
    let spent: Vec<_> = cpu_of(&stage)?.into_iter().zip(before).map(|((n, a), (_, b))| (n, a - b)).collect();
    println!("{:34} {:>8} {:>8} {:>8}  ms", "remote true, p10 p50 p90", "", "", "");
    let base = percentile(&mut anchor, 50);
    for (name, times) in [
        ("ssh, multiplexed", &mut anchor),
        ("ipos, cat and echo", &mut one_liner),
        ("ipos, shell builtins", &mut builtins),
        ("true in the same shell", &mut floor),
    ] {
        let [p10, p50, p90] = [10, 50, 90].map(|p| percentile(times, p));
        println!("{name:34} {p10:8.2} {p50:8.2} {p90:8.2}  {:.2} x ssh", p50 / base);
    }
    let jobs = 2 * (rounds.0 + rounds.1);
    for (name, spent) in spent {
        println!("CPU a job, {name:23} {:8.2}", spent.as_secs_f64() * 1e3 / jobs as f64);
    }
    Ok(())
}

/// Bob's shell: Ann is known, her cpu is granted and bound, a directory is exported to her.
const SETUP: &[&str] = &[
    "echo dial $ANN ann >$N/peers/ctl",
    "echo name $(cat $N/self/id) bob >$A/peers/ctl",
    "echo grant bob /cpu >$A/export/ctl",
    "echo bind -a /n/ann/cpu /cpu >$N/ns",
    "m=$(cat $N/export/clone)",
    "echo bind $W /w >$N/export/$m/ctl",
    "echo to ann >$N/export/$m/ctl",
    "CAP=$(cat $N/export/$m/cap)",
    "cd $N/cpu/ann",
];

fn say(shell: &mut Shell, line: &str) -> io::Result<String> {
    let outcome = shell.run(line, LIMIT)?;
    match outcome.status {
        Some(0) => Ok(outcome.output),
        status => Err(io::Error::other(format!("{line}: {status:?} {}", outcome.output))),
    }
}

fn timed(shell: &mut Shell, line: &str) -> io::Result<f64> {
    let start = Instant::now();
    say(shell, line)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn keep(times: &mut Vec<f64>, kept: bool, time: f64) {
    if kept {
        times.push(time);
    }
}

fn percentile(times: &mut [f64], percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

/// CPU time of the nodes and of the children they have waited for.
fn cpu_of(stage: &Stage) -> io::Result<Vec<(&'static str, Duration)>> {
    let of = |pid: nix::unistd::Pid| -> io::Result<(Duration, Duration)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<u64> =
            stat[stat.rfind(')').unwrap_or(0) + 1..].split(' ').map(|f| f.parse().unwrap_or(0)).collect();
        let ticks = |a: usize, b: usize| Duration::from_millis((fields[a] + fields[b]) * 10);
        Ok((ticks(12, 13), ticks(14, 15)))
    };
    let (bob, _) = of(stage.bob.pid())?;
    let (ann, jobs) = of(stage.ann.pid())?;
    let mut live = Duration::ZERO;
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", stage.ann.pid()))?;
    for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
        let (own, waited) = of(nix::unistd::Pid::from_raw(child))?;
        live += own + waited;
    }
    Ok(vec![("bob: FUSE and node", bob), ("ann: node", ann), ("ann: workers and jobs", jobs + live)])
}

/// A private sshd on loopback, whose user's shell is /bin/sh, and a client with a standing connection to it.
struct Ssh {
    dir: Scratch,
    daemon: Child,
}

impl Ssh {
    fn start() -> io::Result<Ssh> {
        if !nix::unistd::geteuid().is_root() {
            return Err(io::Error::other("a private sshd is started by root only"));
        }
        let dir = Scratch::new()?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]).status()?;
            made.success().then_some(()).ok_or_else(|| io::Error::other("ssh-keygen failed"))?;
        }
        fs::copy(path("user.pub"), path("authorized"))?;
        fs::set_permissions(path("authorized"), fs::Permissions::from_mode(0o600))?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // A login shell with a long profile would be timed too; /bin/sh as the shell of root, for this daemon alone.
        let passwd = fs::read_to_string("/etc/passwd")?;
        let plain = passwd.lines().map(|l| match l.strip_prefix("root:") {
            Some(rest) => format!("root:{}:/bin/sh\n", rest.rsplit_once(':').unwrap_or((rest, "")).0),
            None => format!("{l}\n"),
        });
        fs::write(path("passwd"), plain.collect::<String>())?;
        fs::write(
            path("sshd_config"),
            format!(
                "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
                 PermitRootLogin yes\nUsePAM no\nPasswordAuthentication no\nPrintMotd no\nPrintLastLog no\n",
                path("host"),
                path("authorized")
            ),
        )?;
        fs::write(
            path("config"),
            format!(
                "Host ann\n HostName 127.0.0.1\n Port {port}\n User root\n IdentityFile {}\n IdentitiesOnly yes\n\
                 StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n\
                 ControlPath {}\n ControlMaster auto\n ControlPersist 600\n",
                path("user"),
                path("mux")
            ),
        )?;
        fs::create_dir_all("/run/sshd")?;
        let script = "mount --bind \"$1\" /etc/passwd && exec /usr/sbin/sshd -D -e -f \"$2\"";
        let daemon = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh", &path("passwd"), &path("sshd_config")])
            .stdin(Stdio::null())
            .stderr(fs::File::create(path("log"))?)
            .spawn()?;
        let ssh = Ssh { dir, daemon };
        let deadline = Instant::now() + LIMIT;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                return Err(io::Error::other("sshd does not answer"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(ssh)
    }

    fn line(&self, command: &str) -> String {
        format!("ssh -F {} ann {command}", self.dir.path().join("config").display())
    }

    /// Opens the connection that the others go through. It keeps no pipe of the shell's.
    fn line_in_background(&self) -> String {
        format!("{} </dev/null >/dev/null 2>&1", self.line("true"))
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let exit = format!("ssh -F {} -O exit ann", self.dir.path().join("config").display());
        let _no_master = Command::new("sh").args(["-c", &exit]).stderr(Stdio::null()).status();
        let _gone_already = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
