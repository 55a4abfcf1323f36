//! `ipos worker`: the process a job runs in; the node starts it, nobody types it.

use std::process::ExitCode;

use crate::Error;

/// Run jobs for the node that started this
#[derive(Debug, clap::Args)]
pub(crate) struct Worker {}

impl Worker {
    pub(crate) fn run(&self) -> Result<ExitCode, Error> {
        Ok(srv_cpu::worker::main())
    }
}
