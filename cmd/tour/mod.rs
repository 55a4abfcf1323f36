//! `ipos tour`: the session of intro(1) on two real nodes, each command shown with what it printed.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::Error;
use crate::transcript::{Shell, Step, anonymous, parse, verdict};

mod programs;
mod stage;

pub use programs::{build, ripgrep, source_tree, sources};
pub use stage::{Process, Scratch, Stage};

/// How long one command of a transcript may take.
pub const STEP: Duration = Duration::from_secs(120);

/// Play the session of intro(1) on two nodes of this machine
///
/// Builds the programs it runs, starts the nodes, shows each shell command with its output, and exits 0 only if every step did what it says.
#[derive(Debug, clap::Args)]
pub(crate) struct Tour {}

impl Tour {
    pub(crate) fn run(&self) -> Result<ExitCode, Error> {
        tour().map_err(Error::part("tour"))
    }
}

fn tour() -> io::Result<ExitCode> {
    let sources = sources()?;
    println!("# building the programs of tests/programs");
    let mut env = vec![text_pair("PROGRAMS", &build(&sources)?)];
    println!("# building ripgrep for WebAssembly (minutes, the first time)");
    env.push(text_pair("RG", &ripgrep(&sources)?));
    env.push(text_pair("TREE", &source_tree()?));
    println!("# starting two nodes, ann and bob");
    let stage = Stage::start(&std::env::current_exe()?)?;
    env.extend(stage.env());
    let names = stage.names()?;
    for (name, value) in env.iter().filter(|(name, _)| name != "PATH") {
        println!("# {name}={value}");
    }
    let mut faults = 0;
    for name in ["intro.t", "ripgrep.t"] {
        let text = std::fs::read_to_string(sources.join("tests").join(name))?;
        let steps = parse(&text).map_err(|e| io::Error::other(format!("{name}: {e}")))?;
        faults += play(&steps, &stage.path("work"), &env, &names, |step, output, fault| {
            show(step, &anonymous(output, &names), fault);
        })?;
    }
    match faults {
        0 => println!("\n# every step did what it says"),
        n => println!("\n# {n} steps did not do what they say"),
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays `steps` in one shell in `dir`; `each` is told the step, its output and the fault, if any. Gives the number of
/// faults; a step that takes the shell with it is the last.
/// # Errors
/// What the start of the shell answered.
pub fn play(
    steps: &[Step],
    dir: &Path,
    env: &[(String, String)],
    names: &[(String, String)],
    mut each: impl FnMut(&Step, &str, Option<&str>),
) -> io::Result<usize> {
    let mut shell = Shell::start(dir, env)?;
    let mut faults = 0;
    for step in steps {
        let outcome = shell.run(&step.command, STEP)?;
        let fault = verdict(step, &outcome, names);
        each(step, &outcome.output, fault.as_deref());
        faults += usize::from(fault.is_some());
        if outcome.status.is_none() {
            break;
        }
    }
    Ok(faults)
}

fn show(step: &Step, output: &str, fault: Option<&str>) {
    if !step.prose.is_empty() {
        println!("\n# {}", step.prose.replace('\n', "\n# "));
    }
    println!("$ {}", step.command.replace('\n', "\n> "));
    print!("{output}");
    if !output.is_empty() && !output.ends_with('\n') {
        println!();
    }
    if let Some(fault) = fault {
        println!("FAULT {fault}");
    }
}

fn text_pair(name: &str, path: &Path) -> (String, String) {
    (name.to_owned(), path.display().to_string())
}
