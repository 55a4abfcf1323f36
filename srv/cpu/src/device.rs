//! The devices of a job: null, zero, random.

use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{Call, Kind, OpenFile, OpenFlags};
use fs_tree::{At, Row, Service, dir, special};

/// The most one read gives, in bytes.
const READ_MAX: u32 = 128 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Q {
    Root,
    Null,
    Zero,
    Random,
}

/// The devices of every job: they have no state.
pub struct Devices;

impl Service for Devices {
    type Q = Q;

    #[rustfmt::skip]
    const TREE: &'static [Row<Q>] = &[
        dir    ("",       Q::Root,   0o555),
        special("null",   Q::Null,   0o666),
        special("zero",   Q::Zero,   0o666),
        special("random", Q::Random, 0o666),
    ];

    fn open<'a>(&'a self, at: &'a At<Q>, _flags: OpenFlags) -> Call<'a, Arc<dyn OpenFile>> {
        Box::pin(std::future::ready(Ok(Arc::new(Device(at.q)) as Arc<dyn OpenFile>)))
    }
}

struct Device(Q);

impl Device {
    fn bytes(&self, count: u32) -> fs_ninep::Result<Bytes> {
        let mut buf = match self.0 {
            Q::Root | Q::Null => return Ok(Bytes::new()),
            Q::Zero | Q::Random => vec![0; count.min(READ_MAX) as usize],
        };
        if self.0 == Q::Random {
            for chunk in buf.chunks_mut(256) {
                // SAFETY: pointer and length are those of `chunk`; up to 256 bytes the call is never cut short.
                let got = unsafe { libc::getrandom(chunk.as_mut_ptr().cast(), chunk.len(), 0) };
                if got != chunk.len() as isize {
                    return Err(Kind::Io.into());
                }
            }
        }
        Ok(buf.into())
    }
}

impl OpenFile for Device {
    fn read(&self, _offset: u64, count: u32) -> Call<'_, Bytes> {
        Box::pin(std::future::ready(self.bytes(count)))
    }

    fn write(&self, _offset: u64, data: Bytes) -> Call<'_, u32> {
        Box::pin(std::future::ready(Ok(data.len() as u32)))
    }
}
