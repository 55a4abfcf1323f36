//! `ipos import NODE[:TREE] [DIR]`.

use std::process::ExitCode;

use fs_tree::quote;

use crate::Error;
use crate::bind::Order;
use crate::home::Home;
use crate::ipos::block_on;
use crate::session::Session;

/// Make a tree of another node appear in the name space
///
/// Writes a bind line to the file ns, as: echo bind /n/ann/cpu /cpu > /n/ipos/ns
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    #[command(flatten)]
    order: Order,
    /// The node, by name or peer id, and the tree of it that is wanted [without :TREE, all it shows]
    #[arg(value_name = "NODE[:TREE]", value_parser = of_a_node)]
    from: String,
    /// Where it is to appear, from the root of the name space [default: /TREE, or /NODE]
    dir: Option<String>,
}

impl Import {
    pub(crate) fn run(&self, home: &Home) -> Result<ExitCode, Error> {
        let (node, tree) = self.from.split_once(':').unwrap_or((&self.from, ""));
        let tree = tree.trim_matches('/');
        let name = if tree.is_empty() { node } else { tree };
        let dir = self.dir.clone().unwrap_or_else(|| format!("/{name}"));
        let from = format!("/n/{node}/{tree}");
        let line = format!("bind {}{} {}", self.order.word(false), quote(from.trim_end_matches('/')), quote(&dir));
        block_on(async { Session::open(home).await?.write("/ns", &line).await })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn of_a_node(from: &str) -> Result<String, String> {
    match from.split(':').next() {
        None | Some("") => Err("it begins with no node; write NODE:TREE, as ann:cpu".into()),
        Some(_) => Ok(from.into()),
    }
}
