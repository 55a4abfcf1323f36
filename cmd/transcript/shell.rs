//! One `sh`, given a command at a time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Most bytes of one command's output that are kept; a command that prints more is ended.
pub const OUTPUT_MAX: usize = 4 << 20;

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it wrote to standard output and standard error, in the order written; bytes that are no UTF-8 are replaced.
    pub output: String,
    /// Its exit status; `None` where it did not end in time, or took the shell with it.
    pub status: Option<i32>,
}

/// A running `sh` in a process group of its own, which ends when this is dropped.
pub struct Shell {
    child: Child,
    script: File,
    output: File,
    mark: String,
    count: u64,
}

impl Shell {
    /// Starts `sh` in `dir` with `env` added to the environment. LC_ALL is C, standard input is empty.
    /// # Errors
    /// What pipe(2) or the start of `sh` answered.
    pub fn start(dir: &Path, env: &[(String, String)]) -> io::Result<Shell> {
        let (script_end, script) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let (output, output_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        // The script comes through descriptor 9 and not 0, so that a command which reads its input cannot eat the rest
        // of it; and not through `.`, with which some shells wait for the end of the whole file.
        let child = Command::new("sh")
            .args(["-c", "exec sh /dev/fd/9 9<&0 </dev/null"])
            .current_dir(dir)
            .envs(env.iter().map(|(k, v)| (k, v)))
            .env("LC_ALL", "C")
            .stdin(Stdio::from(script_end))
            .stdout(Stdio::from(output_end.try_clone()?))
            .stderr(Stdio::from(output_end))
            .process_group(0)
            .spawn()?;
        let mark = format!("--{}-{:?}--", child.id(), Instant::now()).replace([' ', '{', '}'], "");
        Ok(Shell { child, script: script.into(), output: output.into(), mark, count: 0 })
    }

    /// Runs `command` and waits at most `limit` for its end. After an outcome without a status the shell is gone.
    /// # Errors
    /// What a pipe answered.
    pub fn run(&mut self, command: &str, limit: Duration) -> io::Result<Outcome> {
        let deadline = Instant::now() + limit;
        self.count += 1;
        let mark = format!("{}{} ", self.mark, self.count);
        let sent = self.script.write_all(format!("{command}\nprintf '%s%d\\n' '{mark}' $?\n").as_bytes());
        let mut bytes = Vec::new();
        let mut status = None;
        while sent.is_ok() && status.is_none() && self.read_some(&mut bytes, deadline)? && bytes.len() < OUTPUT_MAX {
            status = take_mark(&mut bytes, mark.as_bytes());
        }
        if status.is_none() {
            self.end();
        }
        Ok(Outcome { output: String::from_utf8_lossy(&bytes).into_owned(), status })
    }

    /// False at the deadline and at the end of the output.
    fn read_some(&mut self, bytes: &mut Vec<u8>, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
        let mut buffer = [0; 16384];
        let n = self.output.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..n]);
        Ok(n > 0)
    }

    fn end(&mut self) {
        let group = Pid::from_raw(self.child.id() as i32);
        let _gone_already = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.end();
    }
}

/// Cuts the mark and what follows off `bytes` once its line is whole, and gives the status it carries.
fn take_mark(bytes: &mut Vec<u8>, mark: &[u8]) -> Option<i32> {
    let at = bytes.windows(mark.len()).rposition(|w| w == mark)?;
    let line = std::str::from_utf8(&bytes[at + mark.len()..]).ok()?.strip_suffix('\n')?;
    let status = line.parse().ok()?;
    bytes.truncate(at);
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shell_many_commands() {
        let mut sh = Shell::start(Path::new("/"), &[("GREETING".into(), "hello".into())]).unwrap();
        let mut run = |c: &str| sh.run(c, Duration::from_secs(20)).unwrap();
        let outcome = |output: &str, status| Outcome { output: output.into(), status };
        for (command, output, status) in [
            ("echo $GREETING; pwd", "hello\n/\n", Some(0)),
            ("x=1", "", Some(0)),
            ("printf %s $x; echo err >&2", "1err\n", Some(0)),
            ("printf 'no newline'; false", "no newline", Some(1)),
            ("cat", "", Some(0)),
            ("cat <<X\nhere\nX", "here\n", Some(0)),
            ("(exit 7)", "", Some(7)),
            ("exit 3", "", None),
        ] {
            assert_eq!(run(command), outcome(output, status), "{command}");
        }
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let mut sh = Shell::start(Path::new("/"), &[]).unwrap();
        let out = sh.run("echo begun; sleep 1000", Duration::from_millis(300)).unwrap();
        assert_eq!(out, Outcome { output: "begun\n".into(), status: None });
    }
}
