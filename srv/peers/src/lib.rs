//! srv-peers: peers, and their trees under n/.
