//! Expected lines against real ones.

/// Whether `line` is what `pattern` says; `[..]` stands for any text within the line.
pub fn matches(pattern: &str, line: &str) -> bool {
    let parts: Vec<&str> = pattern.split("[..]").collect();
    let [first, middle @ .., last] = parts.as_slice() else { return pattern == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in middle {
        match rest.find(*part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(*last)
}

/// The two side by side where they differ: `-` expected, `+` came; `None` where all lines match.
pub fn diff(expect: &[String], got: &[String]) -> Option<String> {
    if expect.len() == got.len() && expect.iter().zip(got).all(|(e, g)| matches(e, g)) {
        return None;
    }
    // The longest common run, by the usual table; transcripts are short, so its square is small. What is longer than
    // LINES_MAX is cut, so that a command gone wild is still reported.
    let (expect, got) = (&expect[..expect.len().min(LINES_MAX)], &got[..got.len().min(LINES_MAX)]);
    let mut common = vec![vec![0u32; got.len() + 1]; expect.len() + 1];
    for e in (0..expect.len()).rev() {
        for g in (0..got.len()).rev() {
            common[e][g] = match matches(&expect[e], &got[g]) {
                true => common[e + 1][g + 1] + 1,
                false => common[e + 1][g].max(common[e][g + 1]),
            };
        }
    }
    let (mut e, mut g, mut out) = (0, 0, String::new());
    while e < expect.len() || g < got.len() {
        let (sign, text) = if e < expect.len() && g < got.len() && matches(&expect[e], &got[g]) {
            (e, g) = (e + 1, g + 1);
            (' ', &got[g - 1])
        } else if e < expect.len() && (g == got.len() || common[e + 1][g] >= common[e][g + 1]) {
            e += 1;
            ('-', &expect[e - 1])
        } else {
            g += 1;
            ('+', &got[g - 1])
        };
        out.push_str(&format!("  {sign} {text}\n"));
    }
    Some(out)
}

/// Lines of one command's output that are compared and shown.
const LINES_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, line, same) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
            ("[..]", "", true),
            ("[..]", "anything", true),
            ("20[..]", "2026", true),
            ("a[..]c[..]e", "abcde", true),
            ("a[..]c[..]e", "abde", false),
            ("a[..]a", "a", false),
            ("[alice] [..]", "[alice] up", true),
            ("x[..]", "yx", false),
        ] {
            assert_eq!(matches(pattern, line), same, "{pattern:?} {line:?}");
        }
    }

    #[test]
    fn shows_what_differs() {
        let lines = |s: &str| s.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let check = |e: &str, g: &str| diff(&lines(e), &lines(g)).unwrap_or_default().replace('\n', ";");
        assert_eq!(check("a b c", "a b c"), "");
        assert_eq!(check("a b c", "a c"), "    a;  - b;    c;");
        assert_eq!(check("a", "a b"), "    a;  + b;");
        assert_eq!(check("x", "y"), "  - x;  + y;");
    }
}
