//! Multiaddrs: read, resolved, judged.

use std::net::IpAddr;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::Error;

/// Reads a multiaddr that names a host and a TCP or QUIC port.
pub(crate) fn parse(text: &str) -> Result<Multiaddr, Error> {
    let fail = |why: String| Error::Address { addr: text.into(), why };
    // A host name may be any text, and peers send theirs: none may pass for two words or two lines where it is written.
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(fail("it holds a blank or a control character".into()));
    }
    let addr: Multiaddr = text.parse().map_err(|e| fail(format!("{e}")))?;
    let mut parts = addr.iter();
    if !matches!(
        parts.next(),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_))
    ) {
        return Err(fail("it begins with no /ip4, /ip6 or /dns".into()));
    }
    match (parts.next(), parts.next()) {
        (Some(Protocol::Tcp(1..)), None | Some(Protocol::P2p(_))) => {}
        (Some(Protocol::Udp(1..)), Some(Protocol::QuicV1)) => {}
        _ => return Err(fail("it names neither /tcp/PORT nor /udp/PORT/quic-v1".into())),
    }
    if ip(&addr).is_some_and(|ip| ip.is_unspecified()) {
        return Err(fail("an unspecified address names no machine".into()));
    }
    Ok(addr)
}

/// Replaces a host name by its addresses, asking the machine's resolver.
pub(crate) async fn resolve(addr: Multiaddr) -> Result<Vec<Multiaddr>, Error> {
    let mut parts = addr.iter();
    let (host, v4, v6) = match parts.next() {
        Some(Protocol::Dns(host)) => (host.into_owned(), true, true),
        Some(Protocol::Dns4(host)) => (host.into_owned(), true, false),
        Some(Protocol::Dns6(host)) => (host.into_owned(), false, true),
        _ => return Ok(vec![addr]),
    };
    let rest: Multiaddr = parts.collect();
    let unknown = |why: String| Error::Unreachable { what: addr.to_string(), why };
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|e| unknown(e.to_string()))?;
    let wanted = found.map(|a| a.ip()).filter(|ip| if ip.is_ipv4() { v4 } else { v6 });
    let addrs: Vec<Multiaddr> = wanted.map(|ip| Multiaddr::from(ip).into_iter().chain(rest.iter()).collect()).collect();
    if addrs.is_empty() { Err(unknown("the name has no address of that kind".into())) } else { Ok(addrs) }
}

/// The host's IP address.
pub(crate) fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// The peer that the address names.
pub(crate) fn peer(addr: &Multiaddr) -> Option<PeerId> {
    match addr.iter().last()? {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

/// The address without its peer.
pub(crate) fn bare(mut addr: Multiaddr) -> Multiaddr {
    if peer(&addr).is_some() {
        addr.pop();
    }
    addr
}

/// True for TCP, which is preferred: it moves bulk for half the CPU of QUIC.
pub(crate) fn is_tcp(addr: &Multiaddr) -> bool {
    addr.iter().any(|p| matches!(p, Protocol::Tcp(_)))
}

/// True if an address heard from a peer at `from` is worth dialling: whole, and local only where the peer is.
pub(crate) fn is_credible(addr: &Multiaddr, from: &Multiaddr) -> bool {
    let local = |a: &Multiaddr| ip(a).is_some_and(|ip| ip.is_loopback());
    parse(&addr.to_string()).is_ok() && (!local(addr) || local(from))
}

/// Where an address stands in a list for people: TCP first, the own machine's last.
pub(crate) fn rank(addr: &Multiaddr) -> (bool, bool) {
    (ip(addr).is_some_and(|ip| ip.is_loopback()), !is_tcp(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn addresses() {
        for (text, want) in [
            ("/ip4/192.0.2.7/tcp/4001", "ok"),
            ("/ip4/192.0.2.7/tcp/4001/p2p/ID", "ok"),
            ("/ip6/2001:db8::1/udp/4001/quic-v1/p2p/ID", "ok"),
            ("/dns/example.org/tcp/4001", "ok"),
            ("", "begins with no"),
            ("moon", "is no address"),
            ("192.0.2.7:4001", "is no address"),
            ("/ip4/192.0.2.7", "neither /tcp"),
            ("/ip4/192.0.2.7/udp/4001", "neither /tcp"),
            ("/ip4/192.0.2.7/tcp/0", "neither /tcp"),
            ("/ip4/192.0.2.7/tcp/4001/ws", "neither /tcp"),
            ("/ip4/0.0.0.0/tcp/4001", "unspecified"),
            ("/ip6/::/tcp/4001", "unspecified"),
            ("/p2p/ID", "begins with no"),
            ("/dns/a b/tcp/1", "holds a blank"),
            ("/dns/a\nfilter\tallow\t*/tcp/1", "holds a blank"),
            ("/dns/a\u{85}b/tcp/1", "holds a blank"),
            ("/ip4/192.0.2.7/tcp/4001/p2p/moon", "is no address"),
        ] {
            let text = text.replace("ID", ID);
            match parse(&text) {
                Ok(_) => assert_eq!(want, "ok", "{text}"),
                Err(e) => assert!(want != "ok" && e.to_string().contains(want), "{text}: {e}"),
            }
        }
    }

    #[test]
    fn local_addresses_are_believed_of_local_peers_only() {
        let addr = |text: &str| text.parse::<Multiaddr>().unwrap();
        let (here, there) = (addr("/ip4/127.0.0.1/tcp/1"), addr("/ip4/192.0.2.7/tcp/1"));
        assert!(is_credible(&here, &here) && is_credible(&there, &there) && is_credible(&there, &here));
        assert!(!is_credible(&here, &there));
        assert!(!is_credible(&addr("/ip4/0.0.0.0/tcp/1"), &there));
        assert!(!is_credible(&addr("/dns/a\nb/tcp/1"), &there));
    }
}
