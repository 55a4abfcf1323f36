//! Peers, and their trees under n/. See peers(4).
//!
//! A node keeps one 9P session with each peer, for all who use it: the name space through n/, services through
//! [`Remote`]. A session is made at its first use and again after it was lost; files walked to stay good over that, open
//! ones do not. The names, their addresses and the filter rules are saved. Lock order: `writing` (held over a save), then
//! a peer's gate (over a dial), then `table`, `peers` or a slot (for a look).

mod error;
mod far;
mod files;
mod names;
mod session;
mod table;
mod tree;
mod verbs;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use fs_ninep::{Call, Caller, Client, File, PeerEvent, PeerId, Remote, Result, Transport, Tree};
use fs_tree::Events;
use tokio::sync::broadcast::error::RecvError;

use crate::far::Root;
use crate::session::{Peer, Session, State};
use crate::table::{Table, peer_id};

pub use crate::error::Error;
pub use crate::session::{CALL_MS, REST_MS, SESSION_MS};
pub use crate::table::{ADDRS_MAX, NAME_BYTES_MAX, NAMES_MAX};
pub use crate::tree::{N, NAMES, Q, TREE};
pub use crate::verbs::RULES_MAX;

/// Peers remembered, named or not; one without a name or a session makes room.
pub const PEERS_MAX: usize = 4096;

/// Where peers keep what outlives the node.
pub struct Config {
    /// The saved table. Its directory exists.
    pub path: PathBuf,
}

/// The peers of this node.
pub struct Peers {
    inner: Arc<Inner>,
    tree: Arc<dyn Tree>,
    names: Arc<dyn Tree>,
}

pub(crate) struct Inner {
    me: Weak<Inner>,
    pub(crate) transport: Arc<dyn Transport>,
    path: PathBuf,
    table: Mutex<Table>,
    peers: Mutex<HashMap<PeerId, Arc<Peer>>>,
    own: OnceLock<Arc<dyn Tree>>,
    pub(crate) events: Events,
    pub(crate) writing: tokio::sync::Mutex<()>,
}

impl Peers {
    /// Reads the saved table and begins to listen to what the transport tells. Called within the node's runtime.
    /// # Errors
    /// `Table` where the file holds what this program did not write; `Disk`; what the transport says of a filter rule.
    pub fn new(transport: Arc<dyn Transport>, config: Config) -> Result<Arc<Peers>> {
        let table = Table::load(&config.path)?;
        if !table.filters.is_empty() {
            let bad = |e| Error::Address { path: config.path.clone(), name: "filter".into(), why: format!("{e}") };
            transport.filter(&table.filters).map_err(bad)?;
        }
        for (name, entry) in &table.names {
            for addr in entry.addrs.iter().rev() {
                let bad = |e| Error::Address { path: config.path.clone(), name: name.clone(), why: format!("{e}") };
                transport.learn(&entry.peer, addr).map_err(bad)?;
            }
        }
        let inner = Arc::new_cyclic(|me| Inner {
            me: me.clone(),
            transport,
            path: config.path,
            table: Mutex::new(table),
            peers: Mutex::default(),
            own: OnceLock::new(),
            events: Events::new(),
            writing: tokio::sync::Mutex::new(()),
        });
        tokio::spawn(listen(inner.transport.events(), Arc::downgrade(&inner)));
        let tree = fs_tree::serve(Arc::new(files::Tree(inner.clone())));
        let names = fs_tree::serve(Arc::new(names::Names(inner.clone())));
        Ok(Arc::new(Peers { inner, tree, names }))
    }

    /// peers/.
    pub fn tree(&self) -> Arc<dyn Tree> {
        self.tree.clone()
    }

    /// n/.
    pub fn names(&self) -> Arc<dyn Tree> {
        self.names.clone()
    }

    /// Sets what this node shows others: an attach to its own id gets that, as its own peer. A capability of this node
    /// is then good on this node too. Set once; a second is ignored.
    pub fn show(&self, tree: Arc<dyn Tree>) {
        let _ = self.inner.own.set(tree);
    }

    /// The peer of a name or of a peer id's text.
    pub fn lookup(&self, name: &str) -> Option<PeerId> {
        self.inner.resolve(name).ok()
    }

    /// The name of a peer that has one.
    pub fn name_of(&self, peer: &PeerId) -> Option<String> {
        self.inner.table().name_of(peer).map(String::from)
    }
}

impl Remote for Peers {
    fn attach<'a>(&'a self, peer: &'a PeerId, aname: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            if *peer == self.inner.transport.id() {
                let own = self.inner.own.get().ok_or_else(|| Error::Own { what: peer.to_string() })?;
                return own.attach(&Caller::peer(peer.clone()), aname).await;
            }
            let root = Root::new(self.inner.me.clone(), peer.clone(), aname.into());
            root.attach().await?;
            Ok(root.file())
        })
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Inner {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// The peer that `word` names, or whose id it is.
    pub(crate) fn resolve(&self, word: &str) -> Result<PeerId, Error> {
        self.resolve_in(word, &self.table())
    }

    pub(crate) fn resolve_in(&self, word: &str, table: &Table) -> Result<PeerId, Error> {
        if let Some(entry) = table.names.get(word) {
            return Ok(entry.peer.clone());
        }
        let peer = peer_id(word).map_err(|_| Error::Unknown { name: word.into() })?;
        if peer == self.transport.id() { Err(Error::Own { what: word.into() }) } else { Ok(peer) }
    }

    /// Whether `word` stands in peers/ and n/: a name, or the id of a peer that could be reached.
    pub(crate) fn is_known(&self, word: &str) -> bool {
        let Ok(peer) = self.resolve(word) else { return false };
        let reachable = || self.transport.link(&peer).is_some() || !self.transport.known(&peer).is_empty();
        self.table().names.contains_key(word) || lock(&self.peers).contains_key(&peer) || reachable()
    }

    /// Every name.
    pub(crate) fn names(&self) -> Vec<String> {
        self.table().names.keys().cloned().collect()
    }

    /// Peers without a name with whom a connection stands.
    pub(crate) fn strangers(&self) -> Vec<PeerId> {
        let table = self.table();
        let mut ids: Vec<PeerId> = lock(&self.peers).keys().filter(|id| table.name_of(id).is_none()).cloned().collect();
        drop(table);
        ids.retain(|id| self.transport.link(id).is_some());
        ids.sort();
        ids
    }

    /// What is kept of `id`.
    pub(crate) fn peer(&self, id: &PeerId) -> Arc<Peer> {
        let table = self.table();
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.get(id) {
            return peer.clone();
        }
        if peers.len() >= PEERS_MAX {
            peers.retain(|id, p| table.name_of(id).is_some() || !p.is_spare());
        }
        let peer = Arc::new(Peer::new(id.clone()));
        if peers.len() < PEERS_MAX {
            peers.insert(id.clone(), peer.clone());
        }
        peer
    }

    /// The root of a peer's main tree.
    pub(crate) fn root(&self, id: &PeerId) -> Arc<Root> {
        self.peer(id).root.get_or_init(|| Root::new(self.me.clone(), id.clone(), String::new())).clone()
    }

    /// The session with `id`, dialled where there is none.
    pub(crate) async fn session(&self, id: &PeerId) -> Result<Arc<Session>> {
        let peer = self.peer(id);
        if let Some(session) = peer.live() {
            return Ok(session);
        }
        let open = || async move {
            let stream = self.transport.open(id).await?;
            Client::connect(stream, session::client_config()).await
        };
        let session = peer.session(open).await?;
        self.remember(id);
        Ok(session)
    }

    /// Saves where a named peer was reached, where that is news.
    fn remember(&self, id: &PeerId) {
        let known: Vec<String> = self.transport.known(id).into_iter().take(ADDRS_MAX).collect();
        let news = |table: &Table| table.names.values().any(|e| e.peer == *id && e.addrs != known);
        if known.is_empty() || !news(&self.table()) {
            return;
        }
        let (me, id) = (self.me.clone(), id.clone());
        tokio::spawn(async move {
            let Some(inner) = me.upgrade() else { return };
            let _turn = inner.writing.lock().await;
            let mut table = inner.table().clone();
            if let Some(entry) = table.names.values_mut().find(|e| e.peer == id) {
                entry.addrs = known;
            }
            if let Err(e) = inner.commit(table).await {
                inner.events.send(format!("unsaved\t{e}"));
            }
        });
    }

    /// Makes `table` the one in force, when its rules hold and it is on disk. The caller holds `writing`.
    pub(crate) async fn commit(&self, table: Table) -> Result<()> {
        let before = self.table().clone();
        if table == before {
            return Ok(());
        }
        if table.filters != before.filters {
            self.transport.filter(&table.filters)?;
        }
        let (text, path) = (table.text(), self.path.clone());
        let saved = tokio::task::spawn_blocking(move || Table::save(&text, &path)).await;
        let why = |e: tokio::task::JoinError| Error::Disk { path: self.path.clone(), why: e.to_string() };
        if let Err(e) = saved.unwrap_or_else(|e| Err(why(e))) {
            if table.filters != before.filters {
                self.transport.filter(&before.filters)?;
            }
            return Err(e.into());
        }
        self.tell(&before, &table);
        *self.table() = table;
        Ok(())
    }

    fn tell(&self, before: &Table, after: &Table) {
        let peer = |table: &Table, name: &str| table.names.get(name).map(|e| e.peer.clone());
        for (name, entry) in before.names.iter().filter(|(n, e)| peer(after, n).as_ref() != Some(&e.peer)) {
            self.events.send(format!("forgotten\t{name}\t{}", entry.peer));
        }
        for (name, entry) in after.names.iter().filter(|(n, e)| peer(before, n).as_ref() != Some(&e.peer)) {
            self.events.send(format!("named\t{name}\t{}", entry.peer));
        }
    }

    /// The text of near.
    pub(crate) fn near(&self) -> String {
        let table = self.table();
        let row = |n: fs_ninep::Near| {
            let name = table.name_of(&n.peer).unwrap_or("-");
            let state = if n.connected { "connected" } else { "-" };
            format!("{}\t{}\t{}\t{name}\t{state}\n", n.peer, n.addr, n.via)
        };
        self.transport.near().into_iter().map(row).collect()
    }

    /// The text of a status: the state, since when, and why or how.
    pub(crate) fn status(&self, id: &PeerId) -> String {
        let (state, since, why) = match self.transport.link(id) {
            Some(link) => {
                let how = if link.inbound { "it dialled, from" } else { "dialled at" };
                (State::Connected, link.since, format!("{how} {}", link.addr))
            }
            None => {
                let standing = self.peer(id).standing();
                (standing.state, standing.since, standing.why)
            }
        };
        format!("{}\n", format!("{} {} {why}", state.as_str(), since.sec).trim_end())
    }

    fn heard(&self, event: PeerEvent) {
        let name = |peer: &PeerId| self.table().name_of(peer).unwrap_or("-").to_owned();
        match event {
            PeerEvent::Connected { peer, addr, inbound } => {
                let way = if inbound { "in" } else { "out" };
                self.peer(&peer).stand(State::Connected, &addr);
                self.events.send(format!("connected\t{}\t{peer}\t{addr}\t{way}", name(&peer)));
            }
            PeerEvent::Disconnected { peer, why } => {
                self.peer(&peer).stand(State::Lost, &why);
                self.events.send(format!("disconnected\t{}\t{peer}\t{why}", name(&peer)));
            }
            PeerEvent::Discovered { peer, addr, via } => {
                self.events.send(format!("discovered\t{}\t{peer}\t{addr}\t{via}", name(&peer)));
            }
        }
    }
}

/// Hears what the transport tells, until either side is gone.
async fn listen(mut events: tokio::sync::broadcast::Receiver<PeerEvent>, inner: Weak<Inner>) {
    loop {
        let event = events.recv().await;
        let Some(inner) = inner.upgrade() else { return };
        match event {
            Ok(event) => inner.heard(event),
            Err(RecvError::Lagged(n)) => inner.events.send(format!("lost {n}")),
            Err(RecvError::Closed) => return,
        }
    }
}
