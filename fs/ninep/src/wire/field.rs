//! How each kind of field is laid out: little-endian numbers, counted strings, qids.

use std::fmt;
use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Dialect, FRAME_MIN, NAMES_MAX};
use crate::{Attr, Qid, QidType, Time};

/// Payloads up to this many bytes are copied out of the frame, so that whoever keeps a line does not keep the read buffer.
const COPIED_MAX: usize = 2048;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The frame's size is under 7 bytes or over msize.
    #[error("frame size out of range")]
    Size,
    /// Its fields need more bytes than it has.
    #[error("message is shorter than its fields")]
    Short,
    /// Bytes are left after its fields.
    #[error("message is longer than its fields")]
    Trailing,
    /// No message of this dialect has this type, or it goes the other way.
    #[error("message type {0} is not known here")]
    Type(u8),
    /// A walk of more than 16 names.
    #[error("more than 16 names in one walk")]
    Names,
    /// 9P2000 text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A stat record whose sizes disagree.
    #[error("stat record's sizes disagree")]
    Stat,
}

/// A frame that is no message: its tag where it has one, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFrame {
    /// The tag, 0xffff where the frame is too short for one.
    pub tag: u16,
    /// The message type, 0 where the frame is too short for one.
    pub ty: u8,
    /// What is wrong.
    pub why: Why,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message type {} tag {}: {}", self.ty, self.tag, self.why)
    }
}

impl std::error::Error for BadFrame {}

/// At most 16 of something, held in place: the names of a walk, its qids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Few<T> {
    len: u8,
    items: [T; NAMES_MAX],
}

impl<T: Copy + Default> Few<T> {
    /// The items of `from`.
    /// # Errors
    /// `Why::Names` for more than 16.
    pub fn collect(from: impl IntoIterator<Item = T>) -> Result<Few<T>, Why> {
        let mut few = Few { len: 0, items: [T::default(); NAMES_MAX] };
        for item in from {
            *few.items.get_mut(few.len as usize).ok_or(Why::Names)? = item;
            few.len += 1;
        }
        Ok(few)
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..self.len as usize]
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What is left of a frame.
pub struct Reader<'a> {
    pub dialect: Dialect,
    frame: Option<&'a Bytes>,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads records that stand in a payload.
    pub fn records(dialect: Dialect, rest: &'a [u8]) -> Reader<'a> {
        Reader { dialect, frame: None, rest }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Why> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Why::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Why> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Why::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn end(&self) -> Result<(), Why> {
        if self.rest.is_empty() { Ok(()) } else { Err(Why::Trailing) }
    }
}

/// Where a message is being written.
pub struct Writer<'o> {
    pub dialect: Dialect,
    pub out: &'o mut BytesMut,
    payload_len: usize,
}

impl<'o> Writer<'o> {
    /// Writes records that stand in a payload.
    pub fn records(dialect: Dialect, out: &'o mut BytesMut) -> Writer<'o> {
        Writer { dialect, out, payload_len: 0 }
    }
}

/// One field, both ways.
pub trait Field<'a>: Sized {
    fn get(r: &mut Reader<'a>) -> Result<Self, Why>;
    fn put(&self, w: &mut Writer);
    /// The bytes that stand behind the frame's head, where this field is such.
    fn payload(&self) -> Option<&Bytes> {
        None
    }
}

macro_rules! numbers {
    ($($ty:ty),*) => {
        $(impl Field<'_> for $ty {
            #[inline]
            fn get(r: &mut Reader) -> Result<$ty, Why> {
                Ok(<$ty>::from_le_bytes(r.array()?))
            }
            #[inline]
            fn put(&self, w: &mut Writer) {
                w.out.put_slice(&self.to_le_bytes());
            }
        })*
    };
}

numbers!(u8, u16, u32, u64);

impl<'a> Field<'a> for &'a [u8] {
    fn get(r: &mut Reader<'a>) -> Result<&'a [u8], Why> {
        let len = u16::get(r)?;
        let text = r.take(len as usize)?;
        if r.dialect.is_plain() && std::str::from_utf8(text).is_err() {
            return Err(Why::Utf8);
        }
        Ok(text)
    }

    /// Longer strings than 65,535 bytes do not exist on the wire: what is past that is cut off, at a character's end.
    fn put(&self, w: &mut Writer) {
        let mut len = self.len().min(u16::MAX as usize);
        while len < self.len() && len > 0 && self[len] & 0xc0 == 0x80 {
            len -= 1;
        }
        (len as u16).put(w);
        w.out.put_slice(&self[..len]);
    }
}

impl Field<'_> for Qid {
    fn get(r: &mut Reader) -> Result<Qid, Why> {
        Ok(Qid { ty: QidType(u8::get(r)?), version: u32::get(r)?, path: u64::get(r)? })
    }

    fn put(&self, w: &mut Writer) {
        self.ty.0.put(w);
        self.version.put(w);
        self.path.put(w);
    }
}

impl<'a, T: Field<'a> + Copy + Default> Field<'a> for Few<T> {
    fn get(r: &mut Reader<'a>) -> Result<Few<T>, Why> {
        let len = u16::get(r)?;
        if len as usize > NAMES_MAX {
            return Err(Why::Names);
        }
        let mut few = Few { len: len as u8, items: [T::default(); NAMES_MAX] };
        for item in &mut few.items[..len as usize] {
            *item = T::get(r)?;
        }
        Ok(few)
    }

    fn put(&self, w: &mut Writer) {
        (self.len as u16).put(w);
        self.iter().for_each(|item| item.put(w));
    }
}

impl<'a> Field<'a> for Bytes {
    fn get(r: &mut Reader<'a>) -> Result<Bytes, Why> {
        let count = u32::get(r)?;
        let data = r.take(count as usize)?;
        Ok(match r.frame {
            Some(frame) if data.len() > COPIED_MAX => frame.slice_ref(data),
            _ => Bytes::copy_from_slice(data),
        })
    }

    fn put(&self, w: &mut Writer) {
        (self.len() as u32).put(w);
        w.payload_len = self.len();
    }

    fn payload(&self) -> Option<&Bytes> {
        Some(self)
    }
}

/// n_uname: in every dialect but 9P2000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uid(pub u32);

impl Field<'_> for Uid {
    fn get(r: &mut Reader) -> Result<Uid, Why> {
        Ok(Uid(if r.dialect.is_plain() { super::NONUNAME } else { u32::get(r)? }))
    }

    fn put(&self, w: &mut Writer) {
        if !w.dialect.is_plain() {
            self.0.put(w);
        }
    }
}

/// Tfsync's datasync word, which older clients leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataOnly(pub u32);

impl Field<'_> for DataOnly {
    fn get(r: &mut Reader) -> Result<DataOnly, Why> {
        Ok(DataOnly(if r.rest.is_empty() { 0 } else { u32::get(r)? }))
    }

    fn put(&self, w: &mut Writer) {
        self.0.put(w);
    }
}

/// The text of a refusal: in the private dialect only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained<'a>(pub &'a [u8]);

impl<'a> Field<'a> for Explained<'a> {
    fn get(r: &mut Reader<'a>) -> Result<Explained<'a>, Why> {
        Ok(Explained(if r.dialect == Dialect::Ipos { Field::get(r)? } else { b"" }))
    }

    fn put(&self, w: &mut Writer) {
        if w.dialect == Dialect::Ipos {
            self.0.put(w);
        }
    }
}

impl Field<'_> for Time {
    fn get(r: &mut Reader) -> Result<Time, Why> {
        Ok(Time { sec: u64::get(r)? as i64, nsec: u64::get(r)?.min(999_999_999) as u32 })
    }

    fn put(&self, w: &mut Writer) {
        (self.sec as u64).put(w);
        (self.nsec as u64).put(w);
    }
}

/// Rgetattr from the qid on: what nobody fills in (birth time, generation, data version) is 0.
impl Field<'_> for Attr {
    fn get(r: &mut Reader) -> Result<Attr, Why> {
        let attr = Attr {
            qid: Qid::get(r)?,
            mode: u32::get(r)?,
            uid: u32::get(r)?,
            gid: u32::get(r)?,
            nlink: u64::get(r)?,
            rdev: u64::get(r)?,
            size: u64::get(r)?,
            blksize: u64::get(r)?,
            blocks: u64::get(r)?,
            atime: Time::get(r)?,
            mtime: Time::get(r)?,
            ctime: Time::get(r)?,
        };
        r.take(32)?;
        Ok(attr)
    }

    fn put(&self, w: &mut Writer) {
        self.qid.put(w);
        [self.mode, self.uid, self.gid].iter().for_each(|n| n.put(w));
        [self.nlink, self.rdev, self.size, self.blksize, self.blocks].iter().for_each(|n| n.put(w));
        [self.atime, self.mtime, self.ctime].iter().for_each(|t| t.put(w));
        w.out.put_bytes(0, 32);
    }
}

/// Decodes a frame whose body `get` reads.
pub fn decode<'a, M>(
    dialect: Dialect,
    frame: &'a Bytes,
    get: impl FnOnce(u8, &mut Reader<'a>) -> Result<M, Why>,
) -> Result<(u16, M), BadFrame> {
    if frame.len() < FRAME_MIN {
        return Err(BadFrame { tag: super::NOTAG, ty: 0, why: Why::Size });
    }
    let (ty, tag) = (frame[4], u16::from_le_bytes([frame[5], frame[6]]));
    let bad = |why| BadFrame { tag, ty, why };
    if u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize != frame.len() {
        return Err(bad(Why::Size));
    }
    let mut r = Reader { dialect, frame: Some(frame), rest: &frame[FRAME_MIN..] };
    let message = get(ty, &mut r).map_err(bad)?;
    r.end().map_err(bad)?;
    Ok((tag, message))
}

/// Encodes a frame whose body `put` writes, up to its payload.
pub fn encode(dialect: Dialect, ty: u8, tag: u16, out: &mut BytesMut, put: impl FnOnce(&mut Writer)) {
    let start = out.len();
    out.put_slice(&[0; 4]);
    out.put_u8(ty);
    out.put_u16_le(tag);
    let mut w = Writer { dialect, out, payload_len: 0 };
    put(&mut w);
    let size = w.payload_len + out.len() - start;
    out[start..start + 4].copy_from_slice(&(size as u32).to_le_bytes());
}
