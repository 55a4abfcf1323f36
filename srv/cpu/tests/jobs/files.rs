//! What a program can do with files, and that it can do it nowhere else.

use crate::kit::Node;

#[tokio::test]
async fn a_program_counts_a_book_of_its_caller() {
    let node = Node::new().await;
    let (end, out) = node.me.run("/p/wc.wasm -l /w/book").await;
    assert_eq!((end.as_str(), out.as_str()), ("exited 0", "3 /w/book\n"));
    let (end, out) = node.me.run("/p/wc.wasm /w/book /w/none").await;
    assert_eq!((end.as_str(), out.as_str()), ("exited 1", "3 4 20 /w/book\n"));
}

#[tokio::test]
async fn every_file_operation_works_in_scratch_and_in_a_mounted_directory() {
    let node = Node::new().await;
    for dir in ["/tmp", "/w"] {
        let n = node.me.job().await;
        node.me.start(n, &format!("/p/files.wasm {dir}")).await;
        let line = node.me.wait(n).await;
        let stderr = node.me.cat(&format!("{n}/stderr")).await.unwrap();
        assert_eq!((node.me.stdout(n).await.as_str(), stderr.as_str()), ("ok\n", ""), "{dir}: {line}");
    }
}

#[tokio::test]
async fn a_program_writes_into_its_callers_directory() {
    let node = Node::new().await;
    let (end, _) = node.me.run("/p/tee.wasm /w/out made there").await;
    assert_eq!(end, "exited 0");
    assert_eq!(std::fs::read_to_string(node.dir.path().join("work/out")).unwrap(), "made there\n");
}

#[tokio::test]
async fn arguments_environment_and_stderr_arrive() {
    let node = Node::new().await;
    let n = node.me.job().await;
    node.me.echo(&format!("{n}/env"), "A=1\nB=two words").await.unwrap();
    node.me.echo(&format!("{n}/args"), "/p/echo.wasm\n-e\nit's 'quoted'\n\nlast").await.unwrap();
    node.me.ctl(n, "start").await.unwrap();
    assert_eq!(node.me.stdout(n).await, "-e it's 'quoted'  last\n");
    assert_eq!(node.me.cat(&format!("{n}/stderr")).await.unwrap(), "A=1\nB=two words\n");
    assert!(node.me.wait(n).await.starts_with("exited 0 "));
}

#[tokio::test]
async fn no_path_leads_out_of_the_jobs_root() {
    let node = Node::new().await;
    let canary = node.dir.path().join("canary");
    std::os::unix::fs::symlink(&canary, node.dir.path().join("work/absolute")).unwrap();
    std::os::unix::fs::symlink("../canary", node.dir.path().join("work/relative")).unwrap();
    std::os::unix::fs::symlink("/w/book", node.dir.path().join("work/inside")).unwrap();
    let tries =
        format!("{} ../../../../etc/hostname /w/../../canary /w/absolute /w/relative /etc/passwd", canary.display());
    let (end, out) = node.me.run(&format!("/p/escape.wasm {tries} /w/inside /w/../w/book")).await;
    assert_eq!(end, "exited 0");
    assert!(!out.contains("alive"), "{out}");
    let found: Vec<&str> = out.lines().filter(|line| !line.ends_with("Some(44)")).collect();
    assert_eq!(found.join("\n"), "/w/inside: one\ntwo words\nthree\n\n/w/../w/book: one\ntwo words\nthree\n", "{out}");
}

#[tokio::test]
async fn a_readonly_mount_is_not_written() {
    let node = Node::new().await;
    let n: u64 = node.me.cat("clone").await.unwrap().trim().parse().unwrap();
    let lines = "mount ipos:x/programs#secret /p\nmount ipos:x/work#secret /w ro";
    node.me.echo(&format!("{n}/ns"), lines).await.unwrap();
    node.me.start(n, "/p/tee.wasm /w/book spoilt").await;
    assert!(node.me.wait(n).await.starts_with("exited 1 "));
    assert!(node.me.cat(&format!("{n}/stderr")).await.unwrap().contains("69"), "ROFS");
    assert_eq!(std::fs::read_to_string(node.dir.path().join("work/book")).unwrap().len(), 20);
}

#[tokio::test]
async fn the_devices_are_there_and_scratch_is_bounded_by_disk() {
    let node = Node::new().await;
    let (end, _) = node.me.run("/p/wc.wasm /dev/null").await;
    assert_eq!(end, "exited 0");
    let n = node.me.job().await;
    node.me.ctl(n, "limit disk 64K").await.unwrap();
    node.me.ctl(n, "stdin /p/files.wasm\nexec /p/tee.wasm /tmp/copy").await.unwrap();
    assert!(node.me.wait(n).await.starts_with("exited 1 "));
    assert!(node.me.cat(&format!("{n}/stderr")).await.unwrap().contains("51"), "NOSPC");
}

#[tokio::test]
async fn stdin_and_stdout_can_be_paths() {
    let node = Node::new().await;
    let n = node.me.job().await;
    std::fs::write(node.dir.path().join("work/old"), "something longer than what comes").unwrap();
    for path in ["/w/new", "/w/old"] {
        let n = node.me.job().await;
        node.me.ctl(n, &format!("stdin /w/book\nstdout {path}\nexec /p/upper.wasm")).await.unwrap();
        assert!(node.me.wait(n).await.starts_with("exited 0 "));
        assert_eq!(node.me.stdout(n).await, "", "the spool is not used");
        let made = node.dir.path().join("work").join(&path[3..]);
        assert_eq!(std::fs::read_to_string(made).unwrap(), "ONE\nTWO WORDS\nTHREE\n");
    }
    node.me.ctl(n, "stdin null\nexec /p/wc.wasm -c").await.unwrap();
    assert_eq!(node.me.stdout(n).await, "0\n");
}
