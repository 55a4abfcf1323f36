//! The last refusal of each caller in each directory: what an `error` file tells.

use std::collections::HashMap;
use std::sync::Mutex;

use fs_ninep::{Error, Identity};

/// Refusals kept in one tree; past it the oldest is forgotten.
pub const REFUSALS_MAX: usize = 1024;

/// Bytes of one refusal's text; what is longer is cut.
pub const REFUSAL_BYTES_MAX: usize = 4096;

/// The table of a tree. The key is a directory's qid path and who was refused there.
#[derive(Default)]
pub(crate) struct Refusals {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    texts: HashMap<(u64, Identity), (u64, String)>,
    next: u64,
}

impl Refusals {
    /// Keeps the text of `error`, refused to `who` in the directory `dir`.
    pub fn keep(&self, dir: u64, who: &Identity, error: &Error) {
        let mut text = error.to_string();
        let end = (0..=REFUSAL_BYTES_MAX).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
        text.truncate(end);
        text.push('\n');
        let mut table = self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        table.next += 1;
        let age = table.next;
        table.texts.insert((dir, who.clone()), (age, text));
        if table.texts.len() > REFUSALS_MAX {
            let oldest = table.texts.iter().min_by_key(|(_, (age, _))| *age).map(|(key, _)| key.clone());
            oldest.and_then(|key| table.texts.remove(&key));
        }
    }

    /// The text kept, with its newline; empty where nothing was refused.
    pub fn text(&self, dir: u64, who: &Identity) -> String {
        let table = self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        table.texts.get(&(dir, who.clone())).map(|(_, text)| text.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use fs_ninep::Kind;

    use super::*;

    #[test]
    fn keeps_the_last_of_each_and_forgets_the_oldest() {
        let refusals = Refusals::default();
        let me = Identity::Local { uid: 7 };
        refusals.keep(1, &me, &Error::new(Kind::Invalid, "one"));
        refusals.keep(1, &me, &Error::new(Kind::Invalid, "two"));
        refusals.keep(1, &Identity::None, &Kind::Denied.into());
        assert_eq!(refusals.text(1, &me), "two\n");
        assert_eq!(refusals.text(1, &Identity::None), "permission denied\n");
        assert_eq!(refusals.text(2, &me), "");
        refusals.keep(2, &me, &Error::new(Kind::Invalid, "ü".repeat(REFUSAL_BYTES_MAX)));
        assert_eq!(refusals.text(2, &me).len(), REFUSAL_BYTES_MAX + 1);
        (3..REFUSALS_MAX as u64 + 1).for_each(|dir| refusals.keep(dir, &me, &Kind::Busy.into()));
        assert_eq!(refusals.text(1, &me), "", "the oldest went");
        assert_eq!(refusals.text(1, &Identity::None), "permission denied\n");
    }
}
