//! Mounts a small tree on a directory until it is unmounted: a value, a control file and what was written to it.
//!
//!     cargo run -p mount --example demo DIR &
//!     cat DIR/status; echo hello > DIR/ctl; cat DIR/event; fusermount3 -u DIR

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{Call, Caller, Result};
use fs_tree::{At, Events, Line, Records, Row, Service, ctl, dir, stream, value};
use mount::{Mount, Options};

struct Demo {
    events: Events,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Q {
    Root,
    Status,
    Ctl,
    Event,
}

impl Service for Demo {
    type Q = Q;
    #[rustfmt::skip]
    const TREE: &'static [Row<Q>] = &[
        dir   ("",       Q::Root,   0o555),
        value ("status", Q::Status, 0o444),
        ctl   ("ctl",    Q::Ctl,    0o622),
        stream("event",  Q::Event,  0o444),
    ];

    fn read<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Bytes> {
        let text: &[u8] = if at.q == Q::Status { b"up\n" } else { b"" };
        Box::pin(async move { Ok(Bytes::from_static(text)) })
    }

    fn write<'a>(&'a self, _at: &'a At<Q>, lines: &'a [Line]) -> Call<'a, ()> {
        Box::pin(async move {
            for line in lines {
                self.events.send(line.text.clone());
            }
            Ok(())
        })
    }

    fn stream(&self, _at: &At<Q>) -> Result<Box<dyn Records>> {
        Ok(self.events.subscribe())
    }
}

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: demo DIR");
        return ExitCode::from(2);
    };
    match run(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("demo: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(dir: PathBuf) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    rt.block_on(async {
        let tree = fs_tree::serve(Arc::new(Demo { events: Events::new() }));
        let root = tree.attach(&Caller::owner(0), "").await?;
        let mount = Mount::start(root, &dir, Options::default())?;
        println!("{}", mount.dir().display());
        mount.done().await;
        Ok(())
    })
}
