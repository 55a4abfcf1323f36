//! self: the words of `ctl`.

use crate::{Error, Level};

/// A line of `ctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `log LEVEL`: what is worth a line from now on.
    Log(Level),
    /// `stop`: end the node.
    Stop,
}

/// The verb of a line's words.
pub fn parse(words: &[String]) -> Result<Verb, Error> {
    match words {
        [verb, level] if verb == "log" => Level::parse(level).map(Verb::Log),
        [verb] if verb == "stop" => Ok(Verb::Stop),
        _ => Err(Error::Usage { got: words.join(" ").chars().take(80).collect() }),
    }
}
