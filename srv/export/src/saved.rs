//! export: the file that grants are kept in: one record a line, as a person reads it. Form: export(4), "The grants file".
//!
//! What is not in it: exports without grants, and every capability, for those are good until the node stops.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use fs_ninep::{Name, PeerId};
use fs_tree::{quote, words};

use crate::error::Error;
use crate::state::{Export, ExportId, Secret, Shown, State, What, Who};
use crate::verbs;

/// The longest file that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;

const HEAD: &str = "ipos exports 1";

/// The text of what of `state` is kept.
pub fn encode(state: &State) -> String {
    let mut text = format!("{HEAD}\n");
    let mut records = 0;
    let mut record = |line: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
        records += 1;
    };
    for (id, export) in state.exports.iter().filter(|(id, _)| state.holders(**id).next().is_some()) {
        let Some(Shown { path, name }) = &export.shown else { continue };
        let mut line = format!("export {id} {} {}", quote(&path.to_string_lossy()), quote(&format!("/{name}")));
        if let Some(max) = export.max {
            let _ = write!(line, " max={max}");
        }
        line.push_str(if export.by_grant { " grant" } else { " clone" });
        record(line);
    }
    for ((what, who), access) in &state.grants {
        let what = match what {
            What::Tree(name) => quote(&format!("/{name}")),
            What::Export(id) => id.to_string(),
        };
        record(format!("grant {who} {what} {access}"));
    }
    let _ = writeln!(text, "end {records}");
    text
}

/// The state in `text`; each export gets a new secret.
/// # Errors
/// The line, from 1, and what is wrong with it.
pub fn decode(text: &str, mut secret: impl FnMut() -> Result<Secret, Error>) -> Result<State, Bad> {
    let mut state = State::default();
    let mut lines = text.lines().zip(1..);
    if lines.next().map(|(line, _)| line) != Some(HEAD) {
        return Err(Bad::Line(1, format!("not \"{HEAD}\"")));
    }
    let mut last = 1;
    for (records, (text, line)) in lines.by_ref().enumerate() {
        last = line;
        let bad = |why: &str| Bad::Line(line, why.to_owned());
        let words = words(text).map_err(|e| bad(&e.to_string()))?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["end", n] if n == records.to_string() => {
                let after = |(_, line)| Err(Bad::Line(line, "text after the end".into()));
                return lines.next().map_or(Ok(state), after);
            }
            ["end", n] => return Err(bad(&format!("{n} records were written, {records} are there"))),
            ["export", id, path, name, ref rest @ ..] => {
                let (id, export) =
                    export(id, path, name, rest, secret().map_err(Bad::Random)?).ok_or(bad("not an export"))?;
                if state.exports.contains_key(&id) {
                    return Err(bad("a second export of this number"));
                }
                state.restore(id, export);
            }
            ["grant", who, what, access] => {
                let who = if who == "any" { Who::Any } else { Who::Peer(PeerId::new(who)) };
                let what = match what.strip_prefix('/') {
                    Some(tree) if Name::new(tree.to_owned()).is_ok() => What::Tree(tree.to_owned()),
                    _ => What::Export(state.find(what).map_err(|e| bad(&e.to_string()))?),
                };
                let access = verbs::access_of(access).ok_or_else(|| bad("neither ro nor rw"))?;
                if state.grants.insert((what, who), access).is_some() {
                    return Err(bad("a second grant of the same to the same"));
                }
            }
            _ => return Err(bad("neither export, grant nor end")),
        }
    }
    Err(Bad::Line(last + 1, "the end is missing".into()))
}

/// Why a text is not what [`encode`] writes.
#[derive(Debug)]
pub enum Bad {
    Line(usize, String),
    Random(Error),
}

fn export(id: &str, path: &str, name: &str, rest: &[&str], secret: Secret) -> Option<(ExportId, Export)> {
    let mut export = Export::new(secret, 0);
    let mut made = None;
    for word in rest {
        match (word.strip_prefix("max="), *word) {
            (Some(max), _) if export.max.is_none() => export.max = Some(max.parse().ok()?),
            (None, "grant" | "clone") if made.is_none() => made = Some(*word == "grant"),
            _ => return None,
        }
    }
    let name = name.strip_prefix('/').filter(|n| Name::new((*n).to_owned()).is_ok())?.to_owned();
    let path = Some(PathBuf::from(path)).filter(|p| p.is_absolute())?;
    (export.shown, export.by_grant) = (Some(Shown { path, name }), made?);
    Some((ExportId(id.parse().ok()?), export))
}

/// Reads the file; none yet is no grants.
pub fn load(path: &Path, secret: impl FnMut() -> Result<Secret, Error>) -> Result<State, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let damaged = |line, why| Error::Damaged { path: path.to_owned(), line, why };
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(State::default()),
        file => file.map_err(io)?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(damaged(1, format!("over {FILE_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        damaged(line, "not UTF-8 text".into())
    })?;
    decode(&text, secret).map_err(|bad| match bad {
        Bad::Line(line, why) => damaged(line, why),
        Bad::Random(e) => e,
    })
}

/// Replaces the file: durable when it returns, old or new whatever happens.
pub fn save(path: &Path, text: &str) -> Result<(), Error> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| Error::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Result<Secret, Error> {
        Ok(Secret([7; 16]))
    }

    const TEXT: &str = "ipos exports 1\n\
        export 3 /home/ann/photos /p max=100 clone\n\
        export 4 '/home/ann/the books' '/the books' grant\n\
        grant any /cpu ro\n\
        grant 12D3KooWann /cpu rw\n\
        grant 12D3KooWann 3 ro\n\
        grant 12D3KooWbob 4 rw\n\
        end 6\n";

    #[test]
    fn what_is_written_is_read() {
        let state = decode(TEXT, secret).unwrap();
        assert_eq!(encode(&state), TEXT);
        assert_eq!((state.exports.len(), state.grants.len()), (2, 4));
        let empty = encode(&State::default());
        assert_eq!(empty, "ipos exports 1\nend 0\n");
        assert!(decode(&empty, secret).unwrap().grants.is_empty());
    }

    #[test]
    fn exports_without_grants_are_not_kept() {
        let mut state = decode(TEXT, secret).unwrap();
        state.grants.retain(|(what, _), _| *what != What::Export(ExportId(3)));
        assert!(!encode(&state).contains("photos"));
    }

    #[test]
    fn a_damaged_file_is_refused_by_name_and_line_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("exports");
        assert!(load(&path, secret).unwrap().exports.is_empty());
        let line = |n: usize, text: &str| {
            let mut lines: Vec<&str> = TEXT.lines().collect();
            lines[n - 1] = text;
            lines.join("\n") + "\n"
        };
        let cases = [
            (String::new(), "line 1: not \"ipos exports 1\""),
            (line(1, "ipos exports 2"), "line 1: not"),
            (line(2, "export 3 photos /p clone"), "line 2: not an export"),
            (line(2, "export x /photos /p clone"), "line 2: not an export"),
            (line(2, "export 3 /photos /.. clone"), "line 2: not an export"),
            (line(2, "export 3 /photos /p"), "line 2: not an export"),
            (line(2, "export 3 /photos /p max=x clone"), "line 2: not an export"),
            (line(2, "export 3 '/photos"), "line 2"),
            (line(2, ""), "line 2: neither export, grant nor end"),
            (line(3, "export 3 /x /x clone"), "line 3: a second export"),
            (line(4, "grant any /cpu"), "line 4: neither"),
            (line(4, "grant any /cpu wo"), "line 4: neither ro nor rw"),
            (line(5, "grant any /cpu rw"), "line 5: a second grant"),
            (line(6, "grant 12D3KooWann 9 ro"), "line 6: no export 9"),
            (line(8, "end 5"), "line 8: 5 records were written, 6 are there"),
            (TEXT.replace("grant any /cpu ro\n", ""), "line 7: 6 records were written, 5 are there"),
            (TEXT[..TEXT.len() - 6].to_owned(), "line 8: the end is missing"),
            (format!("{TEXT}grant any /x ro\n"), "line 9: text after the end"),
        ];
        for (text, want) in cases {
            fs::write(&path, &text).unwrap();
            let e = load(&path, secret).err().unwrap_or_else(|| panic!("{want}")).to_string();
            assert!(e.contains(want) && e.starts_with(&*path.to_string_lossy()), "{e}, not {want}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, b"ipos exports 1\n\xff\n").unwrap();
        assert!(load(&path, secret).err().unwrap().to_string().contains("line 2: not UTF-8"));
    }

    /// No cut of the file is taken for a whole one.
    #[test]
    fn no_beginning_is_whole() {
        for end in 0..TEXT.len() - 1 {
            assert!(decode(&TEXT[..end], secret).is_err(), "{end}");
        }
    }

    #[test]
    fn a_save_that_fails_leaves_the_old() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("exports");
        save(&path, "old").unwrap();
        fs::create_dir(home.path().join("exports.new")).unwrap();
        assert!(save(&path, "new").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        fs::remove_dir(home.path().join("exports.new")).unwrap();
        save(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
