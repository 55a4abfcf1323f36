//! When to look for the next request again, and when to sleep.
//!
//! Waking a core that sleeps costs more than a request (46 microseconds against 16 here), so after each request the
//! device is looked at for a little while more. On a core that somebody else wants, that only keeps them waiting, and a
//! thread that gave its turn away waits for the next (a 99th percentile of a millisecond): there it is not done.

use std::time::{Duration, Instant};

/// A turn given away that takes this long was taken by somebody.
const TAKEN: Duration = Duration::from_micros(20);
/// For how long that is remembered.
const BUSY: Duration = Duration::from_millis(20);

/// The state of one reader.
pub struct Spin {
    span: Duration,
    last: Instant,
    busy_until: Instant,
}

impl Spin {
    /// Looks for `span` after each request; 0 never.
    pub fn new(span: Duration) -> Spin {
        let now = Instant::now();
        Spin { span, last: now, busy_until: now }
    }

    /// A request was answered.
    pub fn answered(&mut self) {
        self.last = Instant::now();
    }

    /// True if it is worth another look. Gives the core's other processes their turn first.
    pub fn again(&mut self) -> bool {
        let now = Instant::now();
        if now < self.busy_until || now - self.last >= self.span {
            return false;
        }
        std::thread::yield_now();
        let then = Instant::now();
        if then - now > TAKEN {
            self.busy_until = then + BUSY;
        }
        true
    }
}
