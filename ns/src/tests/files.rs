//! The root's own files, and the root; what a walk costs.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use fs_ninep::{Caller, Kind, Name, OpenFlags, PeerId, SetAttr, Tree};

use super::mem::Health;
use super::{World, cat, kind, name_of};
use crate::{HEADS_MAX, MEMBERS_MAX, PATH_DEPTH_MAX, TEXT_MAX};

fn world() -> World {
    World::new(&[("a", "x=ax d/e/f/g=1"), ("b", "y=by")])
}

#[tokio::test]
async fn ns_is_read_as_it_was_when_it_was_opened_and_has_its_size() {
    let w = world();
    w.apply("bind #a /a").await;
    let ns = w.file("/ns").await.unwrap();
    let attr = ns.getattr().await.unwrap();
    assert_eq!((attr.size, attr.mode), (w.ns.text().len() as u64, 0o100600));
    let open = ns.open(OpenFlags::RDONLY).await.unwrap();
    w.apply("bind #b /b").await;
    assert_eq!(open.read(0, 4096).await.unwrap(), "bind '#a' /a\n");
    assert_eq!(open.read(5, 4).await.unwrap(), "'#a'");
    assert_eq!(open.read(u64::MAX, 4).await.unwrap(), "");
    assert_eq!(kind(open.write(0, Bytes::from_static(b"clear\n")).await), Kind::BadFile);
    assert_eq!(cat(&ns).await.unwrap(), "bind '#a' /a\nbind '#b' /b\n");
    assert!(ns.getattr().await.unwrap().mtime >= attr.mtime);
}

#[tokio::test]
async fn writes_to_ns() {
    // Each row: the writes of one opening, how the last and the close end, the names bound then.
    let long = format!("bind #a /a\n{}", "# comment\n".repeat(TEXT_MAX / 10));
    type Ends = Result<(), Kind>;
    let rows: [(&[&str], Ends, Ends, &str); 10] = [
        (&["bind #a /a\n"], Ok(()), Ok(()), "a"),
        (&["bind #a /a"], Ok(()), Ok(()), "a"),
        (&["bi", "nd #", "a /a\nbind #b /b"], Ok(()), Ok(()), "a b"),
        (&["bind #a /a\nbend\n"], Err(Kind::Invalid), Ok(()), ""),
        (&["bind #a /a\n", "bend\n"], Err(Kind::Invalid), Ok(()), "a"),
        (&["be", "nd\n", "bind #a /a\n"], Ok(()), Ok(()), "a"),
        (&["bind #a /a\nbind #c /c"], Ok(()), Err(Kind::NotFound), "a"),
        (&["", "\n", "# only this"], Ok(()), Ok(()), ""),
        (&[&long], Err(Kind::MessageTooLong), Ok(()), ""),
        (&["bind #a /a\n", "clear\n"], Ok(()), Ok(()), ""),
    ];
    for (writes, last, close, bound) in rows {
        let w = world();
        let open =
            w.file("/ns").await.unwrap().open(OpenFlags(1 | OpenFlags::TRUNC | OpenFlags::APPEND)).await.unwrap();
        let mut got = Ok(());
        for text in writes {
            let data = Bytes::copy_from_slice(text.as_bytes());
            got = open.write(0, data).await.map(|n| assert_eq!(n as usize, text.len())).map_err(|e| e.kind());
        }
        assert_eq!(got, last, "{writes:?}");
        assert_eq!(open.flush().await.map_err(|e| e.kind()), close, "{writes:?}");
        assert_eq!(open.flush().await, Ok(()), "a second close has nothing left to do");
        let listed = w.ls("/").await.unwrap();
        assert_eq!(listed.strip_prefix("ns error event").unwrap().trim_start(), bound, "{writes:?}");
    }
    let w = world();
    let ns = w.file("/ns").await.unwrap();
    let open = ns.open(OpenFlags::WRONLY).await.unwrap();
    assert_eq!(kind(open.write(0, Bytes::from_static(b"bind #a /\xff\n")).await), Kind::Invalid);
    w.apply("bind #a /a").await;
    ns.setattr(SetAttr { size: Some(0), ..SetAttr::default() }).await.unwrap();
    ns.open(OpenFlags(1 | OpenFlags::TRUNC)).await.unwrap();
    assert_eq!(w.ns.text(), "bind '#a' /a\n", "truncation never clears");
    assert_eq!(kind(ns.setattr(SetAttr { mode: Some(0), ..SetAttr::default() }).await), Kind::NotPermitted);
}

#[tokio::test]
async fn error_tells_each_caller_its_own() {
    let w = world();
    let me = w.ns.attach(&Caller::owner(7), "").await.unwrap();
    let other = w.ns.attach(&Caller::owner(8), "/").await.unwrap();
    let open = me.walk(&[name_of("ns")]).await.end.unwrap().open(OpenFlags::WRONLY).await.unwrap();
    assert_eq!(kind(open.write(0, Bytes::from_static(b"bind /n/bob/cup /cpu\n")).await), Kind::NotFound);
    let error = |root: std::sync::Arc<dyn fs_ninep::File>| async move {
        let file = root.walk(&[name_of("error")]).await.end.unwrap();
        assert_eq!(file.getattr().await.unwrap().size as usize, cat(&file).await.unwrap().len());
        cat(&file).await.unwrap()
    };
    let text = "ns line 1: /n/bob/cup: nothing is bound at /n in this name space\n";
    assert_eq!((error(me.clone()).await, error(other).await), (text.to_owned(), String::new()));
    let file = me.walk(&[name_of("error")]).await.end.unwrap();
    assert_eq!(kind(file.open(OpenFlags::RDWR).await.map(drop)), Kind::Denied);
    for caller in [Caller::none(), Caller::peer(PeerId::new("12D3"))] {
        assert_eq!(kind(w.ns.attach(&caller, "").await.map(drop)), Kind::Denied, "a name space is its owner's");
    }
    assert_eq!(kind(w.ns.attach(&Caller::owner(7), "b").await.map(drop)), Kind::NotFound);
}

#[tokio::test]
async fn event_is_a_line_a_change() {
    let w = world();
    let file = w.file("/event").await.unwrap();
    assert_eq!(file.getattr().await.unwrap().size, 0);
    let open = file.open(OpenFlags::RDONLY).await.unwrap();
    let mut changes = w.ns.changes();
    let first = *changes.borrow_and_update();
    let read = open.read(0, 4096);
    tokio::pin!(read);
    assert!(futures::poll!(&mut read).is_pending());
    w.apply("bind #a a\nbind -a #b a").await;
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), first + 1, "one text, one change");
    assert_eq!(read.await.unwrap(), "bind '#a' /a\nbind -a '#b' /a\n");
    // A dropped read loses nothing; a count too small cuts a line, and the next read goes on.
    drop(open.read(0, 4096));
    w.ns.nomnt();
    w.ns.nomnt();
    assert_eq!(open.read(7, 3).await.unwrap(), "nom");
    assert_eq!(open.read(7, 300).await.unwrap(), "nt\n");
    assert!(w.ns.apply("clear").await.is_err());
    let now = file.open(OpenFlags(OpenFlags::NONBLOCK)).await.unwrap();
    assert_eq!(now.read(0, 300).await.unwrap(), "", "what was refused did not happen");
}

#[tokio::test]
async fn the_root_shows_what_is_bound() {
    let w = world();
    w.apply("bind #a /a\nbind #b/y /y\nbind #b /a/d").await;
    assert_eq!(w.ls("/").await.unwrap(), "ns error event a y");
    assert_eq!(w.cat("/y").await.unwrap(), "by");
    // Entries tell what is mounted there, not what lies under it.
    let dir = w.file("/a").await.unwrap().open(OpenFlags::RDONLY).await.unwrap();
    let entries = dir.readdir(0, 9).await.unwrap();
    let d = entries.iter().find(|e| e.name == name_of("d")).unwrap();
    let b = w.stat("/a/d").await.unwrap().qid;
    assert_eq!((d.qid, d.attr.is_none()), (b, true));
    assert_eq!(super::ls(d.file.as_ref().unwrap()).await.unwrap(), "y");
    let x = entries.iter().find(|e| e.name == name_of("x")).unwrap();
    assert_eq!(cat(x.file.as_ref().unwrap()).await.unwrap(), "ax");
    for path in ["/none", "/ns/x", "/y/x", "/a/none/x"] {
        assert!(matches!(kind(w.cat(path).await), Kind::NotFound | Kind::NotDir), "{path}");
    }
    // A handle from before the binding sees it; one whose mount point goes sees that too.
    let a = w.file("/a").await.unwrap();
    w.apply("bind -b #b /a").await;
    assert_eq!(super::ls(&a).await.unwrap(), "y d x");
    w.apply("unmount /a/d\nunmount #b /a").await;
    assert_eq!(super::ls(&a).await.unwrap(), "d x");
    w.apply("unmount /a").await;
    assert_eq!(kind(super::ls(&a).await), Kind::NotFound);
    assert_eq!(w.ls("/").await.unwrap(), "ns error event y");
}

#[tokio::test]
async fn a_walk_below_a_mount_point_is_one_call() {
    let w = world();
    w.apply("bind #a /a\nbind #b /b").await;
    let calls = || w.mem("a").calls.swap(0, Ordering::Relaxed);
    let root = w.ns.root();
    calls();
    let names = Name::path("a/d/e/f/g").unwrap();
    let walk = root.walk(&names).await;
    assert_eq!((walk.qids.len(), calls()), (5, 1));
    let dir = w.file("/a").await.unwrap();
    assert_eq!(calls(), 0, "a mount point is in the table");
    dir.walk_getattr(&names[1..]).await.unwrap();
    assert_eq!(calls(), 1);
    // A mount point elsewhere below costs nothing, one on the way splits the walk.
    w.apply("bind #b /a/d/e").await;
    calls();
    dir.walk_getattr(&Name::path("x").unwrap()).await.unwrap();
    assert_eq!(calls(), 1);
    assert_eq!(root.walk(&Name::path("a/d/e/y").unwrap()).await.qids.len(), 4);
    assert_eq!(calls(), 1);
    // After a change that does not lie above it, a handle is used as it is.
    let deep = w.file("/a/d").await.unwrap();
    w.apply("unmount /b").await;
    calls();
    deep.getattr().await.unwrap();
    assert_eq!(calls(), 1);
}

#[tokio::test]
async fn tables_have_limits() {
    let w = world();
    let lines = |n: usize| (0..n).map(|i| format!("bind #a /{i}\n")).collect::<String>();
    assert_eq!(kind(w.ns.apply(&lines(HEADS_MAX + 1)).await), Kind::Exhausted);
    w.apply(&lines(HEADS_MAX)).await;
    w.apply("clear\nbind #a /m").await;
    assert_eq!(kind(w.ns.apply(&"bind -a #b /m\n".repeat(MEMBERS_MAX)).await), Kind::Exhausted);
    w.apply(&"bind -a #b /m\n".repeat(MEMBERS_MAX - 1)).await;
    assert_eq!(w.ls("/m").await.unwrap(), "d x y");
    let deep = vec![name_of("d"); PATH_DEPTH_MAX + 1];
    assert!(w.ns.root().walk(&deep).await.end.is_err());
}

#[tokio::test]
async fn a_listing_tells_files_of_different_servers_apart() {
    for bare in [false, true] {
        let w = World::new(&[("a", "x=ax d/y=1"), ("b", "y=by"), ("c", "z=cz")]);
        w.apply("bind #a /m\nbind -a #b /m\nbind #c /m/d\nbind -a #a/d /m/d").await;
        for (_, mem) in &w.mems {
            mem.bare.store(bare, Ordering::Relaxed);
        }
        for dir in ["/m", "/m/d", "/"] {
            let open = w.file(dir).await.unwrap().open(OpenFlags::RDONLY).await.unwrap();
            for entry in open.readdir(0, 99).await.unwrap() {
                let path = format!("{}/{}", dir.trim_end_matches('/'), entry.name);
                let (file, attr) = (w.file(&path).await.unwrap(), w.stat(&path).await.unwrap());
                let told = entry.file.expect(&path);
                assert_eq!((told.server(), told.qid(), entry.qid), (file.server(), file.qid(), file.qid()), "{path}");
                assert!(entry.attr.is_none_or(|a| a == attr), "{path}");
                assert_eq!(told.getattr().await.unwrap(), attr, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_found_while_something_is_bound_is_looked_at_again() {
    let w = World::new(&[("a", "d/x=a"), ("b", "d/x=b"), ("c", "x=c")]);
    for (text, expected) in [("bind -b #b /m", "b"), ("bind #c /m/d", "c"), ("bind #b /m", "b")] {
        w.apply("clear\nbind #a /m").await;
        let dir = w.file("/m").await.unwrap();
        w.mem("a").set(Health::Hangs);
        let names = Name::path("d/x").unwrap();
        let (walk, look) = (dir.walk(&names), dir.walk_getattr(&names[..1]));
        tokio::pin!(walk, look);
        assert!(futures::poll!(&mut walk).is_pending() && futures::poll!(&mut look).is_pending());
        w.mem("a").set(Health::Well);
        w.apply(text).await;
        // Somebody else uses the same handle first.
        dir.walk(&names).await.end.unwrap();
        let (file, (sub, _)) = (walk.await.end.unwrap(), look.await.unwrap());
        assert_eq!(cat(&file).await.unwrap(), expected, "{text}");
        assert_eq!(cat(&sub.walk(&names[1..]).await.end.unwrap()).await.unwrap(), expected, "{text}");
    }
}
