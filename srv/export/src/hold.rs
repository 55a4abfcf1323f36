//! export: what a peer holds open, and how it is cut.
//!
//! Every handle given out under one grant or one use of a capability shares a [`Hold`]. Each call on a handle looks at it
//! first, and a call that waits is woken when it ends: taking back is felt at once, not at the next attach.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use fs_ninep::{Call, Result};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::error::Error;
use crate::state::{Access, ExportId};

/// What a hold is of, as its refusals tell.
#[derive(Clone, Debug)]
pub enum Of {
    /// A grant: the name in the node's tree.
    Grant { name: String },
    /// A capability: the export.
    Capability { id: ExportId },
}

const STANDS: u8 = 0;
const REVOKED: u8 = 1;

/// No end in time.
pub const NEVER: u64 = u64::MAX;

/// One grant or capability in use.
pub struct Hold {
    of: Of,
    base: Instant,
    end: AtomicU8,
    writes: AtomicBool,
    ends_ms: AtomicU64,
    changed: Notify,
}

impl Hold {
    /// A hold that lets its holder do `access` until `ends_ms` after `base`.
    pub fn new(of: Of, base: Instant, access: Access, ends_ms: u64) -> Hold {
        Hold {
            of,
            base,
            end: AtomicU8::new(STANDS),
            writes: AtomicBool::new(access == Access::Rw),
            ends_ms: AtomicU64::new(ends_ms),
            changed: Notify::new(),
        }
    }

    /// The terms have changed: they hold for what is open too.
    pub fn change(&self, access: Access, ends_ms: u64) {
        self.writes.store(access == Access::Rw, Ordering::Release);
        if self.ends_ms.swap(ends_ms, Ordering::AcqRel) != ends_ms {
            self.changed.notify_waiters();
        }
    }

    /// Takes it back: every call from now on is refused, and every call that waits now.
    pub fn revoke(&self) {
        self.end.store(REVOKED, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether changes are refused.
    pub fn is_readonly(&self) -> bool {
        !self.writes.load(Ordering::Acquire)
    }

    fn over(&self) -> Option<Error> {
        if self.end.load(Ordering::Acquire) == REVOKED {
            return Some(match &self.of {
                Of::Grant { name } => Error::GrantRevoked { name: name.clone() },
                Of::Capability { id } => Error::Revoked { id: *id },
            });
        }
        let ends_ms = self.ends_ms.load(Ordering::Acquire);
        match &self.of {
            Of::Capability { id } if ends_ms != NEVER && self.end_time(ends_ms) <= Instant::now() => {
                Some(Error::Expired { id: *id })
            }
            _ => None,
        }
    }

    fn end_time(&self, ends_ms: u64) -> Instant {
        self.base + Duration::from_millis(ends_ms)
    }

    /// Refuses where it has ended.
    pub fn check(&self) -> Result<()> {
        self.over().map_or(Ok(()), |e| Err(e.into()))
    }

    /// Refuses where it has ended, or where it lets nothing be changed.
    pub fn check_writes(&self) -> Result<()> {
        self.check()?;
        if !self.is_readonly() {
            return Ok(());
        }
        let what = match &self.of {
            Of::Grant { name } => format!("/{name}"),
            Of::Capability { id } => format!("export {id}"),
        };
        Err(Error::ReadOnly { what }.into())
    }

    /// Waits until it ends, and says how.
    async fn ended(&self) -> fs_ninep::Error {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(e) = self.over() {
                return e.into();
            }
            match self.ends_ms.load(Ordering::Acquire) {
                NEVER => changed.await,
                ends_ms => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(self.end_time(ends_ms)) => {}
                },
            }
        }
    }

    /// The result of `call`, or why the hold ended before it came. `call` goes first: one that is done at once costs no
    /// timer.
    pub async fn guard<T>(&self, call: Call<'_, T>) -> Result<T> {
        tokio::select! {
            biased;
            result = call => result,
            e = self.ended() => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fs_ninep::Kind;

    use super::*;

    fn capability(base: Instant, ends_ms: u64) -> Arc<Hold> {
        Arc::new(Hold::new(Of::Capability { id: ExportId(3) }, base, Access::Rw, ends_ms))
    }

    /// A call that never comes back on its own, under `hold`: when it was cut, in milliseconds, and how.
    async fn waiting(hold: Arc<Hold>, base: Instant) -> (u128, String) {
        let call: Call<'_, ()> = Box::pin(std::future::pending());
        let e = hold.guard(call).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Expired);
        (base.elapsed().as_millis(), e.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_call_is_cut_when_its_hold_ends() {
        let base = Instant::now();
        let expired = "the capability of export 3 has expired; ask for another, with a longer ttl";
        let revoked = "export 3 was taken back by its owner; ask for another";
        for (ends_ms, change, at_ms, why) in [
            (5000, None, 5000, expired),
            (5000, Some(9000), 9000, expired),
            (9000, Some(4000), 4000, expired),
            (5000, Some(1000), 2000, expired),
            (NEVER, Some(7000), 7000, expired),
            (NEVER, Some(0), 2000, revoked),
            (5000, Some(0), 2000, revoked),
        ] {
            let base_now = Instant::now();
            let hold = capability(base_now, ends_ms);
            let call = tokio::spawn(waiting(hold.clone(), base_now));
            tokio::time::sleep(Duration::from_secs(2)).await;
            match change {
                Some(0) => hold.revoke(),
                Some(ends_ms) => hold.change(Access::Rw, ends_ms),
                None => {}
            }
            let (cut_ms, text) = call.await.unwrap();
            assert_eq!((cut_ms, &*text), (at_ms, why), "{ends_ms} {change:?}");
            assert!(hold.check().is_err());
        }
        assert!(base.elapsed() < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn what_is_done_is_given_even_as_the_hold_ends() {
        let hold = capability(Instant::now(), NEVER);
        hold.revoke();
        let call: Call<'_, u8> = Box::pin(std::future::ready(Ok(7)));
        assert_eq!(hold.guard(call).await.unwrap(), 7);
    }
}
