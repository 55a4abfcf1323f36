//! Live files under the programs people use: sizes, redirections, refusals, conversations, names.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fs_ninep::{Kind, OpenFlags};

use super::mounted::{mounted, not_run};
use super::tree::{choppy, ctl, dir, event, plain, refuses, rendered, root, talk, value};

#[test]
fn redirections_work_on_a_control_file() {
    let c = ctl();
    let Some(m) = mounted("redirections_work_on_a_control_file", root(dir([("ctl", c.clone())]))) else { return };
    for (script, want) in [
        ("echo one > ctl", vec!["one"]),
        ("echo two >> ctl", vec!["two"]),
        ("printf 'a\\nb\\n' | tee ctl >/dev/null", vec!["a", "b"]),
        ("echo app | tee -a ctl >/dev/null", vec!["app"]),
        ("truncate -s 0 ctl", vec![]),
        (": > ctl", vec![]),
        ("echo dd | dd of=ctl status=none", vec!["dd"]),
        ("echo dd | dd of=ctl conv=notrunc status=none", vec!["dd"]),
        ("exec 3>ctl; echo x >&3; echo y >&3", vec!["x", "y"]),
        ("echo z 1<>ctl >&1", vec!["z"]),
    ] {
        assert_eq!(m.sh(script), "", "$ {script}");
        assert_eq!(c.lines(), want, "$ {script}");
    }
    m.check("stat -c %s ctl", "0");
}

#[test]
fn a_refused_write_fails_in_the_write() {
    let c = ctl();
    let Some(m) = mounted("a_refused_write_fails_in_the_write", root(dir([("ctl", c.clone())]))) else { return };
    // dash says "I/O error" whatever the number was.
    let said = m.sh("bash -c 'echo bad > ctl'");
    assert!(said.contains("write error: Invalid argument") && said.ends_with("[1]\n"), "{said}");
    assert!(m.sh("echo bad > ctl").ends_with("[1]\n"));
    let mut file = std::fs::OpenOptions::new().write(true).open(m.path("ctl")).unwrap();
    assert_eq!(file.write(b"bad\n").unwrap_err().raw_os_error(), Some(Kind::Invalid.errno() as i32));
    assert_eq!(file.write(b"good\n").unwrap(), 5);
    assert_eq!(c.lines(), ["good"]);
}

#[test]
fn sizes_are_true() {
    let text = "first line\nsecond line\n";
    let Some(m) = mounted("sizes_are_true", root(dir([("status", value(text)), ("info", value("x\n"))]))) else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let o = out.path().display();
    m.check("stat -c %s status", &text.len().to_string());
    m.check("cat status", text.trim_end());
    m.check("head -n1 status", "first line");
    m.check("tail -n1 status", "second line");
    m.check("wc -c < status", &text.len().to_string());
    m.check("dd if=status bs=1 skip=6 count=4 status=none", "line");
    m.check(&format!("cp status info {o}/ && cat {o}/status {o}/info"), &format!("{text}x"));
    m.check("tar cf - status | tar xOf -", text.trim_end());
    m.check("git hash-object --stdin < status > /dev/null && git hash-object status", &git_hash(&m, text));
    let script = "import os,sys; f=os.open('status',0); n=os.fstat(f).st_size; os.sendfile(1,f,0,n)";
    m.check(&format!("python3 -c \"{script}\" | cat"), text.trim_end());
    if !m.sh("command -v rsync").starts_with('/') {
        not_run("rsync of sizes_are_true", "rsync is missing");
    } else {
        m.check(&format!("rsync -r . {o}/r/ && cat {o}/r/status"), text.trim_end());
    }
}

fn git_hash(m: &super::mounted::Mounted, text: &str) -> String {
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(copy.path(), text).unwrap();
    m.sh(&format!("git hash-object {}", copy.path().display())).trim_end().to_owned()
}

#[test]
fn a_value_is_never_cached_and_a_plain_file_is() {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let c = count.clone();
    let live = rendered(move || Bytes::from(format!("{:04}\n", c.load(Ordering::Relaxed))));
    let kept = plain(7, || Bytes::from_static(b"content\n"));
    let name = "a_value_is_never_cached_and_a_plain_file_is";
    let Some(m) = mounted(name, root(dir([("live", live), ("kept", kept.clone())]))) else { return };
    for n in 0..3 {
        count.store(n, Ordering::Relaxed);
        assert_eq!(std::fs::read_to_string(m.path("live")).unwrap(), format!("{n:04}\n"));
    }
    for _ in 0..3 {
        assert_eq!(std::fs::read_to_string(m.path("kept")).unwrap(), "content\n");
    }
    let reads = kept.reads.load(Ordering::Relaxed);
    assert_eq!(std::fs::read_to_string(m.path("kept")).unwrap(), "content\n");
    assert_eq!(kept.reads.load(Ordering::Relaxed), reads, "an unchanged plain file is read from the page cache");
    kept.set_version(8);
    assert_eq!(std::fs::read_to_string(m.path("kept")).unwrap(), "content\n");
    assert!(kept.reads.load(Ordering::Relaxed) > reads, "a changed one is read again");
}

#[test]
fn a_short_plain_file_is_read_in_one_call() {
    let file = plain(7, || Bytes::from_static(b"content\n"));
    let Some(m) = mounted("a_short_plain_file_is_read_in_one_call", root(dir([("f", file.clone())]))) else { return };
    assert_eq!(std::fs::read_to_string(m.path("f")).unwrap(), "content\n");
    assert_eq!(file.reads.load(Ordering::Relaxed), 1);
}

#[test]
fn a_server_that_reads_little_at_a_time_loses_nothing() {
    let bytes: Bytes = (0..300_007u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let units = [("all", 0), ("page", 4096), ("odd", 1001), ("large", 100_000)];
    let top = dir([]);
    units.iter().for_each(|(name, unit)| top.add(name, &choppy(bytes.clone(), *unit)));
    let Some(m) = mounted("a_server_that_reads_little_at_a_time_loses_nothing", root(top)) else { return };
    for (name, _) in units {
        assert!(std::fs::read(m.path(name)).unwrap() == bytes, "{name}");
        assert_eq!(std::fs::metadata(m.path(name)).unwrap().len(), 300_007, "{name}: its size is not cut");
    }
}

#[test]
fn the_fstat_after_an_open_costs_no_trip() {
    let v = value("text\n");
    let Some(m) = mounted("the_fstat_after_an_open_costs_no_trip", root(dir([("v", v.clone())]))) else { return };
    // The ten milliseconds may pass on a loaded machine: once in a hundred must do.
    let saved = (0..100).any(|_| {
        let before = v.looks.load(Ordering::Relaxed);
        let file = std::fs::File::open(m.path("v")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5);
        v.looks.load(Ordering::Relaxed) - before <= 1
    });
    assert!(saved);
}

#[test]
fn a_missing_name_is_asked_for_every_time() {
    let top = dir([("d", dir([]))]);
    let Some(m) = mounted("a_missing_name_is_asked_for_every_time", root(top.clone())) else { return };
    assert!(!m.path("late").exists());
    top.add("late", &value("here\n"));
    assert_eq!(std::fs::read_to_string(m.path("late")).unwrap(), "here\n");
}

#[test]
fn a_blocked_read_leaves_the_same_opening_writable() {
    let Some(m) = mounted("a_blocked_read_leaves_the_same_opening_writable", root(dir([("data", talk())]))) else {
        return;
    };
    let file = std::fs::OpenOptions::new().read(true).write(true).open(m.path("data")).unwrap();
    let mut reader = file.try_clone().unwrap();
    let heard = std::thread::spawn(move || {
        let mut buf = [0; 64];
        let n = reader.read(&mut buf).unwrap();
        buf[..n].to_vec()
    });
    (&file).write_all(b"hello\n").unwrap();
    assert_eq!(heard.join().unwrap(), b"hello\n");
}

#[test]
fn an_opening_without_waiting_gets_what_is_there_and_then_the_end() {
    let e = event();
    let name = "an_opening_without_waiting_gets_what_is_there_and_then_the_end";
    let Some(m) = mounted(name, root(dir([("event", e.clone())]))) else { return };
    let mut file =
        std::fs::OpenOptions::new().read(true).custom_flags(OpenFlags::NONBLOCK as i32).open(m.path("event")).unwrap();
    assert!(e.opened_with().has(OpenFlags::NONBLOCK));
    e.bus().publish("one\n");
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one\n");
}

#[test]
fn a_stream_is_read_line_by_line() {
    let e = event();
    let Some(m) = mounted("a_stream_is_read_line_by_line", root(dir([("event", e.clone())]))) else { return };
    let head = m.command("head -n1 event").spawn().unwrap();
    e.bus().wait_for_readers(1);
    e.bus().publish("one\ntwo\n");
    assert_eq!(super::mounted::said(&head.wait_with_output().unwrap()), "one\n");
}

#[test]
fn a_refusal_switches_nothing_off() {
    let name = "a_refusal_switches_nothing_off";
    let tree = dir([("none", refuses(Kind::NotImplemented)), ("odd", refuses(Kind::Other(9999))), ("v", value("v\n"))]);
    let Some(m) = mounted(name, root(tree)) else { return };
    for (file, errno) in [("none", 95), ("odd", 5)] {
        let error = std::fs::File::open(m.path(file)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{file}");
    }
    m.check("cat v", "v");
}

#[test]
fn names_end_at_255_bytes() {
    let Some(m) = mounted("names_end_at_255_bytes", root(dir([]))) else { return };
    assert_eq!(std::fs::create_dir(m.path(&"n".repeat(255))).map_err(|e| e.to_string()), Ok(()));
    let error = std::fs::create_dir(m.path(&"n".repeat(256))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Kind::NameTooLong.errno() as i32));
    let error = std::fs::metadata(m.path(&"n".repeat(256))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Kind::NameTooLong.errno() as i32));
}

#[test]
fn a_directory_under_two_names_and_in_a_cycle() {
    let sub = dir([("leaf", value("x\n"))]);
    let top = dir([("a", dir([("sub", sub.clone())])), ("b", dir([("sub", sub.clone())]))]);
    sub.add("up", &top);
    let Some(m) = mounted("a_directory_under_two_names_and_in_a_cycle", root(top)) else { return };
    let here = m.dir().canonicalize().unwrap();
    let here = here.display();
    m.check("cd b/sub; ls ../../a/sub >/dev/null; /bin/pwd", &format!("{here}/b/sub"));
    m.check("cd a/sub/up/b/sub; /bin/pwd; cd ..; /bin/pwd", &format!("{here}/a/sub/up/b/sub\n{here}/a/sub/up/b"));
    let inode = |path| std::fs::metadata(m.path(path)).unwrap().ino();
    assert_eq!(inode("a/sub"), inode("b/sub"));
    assert_eq!(inode("a/sub/up"), inode(""));
    let found = m.sh("find . -name leaf; true");
    assert!(found.contains("File system loop detected"), "{found}");
    assert!(found.contains("./a/sub/leaf") && found.contains("./b/sub/leaf"), "{found}");
    m.check("find . -samefile a/sub/leaf 2>/dev/null | sort", "./a/sub/leaf\n./b/sub/leaf");
    assert!(m.sh("ls -R").contains("not listing already-listed directory"));
}

#[test]
fn a_long_listing_is_whole() {
    let top = dir([]);
    for i in 0..3000 {
        top.add(&format!("f{i:05}"), &value("v\n"));
    }
    let Some(m) = mounted("a_long_listing_is_whole", root(top)) else { return };
    m.check("ls | wc -l", "3000");
    m.check("ls -l | grep -c '^-r--r--r-- 1 .* 2 '", "3000");
    m.check("ls -fa | sort | head -n3", ".\n..\nf00000");
    m.check("ls | sort -u | wc -l", "3000");
}
