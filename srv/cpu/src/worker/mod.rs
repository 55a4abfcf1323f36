//! The worker: a process that forks one process a job. It is the body of the hidden verb `ipos worker`.
//!
//! It has one thread and never another, so that fork(2) alone is a sound way to make a process: the engine, the imports
//! and the programs used last are made once, here, and every job begins with them. It serves no file and reads nothing
//! a job wrote but compiled programs, which carry their hash.

mod client;
mod job;
mod module;
mod paths;
mod server;
mod wasi;

pub use module::MODULE_MAX;

use std::os::fd::AsFd;
use std::process::ExitCode;

/// Runs the worker until the node closes its end of stdin, which is a sequenced-packet socket.
pub fn main() -> ExitCode {
    let control = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(control) => control,
        Err(e) => return fail(&e),
    };
    match server::run(control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    }
}

fn fail(why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("ipos: worker: {why}; it is started by the node and is no command of its own");
    ExitCode::FAILURE
}
