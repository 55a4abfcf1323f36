//! Why nodes do not come together, and what to type then.

use fs_ninep::{Kind, PeerId};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message above each shows")]
pub enum Error {
    /// Text that is no multiaddr, or none that can be dialled.
    #[error(
        "{addr:?} is no address to dial ({why}); write one like /ip4/192.0.2.7/tcp/4001/p2p/ID, as self/addrs of the other node shows it"
    )]
    Address { addr: String, why: String },
    /// Text that is no peer id.
    #[error("{id:?} is no peer id; write one as self/id of the other node shows it")]
    PeerId { id: String },
    /// Text that is no filter pattern.
    #[error("{pattern:?} is no pattern; write an address block like 192.0.2.0/24, a peer id, or *")]
    Pattern { pattern: String },
    /// More filter rules than are kept.
    #[error("{n} filter rules are too many, at most {max} are kept; drop some")]
    Rules { n: usize, max: usize },
    /// The address of this very node.
    #[error("{addr} is this node itself; write the address of another")]
    Own { addr: String },
    /// Somebody else answers at the address.
    #[error(
        "{addr}: the node there is {found}, not the one that was asked for; write /p2p/{found} at the end if it is meant"
    )]
    WrongPeer { addr: String, found: PeerId },
    /// Nobody answers.
    #[error("{what}: {why}; start the node there (ipos node), or ask it for its address (cat self/addrs)")]
    Unreachable { what: String, why: String },
    /// No address to try.
    #[error("no address of {peer} is known; write \"dial MULTIADDR\" or \"find {peer}\" to peers/ctl")]
    NoAddress { peer: PeerId },
    /// A rule of ours forbids it.
    #[error("{what}: a filter rule of this node denies it; see \"filter\" in peers(4)")]
    Filtered { what: String },
    /// A limit of ours forbids it.
    #[error("{what}: this node has as many connections as it may ({why}); hang up one (echo hangup NAME >peers/ctl)")]
    Limit { what: String, why: String },
    /// The peer is there and would not have the stream.
    #[error("{peer}: {why}")]
    Refused { peer: PeerId, why: String },
    /// The DHT does not know it.
    #[error("{peer}: nobody that was asked knows it; write \"bootstrap MULTIADDR\" of a node that may to peers/ctl")]
    NotFound { peer: PeerId },
    /// No way into the DHT.
    #[error("no node of the DHT is known yet; write \"bootstrap MULTIADDR\" to peers/ctl")]
    NoDht,
    /// We cannot listen where we were told to.
    #[error("listen {addr}: {why}; choose another with --listen or listen in config.toml")]
    Listen { addr: String, why: String, busy: bool },
    /// A part of the machinery would not start.
    #[error("{what}: {why}")]
    Start { what: &'static str, why: String },
    /// The node is shutting down.
    #[error("the network of this node has been stopped")]
    Stopped,
}

impl From<Error> for fs_ninep::Error {
    fn from(e: Error) -> fs_ninep::Error {
        let kind = match &e {
            Error::Address { .. } | Error::PeerId { .. } | Error::Pattern { .. } | Error::Own { .. } => Kind::Invalid,
            Error::WrongPeer { .. } | Error::Filtered { .. } | Error::Refused { .. } => Kind::Denied,
            Error::Unreachable { .. } | Error::NoAddress { .. } | Error::Stopped => Kind::Unreachable,
            Error::Limit { .. } | Error::Rules { .. } => Kind::Exhausted,
            Error::NotFound { .. } | Error::NoDht => Kind::NotFound,
            Error::Listen { busy: true, .. } => Kind::Busy,
            Error::Listen { .. } | Error::Start { .. } => Kind::Io,
        };
        fs_ninep::Error::new(kind, e)
    }
}
