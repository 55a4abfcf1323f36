//! The shell transcripts, each on two nodes of its own.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use ipos::tour::{Stage, build, play, ripgrep, source_tree};
use ipos::transcript::parse;

use crate::Verdict;

tests!(intro, cpu, export, keys, name_space, peers, itself, ripgrep_finds_what_grep_finds);

fn intro() -> Verdict {
    transcript("intro.t")
}

fn cpu() -> Verdict {
    transcript("cpu.t")
}

fn export() -> Verdict {
    transcript("export.t")
}

fn keys() -> Verdict {
    transcript("keys.t")
}

fn name_space() -> Verdict {
    transcript("ns.t")
}

fn peers() -> Verdict {
    transcript("peers.t")
}

fn itself() -> Verdict {
    transcript("self.t")
}

fn ripgrep_finds_what_grep_finds() -> Verdict {
    if let Some(why) = crate::no_fuse() {
        return Verdict::NotRun(why);
    }
    let (program, tree) = (ripgrep(sources()).unwrap(), source_tree().unwrap());
    let stage = Stage::start(Path::new(IPOS)).unwrap();
    play_on(&stage, "ripgrep.t", &[("RG", &program), ("TREE", &tree)]);
    Verdict::Passed
}

/// The program under test.
pub(crate) const IPOS: &str = env!("CARGO_BIN_EXE_ipos");

/// Where the sources are.
pub(crate) fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory of the programs that run as jobs, built once.
pub(crate) fn programs() -> &'static Path {
    static BUILT: OnceLock<std::path::PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(sources()).unwrap())
}

/// Plays `tests/NAME` on `stage` with `more` in its environment; panics with every step that did something else.
pub(crate) fn play_on(stage: &Stage, name: &str, more: &[(&str, &Path)]) {
    let text = fs::read_to_string(sources().join("tests").join(name)).unwrap();
    let steps = parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut env = stage.env();
    env.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.display().to_string())));
    let mut faults = String::new();
    let names = stage.names().unwrap();
    play(&steps, &stage.path("work"), &env, &names, |_, _, fault| faults.extend(fault)).unwrap();
    assert!(faults.is_empty(), "{name}:\n{faults}\nann: {}\nbob: {}", stage.ann.log(), stage.bob.log());
}

fn transcript(name: &str) -> Verdict {
    if let Some(why) = crate::no_fuse() {
        return Verdict::NotRun(why);
    }
    let stage = Stage::start(Path::new(IPOS)).unwrap();
    play_on(&stage, name, &[("PROGRAMS", programs())]);
    Verdict::Passed
}
