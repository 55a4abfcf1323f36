//! The table of a tree: one row a file, its path from the tree's root, `{…}` for an element that the service names.

/// How a file behaves (intro(4), "kinds of file").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A directory.
    Dir,
    /// Read: a snapshot taken at open. A write, where the mode allows it, replaces the value.
    Value,
    /// Append-only bytes that grow; a read at the end gives end of file.
    Log,
    /// A read waits for the next whole records; the offset is ignored.
    Stream,
    /// Lines in, all of one write or none; a read gives a snapshot, where the mode allows it.
    Ctl,
    /// Write a request, read its reply to the end, write the next.
    Rpc,
    /// Opening it makes a numbered directory and opens that one's `ctl`.
    Clone,
    /// The text of the caller's last refusal in this directory; kept by the kit.
    Error,
    /// The service opens it itself.
    Special,
    /// A directory of another tree stands here.
    Graft,
}

/// One file of a tree.
#[derive(Clone, Copy, Debug)]
pub struct Row<Q: 'static> {
    /// Its path from the root, `""` for the root; an element `{x}` stands for every name the service lists there.
    pub path: &'static str,
    /// The service's name for it.
    pub q: Q,
    /// Permission bits: the first triad is the owner's, the last everybody's.
    pub mode: u32,
    /// How it behaves.
    pub shape: Shape,
}

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident $shape:ident;)*) => {
        $($(#[$doc])*
        pub const fn $name<Q>(path: &'static str, q: Q, mode: u32) -> Row<Q> {
            Row { path, q, mode, shape: Shape::$shape }
        })*
    };
}

rows! {
    /// A directory row.
    dir Dir;
    /// A value row.
    value Value;
    /// A log row.
    log Log;
    /// A stream row.
    stream Stream;
    /// A control row.
    ctl Ctl;
    /// An rpc row.
    rpc Rpc;
    /// A clone row: its siblings hold the `{n}` directory it makes, and that directory a `ctl`.
    clone Clone;
    /// The refusal text beside a control file.
    error Error;
    /// A row the service opens itself.
    special Special;
    /// A row where another tree stands.
    graft Graft;
}

/// The paths of `tree` as the SYNOPSIS of its page lists them: every row's but the root's, in order.
pub fn paths<Q>(tree: &[Row<Q>]) -> Vec<String> {
    tree.iter().map(|row| row.path.trim_matches('/')).filter(|path| !path.is_empty()).map(str::to_owned).collect()
}
