//! export: what is shown, who holds what, which capabilities stand. Reads no clock, disk or random number.
//!
//! Invariants: a name is shown to peers by one export at most, and never one of the node's own trees; an export with
//! grants shows a directory; the number of an export is not used again while the node runs. A change is made on a copy
//! which then takes the state's place, so a write is obeyed whole or not at all; the uses of a capability are counted
//! outside the copy, as attaches go on meanwhile. Times are milliseconds since the node started.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fs_ninep::{Name, PeerId};
use subtle::ConstantTimeEq;

use crate::error::Error;
use crate::verbs::{ExportVerb, Verb};

/// The most exports at a time.
pub const EXPORTS_MAX: usize = 256;
/// The most grants at a time, of trees and of exports together.
pub const GRANTS_MAX: usize = 1024;
/// The last capabilities taken back whose holders are still told so.
pub const REVOKED_MAX: usize = 256;
/// How long a capability is good for that whoever has it may use, where no `ttl` was written, in seconds.
pub const BEARER_TTL_S: u64 = 3600;
/// How long a capability is good for that one peer may use, where no `ttl` was written, in seconds.
pub const BOUND_TTL_S: u64 = 24 * 3600;

/// The number of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportId(pub u64);

impl fmt::Display for ExportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who holds a grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// Every peer: whoever proved a key.
    Any,
    /// One peer.
    Peer(PeerId),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Any => f.write_str("any"),
            Who::Peer(id) => id.fmt(f),
        }
    }
}

/// What a holder may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look.
    Ro,
    /// Look and change.
    Rw,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Ro => "ro",
            Access::Rw => "rw",
        })
    }
}

/// What is granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// A tree of the node, by its name.
    Tree(String),
    /// The directory that an export shows.
    Export(ExportId),
}

/// The secret of a capability.
#[derive(Clone)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    /// Whether `text` is this secret in hex; takes the same time whatever differs.
    fn is(&self, text: &[u8]) -> bool {
        self.to_string().as_bytes().ct_eq(text).into()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The host directory that an export shows, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The directory.
    pub path: PathBuf,
    /// The name peers see it by, without the slash.
    pub name: String,
}

/// One export: a directory, its capability.
#[derive(Clone)]
pub struct Export {
    pub shown: Option<Shown>,
    /// Bytes the directory's files may come to.
    pub max: Option<u64>,
    /// What the capability allows.
    pub access: Access,
    /// The only peer that may use the capability.
    pub to: Option<PeerId>,
    /// Attaches the capability is good for, and those done.
    pub uses: Option<u64>,
    pub used: Arc<AtomicU64>,
    /// When the capability's secret was made.
    made_ms: u64,
    /// When `ttl` says it ends.
    ends_ms: Option<u64>,
    pub secret: Secret,
    /// Rises when the secret changes: what was attached with an older one is cut.
    pub turn: u64,
    /// Made by a grant and not by `clone`: it goes with its last grant.
    pub by_grant: bool,
}

impl Export {
    pub fn new(secret: Secret, now_ms: u64) -> Export {
        Export {
            shown: None,
            max: None,
            access: Access::Rw,
            to: None,
            uses: None,
            used: Arc::default(),
            made_ms: now_ms,
            ends_ms: None,
            secret,
            turn: 0,
            by_grant: false,
        }
    }

    /// When the capability ends.
    pub fn ends_ms(&self) -> u64 {
        let ttl_s = if self.to.is_some() { BOUND_TTL_S } else { BEARER_TTL_S };
        self.ends_ms.unwrap_or(self.made_ms + ttl_s * 1000)
    }

    /// Attaches left; `None`: no end of them.
    pub fn uses_left(&self) -> Option<u64> {
        self.uses.map(|n| n.saturating_sub(self.used.load(Ordering::Relaxed)))
    }
}

/// A capability that was taken back.
#[derive(Clone)]
struct Gone {
    id: ExportId,
    secret: Secret,
    to: Option<PeerId>,
}

/// What a write may need to know or to have.
pub struct Context<'a> {
    /// The names of the node's trees.
    pub trees: &'a [String],
    /// The id of a name.
    pub names: &'a dyn Fn(&str) -> Option<PeerId>,
    /// The directory that a path on this machine means; refuses what may not be shown.
    pub place: &'a dyn Fn(&str) -> Result<PathBuf, Error>,
    /// A new secret.
    pub secret: &'a dyn Fn() -> Result<Secret, Error>,
    /// Now.
    pub now_ms: u64,
}

impl Context<'_> {
    /// Whom a word means.
    fn who(&self, word: &str) -> Result<Who, Error> {
        if word == "any" {
            return Ok(Who::Any);
        }
        let id = (self.names)(word).or_else(|| is_peer_id(word).then(|| PeerId::new(word)));
        id.map(Who::Peer).ok_or_else(|| Error::UnknownPeer { who: word.to_owned() })
    }
}

/// Whether `text` is a peer id: base58 of an identity or SHA-256 multihash.
fn is_peer_id(text: &str) -> bool {
    let mut bytes = [0; 48];
    match bs58::decode(text).onto(&mut bytes[..]) {
        Ok(n) => matches!((n, &bytes[..2]), (34, [0x12, 0x20]) | (38, [0x00, 0x24]) | (39, [0x00, 0x25])),
        Err(_) => false,
    }
}

/// All exports and grants.
#[derive(Clone, Default)]
pub struct State {
    pub exports: BTreeMap<ExportId, Export>,
    pub grants: BTreeMap<(What, Who), Access>,
    gone: VecDeque<Gone>,
    next: u64,
}

impl State {
    /// Takes an export and its grants from the file.
    pub fn restore(&mut self, id: ExportId, export: Export) {
        self.next = self.next.max(id.0 + 1);
        self.exports.insert(id, export);
    }

    /// Makes an export that shows nothing yet.
    pub fn make(&mut self, context: &Context) -> Result<ExportId, Error> {
        if self.exports.len() >= EXPORTS_MAX {
            return Err(Error::ExportsFull);
        }
        let id = ExportId(self.next);
        self.exports.insert(id, Export::new((context.secret)()?, context.now_ms));
        self.next += 1;
        Ok(id)
    }

    /// The export named by a file name.
    pub fn find(&self, name: &str) -> Result<ExportId, Error> {
        let id = number(name).filter(|id| self.exports.contains_key(id));
        id.ok_or_else(|| Error::NoExport { id: name.to_owned() })
    }

    /// Ends an export, what was granted of it, and its capability.
    pub fn free(&mut self, id: ExportId) {
        if let Some(export) = self.exports.remove(&id) {
            self.bury(id, &export);
        }
        self.grants.retain(|(what, _), _| *what != What::Export(id));
    }

    fn bury(&mut self, id: ExportId, export: &Export) {
        self.gone.truncate(REVOKED_MAX - 1);
        self.gone.push_front(Gone { id, secret: export.secret.clone(), to: export.to.clone() });
    }

    /// Whether nothing was ever written to it that counts: it may go when nobody has it open.
    pub fn unused(&self, id: ExportId) -> bool {
        self.exports.get(&id).is_some_and(|e| e.shown.is_none())
    }

    /// Obeys one line of `ctl`.
    pub fn obey(&mut self, verb: &Verb, context: &Context) -> Result<(), Error> {
        match verb {
            Verb::Grant { who, path, access, max } => self.grant_path(who, path, *access, *max, context),
            Verb::Revoke { who, path } => self.revoke_path(who, path, context),
        }
    }

    fn grant_path(
        &mut self,
        who: &str,
        path: &str,
        access: Option<Access>,
        max: Option<u64>,
        context: &Context,
    ) -> Result<(), Error> {
        let who = context.who(who)?;
        let (what, default) = match self.named(path, context)? {
            Some(What::Tree(tree)) if max.is_some() => return Err(Error::MaxOfTree { tree }),
            Some(What::Tree(tree)) => (What::Tree(tree), Access::Rw),
            Some(What::Export(id)) => (What::Export(id), Access::Ro),
            None => (What::Export(self.export_of(path, context)?), Access::Ro),
        };
        if let (What::Export(id), Some(_)) = (&what, max) {
            self.at(*id)?.max = max;
        }
        self.grant(what, who, access.unwrap_or(default))
    }

    fn revoke_path(&mut self, who: &str, path: &str, context: &Context) -> Result<(), Error> {
        let who = context.who(who)?;
        let mut whats = Vec::new();
        match self.named(path, context)? {
            Some(what) => whats.push(what),
            None => {
                // A directory that is gone cannot be looked at, and its grants can still be taken back.
                let place = (context.place)(path).unwrap_or_else(|_| PathBuf::from(path));
                whats.extend(self.showing(&place).map(What::Export));
            }
        }
        whats.retain(|what| self.grants.contains_key(&(what.clone(), who.clone())));
        if whats.is_empty() {
            return Err(Error::NotGranted { who, what: path.to_owned() });
        }
        for what in whats {
            self.grants.remove(&(what.clone(), who.clone()));
            if let What::Export(id) = what
                && self.exports.get(&id).is_some_and(|e| e.by_grant)
                && self.holders(id).next().is_none()
            {
                self.free(id);
            }
        }
        Ok(())
    }

    /// What a path of one element names in this node's tree; `None` for another path.
    fn named(&self, path: &str, context: &Context) -> Result<Option<What>, Error> {
        let elements: Vec<&str> = path.split('/').filter(|e| !e.is_empty()).collect();
        let Some(first) = elements.first().filter(|_| path.starts_with('/')) else {
            let trees = context.trees.iter().map(|t| format!("/{t}")).collect::<Vec<_>>().join(" ");
            return Err(Error::UnknownPath { path: path.to_owned(), trees });
        };
        let tree = context.trees.iter().any(|t| t == first);
        match elements.len() {
            1 if tree => Ok(Some(What::Tree((*first).to_owned()))),
            1 => Ok(self.shown_as(first).map(What::Export)),
            _ if tree => Err(Error::Whole { tree: (*first).to_owned() }),
            _ => Ok(None),
        }
    }

    /// The export that shows a directory under `name` to anybody.
    fn shown_as(&self, name: &str) -> Option<ExportId> {
        let named = |id: &ExportId| self.exports.get(id).and_then(|e| e.shown.as_ref()).is_some_and(|s| s.name == name);
        self.grants.keys().find_map(|(what, _)| match what {
            What::Export(id) if named(id) => Some(*id),
            _ => None,
        })
    }

    fn showing<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = ExportId> + 'a {
        let shows = move |e: &&Export| e.shown.as_ref().is_some_and(|s| s.path == path);
        self.exports.iter().filter(move |(_, e)| shows(e)).map(|(id, _)| *id)
    }

    /// The export that a grant of the host directory `path` stands on: the one that is there for grants, or a new one.
    fn export_of(&mut self, path: &str, context: &Context) -> Result<ExportId, Error> {
        let path = (context.place)(path)?;
        let standing = self.showing(&path).find(|id| self.exports[id].by_grant);
        if let Some(id) = standing {
            return Ok(id);
        }
        let base = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let id = self.make(context)?;
        self.at(id)?.by_grant = true;
        self.bind(id, path, &format!("/{base}"), context)?;
        Ok(id)
    }

    fn at(&mut self, id: ExportId) -> Result<&mut Export, Error> {
        self.exports.get_mut(&id).ok_or_else(|| Error::NoExport { id: id.to_string() })
    }

    /// Obeys one line of an export's `ctl`.
    pub fn obey_export(&mut self, id: ExportId, verb: &ExportVerb, context: &Context) -> Result<(), Error> {
        if !self.exports.contains_key(&id) {
            return Err(Error::AfterFree);
        }
        match verb {
            ExportVerb::Bind { path, name } => {
                let path = (context.place)(path)?;
                self.bind(id, path, name, context)?;
            }
            ExportVerb::Access(access) => self.at(id)?.access = *access,
            ExportVerb::To { who } => {
                self.at(id)?.to = match context.who(who)? {
                    Who::Any => None,
                    Who::Peer(id) => Some(id),
                }
            }
            ExportVerb::Uses(n) => {
                let export = self.at(id)?;
                (export.uses, export.used) = (Some(*n), Arc::default());
            }
            ExportVerb::Ttl { seconds } => self.at(id)?.ends_ms = Some(context.now_ms + seconds * 1000),
            ExportVerb::Max(bytes) => self.at(id)?.max = Some(*bytes),
            ExportVerb::Grant { who, access } => {
                let who = context.who(who)?;
                self.grant(What::Export(id), who, access.unwrap_or(Access::Ro))?;
            }
            ExportVerb::Revoke { who: Some(who) } => {
                let who = context.who(who)?;
                let key = (What::Export(id), who);
                if self.grants.remove(&key).is_none() {
                    return Err(Error::NotGranted { who: key.1, what: format!("export {id}") });
                }
            }
            ExportVerb::Revoke { who: None } => {
                self.grants.retain(|(what, _), _| *what != What::Export(id));
                let secret = (context.secret)()?;
                let export = self.at(id)?;
                let old = export.clone();
                (export.secret, export.made_ms, export.ends_ms) = (secret, context.now_ms, None);
                (export.uses, export.used) = (None, Arc::default());
                export.turn += 1;
                self.bury(id, &old);
            }
            ExportVerb::Free => self.free(id),
        }
        Ok(())
    }

    fn bind(&mut self, id: ExportId, path: PathBuf, name: &str, context: &Context) -> Result<(), Error> {
        let bad = || Error::BadName { name: name.to_owned() };
        let element = name.strip_prefix('/').ok_or_else(bad)?;
        // One line a record: what would not stand in a line cannot be shown.
        if Name::new(element.to_owned()).is_err() || element.chars().any(char::is_control) {
            return Err(bad());
        }
        if path.to_str().is_none_or(|p| p.chars().any(char::is_control)) {
            return Err(Error::BadName { name: path.to_string_lossy().into_owned() });
        }
        if context.trees.iter().any(|t| t == element) {
            return Err(Error::TreeName { name: element.to_owned() });
        }
        let export = self.at(id)?;
        if let Some(shown) = &export.shown {
            return Err(Error::Bound { id, path: shown.path.clone() });
        }
        export.shown = Some(Shown { path, name: element.to_owned() });
        Ok(())
    }

    fn grant(&mut self, what: What, who: Who, access: Access) -> Result<(), Error> {
        if let What::Export(id) = what {
            let name = match &self.at(id)?.shown {
                None => return Err(Error::Unbound { id }),
                Some(shown) => shown.name.clone(),
            };
            if let Some(by) = self.shown_as(&name).filter(|by| *by != id) {
                return Err(Error::NameTaken { name, by });
            }
        }
        if self.grants.len() >= GRANTS_MAX && !self.grants.contains_key(&(what.clone(), who.clone())) {
            return Err(Error::GrantsFull);
        }
        self.grants.insert((what, who), access);
        Ok(())
    }

    /// Who holds a grant of export `id`, and what they may do.
    pub fn holders(&self, id: ExportId) -> impl Iterator<Item = (&Who, Access)> {
        self.grants.iter().filter(move |((what, _), _)| *what == What::Export(id)).map(|((_, w), a)| (w, *a))
    }

    /// The name that peers see `what` by.
    pub fn name_of<'a>(&'a self, what: &'a What) -> Option<&'a str> {
        match what {
            What::Tree(name) => Some(name),
            What::Export(id) => self.exports.get(id)?.shown.as_ref().map(|s| s.name.as_str()),
        }
    }

    /// The grants that `peer` holds, what was granted to it alone before what everybody has.
    pub fn held_by<'a>(&'a self, peer: &'a PeerId) -> impl Iterator<Item = (&'a What, &'a Who, Access)> {
        let mine = move |who: &Who| matches!(who, Who::Peer(id) if id == peer);
        let own = self.grants.iter().filter(move |((_, who), _)| mine(who));
        let shared = self.grants.iter().filter(move |((what, who), _)| {
            *who == Who::Any && !self.grants.contains_key(&(what.clone(), Who::Peer(peer.clone())))
        });
        own.chain(shared).map(|((what, who), access)| (what, who, *access))
    }

    /// The export whose capability `text` (`M#SECRET`) is, for `peer`, now.
    /// # Errors
    /// The first that applies: `NoCapability` (also for a wrong secret: nothing tells the two apart), `WrongPeer`,
    /// `Revoked`, `Expired`, `UsedUp`, `Unbound`.
    pub fn capability(&self, text: &str, peer: &PeerId, now_ms: u64) -> Result<ExportId, Error> {
        let (number_text, secret) = text.split_once('#').ok_or(Error::NoCapability)?;
        let id = number(number_text).ok_or(Error::NoCapability)?;
        // Compared always, so that the time does not tell which exports there are.
        let nobodys = Secret([0; 16]);
        let live = self.exports.get(&id);
        let good = live.map_or(&nobodys, |e| &e.secret).is(secret.as_bytes());
        let gone = self.gone.iter().find(|g| g.id == id && g.secret.is(secret.as_bytes()));
        let others = |to: &Option<PeerId>| to.as_ref().is_some_and(|to| to != peer);
        match (live.filter(|_| good), gone) {
            (None, None) => Err(Error::NoCapability),
            (None, Some(gone)) if others(&gone.to) => Err(Error::WrongPeer { id }),
            (None, Some(_)) => Err(Error::Revoked { id }),
            (Some(e), _) if others(&e.to) => Err(Error::WrongPeer { id }),
            (Some(e), _) if now_ms >= e.ends_ms() => Err(Error::Expired { id }),
            (Some(e), _) if e.uses_left() == Some(0) => Err(Error::UsedUp { id, uses: e.uses.unwrap_or(0) }),
            (Some(e), _) if e.shown.is_none() => Err(Error::Unbound { id }),
            (Some(_), _) => Ok(id),
        }
    }
}

fn number(text: &str) -> Option<ExportId> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (canonical && digits).then(|| text.parse().ok()).flatten().map(ExportId)
}

#[cfg(test)]
mod tests {
    use fs_ninep::Kind;

    use super::*;
    use crate::verbs;

    const ANN: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
    const BOB: &str = "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV";

    struct World {
        state: State,
        now_ms: u64,
        secrets: std::cell::Cell<u8>,
    }

    impl World {
        fn new() -> World {
            World { state: State::default(), now_ms: 0, secrets: std::cell::Cell::new(0) }
        }

        /// Writes `lines` (split at `;`) to `ctl`, or to `N/ctl`; `N/` makes export N when it is not there.
        fn write(&mut self, file: &str, lines: &str) -> Result<(), Error> {
            let names = |name: &str| match name {
                "ann" => Some(PeerId::new(ANN)),
                "bob" => Some(PeerId::new(BOB)),
                _ => None,
            };
            let place = |path: &str| match path {
                "/gone" => Err(Error::NotDir { path: path.into() }),
                path if path.starts_with('/') => Ok(PathBuf::from(path)),
                path => Err(Error::Relative { path: path.into() }),
            };
            let secret = || {
                self.secrets.set(self.secrets.get().wrapping_add(1));
                Ok(Secret([self.secrets.get(); 16]))
            };
            let context = Context {
                trees: &["cpu".into(), "chat".into()],
                names: &names,
                place: &place,
                secret: &secret,
                now_ms: self.now_ms,
            };
            let mut next = self.state.clone();
            for line in lines.split(';') {
                let words = fs_tree::words(line).unwrap();
                match file.strip_suffix("/ctl") {
                    None if line == "clone" => next.make(&context).map(drop)?,
                    None => next.obey(&verbs::parse(&words)?, &context)?,
                    Some(n) => next.obey_export(number(n).unwrap(), &verbs::parse_export(&words)?, &context)?,
                }
            }
            self.state = next;
            Ok(())
        }

        /// `FILE < LINES`, and what comes of it: `ok` or part of the refusal; then the grants as `who what access`.
        fn check(&mut self, file: &str, lines: &str, want: &str, grants: &str) {
            let got = match self.write(file, lines) {
                Ok(()) => "ok".to_owned(),
                Err(e) => format!("{:?} {e}", e.kind()),
            };
            assert!(got.contains(want), "{lines}: {got}");
            let line = |((what, who), access): (&(What, Who), &Access)| {
                let name = self.state.name_of(what).unwrap();
                format!("{who} {name} {access}").replace(ANN, "ann").replace(BOB, "bob")
            };
            let mut held: Vec<String> = self.state.grants.iter().map(line).collect();
            held.sort();
            assert_eq!(held.join(", "), grants, "{lines}");
        }

        fn claim(&self, text: &str, peer: &str) -> String {
            match self.state.capability(text, &PeerId::new(peer), self.now_ms) {
                Ok(id) => format!("ok {id}"),
                Err(e) => format!("{:?} {e}", e.kind()),
            }
        }
    }

    #[test]
    fn grants_of_trees_and_directories() {
        let mut w = World::new();
        w.check("ctl", "grant ann cpu", "Invalid cpu is neither one of this node's trees (/cpu /chat) nor", "");
        w.check("ctl", "grant carl /cpu", "NotFound no peer is known as carl, and it is no peer id; dial it first", "");
        w.check("ctl", "grant ann /", "Invalid", "");
        w.check("ctl", "grant ann /cpu/ann", "Invalid a tree is granted whole; write \"grant WHO /cpu\"", "");
        w.check("ctl", "grant ann /cpu max=1", "Invalid max counts the bytes of a directory", "");
        w.check("ctl", "grant ann /gone", "NotDir", "");
        w.check("ctl", "grant ann /cpu;grant bob /x/y;grant carl /cpu", "NotFound", "");
        w.check("ctl", "grant ann /cpu", "ok", "ann cpu rw");
        w.check("ctl", "grant ann /cpu ro", "ok", "ann cpu ro");
        w.check("ctl", &format!("grant {BOB} /chat/"), "ok", "ann cpu ro, bob chat rw");
        w.check("ctl", "grant any /cpu ro", "ok", "ann cpu ro, any cpu ro, bob chat rw");
        w.check("ctl", "revoke bob /cpu", "NotFound", "ann cpu ro, any cpu ro, bob chat rw");
        w.check("ctl", "revoke ann /cpu;revoke any /cpu;revoke bob /chat", "ok", "");
        w.check("ctl", "grant ann /home/photos max=5", "ok", "ann photos ro");
        assert_eq!(w.state.exports[&ExportId(0)].max, Some(5));
        w.check("ctl", "grant bob /home/photos rw", "ok", "ann photos ro, bob photos rw");
        assert_eq!(w.state.exports.len(), 1, "one directory, one export");
        w.check("ctl", "grant bob /photos ro", "ok", "ann photos ro, bob photos ro");
        w.check(
            "ctl",
            "grant ann /other/photos",
            "Exists /photos is shown by export 0 already",
            "ann photos ro, bob photos ro",
        );
        w.check(
            "ctl",
            "grant ann /host/cpu",
            "Exists /cpu is one of this node's own trees",
            "ann photos ro, bob photos ro",
        );
        assert_eq!(w.state.exports.len(), 1, "a refused grant leaves no export");
        w.check(
            "ctl",
            "revoke any /photos",
            "NotFound any does not hold /photos; read grants",
            "ann photos ro, bob photos ro",
        );
        w.check("ctl", "revoke ann /home/photos", "ok", "bob photos ro");
        w.check("ctl", "revoke bob /photos", "ok", "");
        assert!(w.state.exports.is_empty(), "an export that a grant made goes with its last");
    }

    #[test]
    fn an_exports_ctl() {
        let mut w = World::new();
        w.check("ctl", "clone", "ok", "");
        for (line, want) in [
            ("grant ann ro", "Invalid export 0 shows nothing yet; write \"bind PATH /NAME\""),
            ("bind photos /p", "Invalid photos: write the absolute path"),
            ("bind /gone /p", "NotDir"),
            ("bind /d p", "Invalid \"p\" is no name to show a directory by; write one element, as /photos"),
            ("bind /d /", "Invalid"),
            ("bind /d /a/b", "Invalid"),
            ("bind /d /..", "Invalid"),
            ("bind /d '/a\tb'", "Invalid"),
            ("bind '/d\u{1b}' /p", "Invalid"),
            ("bind /d /cpu", "Exists /cpu is one of this node's own trees"),
            ("to carl", "NotFound no peer is known as carl"),
            ("revoke ann", "NotFound"),
            ("bind /d /p;free;ro", "Invalid \"free\" ends the export"),
            ("bind /d /p;grant ann;grant carl", "NotFound"),
            ("bind /d /p;max 7;ro;to ann;uses 2;ttl 9", "ok"),
            ("bind /e /q", "Exists export 0 shows /d already; open clone to make another"),
        ] {
            w.check("0/ctl", line, want, "");
        }
        let e = &w.state.exports[&ExportId(0)];
        assert_eq!(e.shown, Some(Shown { path: "/d".into(), name: "p".into() }));
        assert_eq!((e.max, e.access, e.uses_left(), e.ends_ms()), (Some(7), Access::Ro, Some(2), 9000));
        w.check("0/ctl", "grant ann;grant any rw", "ok", "ann p ro, any p rw");
        w.check("ctl", "clone", "ok", "ann p ro, any p rw");
        w.check("1/ctl", "bind /x /p;grant bob", "Exists /p is shown by export 0 already", "ann p ro, any p rw");
        w.check("1/ctl", "bind /x /p", "ok", "ann p ro, any p rw");
        w.check("0/ctl", "revoke ann", "ok", "any p rw");
        w.check("0/ctl", "revoke", "ok", "");
        w.check("1/ctl", "grant bob", "ok", "bob p ro");
        w.check("ctl", "revoke bob /p", "ok", "");
        assert!(w.state.exports.contains_key(&ExportId(1)), "one that clone made stays");
        w.check("1/ctl", "free", "ok", "");
        assert!(!w.state.exports.contains_key(&ExportId(1)));
    }

    #[test]
    fn what_a_capability_is_good_for() {
        let mut w = World::new();
        w.check("ctl", "clone", "ok", "");
        let s1 = "01".repeat(16);
        let cap = format!("0#{s1}");
        assert!(w.claim(&cap, ANN).starts_with("Invalid export 0 shows nothing yet"));
        w.check("0/ctl", "bind /d /p", "ok", "");
        let unknown = w.claim(&format!("7#{s1}"), ANN);
        assert!(unknown.starts_with("NotFound no such capability"));
        for wrong in [
            format!("0#{}", "02".repeat(16)),
            format!("0#{}", "00".repeat(16)),
            format!("0#{}", &s1[2..]),
            format!("0#{s1}0"),
            format!("00#{s1}"),
            format!("+0#{s1}"),
            "0#".to_owned(),
            "0".to_owned(),
            "#".to_owned(),
            format!("99999999999999999999#{s1}"),
            format!("0##{s1}"),
        ] {
            assert_eq!(w.claim(&wrong, ANN), unknown, "{wrong}");
        }
        assert_eq!((w.claim(&cap, ANN), w.claim(&cap, BOB)), ("ok 0".into(), "ok 0".into()));
        w.now_ms = BEARER_TTL_S * 1000 - 1;
        assert_eq!(w.claim(&cap, ANN), "ok 0");
        w.now_ms += 1;
        assert!(w.claim(&cap, ANN).starts_with("Expired the capability of export 0 has expired"));
        w.check("0/ctl", "to ann", "ok", "");
        assert_eq!(w.claim(&cap, ANN), "ok 0", "for one peer it is good for longer");
        assert!(w.claim(&cap, BOB).starts_with("Denied the capability of export 0 is for another peer"));
        w.now_ms = BOUND_TTL_S * 1000;
        assert!(w.claim(&cap, ANN).starts_with("Expired"));
        assert!(w.claim(&cap, BOB).starts_with("Denied"), "another peer is told no more");
        w.check("0/ctl", "ttl 10;uses 2", "ok", "");
        w.state.exports[&ExportId(0)].used.fetch_add(1, Ordering::Relaxed);
        assert_eq!(w.claim(&cap, ANN), "ok 0");
        w.state.exports[&ExportId(0)].used.fetch_add(1, Ordering::Relaxed);
        assert!(w.claim(&cap, ANN).starts_with("Exhausted the capability of export 0 is used up after 2 uses"));
        w.now_ms += 10_000;
        assert!(w.claim(&cap, ANN).starts_with("Expired"), "the time is told before the uses");
        w.check("0/ctl", "revoke", "ok", "");
        assert!(w.claim(&cap, ANN).starts_with("Expired export 0 was taken back by its owner"));
        assert!(w.claim(&cap, BOB).starts_with("Denied"));
        let next = format!("0#{}", "02".repeat(16));
        assert_eq!(w.claim(&next, ANN), "ok 0", "revoke makes a new one");
        w.check("0/ctl", "free", "ok", "");
        assert!(w.claim(&next, ANN).starts_with("Expired export 0 was taken back"));
        assert!(w.claim(&cap, ANN).starts_with("Expired export 0 was taken back"));
        assert_eq!(w.claim(&format!("0#{}", "03".repeat(16)), ANN), unknown);
    }

    #[test]
    fn tables_are_bounded() {
        let mut w = World::new();
        for _ in 0..EXPORTS_MAX {
            w.write("ctl", "clone").unwrap();
        }
        assert_eq!(w.write("ctl", "clone").unwrap_err().kind(), Kind::Exhausted);
        for n in 0..GRANTS_MAX {
            let who = Who::Peer(PeerId::new(n.to_string()));
            w.state.grant(What::Tree("cpu".into()), who, Access::Ro).unwrap();
        }
        assert_eq!(w.write("ctl", "grant ann /cpu").unwrap_err().kind(), Kind::Exhausted);
        let again = w.state.grant(What::Tree("cpu".into()), Who::Peer(PeerId::new("3")), Access::Rw);
        assert!(again.is_ok(), "a grant that stands can change");
        for _ in 0..REVOKED_MAX + 5 {
            w.write("0/ctl", "revoke").unwrap_or_else(|e| panic!("{e}"));
        }
        assert_eq!(w.state.gone.len(), REVOKED_MAX);
    }

    #[test]
    fn ids() {
        for (text, want) in [
            (ANN, true),
            ("QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC", true),
            ("ann", false),
            ("", false),
            (&ANN[1..], false),
            ("111111111111111111111111111111111111111111111111111111111111111111111111111111", false),
        ] {
            assert_eq!(is_peer_id(text), want, "{text}");
        }
    }
}
