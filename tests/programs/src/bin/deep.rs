//! deep N: opens a path of N components, prints the error number.

fn main() {
    let n: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    let path = "a/".repeat(n);
    match std::fs::metadata(&path) {
        Ok(_) => println!("ok"),
        Err(e) => println!("{:?}", e.raw_os_error()),
    }
}
