//! keys: every file of the tree.

use fs_tree::{Row, ctl, dir, error, rpc, value};

/// The files of keys/.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Q {
    Root,
    Ctl,
    Error,
    List,
    Sign,
    Verify,
}

/// The tree. What needs a private key is the owner's alone.
#[rustfmt::skip]
pub const TREE: &[Row<Q>] = &[
    dir  ("",       Q::Root,   0o555),
    ctl  ("ctl",    Q::Ctl,    0o600), // new, delete
    error("error",  Q::Error,  0o400),
    value("list",   Q::List,   0o444), // name, algorithm, public key, peer id
    rpc  ("sign",   Q::Sign,   0o600), // sign NAME HEX: the signature
    rpc  ("verify", Q::Verify, 0o666), // verify KEY HEX SIGNATURE: good or bad
];
