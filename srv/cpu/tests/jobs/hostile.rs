//! Programs that mean harm: each ends with the right word, and leaves the node as it was.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::kit::{Node, first_two};

/// Runs `words` after the ctl lines `before`; checks how it ended and that the node is well.
async fn check(node: &Node, before: &str, words: &str, expected: &str) -> u64 {
    let n = node.me.job().await;
    node.me.ctl(n, &format!("{before}\nexec {words}")).await.unwrap();
    let line = node.me.wait(n).await;
    let status = node.me.cat(&format!("{n}/status")).await.unwrap();
    assert_eq!(first_two(&line), expected, "{words}: {line}{status}");
    node.well().await;
    n
}

/// A module around the body of its `_start`.
fn module(declarations: &str, start: &str) -> String {
    format!(r#"(module {declarations} (memory (export "memory") 1) (func (export "_start") {start}))"#)
}

#[tokio::test]
async fn an_endless_loop_ends_by_fuel_cpu_wall_or_kill() {
    let node = Node::new().await;
    check(&node, "limit fuel 10M", "/p/spin.wasm", "fuel 152").await;
    check(&node, "limit cpu 100", "/p/spin.wasm", "signal 24").await;
    check(&node, "limit wall 1", "/p/spin.wasm", "wall 137").await;
    node.module("loop.wasm", &module("", "(loop $l (br $l))"));
    check(&node, "limit fuel 1M", "/m/loop.wasm", "fuel 152").await;
}

#[tokio::test]
async fn fuel_ends_exactly_where_it_is_used_up() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.start(n, "/p/true.wasm").await;
    let line = node.me.wait(n).await;
    let fuel: u64 = line.split(' ').nth(5).unwrap().parse().unwrap();
    check(&node, &format!("limit fuel {fuel}"), "/p/true.wasm", "exited 0").await;
    // The engine looks at the fuel where a function or a loop begins: some way before the last instruction is enough.
    check(&node, &format!("limit fuel {}", fuel / 2), "/p/true.wasm", "fuel 152").await;
}

#[tokio::test]
async fn a_program_uses_the_same_fuel_every_time() {
    let node = Node::new().await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let n = node.me.job().await;
        node.me.start(n, "/p/wc.wasm /w/book").await;
        let line = node.me.wait(n).await;
        seen.push(line.split(' ').nth(5).unwrap().to_owned());
    }
    assert!(seen.windows(2).all(|w| w[0] == w[1]), "{seen:?}");
}

#[tokio::test]
async fn memory_ends_a_hog_slow_or_at_once_and_a_grow_loop() {
    let node = Node::new().await;
    check(&node, "limit mem 16M", "/p/hog.wasm", "mem 137").await;
    check(&node, "limit mem 16M", "/p/hog.wasm slow", "mem 137").await;
    node.module("grow.wasm", &module("", "(loop $l (drop (memory.grow (i32.const 1))) (br $l))"));
    let n = check(&node, "limit mem 1M", "/m/grow.wasm", "mem 137").await;
    let usage = node.me.cat(&format!("{n}/usage")).await.unwrap();
    assert!(usage.contains("peak_kb 1024\n"), "{usage}");
    node.module("big.wasm", r#"(module (memory (export "memory") 60000) (func (export "_start")))"#);
    check(&node, "limit mem 1M", "/m/big.wasm", "mem 137").await;
}

#[tokio::test]
async fn a_table_grow_loop_ends_by_mem() {
    let node = Node::new().await;
    let grow = "(loop $l (drop (table.grow $t (ref.null func) (i32.const 10000))) (br $l))";
    node.module("table.wasm", &module("(table $t 1 funcref)", grow));
    check(&node, "", "/m/table.wasm", "mem 137").await;
}

#[tokio::test]
async fn deep_recursion_traps() {
    let node = Node::new().await;
    check(&node, "", "/p/recurse.wasm", "trap 134").await;
    node.module("recurse.wasm", &module("(func $f (call $f))", "(call $f)"));
    check(&node, "", "/m/recurse.wasm", "trap 134").await;
}

#[tokio::test]
async fn every_trap_has_its_text() {
    let node = Node::new().await;
    for (body, text) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.load (i32.const 0x7fffffff)))", "out of bounds"),
    ] {
        node.module("trap.wasm", &module("", body));
        let n = check(&node, "", "/m/trap.wasm", "trap 134").await;
        let status = node.me.cat(&format!("{n}/status")).await.unwrap();
        assert!(status.contains(text), "{status}");
    }
}

#[tokio::test]
async fn what_is_no_program_is_refused() {
    let node = Node::new().await;
    node.bytes("empty", b"");
    node.bytes("short", b"\0asm");
    node.bytes("script", b"#!/bin/sh\necho hello\n");
    node.bytes("component", b"\0asm\x0d\0\x01\0");
    node.bytes("torn", &std::fs::read(crate::kit::programs().join("true.wasm")).unwrap()[..1000]);
    node.bytes("liar", b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x0f");
    node.module("library.wasm", r#"(module (memory (export "memory") 1))"#);
    node.module("unknown.wasm", &module(r#"(import "env" "system" (func))"#, ""));
    let wrong = r#"(import "wasi_snapshot_preview1" "fd_close" (func (param i64)))"#;
    node.module("wrong.wasm", &module(wrong, ""));
    node.module("start.wasm", r#"(module (memory (export "memory") 1) (global (export "_start") i32 (i32.const 1)))"#);
    for (name, text) in [
        ("empty", "not a wasm module"),
        ("short", "not a wasm module"),
        ("script", "not a wasm module"),
        ("component", "not a wasm module"),
        ("torn", "does not compile"),
        ("liar", "does not compile"),
        ("library.wasm", "_start"),
        ("unknown.wasm", "env"),
        ("wrong.wasm", "fd_close"),
        ("start.wasm", "_start"),
    ] {
        let n = check(&node, "", &format!("/m/{name}"), "refused 126").await;
        let status = node.me.cat(&format!("{n}/status")).await.unwrap();
        assert!(status.contains(text), "{name}: {status}");
    }
}

#[tokio::test]
async fn a_corpus_of_damaged_modules_never_hurts() {
    let node = Node::new().await;
    let whole = std::fs::read(crate::kit::programs().join("true.wasm")).unwrap();
    let mut seed = 0x1234_5678_9abc_def0u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for i in 0..40 {
        let mut bytes = whole.clone();
        for _ in 0..1 + i % 4 {
            let at = 8 + random() % (bytes.len() - 8);
            bytes[at] = random() as u8;
        }
        node.bytes("damaged", &bytes);
        let n = node.me.job().await;
        node.me.ctl(n, "limit wall 20\nlimit fuel 100M\nexec /m/damaged").await.unwrap();
        let end = node.me.wait(n).await;
        let word = end.split(' ').next().unwrap();
        assert!(["refused", "exited", "trap", "fuel", "mem"].contains(&word), "mutation {i}: {end}");
        node.me.ctl(n, "free").await.unwrap();
    }
    node.well().await;
}

#[tokio::test]
async fn a_start_section_is_billed() {
    let node = Node::new().await;
    let module =
        |body| format!(r#"(module (memory (export "memory") 1) (func $s {body}) (start $s) (func (export "_start")))"#);
    node.module("loop.wasm", &module("(loop $l (br $l))"));
    check(&node, "limit fuel 1M", "/m/loop.wasm", "fuel 152").await;
    node.module("count.wasm", &module("(local i32) (loop $l (br_if $l (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1000))))"));
    let n = check(&node, "", "/m/count.wasm", "exited 0").await;
    let line = node.me.wait(n).await;
    assert!(line.split(' ').nth(5).unwrap().parse::<u64>().unwrap() > 1000, "{line}");
}

#[tokio::test]
async fn huge_locals_and_nested_blocks_are_bounded() {
    let node = Node::new().await;
    let locals = "i64 ".repeat(49_000);
    node.module("locals.wasm", &module("", &format!("(local {locals})")));
    check(&node, "limit wall 30", "/m/locals.wasm", "exited 0").await;
    // 50 001 locals are more than the engine takes. Hand-made: the text format's reader would be the one to refuse.
    let body = [1, 0xd1, 0x86, 0x03, 0x7f, 0x0b];
    let mut bytes = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a".to_vec();
    bytes.extend_from_slice(&[body.len() as u8 + 2, 1, body.len() as u8]);
    bytes.extend_from_slice(&body);
    node.bytes("toomany.wasm", &bytes);
    check(&node, "", "/m/toomany.wasm", "refused 126").await;
    let depth = 20_000;
    let nested = [&vec![[0x02u8, 0x40]; depth].concat()[..], &vec![0x0b; depth + 1]].concat();
    let leb = |mut n: usize| {
        let mut out = Vec::new();
        loop {
            out.push((n & 0x7f) as u8 | if n > 0x7f { 0x80 } else { 0 });
            n >>= 7;
            if n == 0 {
                return out;
            }
        }
    };
    let function = [&leb(nested.len() + 1)[..], &[0], &nested].concat();
    let mut bytes = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a".to_vec();
    bytes.extend(leb(function.len() + 1));
    bytes.push(1);
    bytes.extend(function);
    node.bytes("nested.wasm", &bytes);
    check(&node, "limit wall 30", "/m/nested.wasm", "exited 0").await;
}

#[tokio::test]
async fn a_module_over_the_size_limit_is_refused_at_exec() {
    let node = Node::new().await;
    let file = std::fs::File::create(node.dir.path().join("mods/huge")).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    let n = node.me.job().await;
    assert!(node.me.ctl(n, "exec /m/huge").await.is_err());
    assert!(node.me.cat(&format!("{n}/error")).await.unwrap().contains("67108864"));
    file.set_len(64 << 20).unwrap();
    check(&node, "limit wall 60", "/m/huge", "refused 126").await;
}

const IMPORT: &str = r#"(import "wasi_snapshot_preview1""#;

#[tokio::test]
async fn a_host_call_in_a_loop_and_a_sleep_are_ended_by_the_clock() {
    let node = Node::new().await;
    // A clock subscription that is due at once, polled for ever.
    let poll = format!(r#"{IMPORT} "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#);
    let body = "(loop $l (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))) (br $l))";
    node.module("poll.wasm", &module(&poll, body));
    check(&node, "limit wall 1", "/m/poll.wasm", "wall 137").await;
    check(&node, "limit cpu 200", "/m/poll.wasm", "signal 24").await;
    let began = Instant::now();
    check(&node, "limit wall 1", "/p/sleep.wasm 60000", "wall 137").await;
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn addresses_outside_its_memory_are_the_programs_own_error() {
    let node = Node::new().await;
    let mut calls = String::new();
    for (name, params) in [
        ("args_get", 2),
        ("environ_get", 2),
        ("fd_prestat_get", 2),
        ("fd_fdstat_get", 2),
        ("random_get", 2),
        ("fd_read", 4),
        ("fd_write", 4),
        ("poll_oneoff", 4),
        ("path_unlink_file", 3),
        ("path_create_directory", 3),
        ("path_rename", 6),
        ("path_symlink", 5),
        ("path_readlink", 6),
        ("path_filestat_get", 5),
        ("fd_filestat_get", 2),
    ] {
        let words = " i32".repeat(params);
        let _ = write!(calls, r#"{IMPORT} "{name}" (func ${name} (param{words}) (result i32)))"#);
    }
    let mut body = String::new();
    for value in ["-1", "0x7fffffff", "65535", "65536", "3", "0"] {
        for (name, params) in [
            ("args_get", 2),
            ("environ_get", 2),
            ("fd_prestat_get", 2),
            ("fd_fdstat_get", 2),
            ("random_get", 2),
            ("fd_write", 4),
            ("path_unlink_file", 3),
            ("path_create_directory", 3),
            ("path_rename", 6),
            ("path_symlink", 5),
            ("path_readlink", 6),
            ("path_filestat_get", 5),
            ("fd_filestat_get", 2),
        ] {
            let words = format!(" (i32.const {value})").repeat(params);
            let _ = write!(body, "(drop (call ${name}{words}))");
        }
    }
    node.module("wild.wasm", &module(&calls, &body));
    check(&node, "stdin null", "/m/wild.wasm", "exited 0").await;
    node.module(
        "nomemory.wasm",
        &format!(
            r#"(module {IMPORT} "sched_yield" (func $y (result i32))) (func (export "_start") (drop (call $y))))"#
        ),
    );
    check(&node, "", "/m/nomemory.wasm", "trap 134").await;
}

#[tokio::test]
async fn names_that_are_no_names_are_refused_to_the_program() {
    let node = Node::new().await;
    let open = format!(
        r#"{IMPORT} "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        {IMPORT} "proc_exit" (func $exit (param i32)))"#
    );
    for (name, errno) in [
        (r"\ff\fe\80", 44), // not UTF-8: a name like another, and not there
        (r"a\00b", 28),     // NUL
        (r"", 44),
        (r"no\0asuch", 44), // newline
        (r"..", 0),         // the root's parent is the root
        (r"w/book/x", 54),
    ] {
        let len = name.len() - 2 * name.matches('\\').count();
        let call = format!(
            "(call $exit (call $open (i32.const 3) (i32.const 1) (i32.const 8) (i32.const {len}) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 4)))"
        );
        let data = format!(
            r#"(module {open} (memory (export "memory") 1) (data (i32.const 8) "{name}") (func (export "_start") {call}))"#
        );
        node.module("name.wasm", &data);
        check(&node, "", "/m/name.wasm", &format!("exited {errno}")).await;
    }
}

#[tokio::test]
async fn descriptors_and_paths_without_end_are_bounded() {
    let node = Node::new().await;
    let (end, out) = node.me.run("/p/handles.wasm /w/book 100000").await;
    assert_eq!((end.as_str(), out.as_str()), ("exited 0", "1020 Some(33)\n"));
    let (end, out) = node.me.run("/p/deep.wasm 100000").await;
    assert_eq!((end.as_str(), out.as_str()), ("exited 0", "Some(37)\n"));
    node.well().await;
}

#[tokio::test]
async fn output_without_end_is_cut_on_either_stream() {
    let node = Node::new().await;
    check(&node, "limit spool 4M", "/p/flood.wasm", "outlimit 153").await;
    check(&node, "limit spool 4M", "/p/flood.wasm stderr", "outlimit 153").await;
    check(&node, "limit spool 0", "/p/echo.wasm x", "outlimit 153").await;
}

#[tokio::test]
async fn the_process_has_nothing_of_the_nodes() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.start(n, "/p/sleep.wasm 60000").await;
    let out = node.me.open(&format!("{n}/stdout"), fs_ninep::OpenFlags::RDONLY).await.unwrap();
    assert_eq!(out.read(0, 99).await.unwrap(), "sleeping\n");
    let mark = node.dir.path().to_str().unwrap().to_owned();
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let ours = String::from_utf8_lossy(&read("cmdline")).contains(&mark);
        let limits = String::from_utf8_lossy(&read("limits")).into_owned();
        let field = |name: &str| limits.lines().find(|l| l.starts_with(name)).map(|l| l[26..].trim().to_owned());
        if !ours || field("Max open files").is_none_or(|v| !v.starts_with("32 ")) {
            continue;
        }
        seen += 1;
        assert!(field("Max core file size").unwrap().starts_with("0 "));
        assert!(field("Max processes").unwrap().starts_with("0 "));
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        assert!(status.contains("NoNewPrivs:\t1\n"));
        assert_eq!(read("environ"), b"", "no environment");
        let fds = std::fs::read_dir(entry.path().join("fd")).unwrap().count();
        assert!(fds <= 8, "/dev/null three times, the node's socket, the tree, three pipes: {fds}");
    }
    assert!(seen >= 1);
    node.me.ctl(n, "kill").await.unwrap();
}

#[tokio::test]
async fn fifty_jobs_at_once_all_end() {
    let node = Node::new().await;
    let jobs: Vec<_> = (0..50)
        .map(|i| {
            let me = node.me.clone();
            tokio::spawn(async move { me.run(&format!("/p/exit.wasm {i}")).await.0 == format!("exited {i}") })
        })
        .collect();
    for job in jobs {
        assert!(job.await.unwrap());
    }
    node.well().await;
}
