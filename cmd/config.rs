//! `config.toml`: every key optional, unknown keys refused by name. See ipos(1), CONFIGURATION.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;

/// What the user set, with what the flags override.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The node's own name; else the end of its peer id.
    pub(crate) name: Option<String>,
    /// Multiaddrs to listen on.
    pub(crate) listen: Vec<String>,
    /// Multiaddrs, with ids, of nodes to know from the start.
    pub(crate) bootstrap: Vec<String>,
    /// Whether to look for nodes on the local network.
    pub(crate) mdns: bool,
    /// Where `ipos mount` mounts.
    pub(crate) mount: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: None,
            listen: vec!["/ip4/0.0.0.0/tcp/0".into(), "/ip4/0.0.0.0/udp/0/quic-v1".into()],
            bootstrap: Vec::new(),
            mdns: true,
            mount: None,
        }
    }
}

/// The longest node name, in bytes.
const NAME_MAX: usize = 63;

impl Config {
    /// Reads `file`; a missing one sets nothing.
    /// # Errors
    /// `Config`, naming the file, the line and the key. A damaged file is left as it is.
    pub(crate) fn read(file: &Path) -> Result<Config, Error> {
        let text = match std::fs::read_to_string(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            read => read.map_err(Error::system(file, "cannot be read"))?,
        };
        let fault = |line, text: String| Error::Config { file: file.to_owned(), line, text };
        let config: Config = toml::from_str(&text).map_err(|e| {
            let line = e.span().map(|s| text[..s.start].matches('\n').count() + 1);
            fault(line, e.message().trim().replace('\n', " "))
        })?;
        config.check().map_err(|text| fault(None, text))
    }

    /// The same with `--name` and `--listen` in place of what the file sets.
    pub(crate) fn with(mut self, name: Option<&str>, listen: &[String]) -> Result<Config, Error> {
        self.name = name.map(str::to_owned).or(self.name);
        if !listen.is_empty() {
            self.listen = listen.to_vec();
        }
        self.check().map_err(|why| Error::Part { part: "--name", why })
    }

    /// A name stands in paths and in one word of a line.
    fn check(self) -> Result<Config, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match &self.name {
            Some(n) if n.is_empty() || n.len() > NAME_MAX || !n.chars().all(plain) || n.starts_with('.') => Err(
                format!("name {n:?} is not 1 to {NAME_MAX} letters, digits, '-', '_' or '.', the first of them no '.'"),
            ),
            Some(n) if n == "any" => Err("name \"any\" is taken: it stands for any machine of the pool".into()),
            _ => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let file = std::env::temp_dir().join(format!("ipos-config-{}.toml", std::process::id()));
        for (text, outcome) in [
            ("", "None 2 true"),
            ("name = \"ann\"\nlisten = []\nmdns = false", "Some(\"ann\") 0 false"),
            ("nane = \"ann\"", ":1: unknown field `nane`, expected one of"),
            ("mdns = true\nlisten = 7", ":2: invalid type: integer `7`, expected a sequence"),
            ("\n\nname = ", ":3: "),
            ("name = \"a/b\"", ": name \"a/b\" is not 1 to 63"),
            ("name = \"any\"", ": name \"any\" is taken"),
        ] {
            std::fs::write(&file, text).unwrap();
            let got = match Config::read(&file) {
                Ok(c) => format!("{:?} {} {}", c.name, c.listen.len(), c.mdns),
                Err(e) => e.to_string().replace(file.to_str().unwrap(), ""),
            };
            assert!(got.starts_with(outcome), "{text:?}: {got}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(Config::read(&file).unwrap(), Config::default());
        assert!(Config::default().with(Some("x y"), &[]).is_err());
        assert_eq!(Config::default().with(None, &["/a".into()]).unwrap().listen, ["/a"]);
    }
}
