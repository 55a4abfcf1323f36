//! The rules of namespace(6), one test each.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fs_ninep::{Kind, Name, OpenFlags, SetAttr};
use tokio::time::Instant;

use super::mem::Health;
use super::{World, cat, kind, ls, name_of};
use crate::{DEADLINE, RETRY_MAX, RETRY_MIN};

fn world() -> World {
    World::new(&[("a", "x=ax y=ay only/d=ad"), ("b", "x=bx z=bz"), ("c", "z=cz w=cw")])
}

#[tokio::test]
async fn rule_1_a_name_space_is_one_table_and_a_fork_goes_its_own_way() {
    let w = world();
    w.apply("bind '#a' /m\nbind -a '#b' /m").await;
    let fork = World { ns: w.ns.fork(), mems: w.mems.clone() };
    fork.apply("unmount '#b' /m\nbind '#c' /c").await;
    assert_eq!(fork.ls("/").await.unwrap(), "ns error event c m");
    assert_eq!(fork.ls("/m").await.unwrap(), "only x y");
    assert_eq!(w.ls("/").await.unwrap(), "ns error event m");
    assert_eq!(w.ls("/m").await.unwrap(), "only x y z");
    w.ns.nomnt();
    fork.apply("clear").await;
    assert_eq!(fork.ls("/").await.unwrap(), "ns error event");
    assert_eq!(kind(w.ns.fork().apply("clear").await), Kind::NotPermitted, "a fork is as locked as its origin");
}

#[tokio::test]
async fn rule_2_order_replace_and_what_stood_there() {
    for (text, listed, x) in [
        ("bind '#b' /m", "x z", "bx"),
        ("bind '#a' /m\nbind -a '#b' /m", "only x y z", "ax"),
        ("bind '#a' /m\nbind -b '#b' /m", "x z only y", "bx"),
        ("bind '#a' /m\nbind '#b' /m", "x z", "bx"),
        ("bind -a '#b' /m", "x z", "bx"),
        // A union is copied as it is now, in order, and is one member's worth of place.
        ("bind '#a' /m\nbind -a '#b' /m\nbind '#c' /n\nbind -b /m /n\nunmount /m\nbind /n /m", "only x y z w", "ax"),
        ("bind '#a' /u\nbind -a '#b' /u\nbind /u /m\nbind -a '#c' /u", "only x y z", "ax"),
        // Below the root, what stood there joins the union.
        ("bind '#a' /d\nbind -a '#b' /d/only\nbind /d/only /m", "d x z", "bx"),
        ("bind '#a' /d\nbind -b '#b' /d/only\nbind /d/only /m", "x z d", "bx"),
    ] {
        let w = world();
        w.apply(text).await;
        assert_eq!(w.ls("/m").await.unwrap(), listed, "{text}");
        assert_eq!(w.cat("/m/x").await.unwrap(), x, "{text}");
    }
    let w = world();
    w.apply("bind '#a' /m\nbind -a '#b' /m").await;
    for (text, expected) in [
        ("bind -c /m /n", Kind::Invalid),       // -c on a union of several
        ("bind '#a/x' /m", Kind::NotDir),       // a file over a directory
        ("bind '#a' /m/x", Kind::NotDir),       // and the other way round
        ("bind -a '#a/x' /m/x", Kind::Invalid), // a union of files
        ("bind '#a' /m/none", Kind::NotFound),  // only names in the root are made
        ("bind '#a' /none/n", Kind::NotFound),
        ("bind /none /n", Kind::NotFound),
        ("bind '#nobody' /n", Kind::NotFound),
        ("bind '#a' '#b'", Kind::Invalid),
        ("bind '#a' /", Kind::Invalid),
        ("bind / /n", Kind::Invalid),
        ("bind '#a' /ns", Kind::Busy),
        ("bind /error /n", Kind::Busy),
        ("unmount /n", Kind::NotFound),
        ("unmount '#c' /m", Kind::NotFound),
    ] {
        assert_eq!(kind(w.ns.apply(text).await), expected, "{text}");
    }
    w.apply("bind '#a/x' /m/y\nbind '#b/x' /f").await;
    assert_eq!((w.cat("/m/y").await.unwrap(), w.cat("/f").await.unwrap()), ("ax".into(), "bx".into()));
}

#[tokio::test(start_paused = true)]
async fn rule_3_the_first_that_has_it_and_silence_is_not_absence() {
    let w = world();
    w.apply("bind '#a' /m\nbind -a '#b' /m\nbind -a '#c' /m").await;
    assert_eq!(w.cat("/m/z").await.unwrap(), "bz");
    assert_eq!(kind(w.cat("/m/none").await), Kind::NotFound);
    // One level deep: who has the first name has the rest.
    w.apply("bind '#c' /d\nbind -b '#a' /d").await;
    assert_eq!(kind(w.cat("/d/only/none").await), Kind::NotFound);
    for health in [Health::Fails(Kind::Unreachable), Health::Fails(Kind::Reset), Health::Fails(Kind::Io)] {
        w.mem("b").set(health);
        assert_eq!(w.cat("/m/z").await.unwrap(), "cz", "the next one has it too");
        assert_eq!(kind(w.cat("/m/none").await), Kind::Unreachable);
    }
    // A server that was asked and refused does not make the rest silent.
    w.mem("b").set(Health::Fails(Kind::Denied));
    assert_eq!(kind(w.cat("/m/none").await), Kind::Denied);
    w.mem("b").set(Health::Hangs);
    let begin = Instant::now();
    assert_eq!(kind(w.cat("/m/none").await), Kind::TimedOut);
    assert_eq!(begin.elapsed(), DEADLINE);
    assert_eq!(kind(w.cat("/m/none").await), Kind::Unreachable, "left alone: refused at once");
    assert_eq!(begin.elapsed(), DEADLINE);
    // A member before the silent one is not kept waiting, nor are those behind it asked.
    let calls = w.mem("c").calls.load(Ordering::Relaxed);
    assert_eq!(w.cat("/m/x").await.unwrap(), "ax");
    assert_eq!(begin.elapsed(), DEADLINE);
    assert_eq!(w.mem("c").calls.load(Ordering::Relaxed), calls);
}

#[tokio::test(start_paused = true)]
async fn rule_4_listing_merges_and_leaves_the_dead_out() {
    let w = world();
    w.apply("bind '#a' /m\nbind -a '#b' /m\nbind -a '#c' /m").await;
    assert_eq!(w.ls("/m").await.unwrap(), "only x y z w");
    // Cookies belong to the listing that was opened.
    let dir = w.file("/m").await.unwrap().open(OpenFlags::RDONLY).await.unwrap();
    let two = dir.readdir(0, 2).await.unwrap();
    w.mem("a").remove("x");
    assert_eq!(dir.readdir(two[1].cookie, 9).await.unwrap().len(), 3);
    w.mem("b").set(Health::Hangs);
    let begin = Instant::now();
    assert_eq!(w.ls("/m").await.unwrap(), "only y w z");
    assert_eq!(begin.elapsed(), DEADLINE);
    let calls = w.mem("b").calls.load(Ordering::Relaxed);
    assert_eq!(w.ls("/m").await.unwrap(), "only y w z");
    assert_eq!((begin.elapsed(), w.mem("b").calls.load(Ordering::Relaxed)), (DEADLINE, calls), "the breaker is open");
    assert!(w.ns.text().contains("bind -a '#b' /m  # down 0 s, retry in 1 s\n"), "{}", w.ns.text());
    // One question after the pause, the next pause is longer, never over the limit.
    tokio::time::advance(RETRY_MIN).await;
    let begin = Instant::now();
    assert_eq!(w.ls("/m").await.unwrap(), "only y w z");
    assert_eq!(begin.elapsed(), DEADLINE);
    assert!(w.ns.text().contains("# down 3 s, retry in 2 s"), "{}", w.ns.text());
    tokio::time::advance(RETRY_MAX).await;
    w.mem("b").set(Health::Well);
    assert_eq!(w.ls("/m").await.unwrap(), "only y x z w", "back by itself");
    assert!(!w.ns.text().contains("down"));
    for mem in ["a", "b", "c"] {
        w.mem(mem).set(Health::Fails(Kind::Unreachable));
    }
    assert_eq!(kind(w.ls("/m").await), Kind::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn rule_4_members_are_asked_at_the_same_time() {
    let w = world();
    w.apply("bind '#a' /m\nbind -a '#b' /m\nbind -a '#c' /m").await;
    w.mem("b").set(Health::Hangs);
    w.mem("c").set(Health::Hangs);
    let begin = Instant::now();
    assert_eq!(w.ls("/m").await.unwrap(), "only x y");
    assert_eq!(begin.elapsed(), DEADLINE);
    tokio::time::advance(RETRY_MAX).await;
    let begin = Instant::now();
    assert_eq!(kind(w.cat("/m/none").await), Kind::TimedOut);
    assert_eq!(begin.elapsed(), DEADLINE);
}

#[tokio::test]
async fn rule_5_the_first_member_with_c_takes_new_files() {
    let w = world();
    w.apply("bind '#a' /m\nbind -a '#b' /m").await;
    assert_eq!(kind(w.put("/m/new", 0, "n").await), Kind::ReadOnly);
    assert_eq!(w.cat("/error").await.unwrap(), "/m: no member of this union allows creation (bind -c one)\n");
    assert_eq!(kind(w.mkdir("/m/new").await), Kind::ReadOnly);
    w.apply("bind -ac '#c' /m").await;
    w.put("/m/new", OpenFlags::EXCL, "n").await.unwrap();
    w.mkdir("/m/dir").await.unwrap();
    w.apply("bind '#c' /c").await;
    assert_eq!(w.cat("/c/new").await.unwrap(), "n");
    assert_eq!(w.ls("/c").await.unwrap(), "dir new w z");
    // What stands anywhere is opened there, or is in the way.
    w.put("/m/z", OpenFlags::TRUNC, "new").await.unwrap();
    w.apply("bind '#b' /b").await;
    assert_eq!((w.cat("/b/z").await.unwrap(), w.cat("/c/z").await.unwrap()), ("new".into(), "cz".into()));
    assert_eq!(kind(w.put("/m/x", OpenFlags::EXCL, "n").await), Kind::Exists);
    assert_eq!(kind(w.mkdir("/m/x").await), Kind::Exists);
    // The taker's refusal is the answer: no second try, no split brain.
    w.apply("bind -ac '#b' /m").await;
    w.mem("c").set(Health::Fails(Kind::NoSpace));
    assert_eq!(kind(w.put("/m/more", 0, "n").await), Kind::NoSpace);
    assert_eq!(kind(w.cat("/b/more").await), Kind::NotFound);
    // Whether a silent member has the name is not known.
    w.mem("c").set(Health::Fails(Kind::Unreachable));
    assert_eq!(kind(w.put("/m/more", 0, "n").await), Kind::Unreachable);
    // A directory bound alone is its server's own affair.
    w.apply("bind '#a' /alone").await;
    w.put("/alone/new", 0, "n").await.unwrap();
    assert_eq!(kind(w.put("/new", 0, "n").await), Kind::ReadOnly);
    assert_eq!(kind(w.put("/ns", OpenFlags::EXCL, "n").await), Kind::Exists);
}

#[tokio::test]
async fn rule_6_unlink_and_rename_where_the_name_was_found() {
    let w = world();
    w.apply("bind '#a' /a\nbind '#b' /b\nbind '#a' /m\nbind -ac '#b' /m\nbind '#c' /c").await;
    w.rm("/m/x").await.unwrap();
    assert_eq!((kind(w.cat("/a/x").await), w.cat("/m/x").await.unwrap()), (Kind::NotFound, "bx".into()));
    assert_eq!(kind(w.rm("/m/none").await), Kind::NotFound);
    for (from, to, expected) in [
        ("/m/z", "/m/x2", Ok(())),                 // within b
        ("/m/x2", "/m/y", Err(Kind::CrossDevice)), // a's y would hide it
        ("/m/y", "/m/y2", Ok(())),                 // within a
        ("/m/y2", "/m/x", Ok(())),                 // b's x lies behind: hidden from now on
        ("/m/x", "/b/x3", Err(Kind::CrossDevice)),
        ("/m/x2", "/b/x3", Ok(())),
        ("/b/x3", "/m/x4", Ok(())), // the first member with -c is b
        ("/a/x", "/m/x5", Err(Kind::CrossDevice)),
        ("/c/w", "/m/w", Err(Kind::CrossDevice)),
        ("/m/x", "/w", Err(Kind::ReadOnly)),
        ("/m", "/c/m", Err(Kind::Busy)), // a mount point
        ("/c/z", "/m", Err(Kind::Busy)),
        ("/ns", "/c/ns", Err(Kind::Busy)),
    ] {
        let got = w.mv(from, to).await.map_err(|e| e.kind());
        assert_eq!(got, expected, "{from} {to}");
    }
    assert_eq!((w.cat("/m/x").await.unwrap(), w.cat("/b/x").await.unwrap()), ("ay".into(), "bx".into()));
    assert_eq!(w.ls("/b").await.unwrap(), "x x4");
    w.apply("bind '#c/w' /a/only/d").await;
    for path in ["/a/only", "/a/only/d", "/m"] {
        assert_eq!(kind(w.rm(path).await), Kind::Busy, "{path}");
    }
    assert_eq!(kind(w.mv("/a/only", "/a/o").await), Kind::Busy, "a mount point lies below");
    // link(2): only where both names are one server's.
    let file = w.file("/m/x4").await.unwrap();
    w.file("/b").await.unwrap().link(&name_of("l"), &file).await.unwrap();
    w.file("/m").await.unwrap().link(&name_of("l2"), &file).await.unwrap();
    assert_eq!(kind(w.file("/m").await.unwrap().link(&name_of("l2"), &file).await), Kind::Exists);
    assert_eq!(kind(w.file("/c").await.unwrap().link(&name_of("l"), &file).await), Kind::CrossDevice);
    assert_eq!(w.ls("/b").await.unwrap(), "l l2 x x4");
    // A handle removes and renames the very file.
    w.file("/b/l").await.unwrap().remove().await.unwrap();
    assert_eq!(kind(w.file("/m").await.unwrap().remove().await), Kind::Busy);
    assert_eq!(kind(w.file("/m").await.unwrap().rename_self(None, &name_of("n")).await), Kind::Busy);
    w.file("/c/w").await.unwrap().rename_self(None, &name_of("w2")).await.unwrap();
    assert_eq!(w.ls("/c").await.unwrap(), "w2 z");
    let b = w.file("/b").await.unwrap();
    assert_eq!(kind(w.file("/c/z").await.unwrap().rename_self(Some(&b), &name_of("n")).await), Kind::CrossDevice);
}

#[tokio::test]
async fn rule_7_a_union_looks_like_its_first_live_member() {
    let w = world();
    w.apply("bind '#a' /m\nbind -a '#b' /m\nbind '#a' /a\nbind '#b' /b").await;
    let (m, a, b) = (w.stat("/m").await.unwrap(), w.stat("/a").await.unwrap(), w.stat("/b").await.unwrap());
    assert_eq!((m.qid.path, m.mode & 0o777, m.nlink), (a.qid.path, 0o555, 1));
    assert!(m.qid.is_live(), "what a union holds changes under its members' versions");
    assert_eq!((a.mode & 0o777, a.nlink), (0o755, 2), "bound alone: as its server says");
    w.apply("bind -ac '#c' /m").await;
    assert_eq!(w.stat("/m").await.unwrap().mode & 0o777, 0o755);
    w.mem("a").set(Health::Fails(Kind::Unreachable));
    assert_eq!(w.stat("/m").await.unwrap().qid.path, b.qid.path);
    for mem in ["b", "c"] {
        w.mem(mem).set(Health::Fails(Kind::Unreachable));
    }
    assert_eq!(kind(w.stat("/m").await), Kind::Unreachable);
}

#[tokio::test]
async fn rule_8_a_binding_finds_its_file_again() {
    let w = World::new(&[("n", ""), ("ann", "cpu/ann/info=first x=1")]);
    w.mem("n").graft("ann", w.mem("ann"));
    w.apply("bind '#n' /n\nbind /n/ann/cpu /cpu\nmount srv/ann /s\nbind /n /cpu2").await;
    let held = w.file("/cpu/ann/info").await.unwrap();
    w.mem("ann").forget();
    for path in ["/cpu/ann/info", "/n/ann/cpu/ann/info", "/s/cpu/ann/info"] {
        assert_eq!(w.cat(path).await.unwrap(), "first", "{path}");
    }
    assert_eq!(cat(&held).await.unwrap(), "first", "a file held since before goes on too");
    // What cannot be asked twice fails once, and works at the next use.
    let dir = w.file("/cpu/ann").await.unwrap();
    w.mem("ann").forget();
    assert_eq!(kind(dir.mkdir(&name_of("d"), 0o755).await), Kind::Reset);
    dir.mkdir(&name_of("d"), 0o755).await.unwrap();
    // The machine is away: an error, not "not there"; and back.
    w.mem("ann").set(Health::Fails(Kind::Unreachable));
    assert_eq!(kind(w.cat("/cpu/ann/info").await), Kind::Unreachable);
    assert_eq!(kind(w.ls("/cpu").await), Kind::Unreachable);
    assert!(w.ns.text().contains("bind /n/ann/cpu /cpu  # down 0 s\n"), "{}", w.ns.text());
    w.mem("ann").set(Health::Well);
    assert_eq!(w.ls("/cpu").await.unwrap(), "ann");
    assert!(!w.ns.text().contains("down"));
    // It came back without the directory.
    let first = w.file("/cpu").await.unwrap();
    w.mem("ann").remove("cpu");
    w.mem("ann").forget();
    assert_eq!(kind(ls(&first).await), Kind::NotFound);
    assert_eq!(kind(w.ls("/cpu").await), Kind::NotFound);
    assert!(w.ns.text().contains("bind /n/ann/cpu /cpu  # stale\n"), "{}", w.ns.text());
    // The binding does not follow the table: /n may stand for something else by now.
    w.apply("unmount /n").await;
    w.stat("/s").await.unwrap();
    w.file("/s").await.unwrap().mkdir(&name_of("cpu"), 0o755).await.unwrap();
    assert_eq!(w.ls("/cpu").await.unwrap(), "");
    assert!(!w.ns.text().contains("stale"));
}

#[tokio::test]
async fn rule_8_within_a_union() {
    let w = World::new(&[("n", ""), ("ann", "cpu/ann/info=a"), ("cpu", "me/info=me any/info=any")]);
    w.mem("n").graft("ann", w.mem("ann"));
    w.apply("bind '#n' /n\nbind '#cpu' /cpu\nbind -a /n/ann/cpu /cpu").await;
    assert_eq!(w.ls("/cpu").await.unwrap(), "any me ann");
    w.mem("ann").forget();
    assert_eq!(w.ls("/cpu").await.unwrap(), "any me ann");
    w.mem("ann").forget();
    assert_eq!(w.cat("/cpu/ann/info").await.unwrap(), "a");
}

#[tokio::test]
async fn rule_9_dot_dot_is_lexical_and_stays_in_the_root() {
    let w = world();
    w.apply("bind '#a' /a\nbind '#b' /a/only").await;
    for (path, expected) in
        [("/a/only/../x", "ax"), ("/a/only/x", "bx"), ("/a/only/../../../a/x", "ax"), ("/../../a/only/../only/x", "bx")]
    {
        assert_eq!(w.cat(path).await.unwrap(), expected, "{path}");
    }
    let dir = w.file("/a/only").await.unwrap();
    let up = dir.walk(&[Name::walk("..").unwrap()]).await;
    assert_eq!(up.qids, [w.file("/a").await.unwrap().qid()]);
    assert_eq!(ls(&up.end.unwrap()).await.unwrap(), "only x y");
    let walk = w.ns.root().walk(&Name::path("a/only/none/x").unwrap()).await;
    assert_eq!((walk.qids.len(), kind(walk.end)), (2, Kind::NotFound));
    assert_eq!(
        kind(w.file("/a/x/..").await.map(drop).and_then(|()| Err(Kind::NotFound.into()) as fs_ninep::Result<()>)),
        Kind::NotFound
    );
}

#[tokio::test]
async fn rule_10_no_path_without_an_end() {
    let w = World::new(&[("a", "d/e/f/x=1"), ("loop", "x=1")]);
    w.apply("bind '#a' /a\nbind '#a/d' /d").await;
    for text in ["bind /a/d /a/d/e", "bind /d /a/d/e/f", "bind -a '#a' /a/d", "bind /a /a/d/e/f"] {
        assert_eq!(kind(w.ns.apply(text).await), Kind::Loop, "{text}");
    }
    assert_eq!(w.ns.root().walk(&Name::path("error").unwrap()).await.qids.len(), 1);
    w.apply("bind -f /a/d /a/d/e").await;
    assert_eq!(w.cat("/a/d/e/e/f/x").await.unwrap(), "1", "by force, and it has an end");
    assert!(w.ns.text().contains("bind -f /a/d /a/d/e\n"), "{}", w.ns.text());
    // A server whose tree holds itself.
    w.mem("loop").cycle("self");
    w.apply("bind '#loop' /l").await;
    let mut dir = w.file("/l").await.unwrap();
    for _ in 0..3 {
        dir = dir.walk(&[name_of("self")]).await.end.unwrap();
    }
    assert_eq!(kind(dir.walk(&[name_of("self")]).await.end), Kind::Loop);
    assert_eq!(kind(dir.walk_getattr(&[name_of("self")]).await), Kind::Loop);
    assert_eq!(kind(w.file("/l/self/self/self/self").await), Kind::Loop);
    assert!(w.cat("/error").await.unwrap().contains("more than 4 times on one path"));
    assert_eq!(w.cat("/l/self/x").await.unwrap(), "1");
}

#[tokio::test]
async fn rule_11_nomnt_is_for_good() {
    let w = world();
    w.apply("bind '#a' /a\nnomnt").await;
    for text in ["bind '#b' /b", "mount srv/b /b", "unmount /a", "clear", "nomnt", ". /a/x"] {
        assert_eq!(kind(w.ns.apply(text).await), Kind::NotPermitted, "{text}");
    }
    assert_eq!(w.ns.text(), "bind '#a' /a\nnomnt\n");
    let file = w.file("/ns").await.unwrap();
    assert_eq!(file.getattr().await.unwrap().mode & 0o777, 0o400);
    assert_eq!(kind(file.open(OpenFlags::WRONLY).await.map(drop)), Kind::NotPermitted);
    assert_eq!(cat(&file).await.unwrap(), w.ns.text());
    w.put("/a/new", 0, "the files go on").await.unwrap();
    // A text that locks cannot go on after it.
    let v = world();
    assert_eq!(kind(v.ns.apply("nomnt\nbind '#a' /a").await), Kind::NotPermitted);
    v.apply("bind '#a' /a").await;
    file.setattr(SetAttr { size: Some(0), ..SetAttr::default() }).await.unwrap();
}

#[tokio::test]
async fn rule_12_the_pool_is_the_union() {
    let w = World::new(&[("me", "me/clone=0 any/clone=1"), ("ann", "cpu/ann/clone=2"), ("bob", "cpu/bob/clone=3")]);
    w.apply("bind '#me' /cpu\nbind -a '#ann/cpu' /cpu\nbind -a '#bob/cpu' /cpu").await;
    assert_eq!(w.ls("/cpu").await.unwrap(), "any me ann bob");
    assert_eq!(w.cat("/cpu/bob/clone").await.unwrap(), "3");
    w.apply("unmount '#ann/cpu' /cpu").await;
    assert_eq!(w.ls("/cpu").await.unwrap(), "any me bob");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_call_leaves_nothing_behind() {
    let w = world();
    w.apply("bind '#a' /m\nbind -a '#b' /m").await;
    w.mem("b").set(Health::Hangs);
    let short = Duration::from_millis(10);
    assert!(tokio::time::timeout(short, w.ns.apply("bind '#c' /c\nbind '#b/z' /z")).await.is_err());
    assert_eq!(w.ls("/").await.unwrap(), "ns error event m");
    // Nobody stands in a queue behind a text that waits.
    let stuck = w.ns.apply("bind '#b/z' /z");
    tokio::pin!(stuck);
    assert!(futures::poll!(&mut stuck).is_pending());
    w.apply("bind '#c' /c").await;
    assert_eq!(w.ls("/").await.unwrap(), "ns error event c m");
    // A dropped lookup says nothing about the member.
    assert!(tokio::time::timeout(short, w.cat("/m/none")).await.is_err());
    assert!(!w.ns.text().contains("down"));
    w.mem("b").set(Health::Well);
    assert_eq!(w.cat("/m/z").await.unwrap(), "bz");
}
