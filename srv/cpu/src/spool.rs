//! What a job printed: a growing file that any number of readers see whole.
//!
//! Short output stays in memory; longer goes to a file that has no name, so nothing is left over whatever happens.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use fs_ninep::{Call, OpenFile, OpenFlags, Result};
use tokio::sync::Notify;

/// Output up to this long is kept in memory, in bytes.
const MEMORY_MAX: usize = 64 * 1024;
/// The most one read gives, in bytes.
const READ_MAX: u32 = 1 << 20;

/// One output of a job.
#[derive(Default)]
pub struct Spool {
    state: Mutex<State>,
    grown: Notify,
}

#[derive(Default)]
struct State {
    memory: BytesMut,
    file: Option<Arc<File>>,
    len: u64,
    closed: bool,
}

/// What stands at an offset.
enum Look {
    Bytes(Bytes),
    File(Arc<File>, usize),
    End { closed: bool },
}

impl Spool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its length now.
    pub fn len(&self) -> u64 {
        self.lock().len
    }

    /// Adds `data`; `dir` is where the file is made when memory is not enough. One appender at a time.
    /// # Errors
    /// What the disk says: it is full, it is gone.
    pub async fn append(&self, data: Bytes, dir: &Path) -> std::io::Result<()> {
        let (file, at, head) = {
            let mut state = self.lock();
            match &state.file {
                Some(file) => (Some(file.clone()), state.len, Bytes::new()),
                None if state.memory.len() + data.len() <= MEMORY_MAX => {
                    state.memory.extend_from_slice(&data);
                    state.len += data.len() as u64;
                    drop(state);
                    self.grown.notify_waiters();
                    return Ok(());
                }
                None => (None, state.len, Bytes::copy_from_slice(&state.memory)),
            }
        };
        let dir = dir.to_owned();
        let len = data.len() as u64;
        let written = tokio::task::spawn_blocking(move || -> std::io::Result<Arc<File>> {
            let file = match file {
                Some(file) => file,
                None => {
                    let file =
                        File::options().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(dir)?;
                    file.write_all_at(&head, 0)?;
                    Arc::new(file)
                }
            };
            file.write_all_at(&data, at)?;
            Ok(file)
        });
        let file = written.await.map_err(std::io::Error::other)??;
        let mut state = self.lock();
        state.memory = BytesMut::new();
        state.file = Some(file);
        state.len += len;
        drop(state);
        self.grown.notify_waiters();
        Ok(())
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.grown.notify_waiters();
    }

    fn look(&self, offset: u64, count: usize) -> Look {
        let state = self.lock();
        if offset >= state.len {
            return Look::End { closed: state.closed };
        }
        let len = count.min(usize::try_from(state.len - offset).unwrap_or(usize::MAX));
        match &state.file {
            Some(file) => Look::File(file.clone(), len),
            None => Look::Bytes(Bytes::copy_from_slice(&state.memory[offset as usize..offset as usize + len])),
        }
    }

    /// At most `count` bytes at `offset`; at the end, waits for more while there may be more, if `wait`.
    pub async fn read(&self, offset: u64, count: u32, wait: bool) -> Result<Bytes> {
        let count = count.min(READ_MAX) as usize;
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            let (file, len) = match self.look(offset, count) {
                Look::Bytes(bytes) => return Ok(bytes),
                Look::File(file, len) => (file, len),
                Look::End { closed } if closed || !wait || count == 0 => return Ok(Bytes::new()),
                Look::End { .. } => {
                    grown.await;
                    continue;
                }
            };
            let read = tokio::task::spawn_blocking(move || -> std::io::Result<Bytes> {
                let mut buf = vec![0; len];
                file.read_exact_at(&mut buf, offset)?;
                Ok(buf.into())
            });
            return Ok(read.await.map_err(std::io::Error::other)??);
        }
    }
}

/// One opening of a spool.
pub struct Reader {
    pub spool: Arc<Spool>,
    pub flags: OpenFlags,
}

impl OpenFile for Reader {
    fn read(&self, offset: u64, count: u32) -> Call<'_, Bytes> {
        Box::pin(self.spool.read(offset, count, !self.flags.has(OpenFlags::NONBLOCK)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_reader_sees_all_and_waits_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::default());
        let reader = |spool: Arc<Spool>| {
            tokio::spawn(async move {
                let mut all = Vec::new();
                loop {
                    let piece = spool.read(all.len() as u64, 10_000, true).await.unwrap();
                    if piece.is_empty() {
                        return all;
                    }
                    all.extend_from_slice(&piece);
                }
            })
        };
        let early = reader(spool.clone());
        let mut expected = Vec::new();
        for i in 0..40u8 {
            let piece = vec![i; 9_000];
            expected.extend_from_slice(&piece);
            spool.append(piece.into(), dir.path()).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(expected.len() > MEMORY_MAX);
        assert_eq!(spool.read(spool.len(), 10, false).await.unwrap(), "", "a reader that may not wait");
        let late = reader(spool.clone());
        spool.close();
        assert!(early.await.unwrap() == expected);
        assert!(late.await.unwrap() == expected);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a spool leaves no name behind");
    }

    #[tokio::test]
    async fn a_disk_that_cannot_be_written_is_an_error_and_what_was_kept_stays() {
        let spool = Spool::default();
        let nowhere = Path::new("/nonexistent");
        spool.append(Bytes::from_static(b"kept"), nowhere).await.unwrap();
        assert!(spool.append(vec![0; MEMORY_MAX].into(), nowhere).await.is_err());
        assert_eq!(spool.read(0, 100, true).await.unwrap(), "kept");
    }
}
