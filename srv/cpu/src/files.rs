//! Read and write of each file, in the order of the tree.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{Call, Identity, Kind, OpenFile, OpenFlags, Result};
use fs_tree::{At, Line, Records, Row, Service};
use tokio::time::Instant;

use crate::input::Writer;
use crate::job::{Job, Phase};
use crate::spool::Reader;
use crate::table::{ENDED_KEPT, JOBS_MAX, Table};
use crate::tree::{Q, TREE};
use crate::verbs::{self, check_size};
use crate::{Error, worker};

/// The tree over the jobs.
pub struct Files {
    table: Arc<Table>,
}

impl Files {
    pub fn new(table: Arc<Table>) -> Files {
        Files { table }
    }

    fn job(&self, at: &At<Q>) -> Result<Arc<Job>> {
        at.keys.get(1).and_then(|n| self.table.get(n)).ok_or(Kind::NotFound.into())
    }

    fn info(&self) -> String {
        let table = &self.table;
        let mut out = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(out, "{key} {value}");
        };
        line("node", &table.name);
        line("arch", &std::env::consts::ARCH);
        line("os", &std::env::consts::OS);
        match table.pool.engine() {
            Ok(engine) => line("engine", &engine),
            Err(why) => line("engine", &format!("none: {why}")),
        }
        line("kinds", &"wasm");
        line("iso", &"wasmonly");
        line("cores", &std::thread::available_parallelism().map_or(1, usize::from));
        let memory = memory();
        line("mem", &memory.get("MemTotal").copied().unwrap_or(0));
        line("free", &memory.get("MemAvailable").copied().unwrap_or(0));
        line("running", &table.running());
        line("jobs", &table.all().len());
        line("jobs_max", &JOBS_MAX);
        line("module_max", &worker::MODULE_MAX);
        line("worker_starts", &table.pool.starts());
        let l = &table.limits;
        let limits = [l.fuel, l.cpu_ms, l.wall_s, l.mem, l.disk, l.spool, l.files];
        for (name, value) in ["fuel", "cpu", "wall", "mem", "disk", "spool", "files"].iter().zip(limits) {
            line(&format!("limit.{name}"), &value);
        }
        out
    }

    fn ps(&self, who: &Identity, owner: bool) -> String {
        let mut out = String::new();
        for job in self.table.all() {
            let state = match job.phase() {
                Phase::Ended(outcome) => outcome.word.text().0,
                phase => phase.word(),
            };
            let age_s = job.made.elapsed().as_secs();
            let _ = write!(out, "{}\t{state}\twasm\t{age_s}\t{}\t{}\t", job.id, job.usage().fuel, job.owner);
            if owner || job.owner == *who {
                let args: Vec<String> = job.spec().args.iter().map(|a| fs_tree::quote(a)).collect();
                out.push_str(&args.join(" "));
            }
            out.push('\n');
        }
        out
    }
}

/// The node's memory by the names of /proc/meminfo, in bytes.
fn memory() -> HashMap<String, u64> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let row = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let kb: u64 = rest.split_whitespace().next()?.parse().ok()?;
        Some((name.to_owned(), kb * 1024))
    };
    text.lines().filter_map(row).collect()
}

fn lines(strings: &[String]) -> String {
    strings.iter().map(|s| format!("{s}\n")).collect()
}

fn status(job: &Job) -> String {
    match job.phase() {
        Phase::Ended(outcome) => {
            let (word, code) = outcome.word.text();
            format!("{word} {code} {}", outcome.text).trim_end().to_owned() + "\n"
        }
        phase => format!("{} 0\n", phase.word()),
    }
}

fn usage(job: &Job) -> String {
    let u = job.usage();
    let mut out = String::new();
    let disk = job.space.scratch.used();
    let spool = job.stdout.len() + job.stderr.len();
    for (key, value) in [
        ("user_ms", u.user_ms),
        ("sys_ms", u.sys_ms),
        ("real_ms", u.real_ms),
        ("compile_ms", u.compile_ms),
        ("fuel", u.fuel),
        ("peak_kb", u.peak_kb),
        ("in", u.bytes_in),
        ("out", u.bytes_out),
        ("spool", spool),
        ("disk", disk),
        ("cost", 0),
    ] {
        let _ = writeln!(out, "{key} {value}");
    }
    out
}

fn lease(job: &Job) -> String {
    let (renewed, released) = job.lease();
    let left_s = renewed.map(|at| at.saturating_duration_since(Instant::now()).as_secs());
    match (left_s, released) {
        (_, true) => "released: goes when it has ended\n".into(),
        (Some(s), false) => format!("renewed: ends in {s} s unless renewed\n"),
        (None, false) => format!("kept: goes {} s after it has ended\n", ENDED_KEPT.as_secs()),
    }
}

/// The one record of `wait`.
struct End(Option<Arc<Job>>);

impl Records for End {
    fn next(&mut self) -> Call<'_, Option<Bytes>> {
        Box::pin(async move {
            let Some(job) = &self.0 else { return Ok(None) };
            let outcome = job.ended().await;
            self.0 = None;
            Ok(outcome.map(|o| o.line().into()))
        })
    }

    fn try_next(&mut self) -> Option<Bytes> {
        let job = self.0.as_ref()?;
        let Phase::Ended(outcome) = job.phase() else { return None };
        self.0 = None;
        Some(outcome.line().into())
    }
}

fn text(bytes: &Bytes) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Kind::Invalid.into())
}

impl Service for Files {
    type Q = Q;

    const TREE: &'static [Row<Q>] = TREE;

    fn list<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Vec<String>> {
        Box::pin(async move {
            Ok(match at.keys.len() {
                0 => vec![self.table.name.clone()],
                _ => self.table.all().iter().map(|job| job.id.to_string()).collect(),
            })
        })
    }

    fn find<'a>(&'a self, at: &'a At<Q>) -> Call<'a, ()> {
        let found = match &at.keys[..] {
            [name] => *name == self.table.name,
            [name, n, ..] => *name == self.table.name && self.table.get(n).is_some(),
            [] => false,
        };
        Box::pin(std::future::ready(if found { Ok(()) } else { Err(Kind::NotFound.into()) }))
    }

    fn owner(&self, at: &At<Q>) -> Option<Identity> {
        self.job(at).ok().map(|job| job.owner.clone())
    }

    fn read<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Bytes> {
        Box::pin(async move {
            let text = match at.q {
                Q::Info => self.info(),
                Q::Ps => self.ps(&at.caller.identity, at.caller.is_owner()),
                Q::Ctl => format!("{}\n", self.job(at)?.id),
                Q::Args => lines(&self.job(at)?.spec().args),
                Q::Env => lines(&self.job(at)?.spec().env),
                Q::Ns => self.job(at)?.space.text(),
                Q::Status => status(&*self.job(at)?),
                Q::Usage => usage(&*self.job(at)?),
                Q::Lease => lease(&*self.job(at)?),
                _ => return Err(Kind::NotSupported.into()),
            };
            Ok(text.into())
        })
    }

    fn write<'a>(&'a self, at: &'a At<Q>, lines: &'a [Line]) -> Call<'a, ()> {
        Box::pin(async move {
            let job = self.job(at)?;
            match at.q {
                Q::Ctl => Ok(verbs::obey(&self.table, &job, lines).await?),
                Q::Ns => {
                    job.must_be_new("ns")?;
                    let text: String = lines.iter().map(|line| format!("{}\n", line.text)).collect();
                    job.space.ns().apply(&text).await
                }
                _ => Err(Kind::NotSupported.into()),
            }
        })
    }

    fn set<'a>(&'a self, at: &'a At<Q>, value: Bytes) -> Call<'a, ()> {
        Box::pin(async move {
            let job = self.job(at)?;
            let strings: Vec<String> = text(&value)?.lines().map(str::to_owned).collect();
            match at.q {
                Q::Args => {
                    job.must_be_new("args")?;
                    let mut spec = job.spec();
                    check_size(&strings, &spec.env)?;
                    spec.args = strings;
                }
                Q::Env => {
                    job.must_be_new("env")?;
                    let named = |line: &&String| line.find('=').is_none_or(|at| at == 0);
                    if let Some(line) = strings.iter().find(named) {
                        return Err(Error::Env { line: line.clone() }.into());
                    }
                    let mut spec = job.spec();
                    check_size(&spec.args, &strings)?;
                    spec.env = strings;
                }
                _ => return Err(Kind::NotSupported.into()),
            }
            Ok(())
        })
    }

    fn stream(&self, at: &At<Q>) -> Result<Box<dyn Records>> {
        Ok(Box::new(End(Some(self.job(at)?))))
    }

    fn make<'a>(&'a self, at: &'a At<Q>) -> Call<'a, String> {
        Box::pin(async move { Ok(self.table.make(&at.caller.identity).await?.id.to_string()) })
    }

    fn idle(&self, at: &At<Q>) {
        if let Ok(job) = self.job(at)
            && matches!(job.phase(), Phase::New)
        {
            self.table.forget(&job);
        }
    }

    fn remove<'a>(&'a self, at: &'a At<Q>) -> Call<'a, ()> {
        Box::pin(async move {
            let job = self.job(at)?;
            verbs::kill(&self.table, &job).await;
            self.table.forget(&job);
            Ok(())
        })
    }

    fn open<'a>(&'a self, at: &'a At<Q>, flags: OpenFlags) -> Call<'a, Arc<dyn OpenFile>> {
        Box::pin(async move {
            let job = self.job(at)?;
            Ok(match at.q {
                Q::Stdin => Arc::new(Writer::new(job.input.clone())) as Arc<dyn OpenFile>,
                Q::Stdout => Arc::new(Reader { spool: job.stdout.clone(), flags }),
                Q::Stderr => Arc::new(Reader { spool: job.stderr.clone(), flags }),
                _ => return Err(Kind::NotSupported.into()),
            })
        })
    }

    fn len(&self, at: &At<Q>) -> u64 {
        match (self.job(at), at.q) {
            (Ok(job), Q::Stdout) => job.stdout.len(),
            (Ok(job), Q::Stderr) => job.stderr.len(),
            _ => 0,
        }
    }
}
