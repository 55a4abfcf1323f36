//! self: what this node says of itself: who it is, how it does, and its log. See self(4).
//!
//! The wiring makes it with what it knows, moves its state on ([`Node::running`], [`Node::stopping`]) and waits for
//! [`Node::stop_asked`]; any part writes to its [`Log`]. Nothing here blocks but a read of `event`.

mod files;
mod log;
mod state;
mod tree;
mod verbs;

use std::path::PathBuf;
use std::sync::Arc;

use fs_ninep::{PeerId, Tree};
use fs_tree::Events;
use tokio::sync::watch;

pub use log::{LINE_MAX, LOG_BYTES_MAX, Level, Log};
pub use state::{Error, State};
pub use tree::{Q, TREE};

/// What the wiring knows of the node.
pub struct Config {
    /// Its peer id.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Its state directory.
    pub home: PathBuf,
    /// What it does, a word each: `mount`, `cpu`, …
    pub roles: Vec<String>,
    /// The limits in force: a name, and the value with its unit at the name's end as in `exports_max`.
    pub limits: Vec<(String, u64)>,
    /// The addresses it can be dialled at now, as multiaddr text.
    pub addrs: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Counters of its parts now, by name: they follow the process's own in `metrics`.
    pub counters: Arc<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
    /// Where its diagnostics go.
    pub log: Log,
}

/// One node.
pub struct Node {
    config: Config,
    started: std::time::Instant,
    state: watch::Sender<State>,
    events: Events,
}

impl Node {
    /// A node that is starting.
    pub fn new(config: Config) -> Arc<Node> {
        let (state, _) = watch::channel(State::Starting);
        Arc::new(Node { config, started: std::time::Instant::now(), state, events: Events::new() })
    }

    /// The tree that stands at `self/`.
    pub fn tree(self: &Arc<Self>) -> Arc<dyn Tree> {
        fs_tree::serve(Arc::new(files::Own(self.clone())))
    }

    /// Everything serves now.
    pub fn running(&self) {
        self.move_on(State::Running);
    }

    /// The node is to stop: the same as `stop` written to `ctl`. It cannot be taken back.
    pub fn stopping(&self) {
        self.move_on(State::Stopping);
    }

    /// Waits until the node is to stop.
    pub async fn stop_asked(&self) {
        // The sender is in `self`: the channel cannot close.
        let _ = self.state.subscribe().wait_for(|state| *state == State::Stopping).await;
    }

    /// Tells readers of `event` that something has happened: one line.
    pub fn event(&self, text: &str) {
        self.events.send(log::printable(text));
    }

    fn move_on(&self, to: State) {
        let moved = self.state.send_if_modified(|state| {
            let forward = to > *state;
            *state = to.max(*state);
            forward
        });
        if moved {
            self.event(&format!("state {to}"));
            self.config.log.line(Level::Info, "node", to);
        }
    }
}
