//! What a job may use: names, defaults, bounds.

use crate::{Error, Result};

/// The limits of a job. `limit NAME VALUE` in its ctl changes one; those of the node are the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instructions, as the engine counts them.
    pub fuel: u64,
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
    /// Time from start to end, in seconds.
    pub wall_s: u64,
    /// Memory of the program, in bytes.
    pub mem: u64,
    /// Private scratch space, in bytes; it is memory of the node.
    pub disk: u64,
    /// Kept output, stdout and stderr together, in bytes.
    pub spool: u64,
    /// Open descriptors.
    pub files: u64,
}

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            fuel: 1_000_000_000_000,
            cpu_ms: 600_000,
            wall_s: 3600,
            mem: 512 * M,
            disk: 64 * M,
            spool: 64 * M,
            files: 1024,
        }
    }
}

/// Processor time that compiling a program may use, in milliseconds: a 20 MB program needs about 4 s.
pub const COMPILE_MS: u64 = 120_000;

impl Limits {
    /// Changes one of them. Numbers may end in K, M or G (of 1024).
    /// # Errors
    /// `Usage` for a name that is none, `Limit` for a value out of bounds.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (name, slot, min, max): (&'static str, &mut u64, u64, u64) = match name {
            "fuel" => ("fuel", &mut self.fuel, 1, 1 << 60),
            "cpu" => ("cpu", &mut self.cpu_ms, 1, 7 * 86_400_000),
            "wall" => ("wall", &mut self.wall_s, 1, 30 * 86_400),
            "mem" => ("mem", &mut self.mem, 64 * K, 4 * G),
            "disk" => ("disk", &mut self.disk, 0, G),
            "spool" => ("spool", &mut self.spool, 0, 16 * G),
            "files" => ("files", &mut self.files, 4, 65_536),
            _ => return Err(Error::Usage { usage: "limit fuel|cpu|wall|mem|disk|spool|files VALUE" }),
        };
        let refused = || Error::Limit { name, value: value.to_owned(), bounds: format!("{min} to {max}") };
        let number = parse(value).filter(|n| (min..=max).contains(n));
        *slot = number.ok_or_else(refused)?;
        Ok(())
    }
}

fn parse(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], K),
        b'M' | b'm' => (&text[..text.len() - 1], M),
        b'G' | b'g' => (&text[..text.len() - 1], G),
        _ => (text, 1),
    };
    let digits = Some(digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units_and_bounds() {
        for (name, value, expected) in [
            ("fuel", "10", Some(10)),
            ("mem", "64K", Some(65536)),
            ("mem", "4G", Some(4 * G)),
            ("mem", "5G", None),
            ("mem", "1K", None),
            ("wall", "0", None),
            ("disk", "0", Some(0)),
            ("spool", "1m", Some(M)),
            ("files", "+4", None),
            ("files", "-4", None),
            ("files", "", None),
            ("files", "K", None),
            ("fuel", "99999999999999999999", None),
            ("fuel", "99999999999999999G", None),
            ("pids", "1", None),
        ] {
            let mut limits = Limits::default();
            let done = limits.set(name, value);
            let got = [limits.fuel, limits.mem, limits.wall_s, limits.disk, limits.spool, limits.files];
            match expected {
                Some(n) => assert!(done.is_ok() && got.contains(&n), "{name} {value}"),
                None => assert!(done.is_err() && limits == Limits::default(), "{name} {value}"),
            }
        }
    }
}
