//! libp2p: dial and listen; a stream is a connection. The only crate that names libp2p.
//!
//! [`Net`] is the node's [`Transport`]: `srv/peers` opens streams with it, the wiring of a node serves what [`Incoming`]
//! brings. A node is an ed25519 key; what reaches the other crates is text: peer ids and multiaddrs. TCP (Noise, yamux)
//! and QUIC; identify, ping, a DHT, announcements on the local network (mdns), limits on connections and a filter.
//!
//! Everything runs on the caller's runtime, which should be a current_thread one: then a byte written to a stream reaches
//! the socket without another thread. Nothing blocks. A peer that dies is noticed at once when its kernel says so and
//! within [`SILENCE_MAX`] when nothing is said. Protocol: `/ipos/9p/1`, see peers(4).

mod addr;
mod book;
mod driver;
mod error;
mod filter;
mod muxer;
mod stream;

use std::collections::HashMap;
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use fs_ninep::{Call, Filter, Link, Near, PeerEvent, Stream, Transport};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::TransportError;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::Version;
use libp2p::futures::StreamExt;
use libp2p::futures::future::Either;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Swarm, Transport as _};
use libp2p::{connection_limits, identify, kad, mdns, noise, ping, quic, tcp};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::compat::FuturesAsyncReadCompatExt;

use crate::book::Via;
use crate::driver::{Command, Driver, Protocols, Reply};
use crate::filter::Rules;
use crate::stream::{Shared, lock};

pub use crate::error::Error;

/// A peer of which nothing is heard for so long is taken for dead, and its streams fail.
pub const SILENCE_MAX: Duration = muxer::SILENCE;
/// A dial, an open, a search take no longer.
pub const DEADLINE: Duration = Duration::from_millis(4500);
/// Inbound streams that wait to be accepted; one more is reset.
pub const INBOUND_MAX: usize = stream::INBOUND_MAX;
/// Filter rules kept.
pub const RULES_MAX: usize = filter::RULES_MAX;
/// Each end of a connection pings so often, so that silence means death.
const PING: Duration = Duration::from_secs(2);
/// A connection without a stream is closed after this.
const IDLE: Duration = Duration::from_secs(300);
/// How long TCP has before QUIC is tried too, where a peer has both.
const HEAD_START: Duration = Duration::from_millis(800);
/// Handshakes under way, each direction.
const PENDING_MAX: u32 = 64;
/// Connections with one peer: both may dial at once, over TCP and QUIC.
const PER_PEER_MAX: u32 = 8;
/// A search of the DHT, within [`DEADLINE`] so that its outcome can still be told.
const SEARCH: Duration = Duration::from_secs(4);
/// Commands that wait for the driver.
const COMMANDS_MAX: usize = 256;
/// Events a slow reader of them may lag behind.
const EVENTS_MAX: usize = 256;

/// How a node is reached.
pub struct Config {
    /// The ed25519 secret key: the node's identity. Wiped when the node has started.
    pub seed: [u8; 32],
    /// Multiaddrs to listen on; port 0 is any free port, 0.0.0.0 every interface.
    pub listen: Vec<String>,
    /// Announce this node on the local network and hear of others there.
    pub mdns: bool,
    /// Nodes through which the DHT is joined; each is tried again until it answers.
    pub bootstrap: Vec<String>,
    /// Connections in all.
    pub connections_max: u32,
    /// Memory of this process, in bytes, over which no more connections are let in.
    pub memory_max_bytes: u64,
}

impl Config {
    /// The configuration of a node that listens on TCP and QUIC on free ports of every IPv4 interface.
    pub fn new(seed: [u8; 32]) -> Config {
        let listen = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"];
        Config {
            seed,
            listen: listen.map(String::from).into(),
            mdns: true,
            bootstrap: Vec::new(),
            connections_max: 512,
            memory_max_bytes: 1 << 30,
        }
    }
}

/// The node on the network. Dropping the last one closes every connection.
pub struct Net {
    id: PeerId,
    shared: Shared,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<PeerEvent>,
    /// One at a time dials a peer; the others wait and use what it got.
    gates: Mutex<HashMap<PeerId, Weak<tokio::sync::Mutex<()>>>>,
}

/// The streams that peers open.
pub struct Incoming(mpsc::Receiver<(PeerId, libp2p::Stream)>);

impl Incoming {
    /// The next stream and who opened it; `None` when the network has stopped.
    pub async fn next(&mut self) -> Option<(fs_ninep::PeerId, Box<dyn Stream>)> {
        let (peer, stream) = self.0.recv().await?;
        Some((text(&peer), Box::new(stream.compat())))
    }
}

impl Net {
    /// Starts the node on the runtime of the caller; returns when it listens.
    /// # Errors
    /// `Listen` where an address cannot be listened on or is none, `Address` for a bootstrap address that is none, `Start`
    /// for the rest.
    pub async fn start(config: Config) -> Result<(Arc<Net>, Incoming), Error> {
        let Config { mut seed, listen, mdns, bootstrap, connections_max, memory_max_bytes } = config;
        let start = |what| move |e: &dyn std::error::Error| Error::Start { what, why: e.to_string() };
        let key = Keypair::ed25519_from_bytes(&mut seed).map_err(|e| start("key")(&e))?;
        let shared = Shared::default();
        let (streams, accepted) = stream::Behaviour::new(shared.clone(), memory_max_bytes);
        let protocols = protocols(&key, streams, mdns, connections_max)?;
        let id = key.public().to_peer_id();
        let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
        let swarm = Swarm::new(transport(&key)?, protocols, id, config);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let mut driver = Driver::new(swarm, shared.clone(), events.clone());
        for addr in &listen {
            let late = Error::Listen { addr: addr.clone(), why: "no answer from the system".into(), busy: false };
            timeout(DEADLINE, listen_on(&mut driver, addr)).await.unwrap_or(Err(late))?;
        }
        let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(driver.run(commanded));
        let net = Arc::new(Net { id, shared, commands, events, gates: Mutex::default() });
        for addr in bootstrap {
            addr::parse(&addr)?;
            tokio::spawn(join(Arc::downgrade(&net), addr));
        }
        Ok((net, Incoming(accepted)))
    }

    /// Inbound streams that were reset because [`INBOUND_MAX`] others waited.
    pub fn refused(&self) -> u64 {
        lock(&self.shared).refused
    }

    async fn ask<T>(&self, what: &str, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let late = || Error::Unreachable { what: what.into(), why: driver::no_answer() };
        let asked = async {
            self.commands.send(command(reply)).await.map_err(|_| Error::Stopped)?;
            answer.await.map_err(|_| Error::Stopped)?
        };
        timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(late()))
    }

    async fn dial_text(&self, text: &str) -> Result<PeerId, Error> {
        let addr = addr::parse(text)?;
        let named = addr::peer(&addr);
        if named == Some(self.id) || lock(&self.shared).listen.contains(&addr) {
            return Err(Error::Own { addr: text.into() });
        }
        if let Some(peer) = named.filter(|p| lock(&self.shared).best(p).is_some()) {
            lock(&self.shared).book.add(peer, addr, Via::Dial);
            return Ok(peer);
        }
        let mut failed = None;
        for addr in addr::resolve(addr).await? {
            let opts = DialOpts::unknown_peer_id().address(addr).allocate_new_port().build();
            match self.ask(text, |reply| Command::Dial { opts, what: text.into(), reply }).await {
                Ok(peer) => return Ok(peer),
                Err(e) => failed = Some(e),
            }
        }
        Err(failed.unwrap_or(Error::Stopped))
    }

    async fn open_stream(&self, peer: PeerId) -> Result<libp2p::Stream, Error> {
        loop {
            let found = lock(&self.shared).best(&peer).map(|c| (c.id, c.opens.clone()));
            let Some((id, opens)) = found else {
                self.connect(peer).await?;
                continue;
            };
            let (reply, answer) = oneshot::channel();
            match opens.send(reply).await {
                Ok(()) => match answer.await {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(why)) => return Err(Error::Refused { peer: text(&peer), why }),
                    // The connection died under it.
                    Err(_) => lock(&self.shared).drop_conn(&peer, id),
                },
                Err(_) => lock(&self.shared).drop_conn(&peer, id),
            }
        }
    }

    /// Makes a connection with `peer`, or waits for the caller that is making one.
    async fn connect(&self, peer: PeerId) -> Result<(), Error> {
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(|e| e.into_inner());
            gates.retain(|_, g| g.strong_count() > 0);
            let gate = gates.get(&peer).and_then(Weak::upgrade).unwrap_or_default();
            gates.insert(peer, Arc::downgrade(&gate));
            gate
        };
        let _turn = gate.lock().await;
        if lock(&self.shared).best(&peer).is_some() {
            return Ok(());
        }
        let known = lock(&self.shared).book.addrs(&peer);
        let (tcp, quic): (Vec<_>, Vec<_>) = known.into_iter().partition(addr::is_tcp);
        match (tcp.is_empty(), quic.is_empty()) {
            (true, true) => Err(Error::NoAddress { peer: text(&peer) }),
            (false, true) => self.dial_known(peer, tcp).await,
            (true, false) => self.dial_known(peer, quic).await,
            (false, false) => {
                let mut first = std::pin::pin!(self.dial_known(peer, tcp));
                match timeout(HEAD_START, &mut first).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => self.dial_known(peer, quic).await,
                    Err(_) => either(first, self.dial_known(peer, quic)).await,
                }
            }
        }
    }

    async fn dial_known(&self, peer: PeerId, addrs: Vec<Multiaddr>) -> Result<(), Error> {
        let what = addrs.iter().map(|a| format!("{a}/p2p/{peer}")).next().unwrap_or_default();
        let all = NonZeroU8::new(addrs.len().clamp(1, book::ADDRS_MAX) as u8).unwrap_or(NonZeroU8::MIN);
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::Always).override_dial_concurrency_factor(all);
        // From a port of its own: from the port listened on, two nodes that dial each other at once would meet as two
        // dialers, and a redial would find the address pair still taken.
        let opts = opts.addresses(addrs).allocate_new_port().build();
        self.ask(&what, |reply| Command::Dial { opts, what: what.clone(), reply }).await.map(drop)
    }

    async fn find_addrs(&self, peer: PeerId) -> Result<Vec<String>, Error> {
        let asked = self.ask(&format!("find {peer}"), |reply| Command::Find { peer, reply }).await;
        let found = self.named(&peer);
        if found.is_empty() { asked.and(Err(Error::NotFound { peer: text(&peer) })) } else { Ok(found) }
    }

    async fn join_dht(&self, text: &str) -> Result<PeerId, Error> {
        let peer = self.dial_text(text).await?;
        let addr = lock(&self.shared).book.addrs(&peer).first().cloned();
        let Some(addr) = addr else { return Err(Error::NoAddress { peer: crate::text(&peer) }) };
        self.ask(text, |reply| Command::Bootstrap { peer, addr, reply }).await.map(|()| peer)
    }

    fn named(&self, peer: &PeerId) -> Vec<String> {
        lock(&self.shared).book.addrs(peer).iter().map(|a| format!("{a}/p2p/{peer}")).collect()
    }
}

impl Transport for Net {
    fn id(&self) -> fs_ninep::PeerId {
        text(&self.id)
    }

    fn addrs(&self) -> Vec<String> {
        lock(&self.shared).listen.iter().map(|a| format!("{a}/p2p/{}", self.id)).collect()
    }

    fn dial<'a>(&'a self, addr: &'a str) -> Call<'a, fs_ninep::PeerId> {
        Box::pin(async move {
            let late = |_| Error::Unreachable { what: addr.into(), why: driver::no_answer() };
            let peer = timeout(DEADLINE, self.dial_text(addr)).await.map_err(late)??;
            Ok(text(&peer))
        })
    }

    fn open<'a>(&'a self, peer: &'a fs_ninep::PeerId) -> Call<'a, Box<dyn Stream>> {
        Box::pin(async move {
            let id = id(peer)?;
            let late = |_| Error::Unreachable { what: peer.to_string(), why: driver::no_answer() };
            let stream = timeout(DEADLINE, self.open_stream(id)).await.map_err(late)??;
            Ok(Box::new(stream.compat()) as Box<dyn Stream>)
        })
    }

    fn known(&self, peer: &fs_ninep::PeerId) -> Vec<String> {
        id(peer).map(|id| self.named(&id)).unwrap_or_default()
    }

    fn learn(&self, peer: &fs_ninep::PeerId, addr: &str) -> fs_ninep::Result<()> {
        lock(&self.shared).book.add(id(peer)?, addr::parse(addr)?, Via::Dial);
        Ok(())
    }

    fn link(&self, peer: &fs_ninep::PeerId) -> Option<Link> {
        let id = id(peer).ok()?;
        let table = lock(&self.shared);
        let conn = table.best(&id)?;
        let (addr, latency) = (format!("{}/p2p/{id}", conn.addr), table.latency.get(&id).copied());
        Some(Link { addr, since: conn.since, inbound: conn.inbound, latency })
    }

    fn find<'a>(&'a self, peer: &'a fs_ninep::PeerId) -> Call<'a, Vec<String>> {
        Box::pin(async move { Ok(self.find_addrs(id(peer)?).await?) })
    }

    fn bootstrap<'a>(&'a self, addr: &'a str) -> Call<'a, fs_ninep::PeerId> {
        Box::pin(async move { Ok(text(&self.join_dht(addr).await?)) })
    }

    fn near(&self) -> Vec<Near> {
        let table = lock(&self.shared);
        let near = |(peer, addr, via): (PeerId, &Multiaddr, Via)| {
            let (addr, connected) = (format!("{addr}/p2p/{peer}"), table.conns.contains_key(&peer));
            Near { peer: text(&peer), addr, via: via.as_str(), connected }
        };
        let mut nodes: Vec<Near> = table.book.peers().map(near).collect();
        nodes.sort_by(|a, b| a.peer.cmp(&b.peer));
        nodes
    }

    fn hangup<'a>(&'a self, peer: &'a fs_ninep::PeerId) -> Call<'a, ()> {
        Box::pin(async move {
            let peer = id(peer)?;
            Ok(self.ask("hangup", |reply| Command::Hangup { peer, reply }).await?)
        })
    }

    fn filter(&self, rules: &[Filter]) -> fs_ninep::Result<()> {
        lock(&self.shared).rules = Rules::read(rules)?;
        // Where the driver has no place for one more command it is busy with connections, and the next call enforces.
        let _ = self.commands.try_send(Command::Enforce);
        Ok(())
    }

    fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.events.subscribe()
    }
}

/// Listens on one address; done when the system has given it a port.
async fn listen_on(driver: &mut Driver, text: &str) -> Result<(), Error> {
    let fail = |why: String, busy| Error::Listen { addr: text.into(), why, busy };
    let failed = |e: &std::io::Error| {
        let (kind, why) = driver::plain(e);
        fail(why, kind == std::io::ErrorKind::AddrInUse)
    };
    let addr: Multiaddr = text.parse().map_err(|e| fail(format!("{e}"), false))?;
    let id = driver.swarm.listen_on(addr).map_err(|e| match e {
        TransportError::MultiaddrNotSupported(_) => fail("neither /tcp/PORT nor /udp/PORT/quic-v1".into(), false),
        TransportError::Other(e) => failed(&e),
    })?;
    loop {
        let event = driver.swarm.select_next_some().await;
        let ready = matches!(&event, SwarmEvent::NewListenAddr { listener_id, .. } if *listener_id == id);
        match &event {
            SwarmEvent::ListenerClosed { listener_id, reason, .. } if *listener_id == id => {
                return Err(reason.as_ref().err().map_or_else(|| fail("closed".into(), false), failed));
            }
            SwarmEvent::ListenerError { listener_id, error } if *listener_id == id => {
                return Err(failed(error));
            }
            _ => {}
        }
        driver.file(event);
        if ready {
            return Ok(());
        }
    }
}

/// Joins the DHT through `addr`, trying again until it answers or the network stops.
async fn join(net: Weak<Net>, addr: String) {
    let mut pause = Duration::from_secs(2);
    loop {
        match net.upgrade() {
            Some(net) => match net.join_dht(&addr).await {
                Ok(_) => return,
                Err(_) => drop(net),
            },
            None => return,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(IDLE);
    }
}

fn protocols(key: &Keypair, streams: stream::Behaviour, mdns: bool, connections_max: u32) -> Result<Protocols, Error> {
    let id = key.public().to_peer_id();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
        .with_max_established_per_peer(Some(PER_PEER_MAX))
        .with_max_established(Some(connections_max));
    let identify = identify::Config::new("/ipos/1".into(), key.public())
        .with_agent_version(concat!("ipos/", env!("CARGO_PKG_VERSION")).into())
        .with_push_listen_addr_updates(true)
        .with_cache_size(0);
    // A ping that is late is no failure: silence is judged by the muxer, which sees every byte.
    let ping = ping::Config::new().with_interval(PING).with_timeout(Duration::from_secs(60));
    let mut dht = kad::Config::new(driver::DHT);
    dht.set_query_timeout(SEARCH).set_record_filtering(kad::StoreInserts::FilterBoth);
    let dht = kad::Behaviour::with_config(id, MemoryStore::new(id), dht);
    let announce = || mdns::tokio::Behaviour::new(mdns::Config::default(), id);
    let mdns = mdns.then(announce).transpose();
    let mdns = mdns.map_err(|e| Error::Start { what: "mdns (set mdns = false to do without)", why: e.to_string() })?;
    let (limits, identify) = (connection_limits::Behaviour::new(limits), identify::Behaviour::new(identify));
    Ok(Protocols::new(limits, streams, identify, ping::Behaviour::new(ping), dht, mdns))
}

fn transport(key: &Keypair) -> Result<libp2p::core::transport::Boxed<(PeerId, StreamMuxerBox)>, Error> {
    let noise = noise::Config::new(key).map_err(|e| Error::Start { what: "noise", why: e.to_string() })?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(muxer::Upgrade);
    let mut config = quic::Config::new(key);
    config.handshake_timeout = DEADLINE;
    config.max_idle_timeout = SILENCE_MAX.as_millis() as u32;
    config.keep_alive_interval = PING;
    config.max_concurrent_stream_limit = muxer::STREAMS_MAX as u32;
    let quic = quic::tokio::Transport::new(config);
    let both = quic.or_transport(tcp).map(|either, _| match either {
        Either::Left((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
        Either::Right((peer, muxer)) => (peer, StreamMuxerBox::new(muxer)),
    });
    Ok(TransportTimeout::new(both, DEADLINE).boxed())
}

/// The first of two that succeeds; the second's error where neither does.
async fn either(
    first: impl Future<Output = Result<(), Error>>,
    second: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    let (first, second) = (std::pin::pin!(first), std::pin::pin!(second));
    match libp2p::futures::future::select(first, second).await {
        Either::Left((Ok(()), _)) | Either::Right((Ok(()), _)) => Ok(()),
        Either::Left((Err(_), rest)) => rest.await,
        Either::Right((Err(_), rest)) => rest.await,
    }
}

/// The peer id as the other crates carry it.
fn text(peer: &PeerId) -> fs_ninep::PeerId {
    fs_ninep::PeerId::new(peer.to_base58())
}

fn id(peer: &fs_ninep::PeerId) -> Result<PeerId, Error> {
    peer.as_str().parse().map_err(|_| Error::PeerId { id: peer.to_string() })
}
