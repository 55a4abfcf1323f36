//! The kit every synthetic service stands on.
//!
//! A service is a table of rows ([`Service::TREE`]), one a file, and a function for each kind of file; [`serve`] makes a
//! tree of it. Fids, walks, directory reads, offsets, permissions, quoting, the reassembly of split writes, snapshots and
//! refusal texts are done here, once. The five kinds of file are intro(4)'s: value, log, stream, control, rpc; `clone`
//! makes directories; a graft is another tree's file standing in this one.

mod attr;
mod events;
mod made;
mod memory;
mod node;
mod open;
mod percent;
mod plan;
mod refusals;
mod row;
mod server;
mod service;
mod text;
mod words;

pub use events::{EVENTS_BYTES_MAX, EVENTS_MAX, Events};
pub use made::IDLE;
pub use memory::Memory;
pub use percent::{decode, encode};
pub use refusals::{REFUSAL_BYTES_MAX, REFUSALS_MAX};
pub use row::{Row, Shape, clone, ctl, dir, error, graft, log, paths, rpc, special, stream, value};
pub use server::serve;
pub use service::{At, Line, Log, Records, Service};
pub use text::TEXT_MAX;
pub use words::{quote, words};
