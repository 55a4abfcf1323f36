//! `ipos cpu NODE PROGRAM [ARG...]`.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fs_ninep::{OpenFile, OpenFlags};
use fs_tree::quote;
use tokio::sync::mpsc;

use crate::Error;
use crate::home::Home;
use crate::ipos::block_on;
use crate::node::End;
use crate::session::{Session, read_all};

/// Run a program on another node over the files of the current directory
///
/// The node gets the current directory, read and write, until the program ends; standard input, output and error are this command's.
#[derive(Debug, clap::Args)]
pub(crate) struct Cpu {
    /// The node, by its name under /cpu, else by its name under /n
    node: String,
    /// The program, a WebAssembly module, from the current directory
    program: String,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// The exit status where the program did not end by itself.
const NOT_RUN: u8 = 125;

/// Bytes of standard input that are taken at once, and how many such pieces wait for the job.
const PIECE: usize = 64 << 10;
const PIECES: usize = 4;

/// How long the removal of the job and of the export may take once the user wants to leave.
const CLEAN: Duration = Duration::from_secs(5);

impl Cpu {
    pub(crate) fn run(&self, home: &Home) -> Result<ExitCode, Error> {
        block_on(async {
            let mut end = End::new()?;
            let session = Session::open(home).await?;
            let mut made = Vec::new();
            let outcome = tokio::select! {
                outcome = self.job(&session, &mut made) => outcome,
                () = end.wait() => Ok(ExitCode::from(130)),
            };
            // The job first: what it still does it does to the export.
            let clean = async {
                for dir in made.iter().rev() {
                    session.rmdir(dir).await.unwrap_or_else(|e| eprintln!("ipos: {e}"));
                }
            };
            if tokio::time::timeout(CLEAN, clean).await.is_err() {
                eprintln!("ipos: {} did not let go of the job in 5 s", self.node);
            }
            outcome.or_else(|e| {
                eprintln!("ipos: {e}");
                Ok(ExitCode::from(NOT_RUN))
            })
        })
    }

    /// Makes the export and the job, each noted in `made`, and sees the job through.
    async fn job(&self, session: &Session, made: &mut Vec<String>) -> Result<ExitCode, Error> {
        let cpu = self.find(session).await?;
        let here = std::env::current_dir().map_err(Error::system(".", "cannot be told"))?;
        let here = String::from_utf8_lossy(here.as_os_str().as_bytes()).into_owned();
        let export = clone(session, "/export").await?;
        made.push(export.clone());
        // A node does not stand among its own peers, so it is told by its id there.
        let own = session.text("/self/name").await?.trim() == self.node;
        let holder = if own { session.text("/self/id").await?.trim().to_owned() } else { self.node.clone() };
        let lines = format!("bind {} /here\nrw\nto {}", quote(&here), quote(&holder));
        session.write(&format!("{export}/ctl"), &lines).await?;
        let capability = session.text(&format!("{export}/cap")).await?;
        let job = clone(session, &cpu).await?;
        made.push(job.clone());
        session.write(&format!("{job}/ns"), &format!("mount {} /here", quote(capability.trim()))).await?;
        let words = std::iter::once(&self.program).chain(&self.arguments).map(|w| quote(w));
        let line = format!("dir /here\nexec {}", words.collect::<Vec<_>>().join(" "));
        session.write(&format!("{job}/ctl"), &line).await?;
        let open = async |name: &str, flags| session.open_file(&format!("{job}/{name}"), flags).await;
        let stdin = open("stdin", OpenFlags::WRONLY).await?;
        let stdout = open("stdout", OpenFlags::RDONLY).await?;
        let stderr = open("stderr", OpenFlags::RDONLY).await?;
        let wait = open("wait", OpenFlags::RDONLY).await?;
        let refused = |name: &str| {
            let path = format!("{job}/{name}");
            move |why| Error::Refused { path, why }
        };
        let outputs = async {
            tokio::try_join!(copy_out(&*stdout, io::stdout()), copy_out(&*stderr, io::stderr()))
                .map_err(refused("stdout"))?;
            read_all(&*wait).await.map(drop).map_err(refused("wait"))
        };
        // The job may end without having read its input: then nobody waits for the rest of it.
        tokio::select! {
            biased;
            ended = outputs => ended?,
            never = copy_in(stdin) => match never {},
        };
        // Begins as the wait line does, and says why where there is more to say.
        Ok(self.status(&session.text(&format!("{job}/status")).await?))
    }

    /// The directory of the node's cpu.
    async fn find(&self, session: &Session) -> Result<String, Error> {
        let pool = format!("/cpu/{}", self.node);
        if session.file(&pool).await.is_ok() {
            return Ok(pool);
        }
        let root = format!("/n/{}/cpu", self.node);
        let refused = |why| Error::Refused { path: root.clone(), why };
        let open = session.open_file(&root, OpenFlags::RDONLY).await?;
        let names = open.readdir(0, 1).await.map_err(refused)?;
        match names.first() {
            Some(entry) => Ok(format!("{root}/{}", entry.name)),
            None => Err(refused(fs_ninep::Kind::NotFound.into())),
        }
    }

    /// `exited 3 …`: 3. Anything else is told on standard error.
    fn status(&self, status: &str) -> ExitCode {
        let mut words = status.split_whitespace();
        let (word, code) = (words.next().unwrap_or("lost"), words.next().and_then(|c| c.parse::<u8>().ok()));
        match (word, code) {
            ("exited", Some(code)) => ExitCode::from(code),
            ("signal", Some(signal)) => ExitCode::from(128_u8.saturating_add(signal)),
            _ => {
                eprintln!("ipos: job: {}", status.trim());
                ExitCode::from(NOT_RUN)
            }
        }
    }
}

/// Opens the clone of `dir` and gives the path of the directory it made.
async fn clone(session: &Session, dir: &str) -> Result<String, Error> {
    let number = session.text(&format!("{dir}/clone")).await?;
    Ok(format!("{dir}/{}", number.trim()))
}

async fn copy_out(open: &dyn OpenFile, mut to: impl Write) -> fs_ninep::Result<()> {
    let mut offset = 0;
    loop {
        let part = open.read(offset, PIECE as u32).await?;
        if part.is_empty() {
            return Ok(());
        }
        offset += part.len() as u64;
        to.write_all(&part).and_then(|()| to.flush())?;
    }
}

/// Hands standard input on until its end, or until the job takes no more of it; then waits for ever.
async fn copy_in(open: Arc<dyn OpenFile>) -> std::convert::Infallible {
    let (sender, mut pieces) = mpsc::channel(PIECES);
    // A thread of its own: a read of a terminal cannot be called off, and must not keep this process from ending.
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        while let Ok(n @ 1..) = io::stdin().read(&mut buffer) {
            if sender.blocking_send(Bytes::copy_from_slice(&buffer[..n])).is_err() {
                return;
            }
        }
    });
    let mut offset = 0;
    while let Some(mut piece) = pieces.recv().await {
        while !piece.is_empty() {
            match open.write(offset, piece.clone()).await {
                Ok(n) if n > 0 => {
                    offset += u64::from(n);
                    piece = piece.split_off((n as usize).min(piece.len()));
                }
                _ => return std::future::pending().await,
            }
        }
    }
    let _the_job_is_over = open.flush().await;
    drop(open);
    std::future::pending().await
}
