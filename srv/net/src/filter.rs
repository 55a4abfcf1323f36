//! Rules on who may be connected with. The first that matches decides; where none does, the connection may be.

use std::net::IpAddr;

use libp2p::PeerId;

use crate::Error;

/// Rules kept.
pub(crate) const RULES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Peer(PeerId),
    Block { net: IpAddr, bits: u8 },
}

impl Pattern {
    fn read(text: &str) -> Result<Pattern, Error> {
        let fail = || Error::Pattern { pattern: text.into() };
        if text == "*" {
            return Ok(Pattern::Any);
        }
        if let Ok(peer) = text.parse() {
            return Ok(Pattern::Peer(peer));
        }
        let (net, bits) = text.split_once('/').map_or((text, None), |(net, bits)| (net, Some(bits)));
        let net: IpAddr = net.parse().map_err(|_| fail())?;
        let most = if net.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| fail())?;
        if bits > most { Err(fail()) } else { Ok(Pattern::Block { net, bits }) }
    }

    /// `None` where it takes the peer's id to tell and that is not known yet.
    fn matches(self, ip: Option<IpAddr>, peer: Option<&PeerId>) -> Option<bool> {
        match self {
            Pattern::Any => Some(true),
            Pattern::Peer(wanted) => peer.map(|p| *p == wanted),
            Pattern::Block { net, bits } => Some(ip.is_some_and(|ip| within(ip, net, bits))),
        }
    }
}

fn within(ip: IpAddr, net: IpAddr, bits: u8) -> bool {
    match (ip, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits.into(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits.into(),
        // A mapped address is the IPv4 machine it names, lest a rule be walked around.
        (IpAddr::V6(a), IpAddr::V4(_)) => a.to_ipv4_mapped().is_some_and(|a| within(a.into(), net, bits)),
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

/// The rules, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(Vec<(bool, Pattern)>);

impl Rules {
    pub(crate) fn read(rules: &[fs_ninep::Filter]) -> Result<Rules, Error> {
        if rules.len() > RULES_MAX {
            return Err(Error::Rules { n: rules.len(), max: RULES_MAX });
        }
        rules.iter().map(|r| Ok((r.allow, Pattern::read(&r.pattern)?))).collect::<Result<_, Error>>().map(Rules)
    }

    /// Whether a connection may be. Before the peer's id is known, a rule that needs it leaves the matter open: it may.
    pub(crate) fn allow(&self, ip: Option<IpAddr>, peer: Option<&PeerId>) -> bool {
        for (allow, pattern) in &self.0 {
            match pattern.matches(ip, peer) {
                Some(true) => return *allow,
                Some(false) => {}
                None => return true,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules, an address, whether the peer is the named one, and what comes of it.
    #[test]
    fn rules_decide_in_order() {
        const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        for (rules, ip, peer, want) in [
            ("", "192.0.2.7", Some(true), true),
            ("deny *", "192.0.2.7", Some(true), false),
            ("deny 192.0.2.0/24", "192.0.2.7", None, false),
            ("deny 192.0.2.0/24", "192.0.3.7", None, true),
            ("deny 192.0.2.7", "192.0.2.7", None, false),
            ("deny 192.0.2.7", "::ffff:192.0.2.7", None, false),
            ("deny 0.0.0.0/0", "2001:db8::1", None, true),
            ("deny ::/0", "2001:db8::1", None, false),
            ("allow 192.0.2.0/24,deny *", "192.0.2.7", None, true),
            ("allow 192.0.2.0/24,deny *", "192.0.3.7", None, false),
            ("deny *,allow 192.0.2.0/24", "192.0.2.7", None, false),
            ("deny ID", "192.0.2.7", Some(true), false),
            ("deny ID", "192.0.2.7", Some(false), true),
            ("deny ID", "192.0.2.7", None, true),
            ("allow ID,deny *", "192.0.2.7", None, true),
            ("allow ID,deny *", "192.0.2.7", Some(false), false),
        ] {
            let rules: Vec<_> =
                rules.split(',').filter(|r| !r.is_empty()).map(|r| rule(&r.replace("ID", ID))).collect();
            let peer = peer.map(|same| if same { ID.parse().unwrap() } else { PeerId::random() });
            let got = Rules::read(&rules).unwrap().allow(Some(ip.parse().unwrap()), peer.as_ref());
            assert_eq!(got, want, "{rules:?} {ip} {peer:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "moon", "192.0.2.0/33", "192.0.2.0/-1", "192.0.2.0/", "::/129", "192.0.2", "12D3KooW"] {
            assert!(Rules::read(&[rule(&format!("deny {bad}"))]).is_err(), "{bad}");
        }
        assert!(Rules::read(&vec![rule("deny *"); RULES_MAX + 1]).is_err());
    }

    fn rule(text: &str) -> fs_ninep::Filter {
        let (word, pattern) = text.split_once(' ').unwrap();
        fs_ninep::Filter { allow: word == "allow", pattern: pattern.into() }
    }
}
