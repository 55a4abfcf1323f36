//! A reader that waits for another machine can be ended by every signal, at once, and no other notices.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{FAULT, play_bound};
use crate::Verdict;
use crate::scene::Scene;

tests!(a_signal_ends_a_reader_of_a_remote_file_and_no_other,);

/// How long a reader may live after its signal; 100 ms by fuse(5), and what a busy machine adds.
const SOON: Duration = Duration::from_millis(500);

/// A `cat` of `path` in Bob's mount, once it waits for bytes.
fn reader(s: &Scene, path: &str) -> Child {
    let path = s.stage.path("bob.mnt").join(path);
    let child = Command::new("cat").arg(&path).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    until_it_reads(child.id(), &path);
    child
}

/// Waits until process `id` has `path` open and sleeps in read(2): system call 0 here, or 63 where it is not x86.
fn until_it_reads(id: u32, path: &Path) {
    let process = Path::new("/proc").join(id.to_string());
    let reads = |call: String| ["0 ", "63 "].iter().any(|number| call.starts_with(number));
    let start = Instant::now();
    loop {
        let open = fs::read_link(process.join("fd/3")).is_ok_and(|file| file == path);
        if open && fs::read_to_string(process.join("syscall")).is_ok_and(reads) {
            return;
        }
        assert!(start.elapsed() < FAULT, "cat {} does not wait", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn a_signal_ends_a_reader_of_a_remote_file_and_no_other() -> Verdict {
    play_bound(|s| {
        let n = s.ok("exec 4<>cpu/ann/clone; read n <&4; exec 4>&-; echo $n");
        let path = format!("cpu/ann/{n}/wait");
        let other = reader(s, &path);
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            let mut child = reader(s, &path);
            let start = Instant::now();
            kill(Pid::from_raw(child.id() as i32), signal).unwrap();
            let status = child.wait().unwrap();
            let took = start.elapsed();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal as i32));
            assert!(took <= SOON, "{signal}: {took:?}");
        }
        s.ok(&format!("tell cpu/ann/{n}/ctl kill"));
        let output = other.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.starts_with("killed 137 "), "{said}");
    })
}
