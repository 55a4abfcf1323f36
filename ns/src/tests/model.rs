//! Random texts and lookups, against a model so simple that it can be read: bindings as lists, trees as maps.

use std::collections::BTreeMap;

use fs_ninep::Kind;

use super::{World, space};

/// A tree: every path with its text; directories end in `/`. One server's.
type Files = BTreeMap<String, String>;

/// What is bound: a directory of a server.
#[derive(Clone, Debug, PartialEq)]
struct Bound {
    server: usize,
    dir: String,
    create: bool,
}

#[derive(Clone, Default)]
struct Model {
    servers: Vec<Files>,
    table: BTreeMap<String, Vec<Bound>>,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq)]
enum Stands {
    Nothing,
    File(usize, String),
    Dirs(Vec<Bound>),
}

impl Model {
    /// What `path` of one server is.
    fn on(&self, server: usize, path: &str) -> Stands {
        let dir = format!("{}/", path.trim_end_matches('/'));
        if path.is_empty() || self.servers[server].contains_key(&dir) {
            return Stands::Dirs(vec![Bound { server, dir: path.trim_end_matches('/').to_owned(), create: false }]);
        }
        if self.servers[server].contains_key(path) { Stands::File(server, path.to_owned()) } else { Stands::Nothing }
    }

    /// What `path` of the name space is, looking at what is bound over it or not.
    fn at(&self, path: &str, over: bool) -> Stands {
        if over && let Some(members) = self.table.get(path) {
            return Stands::Dirs(members.clone());
        }
        let Some((above, name)) = path.rsplit_once('/') else { return Stands::Nothing };
        match self.at(above, true) {
            Stands::Dirs(members) => {
                let found = members.iter().map(|m| self.on(m.server, &format!("{}/{name}", m.dir)));
                found.into_iter().find(|s| *s != Stands::Nothing).unwrap_or(Stands::Nothing)
            }
            _ => Stands::Nothing,
        }
    }

    fn names(&self, server: usize, dir: &str) -> Vec<String> {
        let under = |path: &String| {
            let rest = path.strip_prefix(dir)?.strip_prefix('/')?.trim_end_matches('/');
            (!rest.is_empty() && !rest.contains('/')).then(|| rest.to_owned())
        };
        let mut names: Vec<_> = self.servers[server].keys().filter_map(under).collect();
        names.sort();
        names
    }

    fn ls(&self, path: &str) -> Result<String, Kind> {
        if path.is_empty() {
            let bound = self.table.keys().filter_map(|k| k[1..].split('/').next().map(str::to_owned));
            let mut names: Vec<String> = bound.collect();
            names.dedup();
            return Ok([vec!["ns".into(), "error".into(), "event".into()], names].concat().join(" "));
        }
        match self.at(path, true) {
            Stands::Nothing => Err(Kind::NotFound),
            Stands::File(..) => Err(Kind::NotDir),
            Stands::Dirs(members) => {
                let mut names: Vec<String> = Vec::new();
                for name in members.iter().flat_map(|m| self.names(m.server, &m.dir)) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                Ok(names.join(" "))
            }
        }
    }

    fn cat(&self, path: &str) -> Result<String, Kind> {
        match self.at(path, true) {
            Stands::Nothing => Err(Kind::NotFound),
            Stands::Dirs(_) => Err(Kind::IsDir),
            Stands::File(server, path) => Ok(self.servers[server][&path].clone()),
        }
    }

    fn below(&self, path: &str) -> bool {
        self.table.keys().any(|k| k.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }

    fn bind(&mut self, flag: &str, new: Stands, old: &str) -> Result<(), Kind> {
        let Stands::Dirs(mut new) = new else { return Err(Kind::NotFound) };
        let create = flag.contains('c');
        if create && new.len() > 1 {
            return Err(Kind::Invalid);
        }
        new.iter_mut().for_each(|m| m.create = create);
        let had = self.table.get(old).cloned();
        let top = old.matches('/').count() == 1;
        let stood = match (&had, top) {
            (Some(had), _) => had.clone(),
            (None, true) => Vec::new(),
            (None, false) => match self.at(old, false) {
                Stands::Dirs(mut stood) => {
                    stood.truncate(1);
                    stood
                }
                Stands::Nothing => return Err(Kind::NotFound),
                Stands::File(..) => return Err(Kind::NotDir),
            },
        };
        for (i, _) in old.match_indices('/').skip(1) {
            if let Stands::Dirs(above) = self.at(&old[..i], true)
                && above.iter().any(|a| new.iter().any(|n| (a.server, &a.dir) == (n.server, &n.dir)))
            {
                return Err(Kind::Loop);
            }
        }
        let members = match flag {
            f if f.contains('a') => [stood, new].concat(),
            f if f.contains('b') => [new, stood].concat(),
            _ if self.below(old) => return Err(Kind::Busy),
            _ => new,
        };
        self.table.insert(old.to_owned(), members);
        Ok(())
    }

    fn unmount(&mut self, old: &str) -> Result<(), Kind> {
        match self.table.contains_key(old) {
            false => Err(Kind::NotFound),
            true if self.below(old) => Err(Kind::Busy),
            true => {
                self.table.remove(old);
                Ok(())
            }
        }
    }

    /// Creates `name` in `dir`, with O_EXCL.
    fn create(&mut self, dir: &str, name: &str) -> Result<(), Kind> {
        let members = match self.at(dir, true) {
            Stands::Nothing => return Err(Kind::NotFound),
            Stands::File(..) => return Err(Kind::NotDir),
            Stands::Dirs(members) => members,
        };
        if self.at(&format!("{dir}/{name}"), true) != Stands::Nothing {
            return Err(Kind::Exists);
        }
        let taker = match &members[..] {
            [only] => only,
            members => members.iter().find(|m| m.create).ok_or(Kind::ReadOnly)?,
        };
        self.servers[taker.server].insert(format!("{}/{name}", taker.dir), format!("new{name}"));
        Ok(())
    }

    fn remove(&mut self, dir: &str, name: &str) -> Result<(), Kind> {
        let path = format!("{dir}/{name}");
        if self.table.contains_key(&path) || self.below(&path) {
            return Err(Kind::Busy);
        }
        match self.at(dir, true) {
            Stands::Nothing => return Err(Kind::NotFound),
            Stands::File(..) => return Err(Kind::NotDir),
            Stands::Dirs(_) => {}
        }
        match self.at(&path, false) {
            Stands::File(server, path) => {
                self.servers[server].remove(&path);
                Ok(())
            }
            Stands::Dirs(_) => Err(Kind::IsDir),
            Stands::Nothing => Err(Kind::NotFound),
        }
    }
}

/// Numbers that depend on the seed alone.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        let top = self.of(&["/m", "/o", "/p"]).to_owned();
        (1..depth).fold(top, |path, _| path + "/" + self.of(&["d", "e", "x", "y"]))
    }
}

const TREES: [(&str, &str); 3] =
    [("a", "x=ax d/x=adx d/e/y=adey"), ("b", "y=by d/y=bdy e/x=bex e/d/x=bedx"), ("c", "e/e/x=ceex d/x=cdx z=cz")];

fn model() -> Model {
    let mut model = Model { servers: vec![Files::new(); TREES.len()], ..Model::default() };
    for (server, (_, files)) in TREES.iter().enumerate() {
        for file in files.split_whitespace() {
            let (path, text) = file.split_once('=').unwrap();
            for (i, _) in path.match_indices('/') {
                model.servers[server].insert(format!("/{}/", &path[..i]), String::new());
            }
            model.servers[server].insert(format!("/{path}"), text.to_owned());
        }
    }
    model
}

async fn play(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let w = World::new(&TREES);
    let mut model = model();
    let mut history = String::new();
    for _ in 0..40 {
        let (what, got, expected) = match dice.below(10) {
            0..4 => {
                let flag = dice.of(&["", "-a", "-b", "-c", "-ac", "-bc"]);
                let old = dice.path();
                let device = dice.below(2) == 0;
                let (word, new) = if device {
                    let (server, dir) = (dice.below(3), dice.of(&["", "/d", "/e", "/d/e"]));
                    let Stands::Dirs(_) = model.on(server, dir) else { continue };
                    (format!("#{}{dir}", TREES[server].0), model.on(server, dir))
                } else {
                    let new = dice.path();
                    let stands = model.at(&new, true);
                    if let Stands::File(..) = stands {
                        continue;
                    }
                    (new, stands)
                };
                let line = format!("bind {flag} {word} {old}");
                let expected = model.bind(flag, new, &old);
                (line.clone(), w.ns.apply(&line).await, expected)
            }
            4 => {
                let line = format!("unmount {}", dice.path());
                let expected = model.unmount(&line["unmount ".len()..]);
                (line.clone(), w.ns.apply(&line).await, expected)
            }
            5..8 => {
                let (dir, name) = (dice.path(), dice.of(&["x", "y", "z", "new"]));
                let excl = fs_ninep::OpenFlags::EXCL;
                let expected = model.create(&dir, name);
                (
                    format!("create {dir}/{name}"),
                    w.put(&format!("{dir}/{name}"), excl, &format!("new{name}")).await,
                    expected,
                )
            }
            _ => {
                let (dir, name) = (dice.path(), dice.of(&["x", "y", "z", "new"]));
                if let Stands::Dirs(_) = model.at(&format!("{dir}/{name}"), true) {
                    continue;
                }
                (format!("rm {dir}/{name}"), w.rm(&format!("{dir}/{name}")).await, model.remove(&dir, name))
            }
        };
        history += &format!("{what}\n");
        // A file on the way, or nothing: the model does not tell them apart.
        let plain = |kind| if kind == Kind::NotDir { Kind::NotFound } else { kind };
        let (got, expected) = (got.map_err(|e| plain(e.kind())), expected.map_err(plain));
        assert_eq!(got, expected, "seed {seed}:\n{history}");
        compare(&w, &model, &format!("seed {seed}:\n{history}")).await;
    }
    // The text makes an equal name space.
    let text = w.ns.text();
    let ns = space(&w.mems);
    ns.apply(&text).await.unwrap_or_else(|e| panic!("seed {seed}:\n{history}\ntext:\n{text}{e}"));
    assert_eq!(ns.text(), text, "seed {seed}:\n{history}");
    compare(&World { ns, mems: w.mems }, &model, &format!("seed {seed}, from text:\n{text}")).await;
}

async fn compare(w: &World, model: &Model, context: &str) {
    assert_eq!(w.ls("/").await.map_err(|e| e.kind()), model.ls(""), "ls /, {context}");
    for top in ["/m", "/o", "/p"] {
        for mid in ["", "/d", "/e", "/x", "/y", "/z", "/new"] {
            for low in ["", "/d", "/e", "/x", "/y"] {
                let path = format!("{top}{mid}{low}");
                match model.at(&path, true) {
                    Stands::Dirs(_) => {
                        assert_eq!(w.ls(&path).await.map_err(|e| e.kind()), model.ls(&path), "ls {path}, {context}");
                    }
                    Stands::File(..) => {
                        assert_eq!(w.cat(&path).await.map_err(|e| e.kind()), model.cat(&path), "cat {path}, {context}");
                    }
                    Stands::Nothing => {
                        let got = w.file(&path).await.map(drop).map_err(|e| e.kind());
                        assert!(matches!(got, Err(Kind::NotFound | Kind::NotDir)), "{path}: {got:?}, {context}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn the_name_space_does_what_the_model_does() {
    for seed in 0..80 {
        play(seed).await;
    }
}
