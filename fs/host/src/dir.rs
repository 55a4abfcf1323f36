//! An open directory of the host.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use fs_ninep::{Call, DirEntry, Name, OpenFile, Result};

use crate::node::Node;
use crate::quota::Held;
use crate::sys::{self, RawEntry, failed};
use crate::{Slot, blocking, lock};

/// An open directory. Its cookies are the host's own.
pub(crate) struct OpenDir(Arc<State>);

struct State {
    node: Arc<Node>,
    fd: OwnedFd,
    listing: Mutex<Listing>,
    _pin: Arc<Held>,
    _slot: Slot,
}

/// What was listed and not handed over yet, and the cookie that it goes on from.
#[derive(Default)]
struct Listing {
    at: u64,
    ready: VecDeque<RawEntry>,
    /// The descriptor stands elsewhere than behind `ready`.
    moved: bool,
}

impl OpenDir {
    pub fn new(node: Arc<Node>, fd: OwnedFd, pin: Arc<Held>, slot: Slot) -> OpenDir {
        OpenDir(Arc::new(State { node, fd, listing: Mutex::default(), _pin: pin, _slot: slot }))
    }
}

impl State {
    fn list(&self, cookie: u64, entries_max: usize) -> Result<Vec<DirEntry>> {
        let mut listing = lock(&self.listing);
        if cookie == 0 || cookie != listing.at {
            *listing = Listing { at: cookie, ready: VecDeque::new(), moved: true };
        }
        let mut out = Vec::new();
        while out.len() < entries_max {
            if listing.ready.is_empty() {
                if listing.moved {
                    sys::seek(self.fd.as_fd(), listing.at).map_err(failed)?;
                    listing.moved = false;
                }
                match sys::entries(self.fd.as_fd()).map_err(failed)? {
                    Some(entries) => listing.ready.extend(entries),
                    // The next read asks again: more may have been added.
                    None => {
                        listing.moved = true;
                        break;
                    }
                }
            }
            while let Some(raw) = (out.len() < entries_max).then(|| listing.ready.pop_front()).flatten() {
                listing.at = raw.next;
                out.extend(self.entry(raw));
            }
        }
        Ok(out)
    }

    /// The entry as the tree shows it; none for what is gone meanwhile or may not be entered.
    fn entry(&self, raw: RawEntry) -> Option<DirEntry> {
        let stat = sys::stat_name(self.fd.as_fd(), &raw.name).ok()?;
        let (qid, attr) = self.node.entry(&stat)?;
        Some(DirEntry { name: Name::new(raw.name).ok()?, qid, cookie: raw.next, attr: Some(attr), file: None })
    }
}

impl OpenFile for OpenDir {
    fn readdir(&self, cookie: u64, entries_max: usize) -> Call<'_, Vec<DirEntry>> {
        let state = self.0.clone();
        Box::pin(blocking(move || state.list(cookie, entries_max)))
    }

    fn fsync(&self, data_only: bool) -> Call<'_, ()> {
        let state = self.0.clone();
        Box::pin(blocking(move || crate::file::sync(state.fd.as_fd(), data_only)))
    }
}
