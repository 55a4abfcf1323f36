//! Where a file stands in a name space: a list of names from the root, sharing what it has in common with others.
//!
//! `..` is lexical: it drops the last name and stays at the root (namespace(6)). Each element remembers which file stood
//! there, so that a directory coming back again and again on one path is noticed.

use std::fmt;
use std::sync::Arc;

use fs_ninep::{Kind, Name, ServerId};

use crate::Error;

/// The most names in a path.
pub const PATH_DEPTH_MAX: usize = 4096;

/// How often one directory may occur on a path.
pub const PATH_AGAIN_MAX: usize = 4;

/// Which file: its server and qid path.
pub type Id = (ServerId, u64);

/// A place in a name space; the root has no element.
#[derive(Clone, Default)]
pub struct Path(Option<Arc<Step>>);

struct Step {
    parent: Path,
    name: Name,
    depth: usize,
    id: Option<Id>,
}

impl Path {
    /// The names from the root.
    pub fn names(&self) -> Vec<Name> {
        let mut names = Vec::with_capacity(self.depth());
        let mut at = self;
        while let Some(step) = &at.0 {
            names.push(step.name.clone());
            at = &step.parent;
        }
        names.reverse();
        names
    }

    /// How many names it has.
    pub fn depth(&self) -> usize {
        self.0.as_ref().map_or(0, |s| s.depth)
    }

    /// One up; the root stays.
    pub fn parent(&self) -> Path {
        self.0.as_ref().map_or_else(Path::default, |s| s.parent.clone())
    }

    /// One down, to the file `id` where it is known.
    /// # Errors
    /// `Full` beyond [`PATH_DEPTH_MAX`].
    pub fn join(&self, name: &Name, id: Option<Id>) -> Result<Path, Error> {
        let depth = self.depth() + 1;
        if depth > PATH_DEPTH_MAX {
            return Err(Error::Full { what: "names in a path", max: PATH_DEPTH_MAX });
        }
        Ok(Path(Some(Arc::new(Step { parent: self.clone(), name: name.clone(), depth, id }))))
    }

    /// One down, into the directory `id`.
    /// # Errors
    /// `Again` where this directory stands on the path [`PATH_AGAIN_MAX`] times already; as [`Path::join`].
    pub fn enter(&self, name: &Name, id: Id) -> Result<Path, Error> {
        let mut times = 1;
        let mut at = self;
        while let Some(step) = &at.0 {
            times += usize::from(step.id == Some(id));
            at = &step.parent;
        }
        let path = self.join(name, Some(id))?;
        if times > PATH_AGAIN_MAX {
            return Err(Error::Again { path: path.to_string(), max: PATH_AGAIN_MAX });
        }
        Ok(path)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&absolute(&self.names()))
    }
}

/// `names` as a path from the root.
pub fn absolute(names: &[Name]) -> String {
    if names.is_empty() { "/".to_owned() } else { names.iter().map(|n| format!("/{n}")).collect() }
}

/// The names of `text`, `.` and `..` done away with: a path is relative to the root, and `..` stays there.
/// # Errors
/// `Path` for an element that is no file name.
pub fn parse(text: &str) -> Result<Vec<Name>, Error> {
    let bad = |why| Error::Path { path: text.to_owned(), why };
    let mut names = Vec::new();
    for name in Name::path(text).map_err(bad)? {
        if name.is_parent() {
            names.pop();
        } else {
            names.push(name);
        }
    }
    if names.len() > PATH_DEPTH_MAX {
        return Err(bad(Kind::NameTooLong.into()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_lexical_and_stay_at_the_root() {
        for (text, names) in [("/a//./b/../c/", "/a/c"), ("..", "/"), ("a/../../b", "/b"), ("", "/")] {
            assert_eq!(absolute(&parse(text).unwrap()), names, "{text}");
        }
        assert_eq!(parse("a\0").unwrap_err().kind(), Kind::Invalid);
        assert_eq!(parse(&"x".repeat(256)).unwrap_err().kind(), Kind::NameTooLong);
    }

    #[test]
    fn a_path_has_an_end() {
        let name = Name::new("d").unwrap();
        let mut path = Path::default();
        for _ in 0..PATH_DEPTH_MAX {
            path = path.join(&name, None).unwrap();
        }
        assert_eq!(path.join(&name, None).err().unwrap().kind(), Kind::Exhausted);
        assert_eq!(path.names().len(), PATH_DEPTH_MAX);
    }
}
