//! `ipos doctor`: what stands in the way, and what to type against it.

use std::fs::{self, OpenOptions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::config::Config;
use crate::home::Home;
use crate::{Error, place};

/// Check what ipos needs of this machine
///
/// Prints a line a check, and what to type for each fault; exits 1 where there is one.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {}

/// What one check found.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    state: State,
    /// What was looked at.
    what: String,
    /// What was seen.
    text: String,
    /// What to type, or empty.
    cure: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fine,
    /// Something works less well; not a fault.
    Note,
    Fault,
}

impl Finding {
    fn fine(what: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding { state: State::Fine, what: what.into(), text: text.into(), cure: String::new() }
    }

    fn note(what: impl Into<String>, text: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding { state: State::Note, what: what.into(), text: text.into(), cure: cure.into() }
    }

    fn fault(what: impl Into<String>, text: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding { state: State::Fault, what: what.into(), text: text.into(), cure: cure.into() }
    }
}

impl Doctor {
    pub(crate) fn run(&self, home: &Home) -> Result<ExitCode, Error> {
        let mut findings = vec![device(Path::new("/dev/fuse")), helper(), request_timeout(), name_spaces()];
        findings.push(state(home));
        match Config::read(&home.config()) {
            Ok(config) => {
                findings.push(Finding::fine("configuration", "read"));
                findings.extend(ports(home, &config));
                findings.push(directory(&config));
            }
            Err(e) => findings.push(Finding::fault("configuration", e.to_string(), "mend that line, or remove it")),
        }
        findings.extend(mounts());
        for Finding { state, what, text, cure } in &findings {
            let word = match state {
                State::Fine => "ok",
                State::Note => "note",
                State::Fault => "FAULT",
            };
            let cure = if cure.is_empty() { String::new() } else { format!("; {cure}") };
            println!("{word:5} {what}: {text}{cure}");
        }
        let faults = findings.iter().any(|f| f.state == State::Fault);
        Ok(if faults { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn device(path: &Path) -> Finding {
    let what = path.display().to_string();
    let Err(e) = OpenOptions::new().read(true).write(true).open(path) else {
        return Finding::fine(what, "can be opened");
    };
    match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => Finding::fault(what, "is missing", "type as root: modprobe fuse"),
        Some(Errno::ENODEV | Errno::ENXIO) => {
            Finding::fault(what, "the kernel has no FUSE", "type as root: modprobe fuse")
        }
        Some(Errno::EACCES | Errno::EPERM) => {
            let mode = fs::metadata(path).map_or(0, |m| m.permissions().mode() & 0o777);
            let text = format!("may not be opened by this user (mode {mode:04o})");
            Finding::fault(what, text, format!("type as root: chmod 0666 {}", path.display()))
        }
        _ => Finding::fault(what, format!("cannot be opened: {e}"), "see the kernel's log: dmesg"),
    }
}

/// Root mounts by itself; everybody else through the setuid program of the package fuse3.
fn helper() -> Finding {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|d| d.join("fusermount3")).find_map(|p| Some((fs::metadata(&p).ok()?, p)))
    });
    match found {
        Some((meta, path)) if geteuid().is_root() || (meta.mode() & 0o4000 != 0 && meta.uid() == 0) => {
            Finding::fine("fusermount3", path.display().to_string())
        }
        Some((_, path)) => {
            let cure = format!("type as root: chown root {0} && chmod 4755 {0}", path.display());
            Finding::fault("fusermount3", format!("{} is not setuid root", path.display()), cure)
        }
        None if geteuid().is_root() => Finding::fine("fusermount3", "not installed; root mounts without it"),
        None => Finding::fault("fusermount3", "not found in PATH", "type as root: apt install fuse3"),
    }
}

/// A limit on requests would cut every read that waits for an event (and, on some kernels, the mount with it).
fn request_timeout() -> Finding {
    let what = "fuse request timeout";
    let read = |name| {
        let text = fs::read_to_string(Path::new("/proc/sys/fs/fuse").join(name)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    match (read("default_request_timeout"), read("max_request_timeout")) {
        (0, 0) => Finding::fine(what, "none"),
        (default, max) => Finding::note(
            what,
            format!("set to {default} s (at most {max} s): reads that wait for an event end early with EINTR"),
            "type as root: sysctl fs.fuse.default_request_timeout=0 fs.fuse.max_request_timeout=0",
        ),
    }
}

fn name_spaces() -> Finding {
    let what = "user and mount name spaces";
    let tried = Command::new("unshare").args(["--user", "--mount", "true"]).stderr(Stdio::null()).status();
    if tried.is_ok_and(|s| s.success()) {
        return Finding::fine(what, "can be made by this user");
    }
    Finding::note(
        what,
        "cannot be made by this user; private name spaces will not work",
        "type as root: sysctl user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1",
    )
}

fn state(home: &Home) -> Finding {
    let (path, what) = (home.path(), format!("state directory {}", home.path().display()));
    let Ok(meta) = fs::metadata(path) else {
        let parent = path.ancestors().skip(1).find(|p| p.exists()).unwrap_or(Path::new("/"));
        return match nix::unistd::access(parent, nix::unistd::AccessFlags::W_OK) {
            Ok(()) => Finding::fine(what, "will be made at the first start"),
            Err(_) => Finding::fault(what, "is missing and cannot be made", "type: ipos --home DIR doctor"),
        };
    };
    let me = geteuid().as_raw();
    match () {
        () if !meta.is_dir() => Finding::fault(what, "is not a directory", "type: ipos --home DIR doctor"),
        () if meta.uid() != me => {
            let cure = format!("type as root: chown -R {me} {}", path.display());
            Finding::fault(what, format!("belongs to user id {}", meta.uid()), cure)
        }
        () if meta.mode() & 0o077 != 0 => {
            let text = format!("others may look into it (mode {:04o})", meta.mode() & 0o777);
            Finding::fault(what, text, format!("type: chmod 0700 {}", path.display()))
        }
        () => match home.held_by() {
            Ok(None) => Finding::fine(what, "no node is running on it"),
            Ok(Some(pid)) => Finding::fine(what, format!("a node runs on it, process id {pid}")),
            Err(e) => Finding::fault(what, e.to_string(), format!("type: ls -la {}", path.display())),
        },
    }
}

/// Ports that the configuration names by number must be free while no node runs.
fn ports(home: &Home, config: &Config) -> Vec<Finding> {
    let running = home.held_by().is_ok_and(|pid| pid.is_some());
    config.listen.iter().map(|addr| port(addr, running)).collect()
}

fn port(addr: &str, running: bool) -> Finding {
    let what = format!("listen {addr}");
    let parts: Vec<&str> = addr.split('/').collect();
    let (ip, kind, port) = match parts[..] {
        ["", "ip4" | "ip6", ip, kind @ ("tcp" | "udp"), port, ..] => (ip, kind, port),
        _ => return Finding::fault(what, "is not /ip4/ADDRESS/tcp/PORT or the like", "mend \"listen\""),
    };
    let (Ok(ip), Ok(port)) = (ip.parse::<std::net::IpAddr>(), port.parse::<u16>()) else {
        return Finding::fault(what, "has a bad address or port", "mend \"listen\"");
    };
    if running && port != 0 {
        return Finding::fine(what, "held by the running node");
    }
    let bound = match kind {
        "tcp" => TcpListener::bind((ip, port)).map(drop),
        _ => UdpSocket::bind((ip, port)).map(drop),
    };
    match bound.map_err(|e| e.raw_os_error().map(Errno::from_raw)) {
        Ok(()) => Finding::fine(what, "free"),
        Err(Some(Errno::EADDRINUSE)) => {
            Finding::fault(what, "another program listens there", format!("type: ss -lnp 'sport = {port}'"))
        }
        Err(Some(Errno::EACCES)) => Finding::fault(what, "ports below 1024 are root's", "choose a higher port"),
        Err(e) => Finding::fault(what, format!("cannot be listened on: {e:?}"), "type: ip address"),
    }
}

fn directory(config: &Config) -> Finding {
    match place::choose(None, config) {
        Ok(dir) if place::usable(&dir) => Finding::fine("mount directory", dir.display().to_string()),
        Ok(dir) => {
            let cure = format!("type as root: mkdir -p {0} && chown {1} {0}", dir.display(), geteuid());
            Finding::fault("mount directory", format!("{} is not writable by this user", dir.display()), cure)
        }
        Err(e) => Finding::fault("mount directory", e.to_string(), "type: ipos mount DIR"),
    }
}

fn mounts() -> Vec<Finding> {
    let look = |dir: PathBuf| {
        let what = format!("mount {}", dir.display());
        match place::dead(&dir) {
            true => Finding::fault(what, "its node has died", format!("type: ipos umount {}", dir.display())),
            false => Finding::fine(what, "alive"),
        }
    };
    place::mounts().unwrap_or_default().into_iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_what_to_type() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
        for (finding, state, cure) in [
            (device(Path::new("/dev/no-such-fuse")), State::Fault, "modprobe fuse"),
            (device(Path::new("/dev/null")), State::Fine, ""),
            (port("/ip4/127.0.0.1/tcp/0", false), State::Fine, ""),
            (port("/ip4/127.0.0.1/udp/0/quic-v1", true), State::Fine, ""),
            (port("/dns/a/tcp/1", false), State::Fault, "mend"),
            (port("/ip4/1.2.3/tcp/1", false), State::Fault, "mend"),
            (port(&taken, false), State::Fault, "ss -lnp"),
            (port(&taken, true), State::Fine, ""),
        ] {
            assert!(finding.state == state && finding.cure.contains(cure), "{finding:?}");
        }
    }

    #[test]
    fn an_open_state_directory_is_a_fault() {
        let dir = std::env::temp_dir().join(format!("ipos-doctor-{}", std::process::id()));
        let home = Home::find(Some(&dir), "doctor").unwrap();
        assert_eq!(state(&home).text, "will be made at the first start");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(state(&home).cure.contains("chmod 0700"));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(state(&home).text, "no node is running on it");
        let held = home.hold().unwrap();
        assert!(state(&home).text.contains(&std::process::id().to_string()));
        drop(held);
        fs::remove_dir_all(&dir).unwrap();
    }
}
