//! The Unix socket that serves a tree.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use fs_ninep::{Client, ClientConfig, File, Kind, Limits, Result, listen_unix};

use crate::block_on;
use crate::memory::Memory;

fn me() -> u32 {
    // SAFETY: getuid has no arguments and cannot fail.
    unsafe { libc::getuid() }
}

async fn attach(path: &Path) -> Result<Arc<dyn File>> {
    let stream = tokio::net::UnixStream::connect(path).await?;
    Client::connect(stream, ClientConfig::default()).await?.attach("", "").await
}

#[test]
fn a_socket_serves_its_owner_alone_and_goes_with_its_server() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/9p.sock");
        let listen = || listen_unix(&path, Memory::new(), me(), Limits::default());
        let serving = tokio::spawn(listen().unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(attach(&path).await.unwrap().qid().is_dir());
        assert_eq!(listen().err().unwrap().kind(), Kind::Busy, "another process serves there");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(!path.exists());
    });
}

#[test]
fn a_dead_socket_is_replaced_and_a_file_is_not() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("9p.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the socket behind");
        let serving = tokio::spawn(listen_unix(&path, Memory::new(), me(), Limits::default()).unwrap());
        assert!(attach(&path).await.is_ok());
        serving.abort();
        let file = dir.path().join("precious");
        std::fs::write(&file, "kept").unwrap();
        assert!(listen_unix(&file, Memory::new(), me(), Limits::default()).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    });
}

#[test]
fn a_stranger_is_hung_up_on() {
    if me() == 0 {
        println!("not run: root is an owner everywhere");
        return;
    }
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("9p.sock");
        let serving = tokio::spawn(listen_unix(&path, Memory::new(), me() + 1, Limits::default()).unwrap());
        assert!(attach(&path).await.is_err());
        serving.abort();
    });
}
