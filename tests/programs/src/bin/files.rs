//! files DIR: every kind of file operation in DIR, checked; prints `ok`, or fails naming the line that differs.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::Path;

/// WASI's ENOTEMPTY, which this platform's std gives no kind.
const NOTEMPTY: i32 = 55;

macro_rules! same {
    ($a:expr, $b:expr) => {
        if $a != $b {
            return Err(std::io::Error::other(format!("files.rs:{}: {:?} is not {:?}", line!(), $a, $b)));
        }
    };
}

fn refused<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|e| e.kind())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn contents(dir: &Path) -> Result<()> {
    let path = dir.join("data");
    fs::write(&path, b"hello")?;
    same!(fs::read(&path)?, b"hello");
    OpenOptions::new().append(true).open(&path)?.write_all(b" world")?;
    same!(fs::read_to_string(&path)?, "hello world");
    let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
    file.seek(SeekFrom::Start(6))?;
    file.write_all(b"W")?;
    same!(file.stream_position()?, 7);
    file.seek(SeekFrom::End(-5))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    same!(text, "World");
    file.seek(SeekFrom::Current(-11))?;
    text.clear();
    file.read_to_string(&mut text)?;
    same!(text, "hello World");
    file.set_len(4)?;
    file.sync_all()?;
    same!(file.metadata()?.len(), 4);
    same!(fs::read(&path)?, b"hell");
    same!(refused(File::create_new(&path)), Some(ErrorKind::AlreadyExists));
    File::create(&path)?;
    same!(fs::metadata(&path)?.len(), 0);
    let big: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(&path, &big)?;
    same!(fs::read(&path)?, big);
    same!(fs::copy(&path, dir.join("copy"))?, 300_000);
    same!(fs::read(dir.join("copy"))?, big);
    fs::remove_file(dir.join("copy"))?;
    fs::remove_file(&path)
}

fn directories(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("a/b/c"))?;
    same!(refused(fs::create_dir(dir.join("a"))), Some(ErrorKind::AlreadyExists));
    for i in 0..300 {
        fs::write(dir.join(format!("a/b/file-with-a-longer-name-{i:03}")), [i as u8])?;
    }
    let found = names(&dir.join("a/b"))?;
    same!(found.len(), 301);
    same!(found[300], "file-with-a-longer-name-299");
    same!(fs::read_dir(dir.join("a/b/c"))?.count(), 0);
    same!(fs::remove_dir(dir.join("a/b")).err().and_then(|e| e.raw_os_error()), Some(NOTEMPTY));
    same!(fs::metadata(dir.join("a"))?.is_dir(), true);
    same!(refused(fs::read_dir(dir.join("nothing"))), Some(ErrorKind::NotFound));
    same!(fs::metadata(dir.join("a/b/../b/./c"))?.is_dir(), true);
    same!(refused(fs::metadata(dir.join("a/nothing/.."))), Some(ErrorKind::NotFound));
    fs::remove_dir_all(dir.join("a"))?;
    same!(dir.join("a").exists(), false);
    Ok(())
}

fn names_change(dir: &Path) -> Result<()> {
    fs::write(dir.join("old"), b"1")?;
    fs::write(dir.join("new"), b"2")?;
    fs::rename(dir.join("old"), dir.join("new"))?;
    same!(names(dir)?, ["new"]);
    same!(fs::read(dir.join("new"))?, b"1");
    fs::hard_link(dir.join("new"), dir.join("second"))?;
    same!(fs::read(dir.join("second"))?, b"1");
    fs::remove_file(dir.join("second"))?;
    fs::remove_file(dir.join("new"))
}

#[allow(deprecated)] // the portable call makes a link on this platform, which is what is to be tried
fn links(dir: &Path) -> Result<()> {
    fs::create_dir(dir.join("real"))?;
    fs::write(dir.join("real/file"), b"linked")?;
    fs::soft_link("real/file", dir.join("link"))?;
    fs::soft_link("real", dir.join("dirlink"))?;
    fs::soft_link("nowhere", dir.join("broken"))?;
    fs::soft_link("loop", dir.join("loop"))?;
    same!(fs::read(dir.join("link"))?, b"linked");
    same!(fs::read(dir.join("dirlink/file"))?, b"linked");
    same!(fs::read_link(dir.join("link"))?, Path::new("real/file"));
    same!(fs::symlink_metadata(dir.join("link"))?.is_symlink(), true);
    same!(fs::metadata(dir.join("link"))?.is_file(), true);
    same!(refused(fs::read(dir.join("broken"))), Some(ErrorKind::NotFound));
    same!(fs::read(dir.join("loop")).is_err(), true);
    for name in ["link", "dirlink", "broken", "loop", "real/file"] {
        fs::remove_file(dir.join(name))?;
    }
    fs::remove_dir(dir.join("real"))
}

fn main() -> Result<()> {
    let arg = std::env::args().nth(1).unwrap_or_else(|| "/tmp".to_owned());
    let dir = Path::new(&arg).join("files-test");
    fs::create_dir(&dir)?;
    contents(&dir)?;
    directories(&dir)?;
    names_change(&dir)?;
    links(&dir)?;
    let mut left = Vec::new();
    File::open(Path::new("/dev/null"))?.read_to_end(&mut left)?;
    same!(left, b"");
    fs::remove_dir(&dir)?;
    println!("ok");
    Ok(())
}
