//! The jobs of a node: numbers, quotas, programs known, what becomes of a job that has ended.

use std::collections::{BTreeMap, HashMap};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fs_ninep::{Attr, Identity, Remote, ServerId, Time};
use tokio::time::Instant;

use crate::job::{Job, Outcome, Phase};
use crate::limits::Limits;
use crate::message::Hash;
use crate::pool::Pool;
use crate::scratch::Total;
use crate::space::Space;
use crate::{Config, Error, Result};

/// Jobs of all users together, ended ones that are still kept among them.
pub const JOBS_MAX: usize = 1024;
/// Jobs of one user.
pub const JOBS_USER_MAX: usize = 64;
/// Jobs that run at once.
pub const RUNNING_MAX: usize = 128;
/// How long an ended job is kept, unless its owner says otherwise.
pub const ENDED_KEPT: Duration = Duration::from_secs(600);
/// Programs whose hash is remembered by the file they were read from.
const PROGRAMS_MAX: usize = 1024;

/// The jobs of a node.
pub struct Table {
    pub name: String,
    pub limits: Limits,
    pub spools: PathBuf,
    pub pool: Arc<Pool>,
    remote: Arc<dyn Remote>,
    jobs: Mutex<Jobs>,
    running: Arc<AtomicUsize>,
    scratch: Total,
    programs: Mutex<HashMap<ProgramKey, Hash>>,
}

#[derive(Default)]
struct Jobs {
    all: BTreeMap<u64, Arc<Job>>,
    next: u64,
}

/// A file as it was when a program was read from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProgramKey {
    server: ServerId,
    path: u64,
    version: u32,
    size: u64,
    pub mtime: Time,
}

impl ProgramKey {
    /// The key of a file with these attributes; none for a live file, which differs at every look.
    pub fn new(server: ServerId, attr: &Attr) -> Option<ProgramKey> {
        let Attr { qid, size, mtime, .. } = *attr;
        (!qid.is_live()).then_some(ProgramKey { server, path: qid.path, version: qid.version, size, mtime })
    }
}

/// One of the jobs that run; dropping it makes room for another.
pub struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Table {
    pub fn start(config: Config, remote: Arc<dyn Remote>) -> Result<Arc<Table>> {
        let Config { name, dir, worker, limits } = config;
        if worker.is_empty() {
            return Err(Error::Worker);
        }
        let spools = dir.join("spool");
        let cache = dir.join("code");
        for path in [&spools, &cache] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|why| Error::Dir { path: path.clone(), why })?;
        }
        let pool = Pool::start(worker, cache);
        let (jobs, running, scratch, programs) = (Mutex::default(), Arc::default(), Total::default(), Mutex::default());
        Ok(Arc::new(Table { name, limits, spools, pool, remote, jobs, running, scratch, programs }))
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new job of `owner`.
    /// # Errors
    /// `TableFull`, `QuotaFull`.
    pub async fn make(&self, owner: &Identity) -> fs_ninep::Result<Arc<Job>> {
        self.room(&self.jobs(), owner)?;
        let space = Space::new(self.remote.clone(), self.limits.disk, self.scratch.clone()).await?;
        let mut jobs = self.jobs();
        self.room(&jobs, owner)?; // others came while the space was made
        let job = Arc::new(Job::new(jobs.next, owner.clone(), space, self.limits));
        jobs.next += 1;
        jobs.all.insert(job.id, job.clone());
        Ok(job)
    }

    fn room(&self, jobs: &Jobs, owner: &Identity) -> Result<()> {
        let have = jobs.all.len();
        if have >= JOBS_MAX {
            return Err(Error::TableFull { have });
        }
        let have = jobs.all.values().filter(|job| job.owner == *owner).count();
        if have >= JOBS_USER_MAX { Err(Error::QuotaFull { have }) } else { Ok(()) }
    }

    /// The job `id`.
    pub fn get(&self, id: &str) -> Option<Arc<Job>> {
        let number = id.parse::<u64>().ok().filter(|n| n.to_string() == id)?;
        self.jobs().all.get(&number).cloned()
    }

    /// Every job, oldest first.
    pub fn all(&self) -> Vec<Arc<Job>> {
        self.jobs().all.values().cloned().collect()
    }

    /// Forgets `job`, which has ended or is new.
    pub fn forget(&self, job: &Job) {
        self.jobs().all.remove(&job.id);
    }

    /// Room to run one more.
    /// # Errors
    /// `Crowded`.
    pub fn admit(&self) -> Result<Running> {
        let running = self.running.fetch_add(1, Ordering::Relaxed);
        let room = Running(self.running.clone());
        if running >= RUNNING_MAX { Err(Error::Crowded { running }) } else { Ok(room) }
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// The hash of the program that was read from such a file.
    pub fn hash(&self, key: &ProgramKey) -> Option<Hash> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Remembers the hash of what was read from a file.
    pub fn learn(&self, key: ProgramKey, hash: Hash) {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if programs.len() >= PROGRAMS_MAX {
            programs.clear();
        }
        programs.insert(key, hash);
    }

    /// `job` has ended: tells who waits, and keeps it for as long as it is kept.
    pub fn ended(self: &Arc<Table>, job: &Arc<Job>, outcome: Outcome) {
        job.end(outcome);
        self.pool.refill();
        self.keep(job);
    }

    /// Forgets `job`, which has ended, when its time has come.
    pub fn keep(self: &Arc<Table>, job: &Arc<Job>) {
        let (table, job) = (Arc::downgrade(self), job.clone());
        let end = Instant::now();
        tokio::spawn(async move {
            loop {
                let changed = job.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let (renewed, released) = job.lease();
                let until = renewed.unwrap_or(end + ENDED_KEPT);
                if released || until <= Instant::now() {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = changed => {}
                }
                if table.strong_count() == 0 {
                    return;
                }
            }
            if let Some(table) = table.upgrade() {
                table.forget(&job);
            }
        });
    }

    /// Kills every job and waits until their processes are gone.
    pub async fn stop(&self) {
        let jobs = self.all();
        for job in &jobs {
            job.stop(crate::job::Cause::Killed, "the node stops");
        }
        for job in jobs {
            if !matches!(job.phase(), Phase::New) {
                job.ended().await;
            }
        }
    }
}
