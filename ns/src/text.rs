//! namespace(6) text both ways: lines in, the table out.
//!
//! What is printed makes an equal table when it is read by an empty name space with the same devices: a member is named by
//! the path it was bound by where that path leads to it at this point of the text, else by its device. A capability's
//! secret is printed as `*` unless asked for.

mod print;

use std::collections::HashMap;

use fs_ninep::Name;

use crate::Error;
use crate::path;
use crate::table::{Flags, Order};

pub use print::{device, line, name, print, redact};

/// The longest text read at once, in bytes: one write to `ns`, one file named by `. file`.
pub const TEXT_MAX: usize = 65536;

/// One command of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the text, from 1.
    pub number: usize,
    /// What it says.
    pub command: Command,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `bind [-abcCf] new old`.
    Bind {
        /// The flags.
        flags: Flags,
        /// What.
        new: New,
        /// Over what.
        old: Vec<Name>,
    },
    /// `mount [-abcCf] source old [spec]`.
    Mount {
        /// The flags.
        flags: Flags,
        /// What.
        source: String,
        /// Over what.
        old: Vec<Name>,
        /// The attach name.
        spec: String,
    },
    /// `unmount [new] old`.
    Unmount {
        /// The member, or all.
        new: Option<String>,
        /// Where.
        old: Vec<Name>,
    },
    /// `clear`.
    Clear,
    /// `nomnt`.
    Nomnt,
    /// `. file`: the lines of a file of this name space.
    Include(Vec<Name>),
}

/// What a bind names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum New {
    /// A path of this name space.
    Path(Vec<Name>),
    /// `#device/names`.
    Device(String, Vec<Name>),
}

impl New {
    /// The file that the word `text` names.
    /// # Errors
    /// `Path`.
    pub fn parse(text: &str) -> Result<New, Error> {
        Ok(match text.strip_prefix('#') {
            None => New::Path(path::parse(text)?),
            Some(device) => {
                let (name, rest) = device.split_once('/').unwrap_or((device, ""));
                New::Device(name.to_owned(), path::parse(rest)?)
            }
        })
    }
}

/// The commands of `text`. `$name` becomes what `vars` says.
/// # Errors
/// `Line` for the first line that makes no sense.
pub fn parse(text: &str, vars: &HashMap<String, String>) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let number = i + 1;
        let at = |why| Error::Line { number, why: Box::new(why) };
        if let Some(command) = words(line, vars).and_then(|words| command(&words)).map_err(at)? {
            lines.push(Line { number, command });
        }
    }
    Ok(lines)
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// The words of a line: split on blanks, quoted as rc does. `#` as a word, or first in the line, begins a comment.
fn words(line: &str, vars: &HashMap<String, String>) -> Result<Vec<String>, Error> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|&c| blank(c)).is_some() {}
        let Some(&first) = chars.peek() else { return Ok(words) };
        if first == '#' {
            let mut ahead = chars.clone();
            ahead.next();
            if words.is_empty() || ahead.next().is_none_or(blank) {
                return Ok(words);
            }
        }
        let mut word = String::new();
        while let Some(c) = chars.next_if(|&c| !blank(c)) {
            match c {
                '\'' => quoted(&mut chars, &mut word)?,
                '$' => {
                    let mut name = String::new();
                    while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                    word += vars.get(&name).ok_or(Error::Variable { name })?;
                }
                c => word.push(c),
            }
        }
        words.push(word);
    }
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) -> Result<(), Error> {
    loop {
        match chars.next().ok_or(Error::Quote)? {
            '\'' if chars.next_if_eq(&'\'').is_some() => word.push('\''),
            '\'' => return Ok(()),
            c => word.push(c),
        }
    }
}

/// `word` so that it is read back as one word.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/.-_:@%+,=*~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "''"))
    }
}

fn command(words: &[String]) -> Result<Option<Command>, Error> {
    const BIND: &str = "bind [-abcCf] new old";
    const MOUNT: &str = "mount [-abcCf] source old [spec]";
    let Some((verb, rest)) = words.split_first() else { return Ok(None) };
    let command = match verb.as_str() {
        "bind" => match flags(rest)? {
            (flags, [new, old]) => Command::Bind { flags, new: New::parse(new)?, old: over(old)? },
            _ => return Err(Error::Usage { usage: BIND }),
        },
        "mount" => match flags(rest)? {
            (flags, [source, old]) => mount(flags, source, old, "")?,
            (flags, [source, old, spec]) => mount(flags, source, old, spec)?,
            _ => return Err(Error::Usage { usage: MOUNT }),
        },
        "unmount" => match rest {
            [old] => Command::Unmount { new: None, old: over(old)? },
            [new, old] => Command::Unmount { new: Some(new.clone()), old: over(old)? },
            _ => return Err(Error::Usage { usage: "unmount [new] old" }),
        },
        "clear" if rest.is_empty() => Command::Clear,
        "clear" => return Err(Error::Usage { usage: "clear" }),
        "nomnt" if rest.is_empty() => Command::Nomnt,
        "nomnt" => return Err(Error::Usage { usage: "nomnt" }),
        "." => match rest {
            [file] => Command::Include(over(file)?),
            _ => return Err(Error::Usage { usage: ". file" }),
        },
        "cd" => return Ok(None),
        _ => return Err(Error::Word { word: verb.clone() }),
    };
    Ok(Some(command))
}

fn mount(flags: Flags, source: &str, old: &str, spec: &str) -> Result<Command, Error> {
    Ok(Command::Mount { flags, source: source.to_owned(), old: over(old)?, spec: spec.to_owned() })
}

fn over(word: &str) -> Result<Vec<Name>, Error> {
    if word.starts_with('#') {
        return Err(Error::OldDevice { path: word.to_owned() });
    }
    path::parse(word)
}

fn flags(words: &[String]) -> Result<(Flags, &[String]), Error> {
    let mut flags = Flags::default();
    let mut rest = words;
    while let [first, tail @ ..] = rest {
        let Some(letters) = first.strip_prefix('-').filter(|l| !l.is_empty()) else { break };
        for flag in letters.chars() {
            let order = match flag {
                'a' => Order::After,
                'b' => Order::Before,
                'c' => {
                    flags.create = true;
                    continue;
                }
                'C' => {
                    flags.cache = true;
                    continue;
                }
                'f' => {
                    flags.force = true;
                    continue;
                }
                flag => return Err(Error::Flag { flag }),
            };
            if flags.order != Order::Replace && flags.order != order {
                return Err(Error::Order);
            }
            flags.order = order;
        }
        rest = tail;
    }
    Ok((flags, rest))
}
