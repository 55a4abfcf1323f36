//! Sockets that serve a tree.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Limits, serve};
use crate::{Caller, Error, Identity, Kind, Result, Role, Stream, Tree};

/// Connections of one socket at once.
const CONNECTIONS_MAX: usize = 512;

/// Serves `tree` on the Unix socket `path` until dropped. The peer's credentials say who calls: `owner_uid` and root are
/// the owner, anybody else is refused. A socket that a dead process left is replaced, a live one is not.
/// # Errors
/// `Busy` where another process serves there, else what the host said.
pub fn listen_unix(
    path: &Path,
    tree: Arc<dyn Tree>,
    owner_uid: u32,
    limits: Limits,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let socket = Socket::bind(path)?;
    Ok(async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let (stream, _) = socket.listener.accept().await?;
            if let (Some(caller), Ok(permit)) = (caller(&stream, owner_uid), room.clone().try_acquire_owned()) {
                spawn(stream, tree.clone(), caller, limits, permit);
            }
        }
    })
}

/// Serves `tree` on TCP to anybody as nobody: for tests and measurements, off in the product.
/// # Errors
/// What the host said.
pub async fn listen_tcp(
    addr: SocketAddr,
    tree: Arc<dyn Tree>,
    limits: Limits,
) -> Result<(SocketAddr, impl Future<Output = Result<()>> + Send + 'static)> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    let serving = async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            if let Ok(permit) = room.clone().try_acquire_owned() {
                spawn(stream, tree.clone(), Caller::none(), limits, permit);
            }
        }
    };
    Ok((addr, serving))
}

fn spawn(
    stream: impl Stream,
    tree: Arc<dyn Tree>,
    caller: Caller,
    limits: Limits,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    tokio::spawn(async move {
        let _ = serve(stream, tree, caller, limits).await; // how a peer's connection ended is the peer's affair
        drop(permit);
    });
}

fn caller(stream: &UnixStream, owner_uid: u32) -> Option<Caller> {
    let uid = stream.peer_cred().ok()?.uid();
    (uid == owner_uid || uid == 0).then_some(Caller { identity: Identity::Local { uid }, role: Role::Owner })
}

/// A bound socket; its file goes with it.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    fn bind(path: &Path) -> Result<Socket> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(Error::new(Kind::Busy, format!("{} is served by another process", path.display())));
        }
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Socket { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // gone already is as good
    }
}
