//! One element of a path, checked once.

use std::fmt;

use bytes::Bytes;

use crate::{Error, Kind};

/// A file name: 1 to 255 bytes, no `/`, no NUL, not `.`. Bytes, not text: 9P2000.L carries what the host has.
///
/// `..` is a name only in a walk, so the two constructors differ.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Bytes);

/// The longest name, in bytes: NAME_MAX of Linux.
pub const NAME_MAX: usize = 255;

impl Name {
    /// A name that may be created: everything but `..`.
    /// # Errors
    /// `Invalid` for an empty name, `.`, `..`, a `/` or a NUL; `NameTooLong` over 255 bytes.
    pub fn new(name: impl Into<Bytes>) -> Result<Name, Error> {
        match Name::walk(name)? {
            n if n.is_parent() => Err(Error::new(Kind::Invalid, "\"..\" is not a name that can be created")),
            n => Ok(n),
        }
    }

    /// An element of a walk: a name, or `..`.
    /// # Errors
    /// As [`Name::new`], but `..` passes.
    pub fn walk(name: impl Into<Bytes>) -> Result<Name, Error> {
        let name = name.into();
        if name.len() > NAME_MAX {
            return Err(Kind::NameTooLong.into());
        }
        if name.is_empty() || &name[..] == b"." || name.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(Error::new(Kind::Invalid, format!("bad file name {:?}", String::from_utf8_lossy(&name))));
        }
        Ok(Name(name))
    }

    /// The elements of `path`, split at `/`; empty elements and `.` are dropped, `..` is kept.
    /// # Errors
    /// As [`Name::walk`], for the first bad element.
    pub fn path(path: &str) -> Result<Vec<Name>, Error> {
        path.split('/').filter(|e| !e.is_empty() && *e != ".").map(|e| Name::walk(e.to_owned())).collect()
    }

    /// True for `..`.
    pub fn is_parent(&self) -> bool {
        &self.0[..] == b".."
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as text, where it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The name as a shared byte string.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, create, walk) in [
            ("a", true, true),
            ("...", true, true),
            ("\u{fc}", true, true),
            ("..", false, true),
            (".", false, false),
            ("", false, false),
            ("a/b", false, false),
            ("a\0", false, false),
        ] {
            assert_eq!((Name::new(name).is_ok(), Name::walk(name).is_ok()), (create, walk), "{name:?}");
        }
        assert_eq!(Name::new(vec![b'x'; 256]).unwrap_err().kind(), Kind::NameTooLong);
        assert!(Name::new(vec![0xff; 255]).is_ok());
        assert_eq!(Name::path("/a//./b/..").unwrap().len(), 3);
    }
}
