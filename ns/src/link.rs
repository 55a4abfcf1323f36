//! The file a member of a union stands for, and whether its server answers.
//!
//! A member that let a union wait is not asked again for a while (a circuit breaker), so a dead machine costs a union one
//! deadline and then nothing; one that refuses at once costs nothing and is asked each time. Shared by every copy of the member: forks of the name space learn from each other.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fs_ninep::{File, Kind, Result};
use tokio::time::{Instant, timeout};

use crate::Error;

/// How long a union waits for a member's answer.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// How long a silent member is left alone at first; doubled with each failure.
pub const RETRY_MIN: Duration = Duration::from_secs(1);

/// How long a silent member is left alone at most.
pub const RETRY_MAX: Duration = Duration::from_secs(10);

/// Locks, whatever became of the last holder: every value is whole between statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the handle is of no more use, and the way to it must be walked again.
pub fn lost(kind: Kind) -> bool {
    matches!(kind, Kind::Reset | Kind::Unreachable | Kind::Stale)
}

/// Whether the server could not be asked: it may have the name or not.
pub fn silent(kind: Kind) -> bool {
    lost(kind) || matches!(kind, Kind::TimedOut | Kind::Refused | Kind::BrokenPipe | Kind::Io | Kind::Protocol)
}

/// A member's file and health.
pub struct Link {
    state: Mutex<State>,
    /// Set while `state.down` or `state.gone` is: looked at without the lock.
    ill: AtomicBool,
}

struct State {
    file: Arc<dyn File>,
    epoch: u64,
    down: Option<Down>,
    gone: bool,
}

#[derive(Clone, Copy)]
struct Down {
    since: Instant,
    retry: Instant,
    pause: Duration,
}

impl Link {
    /// The member `file`, alive.
    pub fn new(file: Arc<dyn File>) -> Arc<Link> {
        let state = State { file, epoch: 0, down: None, gone: false };
        Arc::new(Link { state: Mutex::new(state), ill: AtomicBool::new(false) })
    }

    /// The file.
    pub fn file(&self) -> Arc<dyn File> {
        lock(&self.state).file.clone()
    }

    /// The file, and how often it was replaced.
    pub fn current(&self) -> (Arc<dyn File>, u64) {
        let state = lock(&self.state);
        (state.file.clone(), state.epoch)
    }

    /// How often the file was replaced.
    pub fn epoch(&self) -> u64 {
        lock(&self.state).epoch
    }

    /// `file` was found where the member had come from.
    pub fn replace(&self, file: Arc<dyn File>) {
        let mut state = lock(&self.state);
        state.file = file;
        state.epoch += 1;
        state.gone = false;
        self.ill.store(state.down.is_some(), Ordering::Relaxed);
    }

    /// Nothing is where the member had come from.
    pub fn gone(&self) {
        let mut state = lock(&self.state);
        (state.gone, state.down) = (true, None);
        self.ill.store(true, Ordering::Relaxed);
    }

    /// It answered.
    pub fn up(&self) {
        if self.ill.load(Ordering::Relaxed) {
            let mut state = lock(&self.state);
            state.down = None;
            self.ill.store(state.gone, Ordering::Relaxed);
        }
    }

    /// It did not answer (`slow`: and a union waited for it, so it is left alone for a while).
    pub fn down(&self, slow: bool) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let since = state.down.map_or(now, |down| down.since);
        let pause = match state.down {
            _ if !slow => Duration::ZERO,
            Some(down) => (down.pause * 2).clamp(RETRY_MIN, RETRY_MAX),
            None => RETRY_MIN,
        };
        state.down = Some(Down { since, retry: now + pause, pause });
        self.ill.store(true, Ordering::Relaxed);
    }

    /// What there is to say about it in `ns`; nothing while it is well.
    pub fn note(&self) -> Option<String> {
        let now = Instant::now();
        let state = lock(&self.state);
        match state.down {
            Some(down) if down.retry > now => Some(down.refusal(now).to_string()),
            Some(down) => Some(format!("down {} s", now.saturating_duration_since(down.since).as_secs())),
            None => state.gone.then(|| "stale".to_owned()),
        }
    }

    /// Asks it as one member of a union: no longer than [`DEADLINE`], and not at all while it is left alone.
    /// # Errors
    /// `Down`, `TimedOut`, or what it answered.
    pub async fn ask<T>(&self, question: impl Future<Output = Result<T>>) -> Result<T> {
        self.admit()?;
        let Ok(answer) = timeout(DEADLINE, question).await else {
            self.down(true);
            return Err(Kind::TimedOut.into());
        };
        match &answer {
            Err(e) if silent(e.kind()) => self.down(false),
            _ => self.up(),
        }
        answer
    }

    /// Lets one question through when the pause is over, and no other before it is answered.
    fn admit(&self) -> Result<()> {
        if !self.ill.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        match &mut state.down {
            Some(down) if down.pause.is_zero() => Ok(()),
            Some(down) if now < down.retry => Err(down.refusal(now).into()),
            Some(down) => {
                down.retry = now + DEADLINE;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Down {
    fn refusal(&self, now: Instant) -> Error {
        let down_s = now.saturating_duration_since(self.since).as_secs();
        let retry_s = self.retry.saturating_duration_since(now).as_secs_f64().ceil() as u64;
        Error::Down { down_s, retry_s }
    }
}
