//! The saved table: names, their peers and addresses, and the filter rules. See "Files" in peers(4).
//!
//! Text, one record a line, fields separated by tabs: `peer NAME ID ADDR…` and `filter allow|deny PATTERN`. It is replaced
//! whole or not at all; a file that holds anything else is refused by name and left alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use fs_ninep::{Filter, PeerId};

use crate::Error;

/// Names kept.
pub const NAMES_MAX: usize = 1024;
/// Bytes of a name.
pub const NAME_BYTES_MAX: usize = 64;
/// Addresses saved of a peer.
pub const ADDRS_MAX: usize = 8;
/// Bytes of the saved table that are read; one larger is not ours.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) names: BTreeMap<String, Entry>,
    pub(crate) filters: Vec<Filter>,
}

/// A named peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) peer: PeerId,
    pub(crate) addrs: Vec<String>,
}

impl Table {
    pub(crate) fn load(path: &Path) -> Result<Table, Error> {
        let disk = |e: std::io::Error| Error::Disk { path: path.into(), why: e.to_string() };
        match fs::metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Table::default()),
            Err(e) => return Err(disk(e)),
            Ok(m) if m.len() > FILE_BYTES_MAX => {
                return Err(Error::Table {
                    path: path.into(),
                    line: 0,
                    why: "it is too large to be a table of peers".into(),
                });
            }
            Ok(_) => {}
        }
        let bytes = fs::read(path).map_err(disk)?;
        let fail = |line, why: String| Error::Table { path: path.into(), line, why };
        let text = String::from_utf8(bytes).map_err(|_| fail(0, "it is no text".into()))?;
        let mut table = Table::default();
        for (n, line) in text.lines().enumerate() {
            table.read(line).map_err(|why| fail(n + 1, why))?;
        }
        Ok(table)
    }

    fn read(&mut self, line: &str) -> Result<(), String> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["peer", name, id, ref addrs @ ..] => {
                check_name(name).map_err(|e| e.to_string())?;
                if self.names.len() >= NAMES_MAX || addrs.len() > ADDRS_MAX {
                    return Err("more than is ever saved".into());
                }
                let peer = peer_id(id).map_err(|e| e.to_string())?;
                let entry = Entry { peer, addrs: addrs.iter().map(|a| a.to_string()).collect() };
                match self.names.insert(name.into(), entry) {
                    None => Ok(()),
                    Some(_) => Err(format!("{name} stands there twice")),
                }
            }
            ["filter", word @ ("allow" | "deny"), pattern] => {
                self.filters.push(Filter { allow: word == "allow", pattern: pattern.into() });
                Ok(())
            }
            _ => Err(format!("{line:?} is no record of this table")),
        }
    }

    /// The table as text. An address that would not be read back as one field is left out: a peer may have sent it.
    pub(crate) fn text(&self) -> String {
        let plain = |a: &&String| !a.is_empty() && !a.chars().any(|c| c.is_whitespace() || c.is_control());
        let names = self.names.iter().map(|(name, e)| {
            let addrs: String = e.addrs.iter().filter(plain).map(|a| format!("\t{a}")).collect();
            format!("peer\t{name}\t{}{addrs}\n", e.peer)
        });
        names.chain(self.filters.iter().map(|f| format!("filter\t{}\t{}\n", word(f.allow), f.pattern))).collect()
    }

    /// Replaces the file at `path`; durable when it returns. Blocks on the disk.
    pub(crate) fn save(text: &str, path: &Path) -> Result<(), Error> {
        let disk = |e: std::io::Error| Error::Disk { path: path.into(), why: e.to_string() };
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh).map_err(disk)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(disk)?;
        fs::rename(&fresh, path).map_err(disk)?;
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|d| d.sync_all()).map_err(disk)
    }

    /// The name of `peer`.
    pub(crate) fn name_of(&self, peer: &PeerId) -> Option<&str> {
        self.names.iter().find(|(_, e)| e.peer == *peer).map(|(name, _)| name.as_str())
    }
}

/// A filter rule's first word.
pub(crate) fn word(allow: bool) -> &'static str {
    if allow { "allow" } else { "deny" }
}

/// Refuses what cannot be a name of a peer.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let why = match name {
        "" => "it is empty",
        "." | ".." => "it means a directory",
        "ctl" | "error" | "event" | "near" | "any" => "a file has that name",
        _ if name.len() > NAME_BYTES_MAX => "it is longer than 64 bytes",
        _ if name.starts_with('-') => "it looks like an option",
        _ if !name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) => {
            "only letters, digits, - _ and . may stand in one"
        }
        _ if peer_id(name).is_ok() => "it is a peer id",
        _ => return Ok(()),
    };
    Err(Error::Name { name: name.into(), why })
}

/// Reads a peer id: base58 of an ed25519 key, as this network has them.
pub(crate) fn peer_id(text: &str) -> Result<PeerId, Error> {
    let base58 = |c: char| c.is_ascii_alphanumeric() && !"0OIl".contains(c);
    if text.len() == 52 && text.starts_with("12D3KooW") && text.chars().all(base58) {
        Ok(PeerId::new(text))
    } else {
        Err(Error::PeerId { id: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn a_table_survives_its_file_and_damage_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers");
        assert_eq!(Table::load(&path).unwrap(), Table::default());
        let good = format!(
            "peer\tann\t{ID}\t/ip4/192.0.2.7/tcp/1\t/ip4/192.0.2.7/udp/1/quic-v1\nfilter\tdeny\t192.0.2.0/24\n"
        );
        Table::save(&good, &path).unwrap();
        let table = Table::load(&path).unwrap();
        assert_eq!((table.text(), table.name_of(&PeerId::new(ID))), (good.clone(), Some("ann")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        for (bad, line, why) in [
            ("moon\n", 1, "no record"),
            ("peer\tann\n", 1, "no record"),
            ("peer\tann\tmoon\n", 1, "no peer id"),
            ("peer\ta/b\tID\n", 1, "cannot be a name"),
            ("peer\tann\tID\npeer\tann\tID\n", 2, "twice"),
            ("filter\tperhaps\t*\n", 1, "no record"),
            ("peer\tann\tID\n\n", 2, "no record"),
            ("peer\tann\tID\ta\ta\ta\ta\ta\ta\ta\ta\ta\n", 1, "more than is ever saved"),
        ] {
            let bad = bad.replace("ID", ID);
            fs::write(&path, &bad).unwrap();
            let e = Table::load(&path).unwrap_err().to_string();
            assert!(
                e.contains(&format!("line {line}:")) && e.contains(why) && e.contains(path.to_str().unwrap()),
                "{e}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(Table::load(&path).unwrap_err().to_string().contains("no text"));
    }

    #[test]
    fn an_address_cannot_pass_for_a_record() {
        let addrs =
            ["/dns/a\nfilter\tallow\t*/tcp/1", "/dns/a\tb/tcp/1", "", "/ip4/192.0.2.7/tcp/1"].map(String::from).into();
        let names = [("ann".into(), Entry { peer: PeerId::new(ID), addrs })].into();
        assert_eq!(Table { names, filters: Vec::new() }.text(), format!("peer\tann\t{ID}\t/ip4/192.0.2.7/tcp/1\n"));
    }

    #[test]
    fn a_failed_save_leaves_the_old_table() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers");
        Table::save("filter\tdeny\t*\n", &path).unwrap();
        // The place of the new file is taken by a directory: it cannot be written.
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(Table::save("", &path).is_err());
        assert_eq!(Table::load(&path).unwrap().filters.len(), 1);
    }

    #[test]
    fn names() {
        for (name, good) in [
            ("ann", true),
            ("ann-2.home_x", true),
            ("\u{e4}nn", true),
            ("", false),
            (".", false),
            ("..", false),
            ("a b", false),
            ("a/b", false),
            ("a\tb", false),
            ("ctl", false),
            ("near", false),
            ("-a", false),
            ("a'b", false),
            ("a%b", false),
            (ID, false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        }
        assert!(
            check_name(&"x".repeat(NAME_BYTES_MAX)).is_ok() && check_name(&"x".repeat(NAME_BYTES_MAX + 1)).is_err()
        );
    }
}
