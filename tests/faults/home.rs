//! A node's state directory: in use, or damaged.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ipos::tour::{Process, Scratch};

use crate::Verdict;
use crate::scene::QUIET;
use crate::transcripts::IPOS;

tests!(
    a_second_node_on_one_home_is_refused_and_the_first_goes_on,
    what_is_damaged_is_refused_by_name_and_left_as_it_is,
);

/// A home that has the settings above and nothing else.
fn home(scratch: &Scratch) -> std::path::PathBuf {
    let home = scratch.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(home.join("config.toml"), QUIET).unwrap();
    home
}

/// Runs a verb on `home` that is to end by itself.
fn ipos(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").arg(IPOS).arg("--home").arg(home).args(arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

/// `ipos node` ends with status 1 and says all of `texts`.
#[track_caller]
fn refused(home: &Path, texts: &[&str]) {
    let output = ipos(home, &["node"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "{:?}", String::from_utf8_lossy(&output.stdout));
    for text in texts {
        assert!(said.contains(text), "{said}\nlacks {text:?}");
    }
}

fn a_second_node_on_one_home_is_refused_and_the_first_goes_on() -> Verdict {
    let scratch = Scratch::new().unwrap();
    let home = home(&scratch);
    let mut first = Process::start(Path::new(IPOS), &home, &["node"], None).unwrap();
    let addr = first.line().unwrap();
    refused(&home, &[home.to_str().unwrap(), &format!("process id {}", first.pid()), "ipos mount"]);
    let ns = ipos(&home, &["ns"]);
    assert!(ns.status.success() && addr.contains("/p2p/"), "{}", String::from_utf8_lossy(&ns.stderr));
    assert_eq!(first.stop(), Some(0), "{}", first.log());
    assert_eq!(first.log(), "");
    Verdict::Passed
}

/// A file of the home, what is wrong with it, what is said of it beside its path.
#[rustfmt::skip]
const DAMAGED: &[(&str, Damage, &str)] = &[
    ("config.toml",     Damage::Text("nane = \"ann\"\n"),                 "unknown field `nane`"),
    ("config.toml",     Damage::Text("name = \n"),                        "config.toml:1: "),
    ("config.toml",     Damage::Text("listen = 7\n"),                     "invalid type: integer `7`"),
    ("config.toml",     Damage::Text("name = \"a/b\"\n"),                 "name \"a/b\" is not"),
    ("config.toml",     Damage::Text("mdns = false\nlisten = [\"/ip4\"]"), "listen /ip4: "),
    ("config.toml",     Damage::Bytes(b"\xff\xfe"),                       "UTF-8"),
    ("keys/node.key",   Damage::Bytes(b""),                              "damaged: 0 bytes, a key file has 149"),
    ("keys/node.key",   Damage::Cut(100),                                "damaged: 100 bytes, a key file has 149"),
    ("keys/node.key",   Damage::Digit(0),                                 "damaged: not the text of a key file"),
    ("keys/node.key",   Damage::Digit(30),                                "damaged: its public half does not belong"),
    ("keys/node.key",   Damage::Mode(0o644),                             "mode is 0644"),
    ("keys",            Damage::Mode(0o755),                             "mode is 0755"),
    ("keys/A b.key",    Damage::Text("x"),                               "damaged: its name cannot name a key"),
    ("peers",           Damage::Text("peer ann\n"),                      "line 1: "),
    ("peers",           Damage::Bytes(b"\xff\xfe\0"),                    "it is left as it is"),
    ("export",          Damage::Text("ipos exports 2\nend 0\n"),         "line 1: not \"ipos exports 1\""),
    ("export",          Damage::Text("ipos exports 1\nnonsense\nend 1\n"), "line 2: "),
    ("export",          Damage::Text("ipos exports 1\n"),                 "line 2: the end is missing"),
    ("namespace",       Damage::Text("bind /no/such /x\n"),               "ns line 1: /no/such: "),
    ("namespace",       Damage::Text("bind /self /x\nfly\n"),            "ns line 2: \"fly\" is no name space command"),
];

/// What is done to a file.
enum Damage {
    Text(&'static str),
    Bytes(&'static [u8]),
    /// The first so many bytes are left.
    Cut(usize),
    /// This byte becomes another digit.
    Digit(usize),
    Mode(u32),
}

impl Damage {
    fn apply(&self, file: &Path) {
        let old = fs::read(file).unwrap_or_default();
        let new = match self {
            Damage::Text(text) => text.as_bytes().to_vec(),
            Damage::Bytes(bytes) => bytes.to_vec(),
            Damage::Cut(len) => old[..*len].to_vec(),
            Damage::Digit(at) => {
                old.iter().enumerate().map(|(n, b)| if n == *at { b'0' + u8::from(*b == b'0') } else { *b }).collect()
            }
            Damage::Mode(mode) => {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(*mode);
                return fs::set_permissions(file, mode).unwrap();
            }
        };
        fs::write(file, new).unwrap();
    }
}

/// Every file of `dir` that lasts: its path there, mode and bytes.
fn lasting(dir: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = vec![dir.to_owned()];
    while let Some(path) = rest.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(dir).unwrap().display().to_string();
        let bytes = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if meta.is_dir() {
            rest.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        // Whose turn it is, and what can be made again.
        if name != "lock" && !name.starts_with("cpu") {
            found.push((name, std::os::unix::fs::MetadataExt::mode(&meta), bytes));
        }
    }
    found.sort();
    found
}

fn what_is_damaged_is_refused_by_name_and_left_as_it_is() -> Verdict {
    let scratch = Scratch::new().unwrap();
    let home = home(&scratch);
    let mut first = Process::start(Path::new(IPOS), &home, &["node"], None).unwrap();
    let id = first.line().unwrap().rsplit_once('/').unwrap().1.to_owned();
    assert_eq!(first.stop(), Some(0), "{}", first.log());
    for (file, damage, text) in DAMAGED {
        let path = home.join(file);
        let whole = (fs::read(&path), fs::metadata(&path));
        damage.apply(&path);
        let damaged = lasting(&home);
        refused(&home, &[if *file == "config.toml" { "config.toml" } else { path.to_str().unwrap() }, text]);
        assert_eq!(lasting(&home), damaged, "{file}: {text}");
        match whole {
            (_, Err(_)) => fs::remove_file(&path).unwrap(),
            (bytes, Ok(meta)) => {
                if let Ok(bytes) = bytes {
                    fs::write(&path, bytes).unwrap();
                }
                fs::set_permissions(&path, meta.permissions()).unwrap();
            }
        }
    }
    let mut again = Process::start(Path::new(IPOS), &home, &["node"], None).unwrap();
    let addr = again.line().unwrap_or_else(|e| panic!("repaired: {e}"));
    assert!(addr.ends_with(&id), "{addr}");
    assert_eq!(again.stop(), Some(0));
    Verdict::Passed
}
