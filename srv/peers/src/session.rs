//! One 9P session a peer: made at the first use, shared by all, made again at the next use after it was lost.
//!
//! A session is alive until its connection says otherwise; then every call on it fails and the next one makes another.
//! Concurrent users wait for one dial. Lock order: gate (held over a dial), then slot (never over an await).

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use fs_ninep::{Client, ClientConfig, Kind, PeerId, Result, Time};
use fs_tree::Events;

use crate::Error;
use crate::far::Root;

/// Making a session, dial and negotiation and attach, takes no longer.
pub const SESSION_MS: u64 = 4700;
/// A call that may not wait (all but read, write and open) takes no longer.
pub const CALL_MS: u64 = 4500;
/// After a failed dial further uses fail with its reason for so long, without another.
pub const REST_MS: u64 = 1000;

/// How a peer stands: the first word of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing was tried since this node started.
    Idle,
    /// A connection stands.
    Connected,
    /// The connection was lost.
    Lost,
    /// The last attempt to connect failed.
    Unreachable,
    /// A user hung up.
    Hungup,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Connected => "connected",
            State::Lost => "lost",
            State::Unreachable => "unreachable",
            State::Hungup => "hungup",
        }
    }
}

/// The state, since when, and why.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) state: State,
    pub(crate) since: Time,
    pub(crate) why: String,
}

/// A peer that was named or used.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) events: Events,
    slot: Mutex<Slot>,
    gate: tokio::sync::Mutex<()>,
    /// Its main tree, as n/ shows it: one for good, so that its files keep their identity.
    pub(crate) root: OnceLock<Arc<Root>>,
}

struct Slot {
    session: Option<Arc<Session>>,
    failed: Option<(Instant, fs_ninep::Error)>,
    standing: Standing,
}

/// A session.
pub(crate) struct Session {
    pub(crate) client: Client,
    who: PeerId,
    dead: OnceLock<String>,
}

impl Session {
    pub(crate) fn alive(&self) -> bool {
        self.dead.get().is_none()
    }

    /// Ends it for `why`; false if it had ended.
    fn end(&self, why: &str) -> bool {
        self.dead.set(why.into()).is_ok()
    }

    /// What a failed call means: the end of the session where it has ended, else what the peer answered.
    pub(crate) fn explain(&self, e: fs_ninep::Error) -> fs_ninep::Error {
        let lost = |why| Error::Lost { who: self.who.to_string(), why }.into();
        match (self.dead.get(), self.client.death()) {
            (Some(why), _) => lost(why.clone()),
            (None, Some(why)) => lost(why.to_string()),
            (None, None) if matches!(e.kind(), Kind::Reset | Kind::BrokenPipe) => lost(e.to_string()),
            (None, None) => e,
        }
    }
}

impl Peer {
    pub(crate) fn new(id: PeerId) -> Peer {
        let standing = Standing { state: State::Idle, since: Time::now(), why: "not used yet".into() };
        let slot = Mutex::new(Slot { session: None, failed: None, standing });
        Peer { id, events: Events::new(), slot, gate: tokio::sync::Mutex::new(()), root: OnceLock::new() }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The live session, if there is one.
    pub(crate) fn live(&self) -> Option<Arc<Session>> {
        self.slot().session.clone().filter(|s| s.alive())
    }

    pub(crate) fn standing(&self) -> Standing {
        self.slot().standing.clone()
    }

    /// True while nothing would be lost by forgetting this peer.
    pub(crate) fn is_spare(&self) -> bool {
        self.live().is_none() && self.root.get().is_none_or(|root| Arc::strong_count(root) == 1)
    }

    /// Notes how the peer stands now. What follows from a hangup is no loss.
    pub(crate) fn stand(&self, state: State, why: &str) {
        // One line, whatever the other side's words were.
        let why = &*why.replace(char::is_control, " ");
        let mut slot = self.slot();
        let old = &slot.standing;
        let same = old.state == state && (state != State::Unreachable || old.why == why);
        if same || (old.state == State::Hungup && state == State::Lost) {
            return;
        }
        slot.standing = Standing { state, since: Time::now(), why: why.into() };
        drop(slot);
        self.events.send(format!("{}\t{why}", state.as_str()));
    }

    /// Forgets that the last dial failed: the user asks for another now.
    pub(crate) fn retry(&self) {
        self.slot().failed = None;
    }

    /// Ends the session, if there is one.
    pub(crate) fn hangup(&self, why: &str) {
        let session = self.slot().session.take();
        if let Some(session) = session {
            session.end(why);
        }
        self.stand(State::Hungup, why);
    }

    /// The session, made by `open` where there is none.
    pub(crate) async fn session<F>(self: &Arc<Self>, open: impl FnOnce() -> F) -> Result<Arc<Session>>
    where
        F: Future<Output = Result<Client>>,
    {
        if let Some(session) = self.live() {
            return Ok(session);
        }
        let _turn = self.gate.lock().await;
        if let Some(session) = self.live() {
            return Ok(session);
        }
        if let Some((at, e)) = &self.slot().failed
            && at.elapsed() < Duration::from_millis(REST_MS)
        {
            return Err(e.clone());
        }
        let made = tokio::time::timeout(Duration::from_millis(SESSION_MS), open()).await;
        let late =
            || Error::Unreachable { who: self.id.to_string(), why: format!("no answer in {SESSION_MS} ms") }.into();
        match made.unwrap_or_else(|_| Err(late())) {
            Ok(client) => Ok(self.adopt(client)),
            Err(e) => {
                let e = as_unreachable(&self.id, e);
                self.slot().failed = Some((Instant::now(), e.clone()));
                self.stand(State::Unreachable, &e.to_string());
                Err(e)
            }
        }
    }

    fn adopt(self: &Arc<Self>, client: Client) -> Arc<Session> {
        let ended = client.closed();
        let session = Arc::new(Session { client, who: self.id.clone(), dead: OnceLock::new() });
        {
            let mut slot = self.slot();
            slot.session = Some(session.clone());
            slot.failed = None;
        }
        self.stand(State::Connected, "");
        let (peer, watched) = (Arc::downgrade(self), Arc::downgrade(&session));
        tokio::spawn(async move {
            let e = ended.await;
            let why = e.to_string();
            let Some(session) = watched.upgrade() else { return };
            if session.end(&why)
                && let Some(peer) = peer.upgrade()
            {
                if e.kind() == Kind::TimedOut {
                    // Whoever noticed has waited long enough: a peer that fell silent is not dialled at once again.
                    peer.slot().failed = Some((Instant::now(), session.explain(e)));
                }
                peer.stand(State::Lost, &why);
            }
        });
        session
    }
}

/// A failure to connect, as the mount shows it: no route to that machine, whatever the reason was underneath.
fn as_unreachable(peer: &PeerId, e: fs_ninep::Error) -> fs_ninep::Error {
    match e.kind() {
        Kind::TimedOut | Kind::Reset | Kind::Refused | Kind::BrokenPipe | Kind::Io | Kind::Protocol => {
            Error::Unreachable { who: peer.to_string(), why: e.to_string() }.into()
        }
        _ => e,
    }
}

/// How this node is a client of others: remote files appear as its own user's.
pub(crate) fn client_config() -> ClientConfig {
    let ids = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    ClientConfig { ids: Some(ids), call_timeout_ms: CALL_MS, ..ClientConfig::default() }
}
