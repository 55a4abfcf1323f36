//! A job under way: its start, what flows in and out of it, its end.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use fs_ninep::{Attr, Caller, File, Kind, Name, OpenFile, OpenFlags, SetAttr};
use nix::fcntl::OFlag;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::job::{Cause, Job, Outcome, Phase, Source, Spec, SpoolFull, Usage, Word};
use crate::limits::COMPILE_MS;
use crate::message::{self, End, Packet, Report, receive, send};
use crate::pool::{Gone, Spare, watched};
use crate::space::JobTree;
use crate::spool::Spool;
use crate::table::{ProgramKey, Running, Table};
use crate::worker::MODULE_MAX;
use crate::{Error, Result};

/// What is read from a job's output at once, in bytes: as much as a pipe holds.
const PIECE: usize = 64 * 1024;
/// A report of a job, in bytes: its text is cut to a kibibyte.
const REPORT_MAX: usize = 4096;
/// Symbolic links followed to the program: Linux's figure.
const LINKS_MAX: usize = 40;
/// A program changed less than this ago may be changed again within the same time stamp.
const SETTLED: Duration = Duration::from_secs(2);

/// What a job reads from or writes to beside its spools.
struct Files {
    stdin: Option<Arc<dyn OpenFile>>,
    stdout: Option<Arc<dyn OpenFile>>,
    stderr: Option<Arc<dyn OpenFile>>,
}

/// Starts `job` as `spec` says; returns when its process has it.
/// # Errors
/// What the caller can change: the program, a path, a bound. The job is new again then.
pub async fn start(table: &Arc<Table>, job: &Arc<Job>, spec: Spec) -> Result<()> {
    let claimed = job.phase.send_if_modified(|phase| {
        let new = matches!(phase, Phase::New);
        if new {
            *phase = Phase::Starting;
        }
        new
    });
    if !claimed {
        job.must_be_new("start")?;
    }
    let started = Starting { job, done: false };
    begin(table, job, spec).await?;
    started.done();
    Ok(())
}

/// A job that is being started: new again when that fails or its writer goes away.
struct Starting<'a> {
    job: &'a Arc<Job>,
    done: bool,
}

impl Starting<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.job.phase.send_if_modified(|phase| {
                let starting = matches!(phase, Phase::Starting);
                if starting {
                    *phase = Phase::New;
                }
                starting
            });
            if let (Some((cause, text)), _) = self.job.gone() {
                self.job.stop(cause, text); // a kill came meanwhile
            }
        }
    }
}

async fn begin(table: &Arc<Table>, job: &Arc<Job>, spec: Spec) -> Result<()> {
    let path = spec.args.first().ok_or(Error::NoProgram)?;
    let (root, _) = find(&job.space.ns().root(), &spec.dir).await?;
    if !root.qid().is_dir() {
        return Err(Error::File { path: spec.dir.clone(), why: Kind::NotDir.into() });
    }
    let (program, attr) = find(&root, path).await?;
    if attr.mode & Attr::TYPE != Attr::REGULAR {
        return Err(Error::NotProgram { path: path.clone() });
    }
    if attr.size > MODULE_MAX as u64 {
        return Err(Error::TooLong { what: "programs", len: attr.size as usize, max: MODULE_MAX });
    }
    let running = table.admit()?;
    let files = open_files(&root, &spec).await?;
    let key = ProgramKey::new(program.server(), &attr);
    let hash = key.and_then(|key| table.hash(&key));
    let order = message::Job {
        hash,
        args: spec.args.iter().map(|a| a.clone().into_bytes()).collect(),
        env: spec.env.iter().map(|e| e.clone().into_bytes()).collect(),
        fuel: spec.limits.fuel,
        cpu_ms: spec.limits.cpu_ms,
        compile_ms: COMPILE_MS,
        mem: spec.limits.mem,
        files: spec.limits.files,
    };
    let mut tries = 0;
    let (spare, flow) = loop {
        let spare = table.pool.take().await?;
        match hand_over(&spare, &order) {
            Ok(flow) => break (spare, flow),
            // It died while it waited, and the news of it has not come yet.
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) && tries < 4 => {
                tries += 1
            }
            Err(why) => return Err(Error::System { what: "the job's pipes", why }),
        }
    };
    job.space.ns().nomnt(); // its own name space is not the job's to change
    let tree = JobTree { root, program };
    let Spare { pid, link, pidfd, gone } = spare;
    let link = watched(link).map_err(|why| Error::System { what: "epoll", why })?;
    job.began(pid, pidfd);
    let course = Course {
        table: table.clone(),
        job: job.clone(),
        spec,
        key: key.filter(settled),
        hash,
        running,
        dead: AtomicBool::new(false),
    };
    tokio::spawn(course.run(flow, files, link, gone, Arc::new(tree)));
    Ok(())
}

fn settled(key: &ProgramKey) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    key.mtime.sec >= 0 && Duration::new(key.mtime.sec as u64, 0) + SETTLED < now
}

/// The file at `path` of the job's name space, through links.
async fn find(root: &Arc<dyn File>, path: &str) -> Result<(Arc<dyn File>, Attr)> {
    let fail = |why| Error::File { path: path.to_owned(), why };
    let mut names = Name::path(path).map_err(fail)?;
    for _ in 0..LINKS_MAX {
        let (file, attr) = root.walk_getattr(&names).await.map_err(fail)?;
        if attr.mode & Attr::TYPE != Attr::SYMLINK {
            return Ok((file, attr));
        }
        let target = String::from_utf8(file.readlink().await.map_err(fail)?.to_vec());
        let target = target.map_err(|_| fail(Kind::Invalid.into()))?;
        names.pop();
        if target.starts_with('/') {
            names.clear();
        }
        names.extend(Name::path(&target).map_err(fail)?);
    }
    Err(fail(Kind::Loop.into()))
}

async fn open_files(root: &Arc<dyn File>, spec: &Spec) -> Result<Files> {
    let stdin = match &spec.stdin {
        Source::Path(path) => {
            let (file, _) = find(root, path).await?;
            let open = file.open(OpenFlags::RDONLY).await;
            Some(open.map_err(|why| Error::File { path: path.clone(), why })?)
        }
        _ => None,
    };
    Ok(Files { stdin, stdout: create(root, &spec.stdout).await?, stderr: create(root, &spec.stderr).await? })
}

/// Opens `path` to be written from its start, made where it is missing.
async fn create(root: &Arc<dyn File>, path: &Option<String>) -> Result<Option<Arc<dyn OpenFile>>> {
    let Some(path) = path else { return Ok(None) };
    let fail = |why| Error::File { path: path.clone(), why };
    let flags = OpenFlags(OpenFlags::WRONLY.0 | OpenFlags::TRUNC);
    match find(root, path).await {
        Ok((file, _)) => {
            let open = file.open(flags).await.map_err(fail)?;
            // A server that does not know the flag is told once more.
            let _ = file.setattr(SetAttr { size: Some(0), ..SetAttr::default() }).await;
            return Ok(Some(open));
        }
        Err(Error::File { why, .. }) if why.kind() == Kind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut names = Name::path(path).map_err(fail)?;
    let last = names.pop().filter(|n| !n.is_parent()).ok_or_else(|| fail(Kind::Invalid.into()))?;
    let dir = root.walk(&names).await.end.map_err(fail)?;
    let created = dir.create(&last, OpenFlags(flags.0 | OpenFlags::CREAT), 0o666).await.map_err(fail)?;
    Ok(Some(created.open))
}

/// This side of what connects a job.
struct Flow {
    tree: UnixStream,
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

/// Makes the job's connections and gives its process the other ends, and its order.
fn hand_over(spare: &Spare, order: &message::Job) -> io::Result<Flow> {
    let (tree, its_tree) = std::os::unix::net::UnixStream::pair()?;
    tree.set_nonblocking(true)?;
    let (its_stdin, stdin) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let (stdout, its_stdout) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, its_stderr) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let fds = [its_tree.as_raw_fd(), its_stdin.as_raw_fd(), its_stdout.as_raw_fd(), its_stderr.as_raw_fd()];
    let flow = Flow {
        tree: UnixStream::from_std(tree)?,
        stdin: pipe::Sender::from_owned_fd(stdin)?,
        stdout: pipe::Receiver::from_owned_fd(stdout)?,
        stderr: pipe::Receiver::from_owned_fd(stderr)?,
    };
    send(spare.link.as_raw_fd(), &order.encode(), &fds)?;
    Ok(flow)
}

/// Everything about a running job that its end needs.
struct Course {
    table: Arc<Table>,
    job: Arc<Job>,
    spec: Spec,
    key: Option<ProgramKey>,
    hash: Option<message::Hash>,
    running: Running,
    /// The process is gone: what waits for room in a spool waits in vain.
    dead: AtomicBool,
}

/// What a job's process said.
#[derive(Default)]
struct Said {
    compiling: bool,
    loaded: bool,
    done: Option<Report>,
}

impl Course {
    async fn run(
        self,
        flow: Flow,
        files: Files,
        link: AsyncFd<OwnedFd>,
        gone: tokio::sync::oneshot::Receiver<Gone>,
        tree: Arc<JobTree>,
    ) {
        let Flow { tree: connection, stdin, stdout, stderr } = flow;
        let counted = Counted { stream: connection, job: self.job.clone() };
        let served = tokio::spawn(fs_ninep::serve(counted, tree, Caller::owner(0), fs_ninep::Limits::default()));
        let main = async {
            let out = self.drain(stdout, &self.job.stdout, files.stdout);
            let err = self.drain(stderr, &self.job.stderr, files.stderr);
            let gone = async {
                let gone = gone.await.ok();
                self.dead.store(true, Ordering::Relaxed);
                self.job.changed.notify_waiters();
                gone
            };
            let (_, _, said, gone) = futures::join!(out, err, self.hear(link), gone);
            (said, gone)
        };
        let (said, gone) = tokio::select! {
            biased;
            end = main => end,
            never = self.feed(stdin, files.stdin) => match never {},
            never = self.guard() => match never {},
        };
        served.abort();
        let outcome = self.outcome(said, gone);
        drop(self.running);
        self.table.ended(&self.job, outcome);
    }

    /// Takes what the job prints until nobody can print any more.
    async fn drain(&self, from: pipe::Receiver, spool: &Spool, file: Option<Arc<dyn OpenFile>>) {
        let mut at = 0;
        let mut buf = BytesMut::new();
        loop {
            if from.readable().await.is_err() {
                return;
            }
            buf.reserve(PIECE);
            match from.try_read_buf(&mut buf) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            let data = buf.split().freeze();
            self.job.bytes_out.fetch_add(data.len() as u64, Ordering::Relaxed);
            let taken = match &file {
                Some(file) => write_all(file, &mut at, data).await,
                None => self.keep(spool, data).await,
            };
            if let Err((cause, text)) = taken {
                self.job.stop(cause, text);
                return; // the pipe closes: whatever the job still prints has no reader
            }
        }
    }

    /// Puts `data` into the spool, when there is room.
    async fn keep(&self, spool: &Spool, mut data: Bytes) -> std::result::Result<(), (Cause, String)> {
        while !data.is_empty() {
            let changed = self.job.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (max, full) = {
                let spec = self.job.spec();
                (spec.limits.spool, spec.spool_full)
            };
            let room = max.saturating_sub(self.job.stdout.len() + self.job.stderr.len());
            let part = data.split_to(data.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            if !part.is_empty() {
                spool.append(part, &self.table.spools).await.map_err(|e| (Cause::Disk, format!("spool: {e}")))?;
            }
            match (data.is_empty(), full) {
                (true, _) => {}
                (false, SpoolFull::Kill) => return Err((Cause::OutLimit, format!("it printed more than {max} bytes"))),
                (false, SpoolFull::Block) if self.dead.load(Ordering::Relaxed) => {
                    return Err((Cause::OutLimit, format!("it ended with more than {max} bytes printed")));
                }
                (false, SpoolFull::Block) => changed.await,
            }
        }
        Ok(())
    }

    /// Hears the process's reports until it is gone.
    async fn hear(&self, link: AsyncFd<OwnedFd>) -> Said {
        let mut said = Said::default();
        let mut buf = [0; REPORT_MAX];
        loop {
            let got = link.async_io(Interest::READABLE, |fd| Ok(receive(fd, &mut buf)?)).await;
            let Ok((len @ 1.., _)) = got else { return said };
            match Report::decode(&buf[..len]) {
                Ok(Report::Compiling) => said.compiling = true,
                Ok(Report::Loaded { hash, compile_ms }) if !said.loaded => {
                    said = Said { loaded: true, ..Said::default() };
                    self.job.compile_ms.store(compile_ms, Ordering::Relaxed);
                    // The first report comes before any of the program's own code has run.
                    if self.hash.is_none_or(|known| known == hash) {
                        if let Some(key) = self.key {
                            self.table.learn(key, hash);
                        }
                        self.table.pool.load(hash);
                    }
                }
                Ok(Report::Loaded { .. }) => {}
                Ok(done) => said.done = said.done.or(Some(done)),
                Err(_) => {} // not from the code that was forked: what it says is not believed
            }
        }
    }

    /// Gives the job its stdin; never ends.
    async fn feed(&self, mut to: pipe::Sender, file: Option<Arc<dyn OpenFile>>) -> std::convert::Infallible {
        let mut at = 0;
        loop {
            let piece = match (&file, &self.spec.stdin) {
                (Some(file), _) => file.read(at, PIECE as u32).await.ok().filter(|piece| !piece.is_empty()),
                (None, Source::Null) => None,
                (None, _) => self.job.input.take().await,
            };
            let Some(piece) = piece else { break };
            at += piece.len() as u64;
            self.job.bytes_in.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if to.write_all(&piece).await.is_err() {
                self.job.input.close(); // the job reads no more
                break;
            }
        }
        drop(to);
        std::future::pending().await
    }

    /// Watches over the time the job has, and over its mounts; never ends.
    async fn guard(&self) -> std::convert::Infallible {
        let started = Instant::now();
        let mut lost_since = None;
        loop {
            let changed = self.job.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (wall_s, linger) = {
                let spec = self.job.spec();
                (spec.limits.wall_s, spec.linger)
            };
            let wall = started + Duration::from_secs(wall_s);
            let lease = self.job.lease().0;
            let now = Instant::now();
            if wall <= now {
                self.job.stop(Cause::Wall, format!("it ran for {wall_s} s"));
            } else if lease.is_some_and(|at| at <= now) {
                self.job.stop(Cause::Killed, "its lease was not renewed");
            }
            let mut wake = lease.map_or(wall, |at| at.min(wall)).max(now + Duration::from_millis(10));
            if self.job.space.mounted() {
                // Often enough to see a loss within the linger, seldom enough to cost nothing.
                wake = wake.min(now + (linger / 4).clamp(Duration::from_millis(100), Duration::from_secs(5)));
                let lost = tokio::time::timeout(Duration::from_secs(5), self.job.space.lost()).await.unwrap_or(true);
                lost_since = if lost { lost_since.or(Some(now)) } else { None };
                if lost_since.is_some_and(|since| now - since >= linger) {
                    self.job.stop(Cause::Lost, "its mounts are gone");
                }
            }
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                () = changed => {}
            }
        }
    }

    /// What `wait` will say.
    fn outcome(&self, said: Said, gone: Option<Gone>) -> Outcome {
        let (cause, real_ms) = self.job.gone();
        let mut usage = Usage { real_ms, ..self.job.usage() };
        if let Some(gone) = gone {
            usage.user_ms = gone.user_us.div_ceil(1000);
            usage.sys_ms = gone.sys_us.div_ceil(1000);
            usage.peak_kb = gone.peak_kb;
        }
        let killed_by = gone.map(|g| g.status).filter(|s| libc::WIFSIGNALED(*s)).map(|s| libc::WTERMSIG(s));
        let cut = matches!(cause, Some((Cause::OutLimit | Cause::Disk, _)));
        let (word, text) = match (said.done, cause, killed_by) {
            (Some(Report::Done { end, fuel, memory_peak, text }), cause, _) if !cut => {
                drop(cause);
                usage.fuel = fuel;
                usage.peak_kb = memory_peak / 1024;
                let word = match end {
                    End::Exited(code) => Word::Exited(code),
                    End::Trap => Word::Trap,
                    End::Fuel => Word::Fuel,
                    End::Mem => Word::Mem,
                    End::Refused => Word::Refused,
                };
                (word, text)
            }
            (_, Some((cause, text)), _) => (cause.into(), text),
            (_, None, Some(signal)) if said.compiling => (
                Word::Refused,
                format!("compiling it was stopped by signal {signal}: it needs too much time or memory"),
            ),
            (_, None, Some(signal)) => (Word::Signal(signal), String::new()),
            (_, None, None) if gone.is_none() => (Word::Lost, "the worker process died".into()),
            (_, None, None) => (Word::Lost, "its process ended without a word".into()),
        };
        Outcome { word, text, usage }
    }
}

async fn write_all(
    file: &Arc<dyn OpenFile>,
    at: &mut u64,
    mut data: Bytes,
) -> std::result::Result<(), (Cause, String)> {
    let most = if file.iounit() == 0 { PIECE } else { file.iounit() as usize };
    while !data.is_empty() {
        let part = data.slice(..data.len().min(most));
        let taken = file.write(*at, part).await;
        match taken.map(|n| (n as usize).min(data.len())) {
            Ok(n @ 1..) => {
                let _ = data.split_to(n);
                *at += n as u64;
            }
            Ok(0) => return Err((Cause::Disk, "its output file takes no more".into())),
            Err(e) => return Err((Cause::Disk, format!("its output file: {e}"))),
        }
    }
    Ok(())
}

/// The job's connection to its tree, counted.
struct Counted {
    stream: UnixStream,
    job: Arc<Job>,
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        count(&self.job.bytes_out, buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        if let Poll::Ready(Ok(n)) = &polled {
            count(&self.job.bytes_in, *n);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        if let Poll::Ready(Ok(n)) = &polled {
            count(&self.job.bytes_in, *n);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
