//! The mount as programs see it. Needs /dev/fuse and the right to mount; says by name what was not run.

mod disk;
mod live;
mod mounted;
mod point;
mod signals;
mod space;
mod tree;
