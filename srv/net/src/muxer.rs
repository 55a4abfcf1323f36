//! The muxer: many streams on one encrypted TCP connection. Protocol `/yamux/1.0.0`.
//!
//! Owned here because libp2p's adapter exposes no tuning and drops streams when it falls behind. One task a connection
//! moves its frames, so that a byte written to a stream costs one wake on the way to the socket and the swarm's own task,
//! with its many protocols, sleeps through it. Only that task touches the yamux connection; nothing here blocks.

use std::future::{Future, Ready, ready};
use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until};

/// Streams a connection may have. yamux ends a connection that goes over it, whoever opened the stream.
pub(crate) const STREAMS_MAX: usize = 512;
/// Streams, of both sides, up to which this side opens one more; the rest is left to the peer. An open beyond it waits.
pub(crate) const STREAMS_OPEN_MAX: usize = 448;
/// Payload of a frame, in bytes: 64 KiB costs half the CPU of yamux's 16 KiB (one cipher message and one write each).
const SPLIT: usize = 64 << 10;
/// Receive window of a connection, in bytes: what every stream has at first, and 768 KiB for all to grow by. More, and a
/// window passes 1 MiB; JavaScript peers then send frames as large, which yamux answers by ending the connection.
const WINDOW_MAX: usize = STREAMS_MAX * (256 << 10) + (768 << 10);
/// A connection on which nothing is heard for so long is dead. Both ends ping every 2 s (see `PING` in lib.rs).
pub(crate) const SILENCE: Duration = Duration::from_secs(4);

/// The upgrade that libp2p asks for.
#[derive(Clone)]
pub(crate) struct Upgrade;

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::start(socket, yamux::Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = Muxer;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(Muxer::start(socket, yamux::Mode::Client)))
    }
}

/// What the muxer, its task and its streams share.
struct Fate {
    /// Why the connection ended, once it has.
    why: OnceLock<String>,
    /// Streams that live.
    live: AtomicUsize,
    /// When a byte was last heard, in ms after `started`.
    heard_ms: AtomicU64,
    started: Instant,
}

impl Fate {
    fn hear(&self) {
        self.heard_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn silent_at(&self) -> Instant {
        self.started + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)) + SILENCE
    }

    fn error(&self) -> Option<io::Error> {
        let kind =
            if self.silent_at() <= Instant::now() { io::ErrorKind::TimedOut } else { io::ErrorKind::ConnectionReset };
        self.why.get().map(|why| io::Error::new(kind, why.clone()))
    }
}

/// The connection as the swarm sees it. Dropping it ends the connection and every stream at once: nothing waits for a
/// peer that may be gone.
pub(crate) struct Muxer {
    inbound: mpsc::Receiver<Substream>,
    requests: mpsc::Sender<oneshot::Sender<Substream>>,
    opening: Option<oneshot::Receiver<Substream>>,
    ended: oneshot::Receiver<()>,
    fate: Arc<Fate>,
}

impl Muxer {
    fn start<C: AsyncRead + AsyncWrite + Send + Unpin + 'static>(socket: C, mode: yamux::Mode) -> Muxer {
        let mut config = yamux::Config::default();
        // The order matters: each setter checks the window against the number of streams.
        config.set_max_num_streams(STREAMS_MAX).set_max_connection_receive_window(Some(WINDOW_MAX));
        config.set_split_send_size(SPLIT);
        let (started, why) = (Instant::now(), OnceLock::new());
        let fate = Arc::new(Fate { why, live: AtomicUsize::new(0), heard_ms: AtomicU64::new(0), started });
        // As large as the streams there can be: an arriving stream always has a place.
        let (arrived, inbound) = mpsc::channel(STREAMS_MAX);
        let (requests, requested) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        tokio::spawn(Driver {
            conn: yamux::Connection::new(Heard { socket, fate: fate.clone() }, config, mode),
            arrived,
            requested,
            waiting: None,
            silence: Box::pin(sleep_until(fate.silent_at())),
            fate: fate.clone(),
            _end: end,
        });
        Muxer { inbound, requests, opening: None, ended, fate }
    }

    fn end<T>(&self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(self.fate.error().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())))
    }
}

impl StreamMuxer for Muxer {
    type Substream = Substream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        match ready!(self.inbound.poll_recv(cx)) {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => self.end(),
        }
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        if self.opening.is_none() {
            let (reply, opening) = oneshot::channel();
            if self.requests.try_send(reply).is_err() {
                return self.end();
            }
            self.opening = Some(opening);
        }
        let Some(opening) = self.opening.as_mut() else { return Poll::Pending };
        let opened = ready!(Pin::new(opening).poll(cx));
        self.opening = None;
        match opened {
            Ok(stream) => Poll::Ready(Ok(stream)),
            Err(_) => self.end(),
        }
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        // Polled a second time after it was ready, a oneshot would panic.
        if !self.ended.is_terminated() {
            let _ = ready!(Pin::new(&mut self.ended).poll(cx));
        }
        self.end()
    }
}

/// The task that moves a connection's frames.
struct Driver<C> {
    conn: yamux::Connection<Heard<C>>,
    arrived: mpsc::Sender<Substream>,
    requested: mpsc::Receiver<oneshot::Sender<Substream>>,
    waiting: Option<oneshot::Sender<Substream>>,
    silence: Pin<Box<Sleep>>,
    fate: Arc<Fate>,
    /// Dropped with the task, which tells the muxer.
    _end: oneshot::Sender<()>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Future for Driver<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let why = loop {
            if let Poll::Ready(why) = this.poll_arrivals(cx) {
                break why;
            }
            match this.poll_requests(cx) {
                // A new stream counts only once the connection has looked at it.
                Poll::Ready(None) => continue,
                Poll::Ready(Some(why)) => break why,
                Poll::Pending => {}
            }
            if this.silence.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // The socket was read just above: what is silent now is silent.
            let at = this.fate.silent_at();
            if at <= Instant::now() {
                break format!("nothing was heard from it for {} s", SILENCE.as_secs());
            }
            this.silence.as_mut().reset(at);
        };
        let _ = this.fate.why.set(why);
        Poll::Ready(())
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Driver<C> {
    /// Moves frames and hands on new streams until there is nothing to do; ready with the reason when it is over.
    fn poll_arrivals(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            match ready!(self.conn.poll_next_inbound(cx)) {
                // Full cannot be (see the channel's size); closed is the muxer gone, which ends this task right after.
                Some(Ok(stream)) => drop(self.arrived.try_send(Substream::new(stream, &self.fate))),
                Some(Err(e)) => return Poll::Ready(e.to_string()),
                None => return Poll::Ready("it closed the connection".into()),
            }
        }
    }

    /// Opens a stream that was asked for: `None` when it did, the reason when the connection is over.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        if self.waiting.is_none() {
            match ready!(self.requested.poll_recv(cx)) {
                Some(reply) => self.waiting = Some(reply),
                None => return Poll::Ready(Some("this node closed the connection".into())),
            }
        }
        // Woken when a stream ends: the connection hears of it first.
        if self.fate.live.load(Ordering::Acquire) >= STREAMS_OPEN_MAX {
            return self.poll_abandoned(cx);
        }
        match self.conn.poll_new_outbound(cx) {
            Poll::Ready(Ok(stream)) => {
                if let Some(reply) = self.waiting.take() {
                    let _ = reply.send(Substream::new(stream, &self.fate));
                }
                Poll::Ready(None)
            }
            Poll::Ready(Err(e)) => Poll::Ready(Some(e.to_string())),
            Poll::Pending => self.poll_abandoned(cx),
        }
    }

    /// Nothing can be opened now: notice at least that nobody waits for it any more.
    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        match self.waiting.as_mut().map(|reply| reply.poll_closed(cx)) {
            Some(Poll::Ready(())) => {
                self.waiting = None;
                Poll::Ready(None)
            }
            _ => Poll::Pending,
        }
    }
}

/// The socket under the muxer: notes when it was last heard from.
struct Heard<C> {
    socket: C,
    fate: Arc<Fate>,
}

impl<C: AsyncRead + Unpin> AsyncRead for Heard<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.fate.hear();
        Poll::Ready(Ok(n))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Heard<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// One stream. Where the connection has died, a read says why instead of giving an end of file.
pub(crate) struct Substream {
    /// Before `stream`: it is counted out before the connection hears that it is gone.
    alive: Alive,
    stream: yamux::Stream,
}

struct Alive(Arc<Fate>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Release);
    }
}

impl Substream {
    fn new(stream: yamux::Stream, fate: &Arc<Fate>) -> Substream {
        fate.live.fetch_add(1, Ordering::Relaxed);
        Substream { alive: Alive(fate.clone()), stream }
    }

    fn explained<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|e| self.alive.0.error().unwrap_or(e))
    }
}

impl AsyncRead for Substream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            Ok(0) if !buf.is_empty() => Poll::Ready(self.alive.0.error().map_or(Ok(0), Err)),
            result => Poll::Ready(self.explained(result)),
        }
    }
}

impl AsyncWrite for Substream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.explained(result))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.explained(result))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_close(cx));
        Poll::Ready(self.explained(result))
    }
}
