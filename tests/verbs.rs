//! The verbs of ipos(1), as somebody types them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ipos::tour::{Process, Scratch, Stage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::Verdict;
use crate::scene::Scene;
use crate::transcripts::{IPOS, sources};

tests!(
    doctor_names_each_fault_and_what_to_type,
    a_node_ends_in_time_and_says_when_it_is_ready,
    a_mount_attaches_to_the_node_that_runs,
    a_dead_mount_is_replaced,
    umount_says_what_is_in_the_way,
    an_interrupted_job_leaves_nothing,
    completions_and_help,
    without_fusermount3_its_package_is_named,
    the_tour_says_what_is_missing,
    the_tour_plays,
    the_kernel_reads_the_name_space,
);

const QUIET: &str = "mdns = false\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n";

/// ipos-node(8): how long a node may take to end.
const END: Duration = Duration::from_secs(5);
/// ipos-mount(1): how long a mount of its own process may show a name that is gone.
const NAME_KEPT: Duration = Duration::from_secs(1);

fn home(scratch: &Scratch) -> std::path::PathBuf {
    let home = scratch.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(home.join("config.toml"), QUIET).unwrap();
    home
}

fn ipos(home: &Path, arguments: &[&str]) -> Output {
    Command::new(IPOS).arg("--home").arg(home).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn doctor_names_each_fault_and_what_to_type() -> Verdict {
    let scratch = Scratch::new().unwrap();
    let home = home(&scratch);
    let say = |set: &[(&str, &str)]| {
        let doctor =
            Command::new(IPOS).arg("--home").arg(&home).arg("doctor").envs(set.iter().copied()).output().unwrap();
        (doctor.status.code(), text(&doctor))
    };
    let (_, told) = say(&[]);
    for what in ["/dev/fuse", "fusermount3", "fuse request timeout", "name spaces", "state directory", "listen "] {
        assert!(told.contains(what), "nothing is said of {what}: {told}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    for (config, mode, fault) in [
        (format!("listen = [\"{addr}\"]\n"), 0o700, "another program listens there; type: ss "),
        ("listen = [\"/dns/x/tcp/1\"]\n".into(), 0o700, "FAULT listen /dns/x/tcp/1"),
        ("nane = 'x'\n".into(), 0o700, "config.toml:1: unknown field `nane`"),
        (QUIET.into(), 0o755, "others may look into it (mode 0755); type: chmod 0700 "),
    ] {
        fs::write(home.join("config.toml"), config).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(mode)).unwrap();
        let (code, told) = say(&[]);
        assert!(code == Some(1) && told.contains(fault), "{fault}: {code:?} {told}");
    }
    Verdict::Passed
}

fn a_node_ends_in_time_and_says_when_it_is_ready() -> Verdict {
    for (signal, mounted) in
        [(Signal::SIGTERM, false), (Signal::SIGINT, false), (Signal::SIGHUP, true), (Signal::SIGTERM, true)]
    {
        if mounted && let Some(why) = crate::no_fuse() {
            return Verdict::NotRun(why);
        }
        let scratch = Scratch::new().unwrap();
        let (home, dir) = (home(&scratch), scratch.path().join("mnt"));
        let notify = scratch.path().join("notify");
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut command = Command::new(IPOS);
        command.arg("--home").arg(&home).stdout(Stdio::null()).env("NOTIFY_SOCKET", &notify);
        let mut node = match mounted {
            true => command.arg("mount").arg(&dir).spawn().unwrap(),
            false => command.arg("node").spawn().unwrap(),
        };
        let mut message = [0; 64];
        let n = socket.recv(&mut message).unwrap();
        assert_eq!(&message[..n], b"READY=1");
        assert!(home.join("9p.sock").exists());
        if mounted {
            // Even while somebody waits for an event there.
            let event = dir.join("self/event");
            std::thread::spawn(move || fs::read(event));
        }
        let asked = Instant::now();
        kill(Pid::from_raw(node.id() as i32), signal).unwrap();
        let status = node.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
        assert!(!home.join("9p.sock").exists(), "the socket is left");
        assert!(!mounted || fs::read_dir(&dir).unwrap().next().is_none(), "the mount is left");
    }
    Verdict::Passed
}

fn a_mount_attaches_to_the_node_that_runs() -> Verdict {
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    // Ann's mount is such a one. What one process binds, the other shows at once; what one takes away, the kernel may still
    // name to the other until word of it has come, or for the second that it remembers a name.
    assert_ne!(scene.stage.ann.pid(), scene.stage.ann_mount.pid());
    scene.ok("ls $A/self; ipos --home $N/../ann bind /keys /bound && ls $A/bound/list && cat $A/ns");
    scene.ok("ipos --home $N/../ann unmount /bound");
    scene.until(2 * NAME_KEPT, "test ! -e $A/bound && echo gone", |got| got.contains("gone"));
    // Its end ends the mount, with the reason told.
    scene.stage.ann.stop();
    let deadline = Instant::now() + END;
    while !scene.stage.ann_mount.log().contains("the node that was mounted is gone") {
        assert!(Instant::now() < deadline, "{:?}", scene.stage.ann_mount.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(scene.ok("ls -A $A"), "");
    // `stop` in self/ctl is the same as a signal.
    scene.ok("echo stop > $N/self/ctl");
    let deadline = Instant::now() + END;
    while scene.run("test -e $IPOS_HOME/9p.sock").status == Some(0) {
        assert!(Instant::now() < deadline, "bob goes on");
    }
    Verdict::Passed
}

fn a_dead_mount_is_replaced() -> Verdict {
    if let Some(why) = crate::no_fuse() {
        return Verdict::NotRun(why);
    }
    let scratch = Scratch::new().unwrap();
    let (home, dir) = (home(&scratch), scratch.path().join("mnt"));
    let at = dir.display().to_string();
    let start = || {
        let mut mount = Process::start(Path::new(IPOS), &home, &["mount", &at], Some(&dir)).unwrap();
        assert_eq!(mount.line().unwrap(), at);
        mount
    };
    let mut first = start();
    first.kill();
    assert!(fs::metadata(&dir).is_err(), "a killed server's mount cannot be looked at");
    let doctor = ipos(&home, &["doctor"]);
    assert!(text(&doctor).contains(&format!("FAULT mount {at}: its node has died; type: ipos umount")), "{doctor:?}");
    // A start replaces it.
    let mut second = start();
    assert!(dir.join("self/id").exists());
    // And umount clears it away.
    second.kill();
    assert!(ipos(&home, &["umount", &at]).status.success());
    assert!(fs::read_dir(&dir).unwrap().next().is_none());
    Verdict::Passed
}

fn umount_says_what_is_in_the_way() -> Verdict {
    if let Some(why) = crate::no_fuse() {
        return Verdict::NotRun(why);
    }
    let scratch = Scratch::new().unwrap();
    let (home, dir) = (home(&scratch), scratch.path().join("mnt"));
    let at = dir.display().to_string();
    let nothing = ipos(&home, &["umount", &at]);
    assert_eq!(nothing.status.code(), Some(1), "nothing is mounted");
    let mut mount = Process::start(Path::new(IPOS), &home, &["mount", &at], Some(&dir)).unwrap();
    mount.line().unwrap();
    let held = fs::File::open(dir.join("self/id")).unwrap();
    let busy = ipos(&home, &["umount", &at]);
    assert!(text(&busy).contains("ipos umount --lazy"), "{busy:?}");
    drop(held);
    // The close of the last file is told to the server after close(2) has returned.
    let deadline = Instant::now() + END;
    while !ipos(&home, &["umount", &at]).status.success() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(mount.stop(), Some(0), "the process ends with its mount");
    assert!(!home.join("9p.sock").exists());
    Verdict::Passed
}

fn an_interrupted_job_leaves_nothing() -> Verdict {
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    scene.ok("cd $W; cp $PROGRAMS/spin.wasm .");
    for signal in ["INT", "TERM"] {
        scene.ok("ipos cpu ann spin.wasm & job=$!; until grep -q running $N/cpu/ann/ps; do :; done");
        scene.ok(&format!("kill -{signal} $job; wait $job; test $? = 130"));
        assert_eq!(scene.ok("cat $N/cpu/ann/ps; ls $N/export | grep '[0-9]' || :"), "", "{signal}");
    }
    Verdict::Passed
}

fn completions_and_help() -> Verdict {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Command::new(IPOS).args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(script.stdout).unwrap();
        assert!(script.contains("umount") && !script.contains("worker"), "{shell}");
    }
    let script = Command::new(IPOS).args(["completions", "bash"]).output().unwrap();
    let path = Scratch::new().unwrap();
    fs::write(path.path().join("c"), script.stdout).unwrap();
    assert!(Command::new("bash").arg("-n").arg(path.path().join("c")).status().unwrap().success());
    for arguments in [&["--help"][..], &["mount", "--help"], &["cpu", "--help"], &["--version"]] {
        assert!(Command::new(IPOS).args(arguments).output().unwrap().status.success());
    }
    for arguments in
        [&[][..], &["dance"], &["mount", "--nmae", "x"], &["bind", "/a"], &["bind", "-a", "-b", "/a", "/b"]]
    {
        assert_eq!(Command::new(IPOS).args(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
    Verdict::Passed
}

/// As an ordinary user, with nothing of FUSE in PATH.
fn without_fusermount3_its_package_is_named() -> Verdict {
    use std::os::unix::process::CommandExt;
    if !geteuid().is_root() {
        return Verdict::NotRun("only root becomes another user".into());
    }
    let scratch = Scratch::new().unwrap();
    // Nobody else may look into where this was built.
    let program = scratch.path().join("ipos");
    fs::copy(IPOS, &program).unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let nobody = |verb: &[&str]| {
        let mut command = Command::new(&program);
        command.args(verb).uid(65534).gid(65534).env("PATH", "/nowhere").env("HOME", scratch.path());
        text(&command.env("IPOS_HOME", scratch.path().join("home")).current_dir("/").output().unwrap())
    };
    let mount = nobody(&["mount", "--listen", "/ip4/127.0.0.1/tcp/0", "./mnt"]);
    // Whoever may not even open the device is told that first.
    let open = fs::metadata("/dev/fuse").is_ok_and(|m| m.permissions().mode() & 0o006 == 0o006);
    let said = if open { "apt install fuse3" } else { "/dev/fuse" };
    assert!(mount.contains(said), "{mount}");
    let doctor = nobody(&["doctor"]);
    assert!(doctor.contains("FAULT fusermount3: not found in PATH; type as root: apt install fuse3"), "{doctor}");
    Verdict::Passed
}

fn the_tour_says_what_is_missing() -> Verdict {
    let tour = Command::new(IPOS).arg("tour").current_dir("/").env_remove("CARGO_MANIFEST_DIR").output().unwrap();
    assert_eq!(tour.status.code(), Some(1));
    assert!(text(&tour).contains("the sources of ipos are not here; type: "), "{tour:?}");
    Verdict::Passed
}

/// The whole tour, as its user runs it.
fn the_tour_plays() -> Verdict {
    if let Some(why) = crate::no_fuse() {
        return Verdict::NotRun(why);
    }
    let tour = Command::new(IPOS).arg("tour").current_dir(sources()).stdin(Stdio::null()).output().unwrap();
    let told = text(&tour);
    assert!(tour.status.success(), "{told}");
    for line in ["$ ls $N", "3 /p/book", "rg.wasm", "# every step did what it says"] {
        assert!(told.contains(line), "{line:?} is not in: {told}");
    }
    Verdict::Passed
}

/// The Linux kernel's own 9P client on the node's socket, through the script that `IPOS_V9FS_VM` names.
fn the_kernel_reads_the_name_space() -> Verdict {
    let Some(script) = std::env::var_os("IPOS_V9FS_VM") else {
        return Verdict::NotRun("IPOS_V9FS_VM names no script that mounts 9P in a virtual machine".into());
    };
    if let Some(why) = crate::no_fuse() {
        return Verdict::NotRun(why);
    }
    let stage = Stage::start(Path::new(IPOS)).unwrap();
    let commands = "cat self/id && cat ns && echo bind /keys /again > ns && ls again && ! cat nothing && cat error";
    let file = stage.path("commands");
    fs::write(&file, commands).unwrap();
    let vm =
        Command::new(script).arg("-U").arg(stage.path("bob/9p.sock")).arg(&file).stdin(Stdio::null()).output().unwrap();
    let told = text(&vm);
    assert!(vm.status.success(), "{told}");
    let id = fs::read_to_string(stage.path("bob.mnt/self/id")).unwrap();
    assert!(told.contains(id.trim()) && told.contains("bind '#keys' /keys") && told.contains("verify"), "{told}");
    Verdict::Passed
}
