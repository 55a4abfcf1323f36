//! recurse: calls itself until the stack ends.

fn deeper(n: u64) -> u64 {
    let pad = std::hint::black_box([n; 8]);
    if std::hint::black_box(n) == u64::MAX { 0 } else { std::hint::black_box(deeper(n + 1)) + pad[3] }
}

fn main() {
    println!("{}", deeper(std::hint::black_box(0)));
}
