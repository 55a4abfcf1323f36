//! The words of a job's ctl: parsed all before one is obeyed.

use std::sync::Arc;
use std::time::Duration;

use fs_tree::Line;

use crate::job::{ARG_COST, ARGS_MAX, Job, Phase, Source, Spec, SpoolFull};
use crate::table::Table;
use crate::{Error, Result, run};

/// One word with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    Kind,
    Exec(Vec<String>),
    Start,
    Dir(String),
    Stdin(Source),
    Stdout(String),
    Stderr(String),
    Limit(String, String),
    SpoolFull(SpoolFull),
    Linger(Duration),
    Note(i32),
    Stop,
    Cont,
    Eof,
    KeepStdin,
    Kill,
    Free,
    Renew(Duration),
    Release,
}

/// A year: longer terms are mistakes.
const TERM_MAX_S: u64 = 365 * 86_400;

impl Verb {
    /// What `line` asks for.
    /// # Errors
    /// `Word`, `Usage`, `Unsupported`.
    pub fn parse(line: &Line) -> Result<Verb> {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let usage = |usage| Err(Error::Usage { usage });
        let seconds = |text: &str| text.parse::<u64>().ok().filter(|s| *s <= TERM_MAX_S).map(Duration::from_secs);
        Ok(match &words[..] {
            ["kind", "wasm"] => Verb::Kind,
            ["kind", "native"] => {
                return Err(Error::Unsupported { word: "kind native", why: "this node runs wasm jobs only, see info" });
            }
            ["kind", ..] => return usage("kind wasm"),
            ["exec", _, ..] => Verb::Exec(line.words[1..].to_vec()),
            ["exec"] => return usage("exec PROGRAM ARG..."),
            ["start"] => Verb::Start,
            ["dir", path] => Verb::Dir((*path).to_owned()),
            ["dir", ..] => return usage("dir PATH"),
            ["stdin", "null"] => Verb::Stdin(Source::Null),
            ["stdin", path] => Verb::Stdin(Source::Path((*path).to_owned())),
            ["stdin", ..] => return usage("stdin PATH|null"),
            ["stdout", path] => Verb::Stdout((*path).to_owned()),
            ["stdout", ..] => return usage("stdout PATH"),
            ["stderr", path] => Verb::Stderr((*path).to_owned()),
            ["stderr", ..] => return usage("stderr PATH"),
            ["limit", name, value] => Verb::Limit((*name).to_owned(), (*value).to_owned()),
            ["limit", ..] => return usage("limit fuel|cpu|wall|mem|disk|spool|files VALUE"),
            ["spoolfull", "kill"] => Verb::SpoolFull(SpoolFull::Kill),
            ["spoolfull", "block"] => Verb::SpoolFull(SpoolFull::Block),
            ["spoolfull", ..] => return usage("spoolfull kill|block"),
            ["killonclose"] => {
                return Err(Error::Unsupported {
                    word: "killonclose",
                    why: "a job is not tied to a descriptor here: see linger",
                });
            }
            ["linger", s] => match seconds(s) {
                Some(term) => Verb::Linger(term),
                None => return usage("linger SECONDS"),
            },
            ["linger", ..] => return usage("linger SECONDS"),
            ["note", "interrupt"] => Verb::Note(libc::SIGINT),
            ["note", "term"] => Verb::Note(libc::SIGTERM),
            ["note", "hup"] => Verb::Note(libc::SIGHUP),
            ["note", ..] => return usage("note interrupt|term|hup"),
            ["stop"] => Verb::Stop,
            ["cont"] => Verb::Cont,
            ["eof"] => Verb::Eof,
            ["keepstdin"] => Verb::KeepStdin,
            ["kill"] => Verb::Kill,
            ["free"] => Verb::Free,
            ["renew", s] => match seconds(s) {
                Some(term) => Verb::Renew(term),
                None => return usage("renew SECONDS"),
            },
            ["renew", ..] => return usage("renew SECONDS"),
            ["release"] => Verb::Release,
            [word, ..] => return Err(Error::Word { word: (*word).to_owned() }),
            [] => return Err(Error::Word { word: String::new() }),
        })
    }

    /// Changes what the job is to be, or refuses, without effect on the job itself.
    fn prepare(&self, job: &Job, spec: &mut Spec) -> Result<()> {
        match self {
            Verb::Kind => job.must_be_new("kind")?,
            Verb::Exec(args) => {
                job.must_be_new("exec")?;
                check_size(args, &spec.env)?;
                spec.args = args.clone();
            }
            Verb::Start => {
                job.must_be_new("start")?;
                if spec.args.is_empty() {
                    return Err(Error::NoProgram);
                }
            }
            Verb::Dir(path) => {
                job.must_be_new("dir")?;
                spec.dir = path.clone();
            }
            Verb::Stdin(source) => {
                job.must_be_new("stdin")?;
                spec.stdin = source.clone();
            }
            Verb::Stdout(path) => {
                job.must_be_new("stdout")?;
                spec.stdout = Some(path.clone());
            }
            Verb::Stderr(path) => {
                job.must_be_new("stderr")?;
                spec.stderr = Some(path.clone());
            }
            Verb::Limit(name, value) => {
                if !matches!(name.as_str(), "spool" | "wall" | "disk") {
                    job.must_be_new("limit")?;
                }
                spec.limits.set(name, value)?;
            }
            Verb::SpoolFull(what) => spec.spool_full = *what,
            Verb::Linger(term) => spec.linger = *term,
            Verb::Note(_) => job.must_run("note")?,
            Verb::Stop => job.must_run("stop")?,
            Verb::Cont => job.must_run("cont")?,
            Verb::Eof | Verb::KeepStdin | Verb::Kill | Verb::Free | Verb::Renew(_) | Verb::Release => {}
        }
        Ok(())
    }

    /// Obeys what `prepare` let pass.
    async fn obey(&self, table: &Arc<Table>, job: &Arc<Job>) {
        match self {
            Verb::Note(signal) => job.signal(*signal),
            Verb::Stop => job.freeze(true),
            Verb::Cont => job.freeze(false),
            Verb::Eof => job.input.end(),
            Verb::KeepStdin => job.input.stay(),
            Verb::Kill => kill(table, job).await,
            Verb::Free => {
                kill(table, job).await;
                table.forget(job);
            }
            Verb::Renew(term) => job.renew(*term),
            Verb::Release => job.release(),
            _ => {}
        }
    }

    fn starts(&self) -> bool {
        matches!(self, Verb::Exec(_) | Verb::Start)
    }
}

/// Kills `job`, waits until its process is gone, and sees to it that a job that never ran is forgotten in time too.
pub async fn kill(table: &Arc<Table>, job: &Arc<Job>) {
    let never_ran = matches!(job.phase(), Phase::New);
    job.kill().await;
    if never_ran {
        table.keep(job);
    }
}

/// Refuses more text than one message to a job's process carries.
/// # Errors
/// `TooLong`.
pub fn check_size(args: &[String], env: &[String]) -> Result<()> {
    let len = args.iter().chain(env).map(|s| s.len() + ARG_COST).sum();
    if len > ARGS_MAX { Err(Error::TooLong { what: "arguments and environment", len, max: ARGS_MAX }) } else { Ok(()) }
}

/// Obeys the lines of one write to `job`'s ctl: all of them, or none.
/// # Errors
/// The first line's that cannot be obeyed; a start that fails leaves the job as it was before the write.
pub async fn obey(table: &Arc<Table>, job: &Arc<Job>, lines: &[Line]) -> Result<()> {
    let verbs: Vec<Verb> = lines.iter().map(Verb::parse).collect::<Result<_>>()?;
    let before = job.spec().clone();
    let mut spec = before.clone();
    let mut starts = false;
    for verb in &verbs {
        if starts && !matches!(verb, Verb::Eof | Verb::KeepStdin | Verb::Renew(_) | Verb::Release) {
            return Err(Error::Order { word: "a word after exec", phase: "started by this write", need: "new" });
        }
        verb.prepare(job, &mut spec)?;
        starts |= verb.starts();
    }
    *job.spec() = spec.clone();
    job.space.scratch.set_max(spec.limits.disk);
    if starts && let Err(e) = run::start(table, job, spec).await {
        job.space.scratch.set_max(before.limits.disk);
        *job.spec() = before;
        return Err(e);
    }
    job.changed.notify_waiters();
    for verb in &verbs {
        verb.obey(table, job).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Verb, &str>) {
        let words = fs_tree::words(text).unwrap();
        let got = Verb::parse(&Line { text: text.to_owned(), words });
        match expected {
            Ok(verb) => assert_eq!(got.unwrap(), verb, "{text}"),
            Err(part) => {
                let why = got.unwrap_err().to_string();
                assert!(why.contains(part), "{text}: {why}");
            }
        }
    }

    #[test]
    fn every_word_and_what_is_wrong_with_the_rest() {
        let s = |text: &str| text.to_owned();
        check("kind wasm", Ok(Verb::Kind));
        check("kind native", Err("wasm jobs only"));
        check("kind", Err("usage: kind wasm"));
        check("exec /p/wc.wasm -l '/p/a b'", Ok(Verb::Exec(vec![s("/p/wc.wasm"), s("-l"), s("/p/a b")])));
        check("exec", Err("usage: exec"));
        check("start", Ok(Verb::Start));
        check("start now", Err("unknown word"));
        check("stdin null", Ok(Verb::Stdin(Source::Null)));
        check("stdin /p/x", Ok(Verb::Stdin(Source::Path(s("/p/x")))));
        check("stdin", Err("usage: stdin"));
        check("stdout /p/x", Ok(Verb::Stdout(s("/p/x"))));
        check("stderr /p/x y", Err("usage: stderr"));
        check("limit mem 1M", Ok(Verb::Limit(s("mem"), s("1M"))));
        check("limit mem", Err("usage: limit"));
        check("spoolfull block", Ok(Verb::SpoolFull(SpoolFull::Block)));
        check("spoolfull ring", Err("usage: spoolfull"));
        check("killonclose", Err("not tied"));
        check("linger 5", Ok(Verb::Linger(Duration::from_secs(5))));
        check("linger -5", Err("usage: linger"));
        check("linger 99999999999", Err("usage: linger"));
        check("note interrupt", Ok(Verb::Note(libc::SIGINT)));
        check("note 9", Err("usage: note"));
        check("stop", Ok(Verb::Stop));
        check("cont", Ok(Verb::Cont));
        check("eof", Ok(Verb::Eof));
        check("keepstdin", Ok(Verb::KeepStdin));
        check("kill", Ok(Verb::Kill));
        check("kill 9", Err("unknown word"));
        check("free", Ok(Verb::Free));
        check("renew 60", Ok(Verb::Renew(Duration::from_secs(60))));
        check("renew", Err("usage: renew"));
        check("release", Ok(Verb::Release));
        check("dir /p", Ok(Verb::Dir("/p".into())));
        check("dir", Err("dir PATH"));
        for later in ["type text/plain", "det on", "need mem", "rank 1", "budget 5", "redundancy 3", "shard 1"] {
            check(later, Err("unknown word"));
        }
    }
}
