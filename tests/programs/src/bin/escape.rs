//! escape PATH...: tries to read each path, from the root and by `..`; prints what it got.

fn main() {
    for path in std::env::args().skip(1) {
        match std::fs::read(&path) {
            Ok(bytes) => println!("{path}: {}", String::from_utf8_lossy(&bytes)),
            Err(e) => println!("{path}: {:?}", e.raw_os_error()),
        }
    }
}
