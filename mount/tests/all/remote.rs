//! A tree of another machine on a mount: the 9P server and client of fs/ninep between.

use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fs_host::{Host, HostConfig};
use fs_ninep::{Call, Caller, Client, ClientConfig, File, Limits, Tree};
use mount::Options;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::mounted::{Mounted, mounted_later, said};
use super::tree::{Node, ctl, dir, event, root, talk, value};

struct Rooted(Arc<dyn File>);

impl Tree for Rooted {
    fn attach<'a>(&'a self, _caller: &'a Caller, _aname: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// Serves `tree` on a thread of its own, and mounts what a client sees of it.
fn remote(name: &str, tree: Arc<dyn Tree>) -> Option<Mounted> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    [&ours, &theirs].iter().for_each(|s| s.set_nonblocking(true).unwrap());
    std::thread::spawn(move || {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        rt.block_on(async {
            let stream = tokio::net::UnixStream::from_std(theirs).unwrap();
            let _ = fs_ninep::serve(stream, tree, Caller::owner(0), Limits::default()).await;
        });
    });
    mounted_later(name, Options::default(), move || {
        Box::pin(async move {
            let stream = tokio::net::UnixStream::from_std(ours).unwrap();
            let client = Client::connect(stream, ClientConfig::default()).await.unwrap();
            client.attach("test", "").await.unwrap()
        })
    })
}

fn live(name: &str, node: Arc<Node>) -> Option<Mounted> {
    remote(name, Arc::new(Rooted(root(node))))
}

#[test]
fn a_signal_ends_a_read_on_the_other_machine() {
    let e = event();
    let top = dir([("event", e.clone()), ("v", value("v\n"))]);
    let Some(m) = live("a_signal_ends_a_read_on_the_other_machine", top) else { return };
    let other = m.command("head -n1 event").spawn().unwrap();
    e.bus().wait_for_readers(1);
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut cat = Command::new("cat").arg(m.path("event")).spawn().unwrap();
        e.bus().wait_for_readers(2);
        kill(Pid::from_raw(cat.id() as i32), signal).unwrap();
        assert_eq!(cat.wait().unwrap().signal(), Some(signal as i32));
        e.bus().wait_for_readers(1);
    }
    m.check("cat v", "v");
    e.bus().publish("still here\n");
    assert_eq!(said(&other.wait_with_output().unwrap()), "still here\n");
}

#[test]
fn live_files_of_another_machine_behave_as_here() {
    let c = ctl();
    let top = dir([("ctl", c.clone()), ("v", value("first\nsecond\n")), ("talk", talk()), ("d", dir([]))]);
    let Some(m) = live("live_files_of_another_machine_behave_as_here", top) else { return };
    for (script, want) in [
        ("cat v; stat -c %s v; head -n1 v", "first\nsecond\n13\nfirst"),
        ("echo x > ctl; echo y >> ctl; : > ctl", ""),
        ("bash -c 'echo bad > ctl' 2>&1 | sed 's/.*: //'", "Invalid argument"),
        ("cat none 2>&1 | sed 's/.*: //'", "No such file or directory"),
        ("exec 3<>talk; echo hello >&3; head -c6 <&3", "hello"),
        ("mkdir d/e && ls d", "e"),
    ] {
        m.check(script, want);
    }
    assert_eq!(c.lines(), ["x", "y"]);
}

#[test]
fn a_long_listing_of_another_machine_is_whole() {
    let top = dir([]);
    let all: Vec<_> = (0..1000).map(|n| (format!("f{n:04}"), value("v\n"))).collect();
    all.iter().for_each(|(name, node)| top.add(name, node));
    let Some(m) = live("a_long_listing_of_another_machine_is_whole", top) else { return };
    m.check("ls -l | grep -c '^-r--r--r-- 1 .* 2 '", "1000");
    let looks: usize = all.iter().map(|(_, node)| node.looks.load(Ordering::Relaxed)).sum();
    println!("{looks} attributes were asked for by ls -l of 1000");
    // Again for a few whose ten milliseconds passed before ls came to them.
    assert!(looks < 1500, "{looks}");
}

#[test]
fn plain_files_of_another_machine_are_whole() {
    let host = tempfile::tempdir().unwrap();
    let tree = Arc::new(Host::open(host.path(), HostConfig::default()).unwrap());
    let Some(m) = remote("plain_files_of_another_machine_are_whole", tree) else { return };
    let bytes: Vec<u8> = (0..5_000_011u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(host.path().join("there"), &bytes).unwrap();
    assert!(fs::read(m.path("there")).unwrap() == bytes);
    fs::write(m.path("here"), &bytes).unwrap();
    assert!(fs::read(host.path().join("here")).unwrap() == bytes);
    m.check(
        "git init -q . && git config user.name a && git config user.email a@b && git add . && git commit -qm one && \
         git fsck 2>&1 && git status --porcelain && mkdir s && mv here s/ && ln s/here s/too && stat -c %h s/too && rm -r s && ls",
        "2\nthere",
    );
}
