//! self: every file of the tree.

use fs_tree::{Row, ctl, dir, error, log, stream, value};

/// The files of self/.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Q {
    Root,
    Id,
    Addrs,
    Name,
    Roles,
    Status,
    Ctl,
    Error,
    Limits,
    Metrics,
    Log,
    Event,
}

/// The tree: who the node is may be granted to others; how it does is its owner's to know.
#[rustfmt::skip]
pub const TREE: &[Row<Q>] = &[
    dir   ("",        Q::Root,    0o555),
    value ("id",      Q::Id,      0o444), // the peer id
    value ("addrs",   Q::Addrs,   0o444), // multiaddrs, one a line
    value ("name",    Q::Name,    0o444),
    value ("roles",   Q::Roles,   0o444), // what it does, one a line
    value ("status",  Q::Status,  0o400),
    ctl   ("ctl",     Q::Ctl,     0o200), // log, stop
    error ("error",   Q::Error,   0o400),
    value ("limits",  Q::Limits,  0o400), // name, value
    value ("metrics", Q::Metrics, 0o400), // name, value
    log   ("log",     Q::Log,     0o400), // the node's diagnostics
    stream("event",   Q::Event,   0o400), // changes of state
];
