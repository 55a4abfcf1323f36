//! A log kept in memory: the newest bytes, up to a bound.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use fs_ninep::Call;

use crate::Log;

/// An append-only log that keeps its newest `bytes_max` bytes. Its length never shrinks; when it is full the oldest whole
/// lines go, and a reader that has not come past them goes on at the oldest line kept (intro(4), "log").
pub struct Memory {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    start: u64,
    bytes: VecDeque<u8>,
}

impl Memory {
    /// An empty log that keeps `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Memory {
        Memory { bytes_max, kept: Mutex::default() }
    }

    /// Appends `text` as it is.
    pub fn append(&self, text: &[u8]) {
        let mut kept = self.lock();
        kept.bytes.extend(text);
        let excess = kept.bytes.len().saturating_sub(self.bytes_max);
        if excess > 0 {
            let line_end = kept.bytes.iter().skip(excess - 1).position(|&b| b == b'\n');
            // A line longer than the bound is cut rather than lost whole.
            let gone = line_end.map(|n| excess + n).filter(|&n| n < kept.bytes.len()).unwrap_or(excess);
            kept.bytes.drain(..gone);
            kept.start += gone as u64;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Log for Memory {
    fn len(&self) -> u64 {
        let kept = self.lock();
        kept.start + kept.bytes.len() as u64
    }

    fn start(&self) -> u64 {
        self.lock().start
    }

    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        let kept = self.lock();
        let from = usize::try_from(offset.saturating_sub(kept.start)).unwrap_or(usize::MAX).min(kept.bytes.len());
        let to = from.saturating_add(count as usize).min(kept.bytes.len());
        let bytes: Vec<u8> = kept.bytes.range(from..to).copied().collect();
        Box::pin(std::future::ready(Ok(bytes.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_newest_whole_lines() {
        for (appends, start, kept) in [
            (&["ab\n"] as &[&str], 0, "ab\n"),
            (&["ab\n", "cdefg\n"], 0, "ab\ncdefg\n"),
            (&["ab\n", "cdefg\n", "h\n"], 3, "cdefg\nh\n"),
            (&["ab\n", "cdefg\n", "hijkl\n"], 9, "hijkl\n"),
            (&["0123456789abcdef"], 6, "6789abcdef"),
            (&["0123456789\n"], 1, "123456789\n"),
        ] {
            let log = Memory::new(10);
            assert!(log.is_empty());
            appends.iter().for_each(|a| log.append(a.as_bytes()));
            let total: usize = appends.iter().map(|a| a.len()).sum();
            assert_eq!((log.start(), log.len()), (start, total as u64), "{appends:?}");
            assert_eq!(log.read(start, 100).await.unwrap(), kept);
            assert_eq!(log.read(start + 1, 2).await.unwrap(), kept[1..3]);
            assert_eq!(log.read(total as u64, 9).await.unwrap(), "");
            assert_eq!(log.read(u64::MAX, u32::MAX).await.unwrap(), "");
        }
    }
}
