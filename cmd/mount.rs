//! `ipos mount [DIR]`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ::mount::{Mount, Options};
use fs_ninep::File;
use tokio::sync::watch;

use crate::home::Home;
use crate::ipos::block_on;
use crate::node::{End, Node, Settings, ready};
use crate::session::Session;
use crate::{Error, place};

/// Mount the name space
///
/// Attaches to the node that runs on the state directory, else is that node too. Prints the path once it can be used, and stays until it is unmounted, or until SIGINT, SIGTERM or SIGHUP.
#[derive(Debug, clap::Args)]
pub(crate) struct MountVerb {
    #[command(flatten)]
    settings: Settings,
    /// Where to mount [default: the configuration's, else /n/ipos, else ~/n/ipos]
    dir: Option<PathBuf>,
}

/// How long a node that starts is waited for, and how often it is looked for.
const STARTING: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(50);

impl MountVerb {
    pub(crate) fn run(&self, home: &Home) -> Result<ExitCode, Error> {
        let config = self.settings.config(home)?;
        let dir = place::choose(self.dir.as_deref(), &config)?;
        block_on(async {
            let mut end = End::new()?;
            match Node::start(home, &config).await {
                Ok(node) => {
                    node.mounted(&dir);
                    let (root, changes) = node.name_space();
                    let asked = async {
                        node.stop_asked().await;
                        Ok(())
                    };
                    let done = serve(root, changes, &dir, &mut end, asked).await;
                    node.stop().await;
                    done
                }
                Err(Error::Taken { .. }) if !self.settings.given() => {
                    let session = attach(home).await?;
                    let changes = session.changes().await?;
                    let gone = async { Err(Error::Gone { why: session.closed().await }) };
                    serve(session.root(), changes, &dir, &mut end, gone).await
                }
                Err(e) => Err(e),
            }
        })
    }
}

/// The node that holds `home`; one that is only starting has no socket yet.
async fn attach(home: &Home) -> Result<Session, Error> {
    for _ in 0..STARTING.as_millis() / AGAIN.as_millis() {
        match Session::open(home).await {
            Err(Error::NoNode { .. }) => tokio::time::sleep(AGAIN).await,
            done => return done,
        }
    }
    Session::open(home).await
}

/// Shows `root` at `dir` until it is unmounted, this process is told to end, or the node is over.
async fn serve(
    root: Arc<dyn File>,
    changes: watch::Receiver<u64>,
    dir: &Path,
    end: &mut End,
    over: impl Future<Output = Result<(), Error>>,
) -> Result<ExitCode, Error> {
    if !place::dead(dir) {
        std::fs::create_dir_all(dir).map_err(Error::system(dir, "cannot be made"))?;
    }
    let mount = Mount::start(root, dir, Options { changes: Some(changes), ..Options::default() })
        .map_err(Error::part("mount"))?;
    println!("{}", dir.display());
    ready();
    let outcome = tokio::select! {
        () = end.wait() => Ok(()),
        () = mount.done() => return Ok(ExitCode::SUCCESS),
        over = over => over,
    };
    mount.unmount().await.map_err(Error::part("mount"))?;
    outcome.map(|()| ExitCode::SUCCESS)
}
