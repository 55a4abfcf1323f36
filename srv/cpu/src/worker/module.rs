//! Programs: from bytes to code, kept on disk by engine and content.
//!
//! Only what this node compiled is ever loaded: the directory is the node's own, a file is written whole, with the hash
//! of its content at its end, and one that does not match is compiled again. Deserialising somebody else's artefact would
//! be running it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use wasmtime::{Config, Engine, InstancePre, Linker, Module, OptLevel};

use super::wasi::{Host, link};
use crate::message::Hash;

/// The largest program, in bytes.
pub const MODULE_MAX: usize = 64 << 20;
/// Compiled code kept on disk, in bytes; the oldest makes room.
const KEPT_MAX: u64 = 1 << 30;
/// The magic number and version of a core module.
const MAGIC: &[u8; 8] = b"\0asm\x01\0\0\0";
/// The id of the section that holds a start function.
const START_SECTION: u8 = 8;
/// Stack of the program's own calls, in bytes: well under the 8 MiB the process has.
const STACK_MAX: usize = 1 << 20;

/// The engine, what programs may import, and where code is kept.
pub struct Store {
    pub engine: Engine,
    linker: Linker<Host>,
    dir: PathBuf,
    /// What two engines must have in common to run one another's code and to count the same fuel.
    pub id: String,
}

/// A program ready to be instantiated.
pub struct Program {
    pub pre: InstancePre<Host>,
    /// It has a start function, whose work is billed.
    pub starts: bool,
}

/// Why a program is not run.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("not a wasm module: it begins with {0:02x?}; kind wasm takes core modules")]
    Magic(Vec<u8>),
    #[error("the module has more than {MODULE_MAX} bytes")]
    Size,
    #[error("the module does not compile: {0}")]
    Compile(String),
    #[error("the module cannot be linked: {0}; imports are WASI preview 1 only")]
    Link(String),
    #[error("the module exports no function \"_start\": it is a library, not a program")]
    NoStart,
}

impl Store {
    /// The engine of this build, with the code kept under `cache`.
    /// # Errors
    /// A configuration this machine's processor cannot do.
    pub fn new(cache: &Path) -> wasmtime::Result<Store> {
        let mut config = Config::new();
        config
            .consume_fuel(true)
            .cranelift_opt_level(OptLevel::Speed)
            // Without copy-on-write images instantiation is deterministic, and no descriptor outlives the load.
            .memory_init_cow(false)
            .max_wasm_stack(STACK_MAX)
            .wasm_backtrace_max_frames(None)
            .generate_address_map(false)
            .native_unwind_info(false)
            .wasm_relaxed_simd(false)
            .wasm_memory64(false)
            .wasm_multi_memory(false)
            .wasm_exceptions(true)
            // The heap of exception values; room for it is reserved when a program throws first.
            .gc_heap_reservation(16 << 20)
            .gc_heap_guard_size(1 << 16);
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        link(&mut linker)?;
        let id = engine_id(&engine);
        let dir = cache.join(&id);
        sweep(cache, &dir);
        Ok(Store { engine, linker, dir, id })
    }

    /// The code kept for `hash`, if there is any that is whole.
    pub fn load(&self, hash: &Hash) -> Option<Program> {
        let bytes = fs::read(self.path(hash)).ok()?;
        let (rest, sum) = bytes.split_last_chunk::<32>()?;
        if blake3::hash(rest).as_bytes() != sum {
            return None;
        }
        let (code, starts) = match rest.split_last()? {
            (0, code) => (code, false),
            (1, code) => (code, true),
            _ => return None,
        };
        // SAFETY: the file is this node's own (mode 0600, in a directory of mode 0700), was written by `compile` of this
        // engine, and its content is the one that was hashed then.
        let module = unsafe { Module::deserialize(&self.engine, code) }.ok()?;
        self.ready(&module, starts).ok()
    }

    /// Refuses what is no module at all, before anything is spent on it.
    /// # Errors
    /// `Magic`.
    pub fn check(head: &[u8]) -> Result<(), Refusal> {
        if head.starts_with(MAGIC) { Ok(()) } else { Err(Refusal::Magic(head[..head.len().min(8)].to_vec())) }
    }

    /// Compiles `wasm`, whose hash is `hash`, and keeps the code.
    /// # Errors
    /// `Compile`, `Link`, `NoStart`. That the code cannot be kept is no error: the next job compiles again.
    pub fn compile(&self, hash: &Hash, wasm: &[u8]) -> Result<Program, Refusal> {
        let module = Module::from_binary(&self.engine, wasm).map_err(|e| Refusal::Compile(format!("{e:#}")))?;
        let starts = has_start(wasm);
        let program = self.ready(&module, starts)?;
        if let Ok(code) = module.serialize() {
            let _ = self.keep(hash, code, starts);
        }
        Ok(program)
    }

    fn ready(&self, module: &Module, starts: bool) -> Result<Program, Refusal> {
        let pre = self.linker.instantiate_pre(module).map_err(|e| Refusal::Link(format!("{e:#}")))?;
        match module.get_export("_start") {
            Some(ty) if ty.func().is_some() => Ok(Program { pre, starts }),
            _ => Err(Refusal::NoStart),
        }
    }

    fn path(&self, hash: &Hash) -> PathBuf {
        self.dir.join(blake3::Hash::from_bytes(*hash).to_hex().as_str())
    }

    fn keep(&self, hash: &Hash, mut code: Vec<u8>, starts: bool) -> std::io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        code.push(u8::from(starts));
        let sum = blake3::hash(&code);
        code.extend_from_slice(sum.as_bytes());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        make_room(&self.dir, KEPT_MAX.saturating_sub(code.len() as u64))?;
        let new = self.dir.join(format!("{}.new", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let written = file.write_all(&code).and_then(|()| fs::rename(&new, self.path(hash)));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

/// Removes what other engines left, and files that were never finished: nobody else uses `cache` while this starts.
fn sweep(cache: &Path, mine: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten().filter(|entry| entry.path() != mine) {
        let _ = fs::remove_dir_all(entry.path());
    }
    for entry in fs::read_dir(mine).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "new") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Removes the oldest files of `dir` until those that are left have at most `max` bytes.
fn make_room(dir: &Path, max: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        if let Ok(stat) = entry.metadata() {
            files.push((stat.modified().unwrap_or(std::time::UNIX_EPOCH), stat.len(), entry.path()));
        }
    }
    files.sort();
    let mut sum: u64 = files.iter().map(|(_, len, _)| len).sum();
    for (_, len, path) in files {
        if sum <= max {
            break;
        }
        sum -= len;
        let _ = fs::remove_file(path); // another job may have been first
    }
    Ok(())
}

/// What identifies the engine: its version, configuration and target.
fn engine_id(engine: &Engine) -> String {
    struct Sum(blake3::Hasher);
    impl std::hash::Hasher for Sum {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sum = Sum(blake3::Hasher::new());
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut sum);
    sum.0.update(b"wasmtime 48.0.8");
    format!("wasmtime-48.0.8-{}", &sum.0.finalize().to_hex()[..16])
}

/// Whether a module that compiled has a start section.
fn has_start(wasm: &[u8]) -> bool {
    let mut rest = wasm.get(MAGIC.len()..).unwrap_or_default();
    while let Some((&id, body)) = rest.split_first() {
        let (mut len, mut shift, mut used) = (0usize, 0, 0);
        for byte in body.iter().take(5) {
            len |= ((byte & 0x7f) as usize) << shift;
            shift += 7;
            used += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if id == START_SECTION {
            return true;
        }
        rest = body.get(used + len..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_section_is_found_wherever_it_stands() {
        let module = |sections: &[u8]| [&MAGIC[..], sections].concat();
        for (sections, starts) in [
            (&[][..], false),
            (&[8, 1, 0], true),
            (&[0, 3, 1, b'x', 8, 8, 1, 0], true),
            (&[0, 0x83, 0, 1, b'x', 8], false),
            (&[0, 0xff, 0xff, 0xff, 0xff, 0xff], false),
            (&[0, 0x80], false),
        ] {
            assert_eq!(has_start(&module(sections)), starts, "{sections:?}");
        }
    }

    #[test]
    fn kept_code_is_bounded_and_leftovers_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join("mine");
        for name in ["mine", "other"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for (age_s, name) in [(30, "oldest"), (20, "older"), (10, "young"), (0, "7.new")] {
            let file = fs::File::create(mine.join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age_s)).unwrap();
        }
        let names = || {
            let mut names: Vec<_> = fs::read_dir(&mine).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        sweep(dir.path(), &mine);
        assert!(!dir.path().join("other").exists());
        assert_eq!(names(), ["older", "oldest", "young"]);
        make_room(&mine, 300).unwrap();
        assert_eq!(names().len(), 3);
        make_room(&mine, 150).unwrap();
        assert_eq!(names(), ["young"]);
    }
}
