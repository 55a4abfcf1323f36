//! The table as text, a command as text.

use std::collections::BTreeMap;

use fs_ninep::Name;

use super::{Command, New, quote};
use crate::path::absolute;
use crate::table::{Base, Flags, Head, Member, Order, Origin, Table};

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
