//! The mount table: which files stand at which path. Pure: it reads no clock and asks no file.
//!
//! Keyed by path, not by the file mounted upon: the same directory at two paths is bound over at one of them, `..` is
//! lexical, and no binding can make a path that never ends. Invariants: a head has a member; the members of a head can be
//! bound one after the other in the order of their `seq`, each first or last of those before it (so text can replay).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use fs_ninep::Name;

use crate::Error;
use crate::path::absolute;

/// The most mount points of one name space.
pub const HEADS_MAX: usize = 1024;

/// The most members of one union.
pub const MEMBERS_MAX: usize = 64;

/// Where a new member goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Instead of all there are.
    #[default]
    Replace,
    /// Before them (-b).
    Before,
    /// After them (-a).
    After,
}

/// The flags of a bind or mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// -a, -b or neither.
    pub order: Order,
    /// -c: new files may be made in it.
    pub create: bool,
    /// -C: its data may be cached.
    pub cache: bool,
    /// -f: though it makes a cycle.
    pub force: bool,
}

/// Where a member's walk began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// The device `#name`.
    Device(String),
    /// What a mount's source means.
    Mount {
        /// A capability, `srv/NAME`, an address.
        source: String,
        /// The attach name.
        spec: String,
    },
}

/// How to find a member's file again, whatever the table says by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where the walk begins.
    pub base: Base,
    /// The names from there.
    pub names: Vec<Name>,
}

impl Origin {
    /// `names` further down.
    pub fn join(&self, names: &[Name]) -> Origin {
        Origin { base: self.base.clone(), names: self.names.iter().chain(names).cloned().collect() }
    }
}

/// One member of a union. `L` is what holds its file; the table never asks it.
#[derive(Clone, Debug)]
pub struct Member<L> {
    /// Rises with every binding of this table.
    pub seq: u64,
    /// How to find it again.
    pub origin: Origin,
    /// The path it was bound by, where it was one.
    pub written: Option<Vec<Name>>,
    /// Its flags; `order` means nothing here.
    pub flags: Flags,
    /// Its file.
    pub link: L,
}

/// Whether this is the member meant.
pub type Pick<'a, L> = &'a dyn Fn(&Member<L>) -> bool;

/// What stands at one mount point. A change makes another one, so two are the same when their `Arc`s are.
#[derive(Clone, Debug)]
pub struct Head<L> {
    /// The members, first first. Never empty.
    pub members: Vec<Member<L>>,
}

/// A name space's mount table.
#[derive(Clone, Debug)]
pub struct Table<L> {
    heads: BTreeMap<Vec<Name>, Arc<Head<L>>>,
    seq: u64,
    locked: bool,
}

impl<L> Default for Table<L> {
    fn default() -> Table<L> {
        Table { heads: BTreeMap::new(), seq: 0, locked: false }
    }
}

impl<L: Clone> Table<L> {
    /// Every mount point, parents before what lies below them.
    pub fn heads(&self) -> impl Iterator<Item = (&Vec<Name>, &Arc<Head<L>>)> {
        self.heads.iter()
    }

    /// What stands at `path` itself.
    pub fn head(&self, path: &[Name]) -> Option<&Arc<Head<L>>> {
        self.heads.get(path)
    }

    /// The deepest mount point at or above `path`, and how many of its names lead there.
    pub fn nearest(&self, path: &[Name]) -> Option<(usize, &Arc<Head<L>>)> {
        (1..=path.len()).rev().find_map(|depth| Some((depth, self.heads.get(&path[..depth])?)))
    }

    /// A mount point strictly below `path`.
    pub fn below(&self, path: &[Name]) -> Option<&[Name]> {
        let after = (Bound::Excluded(path), Bound::Unbounded);
        let (next, _) = self.heads.range::<[Name], _>(after).next()?;
        next.starts_with(path).then_some(next.as_slice())
    }

    /// A mount point at `path` or below it.
    pub fn within(&self, path: &[Name]) -> Option<&[Name]> {
        self.heads.get_key_value(path).map(|(k, _)| k.as_slice()).or_else(|| self.below(path))
    }

    /// Where a walk of `path` ends, where that is plain without asking: no union on the way.
    pub fn origin(&self, path: &[Name]) -> Option<Origin> {
        let (depth, head) = self.nearest(path)?;
        match &head.members[..] {
            [only] => Some(only.origin.join(&path[depth..])),
            _ => None,
        }
    }

    /// True after `nomnt`.
    pub fn locked(&self) -> bool {
        self.locked
    }

    /// Binds `new` (several: the members of a union, in order) over `old`. `joined` is what stands at `old` when nothing is
    /// bound there yet: it becomes a member of the union, without `-c`.
    /// # Errors
    /// `Locked`, `Root`, `Below` (replacing what other mount points stand in), `Full`. The table is then as before.
    pub fn bind(
        &mut self,
        old: &[Name],
        order: Order,
        new: Vec<Member<L>>,
        joined: Option<Member<L>>,
    ) -> Result<(), Error> {
        self.unlocked()?;
        if old.is_empty() {
            return Err(Error::Root);
        }
        let head = self.heads.get(old);
        if head.is_none() && self.heads.len() >= HEADS_MAX {
            return Err(Error::Full { what: "mount points in a name space", max: HEADS_MAX });
        }
        let mut members = match (head, order) {
            (_, Order::Replace) => self.bare(old).map(|()| Vec::new())?,
            (Some(head), _) => head.members.clone(),
            (None, _) => joined.into_iter().collect(),
        };
        if members.len() + new.len() > MEMBERS_MAX {
            return Err(Error::Full { what: "members in a union", max: MEMBERS_MAX });
        }
        for m in members.iter_mut().filter(|m| m.seq == 0) {
            self.seq += 1;
            m.seq = self.seq;
        }
        match order {
            Order::Before => new.into_iter().rev().for_each(|m| members.insert(0, self.numbered(m))),
            Order::Replace | Order::After => members.extend(new.into_iter().map(|m| self.numbered(m))),
        }
        self.put(old, members);
        Ok(())
    }

    /// Takes away what is bound over `old`: the first member that `which` picks, or all.
    /// # Errors
    /// `Locked`; `NotBound`; `Below` where the mount point would go and others stand in it. False: `which` picked none.
    pub fn unmount(&mut self, old: &[Name], which: Option<Pick<'_, L>>) -> Result<bool, Error> {
        self.unlocked()?;
        let Some(head) = self.heads.get(old) else { return Err(Error::NotBound { old: absolute(old) }) };
        let mut members = head.members.clone();
        match which {
            None => members.clear(),
            Some(which) => match members.iter().position(which) {
                Some(i) => drop(members.remove(i)),
                None => return Ok(false),
            },
        }
        if members.is_empty() {
            self.bare(old)?;
            self.heads.remove(old);
        } else {
            self.put(old, members);
        }
        Ok(true)
    }

    /// Takes every binding away.
    /// # Errors
    /// `Locked`.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.unlocked()?;
        self.heads.clear();
        Ok(())
    }

    /// No more changes, for good.
    pub fn lock(&mut self) {
        self.locked = true;
    }

    /// Refused after [`Table::lock`].
    /// # Errors
    /// `Locked`.
    pub fn unlocked(&self) -> Result<(), Error> {
        if self.locked { Err(Error::Locked) } else { Ok(()) }
    }

    fn bare(&self, old: &[Name]) -> Result<(), Error> {
        match self.below(old) {
            Some(below) => Err(Error::Below { old: absolute(old), below: absolute(below) }),
            None => Ok(()),
        }
    }

    fn numbered(&mut self, member: Member<L>) -> Member<L> {
        self.seq += 1;
        Member { seq: self.seq, ..member }
    }

    fn put(&mut self, old: &[Name], members: Vec<Member<L>>) {
        self.heads.insert(old.to_vec(), Arc::new(Head { members }));
    }
}
