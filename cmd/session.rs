//! A verb's way to the running node: its name space over the Unix socket, read and written as `cat` and `echo` would.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fs_ninep::{Client, ClientConfig, File, Kind, Name, OpenFile, OpenFlags};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::Error;
use crate::home::Home;

/// Bytes asked for in one read.
const READ: u32 = 64 << 10;

/// Largest file that is read whole, in bytes: name space texts and status files are far below it.
const TEXT_MAX: usize = 4 << 20;

/// The name space of the node that runs on a home.
pub(crate) struct Session {
    client: Client,
    root: Arc<dyn File>,
}

impl Session {
    /// Connects to the node of `home`.
    /// # Errors
    /// `NoNode` when none runs.
    pub(crate) async fn open(home: &Home) -> Result<Session, Error> {
        let path = home.socket();
        let stream = UnixStream::connect(&path).await.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::NoNode { home: home.path().to_owned() }
            }
            _ => Error::system(&path, "cannot be connected to")(e),
        })?;
        let refused = |why| Error::Refused { path: path.display().to_string(), why };
        let client = Client::connect(stream, ClientConfig::default()).await.map_err(refused)?;
        let root = client.attach("", "").await.map_err(refused)?;
        Ok(Session { client, root })
    }

    /// Rises with every change of the name space.
    pub(crate) async fn changes(&self) -> Result<watch::Receiver<u64>, Error> {
        let event = self.open_file("/event", OpenFlags::RDONLY).await?;
        let (tell, hear) = watch::channel(0);
        tokio::spawn(async move {
            while event.read(0, READ).await.is_ok_and(|record| !record.is_empty()) {
                tell.send_modify(|n| *n += 1);
            }
        });
        Ok(hear)
    }

    /// Waits for the end of the connection and says why it ended.
    pub(crate) async fn closed(&self) -> fs_ninep::Error {
        self.client.closed().await
    }

    /// The root of the name space.
    pub(crate) fn root(&self) -> Arc<dyn File> {
        self.root.clone()
    }

    /// The file at `path`.
    pub(crate) async fn file(&self, path: &str) -> Result<Arc<dyn File>, Error> {
        let refused = |why| Error::Refused { path: path.to_owned(), why };
        let names = Name::path(path).map_err(refused)?;
        self.root.walk(&names).await.end.map_err(refused)
    }

    /// Opens `path`.
    pub(crate) async fn open_file(&self, path: &str, flags: OpenFlags) -> Result<Arc<dyn OpenFile>, Error> {
        let refused = |why| Error::Refused { path: path.to_owned(), why };
        self.file(path).await?.open(flags).await.map_err(refused)
    }

    /// The whole of `path`.
    pub(crate) async fn read(&self, path: &str) -> Result<Bytes, Error> {
        let open = self.open_file(path, OpenFlags::RDONLY).await?;
        read_all(&*open).await.map_err(|why| Error::Refused { path: path.to_owned(), why })
    }

    /// Reads `path` as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.read(path).await?).into_owned())
    }

    /// Writes `lines` to the control file `path`. A refusal carries the text of `error` beside it.
    pub(crate) async fn write(&self, path: &str, lines: &str) -> Result<(), Error> {
        let open = self.open_file(path, OpenFlags::WRONLY).await?;
        match write_all(&*open, format!("{lines}\n").into()).await {
            Ok(()) => Ok(()),
            Err(why) => Err(self.refusal(path, why).await),
        }
    }

    async fn refusal(&self, path: &str, why: fs_ninep::Error) -> Error {
        let beside = match path.rsplit_once('/') {
            Some((dir, _)) => format!("{dir}/error"),
            None => "error".into(),
        };
        let text = self.text(&beside).await.unwrap_or_default();
        let why = if text.trim().is_empty() { why } else { fs_ninep::Error::new(why.kind(), text.trim()) };
        Error::Refused { path: path.to_owned(), why }
    }

    /// Removes the directory `path`.
    pub(crate) async fn rmdir(&self, path: &str) -> Result<(), Error> {
        let refused = |why| Error::Refused { path: path.to_owned(), why };
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = Name::new(name.to_owned()).map_err(refused)?;
        self.file(dir).await?.unlink(&name, true).await.map_err(refused)
    }
}

/// Reads an open file from its start to its end.
pub(crate) async fn read_all(open: &dyn OpenFile) -> fs_ninep::Result<Bytes> {
    let mut all = BytesMut::new();
    loop {
        let part = open.read(all.len() as u64, READ).await?;
        if part.is_empty() {
            return Ok(all.freeze());
        }
        all.extend_from_slice(&part);
        if all.len() > TEXT_MAX {
            return Err(Kind::TooBig.into());
        }
    }
}

/// Writes all of `data` at the start, then closes as a shell's redirection would.
pub(crate) async fn write_all(open: &dyn OpenFile, mut data: Bytes) -> fs_ninep::Result<()> {
    let mut offset = 0;
    while !data.is_empty() {
        let n = open.write(offset, data.clone()).await? as usize;
        if n == 0 {
            return Err(Kind::Io.into());
        }
        offset += n as u64;
        drop(data.split_to(n.min(data.len())));
    }
    open.flush().await
}
