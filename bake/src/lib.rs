//! Bake files to build requests.

mod body;
mod checks;
mod compose;
mod convert;
mod definition;
mod diagnostic;
mod entries;
mod error;
mod evaluate;
mod expression;
mod fields;
mod functions;
mod interpret;
mod json;
mod json_text;
mod limits;
mod native;
mod number;
mod overrides;
mod path;
mod quote;
mod remote;
mod source;
mod suggest;
mod surroundings;
mod target;
mod types;
mod typespec;
mod unify;
mod value;

pub use definition::{Definition, File, ListedTarget, ListedVariable, Plan, ReadOptions};
pub use entries::{Attestation, CacheEntry, Output, Policy, Resources, Secret, Ssh};
pub use error::{Error, Excerpt};
pub use surroundings::Surroundings;
pub use target::{Group, OptionalTexts, Target};
