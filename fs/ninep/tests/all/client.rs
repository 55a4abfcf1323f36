//! The client on a server of this crate.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use fs_ninep::wire::{Dialect, Dirent, Few, Reply, Request, frame_len};
use fs_ninep::{Caller, Client, ClientConfig, File, Kind, Limits, Name, OpenFlags, Qid, QidType, serve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::block_on;
use crate::memory::Memory;

async fn connect(tree: &Arc<Memory>, dialect: Dialect) -> (Client, Arc<dyn File>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    tokio::spawn(serve(far, tree.clone(), Caller::none(), Limits::default()));
    let client = Client::connect(near, ClientConfig { dialect, ..ClientConfig::default() }).await.unwrap();
    assert_eq!(client.dialect(), dialect);
    let root = client.attach("me", "").await.unwrap();
    (client, root)
}

fn names(path: &str) -> Vec<Name> {
    Name::path(path).unwrap()
}

fn each_dialect<F: Future>(test: impl Fn(Arc<Memory>, Dialect) -> F) {
    for &dialect in Dialect::ALL {
        block_on(test(Memory::new(), dialect));
    }
}

#[test]
fn files_are_used_over_every_dialect() {
    each_dialect(|tree, dialect| async move {
        let (_client, root) = connect(&tree, dialect).await;
        let (file, attr) = root.walk_getattr(&names("a/b/c")).await.unwrap();
        assert_eq!((attr.size, attr.is_dir()), (5, false));
        let open = file.open(OpenFlags::RDWR).await.unwrap();
        assert_eq!(&open.read(0, 100).await.unwrap()[..], b"deep\n");
        assert_eq!(open.write(5, Bytes::from_static(b"er\n")).await.unwrap(), 3);
        assert_eq!(&open.read(0, 100).await.unwrap()[..], b"deep\ner\n");
        let made = root.create(&Name::new("new").unwrap(), OpenFlags::RDWR, 0o644).await.unwrap();
        assert_eq!(made.open.write(0, Bytes::from_static(b"x")).await.unwrap(), 1);
        assert_eq!(made.file.getattr().await.unwrap().size, 1);
        root.mkdir(&Name::new("d").unwrap(), 0o755).await.unwrap();
        let d = root.walk(&names("d")).await.end.unwrap();
        assert!(d.qid().is_dir());
        root.rename(&Name::new("new").unwrap(), &root, &Name::new("newer").unwrap()).await.unwrap();
        root.unlink(&Name::new("newer").unwrap(), false).await.unwrap();
        root.unlink(&Name::new("d").unwrap(), true).await.unwrap();
        let gone = root.walk(&names("newer")).await.end.err().unwrap();
        assert_eq!(gone.kind(), Kind::NotFound);
        let list = root.open(OpenFlags::RDONLY).await.unwrap().readdir(0, 100).await.unwrap();
        let list: Vec<_> = list.iter().map(|e| e.name.to_string()).collect();
        assert_eq!(list, ["a", "big", "ctl", "empty", "event", "link", "ro", "slow", "text"]);
    });
}

/// What a lying server does with a request it is asked; `None` answers as it should.
type Lie = fn(&Request) -> Option<Reply<'static>>;

/// A server of one directory and one live file `f`, that tells `lie`.
async fn lying(lie: Lie) -> (Client, fs_ninep::Result<Arc<dyn File>>) {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let mut buf = BytesMut::new();
        loop {
            while let Ok(Some(len)) = frame_len(&buf, u32::MAX).map(|l| l.filter(|l| buf.len() >= *l)) {
                let frame = buf.split_to(len).freeze();
                let (tag, request) = Request::decode(Dialect::L, &frame).unwrap();
                let mut out = BytesMut::new();
                lie(&request).unwrap_or_else(|| truth(&request)).encode(Dialect::L, tag, &mut out);
                if far.write_all(&out).await.is_err() {
                    return;
                }
            }
            if far.read_buf(&mut buf).await.unwrap_or(0) == 0 {
                return;
            }
        }
    });
    let client = Client::connect(near, ClientConfig { call_timeout_ms: 200, ..ClientConfig::default() }).await.unwrap();
    let root = client.attach("me", "").await;
    (client, root)
}

const DIR: Qid = Qid { ty: QidType::DIR, version: 1, path: 1 };
const LIVE: Qid = Qid { ty: QidType::FILE, version: 0, path: 2 };

fn truth(request: &Request) -> Reply<'static> {
    match request {
        Request::Version { msize, .. } => Reply::Version { msize: *msize, version: b"9P2000.L" },
        Request::Attach { .. } => Reply::Attach { qid: DIR },
        Request::Walk { names, .. } => Reply::Walk { qids: Few::collect(names.iter().map(|_| LIVE)).unwrap() },
        Request::Lopen { fid: 1, .. } => Reply::Lopen { qid: DIR, iounit: 0 },
        Request::Lopen { .. } => Reply::Lopen { qid: LIVE, iounit: 0 },
        Request::Getattr { .. } => Reply::Getattr { valid: 0x7ff, attr: Default::default() },
        Request::Read { .. } => Reply::Read { data: Bytes::from_static(b"read") },
        Request::Write { data, .. } => Reply::Write { count: data.len() as u32 },
        Request::Readdir { .. } => Reply::Readdir { data: Bytes::new() },
        Request::Clunk { .. } => Reply::Clunk {},
        Request::Flush { .. } => Reply::Flush {},
        other => panic!("{other:?}"),
    }
}

fn entry(offset: u64, name: &[u8]) -> Reply<'static> {
    let mut data = BytesMut::new();
    Dirent { qid: LIVE, offset, ty: 8, name }.encode(&mut data);
    Reply::Readdir { data: data.freeze() }
}

/// Walks, opens, reads, writes and lists; the first failure.
async fn use_it(root: Arc<dyn File>) -> fs_ninep::Result<()> {
    root.open(OpenFlags::RDONLY).await?.readdir(0, 10).await?;
    let file = root.walk(&names("f")).await.end?;
    file.getattr().await?;
    let open = file.open(OpenFlags::RDWR).await?;
    open.read(0, 4).await?;
    open.write(0, Bytes::from_static(b"line\n")).await.map(drop)
}

#[test]
fn a_server_that_lies_is_dropped() {
    use Request as T;
    let lies: &[(&str, Lie)] = &[
        ("more qids than names", |r| {
            matches!(r, T::Walk { .. }).then(|| Reply::Walk { qids: Few::collect([LIVE; 16]).unwrap() })
        }),
        ("no qids for a name", |r| {
            matches!(r, T::Walk { names, .. } if !names.is_empty())
                .then(|| Reply::Walk { qids: Few::collect([]).unwrap() })
        }),
        ("another type", |r| matches!(r, T::Getattr { .. }).then_some(Reply::Write { count: 1 })),
        ("an answer that is a flush's", |r| matches!(r, T::Lopen { .. }).then_some(Reply::Flush {})),
        ("more bytes than asked", |r| {
            matches!(r, T::Read { .. }).then(|| Reply::Read { data: Bytes::from_static(b"longer") })
        }),
        ("more bytes written than sent", |r| matches!(r, T::Write { .. }).then_some(Reply::Write { count: 6 })),
        ("an entry cut short", |r| {
            matches!(r, T::Readdir { .. }).then(|| Reply::Readdir { data: Bytes::from_static(&[0; 30]) })
        }),
        ("an entry that goes up", |r| matches!(r, T::Readdir { .. }).then(|| entry(1, b"a/../b"))),
        ("an entry without a name", |r| matches!(r, T::Readdir { .. }).then(|| entry(1, b""))),
        ("a cookie that starts over", |r| matches!(r, T::Readdir { .. }).then(|| entry(0, b"x"))),
    ];
    for (name, lie) in lies {
        block_on(async {
            let (client, root) = lying(*lie).await;
            let e = use_it(root.unwrap()).await.expect_err(name);
            assert_eq!(e.kind(), Kind::Protocol, "{name}: {e}");
            let why = client.closed().await;
            assert_eq!(why.kind(), Kind::Protocol, "{name}: {why}");
            assert_eq!(client.attach("me", "").await.err().unwrap(), why, "later calls fail for the same reason");
        });
    }
    block_on(async {
        let (_client, root) = lying(|_| None).await;
        use_it(root.unwrap()).await.expect("a server that does not lie is kept");
    });
}

#[test]
fn a_server_that_answers_a_version_it_was_not_asked_is_refused() {
    for (msize, version) in [(u32::MAX, &b"9P2000.L"[..]), (10, b"9P2000.L"), (8192, b"9P3000"), (8192, b"unknown")] {
        let mut bytes = BytesMut::new();
        Reply::Version { msize, version }.encode(Dialect::Plain, 0xffff, &mut bytes);
        Reply::Version { msize, version }.encode(Dialect::Plain, 0xffff, &mut bytes);
        block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            far.write_all(&bytes).await.unwrap();
            let e = Client::connect(near, ClientConfig::default()).await.err().expect("refused");
            assert_eq!(e.kind(), Kind::Protocol, "{msize} {version:?}");
        });
    }
}

#[test]
fn frames_that_cannot_be_an_answer_drop_the_connection() {
    let frames: &[&[u8]] = &[
        &[6, 0, 0, 0, 1, 1],
        &[0xff, 0xff, 0xff, 0xff, 1, 1, 1],
        &[7, 0, 0, 0, 121, 9, 0],       // a tag that asked nothing
        &[7, 0, 0, 0, 121, 0xff, 0xff], // NOTAG
        &[11, 0, 0, 0, 120, 0, 0, 0, 0, 0, 0],
    ];
    for frame in frames {
        block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            let mut bytes = BytesMut::new();
            Reply::Version { msize: 8192, version: b"9P2000.L" }.encode(Dialect::Plain, 0xffff, &mut bytes);
            bytes.extend_from_slice(frame);
            far.write_all(&bytes).await.unwrap();
            let client = Client::connect(near, ClientConfig::default()).await.unwrap();
            assert_eq!(client.closed().await.kind(), Kind::Protocol, "{frame:?}");
        });
    }
}

#[test]
fn a_lost_connection_fails_what_waits_and_what_comes() {
    block_on(async {
        let tree = Memory::new();
        let (near, far) = tokio::io::duplex(1 << 20);
        let served = tokio::spawn(serve(far, tree.clone(), Caller::none(), Limits::default()));
        let client = Client::connect(near, ClientConfig::default()).await.unwrap();
        let root = client.attach("me", "").await.unwrap();
        let event = root.walk(&names("event")).await.end.unwrap().open(OpenFlags::RDONLY).await.unwrap();
        let waits = tokio::spawn(async move { event.read(0, 10).await });
        while tree.shared.waiting.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        served.abort();
        let e = waits.await.unwrap().unwrap_err();
        assert_eq!(e.kind(), Kind::Reset, "{e}");
        assert_eq!(root.getattr().await.unwrap_err(), e);
        assert_eq!(client.closed().await, e);
    });
}

#[test]
fn the_connection_closes_with_its_last_handle() {
    block_on(async {
        let tree = Memory::new();
        let (near, far) = tokio::io::duplex(1 << 20);
        let served = tokio::spawn(serve(far, tree.clone(), Caller::none(), Limits::default()));
        let client = Client::connect(near, ClientConfig::default()).await.unwrap();
        let closed = client.closed();
        let root = client.attach("me", "").await.unwrap();
        drop(client);
        assert!(root.getattr().await.is_ok());
        drop(root);
        assert_eq!(closed.await.kind(), Kind::Reset);
        served.await.unwrap().unwrap();
    });
}

#[test]
fn a_dropped_call_is_flushed_and_its_tag_and_fid_come_back() {
    each_dialect(|tree, dialect| async move {
        let (_client, root) = connect(&tree, dialect).await;
        for _ in 0..100 {
            let slow = names("slow");
            let walk = root.walk(&slow);
            let given_up = tokio::time::timeout(std::time::Duration::from_millis(1), walk).await;
            assert!(given_up.is_err(), "nobody opened the gate");
        }
        // an answer after the flushes: each of those 100 was told
        assert!(root.getattr().await.is_ok());
        tree.shared.gate.add_permits(1);
        let file = root.walk(&names("slow")).await.end.unwrap();
        let open = file.open(OpenFlags::RDONLY).await.unwrap();
        assert_eq!(&open.read(0, 100).await.unwrap()[..], b"at last\n");
        assert_eq!(tree.shared.gate.available_permits(), 0, "a flushed walk took nothing");
    });
}

#[test]
fn handles_that_are_dropped_are_clunked() {
    each_dialect(|tree, dialect| async move {
        let (_client, root) = connect(&tree, dialect).await;
        for _ in 0..50 {
            root.walk(&names("text")).await.end.unwrap().open(OpenFlags::RDONLY).await.unwrap();
        }
        assert!(root.getattr().await.is_ok());
        assert_eq!(tree.shared.open.load(Relaxed), 0);
    });
}

#[test]
fn what_a_read_that_was_given_up_brought_is_the_next_reads() {
    each_dialect(|tree, dialect| async move {
        let (_client, root) = connect(&tree, dialect).await;
        let event = root.walk(&names("event")).await.end.unwrap().open(OpenFlags::RDONLY).await.unwrap();
        let mut read = event.read(0, 10);
        let waiting = poll_fn(|cx| {
            let _ = read.as_mut().poll(cx);
            match tree.shared.waiting.load(Relaxed) {
                0 => {
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
                _ => std::task::Poll::Ready(()),
            }
        });
        waiting.await;
        tree.post("one two");
        drop(read); // its flush and the event cross
        assert_eq!(&event.read(0, 3).await.unwrap()[..], b"one");
        assert_eq!(&event.read(3, 10).await.unwrap()[..], b" two");
        tree.post("three");
        assert_eq!(&event.read(7, 10).await.unwrap()[..], b"three");
    });
}

#[test]
fn a_call_that_may_not_wait_times_out_and_a_dead_server_is_given_up() {
    block_on(async {
        let tree = Memory::new();
        let (near, far) = tokio::io::duplex(1 << 20);
        tokio::spawn(serve(far, tree.clone(), Caller::none(), Limits::default()));
        let config = ClientConfig { call_timeout_ms: 40, ..ClientConfig::default() };
        let client = Client::connect(near, config).await.unwrap();
        let root = client.attach("me", "").await.unwrap();
        let e = root.walk(&names("slow")).await.end.err().unwrap();
        assert_eq!(e.kind(), Kind::TimedOut);
        assert!(root.getattr().await.is_ok(), "the connection lives: the server answered the flush");

        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut bytes = BytesMut::new();
        Reply::Version { msize: 8192, version: b"9P2000.L" }.encode(Dialect::Plain, 0xffff, &mut bytes);
        far.write_all(&bytes).await.unwrap();
        let client = Client::connect(near, config).await.unwrap();
        assert_eq!(client.attach("me", "").await.err().unwrap().kind(), Kind::TimedOut);
        assert_eq!(client.closed().await.kind(), Kind::TimedOut, "not even flushes are answered");
    });
}

#[test]
fn refusals_keep_their_text_between_our_nodes() {
    block_on(async {
        let (client, root) = connect(&Memory::new(), Dialect::Ipos).await;
        let e = client.attach("me", "moon").await.err().unwrap();
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::NotFound, "no way to the moon; try \"\""));
        let e = root.walk(&names("a/b/nothing/more")).await.end.err().unwrap();
        assert_eq!(e.to_string(), "no nothing here", "why a later name failed is asked for");
        let stopped = root.walk(&names("a/b/nothing")).await;
        assert_eq!(stopped.qids.len(), 2);
    });
}

#[test]
fn large_reads_and_writes_of_plain_files_go_in_windows() {
    each_dialect(|tree, dialect| async move {
        let (near, far) = tokio::io::duplex(1 << 20);
        tokio::spawn(serve(far, tree.clone(), Caller::none(), Limits::default()));
        let config = ClientConfig { dialect, msize: 4096, ..ClientConfig::default() };
        let client = Client::connect(near, config).await.unwrap();
        let root = client.attach("me", "").await.unwrap();
        let big = root.walk(&names("big")).await.end.unwrap();
        let open = big.open(OpenFlags::RDWR).await.unwrap();
        let all = open.read(0, 1 << 20).await.unwrap();
        assert_eq!(all.len(), 100_000);
        assert!(all.iter().enumerate().all(|(i, b)| usize::from(*b) == i % 251));
        let new = Bytes::from((0..150_000u32).map(|i| (i % 13) as u8).collect::<Vec<_>>());
        assert_eq!(open.write(0, new.clone()).await.unwrap(), 150_000);
        assert_eq!(open.read(0, 1 << 20).await.unwrap(), new);
    });
}

#[test]
fn a_close_reports_what_a_last_line_came_to() {
    block_on(async {
        for dialect in [Dialect::Ipos, Dialect::L, Dialect::Plain] {
            let tree = Memory::new();
            let (_client, root) = connect(&tree, dialect).await;
            let ctl = root.walk(&names("ctl")).await.end.unwrap();
            let open = ctl.open(OpenFlags::WRONLY).await.unwrap();
            open.write(0, Bytes::from_static(b"one\ntwo")).await.unwrap();
            open.flush().await.unwrap();
            assert_eq!(*tree.shared.lines.lock().unwrap(), ["one", "two"]);
            open.write(0, Bytes::from_static(b"bad")).await.unwrap();
            assert_eq!(open.flush().await.unwrap_err().kind(), Kind::Invalid);
            tree.add_value();
            // A value is taken as a whole: its close may be refused though its last line is ended.
            let value = root.walk(&names("value")).await.end.unwrap().open(OpenFlags::WRONLY).await.unwrap();
            value.write(0, Bytes::from_static(b"bad\n")).await.unwrap();
            assert_eq!(value.flush().await.unwrap_err().kind(), Kind::Invalid);
        }
    });
}

#[test]
fn directories_of_any_size_are_listed_and_rewound() {
    each_dialect(|tree, dialect| async move {
        tree.fill("empty", 3000);
        let (_client, root) = connect(&tree, dialect).await;
        let dir = root.walk(&names("empty")).await.end.unwrap().open(OpenFlags::RDONLY).await.unwrap();
        let (mut seen, mut cookie) = (Vec::new(), 0);
        loop {
            let entries = dir.readdir(cookie, 700).await.unwrap();
            let Some(last) = entries.last() else { break };
            cookie = last.cookie;
            seen.extend(entries);
        }
        assert_eq!(seen.len(), 3000);
        let known = seen.iter().filter(|e| e.attr.as_ref().is_some_and(|a| a.mode == 0o100644)).count();
        assert_eq!(known, if dialect == Dialect::L { 0 } else { 3000 }, "attributes that came along");
        for at in [0, 1, 699, 700, 2998] {
            let next = dir.readdir(seen[at].cookie, 1).await.unwrap();
            assert_eq!(next[0].name, seen[at + 1].name, "after entry {at}");
        }
        assert!(dir.readdir(seen[2999].cookie, 10).await.unwrap().is_empty());
    });
}

/// A stream that counts what is written to it.
struct Counted<S>(S, Arc<AtomicUsize>);

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, buf: &mut ReadBuf) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[test]
fn compound_calls_are_one_trip_and_many_calls_share_a_write() {
    block_on(async {
        let tree = Memory::new();
        let (near, far) = tokio::io::duplex(1 << 20);
        let writes: Arc<AtomicUsize> = Arc::default();
        tokio::spawn(serve(far, tree.clone(), Caller::none(), Limits::default()));
        let client = Client::connect(Counted(near, writes.clone()), ClientConfig::default()).await.unwrap();
        let root = client.attach("me", "").await.unwrap();
        let trips = || writes.swap(0, Relaxed);
        trips();
        let (file, _) = root.walk_getattr(&names("a/b/c")).await.unwrap();
        assert_eq!(trips(), 1, "walk_getattr");
        let open = file.open(OpenFlags::RDONLY).await.unwrap();
        assert_eq!(trips(), 1, "open");
        let made = root.create(&Name::new("n").unwrap(), OpenFlags::RDWR, 0o644).await.unwrap();
        assert_eq!(trips(), 1, "create");
        tree.fill("empty", 1000);
        trips();
        let dir = root.walk(&names("empty")).await.end.unwrap().open(OpenFlags::RDONLY).await.unwrap();
        let mut cookie = 0;
        while let Some(last) = dir.readdir(cookie, 10_000).await.unwrap().last() {
            cookie = last.cookie;
        }
        assert_eq!(trips(), 5, "walk, open, 1,000 files with their attributes in two, the end");
        drop((file, open, made, dir));
        futures::future::join_all((0..100).map(|_| root.getattr())).await;
        assert_eq!(trips(), 1, "clunks and a hundred calls");
    });
}
