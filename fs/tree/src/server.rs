//! One served tree: what all its handles share.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use fs_ninep::{Call, Caller, File, Kind, Qid, QidType, ServerId, Time, Tree};

use crate::made::Made;
use crate::node::Node;
use crate::plan::Plan;
use crate::refusals::Refusals;
use crate::{At, Row, Service, Shape};

/// Times of last change that are remembered; past it they are all forgotten, and the next look is one.
const SEEN_MAX: usize = 4096;

/// Serves `service` as a tree. It has no attach name but the empty one.
/// # Panics
/// For a table that breaks the rules of [`Row`].
pub fn serve<S: Service>(service: Arc<S>) -> Arc<dyn Tree> {
    Arc::new(Served(Arc::new(Server {
        service,
        plan: Plan::new(S::TREE),
        id: ServerId::fresh(),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        started: Time::now(),
        hash: RandomState::new(),
        seen: Mutex::default(),
        refusals: Refusals::default(),
        made: Made::default(),
    })))
}

struct Served<S: Service>(Arc<Server<S>>);

impl<S: Service> Tree for Served<S> {
    fn attach<'a>(&'a self, caller: &'a Caller, aname: &'a str) -> Call<'a, Arc<dyn File>> {
        let root = At { q: S::TREE[0].q, keys: Vec::new(), caller: caller.clone() };
        let known = aname.is_empty() && self.0.service.visible(&root);
        let file = known.then(|| Arc::new(Node { server: self.0.clone(), row: 0, at: root }) as Arc<dyn File>);
        Box::pin(std::future::ready(file.ok_or(Kind::NotFound.into())))
    }
}

pub(crate) struct Server<S: Service> {
    pub service: Arc<S>,
    pub plan: Plan,
    pub id: ServerId,
    pub uid: u32,
    pub gid: u32,
    pub started: Time,
    hash: RandomState,
    seen: Mutex<HashMap<u64, (u64, Time)>>,
    pub refusals: Refusals,
    pub made: Made<S>,
}

impl<S: Service> Server<S> {
    pub fn row(&self, row: usize) -> &'static Row<S::Q> {
        &S::TREE[row]
    }

    /// A keyed hash stands for a table of every file ever seen: stable, and nobody can make two files collide.
    pub fn path(&self, row: usize, keys: &[String]) -> u64 {
        self.hash.hash_one((row, keys))
    }

    pub fn qid(&self, row: usize, keys: &[String]) -> Qid {
        let ty = match self.row(row).shape {
            Shape::Dir | Shape::Graft => QidType::DIR,
            _ => QidType::FILE,
        };
        Qid { ty, version: 0, path: self.path(row, keys) }
    }

    /// When the file `path` was first seen with the content that hashes to `content`: its time of last change.
    pub fn changed(&self, path: u64, content: &[u8]) -> Time {
        let content = self.hash.hash_one(content);
        let mut seen = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match seen.get(&path) {
            Some((same, time)) if *same == content => *time,
            _ => {
                if seen.len() >= SEEN_MAX {
                    seen.clear();
                }
                let now = Time::now();
                seen.insert(path, (content, now));
                now
            }
        }
    }
}
