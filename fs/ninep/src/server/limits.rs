//! What one connection may use. intro(5), LIMITS.

/// What one connection may use; a peer that asks for more is refused, one that never reads is cut off.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest message, in bytes.
    pub msize_max: u32,
    /// Fids at once.
    pub fids_max: usize,
    /// Requests without an answer at once, flushes not counted: those are always obeyed.
    pub requests_max: usize,
    /// Of those, reads that wait on a live file.
    pub parked_max: usize,
    /// Bytes of requests without an answer.
    pub held_bytes_max: usize,
    /// Bytes of answers that wait for the peer to read; at this nothing more is taken from it.
    pub output_bytes_max: usize,
    /// How long answers may wait without a byte of them being taken, in milliseconds.
    pub stall_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            msize_max: 1024 * 1024 + crate::wire::HEADER,
            fids_max: 65_536,
            requests_max: 32_768,
            parked_max: 16_384,
            held_bytes_max: 64 * 1024 * 1024,
            output_bytes_max: 4 * 1024 * 1024,
            stall_ms: 60_000,
        }
    }
}
