//! upper: copies stdin to stdout in upper case, as it comes.

use std::io::{self, Read, Write};

fn main() -> io::Result<()> {
    let mut buf = vec![0; 64 * 1024];
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    loop {
        let n = from.read(&mut buf)?;
        if n == 0 {
            return Ok(());
        }
        buf[..n].make_ascii_uppercase();
        to.write_all(&buf[..n])?;
        to.flush()?;
    }
}
