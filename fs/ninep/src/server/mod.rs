//! Serving a tree to one connection. See intro(5).
//!
//! One future a connection, no task of its own: it reads what is there, runs every request as far as it goes, and writes
//! all answers with one call. A request that is ready at once costs no wake-up; one that waits is parked in `pool`.

mod call;
mod limits;
mod listen;
mod pool;
mod session;

pub use limits::Limits;
pub use listen::{listen_tcp, listen_unix};

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::buffer::Input;
use crate::{Caller, Error, Kind, Result, Stream, Tree};
use session::Session;

/// Serves `tree` to whoever is at the other end of `stream`, as `caller`, until the connection ends.
/// # Errors
/// `Protocol` where the peer broke the protocol, `TimedOut` where it did not read its answers, else what the stream said.
pub async fn serve(stream: impl Stream, tree: Arc<dyn Tree>, caller: Caller, limits: Limits) -> Result<()> {
    let session = Session::new(tree, caller, limits);
    let mut connection = Connection { stream, session, input: Input::default(), limits, stall: None, ended: false };
    let end = poll_fn(|cx| connection.poll(cx)).await;
    for file in connection.session.close() {
        let _ = file.remove().await; // nobody is left to be told
    }
    end
}

struct Connection<S> {
    stream: S,
    session: Session,
    input: Input,
    limits: Limits,
    stall: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl<S: Stream> Connection<S> {
    fn poll(&mut self, cx: &mut Context) -> Poll<Result<()>> {
        self.session.register(cx.waker());
        loop {
            let mut progress = self.session.poll();
            while !self.session.is_full() {
                let Some(frame) = self.input.frame(self.session.msize()).map_err(broken)? else { break };
                self.session.request(frame)?;
            }
            progress |= self.write(cx)?;
            if self.ended {
                let sent = self.session.out.len() == 0;
                return if sent { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            if !self.session.is_full()
                && let Poll::Ready(n) = self.input.poll_read(cx, &mut self.stream)
            {
                self.ended = n? == 0;
                progress = true;
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }

    /// Sends what the stream takes; true if room came of it for what had to wait.
    fn write(&mut self, cx: &mut Context) -> Result<bool> {
        let before = self.session.out.len();
        let was_full = self.session.is_full();
        match self.session.out.poll_write(cx, &mut self.stream) {
            Poll::Ready(result) => {
                result?;
                self.stall = None;
            }
            Poll::Pending => {
                if self.session.out.len() < before || self.stall.is_none() {
                    self.stall = Some(Box::pin(sleep(Duration::from_millis(self.limits.stall_ms))));
                }
                if self.stall.as_mut().is_some_and(|s| s.as_mut().poll(cx).is_ready()) {
                    let text = format!("answers were not read for {} ms", self.limits.stall_ms);
                    return Err(Error::new(Kind::TimedOut, text));
                }
            }
        }
        Ok(was_full && !self.session.is_full())
    }
}

fn broken(why: crate::wire::Why) -> Error {
    Error::new(Kind::Protocol, why)
}
