//! The whole command line: what every verb shares, and the list of verbs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::home::Home;
use crate::{Error, bind, completions, cpu, doctor, import, mount, node, ns, tour, umount, unmount};

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
    Mount(mount::MountVerb),
    Node(node::NodeVerb),
    Umount(umount::Umount),
    Bind(bind::Bind),
    Unmount(unmount::Unmount),
    Ns(ns::Ns),
    Import(import::Import),
    Cpu(cpu::Cpu),
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
            Verb::Mount(v) => v.run(&self.home("mount")?),
            Verb::Node(v) => v.run(&self.home("node")?),
            Verb::Umount(v) => v.run(&self.home("umount")?),
            Verb::Bind(v) => v.run(&self.home("bind")?),
            Verb::Unmount(v) => v.run(&self.home("unmount")?),
            Verb::Ns(v) => v.run(&self.home("ns")?),
            Verb::Import(v) => v.run(&self.home("import")?),
            Verb::Cpu(v) => v.run(&self.home("cpu")?),
            Verb::Doctor(v) => v.run(&self.home("doctor")?),
            Verb::Tour(v) => v.run(),
            Verb::Completions(v) => v.run(&mut Ipos::command()),
        }
    }
}

/// How long what was being written to the disk may go on when the work is over.
const DISK: Duration = Duration::from_millis(500);

/// Runs one verb's work on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::part("runtime"))?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(DISK);
    result
}

/// Reads the command line and obeys it. Results go to standard output, all else to standard error as `ipos: TEXT`.
pub fn main() -> ExitCode {
    // The process that jobs are forked from: the node starts it, nobody types it.
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "worker") {
        return srv_cpu::worker::main();
    }
    match Ipos::parse().run() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("ipos: {e}");
            ExitCode::FAILURE
        }
    }
}
