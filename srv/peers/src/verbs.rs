//! The commands of peers/ctl and of a peer's own ctl.
//!
//! All of one write or none: every line is read and judged first, then the network is asked, and the table of names and
//! rules changes last, at once, when it is on disk. What a refused write has connected stays connected.

use fs_ninep::{Filter, PeerId};
use fs_tree::Line;

use crate::table::{ADDRS_MAX, Entry, NAMES_MAX, Table, check_name, peer_id};
use crate::{Error, Inner};

/// Filter rules kept.
pub const RULES_MAX: usize = 256;

const VERBS: &str = "dial hangup name forget find bootstrap filter";
const PEER_VERBS: &str = "dial hangup name forget";

/// One command, its words read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Connect, and name who is there.
    Dial { addr: String, name: Option<String> },
    /// Connect to a peer that is known.
    Redial { who: String },
    /// End the session and every connection.
    Hangup { who: String },
    /// Give a peer this name in place of another.
    Name { who: String, name: String },
    /// Drop a name.
    Forget { who: String },
    /// Ask the DHT for a peer's addresses.
    Find { peer: PeerId },
    /// Join the DHT through a node.
    Bootstrap { addr: String },
    /// Add a rule at the end.
    Filter { allow: bool, pattern: String },
    /// Take the rules of this pattern away.
    Unfilter { pattern: String },
}

/// Reads a line of peers/ctl.
pub(crate) fn read(line: &Line) -> Result<Verb, Error> {
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    let owned = String::from;
    Ok(match words[..] {
        ["dial", addr] => Verb::Dial { addr: owned(addr), name: None },
        ["dial", addr, name] => Verb::Dial { addr: owned(addr), name: Some(named(name)?) },
        ["hangup", who] => Verb::Hangup { who: owned(who) },
        ["name", who, name] => Verb::Name { who: owned(who), name: named(name)? },
        ["forget", who] => Verb::Forget { who: owned(who) },
        ["find", id] => Verb::Find { peer: peer_id(id)? },
        ["bootstrap", addr] => Verb::Bootstrap { addr: owned(addr) },
        ["filter", word @ ("allow" | "deny"), pattern] => {
            Verb::Filter { allow: word == "allow", pattern: owned(pattern) }
        }
        ["filter", "drop", pattern] => Verb::Unfilter { pattern: owned(pattern) },
        _ => return Err(usage(line, VERBS)),
    })
}

/// Reads a line of the ctl of the peer `who`.
pub(crate) fn read_of(who: &str, line: &Line) -> Result<Verb, Error> {
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    let who = who.to_owned();
    Ok(match words[..] {
        ["dial"] => Verb::Redial { who },
        ["hangup"] => Verb::Hangup { who },
        ["name", name] => Verb::Name { who, name: named(name)? },
        ["forget"] => Verb::Forget { who },
        _ => return Err(usage(line, PEER_VERBS)),
    })
}

fn named(name: &str) -> Result<String, Error> {
    check_name(name).map(|()| name.into())
}

fn usage(line: &Line, known: &'static str) -> Error {
    let own = known == PEER_VERBS;
    let usage = match line.words[0].as_str() {
        "dial" if own => "dial",
        "dial" => "dial MULTIADDR [NAME]",
        "hangup" if own => "hangup",
        "hangup" => "hangup NAME",
        "name" if own => "name NAME",
        "name" => "name PEER NAME",
        "forget" if own => "forget",
        "forget" => "forget NAME",
        "find" if !own => "find ID",
        "bootstrap" if !own => "bootstrap MULTIADDR",
        "filter" if !own => "filter allow|deny|drop PATTERN",
        verb => return Error::Verb { verb: verb.into(), known },
    };
    Error::Usage { text: line.text.trim().into(), usage }
}

impl Inner {
    /// Obeys the commands of one write.
    pub(crate) async fn obey(&self, verbs: &[Verb]) -> fs_ninep::Result<()> {
        let mut scratch = self.table().clone();
        for verb in verbs {
            self.judge(verb, &mut scratch)?;
        }
        let mut found = Vec::with_capacity(verbs.len());
        for verb in verbs {
            found.push(self.ask(verb).await?);
        }
        let _turn = self.writing.lock().await;
        let mut table = self.table().clone();
        for (verb, peer) in verbs.iter().zip(found) {
            self.change(verb, peer.as_ref(), &mut table)?;
        }
        self.commit(table).await
    }

    /// Refuses, before anything is done, what can be known to fail.
    fn judge(&self, verb: &Verb, scratch: &mut Table) -> Result<(), Error> {
        match verb {
            Verb::Dial { addr, .. } => match addr.rsplit_once("/p2p/").map(|(_, id)| peer_id(id)).transpose()? {
                Some(peer) => self.change(verb, Some(&peer), scratch),
                None => Ok(()),
            },
            Verb::Redial { who } | Verb::Hangup { who } => self.resolve_in(who, scratch).map(drop),
            _ => self.change(verb, None, scratch),
        }
    }

    /// What the network has to do for `verb`; the peer that a dial found.
    async fn ask(&self, verb: &Verb) -> fs_ninep::Result<Option<PeerId>> {
        match verb {
            Verb::Dial { addr, .. } => {
                let peer = self.transport.dial(addr).await?;
                self.peer(&peer).retry();
                return Ok(Some(peer));
            }
            Verb::Redial { who } => {
                let peer = self.resolve(who)?;
                self.peer(&peer).retry();
                self.session(&peer).await?;
            }
            Verb::Hangup { who } => {
                let peer = self.resolve(who)?;
                self.peer(&peer).hangup("the user hung up");
                self.transport.hangup(&peer).await?;
            }
            Verb::Find { peer } => drop(self.transport.find(peer).await?),
            Verb::Bootstrap { addr } => drop(self.transport.bootstrap(addr).await?),
            Verb::Name { .. } | Verb::Forget { .. } | Verb::Filter { .. } | Verb::Unfilter { .. } => {}
        }
        Ok(None)
    }

    /// What `verb` changes in the table.
    fn change(&self, verb: &Verb, found: Option<&PeerId>, table: &mut Table) -> Result<(), Error> {
        match verb {
            Verb::Dial { addr, name } => {
                let Some(peer) = found else { return Ok(()) };
                self.give_name(peer, name.as_deref(), table)?;
                let addr = if addr.contains("/p2p/") { addr.clone() } else { format!("{addr}/p2p/{peer}") };
                if let Some(entry) = table.names.values_mut().find(|e| e.peer == *peer) {
                    entry.addrs.retain(|a| *a != addr);
                    entry.addrs.insert(0, addr);
                    entry.addrs.truncate(ADDRS_MAX);
                }
                Ok(())
            }
            Verb::Name { who, name } => self.give_name(&self.resolve_in(who, table)?, Some(name), table),
            Verb::Forget { who } => {
                let peer = self.resolve_in(who, table)?;
                let unknown = || Error::Unknown { name: who.clone() };
                let name = table.name_of(&peer).map(String::from).ok_or_else(unknown)?;
                table.names.remove(&name);
                Ok(())
            }
            Verb::Filter { allow, pattern } => {
                table.filters.retain(|f| f.pattern != *pattern);
                if table.filters.len() >= RULES_MAX {
                    return Err(Error::Full { what: "filter rules", max: RULES_MAX });
                }
                table.filters.push(Filter { allow: *allow, pattern: pattern.clone() });
                Ok(())
            }
            Verb::Unfilter { pattern } => {
                let before = table.filters.len();
                table.filters.retain(|f| f.pattern != *pattern);
                if table.filters.len() == before { Err(Error::Rule { pattern: pattern.clone() }) } else { Ok(()) }
            }
            Verb::Redial { .. } | Verb::Hangup { .. } | Verb::Find { .. } | Verb::Bootstrap { .. } => Ok(()),
        }
    }

    /// Names `peer`: as told, else as it is named already, else by the end of its id.
    fn give_name(&self, peer: &PeerId, name: Option<&str>, table: &mut Table) -> Result<(), Error> {
        if *peer == self.transport.id() {
            return Err(Error::Own { what: peer.to_string() });
        }
        let old = table.name_of(peer).map(String::from);
        let name = match (name, &old) {
            (Some(name), _) => name.to_owned(),
            (None, Some(_)) => return Ok(()),
            (None, None) => default_name(peer, table),
        };
        if let Some(entry) = table.names.get(&name).filter(|e| e.peer != *peer) {
            return Err(Error::Taken { name, peer: entry.peer.clone() });
        }
        let entry = old.and_then(|old| table.names.remove(&old));
        if table.names.len() >= NAMES_MAX {
            return Err(Error::Full { what: "names of peers", max: NAMES_MAX });
        }
        let known = || self.transport.known(peer).into_iter().take(ADDRS_MAX).collect();
        table.names.insert(name, entry.unwrap_or_else(|| Entry { peer: peer.clone(), addrs: known() }));
        Ok(())
    }
}

/// The last eight characters of the id, as many more as it takes to be alone.
fn default_name(peer: &PeerId, table: &Table) -> String {
    let id = peer.as_str();
    let ends = (8..id.len()).map(|n| &id[id.len() - n..]);
    ends.into_iter().find(|end| !table.names.contains_key(*end)).unwrap_or(id).into()
}
