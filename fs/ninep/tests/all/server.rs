//! Each rule of the protocol as the server keeps it.

use crate::script::{run, run_with};
use fs_ninep::Limits;

fn linux(script: &str) {
    run(&format!("> - version 8192 9P2000.L\n> 1 attach 0\n< - Version 8192 9P2000.L\n< 1 Attach\n{script}"));
}

fn plain(script: &str) {
    run(&format!("> - version 8192 9P2000\n> 1 attach 0\n< - Version 8192 9P2000\n< 1 Attach\n{script}"));
}

#[test]
fn reads_writes_and_lists() {
    linux(
        "> 1 walk 0 1 text
         > 2 lopen 1 2
         > 3 read 1 0 100
         > 4 write 1 5 , world$
         > 5 read 1 0 100
         > 6 getattr 1
         > 7 clunk 1
         < 1 Walk 1
         < 2 Lopen 0
         < 3 Read hello$
         < 4 Write 8
         < 5 Read hello, world$
         < 6 Getattr 100644 13
         < 7 Clunk
         > 1 walk 0 1
         > 2 lopen 1 65536
         > 3 readdir 1 0 8000
         < 1 Walk 0
         < 2 Lopen 0
         < 3 Readdir . .. a big ctl empty event link ro slow text",
    );
}

#[test]
fn walks_pipelined_with_what_follows_are_answered_in_order() {
    linux(
        "> 1 walk 0 1 slow
         > 2 lopen 1 0
         > 3 read 1 0 100
         > 4 clunk 1
         > 5 walk 0 1 text
         > 9 flush 99
         < 9 Flush
         ! gate
         < 1 Walk 1
         < 2 Lopen 0
         < 3 Read at last$
         < 4 Clunk
         < 5 Walk 1",
    );
}

#[test]
fn plain_reads_writes_and_lists() {
    plain(
        "> 1 walk 0 1 text
         > 2 open 1 2
         > 3 read 1 0 100
         > 4 write 1 5 , world$
         > 5 stat 1
         > 6 clunk 1
         > 7 walk 0 1
         > 8 open 1 0
         > 9 read 1 0 8000
         < 1 Walk 1
         < 2 Open 0
         < 3 Read hello$
         < 4 Write 8
         < 5 Stat text 644 13
         < 6 Clunk
         < 7 Walk 0
         < 8 Open 0
         < 9 Read a big ctl empty event link ro slow text",
    );
}

#[test]
fn fids_past_the_limit_are_refused() {
    run_with(
        Limits { fids_max: 2, ..Limits::default() },
        |tree| tree.fill("empty", 10),
        "> - version 8192 9P2000.L
         > 1 attach 0
         > 2 walk 0 1
         > 3 walk 0 2
         > 4 clunk 1
         > 5 walk 0 2 empty file00003
         < - Version 8192 9P2000.L
         < 1 Attach
         < 2 Walk 0
         < 3 Lerror 24
         < 4 Clunk
         < 5 Walk 2",
    );
}
