//! `ipos unmount [NEW] OLD`.

use std::process::ExitCode;

use fs_tree::quote;

use crate::Error;
use crate::home::Home;
use crate::ipos::block_on;
use crate::session::Session;

/// Take a bind or mount out of the name space
///
/// Writes an unmount line to the file ns. To unmount the whole name space from the machine, see ipos umount.
#[derive(Debug, clap::Args)]
pub(crate) struct Unmount {
    /// The member to take out of the union at OLD; without it, all of them
    #[arg(value_name = "NEW")]
    first: String,
    /// Where it appears, from the root of the name space
    #[arg(value_name = "OLD")]
    second: Option<String>,
}

impl Unmount {
    pub(crate) fn run(&self, home: &Home) -> Result<ExitCode, Error> {
        let line = match &self.second {
            Some(old) => format!("unmount {} {}", quote(&self.first), quote(old)),
            None => format!("unmount {}", quote(&self.first)),
        };
        block_on(async { Session::open(home).await?.write("/ns", &line).await })?;
        Ok(ExitCode::SUCCESS)
    }
}
