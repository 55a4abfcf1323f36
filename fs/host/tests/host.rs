//! A host directory through the trait: nothing leads out of it, nothing is lost in it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fs_host::{Host, HostConfig};
use fs_ninep::{Attr, Caller, Created, File, Kind, Name, OpenFile, OpenFlags, Result, SetAttr, SetTime, Time, Tree};

const CREAT: u32 = OpenFlags::CREAT;
const EXCL: u32 = OpenFlags::EXCL;
const TRUNC: u32 = OpenFlags::TRUNC;
const APPEND: u32 = OpenFlags::APPEND;
const WRONLY: u32 = 1;
const RDWR: u32 = 2;

/// A directory `top` with the shared directory `top/in` and what must not be reached, `top/out/secret`.
struct World {
    top: tempfile::TempDir,
    host: Host,
    root: Arc<dyn File>,
}

fn world_with(config: HostConfig) -> World {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir(top.path().join("in")).unwrap();
    std::fs::create_dir(top.path().join("out")).unwrap();
    std::fs::write(top.path().join("out/secret"), "secret\n").unwrap();
    let host = Host::open(&top.path().join("in"), config).unwrap();
    let root = host.root();
    World { top, host, root }
}

fn world() -> World {
    world_with(HostConfig::default())
}

impl World {
    fn path(&self, below: &str) -> PathBuf {
        self.top.path().join("in").join(below)
    }

    fn put(&self, below: &str, text: &str) {
        std::fs::write(self.path(below), text).unwrap();
    }

    fn text(&self, below: &str) -> String {
        std::fs::read_to_string(self.path(below)).unwrap_or_else(|e| format!("! {:?}", e.kind()))
    }

    async fn at(&self, path: &str) -> Result<Arc<dyn File>> {
        self.root.walk(&Name::path(path).unwrap()).await.end
    }

    async fn open(&self, path: &str, flags: u32) -> Result<Arc<dyn OpenFile>> {
        self.at(path).await?.open(OpenFlags(flags)).await
    }

    async fn create(&self, name: &str, flags: u32, mode: u32) -> Result<Created> {
        self.root.create(&n(name), OpenFlags(flags | CREAT), mode).await
    }

    async fn attr(&self, path: &str) -> Attr {
        self.at(path).await.unwrap().getattr().await.unwrap()
    }

    async fn ls(&self) -> Vec<String> {
        let open = self.root.open(OpenFlags::RDONLY).await.unwrap();
        let mut names: Vec<String> = list(&*open, 7).await.iter().map(|n| n.to_string()).collect();
        names.sort();
        names
    }
}

/// Every name of an open directory, so many at a time.
async fn list(open: &dyn OpenFile, at_once: usize) -> Vec<Name> {
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let entries = open.readdir(cookie, at_once).await.unwrap();
        let Some(last) = entries.last() else { return names };
        assert!(entries.len() <= at_once && last.cookie != 0);
        cookie = last.cookie;
        names.extend(entries.into_iter().map(|e| e.name));
    }
}

fn n(name: &str) -> Name {
    Name::walk(name.to_owned()).unwrap()
}

fn kind<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|e| e.kind())
}

async fn read(open: &dyn OpenFile) -> String {
    String::from_utf8(open.read(0, 1 << 20).await.unwrap().to_vec()).unwrap()
}

fn size(size: u64) -> SetAttr {
    SetAttr { size: Some(size), ..SetAttr::default() }
}

fn mode(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

#[tokio::test]
async fn no_walk_leads_out() {
    let w = world();
    std::fs::create_dir(w.path("d")).unwrap();
    w.put("file", "text");
    let out = w.top.path().join("out");
    symlink(&out, w.path("absolute")).unwrap();
    symlink("../out", w.path("relative")).unwrap();
    symlink("../../out/secret", w.path("d/deep")).unwrap();
    symlink("/proc/self/root", w.path("magic")).unwrap();
    symlink("loop", w.path("loop")).unwrap();
    for (path, outcome) in [
        ("..", Ok(true)),
        ("../..", Ok(true)),
        ("d/../..", Ok(true)),
        ("../out", Err(Kind::NotFound)),
        ("d/../../out/secret", Err(Kind::NotFound)),
        ("absolute/secret", Err(Kind::NotDir)),
        ("relative/secret", Err(Kind::NotDir)),
        ("magic/etc", Err(Kind::NotDir)),
        ("file/..", Err(Kind::NotDir)),
        ("file/x", Err(Kind::NotDir)),
        ("absolute", Ok(false)),
        ("loop", Ok(false)),
    ] {
        let got = w.at(path).await.map(|f| f.qid() == w.root.qid()).map_err(|e| e.kind());
        assert_eq!(got, outcome, "{path}");
    }
    for link in ["absolute", "relative", "d/deep", "magic", "loop"] {
        let file = w.at(link).await.unwrap();
        assert!(file.qid().is_symlink(), "{link}");
        assert_eq!(file.getattr().await.unwrap().mode & Attr::TYPE, Attr::SYMLINK, "{link}");
        assert_eq!(kind(file.open(OpenFlags::RDONLY).await), Some(Kind::Loop), "{link}");
        assert_eq!(kind(file.walk(&[n("secret")]).await.end), Some(Kind::NotDir), "{link}");
        assert_eq!(kind(file.setattr(size(0)).await), Some(Kind::Invalid), "{link}");
    }
    assert_eq!(w.at("d/deep").await.unwrap().readlink().await.unwrap(), "../../out/secret");
    assert_eq!(kind(w.at("file").await.unwrap().readlink().await), Some(Kind::Invalid));
    for link in ["absolute", "relative"] {
        assert_eq!(kind(w.create(link, WRONLY | TRUNC, 0o644).await), Some(Kind::Loop), "{link}");
    }
    assert_eq!(std::fs::read_to_string(out.join("secret")).unwrap(), "secret\n");
    assert_eq!(kind(w.host.attach(&Caller::none(), "/etc").await), Some(Kind::NotFound));
}

#[tokio::test]
async fn no_change_leads_out() {
    let w = world();
    w.put("file", "text");
    symlink("../out", w.path("link")).unwrap();
    let (link, file) = (w.at("link").await.unwrap(), w.at("file").await.unwrap());
    let other = world();
    for (what, got) in [
        ("create ..", kind(w.create("..", WRONLY, 0o644).await)),
        ("mkdir ..", kind(w.root.mkdir(&n(".."), 0o755).await)),
        ("symlink ..", kind(w.root.symlink(&n(".."), b"x").await)),
        ("unlink ..", kind(w.root.unlink(&n(".."), true).await)),
        ("rename from ..", kind(w.root.rename(&n(".."), &w.root, &n("x")).await)),
        ("rename to ..", kind(w.root.rename(&n("file"), &w.root, &n("..")).await)),
        ("link as ..", kind(w.root.link(&n(".."), &file).await)),
    ] {
        assert_eq!(got, Some(Kind::Invalid), "{what}");
    }
    for (what, got, expect) in [
        ("create under a link", kind(link.create(&n("x"), OpenFlags(WRONLY | CREAT), 0o644).await), Kind::NotDir),
        ("mkdir under a link", kind(link.mkdir(&n("x"), 0o755).await), Kind::NotDir),
        ("unlink under a link", kind(link.unlink(&n("secret"), false).await), Kind::NotDir),
        ("rename under a link", kind(w.root.rename(&n("file"), &link, &n("x")).await), Kind::NotDir),
        ("link to another host", kind(other.root.link(&n("x"), &file).await), Kind::CrossDevice),
        ("rename to another host", kind(w.root.rename(&n("file"), &other.root, &n("x")).await), Kind::CrossDevice),
        ("remove the root", kind(w.root.remove().await), Kind::Busy),
        ("rename the root", kind(w.root.rename_self(None, &n("x")).await), Kind::Busy),
    ] {
        assert_eq!(got, Some(expect), "{what}");
    }
    let names: Vec<_> = std::fs::read_dir(w.top.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(w.ls().await, ["file", "link"]);
}

/// A name that turns from a directory into a link leading out and back, as fast as the host can, while it is walked.
#[test]
fn a_race_with_a_link_leads_nowhere() {
    let w = world();
    std::fs::create_dir(w.path("a")).unwrap();
    w.put("a/secret", "inside");
    symlink("../out", w.path("b")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (a, b, halt) = (w.path("a"), w.path("b"), stop.clone());
    let swapper = std::thread::spawn(move || {
        while !halt.load(Ordering::Relaxed) {
            nix::fcntl::renameat2(
                nix::fcntl::AT_FDCWD,
                &a,
                nix::fcntl::AT_FDCWD,
                &b,
                nix::fcntl::RenameFlags::RENAME_EXCHANGE,
            )
            .unwrap();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut found, mut refused) = (0, 0);
    runtime.block_on(async {
        for round in 0..20_000 {
            match w.open("a/secret", 0).await {
                Ok(open) => {
                    assert_eq!(read(&*open).await, "inside");
                    found += 1;
                }
                Err(e) => {
                    assert!(matches!(e.kind(), Kind::NotDir | Kind::Stale | Kind::NotFound), "{e:?}");
                    refused += 1;
                }
            }
            if round > 2_000 && found > 100 && refused > 100 {
                break;
            }
        }
    });
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(found > 0 && refused > 0, "the race was run: {found} found, {refused} refused");
}

#[tokio::test]
async fn a_directory_carried_out_does_not_show_its_new_surroundings() {
    let w = world();
    std::fs::create_dir_all(w.path("a/b")).unwrap();
    let b = w.at("a/b").await.unwrap();
    std::fs::rename(w.path("a/b"), w.top.path().join("out/b")).unwrap();
    let up = b.walk(&[n(".."), n("secret")]).await;
    assert_eq!((up.qids.len(), kind(up.end)), (1, Some(Kind::NotFound)));
    assert_eq!(up.qids[0].path, w.at("a").await.unwrap().qid().path);
}

#[tokio::test]
async fn read_only() {
    let w = world_with(HostConfig { readonly: true, ..HostConfig::default() });
    w.put("file", "text");
    std::fs::create_dir(w.path("d")).unwrap();
    let file = w.at("file").await.unwrap();
    for (what, got) in [
        ("write", kind(w.open("file", WRONLY).await)),
        ("read and write", kind(w.open("file", RDWR).await)),
        ("cut", kind(w.open("file", TRUNC).await)),
        ("create", kind(w.create("new", WRONLY, 0o644).await)),
        ("create to read", kind(w.create("new", 0, 0o644).await)),
        ("create over", kind(w.create("file", WRONLY | TRUNC, 0o644).await)),
        ("mkdir", kind(w.root.mkdir(&n("new"), 0o755).await)),
        ("symlink", kind(w.root.symlink(&n("new"), b"file").await)),
        ("link", kind(w.root.link(&n("new"), &file).await)),
        ("unlink", kind(w.root.unlink(&n("file"), false).await)),
        ("rmdir", kind(w.root.unlink(&n("d"), true).await)),
        ("remove", kind(file.remove().await)),
        ("rename", kind(w.root.rename(&n("file"), &w.root, &n("new")).await)),
        ("rename self", kind(file.rename_self(None, &n("new")).await)),
        ("chmod", kind(file.setattr(mode(0o600)).await)),
        ("truncate", kind(file.setattr(size(0)).await)),
        ("touch", kind(file.setattr(SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() }).await)),
    ] {
        assert_eq!(got, Some(Kind::ReadOnly), "{what}");
    }
    assert_eq!(kind(w.create("file", WRONLY | EXCL, 0o644).await), Some(Kind::Exists));
    assert_eq!(
        read(&*w.create("file", 0, 0o644).await.unwrap().open).await,
        "text",
        "to read what is there is no change"
    );
    assert_eq!((w.text("file"), w.ls().await.join(" ")), ("text".into(), "d file".into()));
}

#[tokio::test]
async fn files() {
    let w = world();
    let Created { file, open } = w.create("f", RDWR | EXCL, 0o666).await.unwrap();
    assert_eq!(open.write(0, "hello world".into()).await.unwrap(), 11);
    assert_eq!(open.read(6, 3).await.unwrap(), "wor");
    assert_eq!(open.read(11, 100).await.unwrap(), "");
    assert_eq!(open.read(u64::MAX, 9).await.unwrap(), "");
    assert_eq!(kind(open.write(u64::MAX, "x".into()).await), Some(Kind::TooBig));
    open.fsync(false).await.unwrap();
    open.fsync(true).await.unwrap();
    assert_eq!(w.text("f"), "hello world");
    let attr = file.getattr().await.unwrap();
    let meta = std::fs::metadata(w.path("f")).unwrap();
    assert_eq!((attr.mode, attr.size, attr.nlink), (0o100666, 11, 1), "the umask is the caller's");
    assert_eq!(
        (attr.uid, attr.gid, attr.mtime),
        (meta.uid(), meta.gid(), Time { sec: meta.mtime(), nsec: meta.mtime_nsec() as u32 })
    );
    assert_eq!(attr.qid.path, w.at("f").await.unwrap().qid().path);
    assert_ne!(attr.qid.version, 0, "a real file can be cached");
    assert_eq!(kind(w.open("f", WRONLY).await.unwrap().read(0, 1).await), Some(Kind::BadFile));
    assert_eq!(kind(w.open("f", 0).await.unwrap().write(0, "x".into()).await), Some(Kind::BadFile));
    for (name, flags, expect) in
        [("f", WRONLY | EXCL, Some(Kind::Exists)), ("f", 0, None), ("f/x", 0, Some(Kind::Invalid)), ("g", 0, None)]
    {
        let made = match Name::new(name) {
            Ok(name) => kind(w.root.create(&name, OpenFlags(flags | CREAT), 0o600).await),
            Err(e) => Some(e.kind()),
        };
        assert_eq!(made, expect, "{name}");
    }
    assert_eq!(w.text("f"), "hello world", "opened, not cut");
    drop(w.open("f", WRONLY | TRUNC).await.unwrap());
    assert_eq!(w.text("f"), "");
    for (path, flags, expect) in
        [("", WRONLY, Kind::IsDir), ("", TRUNC, Kind::IsDir), ("f", OpenFlags::DIRECTORY, Kind::NotDir)]
    {
        assert_eq!(kind(w.open(path, flags).await), Some(expect), "{path} {flags:o}");
    }
    assert_eq!(kind(w.at("none").await), Some(Kind::NotFound));
}

#[tokio::test]
async fn append_goes_to_the_end() {
    let w = world();
    w.put("log", "one\n");
    let (a, b) = (w.open("log", WRONLY | APPEND).await.unwrap(), w.open("log", WRONLY | APPEND).await.unwrap());
    a.write(0, "two\n".into()).await.unwrap();
    b.write(0, "three\n".into()).await.unwrap();
    a.write(99, "four\n".into()).await.unwrap();
    assert_eq!(w.text("log"), "one\ntwo\nthree\nfour\n");
}

#[tokio::test]
async fn a_hole_reads_as_zeroes() {
    let w = world();
    let open = w.create("sparse", RDWR, 0o600).await.unwrap().open;
    open.write(1 << 32, "end".into()).await.unwrap();
    let attr = w.attr("sparse").await;
    assert_eq!((attr.size, attr.blocks < 1000), ((1 << 32) + 3, true));
    assert_eq!(open.read((1 << 32) - 2, 9).await.unwrap(), "\0\0end");
    assert_eq!(open.read(4096, 8).await.unwrap(), "\0".repeat(8));
}

#[tokio::test]
async fn large_reads_and_writes_are_whole() {
    let w = world();
    let data: Bytes = (0..3_000_000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    let open = w.create("big", RDWR, 0o600).await.unwrap().open;
    let mut at = 0;
    while at < data.len() {
        at += open.write(at as u64, data.slice(at..)).await.unwrap() as usize;
    }
    let mut back = Vec::new();
    loop {
        let part = open.read(back.len() as u64, u32::MAX).await.unwrap();
        if part.is_empty() {
            break;
        }
        assert!(
            part.len() == open.iounit() as usize || back.len() + part.len() == data.len(),
            "only the last is short"
        );
        back.extend(part);
    }
    assert!(back == data);
}

#[tokio::test]
async fn an_unlinked_file_works_while_it_is_open() {
    let w = world();
    w.put("f", "text");
    let file = w.at("f").await.unwrap();
    let open = file.open(OpenFlags::RDWR).await.unwrap();
    w.root.unlink(&n("f"), false).await.unwrap();
    assert_eq!(kind(w.at("f").await), Some(Kind::NotFound));
    open.write(4, " more".into()).await.unwrap();
    assert_eq!(read(&*open).await, "text more");
    let attr = file.getattr().await.unwrap();
    assert_eq!((attr.nlink, attr.size), (0, 9));
    file.setattr(size(2)).await.unwrap();
    file.setattr(mode(0o400)).await.unwrap();
    assert_eq!(read(&*open).await, "te");
    w.put("f", "another");
    assert_ne!(w.at("f").await.unwrap().qid().path, file.qid().path);
    assert_eq!(kind(file.remove().await), Some(Kind::NotFound), "the name is another file's now");
    assert_eq!(w.text("f"), "another");
}

#[tokio::test]
async fn a_file_can_be_cut_through_its_writer_after_its_mode_forbids() {
    let w = world();
    let made = w.create("f", RDWR, 0o400).await.unwrap();
    made.open.write(0, "text".into()).await.unwrap();
    made.file.setattr(size(2)).await.unwrap();
    assert_eq!(w.text("f"), "te");
}

#[tokio::test]
async fn renames() {
    let w = world();
    w.put("a", "a");
    w.put("b", "b");
    std::fs::create_dir_all(w.path("d/e")).unwrap();
    std::fs::create_dir(w.path("empty")).unwrap();
    let old = w.open("b", 0).await.unwrap();
    w.root.rename(&n("a"), &w.root, &n("b")).await.unwrap();
    assert_eq!((read(&*old).await, w.text("b")), ("b".into(), "a".into()), "what is open outlives the name");
    let (d, e) = (w.at("d").await.unwrap(), w.at("d/e").await.unwrap());
    for (from, old, to, new, expect) in [
        (&w.root, "b", &d, "b", None),
        (&w.root, "none", &d, "x", Some(Kind::NotFound)),
        (&w.root, "d", &e, "x", Some(Kind::Invalid)),
        (&w.root, "empty", &w.root, "d", Some(Kind::NotEmpty)),
        (&d, "b", &w.root, "empty", Some(Kind::IsDir)),
        (&w.root, "empty", &d, "e", None),
        (&w.root, "d", &d, "b", Some(Kind::Invalid)),
    ] {
        assert_eq!(kind(from.rename(&n(old), to, &n(new)).await), expect, "{old} {new}");
    }
    let b = w.at("d/b").await.unwrap();
    b.rename_self(None, &n("c")).await.unwrap();
    b.rename_self(Some(&w.root), &n("c")).await.unwrap();
    assert_eq!(w.text("c"), "a");
    b.remove().await.unwrap();
    assert_eq!(w.ls().await, ["d"]);
    w.at("d/e").await.unwrap().remove().await.unwrap();
    assert_eq!(kind(w.root.unlink(&n("d"), false).await), Some(Kind::IsDir));
    w.root.unlink(&n("d"), true).await.unwrap();
    assert_eq!(w.ls().await, [] as [&str; 0]);
}

#[tokio::test]
async fn links() {
    let w = world();
    w.put("f", "text");
    let file = w.at("f").await.unwrap();
    w.root.link(&n("g"), &file).await.unwrap();
    assert_eq!((w.attr("g").await.nlink, w.at("g").await.unwrap().qid().path), (2, file.qid().path));
    assert_eq!(kind(w.root.link(&n("g"), &file).await), Some(Kind::Exists));
    let link = w.root.symlink(&n("s"), b"\xff/../x").await.unwrap();
    assert_eq!(&link.readlink().await.unwrap()[..], b"\xff/../x");
    assert_eq!(kind(w.root.symlink(&n("s"), b"x").await), Some(Kind::Exists));
    w.root.link(&n("t"), &link).await.unwrap();
    assert_eq!(std::fs::read_link(w.path("t")).unwrap().as_os_str(), OsStr::from_bytes(b"\xff/../x"));
    assert_eq!(kind(w.root.link(&n("r"), &w.root).await), Some(Kind::NotPermitted));
}

#[tokio::test]
async fn attributes_change_all_or_none() {
    let w = world();
    w.put("f", "text");
    let file = w.at("f").await.unwrap();
    let then = Time { sec: 1_000_000_000, nsec: 5 };
    let set = SetAttr { mode: Some(0o640), size: Some(2), mtime: Some(SetTime::To(then)), ..SetAttr::default() };
    file.setattr(set).await.unwrap();
    let attr = file.getattr().await.unwrap();
    assert_eq!((attr.mode, attr.size, attr.mtime), (0o100640, 2, then));
    let before = attr;
    let refused = SetAttr { mode: Some(0o600), size: Some(u64::MAX), mtime: Some(SetTime::Now), ..SetAttr::default() };
    assert_eq!(kind(file.setattr(refused).await), Some(Kind::TooBig));
    let attr = file.getattr().await.unwrap();
    assert_eq!((attr.mode, attr.size, attr.mtime), (before.mode, before.size, before.mtime));
    assert_eq!(kind(w.root.setattr(size(0)).await), Some(Kind::IsDir));
    file.setattr(mode(0o6755)).await.unwrap();
    assert_eq!(w.attr("f").await.mode, 0o100755, "no set-id bits");
    assert_eq!(w.create("suid", WRONLY, 0o4777).await.unwrap().file.getattr().await.unwrap().mode, 0o100777);
    std::fs::create_dir(w.path("group")).unwrap();
    std::fs::set_permissions(w.path("group"), std::fs::Permissions::from_mode(0o2755)).unwrap();
    w.at("group").await.unwrap().setattr(mode(0o777)).await.unwrap();
    assert_eq!(w.attr("group").await.mode, 0o042777, "a directory's group inheritance stays");
    assert_eq!(w.root.mkdir(&n("d"), 0o777).await.unwrap().getattr().await.unwrap().mode, 0o040777);
}

#[tokio::test]
async fn versions_tell_changes() {
    let w = world();
    w.put("f", "text");
    let mut seen = HashSet::from([w.attr("f").await.qid.version]);
    for change in ["other text", "x", ""] {
        w.put("f", change);
        assert!(seen.insert(w.attr("f").await.qid.version), "{change:?}");
    }
    // Two changes within one tick of the host's clock are one: this one is not in the tick of the next.
    std::fs::File::open(w.path("")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let dir = w.attr("").await.qid.version;
    assert_eq!(w.attr("").await.qid.version, dir);
    std::fs::create_dir(w.path("d")).unwrap();
    assert_ne!(w.attr("").await.qid.version, dir);
    assert!(!seen.contains(&0) && dir != 0);
}

#[tokio::test]
async fn an_open_sees_the_version_of_what_it_opens() {
    let w = world();
    w.put("f", "text");
    let file = w.at("f").await.unwrap();
    let before = file.qid();
    w.put("f", "longer text");
    assert_eq!(file.qid(), before, "as last seen");
    let open = file.open(OpenFlags::RDONLY).await.unwrap();
    assert_ne!(file.qid().version, before.version);
    assert_eq!(read(&*open).await, "longer text");
}

#[tokio::test]
async fn what_is_no_file_is_shown_and_not_served() {
    let w = world();
    nix::unistd::mkfifo(&w.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(w.path("socket")).unwrap();
    for (name, ty) in [("fifo", 0o010000), ("socket", 0o140000)] {
        assert_eq!(w.attr(name).await.mode & Attr::TYPE, ty, "{name}");
        for flags in [0, WRONLY, RDWR] {
            assert_eq!(kind(w.open(name, flags).await), Some(Kind::Denied), "{name}");
            assert_eq!(kind(w.create(name, flags, 0o600).await), Some(Kind::Denied), "{name}");
        }
    }
}

#[tokio::test]
async fn what_the_kernel_makes_up_is_never_cached() {
    let host = Host::open(Path::new("/proc/self"), HostConfig::default()).unwrap();
    let status = host.root().walk(&[n("status")]).await.end.unwrap();
    assert_eq!(status.getattr().await.unwrap().qid.version, 0);
    assert!(read(&*status.open(OpenFlags::RDONLY).await.unwrap()).await.starts_with("Name:"));
    let exe = host.root().walk(&[n("exe"), n("x")]).await;
    assert_eq!((exe.qids.len(), kind(exe.end)), (1, Some(Kind::NotDir)), "a magic link is a link");
    assert_eq!(kind(host.root().walk(&[n("root"), n("etc")]).await.end), Some(Kind::NotDir));
}

#[tokio::test]
async fn a_forbidden_mount_is_not_entered() {
    let forbid = vec![PathBuf::from("/proc")];
    let config = || HostConfig { forbid: forbid.clone(), ..HostConfig::default() };
    assert_eq!(kind(Host::open(Path::new("/proc"), config())), Some(Kind::Denied));
    assert_eq!(kind(Host::open(Path::new("/proc/self/fd"), config())), Some(Kind::Denied));
    let w = world();
    symlink("/proc/self", w.path("way")).unwrap();
    assert_eq!(kind(Host::open(&w.path("way"), config())), Some(Kind::Denied));
    assert!(Host::open(&w.path("way"), HostConfig::default()).is_ok());
    let host = Host::open(Path::new("/"), config()).unwrap();
    assert_eq!(kind(host.root().walk(&[n("proc")]).await.end), Some(Kind::Denied));
    let root = host.root().open(OpenFlags::RDONLY).await.unwrap();
    assert!(list(&*root, 100).await.iter().all(|name| name.as_bytes() != b"proc"));
}

#[test]
fn only_a_directory_is_served() {
    let w = world();
    w.put("f", "");
    symlink("loop", w.path("loop")).unwrap();
    symlink("../in/./..//out", w.path("out")).unwrap();
    for (path, expect) in
        [("f", Some(Kind::NotDir)), ("none", Some(Kind::NotFound)), ("loop", Some(Kind::Loop)), ("out", None)]
    {
        assert_eq!(kind(Host::open(&w.path(path), HostConfig::default())), expect, "{path}");
    }
    let straight = || HostConfig { links_max: 0, ..HostConfig::default() };
    assert_eq!(kind(Host::open(&w.path("out"), straight())), Some(Kind::Loop), "a link where none is allowed");
    assert!(Host::open(&w.path("").canonicalize().unwrap(), straight()).is_ok());
}

#[tokio::test]
async fn names_are_bytes() {
    let w = world();
    let odd: Vec<Vec<u8>> = vec![
        b"\xff\xfe".to_vec(),
        b"a\nb".to_vec(),
        b" ".to_vec(),
        b"...".to_vec(),
        b"-rf".to_vec(),
        vec![b'x'; 255],
        vec![0xcc; 255],
    ];
    for name in &odd {
        let name = Name::new(name.clone()).unwrap();
        w.root.create(&name, OpenFlags(WRONLY | CREAT | EXCL), 0o600).await.unwrap();
        w.root.walk(std::slice::from_ref(&name)).await.end.unwrap().getattr().await.unwrap();
    }
    let open = w.root.open(OpenFlags::RDONLY).await.unwrap();
    let listed: HashSet<Vec<u8>> = list(&*open, 3).await.iter().map(|n| n.as_bytes().to_vec()).collect();
    assert_eq!(listed, odd.iter().cloned().collect());
    for name in odd {
        w.root.unlink(&Name::new(name).unwrap(), false).await.unwrap();
    }
}

#[tokio::test]
async fn directories_listed_in_parts() {
    let w = world();
    let all: HashSet<String> = (0..3000).map(|i| format!("file {i}")).collect();
    all.iter().for_each(|name| w.put(name, ""));
    let open = w.root.open(OpenFlags::RDONLY).await.unwrap();
    for at_once in [1usize, 7, 1000, 100_000] {
        let names = list(&*open, at_once).await;
        assert_eq!(names.len(), all.len(), "each once");
        assert_eq!(names.iter().map(|n| n.to_string()).collect::<HashSet<_>>(), all);
    }
    let entries = open.readdir(0, 500).await.unwrap();
    let again = open.readdir(entries[99].cookie, 10).await.unwrap();
    let names = |list: &[fs_ninep::DirEntry]| list.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&again), names(&entries[100..110]), "a cookie can be used again");
    for e in &entries[..50] {
        let file = w.root.walk(std::slice::from_ref(&e.name)).await.end.unwrap();
        assert_eq!((e.qid, e.attr.clone().unwrap()), (file.qid(), file.getattr().await.unwrap()));
    }
    let end = list_end(&*open).await;
    for _ in 0..2 {
        assert!(open.readdir(end, 10).await.unwrap().is_empty(), "the end is repeatable");
    }
    w.put("late", "");
    assert_eq!(list(&*open, 100).await.len(), all.len() + 1, "rewinding lists anew");
    assert!(open.readdir(0, 0).await.unwrap().is_empty());
}

async fn list_end(open: &dyn OpenFile) -> u64 {
    let mut cookie = 0;
    while let Some(last) = open.readdir(cookie, 1000).await.unwrap().last() {
        cookie = last.cookie;
    }
    cookie
}

#[tokio::test]
async fn removing_while_listing_misses_nothing() {
    let w = world();
    (0..500).for_each(|i| w.put(&format!("f{i}"), ""));
    let open = w.root.open(OpenFlags::RDONLY).await.unwrap();
    let mut cookie = 0;
    loop {
        let entries = open.readdir(cookie, 20).await.unwrap();
        let Some(last) = entries.last() else { break };
        cookie = last.cookie;
        for entry in entries {
            w.root.unlink(&entry.name, false).await.unwrap();
        }
    }
    assert_eq!(w.ls().await.len(), 0);
}

/// Deeper than any path string can say, and let go without a recursion as deep.
#[tokio::test]
async fn deeper_than_a_path() {
    let w = world_with(HostConfig { handles_max: 16, ..HostConfig::default() });
    let name = n(&"d".repeat(100));
    let mut here = w.root.clone();
    for _ in 0..300 {
        here = here.mkdir(&name, 0o755).await.unwrap();
    }
    let made = here.create(&n("leaf"), OpenFlags(RDWR | CREAT), 0o600).await.unwrap();
    made.open.write(0, "deep".into()).await.unwrap();
    drop((here, made));
    let mut path = vec![name.clone(); 300];
    path.push(n("leaf"));
    let leaf = w.root.walk(&path).await.end.unwrap();
    for _ in 0..40 {
        w.root.walk(&[name.clone(), name.clone()]).await.end.unwrap();
    }
    assert_eq!(read(&*leaf.open(OpenFlags::RDONLY).await.unwrap()).await, "deep");
    let mut up = leaf.walk(&[]).await.end.unwrap();
    up.remove().await.unwrap();
    up = w.root.walk(&path[..300]).await.end.unwrap();
    for _ in 0..300 {
        let above = up.walk(&[n("..")]).await.end.unwrap();
        above.unlink(&name, true).await.unwrap();
        up = above;
    }
    assert_eq!(up.qid().path, w.root.qid().path);
}

#[tokio::test]
async fn depth_has_a_limit() {
    let w = world();
    let mut here = w.root.clone();
    let refused = loop {
        match here.mkdir(&n("d"), 0o755).await {
            Ok(below) => here = below,
            Err(e) => break e.kind(),
        }
    };
    assert_eq!(refused, Kind::NameTooLong);
    assert_eq!(kind(here.create(&n("f"), OpenFlags(CREAT), 0o600).await), Some(Kind::NameTooLong));
    assert_eq!(kind(here.symlink(&n("s"), b"x").await), Some(Kind::NameTooLong));
    assert!(list(&*here.open(OpenFlags::RDONLY).await.unwrap(), 9).await.is_empty(), "nothing was made");
    for _ in 0..fs_host::DEPTH_MAX {
        let above = here.walk(&[n("..")]).await.end.unwrap();
        above.unlink(&n("d"), true).await.unwrap();
        here = above;
    }
    assert_eq!(here.qid().path, w.root.qid().path);
}

#[tokio::test]
async fn handles_outlive_their_descriptors() {
    let w = world_with(HostConfig { handles_max: 4, ..HostConfig::default() });
    for i in 0..50 {
        w.put(&format!("f{i}"), &format!("text {i}"));
    }
    let mut files = Vec::new();
    for i in 0..50 {
        files.push(w.at(&format!("f{i}")).await.unwrap());
    }
    for (i, file) in files.iter().enumerate() {
        assert_eq!(read(&*file.open(OpenFlags::RDONLY).await.unwrap()).await, format!("text {i}"));
    }
    for file in &files {
        assert_eq!(file.getattr().await.unwrap().nlink, 1);
    }
    let open = files[0].open(OpenFlags::RDWR).await.unwrap();
    for i in 0..50 {
        w.root.unlink(&n(&format!("f{i}")), false).await.unwrap();
    }
    for i in 0..50 {
        w.put(&format!("f{i}"), "another");
        w.at(&format!("f{i}")).await.unwrap();
    }
    assert_eq!(files[0].getattr().await.unwrap().nlink, 0, "one that is open is never let go");
    assert_eq!(read(&*open).await, "text 0");
    let stale = futures_count(&files[1..]).await;
    assert!(stale > 40, "the others are another file's name now, and say so: {stale}");
}

async fn futures_count(files: &[Arc<dyn File>]) -> usize {
    let mut stale = 0;
    for file in files {
        match file.getattr().await {
            Ok(attr) => assert_eq!(attr.nlink, 0, "not the file that took its name"),
            Err(e) => {
                assert_eq!(e.kind(), Kind::Stale);
                stale += 1;
            }
        }
    }
    stale
}

#[tokio::test]
async fn open_files_are_counted() {
    let w = world_with(HostConfig { open_max: 3, ..HostConfig::default() });
    w.put("f", "");
    let mut open = vec![w.open("f", 0).await.unwrap(), w.open("", 0).await.unwrap()];
    open.push(w.create("g", WRONLY, 0o600).await.unwrap().open);
    for flags in [0, WRONLY] {
        assert_eq!(kind(w.open("f", flags).await), Some(Kind::TooManyFiles));
        assert_eq!(kind(w.create("h", flags, 0o600).await), Some(Kind::TooManyFiles));
    }
    assert_eq!(w.ls_names(), ["f", "g"], "nothing was made for it");
    open.pop();
    w.open("f", 0).await.unwrap();
}

impl World {
    fn ls_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn growth_is_limited() {
    let w = world_with(HostConfig { bytes_max: Some(100), ..HostConfig::default() });
    w.put("old", &"x".repeat(1000));
    let used = |expect: u64, what: &str| assert_eq!(w.host.bytes_used(), expect, "{what}");
    let bytes = |n: usize| Bytes::from(vec![b'y'; n]);
    let a = w.create("a", RDWR, 0o600).await.unwrap();
    a.open.write(0, bytes(60)).await.unwrap();
    used(60, "a write past the end");
    a.open.write(10, bytes(50)).await.unwrap();
    used(60, "a write within");
    assert_eq!(kind(a.open.write(60, bytes(41)).await), Some(Kind::Exhausted));
    assert_eq!(kind(a.open.write(200, bytes(1)).await), Some(Kind::Exhausted), "a hole counts");
    assert_eq!(kind(a.file.setattr(size(101)).await), Some(Kind::Exhausted));
    assert_eq!((w.attr("a").await.size, w.host.bytes_used()), (60, 60), "a refused write changes nothing");
    a.file.setattr(size(90)).await.unwrap();
    used(90, "truncate up");
    a.file.setattr(size(20)).await.unwrap();
    used(20, "truncate down");
    let old = w.open("old", WRONLY | APPEND).await.unwrap();
    old.write(0, bytes(80)).await.unwrap();
    used(100, "append");
    assert_eq!(kind(old.write(0, bytes(1)).await), Some(Kind::Exhausted));
    drop(old);
    drop(w.open("a", WRONLY | TRUNC).await.unwrap());
    used(80, "opened to be cut");
    a.open.write(0, bytes(20)).await.unwrap();
    w.root.unlink(&n("a"), false).await.unwrap();
    used(100, "unlinked and open");
    a.open.write(20, Bytes::new()).await.unwrap();
    drop(a);
    used(80, "unlinked and closed");
    w.root.unlink(&n("old"), false).await.unwrap();
    used(0, "removing what was there earns nothing below 0");
    let b = w.create("b", WRONLY, 0o600).await.unwrap();
    b.open.write(0, bytes(100)).await.unwrap();
    drop(b);
    w.put("c", "");
    w.root.rename(&n("c"), &w.root, &n("b")).await.unwrap();
    used(0, "replaced by a rename");
    assert_eq!(w.root.statfs().await.unwrap().bavail, 0, "less than a block is left");
}

#[tokio::test]
async fn overlapping_growth_is_counted_once() {
    let w = world_with(HostConfig { bytes_max: Some(1 << 20), ..HostConfig::default() });
    let open = w.create("f", WRONLY, 0o600).await.unwrap().open;
    let writes = (0..64u64).rev().map(|i| {
        let open = open.clone();
        tokio::spawn(async move { open.write(i * 4096, Bytes::from(vec![1; 4096])).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    assert_eq!((w.attr("f").await.size, w.host.bytes_used()), (64 * 4096, 64 * 4096));
}

#[tokio::test]
async fn figures_of_the_file_system() {
    let w = world();
    let (fs, own) = (w.root.statfs().await.unwrap(), nix::sys::statvfs::statvfs(&w.path("")).unwrap());
    assert_eq!((fs.blocks, fs.namelen), (own.blocks(), 255));
    assert!(fs.bavail > 0);
    let readonly = world_with(HostConfig { readonly: true, ..HostConfig::default() });
    assert_eq!(readonly.root.statfs().await.unwrap().bavail, 0);
}
