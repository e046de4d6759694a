//! The table of the scenarios.

mod bridge;
mod caches;
mod control;
mod dockerfile;
mod exporters;
mod history;
mod ops;
mod programs;
mod sbom;
mod sources;

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::target::Target;

/// The part of Debian's Docker engine in a scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Docker {
    /// The engine answers as kiln does.
    Same,
    /// The engine does it, and answers otherwise for this reason.
    Other(#[expect(dead_code, reason = "it documents the table")] &'static str),
    /// The engine can't do it for this reason.
    Cannot(#[expect(dead_code, reason = "it documents the table")] &'static str),
}

/// A scenario.
pub(crate) struct Case {
    /// The name of the test.
    pub(crate) name: &'static str,
    /// The part of the Docker engine.
    pub(crate) docker: Docker,
    /// Runs the scenario and returns the normalised answer.
    pub(crate) run: for<'a> fn(&'a Target) -> BoxFuture<'a, Value>,
}

/// Returns a row of the table. A scenario that is `alone` runs while no other does.
macro_rules! case {
    ($function:ident, $docker:expr) => {
        crate::scenarios::case!(shared $function, $docker)
    };
    ($guard:ident $function:ident, $docker:expr) => {
        crate::scenarios::Case {
            name: stringify!($function),
            docker: $docker,
            run: |target| {
                Box::pin(async move {
                    let _guard = target.$guard().await;
                    serde_json::to_value($function(target).await).unwrap()
                })
            },
        }
    };
}
pub(crate) use bridge::own_frontend;
pub(crate) use case;

/// The entries of a file system.
type Tree = BTreeMap<String, String>;

/// Returns all scenarios.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = control::cases();
    cases.extend(sources::cases());
    cases.extend(ops::cases());
    cases.extend(programs::cases());
    cases.extend(exporters::cases());
    cases.extend(caches::cases());
    cases.extend(dockerfile::cases());
    cases.extend(bridge::cases());
    cases.extend(history::cases());
    cases.extend(sbom::cases());
    assert!(cases.len() >= 80, "{} scenarios", cases.len());
    cases
}
