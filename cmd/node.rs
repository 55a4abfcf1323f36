//! The node: a list, each line of which builds one part and hands it on. `ipos node` runs it alone, `ipos mount` with a
//! mount.
//!
//! One runtime of one thread carries everything: a call between two nodes costs each of them one wake-up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fs_ninep::{Call, Caller, File, Kind, Limits, PeerId, Remote, Stream, Transport, Tree, listen_unix, serve};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{User, geteuid};
use ns::{Namespace, Resolve, redact};
use srv_cpu::Cpu;
use srv_export::Exports;
use srv_keys::Keys;
use srv_net::{Incoming, Net};
use srv_node::{Level, Log, Node as Me};
use srv_peers::Peers;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Error;
use crate::config::Config;
use crate::home::{Hold, Home};
use crate::ipos::block_on;

/// Run the node without a mount
///
/// Prints the multiaddrs it can be dialled at once it is ready, and runs until SIGINT, SIGTERM, SIGHUP or stop in self/ctl.
#[derive(Debug, clap::Args)]
#[command(name = "node")]
pub(crate) struct NodeVerb {
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// Connections of peers that are served at once, and those of one peer: a node keeps one with each, and a second for a
/// while when the first was lost on one side only.
const SESSIONS_MAX: usize = 1024;
const SESSIONS_PEER_MAX: usize = 8;

/// How long the jobs have to end when the node does: ipos-node(8) promises 5 s in all.
const JOBS_END: Duration = Duration::from_secs(3);

/// What the command line sets in place of the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// The node's own name [default: the configuration's, else the end of its peer id]
    #[arg(long)]
    name: Option<String>,
    /// Listen there; may be repeated [default: the configuration's list, else TCP and QUIC on free ports]
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
}

impl Settings {
    /// The configuration of `home` with these in place of what it sets.
    pub(crate) fn config(&self, home: &Home) -> Result<Config, Error> {
        Config::read(&home.config())?.with(self.name.as_deref(), &self.listen)
    }

    /// Whether any is given: a node that runs already takes none.
    pub(crate) fn given(&self) -> bool {
        self.name.is_some() || !self.listen.is_empty()
    }
}

impl NodeVerb {
    pub(crate) fn run(&self, home: &Home) -> Result<ExitCode, Error> {
        let config = self.settings.config(home)?;
        block_on(async {
            let mut end = End::new()?;
            let node = Node::start(home, &config).await?;
            node.addrs().iter().for_each(|a| println!("{a}"));
            ready();
            tokio::select! {
                () = end.wait() => {}
                () = node.stop_asked() => {}
            }
            node.stop().await;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// SIGINT, SIGTERM and SIGHUP (the terminal is gone), from the moment this is made.
pub(crate) struct End {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl End {
    pub(crate) fn new() -> Result<End, Error> {
        let listen = |kind| signal(kind).map_err(Error::part("signals"));
        Ok(End {
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
            _ = self.hup.recv() => {}
        }
    }
}

/// Tells the service manager, where one started this process, that it is ready: sd_notify(3), whose socket may be a path or,
/// beginning with `@`, an abstract name.
pub(crate) fn ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = UnixDatagram::unbound().and_then(|socket| match path.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.send_to_addr(b"READY=1", &SocketAddr::from_abstract_name(name)?),
        None => socket.send_to(b"READY=1", &path),
    });
    if let Err(e) = told {
        eprintln!("ipos: {}: {e}", path.display());
    }
}

/// A running node. [`Node::stop`] ends it.
pub(crate) struct Node {
    _hold: Hold,
    home: Home,
    me: Arc<Me>,
    net: Arc<Net>,
    cpu: Arc<Cpu>,
    exports: Arc<Exports>,
    ns: Arc<Namespace>,
    tasks: JoinSet<()>,
}

impl Node {
    /// Builds every part and joins them.
    /// # Errors
    /// `Taken` where another process runs a node on `home`; the first part that would not start.
    pub(crate) async fn start(home: &Home, config: &Config) -> Result<Node, Error> {
        let hold = home.hold()?;
        descriptors();
        let keys = Keys::open(&home.keys()).map_err(Error::part("keys"))?;
        let (net, incoming) = Net::start(network(config, &keys)).await.map_err(Error::part("net"))?;
        let counts = Arc::<Counts>::default();
        let me = Me::new(itself(home, config, &keys, &net, counts.clone()));
        let table = srv_peers::Config { path: home.path().join("peers") };
        let peers = Peers::new(net.clone(), table).map_err(Error::part("peers"))?;
        let cpu = Cpu::start(jobs(home, config, &keys), peers.clone()).map_err(Error::part("cpu"))?;
        // Each tree once: the text in an `error` file is of the tree it is read through.
        let (itself, jobs) = (me.tree(), cpu.tree());
        let shown = vec![("self".into(), itself.clone()), ("cpu".into(), jobs.clone())];
        let exports = Exports::new(shown, grants(home, &keys, &peers)).map_err(Error::part("export"))?;
        peers.show(exports.outside());
        let devices = [
            ("self", itself),
            ("keys", keys.tree()),
            ("peers", peers.tree()),
            ("n", peers.names()),
            ("export", exports.tree()),
            ("cpu", jobs),
        ];
        let ns = name_space(home, &name(config, &keys), &devices, peers).await?;
        let mut tasks = JoinSet::new();
        let socket = listen_unix(&home.socket(), ns.clone(), geteuid().as_raw(), Limits::default());
        let socket = socket.map_err(Error::part("9p.sock"))?;
        tasks.spawn(async { socket.await.unwrap_or_else(|e| eprintln!("ipos: 9p.sock: {e}")) });
        tasks.spawn(answer(incoming, exports.outside(), counts));
        me.running();
        Ok(Node { _hold: hold, home: home.clone(), me, net, cpu, exports, ns, tasks })
    }

    /// The root of the owner's name space, and word of its changes.
    pub(crate) fn name_space(&self) -> (Arc<dyn File>, watch::Receiver<u64>) {
        (self.ns.root(), self.ns.changes())
    }

    /// Waits until its owner writes `stop` to self/ctl.
    pub(crate) async fn stop_asked(&self) {
        self.me.stop_asked().await;
    }

    /// Its name space is mounted at `dir` from now on: no directory in it is shown to others.
    pub(crate) fn mounted(&self, dir: &Path) {
        self.exports.mounted(dir);
    }

    /// The addresses the node can be dialled at.
    pub(crate) fn addrs(&self) -> Vec<String> {
        self.net.addrs()
    }

    /// Ends it: no more callers, then what they may have left.
    pub(crate) async fn stop(mut self) {
        self.me.stopping();
        self.tasks.shutdown().await;
        if tokio::time::timeout(JOBS_END, self.cpu.stop()).await.is_err() {
            eprintln!("ipos: jobs did not end in {} s", JOBS_END.as_secs());
        }
        let _never_there = std::fs::remove_file(self.home.socket());
    }
}

/// Connections of peers, for self/metrics.
#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    fn told(&self) -> Vec<(String, u64)> {
        let [taken, ended, refused] = [&self.taken, &self.ended, &self.refused].map(|n| n.load(Relaxed));
        let told = [("sessions", taken - ended), ("sessions_total", taken), ("sessions_refused", refused)];
        told.map(|(name, n)| (name.to_owned(), n)).into()
    }
}

/// Serves what was granted to whoever connects. A connection over a limit is dropped, which resets its stream: the peer
/// hears of it at once.
async fn answer(mut incoming: Incoming, outside: Arc<dyn Tree>, counts: Arc<Counts>) {
    let (mut sessions, mut of_peer) = (JoinSet::new(), HashMap::<PeerId, usize>::new());
    loop {
        tokio::select! {
            Some(ended) = sessions.join_next() => {
                counts.ended.fetch_add(1, Relaxed);
                if let Ok(peer) = ended
                    && let Entry::Occupied(mut count) = of_peer.entry(peer)
                {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
            next = incoming.next() => {
                let Some((peer, stream)) = next else { return };
                let have = of_peer.get(&peer).copied().unwrap_or(0);
                if sessions.len() < SESSIONS_MAX && have < SESSIONS_PEER_MAX {
                    of_peer.insert(peer.clone(), have + 1);
                    counts.taken.fetch_add(1, Relaxed);
                    sessions.spawn(session(peer, stream, outside.clone()));
                } else {
                    counts.refused.fetch_add(1, Relaxed);
                }
            }
        }
    }
}

/// One connection of `peer`, who is given back when it has ended.
async fn session(peer: PeerId, stream: Box<dyn Stream>, outside: Arc<dyn Tree>) -> PeerId {
    // How it ended is the peer's affair.
    let _ = serve(stream, outside, Caller::peer(peer.clone()), Limits::default()).await;
    peer
}

/// The last eight characters of a peer id: the first are the same in all.
fn name(config: &Config, keys: &Keys) -> String {
    let id = keys.peer_id().to_string();
    config.name.clone().unwrap_or_else(|| id[id.len().saturating_sub(8)..].to_owned())
}

fn itself(home: &Home, config: &Config, keys: &Keys, net: &Arc<Net>, counts: Arc<Counts>) -> srv_node::Config {
    let net = Arc::downgrade(net);
    srv_node::Config {
        id: keys.peer_id(),
        name: name(config, keys),
        version: env!("CARGO_PKG_VERSION").into(),
        home: home.path().to_owned(),
        roles: vec!["cpu".into()],
        limits: [
            ("sessions_max", SESSIONS_MAX),
            ("sessions_peer_max", SESSIONS_PEER_MAX),
            ("peers_max", srv_peers::PEERS_MAX),
            ("exports_max", srv_export::EXPORTS_MAX),
            ("grants_max", srv_export::GRANTS_MAX),
            ("keys_max", srv_keys::KEYS_MAX),
            ("jobs_max", srv_cpu::JOBS_MAX),
            ("jobs_user_max", srv_cpu::JOBS_USER_MAX),
            ("jobs_running_max", srv_cpu::RUNNING_MAX),
        ]
        .map(|(name, n)| (name.to_owned(), n as u64))
        .into(),
        addrs: Arc::new(move || net.upgrade().map_or_else(Vec::new, |net| net.addrs())),
        counters: Arc::new(move || counts.told()),
        // The rest is read in self/log; a terminal or a journal is told what its owner must see.
        log: Log::new(Level::Info, |line| {
            if !line.contains(" info ") {
                eprint!("ipos: {line}");
            }
        }),
    }
}

fn jobs(home: &Home, config: &Config, keys: &Keys) -> srv_cpu::Config {
    srv_cpu::Config {
        name: name(config, keys),
        dir: home.path().join("cpu"),
        // This very program, even when another was built over it meanwhile.
        worker: vec!["/proc/self/exe".into(), "worker".into()],
        limits: srv_cpu::Limits::default(),
    }
}

fn grants(home: &Home, keys: &Keys, peers: &Arc<Peers>) -> srv_export::Config {
    let peers = Arc::downgrade(peers);
    srv_export::Config {
        id: keys.peer_id(),
        file: home.path().join("export"),
        names: Arc::new(move |name| peers.upgrade()?.lookup(name)),
        home: home.path().to_owned(),
        mounts: Vec::new(),
    }
}

fn network(config: &Config, keys: &Keys) -> srv_net::Config {
    let Config { listen, bootstrap, mdns, .. } = config.clone();
    srv_net::Config { listen, bootstrap, mdns, ..srv_net::Config::new(*keys.seed()) }
}

/// Each device at its own name, then what the user wrote.
async fn name_space(
    home: &Home,
    name: &str,
    devices: &[(&str, Arc<dyn Tree>)],
    remote: Arc<dyn Remote>,
) -> Result<Arc<Namespace>, Error> {
    let owner = Caller::owner(geteuid().as_raw());
    let mut roots = Vec::new();
    for (name, tree) in devices {
        roots.push(((*name).to_owned(), tree.attach(&owner, "").await.map_err(Error::part("name space"))?));
    }
    let vars = [("user", user()), ("host", host()), ("peer", name.to_owned())];
    let vars = vars.map(|(name, value)| (name.to_owned(), value)).into();
    let ns = Namespace::with(roots, Arc::new(Sources { remote }), vars);
    let own: String = devices.iter().map(|(name, _)| format!("bind '#{name}' /{name}\n")).collect();
    ns.apply(&own).await.map_err(Error::part("name space"))?;
    let path = home.namespace();
    match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        text => {
            let text = text.map_err(Error::system(&path, "cannot be read"))?;
            let refused = |why| Error::Refused { path: path.display().to_string(), why };
            ns.apply(&text).await.map_err(refused)?;
        }
    }
    Ok(ns)
}

/// `$user` of namespace(6): the user's name, else their number.
fn user() -> String {
    let uid = geteuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// `$host` of namespace(6).
fn host() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "localhost".into(), |name| name.nodename().to_string_lossy().into_owned())
}

/// A descriptor a connection, a job and an open file: the system's default of 1024 is for programs that use select(2).
fn descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _as_it_was = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// What the word after `mount` means: a capability, `ipos:PEER/M#SECRET`, on whatever node made it.
struct Sources {
    remote: Arc<dyn Remote>,
}

impl Resolve for Sources {
    fn mount<'a>(&'a self, source: &'a str, _spec: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let parts = source.strip_prefix("ipos:").and_then(|s| s.split_once('/'));
            let Some((peer, rest)) = parts.filter(|(_, rest)| rest.contains('#')) else {
                let text = format!(
                    "{}: not a capability; those begin with ipos: and are read from export/M/cap",
                    redact(source)
                );
                return Err(fs_ninep::Error::new(Kind::Invalid, text));
            };
            self.remote.attach(&PeerId::new(peer), &format!("cap/{rest}")).await
        })
    }
}
