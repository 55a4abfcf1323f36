//! Directories that a `clone` made: how many of their files are open, and when the last was closed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::server::Server;
use crate::{At, Service};

/// How long a directory made by `clone` has had no open file when [`Service::idle`] is called.
pub const IDLE: Duration = Duration::from_secs(60);

/// A directory: its row and its keys.
type Dir = (usize, Vec<String>);

pub(crate) struct Made<S: Service> {
    dirs: Mutex<HashMap<Dir, Use<S::Q>>>,
}

impl<S: Service> Default for Made<S> {
    fn default() -> Made<S> {
        Made { dirs: Mutex::default() }
    }
}

struct Use<Q> {
    at: At<Q>,
    open: usize,
    idle_since: Instant,
    /// A timer is running for it: one for each directory, however often its files are opened and closed.
    timed: bool,
    runtime: Handle,
}

impl<S: Service> Made<S> {
    /// Counts from now on what is open under the directory of `row` at `at`.
    pub fn begin(&self, row: usize, at: At<S::Q>) {
        if let Ok(runtime) = Handle::try_current() {
            let idle = Use { at: at.clone(), open: 0, idle_since: Instant::now(), timed: false, runtime };
            self.lock().insert((row, at.keys), idle);
        }
    }

    /// The directory was removed.
    pub fn end(&self, row: usize, keys: &[String]) {
        self.lock().remove(&(row, keys.to_vec()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Dir, Use<S::Q>>> {
        self.dirs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// One open file under made directories. Dropping it closes.
pub(crate) struct Held<S: Service> {
    server: Arc<Server<S>>,
    dirs: Vec<Dir>,
}

/// Holds the made directories that a file of `row` with `keys` lies in; `None` where there is none.
pub(crate) fn hold<S: Service>(server: &Arc<Server<S>>, row: usize, keys: &[String]) -> Option<Held<S>> {
    let mut table = server.made.lock();
    if table.is_empty() {
        return None;
    }
    let above = server.plan.upward(row).map(|r| (r, keys[..server.plan.keys(r)].to_vec()));
    let dirs: Vec<Dir> = above.filter(|dir| table.get_mut(dir).map(|u| u.open += 1).is_some()).collect();
    drop(table);
    (!dirs.is_empty()).then(|| Held { server: server.clone(), dirs })
}

impl<S: Service> Drop for Held<S> {
    fn drop(&mut self) {
        let mut table = self.server.made.lock();
        for dir in self.dirs.drain(..) {
            // The directory may be gone, and one of the same name made again, since this file was opened.
            let Some(u) = table.get_mut(&dir) else { continue };
            u.open = u.open.saturating_sub(1);
            if u.open == 0 {
                u.idle_since = Instant::now();
                if !std::mem::replace(&mut u.timed, true) {
                    u.runtime.spawn(watch(Arc::downgrade(&self.server), dir, u.idle_since + IDLE));
                }
            }
        }
    }
}

/// Sleeps until `dir` was idle for long enough, and tells the service.
async fn watch<S: Service>(server: std::sync::Weak<Server<S>>, dir: Dir, mut wake: Instant) {
    let (server, at) = loop {
        tokio::time::sleep_until(wake).await;
        let Some(server) = server.upgrade() else { return };
        let at = {
            let mut table = server.made.lock();
            let Some(u) = table.get_mut(&dir) else { return };
            if u.open > 0 {
                u.timed = false;
                return;
            }
            wake = u.idle_since + IDLE;
            if wake > Instant::now() {
                continue;
            }
            u.timed = false;
            u.at.clone()
        };
        break (server, at);
    };
    server.service.idle(&at);
    if server.service.find(&at).await.is_err() {
        server.made.end(dir.0, &dir.1);
    }
}
