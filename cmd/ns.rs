//! `ipos ns`.

use std::process::ExitCode;

use crate::Error;
use crate::home::Home;
use crate::ipos::block_on;
use crate::session::Session;

/// Print the name space
///
/// The text is the file ns: namespace(6) lines that make it again when written back.
#[derive(Debug, clap::Args)]
pub(crate) struct Ns {}

impl Ns {
    pub(crate) fn run(&self, home: &Home) -> Result<ExitCode, Error> {
        print!("{}", block_on(async { Session::open(home).await?.text("/ns").await })?);
        Ok(ExitCode::SUCCESS)
    }
}
