//! One name space: the table in force, the devices, and the ways files are found through it.
//!
//! A text is applied to a copy of the table, which replaces it when every line has taken effect and nobody else was
//! faster (else once more, on a new copy): a text that waits for a dead machine holds nobody up, and a dropped apply
//! changes nothing. Lookups work on a snapshot of the table and hold no lock while they wait.

mod apply;
mod find;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fs_ninep::{Call, Caller, File, ServerId, Time};
use fs_tree::Events;
use tokio::sync::watch;

use crate::link::{Link, lock};
use crate::path::Id;
use crate::{table, text};

/// The mount table of a running name space.
pub type Table = table::Table<Arc<Link>>;
/// What stands at one mount point.
pub type Head = table::Head<Arc<Link>>;
/// One member of a union.
pub type Member = table::Member<Arc<Link>>;

/// How deep `. file` may nest.
pub const INCLUDE_DEPTH_MAX: usize = 8;

/// How many callers' last refusals are kept.
pub const REFUSALS_MAX: usize = 64;

/// Bytes of a refusal's text that are kept.
pub const REFUSAL_BYTES_MAX: usize = 4096;

/// What the word after `mount` means.
pub trait Resolve: Send + Sync {
    /// The root of the tree that `source` (a capability `ipos:PEER/M#SECRET`, `srv/NAME`, …) stands for, attached to as
    /// `spec` (empty: its main tree).
    /// # Errors
    /// `NotFound` or `Invalid` for a source that means nothing here, `Unreachable`, or what its server answers.
    fn mount<'a>(&'a self, source: &'a str, spec: &'a str) -> Call<'a, Arc<dyn File>>;
}

/// What a name space is made of.
pub struct Space {
    pub devices: Vec<(String, Arc<dyn File>)>,
    pub resolve: Arc<dyn Resolve>,
    pub vars: HashMap<String, String>,
    /// Of the root and its own files.
    pub server: ServerId,
    /// The user and group those belong to: this process's.
    pub ids: (u32, u32),
    table: Mutex<Arc<Table>>,
    changed: Mutex<Time>,
    generation: AtomicU64,
    changes: watch::Sender<u64>,
    /// A line for each line obeyed.
    pub events: Events,
    refusals: Mutex<VecDeque<(Caller, String)>>,
}

impl Space {
    pub fn new(
        devices: Vec<(String, Arc<dyn File>)>,
        resolve: Arc<dyn Resolve>,
        vars: HashMap<String, String>,
        table: Arc<Table>,
    ) -> Arc<Space> {
        let devices = devices.into_iter().map(|(n, f)| (n.strip_prefix('#').unwrap_or(&n).to_owned(), f)).collect();
        Arc::new(Space {
            devices,
            resolve,
            vars,
            server: ServerId::fresh(),
            ids: (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
            table: Mutex::new(table),
            changed: Mutex::new(Time::now()),
            generation: AtomicU64::new(1),
            changes: watch::Sender::new(1),
            events: Events::new(),
            refusals: Mutex::default(),
        })
    }

    /// Rises with every change of the table.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The table, and the generation it belongs to or a later one's predecessor.
    pub fn table(&self) -> (Arc<Table>, u64) {
        let table = lock(&self.table);
        (table.clone(), self.generation())
    }

    /// When the table changed last.
    pub fn changed(&self) -> Time {
        *lock(&self.changed)
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The table as text; `secrets`: so that it can be applied again.
    pub fn text(&self, secrets: bool) -> String {
        text::print(&self.table().0, secrets, |member| member.link.note())
    }

    /// Locks the table for good.
    pub fn nomnt(&self) {
        let mut table = lock(&self.table);
        if !table.locked() {
            let mut next = Table::clone(&table);
            next.lock();
            self.put(&mut table, next);
            self.events.send("nomnt");
        }
    }

    fn put(&self, place: &mut Arc<Table>, next: Table) {
        *place = Arc::new(next);
        *lock(&self.changed) = Time::now();
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes.send_replace(generation);
    }

    /// Keeps what is to be read in `error` by `caller`.
    pub fn refused(&self, caller: &Caller, refusal: impl std::fmt::Display) {
        let mut text = refusal.to_string();
        let end = (0..=REFUSAL_BYTES_MAX).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
        text.truncate(end);
        let mut refusals = lock(&self.refusals);
        refusals.retain(|(c, _)| c != caller);
        if refusals.len() == REFUSALS_MAX {
            refusals.pop_front();
        }
        refusals.push_back((caller.clone(), text));
    }

    /// The text of the last refusal to `caller`.
    pub fn refusal(&self, caller: &Caller) -> Option<String> {
        lock(&self.refusals).iter().find(|(c, _)| c == caller).map(|(_, text)| text.clone())
    }
}

/// Which file it is.
pub fn id(file: &Arc<dyn File>) -> Id {
    (file.server(), file.qid().path)
}
