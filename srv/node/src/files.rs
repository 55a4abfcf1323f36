//! self: read and write of each file, in the order of the tree.

use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{Call, Kind, Result};
use fs_tree::{At, Line, Log, Records, Row, Service, quote};

use crate::verbs::{self, Verb};
use crate::{Node, Q, TREE, state};

/// The node as the kit serves it.
pub struct Own(pub Arc<Node>);

impl Service for Own {
    type Q = Q;
    const TREE: &'static [Row<Q>] = TREE;

    fn read<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Bytes> {
        let config = &self.0.config;
        let text = match at.q {
            Q::Id => Ok(format!("{}\n", config.id)),
            Q::Addrs => Ok(lines((config.addrs)())),
            Q::Name => Ok(format!("{}\n", config.name)),
            Q::Roles => Ok(lines(config.roles.iter())),
            Q::Status => Ok(self.status()),
            Q::Limits => Ok(lines(config.limits.iter().map(|(name, value)| format!("{name} {value}")))),
            Q::Metrics => Ok(self.metrics()),
            _ => Err(Kind::NotSupported.into()),
        };
        Box::pin(std::future::ready(text.map(Bytes::from)))
    }

    fn write<'a>(&'a self, _at: &'a At<Q>, lines: &'a [Line]) -> Call<'a, ()> {
        let verbs: Result<Vec<Verb>, _> = lines.iter().map(|line| verbs::parse(&line.words)).collect();
        let done = verbs.map(|verbs| verbs.into_iter().for_each(|verb| self.obey(verb)));
        Box::pin(std::future::ready(done.map_err(Into::into)))
    }

    fn log(&self, _at: &At<Q>) -> Result<Arc<dyn Log>> {
        Ok(self.0.config.log.kept())
    }

    fn stream(&self, _at: &At<Q>) -> Result<Box<dyn Records>> {
        Ok(self.0.events.subscribe())
    }
}

impl Own {
    fn obey(&self, verb: Verb) {
        match verb {
            Verb::Log(level) => {
                self.0.config.log.set_level(level);
                self.0.event(&format!("log {level}"));
            }
            Verb::Stop => self.0.stopping(),
        }
    }

    fn status(&self) -> String {
        let config = &self.0.config;
        lines([
            format!("state {}", *self.0.state.borrow()),
            format!("uptime_s {}", self.0.started.elapsed().as_secs()),
            format!("pid {}", std::process::id()),
            format!("version {}", config.version),
            format!("home {}", quote(&config.home.to_string_lossy())),
            format!("log {}", config.log.level()),
        ])
    }

    fn metrics(&self) -> String {
        let own = state::process().into_iter().map(|(name, value)| format!("{name} {value}"));
        lines(own.chain((self.0.config.counters)().into_iter().map(|(name, value)| format!("{name} {value}"))))
    }
}

fn lines<T: std::fmt::Display>(lines: impl IntoIterator<Item = T>) -> String {
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}
