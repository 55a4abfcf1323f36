//! The name space of a job: what stands in it from the start, and what a `mount` line of its `ns` means.

use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use fs_ninep::{Call, Caller, File, Kind, Name, PeerId, Remote, Tree};
use ns::{Namespace, Resolve};

use crate::device::Devices;
use crate::readonly::ReadOnly;
use crate::scratch::{Scratch, Total};
use crate::{Error, Result};

/// What every job finds at its start.
const START: &str = "bind -c '#tmp' /tmp\nbind '#dev' /dev\n";

/// A job's name space.
pub struct Space {
    ns: Mutex<Arc<Namespace>>,
    /// What it was, once it is closed.
    closed: OnceLock<String>,
    /// What stands at `/tmp`.
    pub scratch: Arc<Scratch>,
}

impl Space {
    /// The name space of a new job, with `disk` bytes of scratch space.
    /// # Errors
    /// None but of a name space that cannot be made.
    pub async fn new(remote: Arc<dyn Remote>, disk: u64, total: Total) -> fs_ninep::Result<Space> {
        static DEVICES: LazyLock<Arc<dyn Tree>> = LazyLock::new(|| fs_tree::serve(Arc::new(Devices)));
        let devices = DEVICES.attach(&Caller::owner(0), "").await?;
        let (scratch, tmp) = Scratch::root(disk, total);
        let devices = vec![("tmp".into(), tmp), ("dev".into(), devices)];
        let ns = Namespace::new(devices, Arc::new(Mounts { remote }));
        ns.apply(START).await?;
        Ok(Space { ns: Mutex::new(ns), closed: OnceLock::new(), scratch })
    }

    /// The name space itself; an empty one once it is closed.
    pub fn ns(&self) -> Arc<Namespace> {
        self.ns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name space as text, as it is or was when it was closed.
    pub fn text(&self) -> String {
        self.closed.get().cloned().unwrap_or_else(|| self.ns().text())
    }

    /// Lets go of everything in it: mounts, and what is in the scratch space.
    pub fn close(&self) {
        let _ = self.closed.set(self.ns().text());
        *self.ns.lock().unwrap_or_else(PoisonError::into_inner) = Namespace::new(Vec::new(), Arc::new(Nothing));
    }

    /// Whether anything is mounted in it.
    pub fn mounted(&self) -> bool {
        !self.mount_points().is_empty()
    }

    /// Whether no mount answers: asks each, through the name space, which calls a peer again that is back. What is asked
    /// is statfs, for the attributes of a peer's root are told without asking the peer.
    pub async fn lost(&self) -> bool {
        let root = self.ns().root();
        for names in self.mount_points() {
            let Ok(mount) = root.walk(&names).await.end else { continue };
            if mount.statfs().await.is_ok() {
                return false;
            }
        }
        true
    }

    fn mount_points(&self) -> Vec<Vec<Name>> {
        let point = |line: &str| {
            let words = fs_tree::words(line).ok()?;
            let mut args = words.iter().skip(1).filter(|w| !w.starts_with('-'));
            let path = args.nth(1).filter(|_| words.first().is_some_and(|w| w == "mount"))?;
            Name::path(path).ok()
        };
        self.text().lines().filter_map(point).collect()
    }
}

/// What a closed name space mounts.
struct Nothing;

impl Resolve for Nothing {
    fn mount<'a>(&'a self, _source: &'a str, _spec: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(std::future::ready(Err(Kind::Stale.into())))
    }
}

/// Follows the capabilities that a job mounts.
struct Mounts {
    remote: Arc<dyn Remote>,
}

/// The peer and the attach name of a capability `ipos:PEER/M#SECRET`.
fn parse(source: &str) -> Result<(PeerId, String)> {
    let bad = || {
        let shown = source.split_once('#').map_or(source.to_owned(), |(open, _)| format!("{open}#*"));
        Error::Source { source_text: shown }
    };
    let (peer, rest) = source.strip_prefix("ipos:").and_then(|s| s.split_once('/')).ok_or_else(bad)?;
    let (number, secret) = rest.split_once('#').ok_or_else(bad)?;
    if peer.is_empty() || number.is_empty() || secret.is_empty() || rest.contains('/') {
        return Err(bad());
    }
    Ok((PeerId::new(peer), format!("cap/{rest}")))
}

impl Resolve for Mounts {
    fn mount<'a>(&'a self, source: &'a str, spec: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let (peer, aname) = parse(source)?;
            let readonly = match spec {
                "" | "rw" => false,
                "ro" => true,
                mode => return Err(Error::Mode { mode: mode.to_owned() }.into()),
            };
            let file = self.remote.attach(&peer, &aname).await?;
            let file: Arc<dyn File> = if readonly { Arc::new(ReadOnly(file)) } else { file };
            Ok(file)
        })
    }
}

/// What a job's process attaches to: its root, or the program it is to run.
pub struct JobTree {
    /// The directory of its name space that is its root.
    pub root: Arc<dyn File>,
    /// The program's file.
    pub program: Arc<dyn File>,
}

impl Tree for JobTree {
    fn attach<'a>(&'a self, _caller: &'a Caller, aname: &'a str) -> Call<'a, Arc<dyn File>> {
        let file = if aname == "program" { &self.program } else { &self.root };
        Box::pin(std::future::ready(Ok(file.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_names_a_peer_and_an_attach_name() {
        for (source, expected) in [
            ("ipos:12D3KooWx/7#abc", Some("12D3KooWx cap/7#abc")),
            ("ipos:12D3KooWx/7#a#b", Some("12D3KooWx cap/7#a#b")),
            ("ipos:12D3KooWx/7", None),
            ("ipos:12D3KooWx/7#", None),
            ("ipos:12D3KooWx#abc", None),
            ("ipos:/7#abc", None),
            ("ipos:x/#abc", None),
            ("ipos:x/7/8#abc", None),
            ("ipos:x/7#ab/../c", None),
            ("srv/ann", None),
            ("", None),
        ] {
            let got = parse(source).map(|(peer, aname)| format!("{peer} {aname}"));
            match expected {
                Some(text) => assert_eq!(got.unwrap(), text),
                None => {
                    let text = got.unwrap_err().to_string();
                    assert!(!text.contains("abc"), "{source}: the secret is in the error: {text}");
                }
            }
        }
    }
}
