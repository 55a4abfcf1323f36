//! mount: FUSE over the file-server trait.
