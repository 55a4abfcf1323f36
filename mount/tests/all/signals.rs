//! A read that waits ends at a signal, and nothing else does.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use mount::Options;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::mounted::{LONG, mounted, mounted_with, said};
use super::tree::{dir, event, root};

#[test]
fn a_signal_ends_a_blocked_cat_and_no_other() {
    let events = event();
    let Some(m) = mounted("a_signal_ends_a_blocked_cat_and_no_other", root(dir([("event", events.clone())]))) else {
        return;
    };
    let other = m.command("head -n1 event").spawn().unwrap();
    events.bus().wait_for_readers(1);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mut cat = Command::new("cat").arg(m.path("event")).spawn().unwrap();
        events.bus().wait_for_readers(2);
        let start = Instant::now();
        kill(Pid::from_raw(cat.id() as i32), signal).unwrap();
        let status = cat.wait().unwrap();
        let took = start.elapsed();
        println!("{signal} ended cat in {:.1} ms", took.as_secs_f64() * 1e3);
        assert_eq!(status.signal(), Some(signal as i32));
        assert!(took < Duration::from_secs(1), "{signal}: {took:?}");
        events.bus().wait_for_readers(1);
    }
    events.bus().publish("still here\n");
    assert_eq!(said(&other.wait_with_output().unwrap()), "still here\n");
}

#[test]
fn one_record_wakes_300_readers() {
    let events = event();
    let Some(m) = mounted("one_record_wakes_300_readers", root(dir([("event", events.clone())]))) else { return };
    let readers: Vec<_> = (0..300)
        .map(|_| {
            let mut file = std::fs::File::open(m.path("event")).unwrap();
            std::thread::spawn(move || {
                let mut buf = [0; 100];
                let n = file.read(&mut buf).unwrap();
                buf[..n].to_vec()
            })
        })
        .collect();
    events.bus().wait_for_readers(300);
    assert_eq!(m.sh("ls"), "event\n");
    events.bus().publish("now\n");
    for reader in readers {
        assert_eq!(reader.join().unwrap(), b"now\n");
    }
}

#[test]
fn an_interrupt_and_an_answer_may_race() {
    let events = event();
    let Some(m) = mounted("an_interrupt_and_an_answer_may_race", root(dir([("event", events.clone())]))) else {
        return;
    };
    for round in 0..100 {
        let mut cat = Command::new("cat").arg(m.path("event")).stdout(std::process::Stdio::null()).spawn().unwrap();
        // A signal at any moment of open and read, from before the first request on; sometimes a record at the same time.
        let until = Instant::now() + Duration::from_micros(round * 30);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        if round % 2 == 0 {
            events.bus().publish("x\n");
        }
        kill(Pid::from_raw(cat.id() as i32), Signal::SIGINT).unwrap();
        assert_eq!(cat.wait().unwrap().signal(), Some(Signal::SIGINT as i32), "round {round}");
    }
    events.bus().wait_for_readers(0);
    assert_eq!(m.sh("ls"), "event\n");
}

#[test]
fn a_request_the_kernel_would_not_wait_for_is_answered() {
    let events = event();
    let options = Options { answer_within: Some(Duration::from_millis(50)), ..Options::default() };
    let name = "a_request_the_kernel_would_not_wait_for_is_answered";
    let Some(m) = mounted_with(name, root(dir([("event", events.clone())])), options) else { return };
    let mut file = std::fs::File::open(m.path("event")).unwrap();
    let start = Instant::now();
    let error = file.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
    assert!(start.elapsed() < LONG);
    events.bus().wait_for_readers(0);
}
