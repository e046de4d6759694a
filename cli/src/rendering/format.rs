//! Output in the formats of `--format`, as docker's formatter writes it.
//!
//! There are two kinds of output:
//!
//! - a [`Listing`] has rows of text fields. `table` prints them in columns below a heading. `json`
//!   prints an object per row. Any other template is executed for each row, with a line feed after
//!   each. `table TEMPLATE` is a table with the template's columns; its heading is the same
//!   template, executed on the headings of the fields.
//! - [`inspect`] writes documents: as indented JSON, as JSON on one line, or by executing a
//!   template on each.
//!
//! Templates are Go's (`text/template`), with docker's functions in addition to Go's own. A
//! template that names an unknown field fails with an error that lists the known ones.

mod document;
mod functions;
mod listing;
mod tabwriter;
mod template;

pub(crate) use document::{Document, inspect};
pub(crate) use listing::{Field, Listing};
pub(crate) use tabwriter::Columns;
