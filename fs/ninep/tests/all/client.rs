//! The client on a server of this crate.

use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::wire::Dialect;
use fs_ninep::{Caller, Client, ClientConfig, File, Kind, Limits, Name, OpenFlags, serve};

use crate::memory::Memory;

fn block_on<F: Future>(f: F) -> F::Output {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(20), f).await.expect("in time") })
}

async fn connect(tree: &Arc<Memory>, dialect: Dialect) -> (Client, Arc<dyn File>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    tokio::spawn(serve(far, tree.clone(), Caller::none(), Limits::default()));
    let client = Client::connect(near, ClientConfig { dialect, ..ClientConfig::default() }).await.unwrap();
    assert_eq!(client.dialect(), dialect);
    let root = client.attach("me", "").await.unwrap();
    (client, root)
}

fn names(path: &str) -> Vec<Name> {
    Name::path(path).unwrap()
}

fn each_dialect<F: Future>(test: impl Fn(Arc<Memory>, Dialect) -> F) {
    for &dialect in Dialect::ALL {
        block_on(test(Memory::new(), dialect));
    }
}

#[test]
fn files_are_used_over_every_dialect() {
    each_dialect(|tree, dialect| async move {
        let (_client, root) = connect(&tree, dialect).await;
        let (file, attr) = root.walk_getattr(&names("a/b/c")).await.unwrap();
        assert_eq!((attr.size, attr.is_dir()), (5, false));
        let open = file.open(OpenFlags::RDWR).await.unwrap();
        assert_eq!(&open.read(0, 100).await.unwrap()[..], b"deep\n");
        assert_eq!(open.write(5, Bytes::from_static(b"er\n")).await.unwrap(), 3);
        assert_eq!(&open.read(0, 100).await.unwrap()[..], b"deep\ner\n");
        let made = root.create(&Name::new("new").unwrap(), OpenFlags::RDWR, 0o644).await.unwrap();
        assert_eq!(made.open.write(0, Bytes::from_static(b"x")).await.unwrap(), 1);
        assert_eq!(made.file.getattr().await.unwrap().size, 1);
        root.mkdir(&Name::new("d").unwrap(), 0o755).await.unwrap();
        let d = root.walk(&names("d")).await.end.unwrap();
        assert!(d.qid().is_dir());
        root.rename(&Name::new("new").unwrap(), &root, &Name::new("newer").unwrap()).await.unwrap();
        root.unlink(&Name::new("newer").unwrap(), false).await.unwrap();
        root.unlink(&Name::new("d").unwrap(), true).await.unwrap();
        let gone = root.walk(&names("newer")).await.end.err().unwrap();
        assert_eq!(gone.kind(), Kind::NotFound);
        let list = root.open(OpenFlags::RDONLY).await.unwrap().readdir(0, 100).await.unwrap();
        let list: Vec<_> = list.iter().map(|e| e.name.to_string()).collect();
        assert_eq!(list, ["a", "big", "ctl", "empty", "event", "link", "ro", "slow", "text"]);
    });
}
