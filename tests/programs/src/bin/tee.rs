//! tee FILE [TEXT...]: writes its words as a line, or without any its stdin, to FILE (made new, renamed into place) and
//! to stdout. Says on stderr when it begins to read.

use std::fs;
use std::io::{self, Read, Write};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or_else(|| io::Error::other("usage: tee FILE [TEXT...]"))?;
    let words: Vec<String> = args.collect();
    let mut text = Vec::new();
    if words.is_empty() {
        eprintln!("reading");
        io::stdin().read_to_end(&mut text)?;
    } else {
        text = (words.join(" ") + "\n").into_bytes();
    }
    let new = format!("{path}.new");
    fs::write(&new, &text)?;
    fs::rename(&new, &path)?;
    io::stdout().write_all(&text)
}
