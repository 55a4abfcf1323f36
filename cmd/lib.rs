//! The command line: one verb a file, each with its flags, wiring and printing, and no logic. See ipos(1).
//!
//! A library so that `tests/` and `benches/` play transcripts and start nodes with the very code `ipos tour` uses.

pub mod tour;
pub mod transcript;

mod completions;
mod config;
mod doctor;
mod error;
mod home;
mod ipos;
mod place;
mod umount;

pub use error::Error;
pub use ipos::{Ipos, main};
