//! peers/: the read of each file, and which peers there are.

use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{Call, Kind, PeerId};
use fs_tree::{At, Line, Records, Row, Service};

use crate::tree::{Q, TREE};
use crate::{Inner, table, verbs};

/// peers/.
pub(crate) struct Tree(pub(crate) Arc<Inner>);

impl Tree {
    fn peer(&self, at: &At<Q>) -> fs_ninep::Result<PeerId> {
        Ok(self.0.resolve(at.key())?)
    }

    fn text(&self, at: &At<Q>) -> fs_ninep::Result<String> {
        let inner = &self.0;
        Ok(match at.q {
            Q::Ctl => {
                let rules = inner.table().filters.clone();
                rules.iter().map(|f| format!("filter {} {}\n", table::word(f.allow), f.pattern)).collect()
            }
            Q::Near => inner.near(),
            Q::Id => format!("{}\n", self.peer(at)?),
            Q::Addrs => inner.transport.known(&self.peer(at)?).iter().map(|a| format!("{a}\n")).collect(),
            Q::Status => inner.status(&self.peer(at)?),
            Q::Latency => match inner.transport.link(&self.peer(at)?).and_then(|l| l.latency) {
                Some(rtt) => format!("{:.3}\n", rtt.as_secs_f64() * 1e3),
                None => "-\n".into(),
            },
            _ => return Err(Kind::NotSupported.into()),
        })
    }
}

impl Service for Tree {
    type Q = Q;
    const TREE: &'static [Row<Q>] = TREE;

    fn list<'a>(&'a self, _: &'a At<Q>) -> Call<'a, Vec<String>> {
        let mut names = self.0.names();
        names.extend(self.0.strangers().iter().map(ToString::to_string));
        Box::pin(std::future::ready(Ok(names)))
    }

    fn find<'a>(&'a self, at: &'a At<Q>) -> Call<'a, ()> {
        let found = self.0.is_known(at.key());
        Box::pin(std::future::ready(if found { Ok(()) } else { Err(Kind::NotFound.into()) }))
    }

    fn read<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Bytes> {
        Box::pin(std::future::ready(self.text(at).map(Bytes::from)))
    }

    fn write<'a>(&'a self, at: &'a At<Q>, lines: &'a [Line]) -> Call<'a, ()> {
        Box::pin(async move {
            let read = |line| match at.q {
                Q::PeerCtl => verbs::read_of(at.key(), line),
                _ => verbs::read(line),
            };
            let verbs: Vec<_> = lines.iter().map(read).collect::<Result<_, _>>()?;
            self.0.obey(&verbs).await
        })
    }

    fn stream(&self, at: &At<Q>) -> fs_ninep::Result<Box<dyn Records>> {
        match at.q {
            Q::PeerEvent => Ok(self.0.peer(&self.peer(at)?).events.subscribe()),
            _ => Ok(self.0.events.subscribe()),
        }
    }
}
