//! The two trees: peers/, what this node knows of others; n/, what they show.

use fs_tree::{Row, ctl, dir, error, graft, stream, value};

/// The files of peers/.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Q {
    /// The directory itself.
    Root,
    /// Commands; read: the filter rules.
    Ctl,
    /// The last refusal.
    Error,
    /// What happens among the nodes.
    Event,
    /// The nodes known of.
    Near,
    /// One peer.
    Peer,
    /// Its id.
    Id,
    /// Where it is dialled.
    Addrs,
    /// How it stands.
    Status,
    /// The last round trip.
    Latency,
    /// Commands on it.
    PeerCtl,
    /// The last refusal of those.
    PeerError,
    /// What happens to it.
    PeerEvent,
}

/// peers/: for the node's owner alone.
#[rustfmt::skip]
pub const TREE: &[Row<Q>] = &[
    dir   ("",                Q::Root,      0o500),
    ctl   ("ctl",             Q::Ctl,       0o600),  // dial hangup name forget find bootstrap filter
    error ("error",           Q::Error,     0o400),
    stream("event",           Q::Event,     0o400),
    value ("near",            Q::Near,      0o400),
    dir   ("{name}",          Q::Peer,      0o500),
    value (  "{name}/id",     Q::Id,        0o400),
    value (  "{name}/addrs",  Q::Addrs,     0o400),
    value (  "{name}/status", Q::Status,    0o400),
    value (  "{name}/latency",Q::Latency,   0o400),
    ctl   (  "{name}/ctl",    Q::PeerCtl,   0o200),  // dial hangup name forget
    error (  "{name}/error",  Q::PeerError, 0o400),
    stream(  "{name}/event",  Q::PeerEvent, 0o400),
];

/// The files of n/.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum N {
    /// The directory itself.
    Root,
    /// A peer's tree.
    Peer,
}

/// n/: for the node's owner alone, since what is done there is done in this node's name.
#[rustfmt::skip]
pub const NAMES: &[Row<N>] = &[
    dir   ("",       N::Root, 0o500),
    graft ("{name}", N::Peer, 0o500),  // dialled when it is used
];
