//! Words of a command line, quoted as rc does: blanks split, quotes join, '' inside quotes is a quote.

use fs_ninep::{Error, Kind, Result};

/// The words of `line`. Blanks are spaces and tabs; a quoted part may stand inside a word.
/// # Errors
/// `Invalid` for a quote that is not closed.
pub fn words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if quoted && chars.peek() == Some(&'\'') => {
                chars.next();
                word.get_or_insert_default().push('\'');
            }
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' | '\t' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err(Error::new(Kind::Invalid, format!("{line}: a quote is not closed")));
    }
    words.extend(word);
    Ok(words)
}

/// `word` written so that [`words`] gives it back as one word: bare where it can be.
pub fn quote(word: &str) -> String {
    let bare = |c: char| !c.is_whitespace() && !c.is_control() && c != '\'';
    match !word.is_empty() && word.chars().all(bare) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splits_and_quotes() {
        for (line, expect) in [
            ("", Some(&[] as &[&str])),
            (" \t ", Some(&[])),
            ("a  b\tc", Some(&["a", "b", "c"])),
            ("a 'b c' d", Some(&["a", "b c", "d"])),
            ("a'b c'd", Some(&["ab cd"])),
            ("'it''s'", Some(&["it's"])),
            ("'' x", Some(&["", "x"])),
            ("''''", Some(&["'"])),
            ("\"a b\"", Some(&["\"a", "b\""])),
            ("a 'b", None),
            ("'''", None),
        ] {
            let expect = expect.map(|w| w.iter().map(|s| s.to_string()).collect::<Vec<_>>());
            assert_eq!(words(line).ok(), expect, "{line}");
        }
        assert_eq!(words("x 'y").unwrap_err().kind(), Kind::Invalid);
        for (word, quoted) in [("plain", "plain"), ("", "''"), ("a b", "'a b'"), ("it's", "'it''s'"), ("grün", "grün")]
        {
            assert_eq!(quote(word), quoted);
        }
    }

    proptest! {
        #[test]
        fn quoting_is_undone(list in proptest::collection::vec(any::<String>(), 0..6)) {
            let line: Vec<String> = list.iter().map(|w| quote(w)).collect();
            prop_assert_eq!(words(&line.join(" ")).unwrap(), list);
        }
    }
}
