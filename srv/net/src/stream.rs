//! Streams of `/ipos/9p/1`, and who may have them: the behaviour, and its handler on each connection.
//!
//! libp2p-stream hands an inbound stream over through a channel of no capacity and drops it when the accepting task is
//! late: a burst of 400 lost 39. Here the queue has room ([`INBOUND_MAX`]); beyond it a stream is reset, which its opener
//! sees, and counted. An open goes straight to the connection's task, past the swarm's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use fs_ninep::Time;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, StreamUpgradeError, SubstreamProtocol, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::sync::{mpsc, oneshot};

use crate::addr;
use crate::book::Book;
use crate::filter::Rules;

/// The protocol: 9P, either side may be the client.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipos/9p/1");
/// Inbound streams that wait to be accepted, of all peers together.
pub(crate) const INBOUND_MAX: usize = 1024;
/// Opens that wait for one connection's task.
const OPENS_MAX: usize = 64;

/// Asks a connection's handler for a stream; the answer is the stream or why there is none.
pub(crate) type Opening = oneshot::Sender<Result<Stream, String>>;

/// A connection that stands.
pub(crate) struct Conn {
    pub(crate) id: ConnectionId,
    pub(crate) addr: Multiaddr,
    pub(crate) inbound: bool,
    pub(crate) since: Time,
    pub(crate) opens: mpsc::Sender<Opening>,
}

/// What the driver, the behaviour and the callers of [`crate::Net`] look at. Held for no longer than a look.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) conns: HashMap<PeerId, Vec<Conn>>,
    pub(crate) latency: HashMap<PeerId, Duration>,
    pub(crate) book: Book,
    pub(crate) rules: Rules,
    pub(crate) listen: Vec<Multiaddr>,
    /// Inbound streams refused because nobody accepted those before.
    pub(crate) refused: u64,
}

impl Table {
    /// The connection with `peer` to use: TCP before QUIC, then the newest, which is the likeliest to be alive.
    pub(crate) fn best(&self, peer: &PeerId) -> Option<&Conn> {
        self.conns.get(peer)?.iter().enumerate().max_by_key(|(i, c)| (addr::is_tcp(&c.addr), *i)).map(|(_, c)| c)
    }

    pub(crate) fn drop_conn(&mut self, peer: &PeerId, id: ConnectionId) {
        if let Some(conns) = self.conns.get_mut(peer) {
            conns.retain(|c| c.id != id);
            if conns.is_empty() {
                self.conns.remove(peer);
                self.latency.remove(peer);
            }
        }
    }
}

/// The table, shared.
pub(crate) type Shared = Arc<Mutex<Table>>;

/// Locks the table. A holder that panicked left it whole: every change is one insert or remove.
pub(crate) fn lock(shared: &Shared) -> MutexGuard<'_, Table> {
    shared.lock().unwrap_or_else(|e| e.into_inner())
}

/// Why a connection was not let in.
#[derive(Debug, thiserror::Error)]
#[error("denied by a filter rule")]
pub(crate) struct Filtered;

/// Why a stranger was not let in.
#[derive(Debug, thiserror::Error)]
#[error("{used} bytes of memory are in use, {max} may be before connections are refused")]
struct Memory {
    used: u64,
    max: u64,
}

/// Memory this process has in use; 0 where the system does not tell. libp2p's own limit brings all of sysinfo with it.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages: Option<u64> = pages.and_then(|s| s.split(' ').nth(1)?.parse().ok());
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    pages.unwrap_or(0) * page.unwrap_or(4096) as u64
}

/// The behaviour.
pub(crate) struct Behaviour {
    shared: Shared,
    inbound: mpsc::Sender<(PeerId, Stream)>,
    /// Handlers made for connections that do not stand yet.
    fresh: HashMap<ConnectionId, mpsc::Sender<Opening>>,
    closing: VecDeque<(PeerId, ConnectionId)>,
    memory_max_bytes: u64,
}

impl Behaviour {
    pub(crate) fn new(shared: Shared, memory_max_bytes: u64) -> (Behaviour, mpsc::Receiver<(PeerId, Stream)>) {
        let (inbound, accepted) = mpsc::channel(INBOUND_MAX);
        let (fresh, closing) = (HashMap::new(), VecDeque::new());
        (Behaviour { shared, inbound, fresh, closing, memory_max_bytes }, accepted)
    }

    /// Closes the connections that the rules deny now.
    pub(crate) fn enforce(&mut self) {
        let table = lock(&self.shared);
        for (peer, conns) in &table.conns {
            let denied = conns.iter().filter(|c| !table.rules.allow(addr::ip(&c.addr), Some(peer)));
            self.closing.extend(denied.map(|c| (*peer, c.id)));
        }
    }

    fn admit(&self, addr: &Multiaddr, peer: Option<&PeerId>) -> Result<(), ConnectionDenied> {
        match lock(&self.shared).rules.allow(addr::ip(addr), peer) {
            true => Ok(()),
            false => Err(ConnectionDenied::new(Filtered)),
        }
    }

    fn handler(&mut self, id: ConnectionId, peer: PeerId) -> Handler {
        let (opens, asked) = mpsc::channel(OPENS_MAX);
        self.fresh.insert(id, opens);
        Handler { peer, asked, inbound: self.inbound.clone(), refused: 0 }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let used = resident_bytes();
        if used > self.memory_max_bytes {
            return Err(ConnectionDenied::new(Memory { used, max: self.memory_max_bytes }));
        }
        self.admit(remote, None)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.admit(remote, Some(&peer))?;
        Ok(self.handler(id, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        self.admit(addr, Some(&peer))?;
        Ok(self.handler(id, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                let Some(opens) = self.fresh.remove(&e.connection_id) else { return };
                let inbound = matches!(e.endpoint, ConnectedPoint::Listener { .. });
                let addr = addr::bare(e.endpoint.get_remote_address().clone());
                let conn = Conn { id: e.connection_id, addr, inbound, since: Time::now(), opens };
                lock(&self.shared).conns.entry(e.peer_id).or_default().push(conn);
            }
            FromSwarm::ConnectionClosed(e) => lock(&self.shared).drop_conn(&e.peer_id, e.connection_id),
            // A connection that another behaviour would not have.
            FromSwarm::DialFailure(e) => drop(self.fresh.remove(&e.connection_id)),
            FromSwarm::ListenFailure(e) => drop(self.fresh.remove(&e.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, Refused(n): Refused) {
        lock(&self.shared).refused += n;
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, std::convert::Infallible>> {
        // Filled by `enforce`, which the driver calls before it polls the swarm again.
        match self.closing.pop_front() {
            Some((peer_id, id)) => {
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) })
            }
            None => Poll::Pending,
        }
    }
}

/// Inbound streams that a handler had to refuse.
#[derive(Debug)]
pub(crate) struct Refused(u64);

/// The behaviour's end on one connection, in that connection's task.
pub(crate) struct Handler {
    peer: PeerId,
    asked: mpsc::Receiver<Opening>,
    inbound: mpsc::Sender<(PeerId, Stream)>,
    refused: u64,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = std::convert::Infallible;
    type ToBehaviour = Refused;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opening;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opening, Self::ToBehaviour>> {
        if self.refused > 0 {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Refused(std::mem::take(&mut self.refused))));
        }
        match self.asked.poll_recv(cx) {
            Poll::Ready(Some(reply)) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), reply),
            }),
            // The table has let go of this connection: it is about to close.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: std::convert::Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Opening>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                // Dropping the stream resets it.
                let taken = self.inbound.try_send((self.peer, stream)).is_ok();
                self.refused += u64::from(!taken);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: reply }) => {
                let _ = reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(e) => {
                let why = match e.error {
                    StreamUpgradeError::Timeout => "it did not answer".into(),
                    StreamUpgradeError::NegotiationFailed => format!("it does not speak {PROTOCOL}"),
                    StreamUpgradeError::Io(e) => e.to_string(),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = e.info.send(Err(why));
            }
            _ => {}
        }
    }
}
