//! export: the words of both control files.

use crate::error::Error;
use crate::state::Access;

/// The longest time a capability is good for, in seconds: a year.
pub const TTL_S_MAX: u64 = 366 * 86400;

/// A line of `ctl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `grant WHO PATH [ro|rw] [max=BYTES]`.
    Grant { who: String, path: String, access: Option<Access>, max: Option<u64> },
    /// `revoke WHO PATH`.
    Revoke { who: String, path: String },
}

/// A line of `{m}/ctl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportVerb {
    /// `bind PATH /NAME`: what is shown, and as what.
    Bind { path: String, name: String },
    /// `ro` or `rw`: what the capability lets its holder do.
    Access(Access),
    /// `to WHO`: the only node that may use the capability; `any` for whoever has it.
    To { who: String },
    /// `uses N`: attaches left.
    Uses(u64),
    /// `ttl S`: seconds that the capability is good for, from now.
    Ttl { seconds: u64 },
    /// `max BYTES`: what the files of the directory may come to.
    Max(u64),
    /// `grant WHO [ro|rw]`: show it in this node's tree.
    Grant { who: String, access: Option<Access> },
    /// `revoke [WHO]`: take back one grant, or all of them and the capability.
    Revoke { who: Option<String> },
    /// `free`: end the export.
    Free,
}

/// The verb of a line of `ctl`.
pub fn parse(words: &[String]) -> Result<Verb, Error> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["grant", who, path, ref rest @ ..] => {
            let (mut access, mut max) = (None, None);
            for word in rest {
                match word.strip_prefix("max=") {
                    Some(bytes) if max.is_none() => max = Some(size(bytes)?),
                    None if access.is_none() => access = Some(access_of(word).ok_or_else(|| usage(&words, GRANT))?),
                    _ => return Err(usage(&words, GRANT)),
                }
            }
            Ok(Verb::Grant { who: who.to_owned(), path: path.to_owned(), access, max })
        }
        ["revoke", who, path] => Ok(Verb::Revoke { who: who.to_owned(), path: path.to_owned() }),
        ["grant", ..] => Err(usage(&words, GRANT)),
        ["revoke", ..] => Err(usage(&words, "revoke PEER|NAME|any PATH")),
        _ => Err(usage(&words, "grant PEER|NAME|any PATH [ro|rw] [max=BYTES]\" or \"revoke PEER|NAME|any PATH")),
    }
}

const GRANT: &str = "grant PEER|NAME|any PATH [ro|rw] [max=BYTES]";

/// The verb of a line of `{m}/ctl`.
pub fn parse_export(words: &[String]) -> Result<ExportVerb, Error> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let want = match words[..] {
        ["bind", path, name] => return Ok(ExportVerb::Bind { path: path.to_owned(), name: name.to_owned() }),
        ["ro"] => return Ok(ExportVerb::Access(Access::Ro)),
        ["rw"] => return Ok(ExportVerb::Access(Access::Rw)),
        ["to", who] => return Ok(ExportVerb::To { who: who.to_owned() }),
        ["uses", n] => return Ok(ExportVerb::Uses(number("uses", n, 1, u64::MAX)?)),
        ["ttl", s] => return Ok(ExportVerb::Ttl { seconds: number("ttl", s, 1, TTL_S_MAX)? }),
        ["max", bytes] => return Ok(ExportVerb::Max(size(bytes)?)),
        ["grant", who] => return Ok(ExportVerb::Grant { who: who.to_owned(), access: None }),
        ["grant", who, access] if access_of(access).is_some() => {
            return Ok(ExportVerb::Grant { who: who.to_owned(), access: access_of(access) });
        }
        ["revoke"] => return Ok(ExportVerb::Revoke { who: None }),
        ["revoke", who] => return Ok(ExportVerb::Revoke { who: Some(who.to_owned()) }),
        ["free"] => return Ok(ExportVerb::Free),
        ["bind", ..] => "bind PATH /NAME",
        ["ro" | "rw" | "free", ..] => "ro\", \"rw\" or \"free\" alone",
        ["to", ..] => "to PEER|NAME|any",
        ["uses", ..] => "uses N",
        ["ttl", ..] => "ttl SECONDS",
        ["max", ..] => "max BYTES",
        ["grant", ..] => "grant PEER|NAME|any [ro|rw]",
        ["revoke", ..] => "revoke [PEER|NAME|any]",
        _ => "bind, ro, rw, to, uses, ttl, max, grant, revoke or free",
    };
    Err(usage(&words, want))
}

fn usage(words: &[&str], want: &'static str) -> Error {
    let got: String = words.join(" ").chars().take(80).collect();
    Error::Usage { got, want }
}

/// `ro` or `rw`.
pub fn access_of(word: &str) -> Option<Access> {
    match word {
        "ro" => Some(Access::Ro),
        "rw" => Some(Access::Rw),
        _ => None,
    }
}

fn number(what: &'static str, word: &str, min: u64, max: u64) -> Result<u64, Error> {
    let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let n = digits.then(|| word.parse().ok()).flatten().filter(|n| (min..=max).contains(n));
    n.ok_or_else(|| Error::Number { what, got: word.chars().take(80).collect(), min, max })
}

/// Bytes: digits, and K, M, G or T for powers of 1024.
pub fn size(word: &str) -> Result<u64, Error> {
    let (digits, shift) = match word.as_bytes().last() {
        Some(b'K') => (&word[..word.len() - 1], 10),
        Some(b'M') => (&word[..word.len() - 1], 20),
        Some(b'G') => (&word[..word.len() - 1], 30),
        Some(b'T') => (&word[..word.len() - 1], 40),
        _ => (word, 0),
    };
    Ok(number("max", digits, 0, u64::MAX >> shift)? << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        fs_tree::words(text).unwrap()
    }

    #[test]
    fn lines_of_ctl() {
        for (line, want) in [
            ("grant ann /cpu", r#"Grant { who: "ann", path: "/cpu", access: None, max: None }"#),
            ("grant ann /d rw max=2K", r#"Grant { who: "ann", path: "/d", access: Some(Rw), max: Some(2048) }"#),
            ("grant ann /d max=7 ro", r#"Grant { who: "ann", path: "/d", access: Some(Ro), max: Some(7) }"#),
            ("grant ann '/a b'", r#"Grant { who: "ann", path: "/a b", access: None, max: None }"#),
            ("revoke ann /cpu", r#"Revoke { who: "ann", path: "/cpu" }"#),
            ("grant", "write \"grant PEER|NAME|any PATH [ro|rw] [max=BYTES]\""),
            ("grant ann", "write \"grant PEER"),
            ("grant ann /d wo", "\"grant ann /d wo\" is not understood; write \"grant PEER"),
            ("grant ann /d ro rw", "write \"grant PEER"),
            ("grant ann /d max=1 max=2", "write \"grant PEER"),
            ("grant ann /d max=", "max is a number from 0"),
            ("grant ann /d max=-1", "max is a number from 0"),
            ("grant ann /d max=1k", "max is a number from 0"),
            ("grant ann /d max=18446744073709551615K", "max is a number from 0 to 18014398509481983"),
            ("revoke ann", "write \"revoke PEER|NAME|any PATH\""),
            ("revoke ann /a b", "write \"revoke PEER|NAME|any PATH\""),
            ("deny x", "or \"revoke PEER|NAME|any PATH\""),
        ] {
            let got = parse(&words(line)).map_or_else(|e| e.to_string(), |v| format!("{v:?}"));
            assert!(got.contains(want), "{line}: {got}");
        }
    }

    #[test]
    fn lines_of_an_exports_ctl() {
        for (line, want) in [
            ("bind /home/me/p /p", r#"Bind { path: "/home/me/p", name: "/p" }"#),
            ("ro", "Access(Ro)"),
            ("rw", "Access(Rw)"),
            ("to ann", r#"To { who: "ann" }"#),
            ("uses 3", "Uses(3)"),
            ("ttl 60", "Ttl { seconds: 60 }"),
            ("max 1G", "Max(1073741824)"),
            ("max 0", "Max(0)"),
            ("grant ann", r#"Grant { who: "ann", access: None }"#),
            ("grant ann rw", r#"Grant { who: "ann", access: Some(Rw) }"#),
            ("revoke", "Revoke { who: None }"),
            ("revoke ann", r#"Revoke { who: Some("ann") }"#),
            ("free", "Free"),
            ("bind /home/me/p", "write \"bind PATH /NAME\""),
            ("ro now", "\"ro now\" is not understood"),
            ("free 3", "is not understood"),
            ("to", "write \"to PEER|NAME|any\""),
            ("uses 0", "uses is a number from 1"),
            ("uses many", "uses is a number from 1 to 18446744073709551615, not \"many\""),
            ("uses +1", "uses is a number"),
            ("ttl 0", "ttl is a number from 1 to 31622400"),
            ("ttl 31622401", "ttl is a number from 1 to 31622400"),
            ("max", "write \"max BYTES\""),
            ("grant ann xx", "write \"grant PEER|NAME|any [ro|rw]\""),
            ("deny .*", "write \"bind, ro, rw, to, uses, ttl, max, grant, revoke or free\""),
        ] {
            let got = parse_export(&words(line)).map_or_else(|e| e.to_string(), |v| format!("{v:?}"));
            assert!(got.contains(want), "{line}: {got}");
        }
    }
}
