//! Why a mount cannot be made, and what to type.

use std::io;
use std::path::PathBuf;

use fs_ninep::Kind;

/// The result of mounting and unmounting.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a mount cannot be made or unmade.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no FUSE, or this container was not given the device.
    #[error("/dev/fuse is missing; type \"modprobe fuse\" as root, or start the container with \"--device /dev/fuse\"")]
    NoDevice,
    /// The device's permissions keep this user out.
    #[error(
        "/dev/fuse cannot be opened by this user; type \"chmod 666 /dev/fuse\" as root, and to keep it so \
         \"echo 'KERNEL==\\\"fuse\\\", MODE=\\\"0666\\\"' > /etc/udev/rules.d/99-fuse.rules\""
    )]
    DeviceDenied,
    /// An ordinary user mounts through a program that is not installed.
    #[error(
        "fusermount3 is missing, and without it only root can mount; it is in the package fuse3: type \"apt install fuse3\""
    )]
    NoFusermount,
    /// fusermount3 refused; the text is its own.
    #[error("{}: fusermount3 refused: {said}", dir.display())]
    Fusermount {
        /// The mount point.
        dir: PathBuf,
        /// What it said.
        said: String,
    },
    /// The mount point is no directory, or cannot be looked at.
    #[error("{}: {cause}", dir.display())]
    Dir {
        /// The mount point.
        dir: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another ipos serves this mount point and is alive.
    #[error("{0}: ipos is mounted there already; type \"fusermount3 -u {0}\" to end it", dir.display())]
    Served {
        /// The mount point.
        dir: PathBuf,
    },
    /// The kernel refused to mount or to unmount.
    #[error("{}: cannot {verb}: {cause}", dir.display())]
    Refused {
        /// `mount` or `unmount`.
        verb: &'static str,
        /// The mount point.
        dir: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The kernel speaks a FUSE that is too old.
    #[error("this kernel speaks FUSE {major}.{minor}; 7.28 (Linux 4.20) is the oldest that will do")]
    Version {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// The connection to the kernel failed.
    #[error("/dev/fuse: {0}")]
    Device(#[from] io::Error),
}

impl Error {
    /// What went wrong, for programs.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoDevice | Error::NoFusermount => Kind::NotFound,
            Error::DeviceDenied | Error::Fusermount { .. } => Kind::Denied,
            Error::Served { .. } => Kind::Busy,
            Error::Version { .. } => Kind::NotSupported,
            Error::Dir { cause, .. } | Error::Refused { cause, .. } | Error::Device(cause) => {
                cause.raw_os_error().map_or(Kind::Io, |n| Kind::from_errno(n as u32))
            }
        }
    }
}
