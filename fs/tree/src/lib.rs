//! The kit every synthetic service stands on.
//!
//! A service is a table of rows ([`Service::TREE`]), one a file, and a function for each kind of file. Fids, walks,
//! directory reads, offsets, permissions, quoting, the reassembly of split writes, snapshots and refusal texts are done
//! here, once. The five kinds of file are intro(4)'s: value, log, stream, control, rpc; `clone` makes directories; a graft
//! is another tree's file standing in this one.

mod row;
mod service;

pub use row::{Row, Shape, clone, ctl, dir, error, graft, log, rpc, special, stream, value};
pub use service::{At, Line, Log, Records, Service};
