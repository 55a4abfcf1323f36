//! keys: the keys held and their files. One key a file, `NAME.key`; the form is in keys(4).
//!
//! A key file is complete or absent: it is written under another name, made durable, and then given its own name by a
//! link, which fails where the name is taken. So nothing here can replace a key. A file that is refused is not touched.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use fs_ninep::PeerId;
use zeroize::Zeroizing;

use crate::error::{Damage, Error};
use crate::keyfile::{check_owned, damaged, encode, hex, io_error, read, unhex, write_all};
use crate::peer::{peer_id, public_key};
use crate::verbs::Verb;

/// The name of the key that the node proves its identity with.
pub const NODE: &str = "node";
/// The most keys an agent holds, the node's included.
pub const KEYS_MAX: usize = 64;
/// The longest message that is signed or verified, in bytes. Of longer ones the hash is signed.
pub const MESSAGE_MAX: usize = 4096;
/// The longest name of a key, in bytes.
const NAME_MAX: usize = 32;
/// What is signed is this and then the message, so no signature made here is one in a protocol: those begin otherwise
/// (libp2p's with the name of what is signed, a ledger's with the head of its canonical form).
pub const SIGN_PREFIX: &[u8] = b"ipos keys sign 1\n";

/// The keys by name; [`NODE`] is always among them.
type Table = BTreeMap<String, Arc<SigningKey>>;

/// The keys and the directory that keeps them. Not `Debug`: a key must not be printed by accident.
pub struct Ring {
    dir: PathBuf,
    /// One writer at a time, over its waits for the disk; taken before `keys`, which nobody holds while waiting.
    writers: Mutex<()>,
    keys: Mutex<Table>,
}

impl Ring {
    /// Reads every key of `dir`; makes what is missing. See [`crate::Keys::open`].
    pub fn open(dir: &Path) -> Result<Ring, Error> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(io_error(dir, e)),
            _ => {}
        }
        check_owned(dir, &fs::metadata(dir).map_err(|e| io_error(dir, e))?, 0o700)?;
        let mut keys = Table::new();
        for entry in fs::read_dir(dir).map_err(|e| io_error(dir, e))? {
            let entry = entry.map_err(|e| io_error(dir, e))?;
            let file_name = entry.file_name();
            let path = entry.path();
            match file_name.to_str().and_then(|n| n.strip_suffix(".key")) {
                None if file_name.as_encoded_bytes().starts_with(NEW.as_bytes()) => {
                    // Half a key, of a start that was cut off before it got its name.
                    fs::remove_file(&path).map_err(|e| io_error(&path, e))?;
                }
                None => {}
                Some(name) if !name_ok(name) => return Err(damaged(&path, name, Damage::Name)),
                Some(name) => {
                    let key = read(&path, name)?;
                    keys.insert(name.to_owned(), Arc::new(key));
                }
            }
        }
        if keys.len() > KEYS_MAX {
            return Err(Error::Full);
        }
        let ring = Ring { dir: dir.to_owned(), writers: Mutex::default(), keys: Mutex::new(keys) };
        if !ring.table().contains_key(NODE) {
            let key = ring.make(NODE)?;
            ring.table().insert(NODE.to_owned(), key);
        }
        Ok(ring)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.keys.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn node(&self) -> Arc<SigningKey> {
        self.table()[NODE].clone()
    }

    /// The node's private half.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.node().to_bytes())
    }

    /// The node's peer id.
    pub fn peer_id(&self) -> PeerId {
        peer_id(self.node().verifying_key().as_bytes())
    }

    /// One line a key: name, algorithm, public key (hex), peer id.
    pub fn list(&self) -> String {
        let line = |(name, key): (&String, &Arc<SigningKey>)| {
            let public = key.verifying_key();
            format!("{name}\ted25519\t{}\t{}\n", hex(public.as_bytes()), peer_id(public.as_bytes()))
        };
        self.table().iter().map(line).collect()
    }

    /// Obeys all of `verbs` or none. Blocks on the disk.
    /// # Errors
    /// For the first line that fails: `Node`, `BadName`, `Twice`, `Exists` or `NotFound`, `Full`; then `Random`, `Io`.
    pub fn obey(&self, verbs: &[Verb]) -> Result<(), Error> {
        let _turn = self.writers.lock().unwrap_or_else(|e| e.into_inner());
        let keys = self.table().clone();
        check(&keys, verbs)?;
        let mut done = keys.clone();
        let mut made = Vec::new();
        let result = verbs.iter().try_for_each(|verb| match verb {
            Verb::New { name } => {
                done.insert(name.clone(), self.make(name)?);
                made.push(name);
                Ok(())
            }
            Verb::Delete { name } => {
                done.remove(name);
                Ok(())
            }
        });
        // Deletions are last, as they alone cannot be undone without the key.
        let mut gone = Vec::new();
        let result = result.and_then(|()| {
            keys.keys().filter(|name| !done.contains_key(*name)).try_for_each(|name| {
                let path = self.path(name);
                fs::remove_file(&path).map_err(|e| io_error(&path, e))?;
                gone.push(name.clone());
                Ok(())
            })
        });
        if let Err(e) = result {
            // What failed is told; what undoing it then meets is the same disk's fault.
            for name in made {
                let _ = fs::remove_file(self.path(name));
            }
            for name in gone {
                let _ = self.write(&name, &keys[&name]);
            }
            return Err(e);
        }
        *self.table() = done;
        Ok(())
    }

    /// The signature by key `name` of [`SIGN_PREFIX`] and `message`.
    /// # Errors
    /// `Long`, `NotFound`.
    pub fn sign(&self, name: &str, message: &[u8]) -> Result<[u8; 64], Error> {
        let framed = frame(message)?;
        let key = self.table().get(name).cloned().ok_or_else(|| Error::NotFound { name: name.to_owned() })?;
        Ok(key.sign(&framed).to_bytes())
    }

    /// Whether `signature` is what [`Ring::sign`] makes of `message` with the key `who`: a name of this agent's, a
    /// public key in hex, or a peer id.
    /// # Errors
    /// `Long`; `NotFound` where `who` is none of the three.
    pub fn verify(&self, who: &str, message: &[u8], signature: &[u8; 64]) -> Result<bool, Error> {
        let framed = frame(message)?;
        let held = self.table().get(who).map(|k| k.verifying_key());
        let given = || unhex(who)?.try_into().ok().or(None);
        let key = match held {
            Some(key) => key,
            None => {
                let bytes: [u8; 32] =
                    given().or_else(|| public_key(who)).ok_or_else(|| Error::NotFound { name: who.to_owned() })?;
                let Ok(key) = VerifyingKey::from_bytes(&bytes) else { return Ok(false) };
                key
            }
        };
        Ok(key.verify_strict(&framed, &Signature::from_bytes(signature)).is_ok())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    fn make(&self, name: &str) -> Result<Arc<SigningKey>, Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut seed[..]).map_err(Error::Random)?;
        let key = Arc::new(SigningKey::from_bytes(&seed));
        self.write(name, &key)?;
        Ok(key)
    }

    /// Writes the file of a key that has none; durable when it returns.
    fn write(&self, name: &str, key: &SigningKey) -> Result<(), Error> {
        let mut tail = [0; 8];
        getrandom::fill(&mut tail).map_err(Error::Random)?;
        let new = self.dir.join(format!("{NEW}{}", hex(&tail)));
        let path = self.path(name);
        let written = write_all(&new, &encode(key));
        // A link, not a rename: it fails where the name is taken.
        let linked = written.and_then(|()| fs::hard_link(&new, &path));
        let removed = fs::remove_file(&new);
        match linked.and(removed).and_then(|()| File::open(&self.dir)?.sync_all()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(Error::Exists { name: name.to_owned() }),
            Err(e) => Err(io_error(&path, e)),
        }
    }
}

/// How the name of a key file that is not finished begins.
const NEW: &str = ".new-";

fn frame(message: &[u8]) -> Result<Vec<u8>, Error> {
    match message.len() {
        0..=MESSAGE_MAX => Ok([SIGN_PREFIX, message].concat()),
        len => Err(Error::Long { len }),
    }
}

/// The refusals of `verbs`, in their order, before anything is done.
fn check(keys: &Table, verbs: &[Verb]) -> Result<(), Error> {
    let mut named = HashSet::new();
    let mut count = keys.len();
    for verb in verbs {
        let (Verb::New { name } | Verb::Delete { name }) = verb;
        let held = keys.contains_key(name);
        match verb {
            Verb::Delete { name } if name == NODE => return Err(Error::Node),
            _ if !name_ok(name) => return Err(Error::BadName { name: name.clone() }),
            _ if !named.insert(name) => return Err(Error::Twice { name: name.clone() }),
            Verb::New { .. } if held => return Err(Error::Exists { name: name.clone() }),
            Verb::Delete { .. } if !held => return Err(Error::NotFound { name: name.clone() }),
            Verb::New { .. } if count >= KEYS_MAX => return Err(Error::Full),
            Verb::New { .. } => count += 1,
            Verb::Delete { .. } => count -= 1,
        }
    }
    Ok(())
}

fn name_ok(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use fs_ninep::Kind;

    use super::*;
    use crate::verbs;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn first_start_makes_a_key_and_the_next_finds_it() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("keys");
        let first = Ring::open(&dir).unwrap();
        assert_eq!((mode(&dir), mode(&dir.join("node.key"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        let again = Ring::open(&dir).unwrap();
        assert_eq!((first.peer_id(), first.seed()), (again.peer_id(), again.seed()));
        assert_ne!(Ring::open(&home.path().join("other")).unwrap().peer_id(), first.peer_id());
    }

    #[test]
    fn what_cannot_be_trusted_is_refused_by_name_and_left_alone() {
        let flip = |at: usize| {
            move |path: &Path| {
                let mut text = fs::read(path).unwrap();
                text[at] = if text[at] == b'0' { b'1' } else { b'0' };
                fs::write(path, text).unwrap();
            }
        };
        type Harm = Box<dyn Fn(&Path)>;
        let cases: Vec<(Harm, &str)> = vec![
            (Box::new(|p| fs::write(p, "").unwrap()), "damaged: 0 bytes, a key file has 149; put a copy"),
            (Box::new(|p| fs::write(p, vec![b'x'; 148]).unwrap()), "damaged: 148 bytes"),
            (Box::new(|p| fs::write(p, vec![b'x'; 150]).unwrap()), "damaged: 150 bytes"),
            (Box::new(|p| fs::write(p, vec![0xff; 149]).unwrap()), "damaged: not the text of a key file"),
            (Box::new(flip(0)), "damaged: not the text of a key file"),
            (Box::new(flip(20)), "damaged: its public half does not belong"),
            (Box::new(flip(100)), "damaged: its public half does not belong"),
            (Box::new(flip(83)), "damaged: not the text of a key file"),
            (Box::new(flip(148)), "damaged: not the text of a key file"),
            (Box::new(|p| chmod(p, 0o640)), "mode is 0640, so others can get at the keys; type \"chmod 600 "),
            (Box::new(|p| chmod(p, 0o602)), "mode is 0602"),
            (
                Box::new(|p| chmod(p.parent().unwrap(), 0o755)),
                "mode is 0755, so others can get at the keys; type \"chmod 700 ",
            ),
            (
                Box::new(|p| {
                    fs::rename(p, p.with_extension("away")).unwrap();
                    std::os::unix::fs::symlink("node.away", p).unwrap();
                }),
                "damaged: not a plain file",
            ),
            (
                Box::new(|p| {
                    fs::remove_file(p).unwrap();
                    fs::create_dir(p).unwrap();
                }),
                "damaged: not a plain file",
            ),
            (
                Box::new(|p| {
                    fs::remove_file(p).unwrap();
                    nix::unistd::mkfifo(p, nix::sys::stat::Mode::S_IRUSR).unwrap();
                }),
                "damaged: not a plain file",
            ),
            (Box::new(|p| fs::rename(p, p.with_file_name("No.key")).unwrap()), "damaged: its name cannot name a key"),
        ];
        for (harm, want) in cases {
            let home = tempfile::tempdir().unwrap();
            Ring::open(&home.path().join("keys")).unwrap();
            let path = home.path().join("keys/node.key");
            harm(&path);
            // Not read through a FIFO, which would wait for a writer.
            let content =
                || fs::symlink_metadata(&path).ok().filter(|m| m.is_file()).and_then(|_| fs::read(&path).ok());
            let before = content();
            let text = Ring::open(&home.path().join("keys")).err().unwrap().to_string();
            assert!(text.contains(want), "{text}");
            assert!(text.contains(&*home.path().to_string_lossy()), "{text}");
            assert_eq!(content(), before, "{want}");
        }
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let me = nix::unistd::geteuid();
        // Root gives a file away; another user looks at one of root's.
        let path = if me.is_root() {
            let path = home.path().join("node.key");
            fs::write(&path, "").unwrap();
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            path
        } else {
            PathBuf::from("/etc/passwd")
        };
        let e = check_owned(&path, &fs::metadata(&path).unwrap(), 0o600).unwrap_err();
        assert!(matches!(e, Error::Foreign { .. }), "{e}");
        assert!(e.to_string().ends_with(&format!("or type \"chown {me} {}\"", path.display())), "{e}");
    }

    #[test]
    fn half_a_key_of_a_start_cut_off_is_swept() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(".new-0011223344556677"), "ipos key 1 ed").unwrap();
        chmod(home.path(), 0o700);
        Ring::open(home.path()).unwrap();
        let names: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["node.key"]);
    }

    /// A write to ctl, then what comes of it: `ok` or part of the refusal, then the names held.
    fn check(ring: &Ring, text: &str, want: &str, names: &str) {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let done = text.split(';').map(|line| verbs::parse(&words(line))).collect::<Result<Vec<_>, _>>();
        let got = done.and_then(|verbs| ring.obey(&verbs));
        let got = got.map_or_else(|e| format!("{:?} {e}", e.kind()), |()| "ok".to_owned());
        assert!(got.contains(want), "{text}: {got}");
        let held: Vec<String> = ring.table().keys().cloned().collect();
        assert_eq!(held.join(" "), names, "{text}");
        let mut files: Vec<String> =
            fs::read_dir(&ring.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files.join(" "), held.iter().map(|n| format!("{n}.key")).collect::<Vec<_>>().join(" "), "{text}");
    }

    #[test]
    fn keys_come_and_go_all_or_none() {
        let home = tempfile::tempdir().unwrap();
        let ring = Ring::open(&home.path().join("keys")).unwrap();
        check(&ring, "make a", "Invalid \"make a\" is not understood; write \"new NAME\" or \"delete NAME\"", "node");
        check(&ring, "new", "Invalid", "node");
        check(&ring, "new a b", "Invalid", "node");
        check(&ring, "delete node", "NotPermitted", "node");
        check(&ring, "new Bad", "Invalid \"Bad\" cannot name a key", "node");
        check(&ring, "new ../a", "cannot name a key", "node");
        check(&ring, "new aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "cannot name a key", "node");
        check(&ring, "new node", "Exists", "node");
        check(&ring, "new a;new b;delete c", "NotFound no key is named c", "node");
        check(&ring, "new a;new b", "ok", "a b node");
        check(&ring, "delete a;new a", "Invalid one write names a twice", "a b node");
        check(&ring, "delete a;new c", "ok", "b c node");
        // The file of a key this agent does not know stands in the way: nothing of the write is done.
        fs::write(home.path().join("keys/x.key"), "").unwrap();
        let verbs = [Verb::Delete { name: "b".into() }, Verb::New { name: "d".into() }, Verb::New { name: "x".into() }];
        assert_eq!(ring.obey(&verbs).unwrap_err().kind(), Kind::Exists);
        fs::remove_file(home.path().join("keys/x.key")).unwrap();
        check(&ring, "delete zz", "NotFound", "b c node");
        assert_eq!(Ring::open(&home.path().join("keys")).unwrap().list(), ring.list());
    }

    #[test]
    fn the_table_is_bounded() {
        let home = tempfile::tempdir().unwrap();
        let ring = Ring::open(&home.path().join("keys")).unwrap();
        let many: Vec<Verb> = (0..KEYS_MAX).map(|n| Verb::New { name: format!("k{n}") }).collect();
        assert_eq!(ring.obey(&many).unwrap_err().kind(), Kind::Exhausted);
        assert_eq!(ring.table().len(), 1);
        ring.obey(&many[1..]).unwrap();
        assert_eq!(ring.table().len(), KEYS_MAX);
    }

    #[test]
    fn a_signature_is_good_for_its_key_and_message_only() {
        let home = tempfile::tempdir().unwrap();
        let ring = Ring::open(&home.path().join("keys")).unwrap();
        ring.obey(&[Verb::New { name: "a".into() }]).unwrap();
        let by_a = ring.sign("a", b"hello").unwrap();
        let public = ring.table()["a"].verifying_key();
        let id = peer_id(public.as_bytes());
        for (who, message, want) in [
            ("a", &b"hello"[..], true),
            (&hex(public.as_bytes()), b"hello", true),
            (id.as_str(), b"hello", true),
            ("node", b"hello", false),
            ("a", b"hellO", false),
            ("a", b"", false),
        ] {
            assert_eq!(ring.verify(who, message, &by_a).unwrap(), want, "{who} {message:?}");
        }
        assert_eq!(ring.verify("nobody", b"hello", &by_a).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(ring.sign("nobody", b"").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(ring.sign("a", &[0; MESSAGE_MAX + 1]).unwrap_err().kind(), Kind::MessageTooLong);
        assert!(ring.sign("a", &[0; MESSAGE_MAX]).is_ok());
        // The bare message is not what was signed: no protocol takes this signature for its own.
        assert!(public.verify_strict(b"hello", &Signature::from_bytes(&by_a)).is_err());
    }

    #[test]
    fn hex_both_ways() {
        for (text, bytes) in [
            ("", Some(vec![])),
            ("00fF", Some(vec![0, 255])),
            ("0", None),
            ("0g", None),
            ("+1", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(unhex(text), bytes, "{text:?}");
        }
        assert_eq!(hex(&[0, 0x1f, 255]), "001fff");
    }
}
