//! spin [N]: counts to N, or for ever.

fn main() {
    let n: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
    let mut x = 0u64;
    for i in 0..n {
        x = std::hint::black_box(x ^ i);
    }
    println!("{x}");
}
