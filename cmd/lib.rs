//! The command line: one verb a file, each with its flags, wiring and printing, and no logic. See ipos(1).
//!
//! A library so that `tests/` and `benches/` play transcripts and start nodes with the very code `ipos tour` uses.

pub mod tour;
pub mod transcript;

mod bind;
mod completions;
mod config;
mod cpu;
mod doctor;
mod error;
mod home;
mod import;
mod ipos;
mod mount;
mod node;
mod ns;
mod place;
mod session;
mod umount;
mod unmount;

pub use error::Error;
pub use ipos::{Ipos, main};
