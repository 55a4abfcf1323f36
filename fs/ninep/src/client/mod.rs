//! Trees at the other end of a connection. See intro(5).
//!
//! [`Client`] negotiates and attaches; what it gives are [`File`]s like any other. Calls are one trip where the server
//! obeys pipelined requests in order (our own nodes say so by their dialect). Dropping a call flushes it, dropping a
//! handle clunks it without waiting, and when the last handle goes the connection closes.

mod conn;
mod driver;
mod file;
mod open;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::buffer::{Input, Output};
use crate::wire::{Dialect, HEADER, MSIZE_MIN, NOFID, NONUNAME, NOTAG, Reply, Request, Uid};
use crate::{Error, File, Kind, Result, Stream};
use conn::{Conn, Keep, Link};

/// How to speak to a server.
#[derive(Clone, Copy, Debug)]
pub struct ClientConfig {
    /// The dialect to ask for; what the server answers is spoken.
    pub dialect: Dialect,
    /// Largest message to ask for, in bytes.
    pub msize: u32,
    /// User and group shown as the owners of every file, instead of numbers that mean something elsewhere.
    pub ids: Option<(u32, u32)>,
    /// How long a call that may not wait (all but read, write and open) is given, in milliseconds.
    pub call_timeout_ms: u64,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig { dialect: Dialect::Ipos, msize: 128 * 1024 + HEADER, ids: None, call_timeout_ms: 30_000 }
    }
}

/// A connection to a 9P server. Clones share it.
#[derive(Clone)]
pub struct Client {
    link: Arc<Link>,
}

impl Client {
    /// Negotiates with the server at the other end of `stream`. Must be called within a tokio runtime: a task of it
    /// drives the connection.
    /// # Errors
    /// `Protocol` for a server that answers no version of 9P spoken here, `TimedOut`, or what the stream said.
    pub async fn connect(stream: impl Stream, config: ClientConfig) -> Result<Client> {
        let patience = Duration::from_millis(config.call_timeout_ms);
        let late = |_| Error::new(Kind::TimedOut, format!("no answer to Tversion in {} ms", config.call_timeout_ms));
        let mut stream = stream;
        let mut input = Input::default();
        let (dialect, msize) = timeout(patience, negotiate(&mut stream, &mut input, config)).await.map_err(late)??;
        let conn = Arc::new(Conn::new(dialect, msize, config));
        tokio::spawn(driver::drive(conn.clone(), stream, input));
        Ok(Client { link: Arc::new(Link(conn)) })
    }

    /// The root that the server shows to `uname` under `aname`.
    /// # Errors
    /// What the server answered.
    pub async fn attach(&self, uname: &str, aname: &str) -> Result<Arc<dyn File>> {
        let conn = &self.link.0;
        let fid = Conn::fid(&self.link)?;
        let (uname, aname, n_uname) = (uname.as_bytes(), aname.as_bytes(), Uid(NONUNAME));
        let attach = Request::Attach { fid: fid.id, afid: NOFID, uname, aname, n_uname };
        let frame = conn.send(&attach, Keep::binds(&fid, 0), true)?.await?;
        match conn.decode(&frame)? {
            Reply::Attach { qid } => Ok(Arc::new(file::Remote::new(fid, qid))),
            _ => Err(conn.broken("a wrong answer to Tattach")),
        }
    }

    /// What is spoken.
    pub fn dialect(&self) -> Dialect {
        self.link.0.dialect
    }

    /// The largest message, in bytes.
    pub fn msize(&self) -> u32 {
        self.link.0.msize
    }

    /// Waits until the connection has ended and says why. Does not keep it open.
    pub fn closed(&self) -> impl Future<Output = Error> + Send + 'static {
        let conn = self.link.0.clone();
        async move { conn.dead.wait().await.clone() }
    }

    /// Why the connection died; none while it lives.
    pub fn death(&self) -> Option<&Error> {
        self.link.0.dead.get()
    }
}

/// Asks for the dialect wanted, then for 9P2000.L where the server knows no names with more dots.
async fn negotiate(stream: &mut impl Stream, input: &mut Input, config: ClientConfig) -> Result<(Dialect, u32)> {
    for dialect in [config.dialect, Dialect::L] {
        let frame = version(stream, input, config.msize, dialect).await?;
        let Ok((NOTAG, Reply::Version { msize, version })) = Reply::decode(Dialect::Plain, &frame) else { continue };
        if msize > config.msize || msize < MSIZE_MIN {
            let text = format!("the server answers msize {msize} to {}", config.msize);
            return Err(Error::new(Kind::Protocol, text));
        }
        if let Some(spoken) = Dialect::ALL.iter().find(|d| d.version().as_bytes() == version) {
            return Ok((*spoken, msize));
        }
    }
    Err(Error::new(Kind::Protocol, format!("the server does not speak {}", config.dialect.version())))
}

async fn version(stream: &mut impl Stream, input: &mut Input, msize: u32, dialect: Dialect) -> Result<Bytes> {
    let mut out = Output::default();
    let ask = Request::Version { msize, version: dialect.version().as_bytes() };
    out.push(|o| ask.encode_head(Dialect::Plain, NOTAG, o));
    poll_fn(|cx| out.poll_write(cx, stream)).await?;
    loop {
        if let Some(frame) = input.frame(msize).map_err(|e| Error::new(Kind::Protocol, e))? {
            return Ok(frame);
        }
        if poll_fn(|cx| input.poll_read(cx, stream)).await? == 0 {
            return Err(Error::new(Kind::Reset, "the server closed the connection"));
        }
    }
}
