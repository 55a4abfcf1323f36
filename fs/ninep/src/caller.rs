//! Who calls: fixed when a connection attaches, carried to every service, never taken from a message body.

use std::fmt;
use std::sync::Arc;

/// The text form of a libp2p peer id (base58 multihash of the public key), as in `/p2p/ID` of a multiaddr.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(Arc<str>);

impl PeerId {
    /// Names the peer `id`; the text is not checked here, a transport does when it dials.
    pub fn new(id: impl Into<Arc<str>>) -> PeerId {
        PeerId(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom the transport vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Nobody: a connection that proved nothing.
    None,
    /// A process of this machine, by the user id its socket credentials name.
    Local {
        /// The user id.
        uid: u32,
    },
    /// A node, by the key its encrypted connection proved.
    Peer(PeerId),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::None => f.write_str("none"),
            Identity::Local { uid } => write!(f, "uid:{uid}"),
            Identity::Peer(id) => write!(f, "{id}"),
        }
    }
}

/// What the caller is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Proved nothing: sees what everybody may see.
    None,
    /// Known by an identity, holds what was granted to it.
    User,
    /// The person whose node this is.
    Owner,
}

/// The caller of every operation on a tree, fixed at attach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Whom the transport vouches for.
    pub identity: Identity,
    /// What they are to this node.
    pub role: Role,
}

impl Caller {
    /// The node's own user, calling in process or over a socket of the same user id.
    pub fn owner(uid: u32) -> Caller {
        Caller { identity: Identity::Local { uid }, role: Role::Owner }
    }

    /// The node `id`, over a connection that proved its key.
    pub fn peer(id: PeerId) -> Caller {
        Caller { identity: Identity::Peer(id), role: Role::User }
    }

    /// Somebody who proved nothing.
    pub fn none() -> Caller {
        Caller { identity: Identity::None, role: Role::None }
    }

    /// True for the node's own user.
    pub fn is_owner(&self) -> bool {
        self.role == Role::Owner
    }

    /// The peer, where the caller is one.
    pub fn peer_id(&self) -> Option<&PeerId> {
        match &self.identity {
            Identity::Peer(id) => Some(id),
            _ => None,
        }
    }
}
