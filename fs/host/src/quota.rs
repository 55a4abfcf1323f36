//! How much a host directory has grown under us.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use fs_ninep::{Attr, Error, Kind, Result};

use crate::{Shared, lock, sys};

/// Bytes added, counted by the length of files: growth adds; a cut, and the end of a file that nobody here holds any
/// more, give back. Never below 0, so removing what was there before earns nothing.
pub(crate) struct Quota {
    max: u64,
    /// Held for each change of a length, so that two that overlap are not counted twice. Taken on blocking threads only.
    growing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: u64,
    /// Descriptors of each inode: an unlinked file takes room until the last of them is closed.
    held: HashMap<(u64, u64), usize>,
}

impl Quota {
    pub fn new(max: u64) -> Quota {
        Quota { max, growing: Mutex::default(), state: Mutex::default() }
    }

    pub fn used(&self) -> u64 {
        lock(&self.state).used
    }

    pub fn left(&self) -> u64 {
        self.max.saturating_sub(self.used())
    }

    /// Does `change`, which takes a file of length `size()` to `end(size)` at most, and counts what it did.
    pub fn counted<T>(
        &self,
        size: impl Fn() -> Result<u64>,
        end: impl FnOnce(u64) -> u64,
        change: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let _one = lock(&self.growing);
        let before = size()?;
        let (growth, left) = (end(before).saturating_sub(before), self.left());
        if growth > left {
            let text = format!("{growth} bytes more, {left} of {} left; remove something or ask for more", self.max);
            return Err(Error::new(Kind::Exhausted, text));
        }
        let done = change();
        let after = size()?;
        let mut state = lock(&self.state);
        state.used = (state.used + after.saturating_sub(before)).saturating_sub(before.saturating_sub(after));
        done
    }
}

/// A descriptor of a file of the tree, counted while there is a limit.
pub(crate) struct Held {
    fd: OwnedFd,
    counted: Option<(Arc<Shared>, (u64, u64))>,
}

impl Held {
    pub fn new(host: &Arc<Shared>, fd: OwnedFd, inode: (u64, u64)) -> Held {
        let counted = host.quota.as_ref().map(|quota| {
            *lock(&quota.state).held.entry(inode).or_default() += 1;
            (host.clone(), inode)
        });
        Held { fd, counted }
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some((host, inode)) = &self.counted else { return };
        let Some(quota) = &host.quota else { return };
        let mut state = lock(&quota.state);
        let left = state.held.get_mut(inode).map_or(0, |n| {
            *n -= 1;
            *n
        });
        if left == 0 {
            state.held.remove(inode);
            let gone =
                sys::stat_now(self.fd.as_fd()).ok().filter(|s| s.nlink == 0 && s.mode & Attr::TYPE == Attr::REGULAR);
            state.used = state.used.saturating_sub(gone.map_or(0, |s| s.size));
        }
    }
}
