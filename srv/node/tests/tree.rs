//! The files of self/ as a caller uses them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fs_ninep::{Caller, Error, Kind, Name, OpenFile, OpenFlags, PeerId, Tree};
use srv_node::{Config, Level, Log, Node};

async fn open(tree: &Arc<dyn Tree>, caller: &Caller, path: &str, flags: OpenFlags) -> Result<Arc<dyn OpenFile>, Error> {
    tree.attach(caller, "").await?.walk(&Name::path(path)?).await.end?.open(flags).await
}

async fn read(tree: &Arc<dyn Tree>, path: &str) -> String {
    let file = open(tree, &Caller::owner(1000), path, OpenFlags::RDONLY).await.unwrap();
    String::from_utf8(file.read(0, 1 << 20).await.unwrap().to_vec()).unwrap()
}

async fn ctl(tree: &Arc<dyn Tree>, lines: &str) -> Result<(), Error> {
    let file = open(tree, &Caller::owner(1000), "ctl", OpenFlags::WRONLY).await?;
    file.write(0, Bytes::from(lines.replace(';', "\n") + "\n")).await.map(drop)
}

fn node() -> (Arc<Node>, Arc<dyn Tree>, Log) {
    let log = Log::new(Level::Info, |_| {});
    let node = Node::new(Config {
        id: PeerId::new("12D3KooWme"),
        name: "me".into(),
        version: "0.1.0".into(),
        home: "/home/the user/.ipos".into(),
        roles: vec!["mount".into(), "cpu".into()],
        limits: vec![("peers_max".into(), 64), ("jobs_max".into(), 16)],
        addrs: Arc::new(|| vec!["/ip4/127.0.0.1/tcp/1".into(), "/ip6/::1/tcp/1".into()]),
        counters: Arc::new(|| vec![("sessions".into(), 3)]),
        log: log.clone(),
    });
    let tree = node.tree();
    (node, tree, log)
}

#[tokio::test]
async fn what_it_says_of_itself() {
    let (node, tree, log) = node();
    for (path, want) in [
        ("id", "12D3KooWme\n"),
        ("addrs", "/ip4/127.0.0.1/tcp/1\n/ip6/::1/tcp/1\n"),
        ("name", "me\n"),
        ("roles", "mount\ncpu\n"),
        ("limits", "peers_max 64\njobs_max 16\n"),
        ("log", ""),
        ("error", ""),
    ] {
        assert_eq!(read(&tree, path).await, want, "{path}");
    }
    let pid = std::process::id();
    let status = "state starting\npid PID\nversion 0.1.0\nhome '/home/the user/.ipos'\nlog info\n";
    let (uptime, rest): (Vec<String>, Vec<String>) =
        read(&tree, "status").await.split_inclusive('\n').map(str::to_owned).partition(|l| l.starts_with("uptime_s "));
    assert_eq!(rest.concat(), status.replace("PID", &pid.to_string()));
    assert!(uptime.len() == 1 && uptime[0][9..].trim().parse::<u64>().unwrap() < 600);
    let metrics = read(&tree, "metrics").await;
    let value = |name: &str| {
        let line = metrics.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.trim().parse::<u64>().unwrap()
    };
    assert!(value("rss_kib ") > 100 && value("threads ") >= 1 && value("open_files ") >= 3);
    assert!(value("rss_peak_kib ") >= value("rss_kib "));
    assert_eq!(value("sessions "), 3);
    value("cpu_user_ms ");
    value("cpu_sys_ms ");
    log.line(Level::Warn, "net", "something");
    assert!(read(&tree, "log").await.ends_with("Z warn net: something\n"));
    node.running();
    assert!(read(&tree, "status").await.starts_with("state running\n"));
}

#[tokio::test]
async fn ctl_and_event() {
    let (node, tree, log) = node();
    let event = open(&tree, &Caller::owner(1000), "event", OpenFlags::RDONLY).await.unwrap();
    for (lines, want) in [
        ("halt", "\"halt\" is not understood; write \"log LEVEL\" or \"stop\""),
        ("stop now", "\"stop now\" is not understood"),
        ("log", "\"log\" is not understood"),
        ("log loud", "\"loud\" is no level; write \"log error|warn|info|debug\""),
        ("log debug;stop;halt", "\"halt\" is not understood"),
    ] {
        let e = ctl(&tree, lines).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Invalid);
        assert!(e.to_string().starts_with(want), "{lines}: {e}");
        assert_eq!(read(&tree, "error").await, format!("{e}\n"));
        assert_eq!(log.level(), Level::Info, "all of a write or none");
    }
    ctl(&tree, "log debug").await.unwrap();
    assert_eq!(log.level(), Level::Debug);
    node.running();
    let waiter = node.clone();
    let asked = tokio::spawn(async move { waiter.stop_asked().await });
    tokio::task::yield_now().await;
    assert!(!asked.is_finished());
    ctl(&tree, "stop").await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap().unwrap();
    ctl(&tree, "stop").await.unwrap();
    node.running();
    assert!(read(&tree, "status").await.starts_with("state stopping\n"), "a stop is not taken back");
    node.event("two\nlines");
    let text = event.read(0, 1 << 16).await.unwrap();
    assert_eq!(text, "log debug\nstate running\nstate stopping\ntwo\\nlines\n");
}

#[tokio::test]
async fn others_see_who_it_is_and_not_how_it_does() {
    let (_node, tree, _) = node();
    let peer = Caller::peer(PeerId::new("12D3KooWann"));
    for (path, flags, seen) in [
        ("id", OpenFlags::RDONLY, true),
        ("addrs", OpenFlags::RDONLY, true),
        ("name", OpenFlags::RDONLY, true),
        ("roles", OpenFlags::RDONLY, true),
        ("status", OpenFlags::RDONLY, false),
        ("ctl", OpenFlags::WRONLY, false),
        ("error", OpenFlags::RDONLY, false),
        ("limits", OpenFlags::RDONLY, false),
        ("metrics", OpenFlags::RDONLY, false),
        ("log", OpenFlags::RDONLY, false),
        ("event", OpenFlags::RDONLY, false),
    ] {
        assert_eq!(open(&tree, &peer, path, flags).await.is_ok(), seen, "{path}");
        assert!(open(&tree, &Caller::owner(1000), path, flags).await.is_ok(), "{path}");
    }
}
