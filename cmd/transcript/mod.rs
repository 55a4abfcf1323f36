//! Shell transcripts: what a person would type, and what they must see. Played by `ipos tour` and by `tests/`.
//!
//! Indented `$` lines run in one `sh`; indented `>` lines directly below go on with the command; the indented lines after
//! them are the expected output, `[n]` at their end an exit status other than 0; the rest is prose. `[..]` matches within
//! a line; the ids of known peers appear as `[name]`. The parser and the comparison are pure; only [`Shell`] runs things.

mod diff;
mod parse;
mod shell;

pub use diff::{diff, matches};
pub use parse::{Step, parse};
pub use shell::{Outcome, Shell};

/// Replaces each peer id of `names` (name, id) that occurs in `text` by `[name]`.
pub fn anonymous(text: &str, names: &[(String, String)]) -> String {
    names.iter().fold(text.to_owned(), |t, (name, id)| t.replace(id, &format!("[{name}]")))
}

/// Why a step did not do what it says; `None` where it did.
pub fn verdict(step: &Step, outcome: &Outcome, names: &[(String, String)]) -> Option<String> {
    let got: Vec<String> = anonymous(&outcome.output, names).lines().map(str::to_owned).collect();
    let mut faults = diff(&step.expect, &got).unwrap_or_default();
    match outcome.status {
        Some(status) if status == step.status => {}
        Some(status) => faults.push_str(&format!("  exit status {status}, expected {}\n", step.status)),
        None => faults.push_str("  the command did not end in time, or ended the shell\n"),
    }
    (!faults.is_empty()).then(|| format!("line {}: $ {}\n{faults}", step.line, step.command))
}
