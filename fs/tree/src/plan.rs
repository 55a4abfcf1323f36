//! The table of a tree as the kit walks it: every row with its parent, its children and its last element.

use crate::{Row, Shape};

/// The rows of a tree, linked; indices are those of the table.
pub(crate) struct Plan {
    places: Vec<Place>,
}

/// One row's place among the others.
struct Place {
    parent: usize,
    element: Element,
    children: Vec<usize>,
}

/// The last element of a row's path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// The root has none.
    Root,
    /// A fixed name.
    Name(&'static str),
    /// `{…}`: every name the service lists here.
    Key,
}

impl Plan {
    /// Links `rows`.
    /// # Panics
    /// For a table that breaks the rules of [`Row`]: a mistake of the service's author.
    pub fn new<Q>(rows: &'static [Row<Q>]) -> Plan {
        let mut places: Vec<Place> = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            let path = row.path.trim_matches('/');
            let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
            let element = match last {
                "" => Element::Root,
                key if key.starts_with('{') && key.ends_with('}') => Element::Key,
                name => Element::Name(name),
            };
            assert!((at == 0) == (element == Element::Root), "{:?}: the root is the first row and no other", row.path);
            let parent = rows[..at].iter().position(|r| r.path.trim_matches('/') == above).unwrap_or(0);
            assert!(at == 0 || rows[parent].path.trim_matches('/') == above, "{}: its directory has no row", row.path);
            assert!(at == 0 || rows[parent].shape == Shape::Dir, "{}: it stands in no directory", row.path);
            places.push(Place { parent, element, children: Vec::new() });
            if at > 0 {
                places[parent].children.push(at);
            }
        }
        assert!(rows.first().is_some_and(|r| r.shape == Shape::Dir), "the root is a directory");
        let plan = Plan { places };
        let clones = rows.iter().enumerate().filter(|(_, r)| r.shape == Shape::Clone);
        clones.for_each(|(at, r)| assert!(plan.made_by(rows, at).is_some(), "{}: no {{n}}/ctl beside it", r.path));
        plan
    }

    /// The row of the directory that `row` stands in; the root's is itself.
    pub fn parent(&self, row: usize) -> usize {
        self.places[row].parent
    }

    /// The last element of `row`.
    pub fn element(&self, row: usize) -> Element {
        self.places[row].element
    }

    /// The rows that stand in `row`, in the order of the table.
    pub fn children(&self, row: usize) -> &[usize] {
        &self.places[row].children
    }

    /// The fixed names in `row`.
    pub fn names(&self, row: usize) -> impl Iterator<Item = &'static str> {
        self.children(row).iter().filter_map(|&c| match self.element(c) {
            Element::Name(name) => Some(name),
            _ => None,
        })
    }

    /// `row` and those above it up to the root.
    pub fn upward(&self, row: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(row), |&r| (r > 0).then(|| self.parent(r)))
    }

    /// How many keys name a file of `row`.
    pub fn keys(&self, row: usize) -> usize {
        self.upward(row).filter(|&r| self.element(r) == Element::Key).count()
    }

    /// The directory row and the `ctl` row of what the clone at `row` makes.
    pub fn made_by<Q>(&self, rows: &[Row<Q>], row: usize) -> Option<(usize, usize)> {
        let beside = self.children(self.parent(row)).iter().copied();
        let mut dirs = beside.filter(|&r| self.element(r) == Element::Key && rows[r].shape == Shape::Dir);
        dirs.find_map(|dir| {
            let ctl = |&&r: &&usize| self.element(r) == Element::Name("ctl") && rows[r].shape == Shape::Ctl;
            Some((dir, *self.children(dir).iter().find(ctl)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clone, ctl, dir, value};

    const GOOD: &[Row<u8>] =
        &[dir("", 0, 0o555), clone("clone", 1, 0o666), dir("{n}", 2, 0o555), ctl("{n}/ctl", 3, 0o660)];

    #[test]
    fn links_rows() {
        let plan = Plan::new(GOOD);
        assert_eq!((plan.children(0), plan.children(2), plan.parent(3)), (&[1, 2][..], &[3][..], 2));
        assert_eq!((plan.keys(0), plan.keys(2), plan.keys(3)), (0, 1, 1));
        assert_eq!(plan.made_by(GOOD, 1), Some((2, 3)));
        assert_eq!(plan.names(0).collect::<Vec<_>>(), ["clone"]);
    }

    #[test]
    fn refuses_a_table_that_breaks_the_rules() {
        const BAD: [&[Row<u8>]; 5] = [
            &[],
            &[value("a", 0, 0o444)],
            &[dir("", 0, 0o555), value("a/b", 1, 0o444)],
            &[dir("", 0, 0o555), value("a", 1, 0o444), value("a/b", 2, 0o444)],
            &[dir("", 0, 0o555), clone("clone", 1, 0o666), dir("{n}", 2, 0o555)],
        ];
        for (i, rows) in BAD.into_iter().enumerate() {
            assert!(std::panic::catch_unwind(|| Plan::new(rows)).is_err(), "table {i}");
        }
    }
}
