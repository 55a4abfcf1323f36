//! ipos: the machines of many people as one system of files. See ipos(1).

use std::process::ExitCode;

fn main() -> ExitCode {
    ipos::main()
}
