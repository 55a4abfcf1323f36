//! The files of keys/ as a caller uses them.

use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{Caller, Error, File, Name, OpenFile, OpenFlags, PeerId, Tree};
use srv_keys::Keys;

async fn open(tree: &Arc<dyn Tree>, caller: &Caller, path: &str, flags: OpenFlags) -> Result<Arc<dyn OpenFile>, Error> {
    let root: Arc<dyn File> = tree.attach(caller, "").await?;
    root.walk(&Name::path(path)?).await.end?.open(flags).await
}

/// `PATH < TEXT`: writes a line (where there is one) and reads what comes, as `caller`.
async fn say(tree: &Arc<dyn Tree>, caller: &Caller, path: &str, line: Option<&str>) -> Result<String, Error> {
    let flags = if line.is_some() { OpenFlags::RDWR } else { OpenFlags::RDONLY };
    let file = open(tree, caller, path, flags).await?;
    if let Some(line) = line {
        file.write(0, Bytes::from(format!("{line}\n"))).await?;
    }
    Ok(String::from_utf8_lossy(&file.read(0, 1 << 16).await?).into_owned())
}

#[tokio::test]
async fn a_session() {
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::open(&home.path().join("keys")).unwrap();
    let (tree, owner) = (keys.tree(), Caller::owner(1000));
    let seed: String = keys.seed().iter().map(|b| format!("{b:02x}")).collect();
    let ctl = open(&tree, &owner, "ctl", OpenFlags::WRONLY).await.unwrap();
    ctl.write(0, Bytes::from_static(b"new work\n")).await.unwrap();
    let list = say(&tree, &owner, "list", None).await.unwrap();
    let rows: Vec<Vec<&str>> = list.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!((rows.len(), rows[0][0], rows[0][1], rows[1][0]), (2, "node", "ed25519", "work"));
    assert_eq!(rows[0][3], keys.peer_id().as_str());
    assert_eq!(srv_keys::public_key(rows[1][3]).map(|k| srv_keys::peer_id(&k)), Some(PeerId::new(rows[1][3])));
    assert!(!list.contains(&seed));

    let signature = say(&tree, &owner, "sign", Some("sign work 00ff")).await.unwrap();
    let signature = signature.trim_end();
    for (who, message, want) in [("work", "00ff", "good\n"), (rows[1][3], "00FF", "good\n"), ("node", "00ff", "bad\n")]
    {
        let line = format!("verify {who} {message} {signature}");
        assert_eq!(say(&tree, &owner, "verify", Some(&line)).await.unwrap(), want, "{line}");
    }
    let e = say(&tree, &owner, "sign", Some("sign none 00")).await.unwrap_err();
    assert_eq!(say(&tree, &owner, "error", None).await.unwrap(), format!("{e}\n"));
    assert_eq!(e.to_string(), "no key is named none; read list");
    assert!(say(&tree, &owner, "sign", Some("sign work 00\nsign work 01")).await.is_err(), "one request a write");
    assert_eq!(
        ctl.write(0, Bytes::from_static(b"delete work\ndelete work\n")).await.unwrap_err().to_string(),
        "one write names work twice; write the lines one after the other"
    );
    ctl.write(0, Bytes::from_static(b"delete work\n")).await.unwrap();
    assert_eq!(say(&tree, &owner, "list", None).await.unwrap().lines().count(), 1);
}

#[tokio::test]
async fn only_the_owner_uses_a_private_key_and_nobody_reads_one() {
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::open(&home.path().join("keys")).unwrap();
    let tree = keys.tree();
    let seed: String = keys.seed().iter().map(|b| format!("{b:02x}")).collect();
    let (owner, peer, none) = (Caller::owner(1000), Caller::peer(PeerId::new("12D3KooWann")), Caller::none());
    for (path, flags, others) in [
        ("ctl", OpenFlags::WRONLY, false),
        ("ctl", OpenFlags::RDONLY, false),
        ("error", OpenFlags::RDONLY, false),
        ("list", OpenFlags::RDONLY, true),
        ("sign", OpenFlags::RDWR, false),
        ("sign", OpenFlags::RDONLY, false),
        ("verify", OpenFlags::RDWR, true),
    ] {
        assert!(open(&tree, &owner, path, flags).await.is_ok(), "{path}");
        for caller in [&peer, &none] {
            assert_eq!(open(&tree, caller, path, flags).await.is_ok(), others, "{path} {caller:?}");
        }
        if flags.reads() {
            let text = say(&tree, &owner, path, None).await.unwrap();
            assert!(!text.contains(&seed), "{path}");
        }
    }
}
