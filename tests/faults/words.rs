//! Wrong words to a service: an errno to the writer, a text in `error`, and nothing changed.

use super::{job, play_bound};
use crate::Verdict;
use crate::scene::Scene;
use crate::transcripts::programs;

tests!(every_service_refuses_wrong_words_and_changes_nothing, words_out_of_order_are_refused,);

/// A file, what is written to it, what the writer is told, what `error` beside the file says. `J` is a new job's
/// directory, `\n` begins another line of the same write.
#[rustfmt::skip]
const REFUSALS: &[(&str, &str, &str, &str)] = &[
    ("peers/ctl",     "fly high",                      INVALID, "\"fly\" is no command here; there are: dial"),
    ("peers/ctl",     "dial",                          INVALID, "write \"dial MULTIADDR [NAME]\""),
    ("peers/ctl",     "dial nonsense x",               INVALID, "\"nonsense\" is no address to dial"),
    ("peers/ctl",     "name ann a/b",                  INVALID, "\"a/b\" cannot be a name"),
    ("peers/ctl",     "name nobody somebody",          ABSENT,  "nobody: no peer has this name"),
    ("peers/ctl",     "hangup nobody",                 ABSENT,  "nobody: no peer has this name"),
    ("peers/ctl",     "find nobody",                   INVALID, "\"nobody\" is no peer id"),
    ("peers/ctl",     "filter allow everything",       INVALID, "\"everything\" is no pattern"),
    ("peers/ctl",     "filter drop 192.0.2.0/24",      ABSENT,  "no filter rule has this pattern"),
    ("peers/ctl",     "filter deny 192.0.2.0/24\nfly", INVALID, "\"fly\" is no command here"),
    ("peers/ann/ctl", "dial there",                    INVALID, "write \"dial\""),
    ("peers/ann/ctl", "name a/b",                      INVALID, "cannot be a name"),
    ("export/ctl",    "grant",                         INVALID, "is not understood; write \"grant "),
    ("export/ctl",    "give ann /cpu",                 INVALID, "is not understood"),
    ("export/ctl",    "grant nobody /cpu",             ABSENT,  "no peer is known as nobody"),
    ("export/ctl",    "grant ann /nothing",            ABSENT,  "/nothing"),
    ("export/ctl",    "grant ann /cpu rx",             INVALID, "is not understood"),
    ("export/ctl",    "grant ann /cpu max=3",          INVALID, "max counts the bytes of a directory"),
    ("export/ctl",    "grant ann /cpu\nrevoke ann /x", ABSENT,  "/x"),
    ("export/ctl",    "revoke ann /cpu",               ABSENT,  "does not hold /cpu; read grants"),
    ("export/0/ctl",  "bind here /p",                  INVALID, "here: write the absolute path"),
    ("export/0/ctl",  "bind /etc/passwd /p",           "Not a directory", "/etc/passwd is not a directory"),
    ("export/0/ctl",  "bind /etc /cpu",                "File exists", "/cpu is one of this node's own trees"),
    ("export/0/ctl",  "uses many",                     INVALID, "uses is a number from"),
    ("export/0/ctl",  "ttl 0",                         INVALID, "ttl is a number from"),
    ("export/0/ctl",  "to nobody",                     ABSENT,  "no peer is known as nobody"),
    ("export/0/ctl",  "grant ann ro",                  INVALID, "export 0 shows nothing yet"),
    ("export/0/ctl",  "free\nro",                      INVALID, "\"free\" ends the export; it must be the last line"),
    ("keys/ctl",      "new",                           INVALID, "is not understood; write \"new NAME\""),
    ("keys/ctl",      "new Node",                      INVALID, "\"Node\" cannot name a key"),
    ("keys/ctl",      "new node",                      "File exists", "a key named node exists"),
    ("keys/ctl",      "delete node",                   "Operation not permitted", "node is the key this node is known by"),
    ("keys/ctl",      "delete none",                   ABSENT,  "no key is named none"),
    ("keys/ctl",      "new one\nnew one",              INVALID, "one write names one twice"),
    ("self/ctl",      "log loud",                      INVALID, "\"loud\" is no level"),
    ("self/ctl",      "halt",                          INVALID, "\"halt\" is not understood; write"),
    ("ns",            "fly",                           INVALID, "ns line 1: \"fly\" is no name space command"),
    ("ns",            "bind /self",                    INVALID, "ns line 1: write \"bind"),
    ("ns",            "bind -z /self /x",              INVALID, "-z is no flag; write -a"),
    ("ns",            "bind /n/ann/cup /cpu",          ABSENT,  "ns line 1: /n/ann/cup: file does not exist"),
    ("ns",            "bind /self /x\nbind '#cup' /y", ABSENT,  "ns line 2: #cup: no such device"),
    ("ns",            "unmount /self/id",              ABSENT,  "/self/id: nothing is bound there"),
    ("ns",            "mount nonsense /x",             INVALID, "nonsense: not a capability"),
    ("ns",            "bind 'quote /x",                INVALID, "a quote is not closed"),
    ("J/ctl",         "fly",                           INVALID, "unknown word \"fly\""),
    ("J/ctl",         "exec",                          INVALID, "usage: exec PROGRAM ARG..."),
    ("J/ctl",         "start",                         INVALID, "no program; write \"exec"),
    ("J/ctl",         "exec /nowhere.wasm",            ABSENT,  "/nowhere.wasm: nothing is bound at /nowhere.wasm"),
    ("J/ctl",         "exec /tmp",                     "Permission denied", "/tmp: not a file that can be run"),
    ("J/ctl",         "limit mem lots",                INVALID, "limit mem: \"lots\" is not 65536 to"),
    ("J/ctl",         "limit pids 3",                  INVALID, "usage: limit fuel|cpu"),
    ("J/ctl",         "linger 5\nlinger -5",           INVALID, "usage: linger SECONDS"),
    ("J/ctl",         "kind native",                   "Operation not supported", "this node runs wasm jobs only"),
    ("J/ctl",         "note interrupt",                "Device or resource busy", "note: the job is new"),
    ("J/ctl",         "stop",                          "Device or resource busy", "stop: the job is new"),
    ("J/ctl",         "exec /a\nlimit mem 1M",         "Device or resource busy", "started by this write"),
    ("J/ns",          "mount nonsense /p",             INVALID, "a job mounts capabilities"),
    ("J/ns",          "bind '#cpu' /p",                ABSENT,  "#cpu: no such device"),
    ("J/env",         "no value",                      INVALID, "env: \"no value\" is not NAME=value"),
];
const INVALID: &str = "Invalid argument";
const ABSENT: &str = "No such file or directory";

/// All that the refused words could have changed, here and on Ann's machine.
const STATE: &str = "cat peers/ctl peers/ann/id export/grants keys/list ns; ls peers n export keys self
grep -v ttl_s export/0/status; grep log self/status; ls $HOME_BOB/keys
for f in args env ns status lease stdout; do echo $f; test $f = stdout || cat $J/$f; done; ls cpu/ann | wc -l";

fn every_service_refuses_wrong_words_and_changes_nothing() -> Verdict {
    play_bound(|s| {
        s.ok("exec 3<>export/clone; HOME_BOB=$IPOS_HOME");
        s.ok("exec 4<>cpu/ann/clone; read n <&4; J=cpu/ann/$n; export J");
        let before = s.ok(STATE);
        let mut faults = String::new();
        for (file, words, errno, text) in REFUSALS {
            if let Err(fault) = refusal(s, &file.replace('J', "$J"), words, errno, text) {
                faults.push_str(&format!("{file}: {words:?}: {fault}\n"));
            }
            assert_eq!(s.ok(STATE), before, "{file}: {words:?}");
        }
        assert!(faults.is_empty(), "{faults}");
    })
}

fn refusal(s: &mut Scene, file: &str, words: &str, errno: &str, text: &str) -> Result<(), String> {
    let quoted = words.replace('\'', "'\\''");
    let told = s.run(&format!("tell {file} '{quoted}'"));
    if told.status != Some(1) || !told.output.contains(errno) {
        return Err(format!("the writer was told {:?} and not {errno:?}", told.output));
    }
    let dir = match file.rsplit_once('/') {
        Some((dir, _)) => format!("{dir}/"),
        None => String::new(),
    };
    let error = s.ok(&format!("cat {dir}error"));
    if error.contains(text) { Ok(()) } else { Err(format!("error says {error:?}, which lacks {text:?}")) }
}

/// What is told to a job that runs, and to one that has ended; the errno, and the text.
#[rustfmt::skip]
const ORDER: &[(&str, &str, &str, &str)] = &[
    ("running", "ctl",   "exec /p/true.wasm", "exec: the job is running, and this is for a job that is new"),
    ("running", "ctl",   "start",             "start: the job is running"),
    ("running", "ctl",   "stdin null",        "stdin: the job is running"),
    ("running", "ctl",   "limit mem 64M",     "limit: the job is running"),
    ("running", "ctl",   "note hup\nkind wasm", "kind: the job is running"),
    ("running", "env",   "A=1",               "env: the job is running"),
    ("running", "args",  "/p/true.wasm",      "args: the job is running"),
    ("ended",   "ctl",   "exec /p/true.wasm", "exec: the job is ended, and this is for a job that is new"),
    ("ended",   "ctl",   "stop",              "stop: the job is ended, and this is for a job that is running"),
    ("ended",   "ctl",   "note interrupt",    "note: the job is ended"),
    ("ended",   "env",   "A=1",               "env: the job is ended"),
];

fn words_out_of_order_are_refused() -> Verdict {
    play_bound(|s| {
        s.share(programs());
        job(s);
        s.ok("tell $J/ctl 'exec /p/sleep.wasm 600000'; head -c 9 $J/stdout");
        let state = "cd $J; cat args env status lease; cd $N";
        let mut faults = String::new();
        for (phase, file, words, text) in ORDER {
            if *phase == "ended" {
                s.ok("tell $J/ctl kill");
            }
            let before = s.ok(state);
            if let Err(fault) = refusal(s, &format!("$J/{file}"), words, "Device or resource busy", text) {
                faults.push_str(&format!("{phase}: {file}: {words:?}: {fault}\n"));
            }
            assert_eq!(s.ok(state), before, "{phase}: {file}: {words:?}");
        }
        assert!(faults.is_empty(), "{faults}");
        // A name space that is locked is not changed, and a second kill does no harm.
        s.fails("tell $J/ns 'bind /tmp /x'", "");
        assert_eq!(s.ok("tell $J/ctl kill; cut -d' ' -f1,2 $J/wait; rmdir $J; test ! -e $J"), "killed 137");
    })
}
