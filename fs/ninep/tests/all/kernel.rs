//! The Linux kernel's own client, in a small virtual machine.

use std::io::{Read, Seek};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::Ordering::Relaxed;

use fs_ninep::{Limits, listen_tcp};
use tokio::process::Command;

use crate::block_on_for;
use crate::memory::Memory;

/// What both dialects show to a shell.
const SCRIPT: &str = r#"
ls -1
cat text a/b/c
echo one >made; echo two >>made; cat made
mv made moved; ls made 2>&1; cat moved
mkdir d; ls -d d; rmdir d; rm moved
cat nothing 2>&1
cat ro/locked 2>&1
mkdir empty 2>&1
rmdir a 2>&1
echo line >ctl; printf tail >ctl
dd if=big bs=7000 2>/dev/null | md5sum
timeout -s INT 1 cat event; echo interrupted $?
cat text
ls empty | wc -l
"#;

const EXPECT: &str = "\
a
big
ctl
empty
event
link
ro
slow
text
hello
deep
one
two
ls: made: No such file or directory
one
two
d
cat: can't open 'nothing': No such file or directory
cat: can't open 'ro/locked': Permission denied
mkdir: can't create directory 'empty': File exists
rmdir: 'a': Directory not empty
28cb595c158e9b74e34ae9e8da710fff  -
interrupted 130
hello
300
";

#[test]
fn the_linux_kernel_is_served_in_linux_dialect() {
    mounted("9p2000.L");
}

#[test]
fn the_linux_kernel_is_served_in_plain_dialect() {
    mounted("9p2000");
}

fn mounted(dialect: &str) {
    let Some(vm) = std::env::var_os("IPOS_V9FS_VM") else {
        println!("not run: IPOS_V9FS_VM is not set");
        return;
    };
    block_on_for(120, async {
        let tree = Memory::new();
        tree.fill("empty", 300);
        tree.shared.gate.add_permits(1000);
        // every address: the guest comes over a network of its own, for as long as this test runs
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let (addr, serving) = listen_tcp(any, tree.clone(), Limits::default()).await.unwrap();
        let serving = tokio::spawn(serving);
        // a file, not a pipe: what the guest leaves running must not hold the test
        let mut shown = tempfile::tempfile().unwrap();
        let mut guest = Command::new(vm)
            .args(["-q", "-t", "100", "-v", dialect, "-p", &addr.port().to_string(), "-"])
            .stdin(Stdio::piped())
            .stdout(shown.try_clone().unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let script = format!(
            "case $(grep ' /mnt 9p ' /proc/mounts) in *noextend*) v=9p2000;; *) v=9p2000.L;; esac\n[ $v = {dialect} ] || exit 3\n{SCRIPT}"
        );
        let mut stdin = guest.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, script.as_bytes()).await.unwrap();
        drop(stdin);
        let status = guest.wait().await.unwrap();
        serving.abort();
        let mut text = String::new();
        shown.rewind().unwrap();
        shown.read_to_string(&mut text).unwrap();
        let text = text.replace('\r', "");
        assert!(status.success(), "{status}: {text}");
        assert_eq!(text, EXPECT);
        assert_eq!(*tree.shared.lines.lock().unwrap(), ["line", "tail"]);
        assert_eq!(tree.shared.waiting.load(Relaxed), 0, "the interrupted read was flushed");
    });
}
