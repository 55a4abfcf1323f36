//! A node's cpu with a directory of programs and one of work behind capabilities, used as a shell uses it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use fs_host::{Host, HostConfig};
use fs_ninep::{
    Call, Caller, Client, ClientConfig, Error, File, Kind, Limits, Name, OpenFile, OpenFlags, PeerId, Remote, Result,
    Tree,
};
use srv_cpu::{Config, Cpu};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// The programs of tests/programs, built once: the directory that holds NAME.wasm.
pub fn programs() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/programs/build.sh");
        let built = Command::new(script).output().unwrap();
        assert!(built.status.success(), "{script}: {}", String::from_utf8_lossy(&built.stderr));
        PathBuf::from(String::from_utf8(built.stdout).unwrap().trim())
    })
}

/// The neighbours whose capabilities a job mounts: each attach is a 9P connection of its own to a host directory.
pub struct Neighbour {
    dirs: Vec<(&'static str, PathBuf, bool)>,
    connections: Mutex<Vec<JoinHandle<Result<()>>>>,
    down: AtomicBool,
}

impl Neighbour {
    /// Cuts every connection; a new one is refused unless it is only a `hiccup`.
    pub fn die(&self, hiccup: bool) {
        self.down.store(!hiccup, Ordering::Relaxed);
        self.connections.lock().unwrap().drain(..).for_each(|c| c.abort());
    }
}

impl Remote for Neighbour {
    fn attach<'a>(&'a self, _peer: &'a PeerId, aname: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            if self.down.load(Ordering::Relaxed) {
                return Err(Kind::Unreachable.into());
            }
            let found = self.dirs.iter().find(|(name, ..)| aname == format!("cap/{name}#secret"));
            let (_, path, readonly) = found.ok_or_else(|| Error::new(Kind::Denied, format!("{aname}: no such cap")))?;
            let host = Host::open(path, HostConfig { readonly: *readonly, ..HostConfig::default() })?;
            let (ours, theirs) = tokio::io::duplex(1 << 18);
            let served = fs_ninep::serve(theirs, Arc::new(host), Caller::owner(0), Limits::default());
            self.connections.lock().unwrap().push(tokio::spawn(served));
            Client::connect(ours, ClientConfig::default()).await?.attach("", "").await
        })
    }
}

/// A node.
pub struct Node {
    pub cpu: Arc<Cpu>,
    pub neighbour: Arc<Neighbour>,
    pub dir: TempDir,
    pub me: User,
}

/// Somebody who uses the node's files.
#[derive(Clone)]
pub struct User {
    root: Arc<dyn File>,
}

impl Node {
    pub async fn new() -> Node {
        Node::with(srv_cpu::Limits::default()).await
    }

    pub async fn with(limits: srv_cpu::Limits) -> Node {
        let dir = tempfile::tempdir().unwrap();
        for name in ["work", "mods"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("canary"), "alive").unwrap();
        std::fs::write(dir.path().join("work/book"), "one\ntwo words\nthree\n").unwrap();
        let neighbour = Arc::new(Neighbour {
            dirs: vec![
                ("programs", programs().to_owned(), true),
                ("work", dir.path().join("work"), false),
                ("mods", dir.path().join("mods"), true),
            ],
            connections: Mutex::default(),
            down: AtomicBool::new(false),
        });
        let config = Config {
            name: "ann".into(),
            dir: dir.path().join("cpu"),
            // The second word means nothing to the worker: it marks this node's processes.
            worker: vec![env!("CARGO_BIN_EXE_cpu-worker").into(), dir.path().into()],
            limits,
        };
        let cpu = Cpu::start(config, neighbour.clone()).unwrap();
        let me = User::new(&cpu.tree(), Caller::owner(0)).await;
        Node { cpu, neighbour, dir, me }
    }

    pub async fn user(&self, peer: &str) -> User {
        User::new(&self.cpu.tree(), Caller::peer(PeerId::new(peer))).await
    }

    /// Writes a module, given as text, where jobs see it as /m/NAME.
    pub fn module(&self, name: &str, wat: &str) {
        self.bytes(name, &wat::parse_str(wat).unwrap());
    }

    pub fn bytes(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dir.path().join("mods").join(name), bytes).unwrap();
    }

    /// This node's worker processes: the worker itself, those that wait, and those with a job.
    pub fn processes(&self) -> usize {
        let mark = self.dir.path().to_str().unwrap().as_bytes().to_vec();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let ours = all.filter(|entry| {
            let status = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let dead = status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
            let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            !dead && cmdline.windows(mark.len()).any(|w| w == mark)
        });
        ours.count()
    }

    /// That nothing is left of the jobs run, and that the next one is well.
    pub async fn well(&self) {
        assert_eq!(std::fs::read_to_string(self.dir.path().join("canary")).unwrap(), "alive");
        let n = self.me.job().await;
        self.me.start(n, "/p/exit.wasm 7").await;
        let line = self.me.wait(n).await;
        assert!(line.starts_with("exited 7 "), "{line}");
        self.me.echo(&format!("{n}/ctl"), "free").await.unwrap();
        let left = self.processes();
        assert!(left <= 5, "the worker, at most four that wait: {left}");
    }

    /// Lets the neighbour be reached again.
    pub fn revive(&self) {
        self.neighbour.down.store(false, Ordering::Relaxed);
    }
}

impl User {
    async fn new(tree: &Arc<dyn Tree>, caller: Caller) -> User {
        User { root: tree.attach(&caller, "").await.unwrap() }
    }

    pub async fn file(&self, path: &str) -> Result<Arc<dyn File>> {
        self.root.walk(&Name::path(&format!("ann/{path}"))?).await.end
    }

    pub async fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        self.file(path).await?.open(flags).await
    }

    /// As cat(1) reads: from the start to the end.
    pub async fn cat(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(path).await?).into_owned())
    }

    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let open = self.open(path, OpenFlags::RDONLY).await?;
        let mut all = Vec::new();
        loop {
            let piece = open.read(all.len() as u64, 65536).await?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(&piece);
        }
    }

    /// As `echo TEXT >PATH` does it.
    pub async fn echo(&self, path: &str, text: &str) -> Result<()> {
        let open = self.open(path, OpenFlags(OpenFlags::WRONLY.0 | OpenFlags::TRUNC)).await?;
        open.write(0, Bytes::from(format!("{text}\n"))).await?;
        open.flush().await
    }

    /// `n=$(cat clone)`, and the programs at /p, the work at /w, modules at /m.
    pub async fn job(&self) -> u64 {
        let n = self.cat("clone").await.unwrap().trim().parse().unwrap();
        let cap = |name, at| format!("mount ipos:12D3KooWneighbour/{name}#secret {at}");
        let lines = [cap("programs", "/p"), cap("work", "/w"), cap("mods", "/m")].join("\n");
        self.echo(&format!("{n}/ns"), &lines).await.unwrap();
        n
    }

    pub async fn ctl(&self, n: u64, text: &str) -> Result<()> {
        self.echo(&format!("{n}/ctl"), text).await
    }

    pub async fn start(&self, n: u64, words: &str) {
        self.ctl(n, &format!("exec {words}")).await.unwrap();
    }

    pub async fn wait(&self, n: u64) -> String {
        let path = format!("{n}/wait");
        let line = tokio::time::timeout(Duration::from_secs(60), self.cat(&path));
        line.await.expect("the job ends").unwrap()
    }

    pub async fn stdout(&self, n: u64) -> String {
        self.cat(&format!("{n}/stdout")).await.unwrap()
    }

    /// Runs a job to its end: the first two words of `wait`, and its stdout.
    pub async fn run(&self, words: &str) -> (String, String) {
        let n = self.job().await;
        self.start(n, words).await;
        (first_two(&self.wait(n).await), self.stdout(n).await)
    }
}

pub fn first_two(line: &str) -> String {
    line.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

pub fn kind<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|e| e.kind())
}
