//! The worker as a program of its own: what the tests of this crate start in place of `ipos worker`.

fn main() -> std::process::ExitCode {
    srv_cpu::worker::main()
}
