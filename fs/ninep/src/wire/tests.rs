use proptest::prelude::*;

use super::field::{DataOnly, Explained, Uid};
use super::*;
use crate::{Attr, Qid, QidType, Time};

fn qid() -> impl Strategy<Value = Qid> {
    any::<(u8, u32, u64)>().prop_map(|(ty, version, path)| Qid { ty: QidType(ty), version, path })
}

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(sec, nsec)| Time { sec, nsec })
}

/// Numbers and texts that every message is built from.
#[derive(Clone, Debug)]
struct Parts {
    n: [u32; 6],
    l: [u64; 6],
    s: [String; 4],
    names: Vec<String>,
    qids: Vec<Qid>,
    qid: Qid,
    t: [Time; 3],
    data: Vec<u8>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let text = || "[a-z\u{e0}-\u{ff}\u{4e00}-\u{4e20}]{0,40}";
    (
        any::<[u32; 6]>(),
        any::<[u64; 6]>(),
        [text(), text(), text(), text()],
        proptest::collection::vec(text(), 0..=16),
        proptest::collection::vec(qid(), 0..=16),
        qid(),
        [time(), time(), time()],
        proptest::collection::vec(any::<u8>(), 0..5000),
    )
        .prop_map(|(n, l, s, names, qids, qid, t, data)| Parts { n, l, s, names, qids, qid, t, data })
}

impl Parts {
    fn text(&self, i: usize) -> &[u8] {
        self.s[i].as_bytes()
    }

    fn stat(&self) -> Stat<'_> {
        let ([mode, atime, mtime, dev, ..], [length, ..]) = (self.n, self.l);
        let (name, uid, gid, muid) = (self.text(0), self.text(1), self.text(2), self.text(3));
        Stat { ty: 7, dev, qid: self.qid, mode, atime, mtime, length, name, uid, gid, muid }
    }

    fn attr(&self) -> Attr {
        let ([mode, uid, gid, ..], [nlink, rdev, size, blksize, blocks, _]) = (self.n, self.l);
        let [atime, mtime, ctime] = self.t;
        Attr { qid: self.qid, mode, uid, gid, nlink, rdev, size, blksize, blocks, atime, mtime, ctime }
    }

    fn requests(&self) -> Vec<(Request<'_>, &'static [Dialect])> {
        let ([a, b, c, d, e, _], [l, m, ..]) = (self.n, self.l);
        let (s, t, u) = (self.text(0), self.text(1), self.n[0] as u8);
        let names = Few::collect(self.names.iter().map(|n| n.as_bytes())).unwrap();
        let data = Bytes::from(self.data.clone());
        let (all, plain, linux) = (Dialect::ALL, &[Dialect::Plain][..], &[Dialect::L, Dialect::Ipos][..]);
        use Request as T;
        vec![
            (T::Version { msize: a, version: s }, all),
            (T::Auth { afid: a, uname: s, aname: t, n_uname: Uid(NONUNAME) }, all),
            (T::Auth { afid: a, uname: s, aname: t, n_uname: Uid(b) }, linux),
            (T::Attach { fid: a, afid: b, uname: s, aname: t, n_uname: Uid(NONUNAME) }, all),
            (T::Attach { fid: a, afid: b, uname: s, aname: t, n_uname: Uid(c) }, linux),
            (T::Flush { oldtag: a as u16 }, all),
            (T::Walk { fid: a, newfid: b, names }, all),
            (T::Read { fid: a, offset: l, count: b }, all),
            (T::Write { fid: a, offset: l, data }, all),
            (T::Clunk { fid: a }, all),
            (T::Remove { fid: a }, all),
            (T::Open { fid: a, mode: u }, plain),
            (T::Create { fid: a, name: s, perm: b, mode: u }, plain),
            (T::Stat { fid: a }, plain),
            (T::Wstat { fid: a, stat: Wstat(self.stat()) }, plain),
            (T::Statfs { fid: a }, linux),
            (T::Lopen { fid: a, flags: b }, linux),
            (T::Lcreate { fid: a, name: s, flags: b, mode: c, gid: d }, linux),
            (T::Symlink { dfid: a, name: s, target: t, gid: b }, linux),
            (T::Mknod { dfid: a, name: s, mode: b, major: c, minor: d, gid: e }, linux),
            (T::Rename { fid: a, dfid: b, name: s }, linux),
            (T::Readlink { fid: a }, linux),
            (T::Getattr { fid: a, mask: l }, linux),
            (
                T::Setattr { fid: a, valid: b, mode: c, uid: d, gid: e, size: l, atime: self.t[0], mtime: self.t[1] },
                linux,
            ),
            (T::Xattrwalk { fid: a, newfid: b, name: s }, linux),
            (T::Xattrcreate { fid: a, name: s, size: l, flags: b }, linux),
            (T::Readdir { fid: a, offset: l, count: b }, linux),
            (T::Fsync { fid: a, data_only: DataOnly(b) }, linux),
            (T::Lock { fid: a, ty: u, flags: b, start: l, len: m, proc_id: c, client_id: s }, linux),
            (T::Getlock { fid: a, ty: u, start: l, len: m, proc_id: c, client_id: s }, linux),
            (T::Link { dfid: a, fid: b, name: s }, linux),
            (T::Mkdir { dfid: a, name: s, mode: b, gid: c }, linux),
            (T::Renameat { olddirfid: a, oldname: s, newdirfid: b, newname: t }, linux),
            (T::Unlinkat { dirfid: a, name: s, flags: b }, linux),
            (T::Readdirattr { fid: a, offset: l, count: b }, &[Dialect::Ipos]),
        ]
    }

    fn replies(&self) -> Vec<(Reply<'_>, &'static [Dialect])> {
        let ([a, b, c, ..], [l, m, n, o, p, q]) = (self.n, self.l);
        let (s, qid, u) = (self.text(0), self.qid, self.n[0] as u8);
        let data = Bytes::from(self.data.clone());
        let (all, plain, linux) = (Dialect::ALL, &[Dialect::Plain][..], &[Dialect::L, Dialect::Ipos][..]);
        use Reply as R;
        vec![
            (R::Version { msize: a, version: s }, all),
            (R::Auth { aqid: qid }, all),
            (R::Attach { qid }, all),
            (R::Flush {}, all),
            (R::Walk { qids: Few::collect(self.qids.iter().copied()).unwrap() }, all),
            (R::Read { data: data.clone() }, all),
            (R::Write { count: a }, all),
            (R::Clunk {}, all),
            (R::Remove {}, all),
            (R::Error { ename: s }, plain),
            (R::Open { qid, iounit: a }, plain),
            (R::Create { qid, iounit: a }, plain),
            (R::Stat { stat: Wstat(self.stat()) }, plain),
            (R::Wstat {}, plain),
            (R::Lerror { ecode: a, ename: Explained(b"") }, linux),
            (R::Lerror { ecode: a, ename: Explained(s) }, &[Dialect::Ipos]),
            (
                R::Statfs { ty: a, bsize: b, blocks: l, bfree: m, bavail: n, files: o, ffree: p, fsid: q, namelen: c },
                linux,
            ),
            (R::Lopen { qid, iounit: a }, linux),
            (R::Lcreate { qid, iounit: a }, linux),
            (R::Symlink { qid }, linux),
            (R::Mknod { qid }, linux),
            (R::Rename {}, linux),
            (R::Readlink { target: s }, linux),
            (R::Getattr { valid: l, attr: self.attr() }, linux),
            (R::Setattr {}, linux),
            (R::Xattrwalk { size: l }, linux),
            (R::Xattrcreate {}, linux),
            (R::Readdir { data: data.clone() }, linux),
            (R::Readdirattr { data }, &[Dialect::Ipos]),
            (R::Fsync {}, linux),
            (R::Lock { status: u }, linux),
            (R::Getlock { ty: u, start: l, len: m, proc_id: a, client_id: s }, linux),
            (R::Link {}, linux),
            (R::Mkdir { qid }, linux),
            (R::Renameat {}, linux),
            (R::Unlinkat {}, linux),
        ]
    }
}

macro_rules! identity {
    ($message:ident, $all:expr) => {
        for (message, dialects) in $all {
            for &dialect in Dialect::ALL {
                let mut out = BytesMut::new();
                message.encode(dialect, 77, &mut out);
                let frame = out.freeze();
                assert_eq!(frame_len(&frame, u32::MAX), Ok(Some(frame.len())));
                let back = $message::decode(dialect, &frame);
                if dialects.contains(&dialect) {
                    assert_eq!(back, Ok((77, message.clone())));
                    for len in (7..frame.len()).rev().take(100) {
                        let mut short = frame[..len].to_vec();
                        short[..4].copy_from_slice(&(len as u32).to_le_bytes());
                        let short = Bytes::from(short);
                        let short = $message::decode(dialect, &short);
                        let optional = matches!(short, Ok((_, ref m)) if format!("{m:?}").starts_with("Fsync"));
                        assert!(short.is_err() || optional, "{message:?} cut to {len} bytes");
                    }
                }
            }
        }
    };
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        rng_seed: proptest::test_runner::RngSeed::Fixed(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn decode_undoes_encode(p in parts()) {
        identity!(Request, p.requests());
        identity!(Reply, p.replies());
    }

    #[test]
    fn records_survive_and_short_ones_are_refused(p in parts()) {
        let mut out = BytesMut::new();
        p.stat().encode(&mut out);
        p.stat().encode(&mut out);
        prop_assert_eq!(Stats::new(&out).collect::<Result<Vec<_>, _>>(), Ok(vec![p.stat(); 2]));
        prop_assert!(Stats::new(&out[..out.len() - 1]).any(|s| s.is_err()));
        let entry = Dirent { qid: p.qid, offset: p.l[0], ty: 4, name: p.text(0) };
        let mut out = BytesMut::new();
        entry.encode(&mut out);
        prop_assert_eq!(out.len(), Dirent::size(p.text(0).len()));
        prop_assert_eq!(Dirents::new(&out).collect::<Result<Vec<_>, _>>(), Ok(vec![entry]));
        prop_assert!(Dirents::new(&out[..out.len() - 1]).all(|s| s.is_err()));
        for attr in [None, Some(p.attr())] {
            let mut out = BytesMut::new();
            let entry = DirentAttr { entry, attr };
            entry.encode(&mut out);
            prop_assert_eq!(DirentAttrs::new(&out).collect::<Result<Vec<_>, _>>(), Ok(vec![entry]));
            prop_assert!(DirentAttrs::new(&out[..out.len() - 1]).all(|s| s.is_err()));
        }
    }

    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200), ty: u8) {
        let mut frame = BytesMut::new();
        frame.put_u32_le(body.len() as u32 + 7);
        frame.put_u8(ty);
        frame.put_u16_le(1);
        frame.put_slice(&body);
        let frame = frame.freeze();
        for &dialect in Dialect::ALL {
            let _ = Request::decode(dialect, &frame);
            let _ = Reply::decode(dialect, &frame);
        }
        Stats::new(&body).for_each(drop);
        Dirents::new(&body).for_each(drop);
        DirentAttrs::new(&body).for_each(drop);
    }
}

/// Every valid message with bytes changed, cut and repeated: decoding may refuse, what it takes must encode again.
#[test]
fn mutated_frames_decode_or_are_refused() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % n as u64) as usize
    };
    let qid = Qid { ty: QidType(0), version: 1, path: 2 };
    let p = Parts {
        n: [1, 2, 3, 4, 5, 6],
        l: [1, 2, 3, 4, 5, 6],
        s: ["one".into(), "two".into(), "three".into(), String::new()],
        names: vec!["a".into(), "..".into()],
        qids: vec![qid; 3],
        qid,
        t: [Time::default(); 3],
        data: vec![7; 40],
    };
    let mut corpus = Vec::new();
    for (m, dialects) in p.requests() {
        let mut out = BytesMut::new();
        m.encode(dialects[0], 3, &mut out);
        corpus.push((dialects[0], out.to_vec()));
    }
    for (m, dialects) in p.replies() {
        let mut out = BytesMut::new();
        m.encode(dialects[0], 3, &mut out);
        corpus.push((dialects[0], out.to_vec()));
    }
    for _ in 0..20_000 {
        let (dialect, frame) = &corpus[next(corpus.len())];
        let mut frame = frame.clone();
        for _ in 0..=next(4) {
            let i = 4 + next(frame.len() - 4);
            match next(4) {
                0 => frame[i] = next(256) as u8,
                1 => frame[i] = 0xff,
                2 if frame.len() > 8 => frame.truncate(i.max(7)),
                _ => frame.extend_from_within(i..),
            }
        }
        let len = frame.len() as u32;
        frame[..4].copy_from_slice(&len.to_le_bytes());
        let frame = Bytes::from(frame);
        if let Ok((tag, m)) = Request::decode(*dialect, &frame) {
            m.encode(*dialect, tag, &mut BytesMut::new());
        }
        if let Ok((tag, m)) = Reply::decode(*dialect, &frame) {
            m.encode(*dialect, tag, &mut BytesMut::new());
        }
    }
}

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

#[test]
fn malformed_requests() {
    use Dialect::{L, Plain};
    for (dialect, frame, why) in [
        (L, "06000000 78 01", Why::Size),                                // no room for a tag
        (L, "0c000000 78 0100 01000000", Why::Size),                     // size is not the frame's
        (L, "0a000000 78 0100 010000", Why::Short),                      // Tclunk, fid of 3 bytes
        (L, "0c000000 78 0100 01000000 00", Why::Trailing),              // Tclunk, one byte more
        (L, "0b000000 79 0100 01000000", Why::Type(0x79)),               // an R to a server
        (L, "0b000000 ff 0100 01000000", Why::Type(0xff)),               // no such type
        (L, "0c000000 70 0100 01000000 00", Why::Type(0x70)),            // 9P2000's Topen in .L
        (Plain, "0f000000 0c 0100 01000000 00000000", Why::Type(0x0c)),  // .L's Tlopen in 9P2000
        (L, "11000000 6e 0100 01000000 02000000 1100", Why::Names),      // 17 names
        (L, "11000000 6e 0100 01000000 02000000 ffff", Why::Names),      // 65,535 names
        (L, "13000000 6e 0100 01000000 02000000 0100 ffff", Why::Short), // a name of 65,535 bytes
        (L, "17000000 76 0100 01000000 0000000000000000 ffffffff", Why::Short), // Twrite of 4 GiB
        (Plain, "14000000 6e 0100 01000000 02000000 0100 0100 ff", Why::Utf8), // a name that is no text
        (Plain, "0f000000 7e 0100 01000000 0200 0000", Why::Short),      // an empty stat record
        (Plain, "10000000 7e 0100 01000000 0300 0000 00", Why::Short),
    ] {
        assert_eq!(Request::decode(dialect, &hex(frame)).map_err(|e| e.why), Err(why), "{frame}");
    }
    let bytes = hex("14000000 6e 0100 01000000 02000000 0100 0100 ff");
    assert!(Request::decode(L, &bytes).is_ok(), ".L names are bytes");
}

#[test]
fn malformed_replies() {
    use Dialect::L;
    for (frame, why) in [
        ("0b000000 29 0100 ffffffff", Why::Short),      // Rreaddir of 4 GiB
        ("0b000000 75 0100 ffffffff", Why::Short),      // Rread of 4 GiB
        ("09000000 6f 0100 ffff", Why::Names),          // Rwalk of 65,535 qids
        ("09000000 17 0100 ffff", Why::Short),          // Rreadlink of 65,535 bytes
        ("0b000000 78 0100 01000000", Why::Type(0x78)), // a T to a client
    ] {
        assert_eq!(Reply::decode(L, &hex(frame)).map_err(|e| e.why), Err(why), "{frame}");
    }
}

#[test]
fn frame_sizes() {
    for (bytes, msize, expect) in [
        ("0700", 256, Ok(None)),
        ("07000000", 256, Ok(Some(7))),
        ("06000000", 256, Err(Why::Size)),
        ("00010000", 256, Ok(Some(256))),
        ("01010000", 256, Err(Why::Size)),
        ("ffffffff", 256, Err(Why::Size)),
    ] {
        assert_eq!(frame_len(&hex(bytes), msize), expect, "{bytes}");
    }
}

#[test]
fn versions() {
    for (asked, answer) in [
        ("9P2000", Some(Dialect::Plain)),
        ("9P2000.L", Some(Dialect::L)),
        ("9P2000.L.ipos", Some(Dialect::Ipos)),
        ("9P2000.L.moon", Some(Dialect::L)),
        ("9P2000.u", Some(Dialect::Plain)),
        ("9P2000.", Some(Dialect::Plain)),
        ("9P1999", None),
        ("", None),
        ("unknown", None),
    ] {
        assert_eq!(Dialect::negotiate(asked.as_bytes()), answer, "{asked}");
    }
}

#[test]
fn fsync_with_and_without_its_word() {
    let bytes = hex("0b000000 32 0100 05000000");
    let (_, m) = Request::decode(Dialect::L, &bytes).unwrap();
    assert_eq!(m, Request::Fsync { fid: 5, data_only: DataOnly(0) });
    let bytes = hex("0f000000 32 0100 05000000 01000000");
    let (_, m) = Request::decode(Dialect::L, &bytes).unwrap();
    assert_eq!(m, Request::Fsync { fid: 5, data_only: DataOnly(1) });
}
