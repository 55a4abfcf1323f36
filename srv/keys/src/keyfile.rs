//! keys: one key in one file, `NAME.key`. A file that is refused is not touched.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use ed25519_dalek::SigningKey;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Damage, Error, PathText};
use crate::state::NODE;

/// `ipos key 1 ed25519 `, 64 hex digits of the private half, a blank, 64 of the public one, a newline.
const HEAD: &str = "ipos key 1 ed25519 ";
/// The length of a key file, in bytes.
pub const FILE_LEN: usize = HEAD.len() + 64 + 1 + 64 + 1;

pub fn check_owned(path: &Path, meta: &fs::Metadata, want: u32) -> Result<(), Error> {
    let me = nix::unistd::geteuid().as_raw();
    let mode = meta.mode() & 0o7777;
    if meta.uid() != me {
        return Err(Error::Foreign { path: PathText(path.to_owned()), uid: meta.uid(), me });
    }
    if mode & 0o077 != 0 {
        return Err(Error::Exposed { path: PathText(path.to_owned()), mode, want });
    }
    Ok(())
}

pub fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: PathText(path.to_owned()), source }
}

pub fn damaged(path: &Path, name: &str, why: Damage) -> Error {
    let without = if name == NODE { "become a new node with another peer id" } else { "go on without this key" };
    Error::Damaged { path: PathText(path.to_owned()), why, without }
}

pub fn read(path: &Path, name: &str) -> Result<SigningKey, Error> {
    // NOFOLLOW: a link could name a file that others write. NONBLOCK: a FIFO must not hold the start.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.raw_os_error() == Some(nix::libc::ELOOP) => return Err(damaged(path, name, Damage::NotPlain)),
        Err(e) => return Err(io_error(path, e)),
    };
    let meta = file.metadata().map_err(|e| io_error(path, e))?;
    if !meta.is_file() {
        return Err(damaged(path, name, Damage::NotPlain));
    }
    check_owned(path, &meta, 0o600)?;
    if meta.len() != FILE_LEN as u64 {
        return Err(damaged(path, name, Damage::Size(meta.len())));
    }
    let mut text = Zeroizing::new([0; FILE_LEN]);
    file.read_exact(&mut text[..]).map_err(|e| io_error(path, e))?;
    decode(&text[..]).map_err(|why| damaged(path, name, why))
}

pub fn write_all(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// The content of the file of `key`.
pub fn encode(key: &SigningKey) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_LEN));
    let seed = Zeroizing::new(key.to_bytes());
    let seed_hex = Zeroizing::new(hex(&seed[..]));
    for part in [HEAD, &seed_hex, " ", &hex(key.verifying_key().as_bytes()), "\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    text
}

/// The key in the content of a file.
pub fn decode(text: &[u8]) -> Result<SigningKey, Damage> {
    let rest = text.strip_prefix(HEAD.as_bytes()).and_then(|r| r.strip_suffix(b"\n")).ok_or(Damage::Text)?;
    let (seed, public) = rest.split_at_checked(64).ok_or(Damage::Text)?;
    let public = public.strip_prefix(b" ").ok_or(Damage::Text)?;
    let number = |hex: &[u8]| {
        let mut bytes = unhex(std::str::from_utf8(hex).ok()?)?;
        let number = <[u8; 32]>::try_from(&bytes[..]).ok().map(Zeroizing::new);
        bytes.zeroize();
        number
    };
    let seed = number(seed).ok_or(Damage::Text)?;
    let public = number(public).ok_or(Damage::Text)?;
    let key = SigningKey::from_bytes(&seed);
    if key.verifying_key().as_bytes() == &*public { Ok(key) } else { Err(Damage::Halves) }
}

/// Lower-case hex, allocated once: a private half leaves no copy behind in a buffer that grew.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for b in bytes {
        for digit in [b >> 4, b & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

/// The bytes of hex digits of either case; `None` for other text.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    for &[high, low] in pairs {
        bytes.push((digit(high)? << 4 | digit(low)?) as u8);
    }
    rest.is_empty().then_some(bytes)
}
