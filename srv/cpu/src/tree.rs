//! Every file of the tree, one row each.

use fs_tree::{Row, clone, ctl, dir, error, special, stream, value};

/// The tree's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // their meaning is cpu(4)'s, by the same names
pub enum Q {
    Root,
    Machine,
    Info,
    Clone,
    Ps,
    Error,
    Job,
    Ctl,
    Args,
    Env,
    Ns,
    Stdin,
    Stdout,
    Stderr,
    Status,
    Wait,
    Usage,
    Lease,
    JobError,
}

/// Every file.
#[rustfmt::skip]
pub const TREE: &[Row<Q>] = &[
    dir    ("",                  Q::Root,     0o555),
    dir    ("{name}",            Q::Machine,  0o555),
    value  ("{name}/info",       Q::Info,     0o444), // what this machine is and has
    clone  ("{name}/clone",      Q::Clone,    0o666), // open: a new job; read: its number
    value  ("{name}/ps",         Q::Ps,       0o444), // a line a job
    error  ("{name}/error",      Q::Error,    0o444),
    dir    ("{name}/{n}",        Q::Job,      0o700),
    ctl    ("{name}/{n}/ctl",    Q::Ctl,      0o600), // write: verbs; read: the number
    value  ("{name}/{n}/args",   Q::Args,     0o600), // an argument a line
    value  ("{name}/{n}/env",    Q::Env,      0o600), // NAME=value a line
    ctl    ("{name}/{n}/ns",     Q::Ns,       0o600), // namespace(6) lines, secrets as *
    special("{name}/{n}/stdin",  Q::Stdin,    0o200), // bytes to the job
    special("{name}/{n}/stdout", Q::Stdout,   0o400), // what it printed; a read at the end waits while it runs
    special("{name}/{n}/stderr", Q::Stderr,   0o400), // the same
    value  ("{name}/{n}/status", Q::Status,   0o400), // never waits
    stream ("{name}/{n}/wait",   Q::Wait,     0o400), // waits until the job has ended: one line
    value  ("{name}/{n}/usage",  Q::Usage,    0o400), // counters, live
    value  ("{name}/{n}/lease",  Q::Lease,    0o400), // how long it is kept
    error  ("{name}/{n}/error",  Q::JobError, 0o400),
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_manual_lists_this_tree() {
        let page = include_str!("../../../man/man4/cpu.4");
        let synopsis = page.split(".Sh ").find_map(|s| s.strip_prefix("SYNOPSIS")).unwrap();
        let told: Vec<&str> = synopsis.lines().filter_map(|l| l.strip_prefix(".It Pa ")).collect();
        assert_eq!(told, fs_tree::paths(super::TREE));
    }
}
