//! ipos: one verb a file.
fn main() {}
