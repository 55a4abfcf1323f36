//! export: every file of the owner's tree.

use fs_tree::{Row, clone, ctl, dir, error, value};

/// The files of export/.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Q {
    Root,
    Ctl,
    Error,
    Grants,
    Clone,
    Export,
    ExportCtl,
    ExportError,
    Cap,
    ExportGrants,
    Status,
}

/// The tree: all of it the owner's alone.
#[rustfmt::skip]
pub const TREE: &[Row<Q>] = &[
    dir  ("",           Q::Root,         0o500),
    ctl  ("ctl",        Q::Ctl,          0o200), // grant, revoke
    error("error",      Q::Error,        0o400),
    value("grants",     Q::Grants,       0o400), // who, path, access, max, number
    clone("clone",      Q::Clone,        0o600), // open: make an export; read: its number
    dir  ("{m}",        Q::Export,       0o500), // rmdir: revoke all of it
    ctl  ("{m}/ctl",    Q::ExportCtl,    0o600),
    error("{m}/error",  Q::ExportError,  0o400),
    value("{m}/cap",    Q::Cap,          0o400), // the capability
    value("{m}/grants", Q::ExportGrants, 0o400), // who, access
    value("{m}/status", Q::Status,       0o400),
];
