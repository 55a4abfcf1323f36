//! Conversations with a server, as text.
//!
//! `> TAG MESSAGE` sends (all that stand together go out in one piece), `< TAG ANSWER` is what must come next, `! event
//! TEXT` posts an event, `! gate` lets one slow walk through, `! end` closes the connection and `! dead` waits until the
//! server has.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fs_ninep::wire::{
    self, DataOnly, Dialect, Dirents, Few, NOFID, NONUNAME, NOTAG, Reply, Request, Stat, Stats, Uid, Wstat,
};
use fs_ninep::{Caller, Limits, Result, Time, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::memory::Memory;

/// No test waits longer for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Peer {
    stream: DuplexStream,
    dialect: Dialect,
    served: Option<JoinHandle<Result<()>>>,
}

impl Peer {
    pub fn new(tree: &Arc<Memory>, limits: Limits) -> Peer {
        let (stream, far) = tokio::io::duplex(1 << 20);
        let served = tokio::spawn(serve(far, tree.clone(), Caller::none(), limits));
        Peer { stream, dialect: Dialect::L, served: Some(served) }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await; // a server that hung up is told by what is read
    }

    /// The next answer as text; none when the server has hung up.
    pub async fn answer(&mut self) -> Option<String> {
        let mut head = [0; 4];
        timeout(PATIENCE, self.stream.read_exact(&mut head)).await.expect("an answer in time").ok()?;
        let mut frame = vec![0; u32::from_le_bytes(head) as usize];
        frame[..4].copy_from_slice(&head);
        timeout(PATIENCE, self.stream.read_exact(&mut frame[4..])).await.expect("a whole answer").ok()?;
        let frame = Bytes::from(frame);
        let (tag, reply) = Reply::decode(self.dialect, &frame).expect("an answer that decodes");
        let tag = if tag == NOTAG { "-".into() } else { tag.to_string() };
        Some(format!("{tag} {}", show(&reply)))
    }

    /// Why the server ended the connection, once it has.
    pub async fn end(&mut self) -> Result<()> {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the server hangs up");
        timeout(PATIENCE, self.served.take().unwrap()).await.expect("serve returns").unwrap()
    }

    /// Whether the server has given up on this connection.
    pub fn is_ended(&self) -> bool {
        self.served.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How `serve` ended.
    pub async fn outcome(&mut self) -> Result<()> {
        timeout(PATIENCE, self.served.take().unwrap()).await.expect("serve returns").unwrap()
    }

    /// Closes the connection and waits until the server is done with it.
    pub async fn hang_up(mut self) -> Result<()> {
        self.stream.shutdown().await.unwrap();
        self.outcome().await
    }

    /// Closes the connection, however the server took what was sent; a panic there fails the test.
    pub async fn hang_up_early(mut self) {
        let _ = self.stream.shutdown().await; // it may have hung up first
        let _ = self.outcome().await; // either way is right
    }

    pub fn encode(&mut self, line: &str, out: &mut BytesMut) {
        let (tag, message) = line.split_once(' ').unwrap();
        let tag = if tag == "-" { NOTAG } else { tag.parse().unwrap() };
        if let Some(version) = message.strip_prefix("version ").and_then(|m| m.split(' ').nth(1)) {
            self.dialect = Dialect::negotiate(version.as_bytes()).unwrap_or(Dialect::L);
        }
        parse(message, |m| m.encode(self.dialect, tag, out));
    }
}

/// Runs `script` against a new tree, on a runtime of its own.
pub fn run(script: &str) {
    run_with(Limits::default(), |_| {}, script);
}

pub fn run_with(limits: Limits, prepare: impl FnOnce(&Memory), script: &str) {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let tree = Memory::new();
        prepare(&tree);
        let mut peer = Peer::new(&tree, limits);
        let mut out = BytesMut::new();
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (what, rest) = line.split_at(1);
            let rest = rest.trim();
            if what != ">" && !out.is_empty() {
                peer.send(&out.split()).await;
            }
            match (what, rest) {
                (">", message) => peer.encode(message, &mut out),
                ("<", expect) => {
                    let got = peer.answer().await.unwrap_or_else(|| "hung up".into());
                    assert_eq!(got, expect, "in\n{script}");
                }
                ("!", "gate") => tree.shared.gate.add_permits(1),
                ("!", "end") => peer.stream.shutdown().await.unwrap(),
                ("!", "dead") => assert!(peer.end().await.is_err(), "in\n{script}"),
                ("!", event) => tree.post(event.strip_prefix("event ").unwrap()),
                _ => panic!("no such line: {line}"),
            }
        }
        drop(peer.stream);
        if let Some(served) = peer.served {
            let _ = timeout(PATIENCE, served).await.expect("serve ends with its connection");
        }
        assert_eq!(tree.shared.open.load(std::sync::atomic::Ordering::Relaxed), 0, "every open file was closed");
    });
}

fn parse(message: &str, then: impl FnOnce(&Request)) {
    let words: Vec<&str> = message.split(' ').collect();
    let n = |i: usize| words.get(i).map_or(0, |w| w.parse::<u64>().unwrap_or_else(|_| panic!("{message}")));
    let f = |i| n(i) as u32;
    let s = |i: usize| words.get(i).map_or(&b""[..], |w| w.as_bytes());
    let fid = f(1);
    use Request as T;
    let request = match words[0] {
        "version" => T::Version { msize: fid, version: s(2) },
        "auth" => T::Auth { afid: fid, uname: b"glenda", aname: b"", n_uname: Uid(NONUNAME) },
        "attach" => T::Attach { fid, afid: NOFID, uname: b"glenda", aname: s(2), n_uname: Uid(NONUNAME) },
        "attachafid" => T::Attach { fid, afid: f(2), uname: b"glenda", aname: b"", n_uname: Uid(NONUNAME) },
        "flush" => T::Flush { oldtag: fid as u16 },
        "walk" => {
            let names = Few::collect(words[3..].iter().map(|w| w.trim_matches('\'').as_bytes())).unwrap();
            T::Walk { fid, newfid: f(2), names }
        }
        "open" => T::Open { fid, mode: f(2) as u8 },
        "create" => T::Create { fid, name: s(2), perm: f(3), mode: f(4) as u8 },
        "read" => T::Read { fid, offset: n(2), count: f(3) },
        "write" => T::Write { fid, offset: n(2), data: Bytes::from(words[3..].join(" ").replace('$', "\n")) },
        "clunk" => T::Clunk { fid },
        "remove" => T::Remove { fid },
        "stat" => T::Stat { fid },
        "wstatkeep" => T::Wstat { fid, stat: Wstat(Stat::KEEP) },
        "wstatname" => T::Wstat { fid, stat: Wstat(Stat { name: s(2), ..Stat::KEEP }) },
        "wstatlength" => T::Wstat { fid, stat: Wstat(Stat { length: n(2), ..Stat::KEEP }) },
        "wstatmode" => T::Wstat { fid, stat: Wstat(Stat { mode: f(2), ..Stat::KEEP }) },
        "wstatboth" => T::Wstat { fid, stat: Wstat(Stat { name: s(2), mode: 0o600, ..Stat::KEEP }) },
        "statfs" => T::Statfs { fid },
        "lopen" => T::Lopen { fid, flags: f(2) },
        "lcreate" => T::Lcreate { fid, name: s(2), flags: f(3), mode: 0o644, gid: 0 },
        "symlink" => T::Symlink { dfid: fid, name: s(2), target: s(3), gid: 0 },
        "mknod" => T::Mknod { dfid: fid, name: s(2), mode: 0, major: 0, minor: 0, gid: 0 },
        "rename" => T::Rename { fid, dfid: f(2), name: s(3) },
        "readlink" => T::Readlink { fid },
        "getattr" => T::Getattr { fid, mask: wire::mask::BASIC },
        "truncate" => T::Setattr {
            fid,
            valid: wire::mask::SIZE,
            mode: 0,
            uid: 0,
            gid: 0,
            size: n(2),
            atime: Time::default(),
            mtime: Time::default(),
        },
        "xattrwalk" => T::Xattrwalk { fid, newfid: f(2), name: s(3) },
        "xattrcreate" => T::Xattrcreate { fid, name: s(2), size: 1, flags: 0 },
        "readdir" => T::Readdir { fid, offset: n(2), count: f(3) },
        "fsync" => T::Fsync { fid, data_only: DataOnly(0) },
        "lock" => T::Lock { fid, ty: 1, flags: 0, start: 0, len: 0, proc_id: 1, client_id: b"me" },
        "getlock" => T::Getlock { fid, ty: 1, start: 0, len: 0, proc_id: 1, client_id: b"me" },
        "mkdir" => T::Mkdir { dfid: fid, name: s(2), mode: 0o755, gid: 0 },
        "renameat" => T::Renameat { olddirfid: fid, oldname: s(2), newdirfid: f(3), newname: s(4) },
        "unlinkat" => T::Unlinkat { dirfid: fid, name: s(2), flags: f(3) },
        "link" => T::Link { dfid: fid, fid: f(2), name: s(3) },
        other => panic!("no such message: {other}"),
    };
    then(&request);
}

/// The variant's name and what tests ask about.
fn show(reply: &Reply) -> String {
    use Reply as R;
    let text = |b: &[u8]| String::from_utf8_lossy(b).replace('\n', "$");
    match reply {
        R::Version { msize, version } => format!("Version {msize} {}", text(version)),
        R::Walk { qids } => format!("Walk {}", qids.len()),
        R::Read { data } => match Stats::new(data).collect::<std::result::Result<Vec<_>, _>>() {
            Ok(stats) if !stats.is_empty() => {
                format!("Read {}", stats.iter().map(|s| text(s.name)).collect::<Vec<_>>().join(" "))
            }
            _ => format!("Read {}", text(data)).trim_end().into(),
        },
        R::Readdir { data } => {
            let names = Dirents::new(data).map(|e| e.map(|e| text(e.name)).unwrap());
            format!("Readdir {}", names.collect::<Vec<_>>().join(" ")).trim_end().into()
        }
        R::Write { count } => format!("Write {count}"),
        R::Error { ename } => format!("Error {}", text(ename)),
        R::Lerror { ecode, ename } if ename.0.is_empty() => format!("Lerror {ecode}"),
        R::Lerror { ecode, ename } => format!("Lerror {ecode} {}", text(ename.0)),
        R::Getattr { attr, .. } => format!("Getattr {:o} {}", attr.mode, attr.size),
        R::Stat { stat } => format!("Stat {} {:o} {}", text(stat.0.name), stat.0.mode, stat.0.length),
        R::Readlink { target } => format!("Readlink {}", text(target)),
        R::Lopen { iounit, .. } => format!("Lopen {iounit}"),
        R::Open { iounit, .. } => format!("Open {iounit}"),
        other => format!("{other:?}").split_whitespace().next().unwrap().into(),
    }
}
