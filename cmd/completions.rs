//! `ipos completions SHELL`.

use std::process::ExitCode;

use crate::Error;

/// Print a completion script for a shell
///
/// For bash: ipos completions bash > ~/.local/share/bash-completion/completions/ipos
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(&self, command: &mut clap::Command) -> Result<ExitCode, Error> {
        clap_complete::generate(self.shell, command, "ipos", &mut std::io::stdout());
        Ok(ExitCode::SUCCESS)
    }
}
