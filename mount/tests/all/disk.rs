//! Plain files: a host directory through the mount, used as programs use a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fs_host::{Host, HostConfig};
use tempfile::TempDir;

use super::mounted::{LONG, Mounted, mounted, not_run};

/// A host directory and the same through a mount.
struct Disk {
    m: Mounted,
    host: TempDir,
}

fn disk(name: &str) -> Option<Disk> {
    let host = tempfile::tempdir().unwrap();
    let root = Host::open(host.path(), HostConfig::default()).unwrap().root();
    Some(Disk { m: mounted(name, root)?, host })
}

impl Disk {
    fn host(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.m.path(name)
    }
}

/// Bytes that repeat nowhere near.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_ne_bytes());
    }
    out.truncate(len);
    out
}

#[test]
fn a_shell_makes_moves_and_removes() {
    let Some(d) = disk("a_shell_makes_moves_and_removes") else { return };
    for (script, want) in [
        ("mkdir -p a/b/c && cd a/b/c && mkdir -p ../../b/c && pwd -P | sed 's|.*/a|a|'", "a/b/c"),
        ("echo one > a/f; echo two > a/g; mv a/g a/f; cat a/f; ls a", "two\nb\nf"),
        ("ln a/f a/h; stat -c %h a/f a/h; rm a/f; stat -c %h a/h; cat a/h", "2\n2\n1\ntwo"),
        ("ln -s h a/l; readlink a/l; cat a/l; stat -c %F a/l", "h\ntwo\nsymbolic link"),
        ("echo more >> a/h; cat a/h; truncate -s 3 a/h; cat a/h; : > a/h; stat -c %s a/h", "two\nmore\ntwo0"),
        ("chmod 640 a/h; stat -c %a a/h; touch -d @1000000000 a/h; stat -c %Y a/h", "640\n1000000000"),
        ("umask 027; mkdir u; : > u/f; stat -c %a u u/f", "750\n640"),
        ("cd a/b; mv ../b ../z; echo x > inside; cd ..; ls z; mv z b; cat b/inside", "c\ninside\nx"),
        ("rmdir a/b 2>&1 | sed 's/.*: //'; rm a/b 2>&1 | sed 's/.*: //'", "Directory not empty\nIs a directory"),
        ("mkfifo p 2>&1 | sed 's/.*: //'", "Operation not permitted"),
        ("mv -n a/h u/f; ls a/h u/f", "a/h\nu/f"),
        ("rm -r a u; ls -A", ""),
    ] {
        d.m.check(script, want);
    }
    assert_eq!(fs::read_dir(d.host.path()).unwrap().count(), 0);
}

#[test]
fn a_tree_is_copied_whole_both_ways() {
    let Some(d) = disk("a_tree_is_copied_whole_both_ways") else { return };
    let other = tempfile::tempdir().unwrap();
    for dir in 0..10 {
        let dir = other.path().join(format!("d{dir}/e"));
        fs::create_dir_all(&dir).unwrap();
        (0..30).for_each(|n| fs::write(dir.join(format!("f{n}")), noise(n * 1000)).unwrap());
    }
    let o = other.path().display();
    d.m.check(&format!("tar -C {o} -cf - . | tar xf - && diff -r {o} . && find . -type f | wc -l"), "300");
    d.m.check(&format!("mkdir {o}/back && tar cf - d0 d1 | tar -C {o}/back -xf - && diff -r d0 {o}/back/d0"), "");
    d.m.check("cp -a d2 copy && diff -r d2 copy && rm -r copy && du -a d2 | wc -l", "32");
    if d.m.sh("command -v rsync").starts_with('/') {
        d.m.check(&format!("rsync -a {o}/d3/ r/ && rsync -ain {o}/d3/ r/ && diff -r d3 r"), "");
    } else {
        not_run("rsync of a_tree_is_copied_whole_both_ways", "rsync is missing");
    }
}

#[test]
fn git_works() {
    let Some(d) = disk("git_works") else { return };
    d.m.check(
        "git init -q -b main . && git config user.name a && git config user.email a@b && mkdir s && echo 1 > s/f && \
         git add . && git commit -qm one && echo 2 >> s/f && git commit -qam two && git mv s/f s/g && \
         git commit -qm three && git gc -q && git fsck --full 2>&1 && git status --porcelain && \
         git log --format=%s --follow s/g && git clone -q . c && cat c/s/g",
        "three\ntwo\none\n1\n2",
    );
}

#[test]
fn sqlite_works() {
    let Some(d) = disk("sqlite_works") else { return };
    if !d.m.sh("command -v sqlite3").starts_with('/') {
        not_run("sqlite_works", "sqlite3 is missing");
        return;
    }
    for mode in ["delete", "wal"] {
        let fill =
            "with recursive c(x) as (select 1 union all select x+1 from c where x<5000) insert into t select x from c";
        let script = format!(
            "sqlite3 {mode}.db 'pragma journal_mode={mode}; create table t(x); begin; {fill}; commit;' && \
             for i in 1 2 3 4; do sqlite3 -cmd '.timeout 20000' {mode}.db 'insert into t values(1)' & done; wait; \
             sqlite3 {mode}.db 'select count(*) from t; pragma integrity_check'"
        );
        d.m.check(&script, &format!("{mode}\n5004\nok"));
    }
}

#[test]
fn a_large_file_is_the_same_on_both_sides() {
    let Some(d) = disk("a_large_file_is_the_same_on_both_sides") else { return };
    let bytes = noise((48 << 20) + 12_345);
    let sums = |d: &Disk| {
        d.m.check(
            &format!("sha256sum < f | cmp - {o}/sum && sha256sum < {o}/f | cmp - {o}/sum", o = d.host.path().display()),
            "",
        );
    };
    fs::write(d.host("f"), &bytes).unwrap();
    d.m.check(&format!("sha256sum < {0}/f > {0}/sum", d.host.path().display()), "");
    sums(&d);
    fs::remove_file(d.path("f")).unwrap();
    fs::write(d.path("f"), &bytes).unwrap();
    sums(&d);
    d.m.check("cp f g && mv g f && dd if=f of=h bs=1000003 status=none && mv h f", "");
    sums(&d);
    // Pieces in any order, some twice.
    let file = OpenOptions::new().write(true).create_new(true).open(d.path("r")).unwrap();
    let step = 777_777;
    for n in (0..bytes.len().div_ceil(step)).rev().chain(0..5) {
        let at = n * step;
        file.write_all_at(&bytes[at..bytes.len().min(at + step)], at as u64).unwrap();
    }
    drop(file);
    d.m.check("mv r f", "");
    sums(&d);
}

#[test]
fn a_mapping_reads_and_writes() {
    let Some(d) = disk("a_mapping_reads_and_writes") else { return };
    let script = "
import mmap
f = open('m', 'w+b'); f.truncate(3*4096); f.flush()
m = mmap.mmap(f.fileno(), 3*4096)
m[4090:4102] = b'across pages'
m.flush()
print(open('m','rb').read()[4090:4102].decode())
f.seek(0); f.write(b'by write'); f.flush()
print(m[0:8].decode())
g = open('m','rb')
r = mmap.mmap(g.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
print(len(r), r[4090:4096].decode())";
    fs::write(d.host("map.py"), script).unwrap();
    d.m.check("python3 map.py", "across pages\nby write\n12288 across");
    assert_eq!(&fs::read(d.host("m")).unwrap()[4090..4102], b"across pages");
}

#[test]
fn programs_run_from_it() {
    let Some(d) = disk("programs_run_from_it") else { return };
    d.m.check("cp /bin/echo e && ./e from the mount", "from the mount");
    d.m.check("printf '#!/bin/sh\\necho script $1\\n' > s && chmod 700 s && ./s x", "script x");
    assert!(d.m.sh("chmod 600 s; ./s").ends_with("[126]\n"));
}

#[test]
fn a_file_without_a_name_lives_until_closed() {
    let Some(d) = disk("a_file_without_a_name_lives_until_closed") else { return };
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(d.path("f")).unwrap();
    file.write_all(b"before ").unwrap();
    fs::remove_file(d.path("f")).unwrap();
    assert!(!d.host("f").exists());
    file.write_all(b"after").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    // A new file of that name is another.
    fs::write(d.path("f"), "new").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 12);
    assert_eq!(fs::read_to_string(d.path("f")).unwrap(), "new");
}

#[test]
fn appends_of_two_do_not_meet() {
    let Some(d) = disk("appends_of_two_do_not_meet") else { return };
    let writers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|who| {
            let mut file = OpenOptions::new().append(true).create(true).open(d.path("log")).unwrap();
            std::thread::spawn(move || {
                (0..500).for_each(|n| file.write_all(format!("{who} {n}\n").as_bytes()).unwrap())
            })
        })
        .collect();
    // And one on the other side of the mount.
    let mut file = OpenOptions::new().append(true).create(true).open(d.host("log")).unwrap();
    (0..500).for_each(|n| file.write_all(format!("c {n}\n").as_bytes()).unwrap());
    writers.into_iter().for_each(|w| w.join().unwrap());
    let text = fs::read_to_string(d.host("log")).unwrap();
    for who in ["a", "b", "c"] {
        let numbers: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix(who)).map(str::trim).collect();
        assert_eq!(numbers, (0..500).map(|n| n.to_string()).collect::<Vec<_>>(), "{who}");
    }
}

#[test]
fn hard_links_are_one_file() {
    let Some(d) = disk("hard_links_are_one_file") else { return };
    fs::write(d.path("a"), "one").unwrap();
    fs::hard_link(d.path("a"), d.path("b")).unwrap();
    let (a, b) = (fs::metadata(d.path("a")).unwrap(), fs::metadata(d.path("b")).unwrap());
    assert_eq!((a.nlink(), a.ino()), (2, b.ino()));
    fs::write(d.path("a"), "longer").unwrap();
    assert_eq!(fs::read_to_string(d.path("b")).unwrap(), "longer");
    fs::set_permissions(d.path("b"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::metadata(d.path("a")).unwrap().mode() & 0o777, 0o600);
    fs::rename(d.path("b"), d.path("c")).unwrap();
    fs::remove_file(d.path("a")).unwrap();
    assert_eq!(fs::metadata(d.path("c")).unwrap().nlink(), 1);
    assert_eq!(fs::read_to_string(d.path("c")).unwrap(), "longer");
}

#[test]
fn a_change_on_the_other_side_shows_within_the_time_stated() {
    let Some(d) = disk("a_change_on_the_other_side_shows_within_the_time_stated") else { return };
    fs::write(d.host("f"), "old\n").unwrap();
    assert_eq!(fs::read_to_string(d.path("f")).unwrap(), "old\n");
    let file = File::open(d.path("f")).unwrap();
    fs::write(d.host("f"), "changed\n").unwrap();
    fs::write(d.host("g"), "new\n").unwrap();
    assert_eq!(fs::read_to_string(d.path("g")).unwrap(), "new\n");
    let start = Instant::now();
    let mut buf = [0; 64];
    loop {
        let n = file.read_at(&mut buf, 0).unwrap();
        if &buf[..n] == b"changed\n" && fs::read_to_string(d.path("f")).unwrap() == "changed\n" {
            break;
        }
        assert!(start.elapsed() < LONG);
        std::thread::yield_now();
    }
    println!("seen after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn refusals_have_their_numbers() {
    let Some(d) = disk("refusals_have_their_numbers") else { return };
    fs::create_dir(d.path("dir")).unwrap();
    fs::write(d.path("dir/f"), "x").unwrap();
    let at = |name: &str| d.path(name);
    let errno = |r: std::io::Result<()>| r.map_or_else(|e| e.raw_os_error().unwrap_or(-1), |()| 0);
    let create = |name: &str| OpenOptions::new().write(true).create_new(true).open(at(name)).map(drop);
    for (what, got, want) in [
        ("open of nothing", errno(File::open(at("no")).map(drop)), libc::ENOENT),
        ("open through a file", errno(File::open(at("dir/f/g")).map(drop)), libc::ENOTDIR),
        ("exclusive create", errno(create("dir/f")), libc::EEXIST),
        ("mkdir of what is", errno(fs::create_dir(at("dir"))), libc::EEXIST),
        ("rmdir of a full one", errno(fs::remove_dir(at("dir"))), libc::ENOTEMPTY),
        ("rmdir of a file", errno(fs::remove_dir(at("dir/f"))), libc::ENOTDIR),
        ("unlink of a directory", errno(fs::remove_file(at("dir"))), libc::EISDIR),
        ("write to a directory", errno(OpenOptions::new().write(true).open(at("dir")).map(drop)), libc::EISDIR),
        ("rename into itself", errno(fs::rename(at("dir"), at("dir/in"))), libc::EINVAL),
        (
            "rename over a full one",
            errno(fs::create_dir(at("e")).and_then(|()| fs::rename(at("e"), at("dir")))),
            libc::ENOTEMPTY,
        ),
        ("a long name", errno(create(&"n".repeat(256))), libc::ENAMETOOLONG),
        ("a name of 255 bytes", errno(create(&"n".repeat(255))), 0),
        (
            "a loop of links",
            errno(std::os::unix::fs::symlink("l", at("l")).and_then(|()| File::open(at("l")).map(drop))),
            libc::ELOOP,
        ),
    ] {
        assert_eq!(got, want, "{what}");
    }
}

#[test]
fn the_figures_of_the_file_system_are_the_hosts() {
    let Some(d) = disk("the_figures_of_the_file_system_are_the_hosts") else { return };
    let blocks = |at: &str| d.m.sh(&format!("stat -f -c '%b %s %l' {at}"));
    assert_eq!(blocks("."), blocks(&d.host.path().display().to_string()));
}
