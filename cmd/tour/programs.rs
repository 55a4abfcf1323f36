//! What the tour and the tests run as jobs, built from sources: the programs of `tests/programs`, and ripgrep unchanged.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release of ripgrep that is built.
const RIPGREP: &str = "15.2.0";

/// Files a source tree must have to be worth searching.
const FILES: usize = 1000;

/// The sources of ipos: where cargo runs, else the nearest directory above the current one that has the transcripts.
pub fn sources() -> io::Result<PathBuf> {
    let here = std::env::current_dir()?;
    let named = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let mut candidates = named.iter().map(PathBuf::as_path).chain(here.ancestors());
    candidates.find(|d| d.join("tests/intro.t").exists()).map(Path::to_owned).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the sources of ipos are not here; type: cd CLONE && cargo run -- tour")
    })
}

/// Builds the programs of `tests/programs` under `sources` and gives the directory they are in, as NAME.wasm.
/// # Errors
/// What the build script complained of.
pub fn build(sources: &Path) -> io::Result<PathBuf> {
    let output = Command::new("sh")
        .arg(sources.join("tests/programs/build.sh"))
        .env("PROGRAMS_TARGET", sources.join("target/programs"))
        .stdin(Stdio::null())
        .output()?;
    match output.status.success() {
        true => Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())),
        false => Err(io::Error::other(format!("tests/programs: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

/// Builds ripgrep for WebAssembly once and gives the path of `rg.wasm`.
/// # Errors
/// What cargo complained of.
pub fn ripgrep(sources: &Path) -> io::Result<PathBuf> {
    let root = sources.join("target/ripgrep").join(RIPGREP);
    let program = root.join("bin/rg.wasm");
    if program.exists() {
        return Ok(program);
    }
    let output = Command::new("cargo")
        .args([
            "install",
            "--quiet",
            "--locked",
            "--target",
            "wasm32-wasip1",
            "ripgrep",
            "--version",
            RIPGREP,
            "--root",
        ])
        .arg(&root)
        .arg("--target-dir")
        .arg(sources.join("target/ripgrep/build"))
        .current_dir(sources)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("cargo: {e}; rustup brings it, see README")))?;
    match program.exists() {
        true => Ok(program),
        false => Err(io::Error::other(format!("ripgrep: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

/// The largest source tree that cargo unpacked to build ipos: real sources that nobody here wrote.
/// # Errors
/// `NotFound` where none has a thousand files.
pub fn source_tree() -> io::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut best = (FILES - 1, None);
    for registry in home.unwrap_or_default().join("registry/src").read_dir()? {
        for tree in registry?.path().read_dir()? {
            let tree = tree?.path();
            let files = files_in(&tree)?;
            if files > best.0 {
                best = (files, Some(tree));
            }
        }
    }
    best.1.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "no crate with 1000 files is unpacked; type: cargo fetch")
    })
}

fn files_in(dir: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in dir.read_dir()? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { files_in(&entry.path())? } else { 1 };
    }
    Ok(files)
}
