//! Names that a file name cannot carry, percent-encoded: one name for each key, exactly reversible.

/// The longest name, in bytes.
const NAME_MAX: usize = 255;

/// The file name of `key`: `/`, `%`, control characters and a whole name of `.` or `..` become `%XX`; the empty key is
/// `%`. `None` where the name would be over 255 bytes: such a key has no file.
pub fn encode(key: &str) -> Option<String> {
    let dots = matches!(key, "." | "..");
    let mut name = String::with_capacity(key.len());
    for c in key.chars() {
        match c {
            '/' | '%' | '\0'..='\x1f' | '\x7f' => name.push_str(&format!("%{:02X}", c as u32)),
            '.' if dots => name.push_str("%2E"),
            c => name.push(c),
        }
    }
    if name.is_empty() {
        name.push('%');
    }
    (name.len() <= NAME_MAX).then_some(name)
}

/// The key whose file name is `name`; `None` for a name that [`encode`] never gives.
pub fn decode(name: &str) -> Option<String> {
    let mut key = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' if name.len() == 1 => {}
            b'%' => key.push(hex(bytes.next()?)? << 4 | hex(bytes.next()?)?),
            b => key.push(b),
        }
    }
    let key = String::from_utf8(key).ok()?;
    (encode(&key)? == name).then_some(key)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|d| d as u8)
}

/// As [`encode`], for a key whose siblings include `taken`: the first byte of a name that is taken is encoded as well,
/// so that a key named `ctl` does not hide behind the file `ctl`.
pub(crate) fn encode_beside<'a>(key: &str, mut taken: impl Iterator<Item = &'a str>) -> Option<String> {
    let name = encode(key)?;
    match taken.any(|t| t == name) {
        true => Some(format!("%{:02X}{}", name.as_bytes()[0], &name[1..])).filter(|n| n.len() <= NAME_MAX),
        false => Some(name),
    }
}

/// The key whose name beside `taken` is `name`.
pub(crate) fn decode_beside<'a>(name: &str, mut taken: impl Iterator<Item = &'a str>) -> Option<String> {
    decode(name).or_else(|| {
        let rest = name.get(3..)?;
        let first = hex(*name.as_bytes().get(1)?)? << 4 | hex(*name.as_bytes().get(2)?)?;
        let key = format!("{}{rest}", first as char);
        let same = format!("%{first:02X}{rest}") == name;
        (same && first.is_ascii() && taken.any(|t| t == key)).then_some(key)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for (key, name) in [
            ("ann", Some("ann")),
            ("a b", Some("a b")),
            ("", Some("%")),
            (".", Some("%2E")),
            ("..", Some("%2E%2E")),
            ("...", Some("...")),
            ("a/b", Some("a%2Fb")),
            ("100%", Some("100%25")),
            ("%", Some("%25")),
            ("a\nb\0", Some("a%0Ab%00")),
            ("grün", Some("grün")),
        ] {
            assert_eq!(encode(key).as_deref(), name, "{key:?}");
            assert_eq!(decode(name.unwrap()).as_deref(), Some(key), "{key:?}");
        }
        assert_eq!(encode(&"x".repeat(256)), None);
        assert_eq!(encode(&"/".repeat(86)), None);
        for no in ["%2f", "%61", "%2", "a%", "%%", "%ff", "%C3%BC", "a/b"] {
            assert_eq!(decode(no), None, "{no}");
        }
    }

    #[test]
    fn a_key_named_like_a_file_beside_it() {
        let taken = || ["ctl", "event"].into_iter();
        for (key, name) in [("ctl", "%63tl"), ("ann", "ann"), ("%63tl", "%2563tl")] {
            assert_eq!(encode_beside(key, taken()).as_deref(), Some(name));
            assert_eq!(decode_beside(name, taken()).as_deref(), Some(key));
        }
        assert_eq!(decode_beside("%61nn", taken()), None);
        assert_eq!(decode_beside("%ü", taken()), None);
    }

    proptest! {
        #[test]
        fn encoding_is_undone(key in any::<String>()) {
            if let Some(name) = encode(&key) {
                prop_assert!(!name.contains(['/', '\0']) && !matches!(name.as_str(), "" | "." | ".."));
                prop_assert_eq!(decode(&name), Some(key));
            }
        }

        #[test]
        fn one_name_a_key(name in any::<String>()) {
            if let Some(key) = decode(&name) {
                prop_assert_eq!(encode(&key), Some(name));
            }
        }
    }
}
