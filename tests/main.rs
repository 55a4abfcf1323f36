//! ipos as its users meet it: the program, real nodes, a real shell.
//!
//! A harness of its own, because a test that cannot run here (no /dev/fuse, not root) has to be reported as not run, and
//! the standard one knows only passed and failed. Arguments: parts of the names of the tests to run; none runs all.

/// A list of tests by their functions' names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::Test] = &[$((stringify!($name), $name)),*];
    };
}

mod faults;
mod manual;
mod scene;
mod transcripts;
mod verbs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What a test that did not panic says.
pub(crate) enum Verdict {
    /// It ran, and all was as it must be.
    Passed,
    /// It could not run here.
    NotRun(String),
}

pub(crate) type Test = (&'static str, fn() -> Verdict);

/// Tests that run at once. Each starts nodes; more of them than cores only make each other late.
const AT_ONCE: usize = 2;

/// Why a test that needs a mount cannot run here.
fn no_fuse() -> Option<String> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.err().map(|e| format!("/dev/fuse: {e}"))
}

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let all = [&[manual::TESTS, transcripts::TESTS, verbs::TESTS], faults::TESTS].concat().concat();
    let chosen: Vec<Test> =
        all.into_iter().filter(|(n, _)| filters.is_empty() || filters.iter().any(|f| n.contains(f.as_str()))).collect();
    if std::env::args().any(|a| a == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let (next, passed, failed, not_run) = Default::default();
    let counters: [&AtomicUsize; 3] = [&passed, &failed, &not_run];
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(chosen.len()) {
            scope.spawn(|| work(&chosen, &next, counters));
        }
    });
    let count = |c: &AtomicUsize| c.load(Ordering::Relaxed);
    println!("\n{} passed, {} failed, {} not run", count(&passed), count(&failed), count(&not_run));
    if count(&failed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(tests: &[Test], next: &AtomicUsize, [passed, failed, not_run]: [&AtomicUsize; 3]) {
    while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let start = Instant::now();
        let (counter, text) = match catch_unwind(AssertUnwindSafe(test)) {
            Ok(Verdict::Passed) => (passed, "ok".to_owned()),
            Ok(Verdict::NotRun(why)) => (not_run, format!("NOT RUN: {why}")),
            Err(_) => (failed, "FAILED".to_owned()),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        println!("test {name} ... {text} ({:.1} s)", start.elapsed().as_secs_f64());
    }
}
