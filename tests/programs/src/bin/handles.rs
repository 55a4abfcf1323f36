//! handles FILE N: opens FILE up to N times, keeps them open, prints how many it got and why it stopped.

use std::fs::File;

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_default();
    let n: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut open = Vec::new();
    for _ in 0..n {
        match File::open(&path) {
            Ok(file) => open.push(file),
            Err(e) => return println!("{} {:?}", open.len(), e.raw_os_error()),
        }
    }
    println!("{} all", open.len());
}
