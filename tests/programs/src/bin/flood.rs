//! flood [stderr]: writes without end.

use std::io::Write;

fn main() -> std::io::Result<()> {
    let line = [b'x'; 64 * 1024];
    let to_stderr = std::env::args().nth(1).is_some();
    loop {
        match to_stderr {
            true => std::io::stderr().write_all(&line)?,
            false => std::io::stdout().write_all(&line)?,
        }
    }
}
