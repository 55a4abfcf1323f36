//! Ann and Bob on a stage, and a shell of Bob's: what the tests of verbs and faults play on.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ipos::tour::Stage;
use ipos::transcript::{Outcome, Shell};

use crate::Verdict;
use crate::transcripts::{IPOS, programs};

/// The most any one command may take.
pub(crate) const STEP: Duration = Duration::from_secs(60);

/// Settings under which a node speaks to nobody it is not told of.
pub(crate) const QUIET: &str = "mdns = false\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n";

/// What the shell knows beside the stage's variables. `tell` is an echo that says which error its write met.
const PROLOGUE: &str = r#"tell() { f=$1; shift; env printf '%s\n' "$@" >$f; }"#;

/// A stage and a shell of Bob's on it.
pub(crate) struct Scene {
    pub(crate) shell: Shell,
    pub(crate) stage: Stage,
}

impl Scene {
    /// Two nodes of which Bob has not heard of Ann.
    pub(crate) fn strangers() -> Result<Scene, Verdict> {
        if let Some(why) = crate::no_fuse() {
            return Err(Verdict::NotRun(why));
        }
        let stage = Stage::start(Path::new(IPOS)).unwrap_or_else(|e| panic!("the stage: {e}"));
        Ok(Scene { shell: shell(&stage), stage })
    }

    /// Two nodes; Ann is dialled, her cpu is granted and bound behind Bob's.
    pub(crate) fn new() -> Result<Scene, Verdict> {
        let mut scene = Scene::strangers()?;
        scene.meet();
        Ok(scene)
    }

    /// Makes of strangers what [`Scene::new`] makes.
    pub(crate) fn meet(&mut self) {
        self.ok("echo dial $ANN ann >$N/peers/ctl; ID=$(cat $N/self/id)");
        self.ok("echo grant $ID /cpu >$A/export/ctl");
        self.ok("echo bind -a /n/ann/cpu /cpu >$N/ns");
    }

    /// One more shell.
    pub(crate) fn shell(&self) -> Shell {
        shell(&self.stage)
    }

    /// Runs `line` in Bob's shell, whatever comes of it.
    pub(crate) fn run(&mut self, line: &str) -> Outcome {
        self.shell.run(line, STEP).unwrap()
    }

    /// Runs a line that must succeed, and gives what it printed without the last newline.
    #[track_caller]
    pub(crate) fn ok(&mut self, line: &str) -> String {
        let Outcome { output, status } = self.run(line);
        let logs = [&self.stage.ann, &self.stage.bob].map(|node| node.log());
        assert_eq!(status, Some(0), "$ {line}\n{output}ann: {}\nbob: {}", logs[0], logs[1]);
        output.trim_end_matches('\n').to_owned()
    }

    /// Runs a line that must fail and say `text`, and gives all it said.
    #[track_caller]
    pub(crate) fn fails(&mut self, line: &str, text: &str) -> String {
        let Outcome { output, status } = self.run(line);
        assert!(matches!(status, Some(1..)), "$ {line}\n{output}status {status:?}");
        assert!(output.contains(text), "$ {line}\n{output}lacks {text:?}");
        output
    }

    /// As [`Scene::fails`], and within `limit`.
    #[track_caller]
    pub(crate) fn fails_in(&mut self, limit: Duration, line: &str, text: &str) {
        let start = Instant::now();
        self.fails(line, text);
        let took = start.elapsed();
        assert!(took <= limit, "$ {line}\ntook {took:?}");
    }

    /// Runs `line` until it prints what `good` accepts.
    #[track_caller]
    pub(crate) fn until(&mut self, limit: Duration, line: &str, good: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let got = self.run(line).output;
            if good(&got) {
                return got;
            }
            assert!(start.elapsed() < limit, "$ {line}\n{got}after {limit:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Exports `dir` of Bob's, to be mounted by whoever is given the capability: `export/$M/cap`.
    pub(crate) fn share(&mut self, dir: &Path) {
        let line = format!(
            "exec 3<>$N/export/clone; read M <&3; exec 3>&-; tell $N/export/$M/ctl 'bind {} /p'",
            dir.display()
        );
        self.ok(&line);
    }
}

fn shell(stage: &Stage) -> Shell {
    let mut env = stage.env();
    env.push(("PROGRAMS".into(), programs().display().to_string()));
    let mut shell = Shell::start(&stage.path("work"), &env).unwrap();
    let outcome = shell.run(PROLOGUE, STEP).unwrap();
    assert_eq!(outcome.status, Some(0), "{}", outcome.output);
    shell
}

/// The processes that have a file under `dir` open (their log, for one), and the mounts under it.
pub(crate) fn left(dir: &Path) -> Vec<String> {
    let text = dir.to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut left: Vec<String> = mounts.lines().filter(|l| l.contains(text)).map(str::to_owned).collect();
    for process in fs::read_dir("/proc").unwrap().flatten().map(|e| e.path()) {
        let Ok(fds) = fs::read_dir(process.join("fd")) else { continue };
        let mut open = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        if open.any(|file| file.starts_with(dir)) {
            let command = fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ");
            left.push(format!("{} {command}", process.display()));
        }
    }
    left
}
