//! The mount as programs see it. Needs /dev/fuse and the right to mount; says by name what was not run.

mod disk;
mod live;
mod mounted;
mod point;
mod remote;
mod signals;
mod space;
mod tree;
