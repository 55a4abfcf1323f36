//! What a job that does nothing costs, through the tree's own calls: no kernel, no network. Prints each phase.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_host::{Host, HostConfig};
use fs_ninep::{Call, Caller, File, Name, OpenFlags, PeerId, Remote};
use srv_cpu::{Config, Cpu, Limits};

const RUNS: usize = 300;
const WARM: usize = 20;

/// One session with the peer that has the programs, as a node keeps it.
struct Programs(Arc<dyn File>);

impl Remote for Programs {
    fn attach<'a>(&'a self, _peer: &'a PeerId, _aname: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

async fn cat(root: &Arc<dyn File>, path: &str) -> fs_ninep::Result<Vec<u8>> {
    let open = root.walk(&Name::path(path)?).await.end?.open(OpenFlags::RDONLY).await?;
    let mut all = Vec::new();
    loop {
        let piece = open.read(all.len() as u64, 65536).await?;
        if piece.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&piece);
    }
}

async fn echo(root: &Arc<dyn File>, path: &str, text: String) -> fs_ninep::Result<()> {
    let open = root.walk(&Name::path(path)?).await.end?.open(OpenFlags::WRONLY).await?;
    open.write(0, Bytes::from(text)).await?;
    open.flush().await
}

/// One job: how long its clone, its name space, its exec, its stdout and its wait took.
async fn job(root: &Arc<dyn File>) -> fs_ninep::Result<[Duration; 5]> {
    let mut times = [Duration::ZERO; 5];
    let mut last = Instant::now();
    let mut lap = |phase: usize| {
        times[phase] = last.elapsed();
        last = Instant::now();
    };
    let n = String::from_utf8_lossy(&cat(root, "me/clone").await?).trim().to_owned();
    lap(0);
    echo(root, &format!("me/{n}/ns"), "mount ipos:x/1#s /p\n".into()).await?;
    lap(1);
    echo(root, &format!("me/{n}/ctl"), "exec /p/true.wasm\n".into()).await?;
    lap(2);
    cat(root, &format!("me/{n}/stdout")).await?;
    lap(3);
    let line = cat(root, &format!("me/{n}/wait")).await?;
    lap(4);
    assert!(line.starts_with(b"exited 0 "), "{}", String::from_utf8_lossy(&line));
    echo(root, &format!("me/{n}/ctl"), "free\n".into()).await?;
    Ok(times)
}

fn print(name: &str, mut us: Vec<u128>) {
    us.sort_unstable();
    let at = |percent: usize| us[us.len() * percent / 100];
    println!("{name:<24} min {:>6} us  p50 {:>6} us  p90 {:>6} us", us[0], at(50), at(90));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/programs/build.sh");
    let built = Command::new(script).output()?;
    let programs = PathBuf::from(String::from_utf8(built.stdout)?.trim());
    let dir = tempfile::tempdir()?;
    let worker = vec![env!("CARGO_BIN_EXE_cpu-worker").into()];
    let config = Config { name: "me".into(), dir: dir.path().into(), worker, limits: Limits::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let programs = Host::open(&programs, HostConfig::default())?.root();
        let cpu = Cpu::start(config, Arc::new(Programs(programs)))?;
        let root = cpu.tree().attach(&Caller::owner(0), "").await?;
        let mut runs = Vec::new();
        for _ in 0..WARM + RUNS {
            runs.push(job(&root).await?);
        }
        let runs = &runs[WARM..];
        let phase = |i: usize| runs.iter().map(|r| r[i].as_micros()).collect();
        for (i, name) in ["clone", "ns", "exec", "stdout to its end", "wait"].iter().enumerate() {
            print(name, phase(i));
        }
        print("the whole job", runs.iter().map(|r| r.iter().sum::<Duration>().as_micros()).collect());

        let spawn = |_| {
            let start = Instant::now();
            Command::new("/bin/true").status().map(|_| start.elapsed().as_micros())
        };
        print("anchor: local /bin/true", (0..RUNS).map(spawn).collect::<Result<_, _>>()?);
        Ok(())
    })
}
