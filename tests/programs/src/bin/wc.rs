//! wc [-l|-w|-c]... [FILE...]: counts lines, words and bytes of files, or of stdin.

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

fn count(mut from: impl Read) -> io::Result<[u64; 3]> {
    let (mut lines, mut words, mut bytes, mut inside) = (0, 0, 0, false);
    let mut buf = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut buf)?;
        if n == 0 {
            return Ok([lines, words, bytes]);
        }
        bytes += n as u64;
        for b in &buf[..n] {
            lines += u64::from(*b == b'\n');
            words += u64::from(!inside && !b.is_ascii_whitespace());
            inside = !b.is_ascii_whitespace();
        }
    }
}

fn main() -> ExitCode {
    let (flags, files): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with('-'));
    let shown = |i: usize| flags.is_empty() || flags.iter().any(|f| f.contains(['l', 'w', 'c'][i]));
    let print = |counts: [u64; 3], name: &str| {
        let mut row: Vec<String> = (0..3).filter(|i| shown(*i)).map(|i| counts[i].to_string()).collect();
        if !name.is_empty() {
            row.push(name.to_owned());
        }
        println!("{}", row.join(" "));
    };
    let mut code = ExitCode::SUCCESS;
    if files.is_empty() {
        match count(io::stdin().lock()) {
            Ok(counts) => print(counts, ""),
            Err(e) => {
                eprintln!("wc: stdin: {e}");
                code = ExitCode::FAILURE;
            }
        }
    }
    for name in &files {
        match File::open(name).and_then(count) {
            Ok(counts) => print(counts, name),
            Err(e) => {
                eprintln!("wc: {name}: {e}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
