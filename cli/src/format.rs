//! Answers in the forms that `--format` asks for, as docker's formatter writes them.
//!
//! There are two kinds of answers:
//!
//! - a [`Listing`] has rows of fields that are texts. `table` lays them out below a heading, `json`
//!   writes an object for each row, and any other template is executed for each row, with a line
//!   feed after each. `table TEMPLATE` is a table of what the template says; its heading is the same
//!   template, executed on the names of the columns.
//! - [`inspect`] writes documents: indented JSON, JSON on one line, or a template executed on each.
//!
//! Templates are Go's (`text/template`), with docker's functions beside Go's own. A field that isn't
//! there is an error that names those that are.

mod document;
mod functions;
mod json;
mod listing;
mod tabwriter;
mod template;

pub(crate) use document::{Document, inspect};
pub(crate) use json::Json;
pub(crate) use listing::{Field, Listing};
pub(crate) use tabwriter::Columns;
