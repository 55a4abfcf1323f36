//! Why a name space refuses, and what to type instead.

use fs_ninep::Kind;

/// A refusal of the name space itself; what a server behind it answers passes through unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a word of namespace(6).
    #[error("{word:?} is no name space command; write bind, mount, unmount, clear, nomnt or \". FILE\"")]
    Word {
        /// As written.
        word: String,
    },
    /// Too few or too many words.
    #[error("write {usage:?}")]
    Usage {
        /// The form.
        usage: &'static str,
    },
    /// A flag that is none.
    #[error("-{flag} is no flag; write -a, -b, -c, -C or -f")]
    Flag {
        /// As written.
        flag: char,
    },
    /// -a and -b together.
    #[error("-a and -b exclude each other")]
    Order,
    /// A quote without its end.
    #[error("a quote is not closed; a quote inside quotes is written twice")]
    Quote,
    /// `$name` of nothing.
    #[error("${name} is not set here; quote a word that has a dollar sign in it")]
    Variable {
        /// The name.
        name: String,
    },
    /// A path element that is no file name.
    #[error("{path}: {why}")]
    Path {
        /// As written.
        path: String,
        /// What is wrong with it.
        why: fs_ninep::Error,
    },
    /// `#name` of nothing.
    #[error("#{name}: no such device; the devices are {known}")]
    Device {
        /// The name.
        name: String,
        /// All there are, in words.
        known: String,
    },
    /// A device where only a path may stand.
    #[error("{path}: a device cannot be bound over; name a path")]
    OldDevice {
        /// As written.
        path: String,
    },
    /// A file that a line names could not be found or asked.
    #[error("{path}: {why}")]
    File {
        /// As written, secrets hidden.
        path: String,
        /// What its server said.
        why: fs_ninep::Error,
    },
    /// What is to be bound over is not there.
    #[error(
        "{path}: {why}; only a name directly in / is made by a bind: bind over a name that exists, or over /{last}"
    )]
    Old {
        /// The path.
        path: String,
        /// Its last element.
        last: String,
        /// What its server said.
        why: fs_ninep::Error,
    },
    /// A directory on a file or a file on a directory.
    #[error("{new} and {old} must both be directories, or both files")]
    Mixed {
        /// What was to be bound.
        new: String,
        /// What over.
        old: String,
    },
    /// A union of files.
    #[error("{old}: a file has one binding; leave -a, -b and -c out")]
    FileUnion {
        /// What was to be bound over.
        old: String,
    },
    /// The root itself.
    #[error("/: the root holds mount points and is none; bind over a name in it")]
    Root,
    /// `ns`, `error` or `event`.
    #[error("/{name}: this file is the name space's own and stays; take another name")]
    Own {
        /// Its name.
        name: String,
    },
    /// A cycle.
    #[error("{new} holds {old}: a walk would not end; write -f to bind it all the same")]
    Cycle {
        /// What was to be bound.
        new: String,
        /// What over.
        old: String,
    },
    /// One directory again and again on a path.
    #[error("{path}: the same directory more than {max} times on one path")]
    Again {
        /// The path.
        path: String,
        /// How often it may.
        max: usize,
    },
    /// -c on several members.
    #[error("{new} is a union of {members}; -c takes one directory: bind the one that shall hold new files")]
    CreateUnion {
        /// What was to be bound.
        new: String,
        /// How many members it has.
        members: usize,
    },
    /// Unmount of what is not.
    #[error("{old}: nothing is bound there")]
    NotBound {
        /// The path.
        old: String,
    },
    /// Unmount of a member that is not.
    #[error("{new} is not bound at {old}; \"unmount {old}\" takes all away")]
    NoMember {
        /// Whom.
        new: String,
        /// Where.
        old: String,
    },
    /// Something is bound further down.
    #[error("{old}: {below} is bound below it; unmount that first")]
    Below {
        /// The path.
        old: String,
        /// A mount point under it.
        below: String,
    },
    /// After `nomnt`.
    #[error("this name space is locked by nomnt; fork one from outside")]
    Locked,
    /// A table is full.
    #[error("{what}: at most {max}")]
    Full {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A create where no member takes it.
    #[error("{path}: no member of this union allows creation (bind -c one)")]
    NoCreate {
        /// The union.
        path: String,
    },
    /// A create in the root.
    #[error("/{name}: the root holds mount points only; bind something to /{name}")]
    RootCreate {
        /// The name.
        name: String,
    },
    /// unlink, rmdir or rename of a mount point, or of what lies above one.
    #[error("{path}: is or holds a mount point; unmount {at} first")]
    MountPoint {
        /// The path.
        path: String,
        /// The mount point.
        at: String,
    },
    /// rename or link between servers, or under an equal name that would hide it.
    #[error("{path}: the two names are on different servers; copy instead")]
    Apart {
        /// The path.
        path: String,
    },
    /// A member that does not answer.
    #[error("{path}: {member} did not answer ({why})")]
    Silent {
        /// The path asked for.
        path: String,
        /// The member, secrets hidden.
        member: String,
        /// What became of the question.
        why: fs_ninep::Error,
    },
    /// A member not asked again yet.
    #[error("down {down_s} s, retry in {retry_s} s")]
    Down {
        /// For how long, seconds.
        down_s: u64,
        /// Until it is asked again, seconds.
        retry_s: u64,
    },
    /// The bound file is not there any more.
    #[error("{member} is gone from its server; unmount it or bind it again")]
    Gone {
        /// The member, secrets hidden.
        member: String,
    },
    /// No mount point of that name.
    #[error("nothing is bound at /{name} in this name space")]
    Name {
        /// The name.
        name: String,
    },
    /// Somebody else's attach.
    #[error("a name space is its owner's; others attach to what was exported to them")]
    Stranger,
    /// `. file` within itself.
    #[error("{path}: files name each other more than {max} deep")]
    Nested {
        /// The file.
        path: String,
        /// The limit.
        max: usize,
    },
    /// One line of a text.
    #[error("ns line {number}: {why}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        why: Box<Error>,
    },
}

impl Error {
    /// What a program sees of it.
    pub fn kind(&self) -> Kind {
        use Error as E;
        match self {
            E::Word { .. } | E::Usage { .. } | E::Flag { .. } | E::Order | E::Quote | E::Variable { .. } => {
                Kind::Invalid
            }
            E::OldDevice { .. } | E::FileUnion { .. } | E::CreateUnion { .. } | E::Root => Kind::Invalid,
            E::Path { why, .. } | E::File { why, .. } | E::Old { why, .. } => why.kind(),
            E::Device { .. } | E::NotBound { .. } | E::NoMember { .. } | E::Name { .. } | E::Gone { .. } => {
                Kind::NotFound
            }
            E::Mixed { .. } => Kind::NotDir,
            E::Cycle { .. } | E::Again { .. } | E::Nested { .. } => Kind::Loop,
            E::Own { .. } | E::Below { .. } | E::MountPoint { .. } => Kind::Busy,
            E::Locked => Kind::NotPermitted,
            E::Full { .. } => Kind::Exhausted,
            E::NoCreate { .. } | E::RootCreate { .. } => Kind::ReadOnly,
            E::Apart { .. } => Kind::CrossDevice,
            E::Silent { why, .. } if why.kind() == Kind::TimedOut => Kind::TimedOut,
            E::Silent { .. } | E::Down { .. } => Kind::Unreachable,
            E::Stranger => Kind::Denied,
            E::Line { why, .. } => why.kind(),
        }
    }
}

impl From<Error> for fs_ninep::Error {
    fn from(e: Error) -> fs_ninep::Error {
        fs_ninep::Error::new(e.kind(), e)
    }
}
