//! keys: read and write of each file.

use bytes::Bytes;
use fs_ninep::{Call, Kind, Result};
use fs_tree::{At, Line, Row, Service, words};

use crate::keyfile::hex;
use crate::verbs::{self, Request};
use crate::{Keys, Q, TREE};

/// The agent as the kit serves it: it must outlive its callers while a thread that may wait works for them.
pub struct Agent(pub std::sync::Arc<Keys>);

impl Service for Agent {
    type Q = Q;
    const TREE: &'static [Row<Q>] = TREE;

    fn read<'a>(&'a self, at: &'a At<Q>) -> Call<'a, Bytes> {
        Box::pin(async move {
            match at.q {
                Q::List => Ok(self.0.ring.list().into()),
                _ => Err(Kind::NotSupported.into()),
            }
        })
    }

    fn write<'a>(&'a self, _at: &'a At<Q>, lines: &'a [Line]) -> Call<'a, ()> {
        Box::pin(async move {
            let verbs = lines.iter().map(|line| verbs::parse(&line.words)).collect::<Result<Vec<_>, _>>()?;
            let keys = self.0.clone();
            let done = tokio::task::spawn_blocking(move || keys.ring.obey(&verbs)).await;
            done.map_err(|_| Kind::Io)?.map_err(Into::into)
        })
    }

    fn ask<'a>(&'a self, at: &'a At<Q>, request: Bytes) -> Call<'a, Bytes> {
        Box::pin(async move {
            let text = std::str::from_utf8(&request).map_err(|_| Kind::Invalid)?;
            let words = words(text.trim_end_matches('\n'))?;
            let request = if at.q == Q::Sign { verbs::sign(&words)? } else { verbs::verify(&words)? };
            Ok(self.answer(request)?.into())
        })
    }
}

impl Agent {
    fn answer(&self, request: Request) -> Result<String> {
        match request {
            Request::Sign { name, message } => Ok(hex(&self.0.ring.sign(&name, &message)?) + "\n"),
            Request::Verify { who, message, signature } => {
                let good = self.0.ring.verify(&who, &message, &signature)?;
                Ok(if good { "good\n" } else { "bad\n" }.to_owned())
            }
        }
    }
}
