//! Open files and directories, by the number (`fh`) the kernel was given for each.
//!
//! A release drops the table's reference; a read under way keeps its own. As many as the system's processes hold open.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use fs_ninep::{DirEntry, OpenFile};

/// One opening.
#[derive(Clone)]
pub enum Open {
    /// Of a file.
    File(Arc<OpenedFile>),
    /// Of a directory.
    Dir(Arc<OpenedDir>),
}

/// An open file.
pub struct OpenedFile {
    /// The tree's side of it.
    pub open: Arc<dyn OpenFile>,
    /// Its node.
    pub node: u64,
    /// Never cached: a read is one call, and what it gives is given on.
    pub live: bool,
}

/// An open directory, and what was read of it but not yet asked for.
pub struct OpenedDir {
    /// The tree's side of it.
    pub open: Arc<dyn OpenFile>,
    ahead: Mutex<Ahead>,
}

/// Entries that follow the cookie `after`; `end` when there are none after them.
#[derive(Default)]
pub struct Ahead {
    /// Where they begin.
    pub after: u64,
    /// The entries.
    pub entries: VecDeque<DirEntry>,
    /// The directory ends with them.
    pub end: bool,
}

impl OpenedDir {
    /// A directory just opened.
    pub fn new(open: Arc<dyn OpenFile>) -> OpenedDir {
        OpenedDir { open, ahead: Mutex::default() }
    }

    /// What was read ahead, where it begins after `cookie`; else nothing. A listing begun again (0) is read again.
    pub fn take(&self, cookie: u64) -> Ahead {
        let ahead = std::mem::take(&mut *self.ahead.lock().unwrap_or_else(PoisonError::into_inner));
        match cookie != 0 && ahead.after == cookie {
            true => ahead,
            false => Ahead { after: cookie, ..Ahead::default() },
        }
    }

    /// Keeps what was not asked for.
    pub fn keep(&self, ahead: Ahead) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
    }
}

/// The table.
#[derive(Default)]
pub struct Opens {
    opens: HashMap<u64, Open>,
    last: u64,
}

impl Opens {
    /// Enters an opening and gives its number.
    pub fn insert(&mut self, open: Open) -> u64 {
        self.last += 1;
        self.opens.insert(self.last, open);
        self.last
    }

    /// The open file `fh`.
    pub fn file(&self, fh: u64) -> Option<Arc<OpenedFile>> {
        match self.opens.get(&fh) {
            Some(Open::File(f)) => Some(f.clone()),
            _ => None,
        }
    }

    /// The open directory `fh`.
    pub fn dir(&self, fh: u64) -> Option<Arc<OpenedDir>> {
        match self.opens.get(&fh) {
            Some(Open::Dir(d)) => Some(d.clone()),
            _ => None,
        }
    }

    /// Removes `fh`; the caller drops it after the table's lock.
    pub fn remove(&mut self, fh: u64) -> Option<Open> {
        self.opens.remove(&fh)
    }
}
