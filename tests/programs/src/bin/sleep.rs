//! sleep MS: says so on stdout, then sleeps.

use std::time::{Duration, Instant};

fn main() {
    let ms = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1000);
    println!("sleeping");
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(ms));
    println!("{}", start.elapsed() >= Duration::from_millis(ms));
}
