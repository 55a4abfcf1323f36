//! Peers that cannot be reached, that die, that fall silent, and come back.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipos::transcript::Outcome;
use nix::sys::signal::{Signal, kill};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

use super::{FAULT, job, play, play_bound};
use crate::Verdict;
use crate::scene::{STEP, Scene};
use crate::transcripts::programs;

tests!(
    who_cannot_be_reached_is_an_error_in_time,
    a_peer_that_is_killed_is_an_error_in_time_and_comes_back_under_the_same_bind,
    a_peer_that_falls_silent_is_an_error_in_time_and_comes_back_under_the_same_bind,
    a_peer_that_comes_back_elsewhere_needs_its_address_and_no_other_word,
    a_job_whose_caller_is_killed_is_lost,
);

/// A socket that lets a caller connect and never says a word.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A port at which every packet is dropped: the queue of its listener is full.
fn black_hole() -> (Runtime, tokio::net::TcpListener, Vec<TcpStream>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let listener = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        socket.listen(0).unwrap()
    });
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_millis(300)) {
        queue.push(stream);
        assert!(queue.len() < 16, "a queue without room does not fill");
    }
    (runtime, listener, queue)
}

fn who_cannot_be_reached_is_an_error_in_time() -> Verdict {
    play(|s| {
        let silent = silent();
        let silent = silent.local_addr().unwrap().port();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (_runtime, hole, _queue) = black_hole();
        let hole = hole.local_addr().unwrap().port();
        let other = s.ok("echo new other >keys/ctl; grep ^other keys/list | cut -f4");
        let ann = s.stage.addr.rsplit_once('/').unwrap().0.to_owned();
        let (before, names) = (s.ok("cat peers/ctl; ls peers n"), "nobody zed");
        for (addr, errno, text) in [
            (format!("/ip4/127.0.0.1/tcp/{closed}"), "No route to host", "connection refused; start the node there"),
            (format!("/ip4/127.0.0.1/tcp/{silent}"), "No route to host", "no answer in 4.5 s"),
            (format!("/ip4/127.0.0.1/tcp/{hole}"), "No route to host", "no answer in 4.5 s"),
            (format!("{ann}/{other}"), "Permission denied", "not the one that was asked for"),
        ] {
            s.fails_in(FAULT, &format!("tell peers/ctl 'dial {addr} zed'"), errno);
            let error = s.ok("cat peers/error");
            assert!(error.contains(addr.split("/p2p/").next().unwrap()) && error.contains(text), "{addr}: {error}");
            assert_eq!(s.ok("cat peers/ctl; ls peers n"), before, "{addr}");
        }
        for name in names.split(' ') {
            s.fails_in(FAULT, &format!("ls n/{name}"), "No such file or directory");
            s.fails_in(FAULT, &format!("cat peers/{name}/status"), "No such file or directory");
            s.fails_in(FAULT, &format!("tell ns 'bind -a /n/{name}/cpu /cpu'"), "No such file or directory");
        }
        s.ok("echo dial $ANN ann >peers/ctl; ls n/ann");
    })
}

/// What was under way on Ann's machine when she went: a loop of listings, and readers that wait.
struct UnderWay(Vec<(String, JoinHandle<(Outcome, Instant)>)>);

impl UnderWay {
    fn start(s: &mut Scene) -> UnderWay {
        s.share(programs());
        job(s);
        s.ok("tell $J/ctl 'exec /p/sleep.wasm 600000'; head -c 9 $J/stdout");
        s.ok("exec 4<>cpu/ann/clone; read k <&4; exec 4>&-; K=cpu/ann/$k");
        let job = s.ok("echo $J");
        let new = s.ok("echo $K");
        let commands = [
            "while ls -l n/ann/cpu/ann >>ls.out; do :; done; false".into(),
            format!("cat {job}/wait"),
            format!("cat {job}/stdout"),
            format!("cat {new}/wait"),
        ];
        let begun = commands.iter().map(|command: &String| {
            let mut shell = s.shell();
            let command = format!("cd $N; {}", command.replace("ls.out", "$W/ls.out"));
            let words = command.clone();
            (words, std::thread::spawn(move || (shell.run(&command, STEP).unwrap(), Instant::now())))
        });
        let begun = begun.collect();
        // The loop is under way when it has listed once; the readers, when the node has their calls.
        s.until(STEP, "grep -m 1 clone $W/ls.out", |out| out.contains("clone"));
        s.until(STEP, "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null", |out| {
            [&job, &new].iter().all(|dir| out.contains(&format!("cat {dir}/wait ")))
        });
        UnderWay(begun)
    }

    /// That each failed within the time of a fault after `gone`, and said so.
    fn assert_failed(self, gone: Instant) {
        for (command, thread) in self.0 {
            let (Outcome { output, status }, at) = thread.join().unwrap();
            let took = at.saturating_duration_since(gone);
            let told = ["No route to host", "Input/output error"].iter().any(|text| output.contains(text));
            assert!(matches!(status, Some(1..)) && told, "$ {command}\n{output}{status:?}");
            assert!(took <= FAULT, "$ {command}\ntook {took:?}\n{output}");
        }
    }
}

/// Ann goes as `go` says while much is under way, and comes back as `back` says.
fn gone_and_back(go: impl FnOnce(&mut Scene), why: &'static str, back: impl FnOnce(&mut Scene)) -> Verdict {
    play_bound(move |s| {
        let under_way = UnderWay::start(s);
        let remote = s.ok("cat n/ann/cpu/ann/info | grep -v '^free'");
        let gone = Instant::now();
        go(s);
        // What is Bob's own goes on meanwhile, the union with a member that is away too.
        let watched =
            s.ok("echo bind -a /keys /cpu >ns; cat self/id cpu/bob/info | wc -l; ls cpu; echo unmount /keys /cpu >ns");
        assert!(watched.contains("bob"), "{watched}");
        under_way.assert_failed(gone);
        let status = s.ok("cat peers/ann/status");
        assert!(status.starts_with("lost ") || status.starts_with("unreachable "), "{status}");
        for command in ["ls n/ann", "cat n/ann/cpu/ann/info", "cat cpu/ann/info", "tell cpu/ann/clone x"] {
            s.fails_in(FAULT, command, "No route to host");
        }
        // Whoever dials in the moment of the death may hear of a handshake that failed; the next hears the reason.
        s.until(2 * FAULT, "ls n/ann; cat peers/ann/status", |got| got.contains("\nunreachable ") && got.contains(why));
        back(s);
        let info = s.until(FAULT, "cat cpu/ann/info | grep -v '^free'", |got| got.contains("node ann"));
        assert_eq!(info.lines().next(), remote.lines().next());
        let status = s.ok("cat peers/ann/status");
        assert!(status.starts_with("connected "), "{status}");
        job(s);
        assert_eq!(
            s.ok("tell $J/ctl 'exec /p/echo.wasm back'; cat $J/stdout; cut -d' ' -f1,2 $J/wait"),
            "back\nexited 0"
        );
    })
}

fn a_peer_that_is_killed_is_an_error_in_time_and_comes_back_under_the_same_bind() -> Verdict {
    let back = |s: &mut Scene| {
        let port = s.stage.addr.split('/').nth(4).unwrap().to_owned();
        let config = format!("mdns = false\nlisten = [\"/ip4/127.0.0.1/tcp/{port}\"]\n");
        std::fs::write(s.stage.path("ann/config.toml"), config).unwrap();
        let before = s.stage.addr.clone();
        s.stage.restart_ann().unwrap();
        assert_eq!(s.stage.addr, before);
    };
    gone_and_back(|s| s.stage.ann.kill(), "connection refused", back)
}

fn a_peer_that_falls_silent_is_an_error_in_time_and_comes_back_under_the_same_bind() -> Verdict {
    let signal = |signal| move |s: &mut Scene| kill(s.stage.ann.pid(), signal).unwrap();
    gone_and_back(signal(Signal::SIGSTOP), "no answer in", signal(Signal::SIGCONT))
}

fn a_peer_that_comes_back_elsewhere_needs_its_address_and_no_other_word() -> Verdict {
    play_bound(|s| {
        let ns = s.ok("cat ns");
        s.stage.ann.kill();
        s.fails_in(FAULT, "cat cpu/ann/info", "No route to host");
        s.stage.restart_ann().unwrap();
        let addr = s.stage.addr.clone();
        s.ok(&format!("echo dial {addr} ann >peers/ctl"));
        assert_eq!(s.ok("head -n 1 cpu/ann/info"), "node ann");
        assert_eq!(s.ok("cat ns"), ns);
    })
}

fn a_job_whose_caller_is_killed_is_lost() -> Verdict {
    play_bound(|s| {
        s.share(programs());
        job(s);
        s.ok("tell $J/ctl 'linger 1' 'exec /p/sleep.wasm 600000'; head -c 9 $J/stdout; cd $W");
        let running = s.ok("grep running $A/cpu/ann/info; cut -f1,2,3 $A/cpu/ann/ps");
        assert!(running.starts_with("running 1\n") && running.contains("\trunning\twasm"), "{running}");
        s.stage.bob.kill();
        s.until(Duration::from_secs(10), "cut -f2 $A/cpu/ann/ps", |got| got == "lost\n");
        assert_eq!(s.ok("grep running $A/cpu/ann/info"), "running 0");
    })
}
