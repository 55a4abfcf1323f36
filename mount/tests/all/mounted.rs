//! A mount for one test: its own thread and runtime, a shell to use it from, and always an end.

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fs_ninep::File;
use mount::{Mount, Options};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Nothing here takes this long unless it hangs.
pub const LONG: Duration = Duration::from_secs(60);

pub struct Mounted {
    dir: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
    _temp: TempDir,
}

/// Mounts `root` for the test `name`, or says that it was not run.
pub fn mounted(name: &str, root: Arc<dyn File>) -> Option<Mounted> {
    mounted_with(name, root, Options::default())
}

pub fn mounted_with(name: &str, root: Arc<dyn File>, options: Options) -> Option<Mounted> {
    mounted_later(name, options, || Box::pin(std::future::ready(root)))
}

/// The same, where the root comes of work in the runtime that serves.
pub fn mounted_later(
    name: &str,
    options: Options,
    root: impl FnOnce() -> Pin<Box<dyn Future<Output = Arc<dyn File>>>> + Send + 'static,
) -> Option<Mounted> {
    if !can_mount(name) {
        return None;
    }
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("point");
    std::fs::create_dir(&dir).unwrap();
    Some(serve(dir, temp, root, options))
}

/// Says so past the test harness, which keeps what a passing test prints to itself.
pub fn not_run(name: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "not run: {name}: {why}");
}

pub fn can_mount(name: &str) -> bool {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => true,
        Err(e) => {
            not_run(name, &format!("/dev/fuse: {e}"));
            false
        }
    }
}

fn serve(
    dir: PathBuf,
    temp: TempDir,
    root: impl FnOnce() -> Pin<Box<dyn Future<Output = Arc<dyn File>>>> + Send + 'static,
    options: Options,
) -> Mounted {
    let (stop, stopped) = oneshot::channel();
    let (tell_up, up) = channel();
    let (tell_end, ended) = channel();
    let at = dir.clone();
    let thread = std::thread::spawn(move || {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        rt.block_on(async move {
            let mount = Mount::start(root().await, &at, options).unwrap();
            tell_up.send(()).unwrap();
            tokio::select! {
                _ = mount.done() => {}
                _ = stopped => mount.unmount().await.unwrap(),
            }
            mount.done().await;
            let _ = tell_end.send(());
        });
    });
    up.recv_timeout(LONG).expect("the mount comes up");
    Mounted { dir, stop: Some(stop), ended, thread: Some(thread), _temp: temp }
}

impl Mounted {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Begins to unmount.
    pub fn unmount(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// True once the server has seen the end of its mount, if that comes within `limit`.
    pub fn ends_within(&self, limit: Duration) -> bool {
        self.ended.recv_timeout(limit).is_ok()
    }

    /// Runs `script` in the mount by sh; gives what it printed, both streams, and then its exit status if not 0.
    pub fn sh(&self, script: &str) -> String {
        let out = self.command(script).output().unwrap();
        said(&out)
    }

    /// Runs `script` in the mount by sh, and compares.
    pub fn check(&self, script: &str, want: &str) {
        assert_eq!(self.sh(script).trim_end(), want, "$ {script}");
    }

    /// `script` in the mount, ended after a minute.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "60", "sh", "-c", script]).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("LC_ALL", "C").env("HOME", self.dir.parent().unwrap());
        command
    }
}

pub fn said(out: &Output) -> String {
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&out.stderr));
    match out.status.code() {
        Some(0) => text,
        code => format!("{text}[{}]\n", code.unwrap_or(-1)),
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
        if !self.ends_within(Duration::from_secs(10)) {
            let _ = Command::new("umount").arg("-l").arg(&self.dir).output();
            eprintln!("{}: had to be detached", self.dir.display());
            return;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
