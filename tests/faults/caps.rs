//! Capabilities in the wrong hands, and past their end.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ipos::tour::Process;

use super::{FAULT, play};
use crate::Verdict;
use crate::scene::{QUIET, STEP, Scene};
use crate::transcripts::IPOS;

tests!(
    a_capability_is_good_for_whom_it_is_made_and_until_it_ends,
    a_file_in_use_ends_within_a_second_of_its_revocation,
);

/// What is taken back is cut within this, by export(4).
const CUT: Duration = Duration::from_secs(1);

/// Cid, a third node, mounted at `$C`. Ann and Cid know Bob, and Bob knows Ann.
fn cid(s: &mut Scene) -> Process {
    let (home, at) = (s.stage.path("cid"), s.stage.path("cid.mnt"));
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(home.join("config.toml"), QUIET).unwrap();
    let mount = at.to_str().unwrap();
    let mut cid = Process::start(Path::new(IPOS), &home, &["mount", "--name", "cid", mount], Some(&at)).unwrap();
    cid.line().unwrap_or_else(|e| panic!("cid: {e}"));
    s.ok(&format!("C={mount}; echo dial $ANN ann >peers/ctl"));
    s.ok("for n in $A $C; do echo dial $(head -n 1 self/addrs) bob >$n/peers/ctl || exit; done");
    cid
}

/// `who` mounts the capability of export `$M` at `at`.
fn mount(who: &str, at: &str) -> String {
    format!("tell {who}/ns \"mount $(cat export/$M/cap) /{at}\"")
}

/// That `who` is refused the capability of export `$M`, with `text`.
#[track_caller]
fn refused(s: &mut Scene, who: &str, errno: &str, text: &str) {
    s.fails_in(FAULT, &mount(who, "refused"), errno);
    let error = s.ok(&format!("cat {who}/error"));
    assert!(error.contains(text), "{who}: {error:?} lacks {text:?}");
    s.fails(&format!("ls {who}/refused"), "No such file or directory");
    assert!(!error.contains(&s.ok("cut -d'#' -f2 export/$M/cap")), "the secret is told: {error}");
}

fn a_capability_is_good_for_whom_it_is_made_and_until_it_ends() -> Verdict {
    play(|s| {
        let _cid = cid(s);
        let data = s.stage.path("work/data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("small"), "text\n").unwrap();

        s.share(&data);
        s.ok("tell export/$M/ctl 'to ann'");
        refused(s, "$C", "Permission denied", "is for another peer");
        assert_eq!(s.ok(&format!("{}; cat $A/to/small", mount("$A", "to"))), "text");

        s.share(&data);
        s.ok("tell export/$M/ctl 'uses 1'");
        assert_eq!(s.ok(&format!("{}; cat $A/uses/small", mount("$A", "uses"))), "text");
        refused(s, "$C", "Disk quota exceeded", "is used up after 1 uses");
        assert_eq!(s.ok("cat $A/uses/small; grep uses_left export/$M/status"), "text\nuses_left 0");

        s.share(&data);
        s.ok("tell export/$M/ctl 'ttl 2'");
        assert_eq!(s.ok(&format!("{}; cat $A/ttl/small", mount("$A", "ttl"))), "text");
        s.ok("exec 5<$A/ttl/small");
        s.until(Duration::from_secs(4), "cat <&5 $A/ttl/small", |got| !got.contains("text"));
        s.fails("cat $A/ttl/small", "Key has expired");
        refused(s, "$C", "Key has expired", "has expired");

        s.share(&data);
        s.ok(&format!("CAP=$(cat export/$M/cap); {}; cat $A/gone/small; rmdir export/$M", mount("$A", "gone")));
        for who in ["$A", "$C"] {
            s.fails_in(FAULT, &format!("tell {who}/ns \"mount $CAP /again\""), "Key has expired");
            let error = s.ok(&format!("cat {who}/error"));
            assert!(error.contains("was taken back by its owner"), "{error}");
        }
        // What is left is as it was.
        assert_eq!(s.ok("cat $A/to/small $A/uses/small"), "text\ntext");
        for (wrong, text) in
            [("s/#./#x/", "no such capability"), ("s/#.*//", "not a capability"), ("s/^/x/", "not a capability")]
        {
            s.run(&format!("tell $C/ns \"mount $(echo $CAP | sed {wrong}) /wrong\""));
            let error = s.ok("cat $C/error");
            assert!(error.contains(text), "{wrong}: {error}");
        }
    })
}

fn a_file_in_use_ends_within_a_second_of_its_revocation() -> Verdict {
    play(|s| {
        let _cid = cid(s);
        let data = s.stage.path("work/data");
        fs::create_dir(&data).unwrap();
        fs::File::create(data.join("big")).unwrap().set_len(1 << 32).unwrap();
        s.share(&data);
        s.ok(&format!("{}; {}", mount("$A", "x"), mount("$C", "x")));
        // Read without end from a file opened once, written likewise, and listed.
        let under_way = [
            "while head -c 65536 >>$W/read; do :; done <$A/x/big",
            "cat /dev/zero >${A%/*}/cid.mnt/x/new",
            "while ls $A/x >>$W/ls; do :; done",
        ];
        let under_way = under_way.map(|command| {
            let mut shell = s.shell();
            (command, std::thread::spawn(move || (shell.run(command, STEP).unwrap(), Instant::now())))
        });
        s.until(STEP, "head -n 1 $W/ls; head -c 1 $W/read | wc -c; head -c 1 $W/data/new | wc -c", |got| {
            got.contains("big") && got.ends_with("1\n1\n")
        });
        s.ok("rmdir export/$M");
        let cut = Instant::now();
        for (command, thread) in under_way {
            let (outcome, at) = thread.join().unwrap();
            let took = at.saturating_duration_since(cut);
            assert!(outcome.output.contains("Key has expired"), "$ {command}\n{outcome:?}");
            assert!(took <= CUT, "$ {command}\ntook {took:?}");
        }
        let written = fs::metadata(data.join("new")).unwrap().len();
        s.fails("echo more >>$C/x/new", "");
        assert_eq!(fs::metadata(data.join("new")).unwrap().len(), written);
    })
}
