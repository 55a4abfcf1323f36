//! The whole command line: what every verb shares, and the list of verbs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::home::Home;
use crate::{Error, completions, doctor, tour, umount};

/// Mount the name space, run the node, and shorthands for writing its files
///
/// What `cat` and `echo` do under the mount has no verb here. See ipos(1) and intro(1).
#[derive(Debug, Parser)]
#[command(name = "ipos", version, propagate_version = true, arg_required_else_help = true)]
pub struct Ipos {
    /// The state directory [default: $IPOS_HOME, else ~/.ipos]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Umount(umount::Umount),
    Doctor(doctor::Doctor),
    Tour(tour::Tour),
    Completions(completions::Completions),
}

impl Ipos {
    /// The home that the flags and the environment name.
    fn home(&self, verb: &'static str) -> Result<Home, Error> {
        Home::find(self.home.as_deref(), verb)
    }

    fn run(self) -> Result<ExitCode, Error> {
        match &self.verb {
            Verb::Umount(v) => v.run(&self.home("umount")?),
            Verb::Doctor(v) => v.run(&self.home("doctor")?),
            Verb::Tour(v) => v.run(),
            Verb::Completions(v) => v.run(&mut Ipos::command()),
        }
    }
}

/// Reads the command line and obeys it. Results go to standard output, all else to standard error as `ipos: TEXT`.
pub fn main() -> ExitCode {
    match Ipos::parse().run() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("ipos: {e}");
            ExitCode::FAILURE
        }
    }
}
