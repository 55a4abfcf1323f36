//! Addresses of other nodes: what was dialled, said, announced or found. Lost when the node stops; srv/peers keeps names.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId};

use crate::addr;

/// Peers remembered. When it is full, one that was merely heard of makes room for one that was dialled.
pub(crate) const PEERS_MAX: usize = 4096;
/// Addresses remembered of one peer; the least recent goes first.
pub(crate) const ADDRS_MAX: usize = 16;

/// How an address became known, the most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    /// It was dialled, or a user named it.
    Dial,
    /// The peer itself said so.
    Peer,
    /// Announced on the local network.
    Mdns,
    /// Found in the DHT.
    Dht,
}

impl Via {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Via::Dial => "dial",
            Via::Peer => "peer",
            Via::Mdns => "mdns",
            Via::Dht => "dht",
        }
    }
}

/// The addresses of each peer, the most recent first and without the peer's id.
#[derive(Default)]
pub(crate) struct Book(HashMap<PeerId, Vec<(Multiaddr, Via)>>);

impl Book {
    /// Notes that `peer` is at `addr`; true if that is news.
    pub(crate) fn add(&mut self, peer: PeerId, addr: Multiaddr, via: Via) -> bool {
        if !self.0.contains_key(&peer) && !self.make_room(via) {
            return false;
        }
        let (addr, addrs) = (addr::bare(addr), self.0.entry(peer).or_default());
        let old = addrs.iter().position(|(a, _)| *a == addr).map(|i| addrs.remove(i));
        // An address that was dialled stays one: it outlives what is announced and expires.
        let via = old.as_ref().map_or(via, |(_, was)| via.min(*was));
        addrs.insert(0, (addr, via));
        addrs.truncate(ADDRS_MAX);
        old.is_none()
    }

    fn make_room(&mut self, via: Via) -> bool {
        if self.0.len() < PEERS_MAX {
            return true;
        }
        let hearsay = self.0.iter().find(|(_, addrs)| addrs.iter().all(|(_, v)| *v > Via::Dial)).map(|(p, _)| *p);
        match hearsay {
            Some(peer) if via == Via::Dial => self.0.remove(&peer).is_some(),
            _ => false,
        }
    }

    /// Forgets an announcement that has expired.
    pub(crate) fn expire(&mut self, peer: &PeerId, addr: &Multiaddr) {
        let addr = addr::bare(addr.clone());
        if let Some(addrs) = self.0.get_mut(peer) {
            addrs.retain(|(a, via)| *a != addr || *via != Via::Mdns);
            if addrs.is_empty() {
                self.0.remove(peer);
            }
        }
    }

    /// Where to dial `peer`: TCP first, then as recent.
    pub(crate) fn addrs(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let mut addrs: Vec<_> = self.0.get(peer).into_iter().flatten().map(|(a, _)| a.clone()).collect();
        addrs.sort_by_key(|a| !addr::is_tcp(a));
        addrs
    }

    /// Everybody, with the best address.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (PeerId, &Multiaddr, Via)> {
        self.0.iter().filter_map(|(peer, addrs)| {
            addrs.iter().min_by_key(|(a, v)| (*v, !addr::is_tcp(a))).map(|(a, v)| (*peer, a, *v))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn tcp_comes_first_then_the_most_recent() {
        let (mut book, peer) = (Book::default(), PeerId::random());
        for addr in ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.2/tcp/1"] {
            assert!(book.add(peer, at(addr), Via::Peer));
        }
        assert!(!book.add(peer, at("/ip4/192.0.2.1/tcp/1").with_p2p(peer).unwrap(), Via::Dht));
        let want = ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"];
        assert_eq!(book.addrs(&peer), want.map(at));
    }

    #[test]
    fn hearsay_makes_room_for_what_was_dialled() {
        let mut book = Book::default();
        let kept = PeerId::random();
        assert!(book.add(kept, at("/ip4/192.0.2.1/tcp/1"), Via::Dial));
        for _ in 1..PEERS_MAX {
            assert!(book.add(PeerId::random(), at("/ip4/192.0.2.1/tcp/1"), Via::Mdns));
        }
        assert!(!book.add(PeerId::random(), at("/ip4/192.0.2.1/tcp/1"), Via::Mdns));
        assert!(book.add(PeerId::random(), at("/ip4/192.0.2.1/tcp/1"), Via::Dial));
        assert_eq!((book.peers().count(), book.addrs(&kept).len()), (PEERS_MAX, 1));
        for port in 1..100 {
            book.add(kept, at(&format!("/ip4/192.0.2.1/tcp/{port}")), Via::Dht);
        }
        assert_eq!(book.addrs(&kept).len(), ADDRS_MAX);
    }

    #[test]
    fn an_announcement_expires_and_a_dialled_address_does_not() {
        let (mut book, peer) = (Book::default(), PeerId::random());
        book.add(peer, at("/ip4/192.0.2.1/tcp/1"), Via::Mdns);
        book.add(peer, at("/ip4/192.0.2.2/tcp/1"), Via::Dial);
        book.add(peer, at("/ip4/192.0.2.2/tcp/1"), Via::Mdns);
        for addr in ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"] {
            book.expire(&peer, &at(addr));
        }
        assert_eq!(book.addrs(&peer), [at("/ip4/192.0.2.2/tcp/1")]);
    }
}
