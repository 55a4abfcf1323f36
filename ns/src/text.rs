//! namespace(6) text both ways: lines in, the table out.
//!
//! What is printed makes an equal table when it is read by an empty name space with the same devices: a member is named by
//! the path it was bound by where that path leads to it at this point of the text, else by its device. A capability's
//! secret is printed as `*` unless asked for.

use std::collections::{BTreeMap, HashMap};

use fs_ninep::Name;

use crate::Error;
use crate::path::{self, absolute};
use crate::table::{Base, Flags, Head, Member, Order, Origin, Table};

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

/// `source` with what follows a `#` hidden.
pub fn redact(source: &str) -> String {
    match source.split_once('#') {
        Some((public, _)) => format!("{public}#*"),
        None => source.to_owned(),
    }
}

/// Where a member comes from, for people: its path or device, secrets hidden.
pub fn name<L>(member: &Member<L>) -> String {
    match (&member.written, &member.origin.base) {
        (Some(path), _) => absolute(path),
        (None, Base::Device(name)) => device(name, &member.origin.names),
        (None, Base::Mount { source, .. }) => redact(source),
    }
}

/// `names` in the device `name`.
pub fn device(name: &str, names: &[Name]) -> String {
    names.iter().fold(format!("#{name}"), |text, name| format!("{text}/{name}"))
}

/// A command as a line of text, secrets hidden.
pub fn line(command: &Command) -> String {
    match command {
        Command::Bind { flags, new, old } => {
            let new = match new {
                New::Path(names) => absolute(names),
                New::Device(name, names) => device(name, names),
            };
            words_line("bind", *flags, &[&new, &absolute(old)])
        }
        Command::Mount { flags, source, old, spec } => mount_line(*flags, &redact(source), &absolute(old), spec),
        Command::Unmount { new: None, old } => format!("unmount {}", quote(&absolute(old))),
        Command::Unmount { new: Some(new), old } => {
            let new = if new.starts_with('#') { new.clone() } else { redact(new) };
            format!("unmount {} {}", quote(&new), quote(&absolute(old)))
        }
        Command::Clear => "clear".to_owned(),
        Command::Nomnt => "nomnt".to_owned(),
        Command::Include(file) => format!(". {}", quote(&absolute(file))),
    }
}

fn mount_line(flags: Flags, source: &str, old: &str, spec: &str) -> String {
    match spec {
        "" => words_line("mount", flags, &[source, old]),
        spec => words_line("mount", flags, &[source, old, spec]),
    }
}

fn words_line(verb: &str, flags: Flags, words: &[&str]) -> String {
    let mut line = verb.to_owned();
    let letters: String = [
        (flags.order == Order::After, 'a'),
        (flags.order == Order::Before, 'b'),
        (flags.create, 'c'),
        (flags.cache, 'C'),
        (flags.force, 'f'),
    ]
    .iter()
    .filter_map(|&(on, letter)| on.then_some(letter))
    .collect();
    if !letters.is_empty() {
        line = format!("{line} -{letters}");
    }
    words.iter().fold(line, |line, word| format!("{line} {}", quote(word)))
}

/// The table as text; `note` is what to say of a member in a comment, `secrets` whether to print them.
pub fn print<L: Clone>(table: &Table<L>, secrets: bool, note: impl Fn(&Member<L>) -> Option<String>) -> String {
    let mut out = Printer { table, done: BTreeMap::new(), text: String::new(), secrets, note: &note };
    let mut members: Vec<_> = table
        .heads()
        .flat_map(|(old, head)| head.members.iter().enumerate().map(move |(i, m)| (m.seq, old.as_slice(), i)))
        .collect();
    members.sort_unstable();
    for (_, old, i) in members {
        out.member(old, i);
    }
    if table.locked() {
        out.text += "nomnt\n";
    }
    out.text
}

/// What a reader of the text would have by now.
struct Printer<'t, L> {
    table: &'t Table<L>,
    /// The members printed already, by mount point.
    done: BTreeMap<&'t [Name], Vec<usize>>,
    text: String,
    secrets: bool,
    note: &'t dyn Fn(&Member<L>) -> Option<String>,
}

impl<'t, L: Clone> Printer<'t, L> {
    fn member(&mut self, old: &'t [Name], i: usize) {
        if self.done.get(old).is_some_and(|done| done.contains(&i)) {
            return;
        }
        for depth in 1..old.len() {
            if let Some(head) = self.table.head(&old[..depth])
                && !self.done.contains_key(&old[..depth])
            {
                self.member(&old[..depth], first(head));
            }
        }
        let Some(head) = self.table.head(old) else { return };
        if !self.done.contains_key(old) && self.joins(old, head, i) {
            self.done.insert(old, vec![i]);
            let next = (0..head.members.len()).filter(|&j| j != i).min_by_key(|&j| head.members[j].seq);
            return next.into_iter().for_each(|j| self.member(old, j));
        }
        self.line(old, head, i);
        self.done.entry(old).or_default().push(i);
    }

    /// Whether this member is what stood at `old` itself, and comes by itself when the next one is bound.
    fn joins(&self, old: &[Name], head: &Head<L>, i: usize) -> bool {
        let member = &head.members[i];
        member.flags == Flags::default() && head.members.len() > 1 && self.origin(old) == Some(&member.origin).cloned()
    }

    /// Where `path` leads for a reader of the text so far.
    fn origin(&self, path: &[Name]) -> Option<Origin> {
        let (depth, done) = (1..=path.len()).rev().find_map(|d| Some((d, self.done.get(&path[..d])?)))?;
        match done[..] {
            [only] => Some(self.table.head(&path[..depth])?.members[only].origin.join(&path[depth..])),
            _ => None,
        }
    }

    /// Whether `origin` is, or may be, a directory that `old` lies in by now: it must be bound by force then, though it was
    /// none when it was bound first, or came by itself.
    fn inside(&self, old: &[Name], origin: &Origin) -> bool {
        (1..old.len()).any(|depth| {
            let Some((start, head)) = self.table.nearest(&old[..depth]) else { return false };
            head.members.iter().any(|m| m.origin.join(&old[start..depth]) == *origin)
        })
    }

    fn line(&mut self, old: &[Name], head: &Head<L>, i: usize) {
        let member = &head.members[i];
        let order = match self.done.get(old).and_then(|done| done.first()) {
            None => Order::Replace,
            Some(&other) if other < i => Order::After,
            Some(_) => Order::Before,
        };
        let force = member.flags.force || self.inside(old, &member.origin);
        let flags = Flags { order, force, ..member.flags };
        let over = absolute(old);
        let written = member.written.as_deref().filter(|path| self.origin(path).as_ref() == Some(&member.origin));
        let line = match (written, &member.origin.base) {
            (Some(path), _) => words_line("bind", flags, &[&absolute(path), &over]),
            (None, Base::Device(name)) => words_line("bind", flags, &[&device(name, &member.origin.names), &over]),
            (None, Base::Mount { source, spec }) => {
                let source = if self.secrets { source.clone() } else { redact(source) };
                match &member.origin.names[..] {
                    [] => mount_line(flags, &source, &over, spec),
                    // A file inside a mount that stands nowhere any more: it stands at a name of its own for a moment.
                    names => {
                        let plain = Flags::default();
                        let inner = words_line("bind", flags, &[&format!("{SCRATCH}{}", absolute(names)), &over]);
                        format!("{}\n{inner}\nunmount {SCRATCH}", mount_line(plain, &source, SCRATCH, spec))
                    }
                }
            }
        };
        self.text += &line;
        if let Some(note) = (self.note)(member) {
            self.text += "  # ";
            self.text += &note;
        }
        self.text.push('\n');
    }
}

/// A mount point that text uses for a moment.
const SCRATCH: &str = "/.scratch";

fn first<L>(head: &Head<L>) -> usize {
    (0..head.members.len()).min_by_key(|&i| head.members[i].seq).unwrap_or(0)
}
