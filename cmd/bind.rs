//! `ipos bind NEW OLD`.

use std::process::ExitCode;

use fs_tree::quote;

use crate::Error;
use crate::home::Home;
use crate::ipos::block_on;
use crate::session::Session;

/// Make a file or directory of the name space appear at another place in it
///
/// Writes a bind line to the file ns, as: echo bind -a /n/ann/cpu /cpu > /n/ipos/ns
#[derive(Debug, clap::Args)]
pub(crate) struct Bind {
    #[command(flatten)]
    order: Order,
    /// Allow a bind that makes a cycle
    #[arg(short = 'f', long)]
    force: bool,
    /// What is to appear, from the root of the name space
    new: String,
    /// Where it is to appear, from the root of the name space
    old: String,
}

/// How what appears stands to what was there.
#[derive(Debug, clap::Args)]
pub(crate) struct Order {
    /// Behind what is there: a union
    #[arg(short = 'a', long, conflicts_with = "before")]
    after: bool,
    /// Before what is there: a union
    #[arg(short = 'b', long)]
    before: bool,
    /// New files of the union may be created in it
    #[arg(short = 'c', long)]
    create: bool,
}

impl Order {
    /// The flag word of a line in `ns`, with its blank; empty for none.
    pub(crate) fn word(&self, force: bool) -> String {
        let letters = [(self.after, 'a'), (self.before, 'b'), (self.create, 'c'), (force, 'f')];
        let letters: String = letters.iter().filter(|(set, _)| *set).map(|(_, l)| l).collect();
        if letters.is_empty() { letters } else { format!("-{letters} ") }
    }
}

impl Bind {
    pub(crate) fn run(&self, home: &Home) -> Result<ExitCode, Error> {
        let line = format!("bind {}{} {}", self.order.word(self.force), quote(&self.new), quote(&self.old));
        block_on(async { Session::open(home).await?.write("/ns", &line).await })?;
        Ok(ExitCode::SUCCESS)
    }
}
