//! A job's stdin: bytes kept until the job takes them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fs_ninep::{Call, Kind, OpenFile, Result};
use tokio::sync::Notify;

/// Bytes kept; a writer waits when there are as many.
pub const INPUT_MAX: usize = 1 << 20;

/// What was written to a job's `stdin` and not taken yet.
#[derive(Default)]
pub struct Input {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    kept: usize,
    writers: usize,
    /// The last writer's close is not the end.
    stays: bool,
    ended: bool,
    /// Nobody takes any more.
    closed: bool,
}

impl Input {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writers' close is not the end from now on.
    pub fn stay(&self) {
        self.lock().stays = true;
    }

    /// What is kept is the last.
    pub fn end(&self) {
        self.lock().ended = true;
        self.moved.notify_waiters();
    }

    /// Nobody takes any more: writers are told so.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.pieces.clear();
        drop(state);
        self.moved.notify_waiters();
    }

    /// The next piece; `None` is the end.
    pub async fn take(&self) -> Option<Bytes> {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(piece) = state.pieces.pop_front() {
                    state.kept -= piece.len();
                    drop(state);
                    self.moved.notify_waiters();
                    return Some(piece);
                }
                if state.ended || state.closed {
                    return None;
                }
            }
            moved.await;
        }
    }

    async fn put(&self, data: Bytes) -> Result<u32> {
        let len = data.len();
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            {
                let mut state = self.lock();
                if state.closed || state.ended {
                    return Err(Kind::BrokenPipe.into());
                }
                if state.kept == 0 || state.kept + len <= INPUT_MAX {
                    state.kept += len;
                    state.pieces.push_back(data);
                    drop(state);
                    self.moved.notify_waiters();
                    return Ok(len as u32);
                }
            }
            moved.await;
        }
    }
}

/// One opening of `stdin`.
pub struct Writer(Arc<Input>);

impl Writer {
    pub fn new(input: Arc<Input>) -> Writer {
        input.lock().writers += 1;
        Writer(input)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.writers -= 1;
        if state.writers == 0 && !state.stays {
            state.ended = true;
            drop(state);
            self.0.moved.notify_waiters();
        }
    }
}

impl OpenFile for Writer {
    fn write(&self, _offset: u64, data: Bytes) -> Call<'_, u32> {
        Box::pin(self.0.put(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &Input) -> usize {
        let mut len = 0;
        while let Some(piece) = input.take().await {
            len += piece.len();
        }
        len
    }

    #[tokio::test]
    async fn a_mebibyte_is_kept_then_a_writer_waits_and_the_last_close_is_the_end() {
        let input = Arc::new(Input::default());
        let writer = Writer::new(input.clone());
        for _ in 0..16 {
            assert_eq!(writer.write(0, vec![1; 65536].into()).await.unwrap(), 65536);
        }
        let mut waits = Box::pin(writer.write(0, Bytes::from_static(b"more")));
        assert!(futures::poll!(&mut waits).is_pending());
        let second = Writer::new(input.clone());
        assert_eq!(input.take().await.unwrap().len(), 65536);
        assert_eq!(waits.await.unwrap(), 4);
        drop(writer);
        second.write(0, Bytes::from_static(b"last")).await.unwrap();
        drop(second);
        assert_eq!(all(&input).await, 15 * 65536 + 8);
        let late = Writer::new(input.clone());
        assert_eq!(late.write(0, Bytes::from_static(b"x")).await.unwrap_err().kind(), Kind::BrokenPipe);
    }

    #[tokio::test]
    async fn keepstdin_leaves_the_end_to_eof_and_a_closed_input_refuses() {
        let input = Arc::new(Input::default());
        input.stay();
        drop(Writer::new(input.clone()));
        let writer = Writer::new(input.clone());
        writer.write(0, Bytes::from_static(b"ab")).await.unwrap();
        input.end();
        assert_eq!(all(&input).await, 2);
        let other = Arc::new(Input::default());
        let writer = Writer::new(other.clone());
        other.close();
        assert_eq!(writer.write(0, Bytes::from_static(b"x")).await.unwrap_err().kind(), Kind::BrokenPipe);
        assert!(other.take().await.is_none());
    }
}
