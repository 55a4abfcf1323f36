//! The life of a mount: what it replaces, what it leaves alone, how it ends.

use std::io::Read;
use std::time::Duration;

use fs_ninep::Kind;
use mount::{Mount, Options};
use tokio::sync::watch;

use super::mounted::{LONG, can_mount, mounted, mounted_with};
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
    assert!(std::process::Command::new("umount").arg(temp.path()).status().unwrap().success());
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
    let status = std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(m.dir()).status().unwrap();
    assert!(status.success());
    std::fs::write(m.path("mine"), "x").unwrap();
    m.unmount();
    assert!(!m.ends_within(Duration::from_millis(200)));
    assert_eq!(std::fs::read_to_string(m.path("mine")).unwrap(), "x");
    for _ in 0..2 {
        assert!(std::process::Command::new("umount").arg(m.dir()).status().unwrap().success());
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
