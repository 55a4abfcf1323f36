//! echo [ARG...]: prints its arguments on stdout; and with `-e`, its environment on stderr.

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    println!("{}", args.join(" "));
    if args.first().is_some_and(|a| a == "-e") {
        for (k, v) in std::env::vars() {
            eprintln!("{k}={v}");
        }
    }
}
