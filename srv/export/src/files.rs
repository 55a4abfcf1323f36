//! export: read and write of each of the owner's files, in the order of the tree.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use fs_ninep::{Call, Kind, Result};
use fs_tree::{At, Line, Row, Service, quote};

use crate::error::Error;
use crate::state::{ExportId, State, What};
use crate::verbs::{self, ExportVerb};
use crate::{Exports, Q, TREE};

/// The owner's side, as the kit serves it.
pub struct Office(pub Arc<Exports>);

impl Service for Office {
    type Q = Q;
    const TREE: &'static [Row<Q>] = TREE;

    fn list<'a>(&'a self, _at: &'a At<Q>) -> Call<'a, Vec<String>> {
        Box::pin(async move { Ok(self.0.state().exports.keys().map(ExportId::to_string).collect()) })
    }

    fn find<'a>(&'a self, at: &'a At<Q>) -> Call<'a, ()> {
        Box::pin(async move { Ok(self.0.state().find(at.key()).map(drop)?) })
    }

    fn read<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Bytes> {
        Box::pin(async move {
            let state = self.0.state();
            if at.q == Q::Grants {
                return Ok(grants(&state).into());
            }
            let id = state.find(at.key())?;
            Ok(match at.q {
                Q::ExportCtl => format!("{id}\n"),
                Q::Cap => format!("ipos:{}/{id}#{}\n", self.0.id, state.exports[&id].secret),
                Q::ExportGrants => state.holders(id).map(|(who, access)| format!("{who}\t{access}\n")).collect(),
                Q::Status => self.status(&state, id),
                _ => return Err(Kind::NotSupported.into()),
            }
            .into())
        })
    }

    fn write<'a>(&'a self, at: &'a At<Q>, lines: &'a [Line]) -> Call<'a, ()> {
        Box::pin(async move {
            if at.q == Q::Ctl {
                let verbs = lines.iter().map(|l| verbs::parse(&l.words)).collect::<Result<Vec<_>, _>>()?;
                return self.0.commit(move |state, c| verbs.iter().try_for_each(|v| state.obey(v, c))).await;
            }
            let verbs = lines.iter().map(|l| verbs::parse_export(&l.words)).collect::<Result<Vec<_>, _>>()?;
            let key = at.key().to_owned();
            let binds = verbs.iter().any(|v| matches!(v, ExportVerb::Bind { .. }));
            let id = self.0.commit(move |state, c| {
                let id = state.find(&key)?;
                verbs.iter().try_for_each(|v| state.obey_export(id, v, c)).map(|()| id)
            });
            let id = id.await?;
            if binds {
                // Now, and not at a peer's first look: what is wrong with the directory is told to who can help.
                self.0.host(id).await?;
            }
            Ok(())
        })
    }

    fn make<'a>(&'a self, _at: &'a At<Q>) -> Call<'a, String> {
        Box::pin(async move {
            // Nothing of it is kept on disk yet: no thread that may wait is needed.
            let _turn = self.0.writers.lock().await;
            Ok(self.0.obey(self.0.now_ms(), |state, c| state.make(c))?.to_string())
        })
    }

    fn idle(&self, at: &At<Q>) {
        let free = |state: &mut State| {
            if let Ok(id) = state.find(at.key())
                && state.unused(id)
            {
                state.free(id);
            }
        };
        // A writer at work is at another export, or at this one, which is then in use.
        if let Ok(_turn) = self.0.writers.try_lock() {
            free(&mut self.0.state());
            self.0.settle();
        }
    }

    fn remove<'a>(&'a self, at: &'a At<Q>) -> Call<'a, ()> {
        let key = at.key().to_owned();
        Box::pin(self.0.commit(move |state, _| {
            let id = state.find(&key)?;
            state.free(id);
            Ok::<(), Error>(())
        }))
    }
}

impl Office {
    fn status(&self, state: &State, id: ExportId) -> String {
        let export = &state.exports[&id];
        let ends_s = export.ends_ms().saturating_sub(self.0.now_ms()).div_ceil(1000);
        let left = export.uses_left();
        let word = match (&export.shown, ends_s, left) {
            (None, ..) => "new",
            (_, 0, _) => "expired",
            (.., Some(0)) => "used",
            _ => "good",
        };
        let or = |n: Option<u64>, none: &str| n.map_or_else(|| none.to_owned(), |n| n.to_string());
        let mut text = format!("capability {word}\n");
        if let Some(shown) = &export.shown {
            // Writing to a string does not fail.
            let _ = writeln!(text, "path {}", quote(&shown.path.to_string_lossy()));
            let _ = writeln!(text, "name {}", quote(&format!("/{}", shown.name)));
        }
        let to = export.to.as_ref().map_or("any", |id| id.as_str());
        let (access, uses, max) = (export.access, or(left, "unlimited"), or(export.max, "unlimited"));
        let (grants, in_use) = (state.holders(id).count(), self.0.in_use(id));
        let _ = writeln!(text, "access {access}\nto {to}\nuses_left {uses}\nttl_s {ends_s}\nmax_bytes {max}");
        let _ = writeln!(text, "grants {grants}\nin_use {in_use}");
        text
    }
}

/// One line a grant: who, the path as they see it, access, bytes, the export's number.
fn grants(state: &State) -> String {
    let line = |(what, who, access): (&What, _, _)| {
        let name = quote(&format!("/{}", state.name_of(what).unwrap_or_default()));
        let (max, number) = match what {
            What::Tree(_) => (None, "-".to_owned()),
            What::Export(id) => (state.exports.get(id).and_then(|e| e.max), id.to_string()),
        };
        let max = max.map_or("-".to_owned(), |n| n.to_string());
        format!("{who}\t{name}\t{access}\t{max}\t{number}\n")
    };
    state.grants.iter().map(|((what, who), access)| line((what, who, access))).collect()
}
