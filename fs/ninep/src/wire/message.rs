//! Every message: its type number, the dialects that have it, its fields in the order they travel.

use bytes::Bytes;

use super::field::{DataOnly, Explained, Few, Field, Reader, Uid, Writer};
use super::record::Wstat;
use super::{Dialect, Why};
use crate::{Attr, Qid, Time};

macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($variant:ident $ty:literal $dialects:ident ($($field:ident: $fty:ty),*);)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)] // the fields are intro(5)'s, by their own names
        pub enum $name<'a> {
            $($variant { $($field: $fty),* },)*
        }

        impl<'a> $name<'a> {
            /// The message's type number.
            pub fn ty(&self) -> u8 {
                match self {
                    $($name::$variant { .. } => $ty,)*
                }
            }

            pub(super) fn get(dialect: Dialect, ty: u8, r: &mut Reader<'a>) -> Result<$name<'a>, Why> {
                let _ = &r;
                match ty {
                    $($ty if dialect.$dialects() => Ok($name::$variant { $($field: Field::get(r)?),* }),)*
                    _ => Err(Why::Type(ty)),
                }
            }

            pub(super) fn put(&self, w: &mut Writer) {
                let _ = &w;
                match self {
                    $($name::$variant { $($field),* } => { $($field.put(w);)* })*
                }
            }

            pub(super) fn payload(&self) -> Option<&Bytes> {
                match self {
                    $($name::$variant { $($field),* } => { None::<&Bytes>$(.or($field.payload()))* })*
                }
            }
        }
    };
}

messages! {
    /// What a client sends.
    Request {
        Version    100 any (msize: u32, version: &'a [u8]);
        Auth       102 any (afid: u32, uname: &'a [u8], aname: &'a [u8], n_uname: Uid);
        Attach     104 any (fid: u32, afid: u32, uname: &'a [u8], aname: &'a [u8], n_uname: Uid);
        Flush      108 any (oldtag: u16);
        Walk       110 any (fid: u32, newfid: u32, names: Few<&'a [u8]>);
        Read       116 any (fid: u32, offset: u64, count: u32);
        Write      118 any (fid: u32, offset: u64, data: Bytes);
        Clunk      120 any (fid: u32);
        Remove     122 any (fid: u32);
        Open       112 is_plain (fid: u32, mode: u8);
        Create     114 is_plain (fid: u32, name: &'a [u8], perm: u32, mode: u8);
        Stat       124 is_plain (fid: u32);
        Wstat      126 is_plain (fid: u32, stat: Wstat<'a>);
        Statfs       8 is_linux (fid: u32);
        Lopen       12 is_linux (fid: u32, flags: u32);
        Lcreate     14 is_linux (fid: u32, name: &'a [u8], flags: u32, mode: u32, gid: u32);
        Symlink     16 is_linux (dfid: u32, name: &'a [u8], target: &'a [u8], gid: u32);
        Mknod       18 is_linux (dfid: u32, name: &'a [u8], mode: u32, major: u32, minor: u32, gid: u32);
        Rename      20 is_linux (fid: u32, dfid: u32, name: &'a [u8]);
        Readlink    22 is_linux (fid: u32);
        Getattr     24 is_linux (fid: u32, mask: u64);
        Setattr     26 is_linux (fid: u32, valid: u32, mode: u32, uid: u32, gid: u32, size: u64, atime: Time, mtime: Time);
        Xattrwalk   30 is_linux (fid: u32, newfid: u32, name: &'a [u8]);
        Xattrcreate 32 is_linux (fid: u32, name: &'a [u8], size: u64, flags: u32);
        Readdir     40 is_linux (fid: u32, offset: u64, count: u32);
        Fsync       50 is_linux (fid: u32, data_only: DataOnly);
        Lock        52 is_linux (fid: u32, ty: u8, flags: u32, start: u64, len: u64, proc_id: u32, client_id: &'a [u8]);
        Getlock     54 is_linux (fid: u32, ty: u8, start: u64, len: u64, proc_id: u32, client_id: &'a [u8]);
        Link        70 is_linux (dfid: u32, fid: u32, name: &'a [u8]);
        Mkdir       72 is_linux (dfid: u32, name: &'a [u8], mode: u32, gid: u32);
        Renameat    74 is_linux (olddirfid: u32, oldname: &'a [u8], newdirfid: u32, newname: &'a [u8]);
        Unlinkat    76 is_linux (dirfid: u32, name: &'a [u8], flags: u32);
        Readdirattr 128 is_ipos (fid: u32, offset: u64, count: u32);
    }
}

messages! {
    /// What a server answers.
    Reply {
        Version    101 any (msize: u32, version: &'a [u8]);
        Auth       103 any (aqid: Qid);
        Attach     105 any (qid: Qid);
        Flush      109 any ();
        Walk       111 any (qids: Few<Qid>);
        Read       117 any (data: Bytes);
        Write      119 any (count: u32);
        Clunk      121 any ();
        Remove     123 any ();
        Error      107 is_plain (ename: &'a [u8]);
        Open       113 is_plain (qid: Qid, iounit: u32);
        Create     115 is_plain (qid: Qid, iounit: u32);
        Stat       125 is_plain (stat: Wstat<'a>);
        Wstat      127 is_plain ();
        Lerror       7 is_linux (ecode: u32, ename: Explained<'a>);
        Statfs       9 is_linux (ty: u32, bsize: u32, blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, fsid: u64, namelen: u32);
        Lopen       13 is_linux (qid: Qid, iounit: u32);
        Lcreate     15 is_linux (qid: Qid, iounit: u32);
        Symlink     17 is_linux (qid: Qid);
        Mknod       19 is_linux (qid: Qid);
        Rename      21 is_linux ();
        Readlink    23 is_linux (target: &'a [u8]);
        Getattr     25 is_linux (valid: u64, attr: Attr);
        Setattr     27 is_linux ();
        Xattrwalk   31 is_linux (size: u64);
        Xattrcreate 33 is_linux ();
        Readdir     41 is_linux (data: Bytes);
        Fsync       51 is_linux ();
        Lock        53 is_linux (status: u8);
        Getlock     55 is_linux (ty: u8, start: u64, len: u64, proc_id: u32, client_id: &'a [u8]);
        Link        71 is_linux ();
        Mkdir       73 is_linux (qid: Qid);
        Renameat    75 is_linux ();
        Unlinkat    77 is_linux ();
        Readdirattr 129 is_ipos (data: Bytes);
    }
}
