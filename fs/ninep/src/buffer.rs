//! A connection's bytes on their way in and out. Server and client drive the stream through these two.
//!
//! Input is cancel-safe: what was read stays here until a whole frame can be cut off. Output coalesces: small messages
//! share one buffer, large payloads go out where they lie, and one vectored write takes many of both.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::{Why, frame_len};

/// The least room a read is given, in bytes: several hundred small messages a system call.
const READ_MIN: usize = 16 * 1024;
/// Payloads of this many bytes and more are not copied behind their head.
const PAYLOAD_MIN: usize = 8 * 1024;
/// Most pieces in one vectored write.
const PIECES: usize = 64;

/// Bytes received and not yet decoded.
#[derive(Default)]
pub struct Input {
    buf: BytesMut,
}

impl Input {
    /// The next whole frame, if it is there.
    /// # Errors
    /// `Why::Size` for a frame under 7 or over `msize` bytes.
    pub fn frame(&mut self, msize: u32) -> Result<Option<Bytes>, Why> {
        let Some(len) = frame_len(&self.buf, msize)? else { return Ok(None) };
        if self.buf.len() < len {
            self.buf.reserve(len - self.buf.len() + READ_MIN);
            return Ok(None);
        }
        Ok(Some(self.buf.split_to(len).freeze()))
    }

    /// Reads once; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context, stream: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<usize>> {
        if self.buf.capacity() == self.buf.len() || self.buf.is_empty() {
            self.buf.reserve(READ_MIN);
        }
        let n = {
            // SAFETY: the bytes are handed to ReadBuf::uninit alone, which never un-initialises any.
            let room = unsafe { self.buf.chunk_mut().as_uninit_slice_mut() };
            let mut room = ReadBuf::uninit(room);
            ready!(Pin::new(stream).poll_read(cx, &mut room))?;
            room.filled().len()
        };
        // SAFETY: ReadBuf counts as filled only bytes that were initialised, and they lie at the chunk's start.
        unsafe { self.buf.advance_mut(n) };
        Poll::Ready(Ok(n))
    }
}

/// Messages encoded and not yet sent.
#[derive(Default)]
pub struct Output {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
    flush: bool,
}

impl Output {
    /// Appends a message: `head` encodes all but the payload and returns that.
    pub fn push<'a>(&mut self, head: impl FnOnce(&mut BytesMut) -> Option<&'a Bytes>) {
        let before = self.tail.len();
        let payload = head(&mut self.tail);
        self.len += self.tail.len() - before;
        let Some(payload) = payload else { return };
        self.len += payload.len();
        if payload.len() < PAYLOAD_MIN {
            self.tail.put_slice(payload);
        } else {
            self.pieces.push_back(self.tail.split().freeze());
            self.pieces.push_back(payload.clone());
        }
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Writes what the stream takes; ready when nothing is left and the stream has passed it on.
    pub fn poll_write(&mut self, cx: &mut Context, stream: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(stream);
        while self.len > 0 {
            let n = if self.pieces.is_empty() {
                ready!(stream.as_mut().poll_write(cx, &self.tail))?
            } else if stream.is_write_vectored() {
                let mut slices = [IoSlice::new(&[]); PIECES];
                let all = self.pieces.iter().map(|p| &p[..]).chain([&self.tail[..]]);
                let count = slices.iter_mut().zip(all).map(|(s, p)| *s = IoSlice::new(p)).count();
                ready!(stream.as_mut().poll_write_vectored(cx, &slices[..count]))?
            } else {
                ready!(stream.as_mut().poll_write(cx, &self.pieces[0]))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.flush = true;
            self.advance(n);
        }
        if self.flush {
            ready!(stream.poll_flush(cx))?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while let Some(piece) = self.pieces.front_mut() {
            if n < piece.len() {
                piece.advance(n);
                return;
            }
            n -= piece.len();
            self.pieces.pop_front();
        }
        self.tail.advance(n);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn push(out: &mut Output, head: &[u8], payload: &Bytes) {
        out.push(|tail| {
            tail.put_slice(head);
            Some(payload)
        });
    }

    #[tokio::test]
    async fn pieces_leave_in_order_through_a_narrow_pipe() {
        let (mut near, mut far) = tokio::io::duplex(1000);
        let (mut out, mut expect) = (Output::default(), Vec::new());
        for (i, len) in [3, PAYLOAD_MIN, 5, 3 * PAYLOAD_MIN, 0, 7].into_iter().enumerate() {
            let payload = Bytes::from(vec![i as u8; len]);
            push(&mut out, b"head", &payload);
            expect.extend_from_slice(b"head");
            expect.extend_from_slice(&payload);
        }
        assert_eq!(out.len(), expect.len());
        let mut got = vec![0; expect.len()];
        let write = poll_fn(|cx| out.poll_write(cx, &mut near));
        let (wrote, read) = tokio::join!(write, far.read_exact(&mut got));
        assert!(wrote.is_ok() && read.is_ok() && got == expect);
        assert_eq!(out.len(), 0);
    }

    #[tokio::test]
    async fn frames_are_cut_wherever_reads_end() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let mut input = Input::default();
        let bytes = [&[8, 0, 0, 0, 1, 1, 0, 9][..], &[7, 0, 0, 0, 2, 2, 0], &[6, 0, 0, 0]].concat();
        let mut seen = Vec::new();
        for b in bytes {
            near.write_all(&[b]).await.unwrap();
            assert_eq!(poll_fn(|cx| input.poll_read(cx, &mut far)).await.unwrap(), 1);
            match input.frame(256) {
                Ok(frame) => seen.extend(frame.map(|f| f.len())),
                Err(why) => assert_eq!((why, seen.len()), (Why::Size, 2)),
            }
        }
        assert_eq!(seen, [8, 7]);
        assert_eq!(input.frame(256), Err(Why::Size));
    }
}
