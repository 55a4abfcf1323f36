//! The rules of blocking and of lifetime, as cpu(4) states them, one test each.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_ninep::{Kind, OpenFlags};
use nix::sys::signal::{SigHandler, Signal};

use crate::kit::{Node, first_two, kind};

const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn opening_clone_makes_a_job_and_is_its_ctl() {
    let node = Node::new().await;
    let fid = node.me.open("clone", OpenFlags::RDWR).await.unwrap();
    let n = String::from_utf8(fid.read(0, 100).await.unwrap().to_vec()).unwrap();
    assert_eq!(n, "0\n");
    fid.write(0, Bytes::from_static(b"limit wall 5\n")).await.unwrap();
    fid.write(0, Bytes::from_static(b"nonsense\n")).await.unwrap_err();
    assert_eq!(node.me.cat("0/status").await.unwrap(), "new 0\n");
    assert!(node.me.cat("0/error").await.unwrap().contains("nonsense"));
    assert_eq!(node.me.cat("clone").await.unwrap(), "1\n");
}

#[tokio::test]
async fn a_write_of_several_lines_is_obeyed_whole_or_not_at_all() {
    let node = Node::new().await;
    let n = node.me.job().await;
    for (lines, expected) in [
        ("limit wall 1\nlimit wall 0", Kind::Invalid),
        ("limit wall 1\nlimit colour 3", Kind::Invalid),
        ("limit wall 1\nexec /p/none.wasm", Kind::NotFound),
        ("limit wall 1\nexec /p", Kind::Denied),
        ("limit wall 1\nexec /w/book\nkill", Kind::Busy),
        ("limit wall 1\nexec /p/true.wasm\nlimit wall 2", Kind::Busy),
        ("limit wall 1\nstdin /w/none\nexec /p/true.wasm", Kind::NotFound),
        ("limit wall 1\nstdout /none/x\nexec /p/true.wasm", Kind::NotFound),
        ("start", Kind::Invalid),
        ("note interrupt", Kind::Busy),
        ("kind native", Kind::NotSupported),
        ("redundancy 3", Kind::Invalid),
    ] {
        assert_eq!(kind(node.me.ctl(n, lines).await), Some(expected), "{lines}");
        assert_eq!(node.me.cat(&format!("{n}/status")).await.unwrap(), "new 0\n", "{lines}");
        assert_eq!(node.me.cat(&format!("{n}/args")).await.unwrap(), "", "{lines}");
        assert!(!node.me.cat(&format!("{n}/error")).await.unwrap().is_empty(), "{lines}");
    }
    // None of the refused writes left its first line behind: the job may run for longer than a second.
    node.me.start(n, "/p/sleep.wasm 1300").await;
    assert_eq!(first_two(&node.me.wait(n).await), "exited 0");
}

#[tokio::test]
async fn exec_returns_when_the_process_exists_and_a_job_starts_once() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.start(n, "/p/sleep.wasm 60000").await;
    assert_eq!(node.me.cat(&format!("{n}/status")).await.unwrap(), "running 0\n");
    assert!(node.processes() >= 2);
    for late in ["exec /p/true.wasm", "start", "stdin null", "limit fuel 5", "kind wasm"] {
        assert_eq!(kind(node.me.ctl(n, late).await), Some(Kind::Busy), "{late}");
    }
    for file in ["args", "env", "ns"] {
        assert_eq!(kind(node.me.echo(&format!("{n}/{file}"), "A=b").await), Some(Kind::Busy), "{file}");
    }
    node.me.ctl(n, "kill").await.unwrap();
}

#[tokio::test]
async fn stdin_written_before_the_start_is_kept_and_the_last_close_is_its_end() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.echo(&format!("{n}/stdin"), "early").await.unwrap();
    node.me.start(n, "/p/upper.wasm").await;
    assert_eq!(node.me.stdout(n).await, "EARLY\n");
    assert_eq!(first_two(&node.me.wait(n).await), "exited 0");
    assert_eq!(kind(node.me.echo(&format!("{n}/stdin"), "late").await), Some(Kind::BrokenPipe));
}

#[tokio::test]
async fn a_job_whose_stdin_nobody_opened_waits_and_keepstdin_leaves_the_end_to_eof() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.ctl(n, "keepstdin\nexec /p/upper.wasm").await.unwrap();
    node.me.echo(&format!("{n}/stdin"), "one").await.unwrap();
    let out = node.me.open(&format!("{n}/stdout"), OpenFlags::RDONLY).await.unwrap();
    assert_eq!(out.read(0, 100).await.unwrap(), "ONE\n");
    node.me.echo(&format!("{n}/stdin"), "two").await.unwrap();
    assert_eq!(out.read(4, 100).await.unwrap(), "TWO\n");
    assert!(tokio::time::timeout(SOON, node.me.cat(&format!("{n}/wait"))).await.is_err(), "it reads on");
    node.me.ctl(n, "eof").await.unwrap();
    assert_eq!(first_two(&node.me.wait(n).await), "exited 0");
}

#[tokio::test]
async fn a_read_of_stdout_waits_at_the_end_for_any_number_of_readers() {
    let node = Node::new().await;
    let n = node.me.job().await;
    let stdout = format!("{n}/stdout");
    let early = tokio::spawn({
        let (me, stdout) = (node.me.clone(), stdout.clone());
        async move { me.cat(&stdout).await.unwrap() }
    });
    node.me.start(n, "/p/sleep.wasm 300").await;
    let open = node.me.open(&stdout, OpenFlags::RDONLY).await.unwrap();
    assert_eq!(open.read(0, 100).await.unwrap(), "sleeping\n");
    let flags = OpenFlags(OpenFlags::NONBLOCK);
    let hasty = node.me.open(&stdout, flags).await.unwrap();
    assert_eq!(hasty.read(9, 100).await.unwrap(), "", "O_NONBLOCK never waits");
    assert_eq!(open.read(9, 100).await.unwrap(), "true\n");
    assert_eq!(open.read(14, 100).await.unwrap(), "");
    assert_eq!(open.read(3, 5).await.unwrap(), "eping");
    assert_eq!(early.await.unwrap(), "sleeping\ntrue\n");
    assert_eq!(node.me.file(&stdout).await.unwrap().getattr().await.unwrap().size, 14);
    assert_eq!(node.me.stdout(n).await, "sleeping\ntrue\n", "a reader after the end sees all");
}

#[tokio::test]
async fn wait_can_be_read_often_and_a_reader_that_goes_away_touches_nothing() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.start(n, "/p/sleep.wasm 300").await;
    let wait = format!("{n}/wait");
    assert!(tokio::time::timeout(SOON, node.me.cat(&wait)).await.is_err());
    let line = node.me.wait(n).await;
    assert_eq!(line, node.me.wait(n).await);
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    assert_eq!(words.len(), 10, "{line}");
    assert!(words[2..].iter().all(|w| w.parse::<u64>().is_ok()), "{line}");
    let real_ms: u64 = words[4].parse().unwrap();
    assert!((300..10_000).contains(&real_ms), "{line}");
    assert_ne!(words[5], "0", "fuel");
    assert_eq!(node.me.cat(&format!("{n}/status")).await.unwrap(), "exited 0\n");
    assert!(node.me.cat(&format!("{n}/usage")).await.unwrap().contains(&format!("fuel {}\n", words[5])));
}

#[tokio::test]
async fn kill_and_rmdir_return_when_the_process_is_gone() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.start(n, "/p/spin.wasm").await;
    let began = Instant::now();
    node.me.ctl(n, "kill").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(node.me.cat(&format!("{n}/status")).await.unwrap(), "killed 137\n");
    assert_eq!(node.me.stdout(n).await, "", "its spool is closed");
    node.me.ctl(n, "kill").await.unwrap();
    let m = node.me.job().await;
    node.me.start(m, "/p/spin.wasm").await;
    let dir = node.me.file("").await.unwrap();
    dir.unlink(&fs_ninep::Name::new(m.to_string()).unwrap(), true).await.unwrap();
    assert_eq!(kind(node.me.file(&m.to_string()).await), Some(Kind::NotFound));
    node.well().await;
    node.cpu.stop().await;
}

#[tokio::test]
async fn a_new_job_can_be_killed_and_free_removes_it() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.ctl(n, "kill").await.unwrap();
    assert_eq!(first_two(&node.me.wait(n).await), "killed 137");
    assert_eq!(kind(node.me.ctl(n, "exec /p/true.wasm").await), Some(Kind::Busy));
    node.me.ctl(n, "free").await.unwrap();
    assert_eq!(kind(node.me.file(&n.to_string()).await), Some(Kind::NotFound));
}

#[tokio::test]
async fn stop_and_cont_freeze_and_thaw() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.ctl(n, "keepstdin\nexec /p/upper.wasm").await.unwrap();
    node.me.ctl(n, "stop").await.unwrap();
    assert_eq!(node.me.cat(&format!("{n}/status")).await.unwrap(), "stopped 0\n");
    node.me.echo(&format!("{n}/stdin"), "x").await.unwrap();
    let out = node.me.open(&format!("{n}/stdout"), OpenFlags::RDONLY).await.unwrap();
    assert!(tokio::time::timeout(SOON, out.read(0, 9)).await.is_err());
    node.me.ctl(n, "cont").await.unwrap();
    assert_eq!(out.read(0, 9).await.unwrap(), "X\n");
    node.me.ctl(n, "stop").await.unwrap();
    node.me.ctl(n, "kill").await.unwrap();
    assert_eq!(first_two(&node.me.wait(n).await), "killed 137");
}

#[tokio::test]
async fn a_note_ends_a_job_as_the_signal_does() {
    // As nohup(1) leaves it to the node and all that it starts.
    // SAFETY: ignoring a signal runs no code of this process.
    unsafe { nix::sys::signal::signal(Signal::SIGHUP, SigHandler::SigIgn) }.unwrap();
    let node = Node::new().await;
    for (note, end) in [("interrupt", "signal 2"), ("term", "signal 15"), ("hup", "signal 1")] {
        let n = node.me.job().await;
        node.me.start(n, "/p/spin.wasm").await;
        node.me.ctl(n, &format!("note {note}")).await.unwrap();
        assert_eq!(first_two(&node.me.wait(n).await), end);
    }
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_ends_the_job_and_a_released_one_frees_it() {
    let node = Node::new().await;
    let n = node.me.job().await;
    assert!(node.me.cat(&format!("{n}/lease")).await.unwrap().starts_with("kept: "));
    node.me.ctl(n, "renew 1\nexec /p/spin.wasm").await.unwrap();
    assert!(node.me.cat(&format!("{n}/lease")).await.unwrap().starts_with("renewed: "));
    assert_eq!(first_two(&node.me.wait(n).await), "killed 137");
    let m = node.me.job().await;
    node.me.ctl(m, "release\nexec /p/true.wasm").await.unwrap();
    let wait = node.me.open(&format!("{m}/wait"), OpenFlags::RDONLY).await.unwrap();
    let line = wait.read(0, 200).await.unwrap();
    assert!(line.starts_with(b"exited 0 "));
    let gone = async {
        while node.me.file(&m.to_string()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("it goes when it has ended");
}

#[tokio::test(start_paused = true)]
async fn an_unused_job_goes_after_a_minute_and_an_ended_one_after_ten() {
    let node = Node::new().await;
    let unused: u64 = node.me.cat("clone").await.unwrap().trim().parse().unwrap();
    let killed: u64 = node.me.cat("clone").await.unwrap().trim().parse().unwrap();
    node.me.ctl(killed, "kill").await.unwrap();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(node.me.file(&unused.to_string()).await.is_ok());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(kind(node.me.file(&unused.to_string()).await), Some(Kind::NotFound));
    assert!(node.me.file(&killed.to_string()).await.is_ok());
    tokio::time::sleep(srv_cpu::ENDED_KEPT).await;
    assert_eq!(kind(node.me.file(&killed.to_string()).await), Some(Kind::NotFound));
}

#[tokio::test]
async fn other_users_see_a_line_in_ps_and_cannot_enter() {
    let node = Node::new().await;
    let (bob, eve) = (node.user("12D3KooWbob").await, node.user("12D3KooWeve").await);
    let n = bob.job().await;
    bob.start(n, "/p/sleep.wasm 60000").await;
    assert_eq!(kind(eve.file(&format!("{n}/status")).await), Some(Kind::Denied));
    let ps = eve.cat("ps").await.unwrap();
    assert!(ps.contains("12D3KooWbob") && !ps.contains("sleep"), "{ps}");
    assert!(bob.cat("ps").await.unwrap().contains("/p/sleep.wasm 60000"));
    let attr = bob.file(&n.to_string()).await.unwrap().getattr().await.unwrap();
    assert_eq!(attr.mode & 0o777, 0o700);
    bob.ctl(n, "kill").await.unwrap();
}

#[tokio::test]
async fn a_users_quota_and_the_nodes_table_are_bounds() {
    let node = Node::new().await;
    for _ in 0..srv_cpu::JOBS_USER_MAX {
        node.me.cat("clone").await.unwrap();
    }
    assert_eq!(kind(node.me.cat("clone").await), Some(Kind::Again));
    assert!(node.me.cat("error").await.unwrap().contains("one user"));
    for user in 1.. {
        let user = node.user(&format!("12D3KooW{user}")).await;
        let mut made = 0;
        while user.cat("clone").await.is_ok() {
            made += 1;
        }
        if made < srv_cpu::JOBS_USER_MAX {
            assert!(user.cat("error").await.unwrap().contains("this node holds"));
            break;
        }
    }
    node.me.ctl(0, "free").await.unwrap();
    node.me.cat("clone").await.unwrap();
}

#[tokio::test]
async fn a_full_spool_kills_or_blocks() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.ctl(n, "limit spool 1M\nexec /p/flood.wasm").await.unwrap();
    assert_eq!(first_two(&node.me.wait(n).await), "outlimit 153");
    assert_eq!(node.me.bytes(&format!("{n}/stdout")).await.unwrap().len(), 1 << 20, "what fitted is kept");
    let m = node.me.job().await;
    node.me.ctl(m, "spoolfull block\nlimit spool 100K\nexec /p/flood.wasm stderr").await.unwrap();
    let stderr = node.me.open(&format!("{m}/stderr"), OpenFlags::RDONLY).await.unwrap();
    let mut at = 0;
    while at < 100 << 10 {
        at += stderr.read(at, 65536).await.unwrap().len() as u64;
    }
    assert!(tokio::time::timeout(SOON, stderr.read(at, 1)).await.is_err(), "it waits for room");
    node.me.ctl(m, "limit spool 200K").await.unwrap();
    assert!(!stderr.read(at, 1).await.unwrap().is_empty(), "room was made");
    node.me.ctl(m, "kill").await.unwrap();
    assert_eq!(first_two(&node.me.wait(m).await), "killed 137");
}

#[tokio::test]
async fn a_disk_without_room_for_a_spool_ends_the_job_and_not_the_node() {
    let node = Node::new().await;
    std::fs::remove_dir(node.dir.path().join("cpu/spool")).unwrap();
    let (end, out) = node.me.run("/p/flood.wasm").await;
    assert_eq!(end, "disk 153");
    assert!(!out.is_empty(), "what was kept stays readable");
    std::fs::create_dir(node.dir.path().join("cpu/spool")).unwrap();
    node.well().await;
}

#[tokio::test]
async fn ns_reads_back_what_makes_it_again_without_its_secrets() {
    let node = Node::new().await;
    let n = node.me.job().await;
    let text = node.me.cat(&format!("{n}/ns")).await.unwrap();
    assert!(text.contains("ipos:12D3KooWneighbour/programs#*") && !text.contains("secret"), "{text}");
    for (line, expected) in [
        ("mount ipos:x/none#secret /x", Kind::Denied),
        ("mount srv/ann /x", Kind::Invalid),
        ("mount ipos:x/work#secret /x rx", Kind::Invalid),
        ("mount", Kind::Invalid),
    ] {
        assert_eq!(kind(node.me.echo(&format!("{n}/ns"), line).await), Some(expected), "{line}");
        let error = node.me.cat(&format!("{n}/error")).await.unwrap();
        assert!(!error.is_empty() && !error.contains("#secret"), "{line}: {error}");
        assert_eq!(node.me.cat(&format!("{n}/ns")).await.unwrap(), text, "{line}");
    }
    let m: u64 = node.me.cat("clone").await.unwrap().trim().parse().unwrap();
    node.me.echo(&format!("{m}/ns"), &text.replace('*', "secret")).await.unwrap();
    assert_eq!(node.me.cat(&format!("{m}/ns")).await.unwrap(), text);
}

#[tokio::test]
async fn a_cut_connection_gives_the_job_an_error_and_after_the_linger_its_end() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.ctl(n, "linger 1\nkeepstdin\nexec /p/upper.wasm").await.unwrap();
    node.me.echo(&format!("{n}/stdin"), "here").await.unwrap();
    let out = node.me.open(&format!("{n}/stdout"), OpenFlags::RDONLY).await.unwrap();
    assert_eq!(out.read(0, 9).await.unwrap(), "HERE\n");
    node.neighbour.die(false);
    assert_eq!(first_two(&node.me.wait(n).await), "lost 129");
    node.revive();
    for (hiccup, end) in [(false, "exited 1"), (true, "exited 0")] {
        let m = node.me.job().await;
        node.me.ctl(m, "keepstdin\nexec /p/tee.wasm /w/after").await.unwrap();
        let stderr = node.me.open(&format!("{m}/stderr"), OpenFlags::RDONLY).await.unwrap();
        assert_eq!(stderr.read(0, 99).await.unwrap(), "reading\n");
        node.neighbour.die(hiccup);
        node.me.echo(&format!("{m}/stdin"), "text").await.unwrap();
        node.me.ctl(m, "eof").await.unwrap();
        assert_eq!(first_two(&node.me.wait(m).await), end, "hiccup: {hiccup}");
        assert_eq!(node.dir.path().join("work/after").exists(), hiccup);
        node.revive();
    }
    node.well().await;
}

#[tokio::test]
async fn a_worker_that_dies_takes_its_jobs_along_and_is_started_again() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.start(n, "/p/spin.wasm").await;
    let mark = node.dir.path().to_str().unwrap().to_owned();
    let me = std::process::id().to_string();
    let worker = std::fs::read_dir("/proc").unwrap().flatten().find(|entry| {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
        String::from_utf8_lossy(&cmdline).contains(&mark) && parent.as_deref() == Some(me.as_str())
    });
    let pid: i32 = worker.unwrap().file_name().to_str().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(first_two(&node.me.wait(n).await), "lost 129");
    node.well().await;
    assert!(node.me.cat("info").await.unwrap().contains("worker_starts 2\n"));
}

#[tokio::test]
async fn as_many_arguments_as_may_be_arrive_and_one_more_is_refused() {
    let node = Node::new().await;
    let n = node.me.job().await;
    let words = |file: &str, count: usize| {
        let (path, text) = (format!("{n}/{file}"), vec![if file == "env" { "A=b" } else { "a" }; count].join("\n"));
        let me = node.me.clone();
        async move { me.echo(&path, &text).await }
    };
    node.me.echo(&format!("{n}/args"), &format!("/p/echo.wasm\n{}", "a\n".repeat(10_000))).await.unwrap();
    assert_eq!(kind(words("env", 9_000).await), Some(Kind::TooBig));
    words("env", 8_000).await.unwrap();
    node.me.ctl(n, "start").await.unwrap();
    assert_eq!(node.me.stdout(n).await.trim_end().split(' ').count(), 10_000);
    assert_eq!(first_two(&node.me.wait(n).await), "exited 0");
}

#[tokio::test]
async fn a_process_that_died_while_it_waited_is_replaced() {
    let node = Node::new().await;
    node.well().await;
    let me = std::process::id().to_string();
    let mark = node.dir.path().to_str().unwrap().to_owned();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
        if String::from_utf8_lossy(&cmdline).contains(&mark) && parent.is_some_and(|p| p != me) {
            let pid = entry.file_name().to_str().unwrap().parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
            let dead = || {
                let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
            };
            while !dead() {
                std::thread::yield_now(); // a killed process dies in its own time
            }
        }
    }
    node.well().await;
    assert!(node.me.cat("info").await.unwrap().contains("worker_starts 1\n"));
}

#[tokio::test]
async fn an_ended_job_holds_no_scratch_space_and_no_mount() {
    let node = Node::new().await;
    let n = node.me.job().await;
    let text = node.me.cat(&format!("{n}/ns")).await.unwrap();
    node.me.start(n, "/p/tee.wasm /tmp/kept some words").await;
    assert_eq!(first_two(&node.me.wait(n).await), "exited 0");
    assert!(node.me.cat(&format!("{n}/usage")).await.unwrap().contains("disk 0\n"));
    assert_eq!(node.me.cat(&format!("{n}/ns")).await.unwrap(), text + "nomnt\n", "what it was can still be read");
}

#[tokio::test]
async fn info_says_what_the_machine_is() {
    let node = Node::new().await;
    node.me.run("/p/true.wasm").await;
    let info = node.me.cat("info").await.unwrap();
    for line in ["node ann\n", "kinds wasm\n", "iso wasmonly\n", "engine wasmtime-48.0.8-", "limit.fuel ", "cores "] {
        assert!(info.contains(line), "{line}: {info}");
    }
}

#[tokio::test]
async fn a_program_is_compiled_once_and_again_when_its_kept_code_is_damaged() {
    let node = Node::new().await;
    let compile_ms = async |words: &str| {
        let n = node.me.job().await;
        node.me.start(n, words).await;
        assert_eq!(first_two(&node.me.wait(n).await), "exited 0");
        let usage = node.me.cat(&format!("{n}/usage")).await.unwrap();
        let line = usage.lines().find_map(|l| l.strip_prefix("compile_ms ")).unwrap().to_owned();
        line.parse::<u64>().unwrap()
    };
    assert!(compile_ms("/p/wc.wasm -l /w/book").await > 0);
    assert_eq!(compile_ms("/p/wc.wasm -l /w/book").await, 0);
    let code = std::fs::read_dir(node.dir.path().join("cpu/code")).unwrap().next().unwrap().unwrap().path();
    let kept = std::fs::read_dir(&code).unwrap().next().unwrap().unwrap().path();
    // Another node on the same directory, which holds nothing in memory yet.
    let mut bytes = std::fs::read(&kept).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    let fresh = Node::new().await;
    let target = fresh.dir.path().join("cpu/code").join(code.file_name().unwrap());
    std::fs::create_dir_all(&target).unwrap();
    std::fs::copy(&kept, target.join(kept.file_name().unwrap())).unwrap();
    let n = fresh.me.job().await;
    fresh.me.start(n, "/p/wc.wasm -l /w/book").await;
    assert_eq!(fresh.me.stdout(n).await, "3 /w/book\n");
    assert!(!fresh.me.cat(&format!("{n}/usage")).await.unwrap().contains("compile_ms 0\n"));
}

#[tokio::test]
async fn a_program_that_was_changed_is_read_again() {
    let node = Node::new().await;
    for (program, code) in [("(i32.const 3)", 3), ("(i32.const 4)", 4), ("(i32.const 5)", 5)] {
        node.module(
            "x.wasm",
            &format!(
                r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1) (func (export "_start") (call $exit {program})))"#
            ),
        );
        for _ in 0..2 {
            assert_eq!(node.me.run("/m/x.wasm").await.0, format!("exited {code}"));
        }
    }
}
