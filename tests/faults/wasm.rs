//! Programs that are none, never end, or take without end, on a neighbour's machine.

use std::fs;

use super::{job, play_bound};
use crate::Verdict;
use crate::scene::Scene;
use crate::transcripts::programs;

tests!(a_program_that_is_bad_has_its_word_and_the_next_is_well,);

/// A module that imports the function `nothing` of `env`, and would run: types, imports, functions, exports, code.
const IMPORTS: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x0f\x01\x03env\x07nothing\0\0\x03\x02\x01\0\
    \x07\x0a\x01\x06_start\0\x01\x0a\x04\x01\x02\0\x0b";

/// What a job is told, how it ends, and what its status says of it.
#[rustfmt::skip]
const JOBS: &[(&str, &str, &str)] = &[
    ("exec /w/text.wasm",                           "refused 126",  "not a wasm module"),
    ("exec /w/empty.wasm",                          "refused 126",  "not a wasm module"),
    ("exec /w/cut.wasm",                            "refused 126",  "unexpected end-of-file"),
    ("exec /w/garbled.wasm",                        "refused 126",  "does not compile"),
    ("exec /w/imports.wasm",                        "refused 126",  "nothing"),
    ("limit fuel 10M\nexec /p/spin.wasm",           "fuel 152",     ""),
    ("limit wall 1\nexec /p/spin.wasm",             "wall 137",     "it ran for 1 s"),
    ("limit cpu 200\nexec /p/spin.wasm",            "signal 24",    ""),
    ("limit mem 16M\nexec /p/hog.wasm slow",        "mem 137",      "is over the limit of 16777216"),
    ("exec /p/recurse.wasm",                        "trap 134",     ""),
    ("limit spool 1M\nexec /p/flood.wasm",          "outlimit 153", "it printed more than 1048576 bytes"),
    ("limit spool 1M\nexec /p/flood.wasm stderr",   "outlimit 153", "it printed more than 1048576 bytes"),
    ("exec /p/exit.wasm 7",                         "exited 7",     ""),
];

fn modules(s: &Scene, whole: &[u8]) {
    let at = |name: &str| s.stage.path("work").join(name);
    let mut garbled = whole.to_owned();
    garbled.iter_mut().skip(64).step_by(5).for_each(|b| *b ^= 0x55);
    for (name, bytes) in [
        ("text.wasm", &b"no module\n"[..]),
        ("empty.wasm", b""),
        ("cut.wasm", &whole[..whole.len() / 2]),
        ("garbled.wasm", &garbled),
        ("imports.wasm", IMPORTS),
    ] {
        fs::write(at(name), bytes).unwrap();
    }
}

fn a_program_that_is_bad_has_its_word_and_the_next_is_well() -> Verdict {
    play_bound(|s| {
        let programs = programs();
        modules(s, &fs::read(programs.join("wc.wasm")).unwrap());
        let work = s.stage.path("work");
        s.share(&work);
        s.ok("W_EXPORT=$M");
        s.share(programs);
        let mut faults = String::new();
        for (words, end, text) in JOBS {
            job(s);
            s.ok("tell $J/ns \"mount $(cat export/$W_EXPORT/cap) /w\"");
            s.ok(&format!("tell $J/ctl '{words}'"));
            let ended = s.ok("cut -d' ' -f1,2 $J/wait");
            let status = s.ok("cat $J/status");
            if ended != *end || !status.starts_with(end) || !status.contains(text) {
                faults.push_str(&format!("{words:?}: {ended}; status {status:?}, {text:?} expected\n"));
            }
            job(s);
            let next = s.ok("tell $J/ctl 'exec /p/echo.wasm well'; cat $J/stdout; cut -d' ' -f1,2 $J/wait; rmdir $J");
            assert_eq!(next, "well\nexited 0", "after {words:?}");
        }
        assert!(faults.is_empty(), "{faults}");
        assert_eq!(s.ok("grep running cpu/ann/info"), "running 0");
    })
}
