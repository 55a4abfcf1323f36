//! The task that owns the swarm: carries out commands, files what happens into the table, answers who waits.
//!
//! It is woken when connections come and go, not when bytes move. It ends when the last [`crate::Net`] is dropped, and
//! every connection with it.

use std::collections::HashMap;
use std::io;

use fs_ninep::{Kind, PeerEvent};
use libp2p::connection_limits::Exceeded;
use libp2p::core::transport::TransportError;
use libp2p::core::transport::timeout::TransportTimeoutError;
use libp2p::futures::StreamExt;
use libp2p::kad::{self, QueryId, QueryResult, store::MemoryStore};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{
    ConnectionError, ConnectionId, DialError, NetworkBehaviour, StreamUpgradeError, Swarm, SwarmEvent,
};
use libp2p::{Multiaddr, PeerId, connection_limits, identify, mdns, ping};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::book::Via;
use crate::stream::{self, Filtered, Shared, lock};
use crate::{DEADLINE, Error, addr, text};

/// The DHT is ours alone: nodes serve it from behind address translation, which the public one does not want.
pub(crate) const DHT: libp2p::StreamProtocol = libp2p::StreamProtocol::new("/ipos/kad/1.0.0");

/// Every protocol of a connection. The limits come first: what they refuse, nobody else hears of.
#[derive(NetworkBehaviour)]
pub(crate) struct Protocols {
    limits: connection_limits::Behaviour,
    pub(crate) streams: stream::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    dht: kad::Behaviour<MemoryStore>,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Protocols {
    pub(crate) fn new(
        limits: connection_limits::Behaviour,
        streams: stream::Behaviour,
        identify: identify::Behaviour,
        ping: ping::Behaviour,
        mut dht: kad::Behaviour<MemoryStore>,
        mdns: Option<mdns::tokio::Behaviour>,
    ) -> Protocols {
        dht.set_mode(Some(kad::Mode::Server));
        Protocols { limits, streams, identify, ping, dht, mdns: mdns.into() }
    }
}

/// The answer to a command.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What a caller wants of the swarm.
pub(crate) enum Command {
    /// Dial; the answer comes when the peer has introduced itself, so that one which hangs up at once counts as failed.
    Dial {
        opts: DialOpts,
        what: String,
        reply: Reply<PeerId>,
    },
    Find {
        peer: PeerId,
        reply: Reply<()>,
    },
    Bootstrap {
        peer: PeerId,
        addr: Multiaddr,
        reply: Reply<()>,
    },
    Hangup {
        peer: PeerId,
        reply: Reply<()>,
    },
    Enforce,
}

enum Query {
    Find(Reply<()>),
    Bootstrap(Reply<()>),
}

struct Dial {
    what: String,
    reply: Reply<PeerId>,
}

pub(crate) struct Driver {
    pub(crate) swarm: Swarm<Protocols>,
    shared: Shared,
    events: broadcast::Sender<PeerEvent>,
    dials: HashMap<ConnectionId, Dial>,
    queries: HashMap<QueryId, Query>,
    hangups: HashMap<PeerId, Vec<Reply<()>>>,
}

impl Driver {
    pub(crate) fn new(swarm: Swarm<Protocols>, shared: Shared, events: broadcast::Sender<PeerEvent>) -> Driver {
        Driver { swarm, shared, events, dials: HashMap::new(), queries: HashMap::new(), hangups: HashMap::new() }
    }

    /// Runs until every sender of commands is gone.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.file(event),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Dial { opts, what, reply } => {
                let id = opts.connection_id();
                match self.swarm.dial(opts) {
                    Ok(()) => drop(self.dials.insert(id, Dial { what, reply })),
                    Err(e) => drop(reply.send(Err(explain(what, e)))),
                }
            }
            Command::Find { peer, reply } => {
                let dht = &mut self.swarm.behaviour_mut().dht;
                if dht.kbuckets().all(|b| b.is_empty()) {
                    return drop(reply.send(Err(Error::NoDht)));
                }
                let id = dht.get_closest_peers(peer);
                self.queries.insert(id, Query::Find(reply));
            }
            Command::Bootstrap { peer, addr, reply } => {
                let dht = &mut self.swarm.behaviour_mut().dht;
                dht.add_address(&peer, addr);
                match dht.bootstrap() {
                    Ok(id) => drop(self.queries.insert(id, Query::Bootstrap(reply))),
                    Err(_) => drop(reply.send(Err(Error::NoDht))),
                }
            }
            Command::Hangup { peer, reply } => match self.swarm.disconnect_peer_id(peer) {
                Ok(()) => self.hangups.entry(peer).or_default().push(reply),
                Err(()) => drop(reply.send(Ok(()))),
            },
            Command::Enforce => self.swarm.behaviour_mut().streams.enforce(),
        }
    }

    /// Files one event; the listeners' first ones come through here too.
    pub(crate) fn file(&mut self, event: SwarmEvent<ProtocolsEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let listen = &mut lock(&self.shared).listen;
                listen.push(address);
                listen.sort_by_key(addr::rank);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => lock(&self.shared).listen.retain(|a| *a != address),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. } => {
                let addr = endpoint.get_remote_address();
                if endpoint.is_dialer() {
                    lock(&self.shared).book.add(peer_id, addr.clone(), Via::Dial);
                }
                if num_established.get() == 1 {
                    let (peer, addr) = (text(&peer_id), addr.to_string());
                    let _ = self.events.send(PeerEvent::Connected { peer, addr, inbound: endpoint.is_listener() });
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                let why = parting(cause);
                if let Some(Dial { what, reply }) = self.dials.remove(&connection_id) {
                    let why = format!("it hung up at once ({why}): it is full, or its filter denies this node");
                    let _ = reply.send(Err(Error::Unreachable { what, why }));
                }
                if num_established == 0 {
                    for reply in self.hangups.remove(&peer_id).unwrap_or_default() {
                        let _ = reply.send(Ok(()));
                    }
                    let _ = self.events.send(PeerEvent::Disconnected { peer: text(&peer_id), why });
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(Dial { what, reply }) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(explain(what, error)));
                }
            }
            SwarmEvent::Behaviour(event) => self.file_protocol(event),
            _ => {}
        }
    }

    fn file_protocol(&mut self, event: ProtocolsEvent) {
        match event {
            ProtocolsEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                self.introduced(connection_id, peer_id);
                self.learn(peer_id, info);
            }
            // Somebody who cannot introduce itself is there all the same; other errors are the connection's end.
            ProtocolsEvent::Identify(identify::Event::Error { connection_id, peer_id, error }) => {
                if matches!(error, StreamUpgradeError::NegotiationFailed) {
                    self.introduced(connection_id, peer_id);
                }
            }
            ProtocolsEvent::Ping(ping::Event { peer, result: Ok(rtt), .. }) => {
                lock(&self.shared).latency.insert(peer, rtt);
            }
            ProtocolsEvent::Dht(kad::Event::OutboundQueryProgressed { id, result, step, .. }) => {
                self.progress(id, result, step.last);
            }
            ProtocolsEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, addr) in found {
                    self.discover(peer, addr, Via::Mdns);
                }
            }
            ProtocolsEvent::Mdns(mdns::Event::Expired(gone)) => {
                let book = &mut lock(&self.shared).book;
                gone.iter().for_each(|(peer, addr)| book.expire(peer, addr));
            }
            _ => {}
        }
    }

    fn introduced(&mut self, id: ConnectionId, peer: PeerId) {
        if let Some(Dial { reply, .. }) = self.dials.remove(&id) {
            let _ = reply.send(Ok(peer));
        }
    }

    /// Takes the addresses a connected peer says it has.
    fn learn(&mut self, peer: PeerId, info: identify::Info) {
        let serves_dht = info.protocols.contains(&DHT);
        let mut table = lock(&self.shared);
        let Some(from) = table.conns.get(&peer).and_then(|c| c.last()).map(|c| c.addr.clone()) else { return };
        for addr in info.listen_addrs.into_iter().take(crate::book::ADDRS_MAX).filter(|a| addr::is_credible(a, &from)) {
            if serves_dht {
                self.swarm.behaviour_mut().dht.add_address(&peer, addr::bare(addr.clone()));
            }
            table.book.add(peer, addr, Via::Peer);
        }
    }

    fn discover(&mut self, peer: PeerId, addr: Multiaddr, via: Via) {
        if peer == *self.swarm.local_peer_id() || addr::parse(&addr.to_string()).is_err() {
            return;
        }
        if via == Via::Mdns {
            self.swarm.behaviour_mut().dht.add_address(&peer, addr::bare(addr.clone()));
        }
        if lock(&self.shared).book.add(peer, addr.clone(), via) {
            let (peer, addr) = (text(&peer), addr.to_string());
            let _ = self.events.send(PeerEvent::Discovered { peer, addr, via: via.as_str() });
        }
    }

    fn progress(&mut self, id: QueryId, result: QueryResult, last: bool) {
        let (found, failed) = match result {
            QueryResult::GetClosestPeers(Ok(ok)) => (ok.peers, false),
            QueryResult::GetClosestPeers(Err(kad::GetClosestPeersError::Timeout { peers, .. })) => (peers, false),
            QueryResult::Bootstrap(result) => (Vec::new(), result.is_err()),
            _ => return,
        };
        for info in found {
            for addr in info.addrs.into_iter().take(crate::book::ADDRS_MAX) {
                self.discover(info.peer_id, addr, Via::Dht);
            }
        }
        match self.queries.remove(&id) {
            // Joined with the first answer; the rest of the table fills while the node is used.
            Some(Query::Bootstrap(reply)) => drop(reply.send(if failed { Err(Error::NoDht) } else { Ok(()) })),
            Some(Query::Find(reply)) if last => drop(reply.send(Ok(()))),
            Some(find) => drop(self.queries.insert(id, find)),
            None => {}
        }
    }
}

/// Why a connection ended, for a person.
fn parting(cause: Option<ConnectionError>) -> String {
    match cause {
        None => "this node hung up".into(),
        Some(ConnectionError::KeepAliveTimeout) => "it was not in use".into(),
        Some(ConnectionError::IO(e)) => plain(&e).1,
    }
}

/// Why a dial of `what` failed.
pub(crate) fn explain(what: String, e: DialError) -> Error {
    match e {
        DialError::WrongPeerId { obtained, address } => {
            Error::WrongPeer { addr: addr::bare(address).to_string(), found: text(&obtained) }
        }
        DialError::LocalPeerId { address } => Error::Own { addr: address.to_string() },
        DialError::Denied { cause } => match cause.downcast::<Exceeded>() {
            Ok(exceeded) => Error::Limit { what, why: exceeded.to_string() },
            Err(cause) if cause.downcast_ref::<Filtered>().is_some() => Error::Filtered { what },
            Err(cause) => Error::Unreachable { what, why: cause.to_string() },
        },
        DialError::Transport(errors) => {
            let why = errors.first().map_or("no address".into(), |(_, e)| transport(e));
            Error::Unreachable { what, why }
        }
        DialError::NoAddresses => Error::Unreachable { what, why: "no address".into() },
        DialError::DialPeerConditionFalse(_) => Error::Unreachable { what, why: "it is being dialled already".into() },
        DialError::Aborted => Error::Unreachable { what, why: "the attempt was given up".into() },
    }
}

fn transport(e: &TransportError<io::Error>) -> String {
    match e {
        TransportError::MultiaddrNotSupported(addr) => format!("{addr} is of a kind this node cannot dial"),
        TransportError::Other(e) => match plain(e).1 {
            why if why == TransportTimeoutError::<io::Error>::Timeout.to_string() => no_answer(),
            why => why,
        },
    }
}

/// What is said of who did not answer a dial in time.
pub(crate) fn no_answer() -> String {
    format!("no answer in {} s", DEADLINE.as_secs_f32())
}

/// The machine's own word in a pile of layers' errors. Some layers keep nothing but its text, so that is what is read.
pub(crate) fn plain(e: &io::Error) -> (io::ErrorKind, String) {
    let text = e.to_string();
    let errno =
        text.split_once(" (os error ").and_then(|(word, rest)| Some((word, rest.split_once(')')?.0.parse().ok()?)));
    let Some((word, errno)) = errno else { return (e.kind(), text) };
    let kind = match Kind::from_errno(errno) {
        Kind::Other(_) => word.rsplit(": ").next().unwrap_or(word).to_lowercase(),
        kind => kind.text().into(),
    };
    (io::Error::from_raw_os_error(errno as i32).kind(), kind)
}
