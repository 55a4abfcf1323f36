//! The name space against file servers in memory: fuse-ns's twelve rules, texts, faults, a model.

mod files;
mod mem;
mod model;
mod rules;
mod texts;

use std::sync::Arc;

use fs_ninep::{Attr, Call, File, Kind, Name, OpenFlags, Result};

use crate::{Namespace, Resolve};
use mem::Mem;

/// Servers by name: devices of a name space, and sources of its mounts.
pub struct World {
    pub ns: Arc<Namespace>,
    pub mems: Vec<(String, Arc<Mem>)>,
}

struct Sources(Vec<(String, Arc<Mem>)>);

impl Resolve for Sources {
    fn mount<'a>(&'a self, source: &'a str, spec: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async move {
            let name = source.split_once('#').map_or(source, |(name, _)| name);
            let name = name
                .strip_prefix("srv/")
                .ok_or_else(|| fs_ninep::Error::new(Kind::Invalid, format!("{source}: what?")))?;
            let (_, mem) = self.0.iter().find(|(n, _)| n == name).ok_or(Kind::NotFound)?;
            if spec.is_empty() { Ok(mem.root()) } else { mem.root().walk(&Name::path(spec)?).await.end }
        })
    }
}

impl World {
    /// One server a row: its name, its files.
    pub fn new(rows: &[(&str, &str)]) -> World {
        let mems: Vec<_> = rows.iter().map(|(name, files)| ((*name).to_owned(), Mem::new(files))).collect();
        let ns = space(&mems);
        World { ns, mems }
    }

    pub fn mem(&self, name: &str) -> &Arc<Mem> {
        &self.mems.iter().find(|(n, _)| n == name).unwrap().1
    }

    pub async fn apply(&self, text: &str) {
        self.ns.apply(text).await.unwrap_or_else(|e| panic!("{text}: {e}"));
    }

    pub async fn file(&self, path: &str) -> Result<Arc<dyn File>> {
        self.ns.root().walk(&Name::path(path).unwrap()).await.end
    }

    pub async fn ls(&self, path: &str) -> Result<String> {
        ls(&self.file(path).await?).await
    }

    pub async fn cat(&self, path: &str) -> Result<String> {
        cat(&self.file(path).await?).await
    }

    /// `open(path, flags | O_CREAT)` and a write of `text`.
    pub async fn put(&self, path: &str, flags: u32, text: &str) -> Result<()> {
        let (dir, name) = path.rsplit_once('/').unwrap();
        let dir = self.file(dir).await?;
        let made = dir.create(&name_of(name), OpenFlags(1 | OpenFlags::CREAT | flags), 0o644).await?;
        made.open.write(0, text.to_owned().into()).await.map(drop)
    }

    pub async fn mkdir(&self, path: &str) -> Result<()> {
        let (dir, name) = path.rsplit_once('/').unwrap();
        self.file(dir).await?.mkdir(&name_of(name), 0o755).await.map(drop)
    }

    pub async fn rm(&self, path: &str) -> Result<()> {
        let (dir, name) = path.rsplit_once('/').unwrap();
        self.file(dir).await?.unlink(&name_of(name), false).await
    }

    pub async fn mv(&self, from: &str, to: &str) -> Result<()> {
        let ((dir, old), (to, new)) = (from.rsplit_once('/').unwrap(), to.rsplit_once('/').unwrap());
        self.file(dir).await?.rename(&name_of(old), &self.file(to).await?, &name_of(new)).await
    }

    pub async fn stat(&self, path: &str) -> Result<Attr> {
        self.file(path).await?.getattr().await
    }
}

pub fn space(mems: &[(String, Arc<Mem>)]) -> Arc<Namespace> {
    let devices = mems.iter().map(|(name, mem)| (name.clone(), mem.root())).collect();
    let vars = vec![("user".to_owned(), "ann".to_owned())];
    Namespace::with(devices, Arc::new(Sources(mems.to_vec())), vars)
}

pub fn name_of(name: &str) -> Name {
    Name::new(name.to_owned()).unwrap()
}

pub async fn ls(file: &Arc<dyn File>) -> Result<String> {
    let dir = file.open(OpenFlags(OpenFlags::DIRECTORY)).await?;
    let mut names: Vec<String> = Vec::new();
    let mut cookie = 0;
    loop {
        // Few at a time, so that cookies matter.
        let entries = dir.readdir(cookie, 2).await?;
        let Some(last) = entries.last() else { return Ok(names.join(" ")) };
        cookie = last.cookie;
        names.extend(entries.iter().map(|e| e.name.to_string()));
    }
}

pub async fn cat(file: &Arc<dyn File>) -> Result<String> {
    let open = file.open(OpenFlags::RDONLY).await?;
    let mut text = Vec::new();
    loop {
        let part = open.read(text.len() as u64, 64).await?;
        if part.is_empty() {
            return Ok(String::from_utf8(text).unwrap());
        }
        text.extend_from_slice(&part);
    }
}

pub fn kind<T>(result: Result<T>) -> Kind {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(e) => e.kind(),
    }
}
