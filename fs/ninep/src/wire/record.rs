//! Records that stand inside a payload: 9P2000's stat records, .L's directory entries.

use bytes::BytesMut;

use super::field::{Field, Reader, Writer};
use super::{Dialect, Why};
use crate::{Attr, Qid};

/// A 9P2000 stat record. In a Twstat, all ones and the empty string mean "leave alone".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// The kernel's, never looked at.
    pub ty: u16,
    /// The kernel's, never looked at.
    pub dev: u32,
    /// The file.
    pub qid: Qid,
    /// Permissions and the bits of `perm`.
    pub mode: u32,
    /// Last read, Unix seconds.
    pub atime: u32,
    /// Last write, Unix seconds.
    pub mtime: u32,
    /// Length in bytes.
    pub length: u64,
    /// The file's name.
    pub name: &'a [u8],
    /// Owner.
    pub uid: &'a [u8],
    /// Group.
    pub gid: &'a [u8],
    /// Who wrote last.
    pub muid: &'a [u8],
}

impl Stat<'_> {
    /// The record that changes nothing.
    pub const KEEP: Stat<'static> = Stat {
        ty: u16::MAX,
        dev: u32::MAX,
        qid: Qid { ty: crate::QidType(u8::MAX), version: u32::MAX, path: u64::MAX },
        mode: u32::MAX,
        atime: u32::MAX,
        mtime: u32::MAX,
        length: u64::MAX,
        name: b"",
        uid: b"",
        gid: b"",
        muid: b"",
    };

    /// Appends the record to a directory read's payload.
    pub fn encode(&self, out: &mut BytesMut) {
        self.put(&mut Writer::records(Dialect::Plain, out));
    }
}

impl<'a> Field<'a> for Stat<'a> {
    fn get(r: &mut Reader<'a>) -> Result<Stat<'a>, Why> {
        let size = u16::get(r)? as usize;
        let mut body = Reader::records(r.dialect, r.take(size)?);
        let r = &mut body;
        let stat = Stat {
            ty: Field::get(r)?,
            dev: Field::get(r)?,
            qid: Field::get(r)?,
            mode: Field::get(r)?,
            atime: Field::get(r)?,
            mtime: Field::get(r)?,
            length: Field::get(r)?,
            name: Field::get(r)?,
            uid: Field::get(r)?,
            gid: Field::get(r)?,
            muid: Field::get(r)?,
        };
        body.end().map_err(|_| Why::Stat)?;
        Ok(stat)
    }

    fn put(&self, w: &mut Writer) {
        let start = w.out.len();
        0u16.put(w);
        self.ty.put(w);
        self.dev.put(w);
        self.qid.put(w);
        [self.mode, self.atime, self.mtime].iter().for_each(|n| n.put(w));
        self.length.put(w);
        [self.name, self.uid, self.gid, self.muid].iter().for_each(|s| s.put(w));
        let size = (w.out.len() - start - 2).min(u16::MAX as usize) as u16;
        w.out[start..start + 2].copy_from_slice(&size.to_le_bytes());
    }
}

/// A stat record as Rstat and Twstat carry it: with its size in front once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wstat<'a>(pub Stat<'a>);

impl<'a> Field<'a> for Wstat<'a> {
    fn get(r: &mut Reader<'a>) -> Result<Wstat<'a>, Why> {
        let size = u16::get(r)? as usize;
        let mut body = Reader::records(r.dialect, r.take(size)?);
        let stat = Stat::get(&mut body)?;
        body.end().map_err(|_| Why::Stat)?;
        Ok(Wstat(stat))
    }

    fn put(&self, w: &mut Writer) {
        let start = w.out.len();
        0u16.put(w);
        self.0.put(w);
        let size = (w.out.len() - start - 2).min(u16::MAX as usize) as u16;
        w.out[start..start + 2].copy_from_slice(&size.to_le_bytes());
    }
}

/// One entry of an Rreaddir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// The file.
    pub qid: Qid,
    /// The cookie to go on from, after this entry.
    pub offset: u64,
    /// Its d_type.
    pub ty: u8,
    /// Its name.
    pub name: &'a [u8],
}

impl Dirent<'_> {
    /// Bytes that the entry of a name of `len` bytes takes.
    pub const fn size(len: usize) -> usize {
        13 + 8 + 1 + 2 + len
    }

    /// Appends the entry to an Rreaddir's payload.
    pub fn encode(&self, out: &mut BytesMut) {
        let w = &mut Writer::records(Dialect::L, out);
        self.qid.put(w);
        self.offset.put(w);
        self.ty.put(w);
        self.name.put(w);
    }
}

impl<'a> Field<'a> for Dirent<'a> {
    fn get(r: &mut Reader<'a>) -> Result<Dirent<'a>, Why> {
        Ok(Dirent { qid: Field::get(r)?, offset: Field::get(r)?, ty: Field::get(r)?, name: Field::get(r)? })
    }

    fn put(&self, w: &mut Writer) {
        self.encode(w.out);
    }
}

/// One entry of an Rreaddirattr: as Rreaddir's, then the attributes where the server has them at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirentAttr<'a> {
    /// The entry.
    pub entry: Dirent<'a>,
    /// Its attributes.
    pub attr: Option<Attr>,
}

impl DirentAttr<'_> {
    /// Appends the entry to an Rreaddirattr's payload.
    pub fn encode(&self, out: &mut BytesMut) {
        self.put(&mut Writer::records(Dialect::Ipos, out));
    }
}

impl<'a> Field<'a> for DirentAttr<'a> {
    fn get(r: &mut Reader<'a>) -> Result<DirentAttr<'a>, Why> {
        let entry = Field::get(r)?;
        let attr = if u8::get(r)? == 0 { None } else { Some(Attr::get(r)?) };
        Ok(DirentAttr { entry, attr })
    }

    fn put(&self, w: &mut Writer) {
        self.entry.put(w);
        u8::from(self.attr.is_some()).put(w);
        if let Some(attr) = &self.attr {
            attr.put(w);
        }
    }
}

macro_rules! iterator {
    ($(#[$doc:meta])* $many:ident of $one:ident in $dialect:expr) => {
        $(#[$doc])*
        pub struct $many<'a>(Reader<'a>);

        impl<'a> $many<'a> {
            /// The records of `payload`.
            pub fn new(payload: &'a [u8]) -> $many<'a> {
                $many(Reader::records($dialect, payload))
            }
        }

        impl<'a> Iterator for $many<'a> {
            type Item = Result<$one<'a>, Why>;

            fn next(&mut self) -> Option<Self::Item> {
                if self.0.rest().is_empty() {
                    return None;
                }
                let one = $one::get(&mut self.0);
                if one.is_err() {
                    self.0 = Reader::records($dialect, b"");
                }
                Some(one)
            }
        }
    };
}

iterator! {
    /// The entries of an Rreaddir; ends after the first bad one.
    Dirents of Dirent in Dialect::L
}
iterator! {
    /// The entries of an Rreaddirattr; ends after the first bad one.
    DirentAttrs of DirentAttr in Dialect::Ipos
}
iterator! {
    /// The records of a 9P2000 directory read; ends after the first bad one.
    Stats of Stat in Dialect::Plain
}
