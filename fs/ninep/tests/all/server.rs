//! Each rule of the protocol as the server keeps it.

use std::sync::atomic::Ordering::Relaxed;

use bytes::{BufMut, BytesMut};
use fs_ninep::{Kind, Limits};

use crate::block_on;
use crate::memory::Memory;
use crate::script::{Peer, run, run_with};

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

/// Session: Tversion.
#[test]
fn version_is_negotiated_first_and_alone() {
    for script in [
        "> 1 attach 0
         ! dead",
        "> 1 version 8192 9P2000.L
         ! dead",
        "> - version 255 9P2000.L
         ! dead",
        "> - version 8192 9P1999
         < - Version 8192 unknown
         > 1 attach 0
         ! dead",
        "> - version 8192 9P1999
         > - version 8192 9P2000
         < - Version 8192 unknown
         < - Version 8192 9P2000",
        "> - version 8192 9P2000.L.moon
         < - Version 8192 9P2000.L",
        "> - version 8192 9P2000.u
         < - Version 8192 9P2000",
        "> - version 4294967295 9P2000.L.ipos
         < - Version 1048600 9P2000.L.ipos",
    ] {
        run(script);
    }
}

#[test]
fn version_in_mid_session_ends_all_of_it() {
    linux(
        "> 1 walk 0 1 event
         > 2 lopen 1 0
         > 3 read 1 0 100
         > 4 walk 0 2 slow
         > 5 getattr 2
         < 1 Walk 1
         < 2 Lopen 0
         > - version 4096 9P2000.L
         < - Version 4096 9P2000.L
         ! gate
         ! event late
         > 3 getattr 0
         > 4 attach 0
         > 5 walk 0 1 event
         < 3 Lerror 9
         < 4 Attach
         < 5 Walk 1
         > 6 lopen 1 0
         > 7 read 1 0 100
         < 6 Lopen 0
         < 7 Read late",
    );
}

#[test]
fn authentication_is_refused() {
    linux(
        "> 1 auth 5
         > 2 attachafid 6 5
         > 3 attach 6
         < 1 Lerror 95
         < 2 Lerror 9
         < 3 Attach",
    );
}

#[test]
fn a_refusals_text_crosses_in_our_own_dialect_only() {
    for (dialect, answer) in [
        ("9P2000.L.ipos", "Lerror 2 no way to the moon; try \"\""),
        ("9P2000.L", "Lerror 2"),
        ("9P2000", "Error file does not exist"),
    ] {
        run(&format!(
            "> - version 8192 {dialect}
             > 1 attach 0 moon
             < - Version 8192 {dialect}
             < 1 {answer}"
        ));
    }
}

/// Fids and walks.
#[test]
fn walks() {
    linux(
        "> 1 walk 0 1 text nothing
         > 2 getattr 1
         > 3 walk 0 1 nothing
         > 4 getattr 1
         > 5 walk 0 1 a
         > 6 walk 0 1 a
         > 7 walk 1 1 b c
         > 8 getattr 1
         > 9 walk 1 1 ..
         > 10 walk 1 1 nothing
         > 11 getattr 1
         > 12 walk 0 0 .. .. a
         > 13 walk 0 2 .
         > 14 walk 0 2 b/c
         > 15 walk 0 2 ''
         > 16 walk 7 8
         > 17 walk 0 4294967295
         > 18 walk 0 0
         < 1 Walk 1
         < 2 Lerror 9
         < 3 Lerror 2
         < 4 Lerror 9
         < 5 Walk 1
         < 6 Lerror 9
         < 7 Walk 2
         < 8 Getattr 100644 5
         < 9 Walk 1
         < 10 Lerror 2
         < 11 Getattr 40755 0
         < 12 Walk 3
         < 13 Lerror 22
         < 14 Lerror 22
         < 15 Lerror 22
         < 16 Lerror 9
         < 17 Lerror 9
         < 18 Walk 0",
    );
}

#[test]
fn an_open_fid_is_cloned_in_linux_and_never_walked() {
    linux(
        "> 1 walk 0 1 a
         > 2 lopen 1 0
         > 3 walk 1 2
         > 4 walk 1 3 b
         > 5 walk 1 1
         > 6 lopen 1 0
         < 1 Walk 1
         < 2 Lopen 0
         < 3 Walk 0
         < 4 Lerror 9
         < 5 Lerror 9
         < 6 Lerror 9",
    );
    plain(
        "> 1 walk 0 1 a
         > 2 open 1 0
         > 3 walk 1 2
         < 1 Walk 1
         < 2 Open 0
         < 3 Error Bad file descriptor",
    );
}

#[test]
fn bad_names_are_refused_wherever_a_name_is_made() {
    linux(
        "> 1 mkdir 0 ..
         > 2 mkdir 0 a/b
         > 3 mkdir 0 
         > 4 symlink 0 . target
         > 5 renameat 0 text 0 ../x
         > 6 renameat 0 .. 0 x
         > 7 unlinkat 0 .. 512
         > 8 link 0 0 a/b
         > 9 walk 0 1
         > 10 lcreate 1 .. 2
         > 11 rename 1 0 /
         < 1 Lerror 22
         < 2 Lerror 22
         < 3 Lerror 22
         < 4 Lerror 22
         < 5 Lerror 22
         < 6 Lerror 22
         < 7 Lerror 22
         < 8 Lerror 22
         < 9 Walk 0
         < 10 Lerror 22
         < 11 Lerror 22",
    );
}

#[test]
fn clunk_and_remove_free_the_fid_whatever_comes_of_them() {
    linux(
        "> 1 walk 0 1 ctl
         > 2 lopen 1 1
         > 3 write 1 0 bad
         > 4 clunk 1
         > 5 getattr 1
         > 6 walk 0 1 a
         > 7 remove 1
         > 8 getattr 1
         > 9 walk 0 1 empty
         > 10 remove 1
         > 11 walk 0 1 empty
         > 12 clunk 1
         < 1 Walk 1
         < 2 Lopen 0
         < 3 Write 3
         < 4 Lerror 22
         < 5 Lerror 9
         < 6 Walk 1
         < 7 Lerror 39
         < 8 Lerror 9
         < 9 Walk 1
         < 10 Remove
         < 11 Lerror 2
         < 12 Lerror 9",
    );
}

#[test]
fn remove_on_clunk_happens_at_clunk_at_version_and_at_the_end() {
    let open = "> 1 walk 0 1 text
         > 2 open 1 64
         < 1 Walk 1
         < 2 Open 0";
    plain(&format!(
        "{open}
         > 3 clunk 1
         > 4 walk 0 1 text
         < 3 Clunk
         < 4 Error file does not exist"
    ));
    plain(&format!(
        "{open}
         > - version 8192 9P2000
         > 1 attach 0
         > 2 walk 0 1 text
         < - Version 8192 9P2000
         < 1 Attach
         < 2 Error file does not exist"
    ));
}

#[test]
fn what_follows_a_walk_that_fails_is_refused_cleanly() {
    linux(
        "> 1 walk 0 1 slow nothing
         > 2 lopen 1 0
         > 3 walk 0 1 text
         > 4 lopen 1 0
         > 5 read 1 0 9
         ! gate
         < 1 Walk 1
         < 2 Lerror 9
         < 3 Walk 1
         < 4 Lopen 0
         < 5 Read hello$",
    );
}

/// Tflush.
#[test]
fn flush_answers_at_once_and_nothing_leaves_after() {
    linux(
        "> 1 walk 0 1 event
         > 2 lopen 1 0
         < 1 Walk 1
         < 2 Lopen 0
         > 3 read 1 0 100
         > 4 flush 3
         > 5 flush 3
         > 6 flush 4
         > 7 flush 7
         > 8 flush 1000
         < 4 Flush
         < 5 Flush
         < 6 Flush
         < 7 Flush
         < 8 Flush
         ! event kept
         > 3 read 1 0 100
         < 3 Read kept",
    );
}

#[test]
fn a_read_that_won_is_answered_before_its_flush() {
    linux(
        "> 1 walk 0 1 event
         > 2 lopen 1 0
         > 3 read 1 0 100
         > 9 flush 99
         < 1 Walk 1
         < 2 Lopen 0
         < 9 Flush
         ! event won
         > 4 flush 3
         < 3 Read won
         < 4 Flush",
    );
}

#[test]
fn a_flushed_walk_binds_nothing_and_lets_what_waited_go_on() {
    linux(
        "> 1 walk 0 1 slow
         > 2 lopen 1 0
         > 3 walk 0 1 text
         > 4 flush 1
         < 4 Flush
         < 2 Lerror 9
         < 3 Walk 1",
    );
}

#[test]
fn a_request_that_waits_its_turn_is_flushed_too() {
    linux(
        "> 1 walk 0 1 slow
         > 2 lopen 1 0
         > 3 read 1 0 9
         > 4 flush 2
         > 5 flush 3
         < 4 Flush
         < 5 Flush
         ! gate
         < 1 Walk 1
         > 6 getattr 1
         < 6 Getattr 100644 8",
    );
}

/// Data.
#[test]
fn a_clunk_answers_the_reads_that_wait_first() {
    linux(
        "> 1 walk 0 1 event
         > 2 lopen 1 0
         > 3 read 1 0 100
         > 4 read 1 0 100
         > 5 clunk 1
         < 1 Walk 1
         < 2 Lopen 0
         < 3 Lerror 4
         < 4 Lerror 4
         < 5 Clunk
         > 6 getattr 1
         < 6 Lerror 9",
    );
}

#[test]
fn plain_directories_are_read_in_whole_records() {
    plain(
        "> 1 walk 0 1 a
         > 2 open 1 0
         > 3 read 1 0 20
         > 4 read 1 0 8000
         > 5 read 1 7 8000
         > 6 read 1 0 8000
         > 7 read 1 53 8000
         > 8 read 1 53 8000
         > 9 read 1 0 8000
         < 1 Walk 1
         < 2 Open 0
         < 3 Error Invalid argument
         < 4 Read b
         < 5 Error Invalid argument
         < 6 Read b
         < 7 Read
         < 8 Read
         < 9 Read b",
    );
}

#[test]
fn linux_directories_are_read_from_any_cookie() {
    let dot = 0x7fff_ffff_ffff_fff0u64;
    linux(&format!(
        "> 1 walk 0 1 a
         > 2 lopen 1 0
         > 3 readdir 1 0 8000
         > 4 readdir 1 {dot} 8000
         > 5 readdir 1 {} 8000
         > 6 readdir 1 1 8000
         > 7 readdir 1 1 8000
         > 8 readdir 1 0 30
         > 9 readdir 1 0 20
         > 10 readdir 0 0 100
         < 1 Walk 1
         < 2 Lopen 0
         < 3 Readdir . .. b
         < 4 Readdir .. b
         < 5 Readdir b
         < 6 Readdir
         < 7 Readdir
         < 8 Readdir .
         < 9 Lerror 22
         < 10 Lerror 9",
        dot + 1
    ));
}

#[test]
fn wstat_is_all_or_nothing() {
    plain(
        "> 1 walk 0 1 text
         > 2 wstatkeep 1
         > 3 wstatname 1 big
         > 4 wstatboth 1 other
         > 5 wstatmode 1 2147484096
         > 6 wstatname 1 other
         > 7 walk 0 2 other
         > 8 wstatlength 2 2
         > 9 stat 2
         > 10 wstatlength 0 5
         < 1 Walk 1
         < 2 Wstat
         < 3 Error file already exists
         < 4 Error Invalid argument
         < 5 Error Invalid argument
         < 6 Wstat
         < 7 Walk 1
         < 8 Wstat
         < 9 Stat other 644 2
         < 10 Error Is a directory",
    );
}

#[test]
fn plain_create_masks_by_the_directory() {
    plain(
        "> 1 walk 0 1
         > 2 create 1 new 511 2
         > 3 write 1 0 x
         > 4 stat 1
         > 5 walk 0 2
         > 6 create 2 dir 2147484159 0
         > 7 stat 2
         > 8 walk 0 3
         > 9 create 3 new 420 1
         > 10 create 3 odd 1073742244 1
         < 1 Walk 0
         < 2 Create
         < 3 Write 1
         < 4 Stat new 755 1
         < 5 Walk 0
         < 6 Create
         < 7 Stat dir 20000000755 0
         < 8 Walk 0
         < 9 Error file already exists
         < 10 Error Operation not supported",
    );
}

#[test]
fn an_unlinked_file_is_used_by_its_fid() {
    linux(
        "> 1 walk 0 1 text
         > 2 lopen 1 2
         > 3 unlinkat 0 text 0
         > 4 write 1 0 J
         > 5 read 1 0 9
         > 6 truncate 1 3
         > 7 getattr 1
         < 1 Walk 1
         < 2 Lopen 0
         < 3 Unlinkat
         < 4 Write 1
         < 5 Read Jello$
         < 6 Setattr
         < 7 Getattr 100644 3",
    );
}

#[test]
fn rename_and_unlink_by_directory() {
    linux(
        "> 1 walk 0 1 a
         > 2 renameat 0 text 1 moved
         > 3 walk 0 2 a moved
         > 4 rename 2 0 back
         > 5 walk 0 3 back
         > 6 unlinkat 0 back 512
         > 7 unlinkat 0 a 0
         > 8 unlinkat 0 a 512
         > 9 unlinkat 0 empty 512
         < 1 Walk 1
         < 2 Renameat
         < 3 Walk 2
         < 4 Rename
         < 5 Walk 1
         < 6 Lerror 20
         < 7 Lerror 21
         < 8 Lerror 39
         < 9 Unlinkat",
    );
}

#[test]
fn access_is_checked_at_open_and_kept() {
    linux(
        "> 1 walk 0 1 text
         > 2 read 1 0 9
         > 3 lopen 1 0
         > 4 write 1 0 x
         > 5 walk 0 2 text
         > 6 lopen 2 1
         > 7 read 2 0 9
         > 8 walk 0 3 ro locked
         > 9 lopen 3 0
         > 10 walk 0 4 a
         > 11 lopen 4 1
         > 12 walk 0 5 text
         > 13 lopen 5 65536
         < 1 Walk 1
         < 2 Lerror 9
         < 3 Lopen 0
         < 4 Lerror 9
         < 5 Walk 1
         < 6 Lopen 0
         < 7 Lerror 9
         < 8 Walk 2
         < 9 Lerror 13
         < 10 Walk 1
         < 11 Lerror 21
         < 12 Walk 1
         < 13 Lerror 20",
    );
}

#[test]
fn offsets_that_overflow_and_counts_that_are_too_large() {
    linux(
        "> 1 walk 0 1 text
         > 2 lopen 1 2
         > 3 read 1 18446744073709551615 1
         > 4 read 1 9223372036854775807 1
         > 5 read 1 0 4294967295
         > 6 write 1 18446744073709551615 x
         < 1 Walk 1
         < 2 Lopen 0
         < 3 Lerror 22
         < 4 Lerror 22
         < 5 Read hello$
         < 6 Lerror 22",
    );
}

#[test]
fn what_is_not_served_says_so() {
    linux(
        "> 1 xattrwalk 0 1 security.capability
         > 2 xattrcreate 0 user.x
         > 3 mknod 0 x
         > 4 walk 0 1 text
         > 5 lopen 1 0
         > 6 lock 1
         > 7 getlock 1
         > 8 link 0 1 other
         > 9 statfs 0
         < 1 Lerror 95
         < 2 Lerror 95
         < 3 Lerror 95
         < 4 Walk 1
         < 5 Lopen 0
         < 6 Lerror 95
         < 7 Lerror 95
         < 8 Lerror 30
         < 9 Statfs",
    );
}

#[test]
fn a_last_line_without_its_newline_is_obeyed_at_fsync_and_at_clunk() {
    linux(
        "> 1 walk 0 1 ctl
         > 2 lopen 1 1
         > 3 write 1 0 one$tw
         > 4 write 1 0 o
         > 5 fsync 1
         > 6 write 1 0 bad
         > 7 fsync 1
         > 8 clunk 1
         < 1 Walk 1
         < 2 Lopen 0
         < 3 Write 6
         < 4 Write 1
         < 5 Fsync
         < 6 Write 3
         < 7 Lerror 22
         < 8 Clunk",
    );
}

/// Hostile peers: limits.
#[test]
fn too_many_requests_and_parked_reads_are_refused_and_flushes_are_not() {
    let open = "> - version 8192 9P2000.L
         > 1 attach 0
         > 2 walk 0 1 event
         > 3 lopen 1 0
         < - Version 8192 9P2000.L
         < 1 Attach
         < 2 Walk 1
         < 3 Lopen 0";
    run_with(
        Limits { parked_max: 2, ..Limits::default() },
        |_| {},
        &format!(
            "{open}
             > 4 read 1 0 9
             > 5 read 1 0 9
             > 6 read 1 0 9
             < 6 Lerror 11
             > 7 flush 4
             > 8 read 1 0 9
             > 9 getattr 1
             < 7 Flush
             < 9 Getattr 100444 0
             ! event x
             < 5 Read x"
        ),
    );
    run_with(
        Limits { requests_max: 2, ..Limits::default() },
        |_| {},
        &format!(
            "{open}
             > 4 read 1 0 9
             > 5 walk 0 2 slow
             > 6 getattr 0
             > 7 flush 5
             > 8 getattr 0
             < 6 Lerror 11
             < 7 Flush
             < 8 Getattr 40755 0"
        ),
    );
    run_with(
        Limits { held_bytes_max: 100, ..Limits::default() },
        |_| {},
        &format!(
            "{open}
             > 4 walk 0 2 slow
             > 5 write 2 0 {}
             > 6 getattr 0
             < 5 Lerror 11
             < 6 Getattr 40755 0",
            "x".repeat(80)
        ),
    );
}

#[test]
fn a_tag_in_use_or_none_ends_the_connection() {
    for last in ["> 5 getattr 0", "> - getattr 0", "> 4 getattr 0"] {
        let tag5 = "> 5 walk 0 2 slow
             > 4 getattr 2";
        linux(&format!(
            "{tag5}
             {last}
             ! dead"
        ));
    }
}

/// Says hello and attaches fid 0.
async fn greeted(tree: &std::sync::Arc<Memory>, limits: Limits) -> Peer {
    let mut peer = Peer::new(tree, limits);
    let mut out = BytesMut::new();
    peer.encode("- version 65536 9P2000.L", &mut out);
    peer.encode("1 attach 0", &mut out);
    peer.send(&out).await;
    assert_eq!(peer.answer().await.unwrap(), "- Version 65536 9P2000.L");
    assert_eq!(peer.answer().await.unwrap(), "1 Attach");
    peer
}

/// Hostile peers: frames.
#[test]
fn frames_that_cannot_be_followed_end_the_connection() {
    let frames: &[&[u8]] = &[
        &[6, 0, 0, 0, 120, 1],                            // no room for a tag
        &[0xff, 0xff, 0xff, 0xff, 120, 1, 0],             // 4 GiB
        &[1, 0, 1, 0, 120, 1, 0],                         // one over msize
        &[0, 0, 0, 0],                                    // nothing
        &[11, 0, 0, 0, 41, 1, 0, 0xff, 0xff, 0xff, 0xff], // an R-message that counts 4 GiB
        &[7, 0, 0, 0, 109, 1, 0],                         // Rflush to a server
    ];
    for frame in frames {
        block_on(async {
            let mut peer = greeted(&Memory::new(), Limits::default()).await;
            peer.send(frame).await;
            assert_eq!(peer.end().await.unwrap_err().kind(), Kind::Protocol, "{frame:?}");
        });
    }
}

#[test]
fn messages_that_do_not_decode_are_refused_and_the_connection_lives() {
    let frames: &[(&[u8], &str)] = &[
        (&[9, 0, 0, 0, 120, 5, 0, 1, 0], "5 Lerror 71"), // a fid of two bytes
        (&[12, 0, 0, 0, 120, 5, 0, 1, 0, 0, 0, 9], "5 Lerror 71"), // a byte too many
        (&[7, 0, 0, 0, 98, 5, 0], "5 Lerror 95"),        // no such message
        (&[12, 0, 0, 0, 112, 5, 0, 0, 0, 0, 0, 0], "5 Lerror 95"), // 9P2000's Topen
        (&[17, 0, 0, 0, 110, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 17, 0], "5 Lerror 71"), // 17 names
    ];
    block_on(async {
        let mut peer = greeted(&Memory::new(), Limits::default()).await;
        for (frame, answer) in frames {
            peer.send(frame).await;
            assert_eq!(peer.answer().await.as_deref(), Some(*answer));
        }
    });
}

#[test]
fn one_byte_at_a_time_is_as_good_as_all() {
    block_on(async {
        let mut peer = greeted(&Memory::new(), Limits::default()).await;
        let mut out = BytesMut::new();
        peer.encode("2 walk 0 1 a b c", &mut out);
        peer.encode("3 lopen 1 0", &mut out);
        for byte in &out[..] {
            peer.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(peer.answer().await.unwrap(), "2 Walk 3");
        assert_eq!(peer.answer().await.unwrap(), "3 Lopen 0");
    });
}

#[test]
fn a_peer_that_never_reads_is_read_no_more_and_then_dropped() {
    let limits = Limits { output_bytes_max: 200_000, stall_ms: 50, ..Limits::default() };
    block_on(async {
        let tree = Memory::new();
        let mut peer = greeted(&tree, limits).await;
        let mut out = BytesMut::new();
        peer.encode("2 walk 0 1 big", &mut out);
        peer.encode("3 lopen 1 0", &mut out);
        peer.send(&out).await;
        let (mut read, mut sent) = (BytesMut::new(), 0);
        peer.encode("4 read 1 0 60000", &mut read);
        while sent < 100_000_000 && !peer.is_ended() {
            peer.send(&read).await;
            sent += read.len();
            tokio::task::yield_now().await;
        }
        assert_eq!(peer.outcome().await.unwrap_err().kind(), Kind::TimedOut);
        assert_eq!(tree.shared.open.load(Relaxed), 0);
    });
}

#[test]
fn ten_thousand_parked_reads_disturb_nobody() {
    const READS: u16 = 10_000;
    block_on(async {
        let tree = Memory::new();
        let mut peer = greeted(&tree, Limits::default()).await;
        let mut out = BytesMut::new();
        peer.encode("2 walk 0 1 event", &mut out);
        peer.encode("3 lopen 1 0", &mut out);
        for tag in 100..100 + READS {
            peer.encode(&format!("{tag} read 1 0 9"), &mut out);
        }
        peer.encode("4 getattr 0", &mut out);
        peer.send(&out.split()).await;
        for answer in ["2 Walk 1", "3 Lopen 0", "4 Getattr 40755 0"] {
            assert_eq!(peer.answer().await.as_deref(), Some(answer));
        }
        assert_eq!(tree.shared.waiting.load(Relaxed), READS as usize);
        tree.post("one");
        assert!(peer.answer().await.unwrap().ends_with(" Read one"));
        peer.encode("5 clunk 1", &mut out);
        peer.send(&out.split()).await;
        for _ in 1..READS {
            assert!(peer.answer().await.unwrap().ends_with(" Lerror 4"));
        }
        assert_eq!(peer.answer().await.as_deref(), Some("5 Clunk"));
        assert_eq!(tree.shared.waiting.load(Relaxed), 0);
    });
}

#[test]
fn a_deep_walk_holds_handles_and_not_paths() {
    block_on(async {
        let tree = Memory::new();
        let mut peer = greeted(&tree, Limits::default()).await;
        let name = "d".repeat(255);
        let mut out = BytesMut::new();
        peer.encode("2 walk 0 1", &mut out);
        for _ in 0..300 {
            peer.encode(&format!("3 mkdir 1 {name}"), &mut out);
            peer.encode(&format!("4 walk 1 1 {name}"), &mut out);
        }
        peer.send(&out.split()).await;
        assert_eq!(peer.answer().await.as_deref(), Some("2 Walk 0"));
        for _ in 0..300 {
            assert_eq!(peer.answer().await.as_deref(), Some("3 Mkdir"));
            assert_eq!(peer.answer().await.as_deref(), Some("4 Walk 1"));
        }
        peer.encode("5 getattr 1", &mut out);
        peer.send(&out).await;
        assert_eq!(peer.answer().await.as_deref(), Some("5 Getattr 40755 0"));
    });
}

#[test]
fn a_connection_that_ends_removes_what_was_to_be_removed_and_ends_what_waits() {
    block_on(async {
        let tree = Memory::new();
        let mut peer = Peer::new(&tree, Limits::default());
        let mut out = BytesMut::new();
        for line in [
            "- version 8192 9P2000",
            "1 attach 0",
            "2 walk 0 1 text",
            "3 open 1 64",
            "4 walk 0 2 event",
            "5 open 2 0",
            "6 read 2 0 9",
        ] {
            peer.encode(line, &mut out);
        }
        peer.send(&out).await;
        for _ in 0..6 {
            peer.answer().await.unwrap();
        }
        assert_eq!((tree.shared.waiting.load(Relaxed), tree.shared.open.load(Relaxed)), (1, 2));
        peer.hang_up().await.unwrap();
        assert_eq!((tree.shared.waiting.load(Relaxed), tree.shared.open.load(Relaxed)), (0, 0));
        let text = fs_ninep::Name::walk("text").unwrap();
        assert_eq!(tree.root().walk(&[text]).await.end.err().unwrap().kind(), Kind::NotFound);
    });
}

/// Random frames at a live server: it answers or hangs up, and does not panic.
#[test]
fn noise_is_survived() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut next = move |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    for _ in 0..60 {
        block_on(async {
            let tree = Memory::new();
            let mut peer = greeted(&tree, Limits::default()).await;
            let mut out = BytesMut::new();
            for _ in 0..200 {
                let types = [110, 12, 116, 118, 120, 108, 24, 40, 14, 72, 74, 76, 122, 26, 50, 20, 70, 16];
                let body = next(40) as usize;
                out.put_u32_le(body as u32 + 7);
                out.put_u8(types[next(types.len() as u64) as usize]);
                out.put_u16_le(next(500) as u16);
                for _ in 0..body {
                    out.put_u8(if next(3) == 0 { next(256) as u8 } else { next(3) as u8 });
                }
            }
            peer.send(&out).await;
            peer.hang_up_early().await;
        });
    }
}
