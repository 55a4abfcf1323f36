//! The descriptors of idle handles: so many are kept, the rest are closed and found again when they are needed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use crate::lock;
use crate::node::Node;

/// A clock over the nodes that hold a descriptor: one used since the hand passed is passed once more.
pub(crate) struct Pool {
    max: usize,
    ring: Mutex<VecDeque<Weak<Node>>>,
}

impl Pool {
    pub fn new(max: usize) -> Pool {
        Pool { max: max.max(1), ring: Mutex::default() }
    }

    /// Notes that `node` holds a descriptor, and closes others' while there are too many.
    pub fn admit(&self, node: &Arc<Node>) {
        let mut ring = lock(&self.ring);
        ring.push_back(Arc::downgrade(node));
        self.trim(&mut ring, self.max);
    }

    /// Closes half of them: the process has run out of descriptors.
    pub fn halve(&self) {
        let mut ring = lock(&self.ring);
        let half = ring.len() / 2;
        self.trim(&mut ring, half);
    }

    fn trim(&self, ring: &mut VecDeque<Weak<Node>>, max: usize) {
        let mut looks = 2 * ring.len();
        while ring.len() > max && looks > 0 {
            looks -= 1;
            let Some(weak) = ring.pop_front() else { return };
            if weak.upgrade().is_some_and(|node| !node.let_go()) {
                ring.push_back(weak);
            }
        }
    }
}
