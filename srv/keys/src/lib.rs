//! keys: the key agent. It makes the node's key at the first start, signs with the keys it holds, and shows none of them.
//!
//! The wiring opens it first of all: the transport proves who the node is with [`Keys::seed`]. Private keys are in the
//! key files and in this crate's memory only, which is cleared when it is freed; no type that holds one can be printed.
//! Only writes of `ctl` touch the disk, on a thread that may wait. See keys(4).

mod error;
mod files;
mod keyfile;
mod peer;
mod state;
mod tree;
mod verbs;

use std::path::Path;
use std::sync::Arc;

use fs_ninep::{PeerId, Tree};
use zeroize::Zeroizing;

pub use error::Error;
pub use peer::{peer_id, public_key};
pub use state::{KEYS_MAX, MESSAGE_MAX, NODE, SIGN_PREFIX};
pub use tree::{Q, TREE};

use state::Ring;

/// The key agent of one node.
pub struct Keys {
    ring: Ring,
}

impl Keys {
    /// Opens the key directory `dir`; the first time, makes it (mode 0700) and the node's key in it (mode 0600).
    ///
    /// Blocks on the disk: called once, before the node serves anybody.
    /// # Errors
    /// Each names the file and what to type: `Exposed` and `Foreign` for a directory or key file that others may read or
    /// that belongs to another user, `Damaged` for a key file that is not one (it is left as it is), `Io`.
    pub fn open(dir: &Path) -> Result<Arc<Keys>, Error> {
        Ok(Arc::new(Keys { ring: Ring::open(dir)? }))
    }

    /// The private half of the node's key, for the transport to prove the node's identity with.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        self.ring.seed()
    }

    /// The node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.ring.peer_id()
    }

    /// The tree that stands at `keys/`.
    pub fn tree(self: &Arc<Self>) -> Arc<dyn Tree> {
        fs_tree::serve(Arc::new(files::Agent(self.clone())))
    }
}
