//! The one task that does a connection's I/O and keeps its time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep, timeout};

use super::conn::Conn;
use crate::buffer::Input;
use crate::{Error, Kind, Result, Stream};

/// Drives the connection until it ends; then every call has been told why.
pub async fn drive(conn: Arc<Conn>, stream: impl Stream, input: Input) {
    let mut driver = Driver { conn, stream, input, tick: None };
    let why = poll_fn(|cx| driver.poll(cx)).await;
    let broken = why.kind() == Kind::Protocol;
    driver.conn.fail(why);
    // the answers to the last clunks are read, or the server would find its connection reset in the midst of them
    let last = async {
        poll_fn(|cx| Pin::new(&mut driver.stream).poll_shutdown(cx)).await?;
        while !broken && poll_fn(|cx| driver.input.poll_read(cx, &mut driver.stream)).await? > 0 {
            driver.input = Input::default();
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(LAST, last).await; // the peer may be gone
}

/// How long the server is given to close its side.
const LAST: Duration = Duration::from_secs(2);

struct Driver<S> {
    conn: Arc<Conn>,
    stream: S,
    input: Input,
    tick: Option<Pin<Box<Sleep>>>,
}

impl<S: Stream> Driver<S> {
    fn poll(&mut self, cx: &mut Context) -> Poll<Error> {
        match self.step(cx) {
            Ok(()) => Poll::Pending,
            Err(e) => Poll::Ready(e),
        }
    }

    fn step(&mut self, cx: &mut Context) -> Result<()> {
        if let Some(e) = self.conn.dead.get() {
            return Err(e.clone());
        }
        loop {
            while let Some(frame) = self.input.frame(self.conn.msize).map_err(|e| Error::new(Kind::Protocol, e))? {
                self.conn.receive(frame)?;
            }
            match self.input.poll_read(cx, &mut self.stream) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(Error::new(Kind::Reset, "the server closed the connection")),
                Poll::Ready(n) => drop(n?),
            }
        }
        let timed = {
            let mut state = self.conn.lock();
            // a caller that is woken later sends by itself waking this task: the waker must be there before it can
            state.driver = Some(cx.waker().clone());
            let sent = state.out.poll_write(cx, &mut self.stream)?.is_ready();
            if state.closing && sent {
                return Err(Error::new(Kind::Reset, "the connection was closed by this side"));
            }
            state.is_timed()
        };
        self.keep_time(cx, timed);
        Ok(())
    }

    fn keep_time(&mut self, cx: &mut Context, timed: bool) {
        let quarter = Duration::from_millis(self.conn.config.call_timeout_ms.div_ceil(4));
        if timed && self.tick.is_none() {
            self.tick = Some(Box::pin(sleep(quarter)));
        }
        while let Some(tick) = &mut self.tick
            && tick.as_mut().poll(cx).is_ready()
        {
            self.conn.tick();
            self.tick = self.conn.lock().is_timed().then(|| Box::pin(sleep(quarter)));
        }
    }
}
