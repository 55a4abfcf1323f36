//! n/: a directory for each named peer, where its own tree stands. A peer id that can be dialled is there too, unlisted.

use std::sync::Arc;

use fs_ninep::{Call, File, Kind};
use fs_tree::{At, Row, Service};

use crate::Inner;
use crate::tree::{N, NAMES};

/// n/.
pub(crate) struct Names(pub(crate) Arc<Inner>);

impl Service for Names {
    type Q = N;
    const TREE: &'static [Row<N>] = NAMES;

    fn list<'a>(&'a self, _: &'a At<N>) -> Call<'a, Vec<String>> {
        Box::pin(std::future::ready(Ok(self.0.names())))
    }

    fn find<'a>(&'a self, at: &'a At<N>) -> Call<'a, ()> {
        let found = self.0.is_known(at.key());
        Box::pin(std::future::ready(if found { Ok(()) } else { Err(Kind::NotFound.into()) }))
    }

    fn graft<'a>(&'a self, at: &'a At<N>) -> Call<'a, Arc<dyn File>> {
        let file = self.0.resolve(at.key()).map(|peer| self.0.root(&peer).file());
        Box::pin(std::future::ready(file.map_err(Into::into)))
    }
}
