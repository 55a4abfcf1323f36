//! The life of a mount: what it replaces, what it leaves alone, how it ends.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fs_ninep::Kind;
use mount::{Mount, Options};
use tokio::sync::watch;

use super::mounted::{LONG, can_mount, mounted, mounted_with, not_run};
use super::tree::{dir, event, root, value};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_dead_mount_is_replaced_and_a_live_one_is_not() {
    if !can_mount("a_dead_mount_is_replaced_and_a_live_one_is_not") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let rt = runtime();
    let dead = rt.block_on(async { Mount::start(root(dir([])), temp.path(), Options::default()).unwrap() });
    // The end of the runtime closes the device, as the end of a killed process does.
    std::mem::forget(dead);
    drop(rt);
    let error = std::fs::metadata(temp.path()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(107), "{error}");

    let rt = runtime();
    let mount = rt.block_on(async { Mount::start(root(dir([])), temp.path(), Options::default()).unwrap() });
    let serve = std::thread::spawn(move || rt.block_on(async { mount.done().await }));
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);

    let rt = runtime();
    let second = rt.block_on(async { Mount::start(root(dir([])), temp.path(), Options::default()) }).unwrap_err();
    assert_eq!(second.kind(), Kind::Busy);
    assert!(second.to_string().contains("fusermount3 -u"), "{second}");
    assert!(Command::new("umount").arg(temp.path()).status().unwrap().success());
    serve.join().unwrap();
}

#[test]
fn an_unmount_leaves_open_files_alive() {
    let e = event();
    let Some(mut m) = mounted("an_unmount_leaves_open_files_alive", root(dir([("event", e.clone())]))) else { return };
    let mut file = std::fs::File::open(m.path("event")).unwrap();
    m.unmount();
    let reader = std::thread::spawn(move || {
        let mut buf = [0; 64];
        let n = file.read(&mut buf).unwrap();
        (file, buf[..n].to_vec())
    });
    e.bus().wait_for_readers(1);
    assert!(!m.ends_within(Duration::from_millis(50)), "a mount with an open file has not ended");
    e.bus().publish("late\n");
    let (file, heard) = reader.join().unwrap();
    assert_eq!(heard, b"late\n");
    drop(file);
    assert!(m.ends_within(LONG));
    assert_eq!(std::fs::read_dir(m.dir()).unwrap().count(), 0, "the name is gone");
}

#[test]
fn a_mount_on_top_is_left_alone() {
    let top = root(dir([("under", value("u\n"))]));
    let Some(mut m) = mounted("a_mount_on_top_is_left_alone", top) else { return };
    let status = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(m.dir()).status().unwrap();
    assert!(status.success());
    std::fs::write(m.path("mine"), "x").unwrap();
    m.unmount();
    assert!(!m.ends_within(Duration::from_millis(200)));
    assert_eq!(std::fs::read_to_string(m.path("mine")).unwrap(), "x");
    for _ in 0..2 {
        assert!(Command::new("umount").arg(m.dir()).status().unwrap().success());
    }
    assert!(m.ends_within(LONG));
}

#[test]
fn what_cannot_be_mounted_on() {
    if !can_mount("what_cannot_be_mounted_on") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("file"), "").unwrap();
    let rt = runtime();
    for (name, kind) in [("missing", Kind::NotFound), ("file", Kind::NotDir), ("file/x", Kind::NotDir)] {
        let at = temp.path().join(name);
        let error = rt.block_on(async { Mount::start(root(dir([])), &at, Options::default()) }).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_change_of_the_name_space_shows_at_once() {
    let (old, new) = (dir([("old", value("o\n"))]), dir([("new", value("n\n"))]));
    let top = dir([("d", old)]);
    let (tell, changes) = watch::channel(0);
    let options = Options { changes: Some(changes), ..Options::default() };
    let Some(m) = mounted_with("a_change_of_the_name_space_shows_at_once", root(top.clone()), options) else { return };
    m.check("ls d", "old");
    top.add("d", &new);
    tell.send_modify(|n| *n += 1);
    // No request brought the change about, so the kernel hears of it when the server's thread wakes.
    let shown = (0..1000).any(|_| m.sh("ls d") == "new\n");
    assert!(shown);
    m.check("cd d; cat new", "n");
}

/// The program of examples/demo.rs, which cargo builds beside the tests.
fn demo() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("examples/demo")
}

/// Starts `command`, which runs the demo, and waits until it serves.
fn started(command: &mut Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with('/'), "{line}");
    child
}

#[test]
fn what_a_killed_server_leaves_is_replaced() {
    if !can_mount("what_a_killed_server_leaves_is_replaced") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let mut first = started(Command::new(demo()).arg(temp.path()));
    // A reader that waits holds the dead mount busy.
    let mut reader = Command::new("cat").arg(temp.path().join("event")).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(std::fs::read_to_string(temp.path().join("status")).unwrap(), "up\n");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!reader.wait().unwrap().success());
    assert_eq!(std::fs::metadata(temp.path()).unwrap_err().raw_os_error(), Some(107));
    let mut second = started(Command::new(demo()).arg(temp.path()));
    assert_eq!(std::fs::read_to_string(temp.path().join("status")).unwrap(), "up\n");
    assert!(Command::new("umount").arg(temp.path()).status().unwrap().success());
    assert!(second.wait().unwrap().success());
}

/// Runs `script` in a mount name space of its own, in which /dev/fuse has `mode`; `$as` runs the demo or another
/// command as nobody, `$dir` is a directory of nobody's.
fn as_nobody(name: &str, mode: &str, script: &str) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        not_run(name, "only root can become another user");
        return None;
    }
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().display();
    let setup = format!(
        "set -e; chmod 755 {base}; cp {demo} {base}/demo; mknod {base}/fuse c 10 229; chmod {mode} {base}/fuse; \
         mount --bind {base}/fuse /dev/fuse; dir={base}/point; mkdir $dir; chown 65534:65534 $dir; demo={base}/demo; \
         as='setpriv --reuid 65534 --regid 65534 --clear-groups'; cd /; set +e",
        demo = demo().display()
    );
    let mut command = Command::new("timeout");
    let script = format!("{setup}\n{script}");
    command.args(["-k", "1", "60", "unshare", "--mount", "--propagation", "private", "sh", "-c", &script]);
    let out = command.env("LC_ALL", "C").output().unwrap();
    let said = super::mounted::said(&out);
    Some(said)
}

#[test]
fn an_ordinary_user_mounts_by_fusermount3() {
    let name = "an_ordinary_user_mounts_by_fusermount3";
    if !can_mount(name) {
        return;
    }
    let script = "
        mkfifo $dir.up; chown 65534 $dir.up
        $as $demo $dir > $dir.up & read at < $dir.up
        [ $at = $dir ] && $as cat $dir/status
        ls $dir 2>&1 | sed 's/.*: //'
        findmnt -no FSTYPE,SOURCE $dir
        $as fusermount3 -u $dir; wait $!; echo ended $?";
    let Some(said) = as_nobody(name, "666", script) else { return };
    assert_eq!(said, "up\nPermission denied\nfuse.ipos ipos\nended 0\n");
}

#[test]
fn what_keeps_an_ordinary_user_out_is_told() {
    let name = "what_keeps_an_ordinary_user_out_is_told";
    if !can_mount(name) {
        return;
    }
    for (mode, script, want) in [
        ("600", "$as $demo $dir", "chmod 666 /dev/fuse"),
        ("666", "$as env PATH=/nonexistent $demo $dir", "apt install fuse3"),
        ("666", "chown 0 $dir; $as $demo $dir", "fusermount3 refused: "),
    ] {
        let Some(said) = as_nobody(name, mode, script) else { return };
        assert!(said.contains(want) && said.ends_with("[1]\n"), "{script}: {said}");
    }
}

#[test]
fn others_are_let_in_by_request_and_then_by_the_modes() {
    let name = "others_are_let_in_by_request_and_then_by_the_modes";
    for (allow_other, status, ctl) in [(false, "[1]\n", "[2]\n"), (true, "v\n", "[2]\n")] {
        let options = Options { allow_other, ..Options::default() };
        let tree = root(dir([("status", value("v\n")), ("ctl", super::tree::ctl())]));
        let Some(m) = mounted_with(name, tree, options) else { return };
        let parent = m.dir().parent().unwrap();
        assert!(Command::new("chmod").arg("755").arg(parent).status().unwrap().success());
        let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c";
        let said = |what: &str| m.sh(&format!("{nobody} '{what}' 2>/dev/null"));
        assert_eq!(said("cat status"), status);
        assert_eq!(said("echo x > ctl"), ctl);
    }
}

#[test]
fn an_aborted_mount_is_taken_down() {
    let name = "an_aborted_mount_is_taken_down";
    let e = event();
    let Some(m) = mounted(name, root(dir([("event", e.clone())]))) else { return };
    let connection = nix::sys::stat::minor(std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(m.dir()).unwrap()));
    let mut reader = Command::new("cat").arg(m.path("event")).stderr(Stdio::null()).spawn().unwrap();
    e.bus().wait_for_readers(1);
    let control = "/sys/fs/fuse/connections";
    let abort = format!("mount -t fusectl none {control} && echo 1 > {control}/{connection}/abort");
    let aborted = Command::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", &abort]).status();
    if !aborted.unwrap().success() {
        not_run(name, "fusectl cannot be mounted");
        reader.kill().unwrap();
        reader.wait().unwrap();
        return;
    }
    assert!(!reader.wait().unwrap().success());
    assert!(m.ends_within(LONG));
    assert_eq!(std::fs::read_dir(m.dir()).unwrap().count(), 0);
}
