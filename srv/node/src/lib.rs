//! srv-node: what this node says of itself: self/.
