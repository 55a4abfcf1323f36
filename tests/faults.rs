//! What goes wrong between nodes, and what a user sees of it: a clear error in time, and nothing lost.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ipos::tour::{Process, Scratch, Stage};
use ipos::transcript::{Outcome, Shell};
use nix::sys::signal::{Signal, kill};

use crate::Verdict;
use crate::transcripts::{IPOS, programs};

tests!(
    a_peer_is_killed,
    a_peer_falls_silent,
    a_capability_is_misused,
    bytes_that_are_no_9p,
    programs_that_misbehave,
    a_damaged_key_or_configuration,
    two_nodes_on_one_home,
    a_full_disk_for_spools,
);

/// The bound on how long a dead peer may hold anybody.
const DEAD: Duration = Duration::from_secs(5);

/// What a command under way adds to that before it is seen to have ended.
const SLACK: Duration = Duration::from_millis(500);

/// A stage and a shell of Bob's on it.
pub(crate) struct Scene {
    pub(crate) shell: Shell,
    pub(crate) stage: Stage,
}

impl Scene {
    /// Two nodes; Ann is dialled, her cpu is granted and bound.
    pub(crate) fn new() -> Result<Scene, Verdict> {
        if let Some(why) = crate::no_fuse() {
            return Err(Verdict::NotRun(why));
        }
        let stage = Stage::start(Path::new(IPOS)).unwrap();
        let mut env = stage.env();
        env.push(("PROGRAMS".into(), programs().display().to_string()));
        let shell = Shell::start(&stage.path("work"), &env).unwrap();
        let mut scene = Scene { shell, stage };
        scene.ok("echo dial $ANN ann > $N/peers/ctl; ID=$(cat $N/self/id)");
        scene.ok("echo grant $ID /cpu > $A/export/ctl");
        scene.ok("echo bind -a /n/ann/cpu /cpu > $N/ns");
        Ok(scene)
    }

    /// Runs a line in Bob's shell.
    pub(crate) fn run(&mut self, line: &str) -> Outcome {
        self.shell.run(line, Duration::from_secs(60)).unwrap()
    }

    /// Runs a line that must succeed and gives its output.
    #[track_caller]
    pub(crate) fn ok(&mut self, line: &str) -> String {
        let outcome = self.run(line);
        assert_eq!(outcome.status, Some(0), "{line}: {}\nbob: {}", outcome.output, self.stage.bob.log());
        outcome.output
    }

    /// Runs a line that must fail and gives its output.
    #[track_caller]
    pub(crate) fn refused(&mut self, line: &str) -> String {
        let outcome = self.run(line);
        assert!(outcome.status.is_some_and(|s| s != 0), "{line}: {outcome:?}");
        outcome.output
    }

    /// A job at Ann's with Bob's work directory as /w; its number is in $n.
    fn job(&mut self) {
        self.ok("m=$(cat $N/export/clone); printf 'bind %s /w\\nrw\\nto ann\\n' $W > $N/export/$m/ctl");
        self.ok("cd $N/cpu/ann; n=$(cat clone); echo mount $(cat $N/export/$m/cap) /w > $n/ns");
    }
}

/// Does `work` on a thread; panics where it takes longer than `limit`.
#[track_caller]
fn within<T: Send + 'static>(limit: Duration, what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || tell.send(work()));
    hear.recv_timeout(limit).unwrap_or_else(|_| panic!("{what}: longer than {limit:?}"))
}

/// A reader of `path` on a thread; its end is heard of when it ends.
fn reader(path: std::path::PathBuf) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || tell.send(fs::read(path)));
    hear
}

#[track_caller]
fn lost(outcome: std::io::Result<Vec<u8>>, what: &str) {
    let errno = outcome.expect_err(what).raw_os_error().map(nix::errno::Errno::from_raw);
    use nix::errno::Errno::{ECONNRESET, EHOSTUNREACH, EIO, ETIMEDOUT};
    assert!(matches!(errno, Some(EIO | EHOSTUNREACH | ETIMEDOUT | ECONNRESET)), "{what}: {errno:?}");
}

fn a_peer_is_killed() -> Verdict {
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    scene.ok("mkdir -p $W/../shared && echo hers > $W/../shared/file && k=$(cat $A/export/clone)");
    scene.ok("printf 'bind %s /shared\\n' $(readlink -f $W/../shared) > $A/export/$k/ctl");
    scene.ok("echo grant $ID ro > $A/export/$k/ctl; cat $N/n/ann/shared/file");
    scene.job();
    scene.ok("cp $PROGRAMS/sleep.wasm $W; echo exec /w/sleep.wasm 1000 > $n/ctl");
    let number = scene.ok("echo $n").trim().to_owned();
    let job = scene.stage.path("bob.mnt/cpu/ann").join(number);
    let waits = [reader(job.join("stdout")), reader(job.join("wait"))];
    scene.stage.ann.kill();
    let killed = Instant::now();
    for (wait, name) in waits.into_iter().zip(["stdout", "wait"]) {
        let left = (DEAD + SLACK).saturating_sub(killed.elapsed());
        lost(wait.recv_timeout(left).unwrap_or_else(|_| panic!("{name} still waits after {DEAD:?}")), name);
    }
    // What is asked now must be told as soon.
    let mount = scene.stage.path("bob.mnt");
    for path in ["n/ann/shared", "n/ann", "cpu/ann"] {
        let path = mount.join(path);
        let name = path.display().to_string();
        let list =
            move || fs::read_dir(path).and_then(|d| d.map(|e| Ok(e?.file_name())).collect::<Result<Vec<_>, _>>());
        let listed = within(DEAD + SLACK, &name, list);
        assert!(listed.is_err(), "{name}: {listed:?}");
    }
    let file = mount.join("n/ann/shared/file");
    lost(within(DEAD + SLACK, "cat", move || fs::read(file)), "cat");
    let status = scene.ok("cat $N/peers/ann/status");
    assert!(!status.starts_with("connected"), "{status}");
    assert!(status.split_whitespace().count() > 1, "the status says nothing of why: {status}");
    scene.ok("cd $W; cat $N/self/id; ls $N $N/cpu");
    // She comes back at another port, with the same key: nothing has to be mounted or bound again.
    scene.stage.restart_ann().unwrap();
    let addr = scene.stage.addr.clone();
    scene.ok(&format!("echo dial {addr} ann > $N/peers/ctl; cat $N/n/ann/shared/file"));
    let again = scene.ok("cat $N/cpu/ann/info; ls $N/cpu");
    assert!(again.contains("ann"), "{again}");
    Verdict::Passed
}

fn a_peer_falls_silent() -> Verdict {
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    let ann = scene.stage.ann.pid();
    let event = reader(scene.stage.path("bob.mnt/cpu/ann/info"));
    assert!(event.recv_timeout(DEAD).unwrap().is_ok());
    kill(ann, Signal::SIGSTOP).unwrap();
    let info = scene.stage.path("bob.mnt/cpu/ann/info");
    let outcome = within(DEAD + SLACK, "a read of a frozen peer's file", move || fs::read(info));
    kill(ann, Signal::SIGCONT).unwrap();
    lost(outcome, "info");
    let deadline = Instant::now() + Duration::from_secs(20);
    while scene.run("cat $N/cpu/ann/info").status != Some(0) {
        assert!(Instant::now() < deadline, "ann is back, and her cpu is not");
    }
    Verdict::Passed
}

fn a_capability_is_misused() -> Verdict {
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    scene.ok("echo mine > $W/file; m=$(cat $A/export/clone); cap() { cat $A/export/$m/cap; }");
    scene.ok("printf 'bind %s /w\\nro\\n' $W > $A/export/$m/ctl");
    // By another node than it names.
    scene.ok("other=$(cut -f4 $A/keys/list | head -n1); echo to $other > $A/export/$m/ctl");
    let text = scene.refused("echo mount $(cap) /c > $N/ns") + &scene.ok("cat $N/error");
    assert!(text.contains("for another peer"), "{text}");
    // With a secret that is wrong.
    scene.ok("echo to $ID > $A/export/$m/ctl; good=$(cap)");
    scene.refused("echo mount ${good%????}0000 /c > $N/ns");
    scene.ok("test ! -e $N/c");
    // Read-only means it.
    scene.ok("echo mount $(cap) /c > $N/ns; cat $N/c/file");
    let text = scene.refused("echo no > $N/c/file");
    assert!(text.contains("Read-only") || text.contains("ermission denied"), "{text}");
    scene.refused("touch $N/c/new");
    // Revoked: within a second, what is open too.
    scene.ok("exec 5<$N/c/file; rmdir $A/export/$m");
    let revoked = Instant::now();
    let text = scene.refused("cat $N/c/file") + &scene.refused("cat <&5; exec 5<&-; cat $N/c/file");
    assert!(revoked.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", revoked.elapsed());
    assert!(text.contains("expired") || text.contains("denied") || text.contains("No such"), "{text}");
    scene.refused("echo mount $good /d > $N/ns");
    scene.ok("echo unmount /c > $N/ns");
    // One use.
    scene.ok("m=$(cat $A/export/clone); printf 'bind %s /w\\nuses 1\\n' $W > $A/export/$m/ctl; c=$(cap)");
    scene.ok("echo mount $c /c > $N/ns; cat $N/c/file; echo unmount /c > $N/ns");
    scene.refused("echo mount $c /c > $N/ns");
    // One second.
    scene.ok("m=$(cat $A/export/clone); printf 'bind %s /w\\nttl 1\\n' $W > $A/export/$m/ctl; c=$(cap)");
    scene.ok("echo mount $c /c > $N/ns; cat $N/c/file");
    let deadline = Instant::now() + Duration::from_secs(10);
    while scene.run("cat $N/c/file").status == Some(0) {
        assert!(Instant::now() < deadline, "good for longer than a second");
    }
    scene.refused("echo mount $c /d > $N/ns");
    Verdict::Passed
}

fn bytes_that_are_no_9p() -> Verdict {
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    let socket = scene.stage.path("bob/9p.sock");
    let version = b"\x13\0\0\0\x64\xff\xff\0\x20\0\0\x06\09P2000";
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("text", b"GET / HTTP/1.1\r\n\r\n"),
        ("length 0", b"\0\0\0\0\0\0\0"),
        ("length 3", b"\x03\0\0\0"),
        ("length 4 GiB", b"\xff\xff\xff\xff\x64\xff\xff"),
        ("half a header", b"\x13\0"),
        ("unknown type", b"\x07\0\0\0\xff\0\0"),
        ("a reply", b"\x07\0\0\0\x65\0\0"),
        ("string past the end", b"\x13\0\0\0\x64\xff\xff\0\x20\0\0\xff\xff9P2000"),
        ("attach before version", b"\x13\0\0\0\x68\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0"),
        ("walk of 65535 names", b"\x11\0\0\0\x6e\0\0\0\0\0\0\x01\0\0\0\xff\xff"),
    ] {
        for first in [&b""[..], version] {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.set_read_timeout(Some(DEAD)).unwrap();
            // The server may hang up before it has read all.
            let _ = stream.write_all(&[first, bytes].concat());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let end = (&stream).take(1 << 20).read_to_end(&mut answer);
            let late = end.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!late, "{what}: the connection was kept");
            assert!(answer.len() < 4096, "{what}: {} bytes came back", answer.len());
        }
    }
    assert_eq!(scene.ok("ipos ns | head -n1"), "bind '#self' /self\n");
    Verdict::Passed
}

fn programs_that_misbehave() -> Verdict {
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    scene.ok("cp $PROGRAMS/*.wasm $W; echo text > $W/text.wasm; head -c 100 $W/true.wasm > $W/half.wasm");
    // Imports "env" "nothing", a function without parameters and results.
    scene.ok("printf '\\0asm\\1\\0\\0\\0\\1\\4\\1\\140\\0\\0\\2\\17\\1\\3env\\7nothing\\0\\0' > $W/import.wasm");
    for (limits, command, word) in [
        ("", "text.wasm", "refused"),
        ("", "half.wasm", "refused"),
        ("", "import.wasm", "refused"),
        ("", "missing.wasm", "refused"),
        ("limit fuel 1000000", "spin.wasm", "fuel"),
        ("limit wall 1", "spin.wasm", "wall"),
        ("limit cpu 100", "spin.wasm", "signal 24"),
        ("limit mem 8M", "hog.wasm", "mem"),
        ("limit spool 64K", "flood.wasm", "outlimit"),
        ("", "recurse.wasm", "trap"),
        ("", "exit.wasm 7", "exited 7"),
    ] {
        scene.job();
        if !limits.is_empty() {
            scene.ok(&format!("echo {limits} > $n/ctl"));
        }
        // What cannot even begin is refused at once, or by the job's end: both tell why.
        let told = scene.run(&format!("echo exec /w/{command} > $n/ctl && cat $n/wait; cat $n/error"));
        let expected = told.output.contains(word) || (word == "refused" && told.output.contains("cannot"));
        assert!(expected || (word == "refused" && told.output.lines().count() > 1), "{command} {limits}: {told:?}");
        scene.ok("rmdir $n $N/export/$m; cat info");
    }
    let left = scene.ok("cat ps");
    assert_eq!(left, "", "jobs are left");
    Verdict::Passed
}

fn a_damaged_key_or_configuration() -> Verdict {
    let scratch = Scratch::new().unwrap();
    let home = scratch.path().join("home");
    let start = || {
        let mut node =
            Process::start(Path::new(IPOS), &home, &["node", "--listen", "/ip4/127.0.0.1/tcp/0"], None).unwrap();
        let line = node.line().map(|_| ()).map_err(|e| e.to_string());
        node.stop();
        line
    };
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(home.join("config.toml"), "mdns = false\n").unwrap();
    start().unwrap();
    for (file, text, said) in [
        ("config.toml", "mdns = false\nlisten_on = 7\n", "config.toml:2: unknown field `listen_on`"),
        ("config.toml", "mdns = 'no'\n", "config.toml:1: "),
        ("config.toml", "mdns = \n", "config.toml:1: "),
        ("keys/node.key", "ipos key 1 ed25519 00\n", "keys/node.key"),
        ("keys/node.key", "", "keys/node.key"),
        ("peers", "\u{0}\u{1}\u{2} not a table\n", "peers"),
        ("export", "\u{0}\u{1}\u{2} not a table\n", "export"),
        ("namespace", "bind /no/such /x\n", "namespace"),
    ] {
        let path = home.join(file);
        let good = fs::read(&path).ok();
        fs::write(&path, text).unwrap();
        let refusal = start().expect_err(file);
        assert!(refusal.contains(said), "{file}: {refusal}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "{file} was overwritten");
        match good {
            Some(good) => fs::write(&path, good).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    start().unwrap();
    Verdict::Passed
}

fn two_nodes_on_one_home() -> Verdict {
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    let pid = scene.stage.bob.pid();
    let text = scene.refused("ipos node");
    assert!(text.contains(&format!("process id {pid}")) && text.contains("ipos mount"), "{text}");
    let text = scene.refused("ipos mount --name other $W");
    assert!(text.contains(&format!("process id {pid}")), "{text}");
    scene.ok("ipos ns; cat $N/self/id");
    Verdict::Passed
}

/// A small tmpfs over a directory, taken away when dropped.
struct Small<'a>(&'a Path);

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _not_mounted = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn a_full_disk_for_spools() -> Verdict {
    if !nix::unistd::geteuid().is_root() {
        return Verdict::NotRun("only root mounts a small tmpfs".into());
    }
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    let spools = scene.stage.path("ann/cpu");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&spools).status();
    let _small = match mounted {
        Ok(status) if status.success() => Small(&spools),
        _ => return Verdict::NotRun("tmpfs cannot be mounted here".into()),
    };
    scene.ok("cp $PROGRAMS/*.wasm $W");
    scene.job();
    let told = scene.run("echo exec /w/flood.wasm > $n/ctl && cat $n/wait; cat $n/error");
    assert!(!told.output.trim().is_empty() && !told.output.contains("exited 0"), "{told:?}");
    scene.ok("rmdir $n; cat info; ls $N/n/ann");
    Verdict::Passed
}
