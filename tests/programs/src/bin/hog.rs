//! hog [slow]: takes memory without end, a MiB or 64 MiB at a time.

fn main() {
    let size = if std::env::args().nth(1).is_some() { 1 << 20 } else { 64 << 20 };
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(vec![1; size]);
        std::hint::black_box(&kept);
    }
}
