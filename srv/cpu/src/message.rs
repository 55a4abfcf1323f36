//! What the node, its fork server and the jobs say to each other: one message a packet, on sequenced-packet sockets.
//!
//! Numbers are little-endian, byte strings carry their length. The job's side is not trusted: a packet that does not
//! decode is an error, never a panic, and nothing in it is believed beyond what it is about.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

/// The largest packet, in bytes: under the kernel's default send buffer.
pub const PACKET_MAX: usize = 160 * 1024;
/// Descriptors that may come with one packet.
const FDS_MAX: usize = 4;

/// A BLAKE3 hash: of a program, as it was read.
pub type Hash = [u8; 32];

/// From the node to the fork server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// First of all: where compiled programs are kept.
    Start { cache: Vec<u8> },
    /// One more process that waits for a job.
    Fork,
    /// Keep this program in memory: the next jobs begin with it.
    Load { hash: Hash },
}

/// From the fork server to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The engine is ready; its id.
    Ready { engine: String },
    /// A process that waits for a job; with it come its socket and its pidfd.
    Forked { pid: i32 },
    /// A process is gone: its wait(2) status, its times in microseconds, the most memory it had.
    Reaped { pid: i32, status: i32, user_us: u64, sys_us: u64, peak_kb: u64 },
}

/// From the node to a waiting process; with it come its 9P connection, stdin, stdout and stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The hash of the program, where the node knows it.
    pub hash: Option<Hash>,
    /// Argument 0 first.
    pub args: Vec<Vec<u8>>,
    /// `NAME=value`, each.
    pub env: Vec<Vec<u8>>,
    /// Instructions it may run.
    pub fuel: u64,
    /// Processor time it may use, in milliseconds.
    pub cpu_ms: u64,
    /// Processor time its compilation may use, in milliseconds.
    pub compile_ms: u64,
    /// Bytes of memory it may use.
    pub mem: u64,
    /// Descriptors it may have open.
    pub files: u64,
}

/// How a program ended, as its own process tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Trap,
    Fuel,
    Mem,
    Refused,
}

/// From a job to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It has to compile the program, which may take long.
    Compiling,
    /// The program was not in memory; the node may have it loaded.
    Loaded { hash: Hash, compile_ms: u64 },
    /// It is over.
    Done { end: End, fuel: u64, memory_peak: u64, text: String },
}

/// A packet that is not one of ours.
#[derive(Debug, thiserror::Error)]
#[error("a packet of {len} bytes does not decode")]
pub struct Malformed {
    len: usize,
}

/// What a message is as bytes.
pub trait Packet: Sized {
    fn put(&self, to: &mut Vec<u8>);
    fn get(from: &mut Reader) -> Option<Self>;

    /// The packet.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.put(&mut out);
        out
    }

    /// The message of a packet, all of it.
    fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(packet);
        Self::get(&mut from).filter(|_| from.0.is_empty()).ok_or(Malformed { len: packet.len() })
    }
}

/// The rest of a packet.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.u32().map(|n| n as i32)
    }

    fn hash(&mut self) -> Option<Hash> {
        self.bytes(32)?.try_into().ok()
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let len = self.u32()?;
        self.bytes(len as usize).map(<[u8]>::to_vec)
    }

    fn strings(&mut self) -> Option<Vec<Vec<u8>>> {
        let count = self.u32()?;
        (0..count).map(|_| self.string()).collect()
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.string()?).ok()
    }
}

fn put_string(to: &mut Vec<u8>, string: &[u8]) {
    to.extend_from_slice(&(string.len() as u32).to_le_bytes());
    to.extend_from_slice(string);
}

fn put_strings(to: &mut Vec<u8>, strings: &[Vec<u8>]) {
    to.extend_from_slice(&(strings.len() as u32).to_le_bytes());
    strings.iter().for_each(|s| put_string(to, s));
}

fn put_u64s(to: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|n| to.extend_from_slice(&n.to_le_bytes()));
}

impl Packet for Order {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Order::Start { cache } => {
                to.push(0);
                put_string(to, cache);
            }
            Order::Fork => to.push(1),
            Order::Load { hash } => {
                to.push(2);
                to.extend_from_slice(hash);
            }
        }
    }

    fn get(from: &mut Reader) -> Option<Order> {
        Some(match from.u8()? {
            0 => Order::Start { cache: from.string()? },
            1 => Order::Fork,
            2 => Order::Load { hash: from.hash()? },
            _ => return None,
        })
    }
}

impl Packet for News {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            News::Ready { engine } => {
                to.push(0);
                put_string(to, engine.as_bytes());
            }
            News::Forked { pid } => {
                to.push(1);
                to.extend_from_slice(&pid.to_le_bytes());
            }
            News::Reaped { pid, status, user_us, sys_us, peak_kb } => {
                to.push(2);
                to.extend_from_slice(&pid.to_le_bytes());
                to.extend_from_slice(&status.to_le_bytes());
                put_u64s(to, &[*user_us, *sys_us, *peak_kb]);
            }
        }
    }

    fn get(from: &mut Reader) -> Option<News> {
        Some(match from.u8()? {
            0 => News::Ready { engine: from.text()? },
            1 => News::Forked { pid: from.i32()? },
            2 => News::Reaped {
                pid: from.i32()?,
                status: from.i32()?,
                user_us: from.u64()?,
                sys_us: from.u64()?,
                peak_kb: from.u64()?,
            },
            _ => return None,
        })
    }
}

impl Packet for Job {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(u8::from(self.hash.is_some()));
        to.extend_from_slice(self.hash.as_ref().map_or(&[], |h| &h[..]));
        put_strings(to, &self.args);
        put_strings(to, &self.env);
        put_u64s(to, &[self.fuel, self.cpu_ms, self.compile_ms, self.mem, self.files]);
    }

    fn get(from: &mut Reader) -> Option<Job> {
        Some(Job {
            hash: match from.u8()? {
                0 => None,
                1 => Some(from.hash()?),
                _ => return None,
            },
            args: from.strings()?,
            env: from.strings()?,
            fuel: from.u64()?,
            cpu_ms: from.u64()?,
            compile_ms: from.u64()?,
            mem: from.u64()?,
            files: from.u64()?,
        })
    }
}

impl Packet for Report {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Report::Compiling => to.push(0),
            Report::Loaded { hash, compile_ms } => {
                to.push(1);
                to.extend_from_slice(hash);
                put_u64s(to, &[*compile_ms]);
            }
            Report::Done { end, fuel, memory_peak, text } => {
                to.push(2);
                let (word, code) = match end {
                    End::Exited(code) => (0, *code),
                    End::Trap => (1, 0),
                    End::Fuel => (2, 0),
                    End::Mem => (3, 0),
                    End::Refused => (4, 0),
                };
                to.push(word);
                to.extend_from_slice(&code.to_le_bytes());
                put_u64s(to, &[*fuel, *memory_peak]);
                put_string(to, text.as_bytes());
            }
        }
    }

    fn get(from: &mut Reader) -> Option<Report> {
        Some(match from.u8()? {
            0 => Report::Compiling,
            1 => Report::Loaded { hash: from.hash()?, compile_ms: from.u64()? },
            2 => {
                let (word, code) = (from.u8()?, from.i32()?);
                let end = match word {
                    0 => End::Exited(code),
                    1 => End::Trap,
                    2 => End::Fuel,
                    3 => End::Mem,
                    4 => End::Refused,
                    _ => return None,
                };
                Report::Done { end, fuel: from.u64()?, memory_peak: from.u64()?, text: from.text()? }
            }
            _ => return None,
        })
    }
}

/// Sends one packet and, with it, descriptors.
/// # Errors
/// As sendmsg(2): `EAGAIN` where the socket does not wait and is full, `EPIPE` when nobody is there any more.
pub fn send(to: RawFd, packet: &[u8], fds: &[RawFd]) -> nix::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    loop {
        match sendmsg::<UnixAddr>(to, &[IoSlice::new(packet)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one packet into `buf` and the descriptors that came with it, closed on exec; 0 bytes are the end.
/// # Errors
/// As recvmsg(2); `EMSGSIZE` for a packet longer than `buf`.
pub fn receive(from: &impl AsRawFd, buf: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut slices = [IoSliceMut::new(buf)];
    let got = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<UnixAddr>(from.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in got.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else knows them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    match got.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        true => Err(Errno::EMSGSIZE),
        false => Ok((got.bytes, fds)),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<P: Packet + PartialEq + Debug>(message: P) {
        let packet = message.encode();
        assert_eq!(P::decode(&packet).unwrap(), message);
        for len in 0..packet.len() {
            assert!(P::decode(&packet[..len]).is_err(), "{message:?} cut to {len}");
        }
        assert!(P::decode(&[&packet[..], &[0]].concat()).is_err(), "{message:?} and a byte more");
    }

    #[test]
    fn every_message_survives_and_none_that_is_cut() {
        check(Order::Start { cache: b"/c".to_vec() });
        check(Order::Fork);
        check(Order::Load { hash: [7; 32] });
        check(News::Ready { engine: "e".into() });
        check(News::Forked { pid: 5 });
        check(News::Reaped { pid: -5, status: 9, user_us: 1, sys_us: 2, peak_kb: u64::MAX });
        check(Report::Compiling);
        check(Report::Loaded { hash: [1; 32], compile_ms: 3 });
        for end in [End::Exited(-1), End::Trap, End::Fuel, End::Mem, End::Refused] {
            check(Report::Done { end, fuel: 1, memory_peak: 2, text: "text".into() });
        }
        let job = Job {
            hash: None,
            args: vec![b"a".to_vec(), Vec::new()],
            env: vec![b"A=b".to_vec()],
            fuel: 1,
            cpu_ms: 2,
            compile_ms: 3,
            mem: 4,
            files: 5,
        };
        check(Job { hash: Some([9; 32]), ..job.clone() });
        check(job);
    }

    #[test]
    fn a_count_that_is_a_lie_is_refused_before_it_is_believed() {
        let mut packet = vec![0];
        packet.extend_from_slice(&u32::MAX.to_le_bytes());
        packet.extend_from_slice(&[0; 64]);
        assert!(Job::decode(&packet).is_err());
        assert!(Order::decode(&packet).is_err());
    }
}
