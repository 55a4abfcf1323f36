//! ns: name spaces: bind, mount, unmount, unions, namespace(6). See ns(4).
//!
//! A [`Namespace`] is a mount table and the way to walk through it; it is a [`Tree`] like any other, and it knows no
//! service: devices are handed to it by name, and what a `mount` names is resolved by its maker. Its table (`table`) is
//! pure; files are found through it in `space` and `union`; `node` is what a walk gives. The user's name space, each job's
//! private one and their forks are made of this.

mod error;
mod link;
mod node;
mod path;
mod root;
mod space;
mod table;
mod text;
mod union;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use fs_ninep::{Call, Caller, File, Result, Tree};
use tokio::sync::watch;

pub use error::Error;
pub use link::{DEADLINE, RETRY_MAX, RETRY_MIN};
pub use path::{PATH_AGAIN_MAX, PATH_DEPTH_MAX};
pub use root::{Own, TREE};
pub use space::{INCLUDE_DEPTH_MAX, REFUSAL_BYTES_MAX, REFUSALS_MAX, Resolve};
pub use table::{HEADS_MAX, MEMBERS_MAX};
pub use text::{TEXT_MAX, quote, redact};
pub use union::ENTRIES_MAX;

use node::Node;
use space::{Space, Table};

/// A name space: its root shows `ns`, `error`, `event` and what was bound.
pub struct Namespace {
    space: Arc<Space>,
}

impl Namespace {
    /// An empty name space that knows `devices` by name (`#NAME` in its text) and asks `resolve` what a mount's source is.
    pub fn new(devices: Vec<(String, Arc<dyn File>)>, resolve: Arc<dyn Resolve>) -> Arc<Namespace> {
        Namespace::with(devices, resolve, Vec::new())
    }

    /// The same, where `$name` in its text stands for the value that `vars` has.
    pub fn with(
        devices: Vec<(String, Arc<dyn File>)>,
        resolve: Arc<dyn Resolve>,
        vars: Vec<(String, String)>,
    ) -> Arc<Namespace> {
        let space = Space::new(devices, resolve, vars.into_iter().collect(), Arc::<Table>::default());
        Arc::new(Namespace { space })
    }

    /// A copy that goes its own way: the same devices and bindings (and latch) to begin with.
    pub fn fork(&self) -> Arc<Namespace> {
        let Space { devices, resolve, vars, .. } = &*self.space;
        Arc::new(Namespace { space: Space::new(devices.clone(), resolve.clone(), vars.clone(), self.space.table().0) })
    }

    /// The root, as the name space's owner sees it in this process.
    pub fn root(&self) -> Arc<dyn File> {
        self.root_of(Caller::owner(self.space.ids.0))
    }

    /// The root, as `caller` sees it: the text in `error` is the caller's own.
    pub fn root_of(&self, caller: Caller) -> Arc<dyn File> {
        Node::root(&self.space, caller)
    }

    /// Obeys the lines of `text`, namespace(6), all or none.
    /// # Errors
    /// The first line's that cannot be obeyed; its text says which and why.
    pub async fn apply(&self, text: &str) -> Result<()> {
        self.space.apply(text).await.map_err(Into::into)
    }

    /// The name space as text that makes an equal one, but for the secrets of capabilities, which are shown as `*`.
    pub fn text(&self) -> String {
        self.space.text(false)
    }

    /// The same with the secrets: for a file that only its owner can read.
    pub fn text_with_secrets(&self) -> String {
        self.space.text(true)
    }

    /// The table's generation, and word of every change of it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.space.changes()
    }

    /// No more binds, mounts and unmounts, for good.
    pub fn nomnt(&self) {
        self.space.nomnt();
    }
}

impl Tree for Namespace {
    /// The root, for the owner: a name space calls every server as its owner does, so nobody else may have it.
    fn attach<'a>(&'a self, caller: &'a Caller, aname: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            match aname {
                _ if !caller.is_owner() => Err(Error::Stranger.into()),
                "" | "/" => Ok(self.root_of(caller.clone())),
                name => Err(Error::Name { name: name.to_owned() }.into()),
            }
        })
    }
}
