//! self: the node's log. One line a diagnostic: time, level, part, text; the newest [`LOG_BYTES_MAX`] bytes are kept.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fs_tree::Memory;

use crate::Error;

/// Bytes of the log that are kept, in memory.
pub const LOG_BYTES_MAX: usize = 1 << 20;

/// The longest text of one line, in bytes; what is longer is cut.
pub const LINE_MAX: usize = 4096;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something the owner must see to.
    Error,
    /// Something went wrong and was dealt with.
    Warn,
    /// What the node does.
    Info,
    /// How it does it.
    Debug,
}

impl Level {
    const ALL: [Level; 4] = [Level::Error, Level::Warn, Level::Info, Level::Debug];

    pub(crate) fn parse(word: &str) -> Result<Level, Error> {
        let found = Level::ALL.into_iter().find(|level| level.name() == word);
        found.ok_or_else(|| Error::Level { got: word.chars().take(80).collect() })
    }

    pub(crate) fn names() -> String {
        Level::ALL.map(Level::name).join("|")
    }

    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Also given every line that is kept: standard error, as a rule. Must not wait.
type Sink = Box<dyn Fn(&str) + Send + Sync>;

/// Where diagnostics go: a handle, cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    level: AtomicU8,
    kept: Arc<Memory>,
    sink: Sink,
}

impl Log {
    /// An empty log of lines up to `level`, each of which `sink` is given too, with its newline.
    pub fn new(level: Level, sink: impl Fn(&str) + Send + Sync + 'static) -> Log {
        let kept = Arc::new(Memory::new(LOG_BYTES_MAX));
        Log(Arc::new(Inner { level: AtomicU8::new(level as u8), kept, sink: Box::new(sink) }))
    }

    /// Adds a line that `part` (`net`, `cpu`, …) has to say, where `level` is worth one.
    pub fn line(&self, level: Level, part: &str, text: impl fmt::Display) {
        if level > self.level() {
            return;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = format!("{} {level} {part}: {}\n", utc(since.as_secs()), printable(&text.to_string()));
        self.0.kept.append(line.as_bytes());
        (self.0.sink)(&line);
    }

    /// The least that is worth a line.
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.0.level.load(Ordering::Relaxed))]
    }

    /// Changes what is worth a line.
    pub fn set_level(&self, level: Level) {
        self.0.level.store(level as u8, Ordering::Relaxed);
    }

    pub(crate) fn kept(&self) -> Arc<Memory> {
        self.0.kept.clone()
    }
}

/// `text` as one line: what a peer sends can end up in it, so control characters are shown and not obeyed.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::new();
    for c in text.trim_end().chars() {
        if line.len() + c.len_utf8() > LINE_MAX {
            line.push('\u{2026}');
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Seconds since the epoch as `2026-11-21T13:55:36Z`.
fn utc(secs: u64) -> String {
    let (days, secs) = (secs / 86400, secs % 86400);
    // Days are counted from 1 March of year 0, so that a leap day is a year's last.
    let days = days + 719_468;
    let era = days / 146_097;
    let day = days % 146_097;
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + carry;
    let (hour, min, sec) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{min:02}:{sec:02}Z")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use fs_tree::Log as _;

    use super::*;

    #[test]
    fn times() {
        for (secs, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_269_336, "2026-11-21T13:55:36Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(secs), want);
        }
    }

    #[tokio::test]
    async fn a_line_is_one_line_and_counts_by_level() {
        let seen = Arc::new(Mutex::new(String::new()));
        let sink = seen.clone();
        let log = Log::new(Level::Info, move |line| sink.lock().unwrap().push_str(line));
        log.line(Level::Debug, "net", "no");
        log.line(Level::Warn, "net", "bad peer \"x\ny\u{1b}[2J\"\n");
        log.set_level(Level::Debug);
        log.line(Level::Debug, "cpu", "yes");
        log.set_level(Level::Error);
        log.line(Level::Warn, "cpu", "no");
        let text = log.kept().read(0, u32::MAX).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert_eq!(*seen.lock().unwrap(), text);
        let lines: Vec<&str> = text.lines().map(|l| l.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["warn net: bad peer \"x\\ny\\u{1b}[2J\"", "debug cpu: yes"]);
    }

    #[test]
    fn long_lines_are_cut_and_old_ones_go() {
        let log = Log::new(Level::Info, |_| {});
        for _ in 0..LOG_BYTES_MAX / LINE_MAX + 10 {
            log.line(Level::Info, "x", "\u{fc}".repeat(LINE_MAX));
        }
        let kept = log.kept();
        assert!(kept.start() > 0);
        assert!(kept.len() - kept.start() <= LOG_BYTES_MAX as u64);
        assert!(kept.len() / ((LOG_BYTES_MAX / LINE_MAX + 10) as u64) < LINE_MAX as u64 + 64);
    }
}
