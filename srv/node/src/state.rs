//! self: what a node can be doing, and what it measures of its own process.

use std::fmt;
use std::fs;

use fs_ninep::Kind;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::Level;

/// What is refused, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a line of `ctl`.
    #[error("{got:?} is not understood; write \"log LEVEL\" or \"stop\"")]
    Usage {
        /// What was written.
        got: String,
    },
    /// Not a level.
    #[error("{got:?} is no level; write \"log {}\"", Level::names())]
    Level {
        /// What was written.
        got: String,
    },
}

impl From<Error> for fs_ninep::Error {
    fn from(e: Error) -> fs_ninep::Error {
        fs_ninep::Error::new(Kind::Invalid, e)
    }
}

/// What a node is doing; it only moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its parts are being built.
    Starting,
    /// It serves.
    Running,
    /// It finishes what must be durable.
    Stopping,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
        })
    }
}

/// The process's own counters. One that this machine cannot tell is left out.
pub fn process() -> Vec<(&'static str, u64)> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    let ms = |t: nix::sys::time::TimeVal| u64::try_from(t.num_milliseconds()).unwrap_or(0);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    // The descriptor that reads the list is in it.
    let files = fs::read_dir("/proc/self/fd").ok().map(|d| (d.count() as u64).saturating_sub(1));
    let all = [
        ("cpu_user_ms", usage.map(|u| ms(u.user_time()))),
        ("cpu_sys_ms", usage.map(|u| ms(u.system_time()))),
        ("rss_kib", field("VmRSS")),
        ("rss_peak_kib", field("VmHWM")),
        ("threads", field("Threads")),
        ("open_files", files),
        ("switches_voluntary", field("voluntary_ctxt_switches")),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
