//! What a build has come to, in a line or two.

use std::time::Duration;

use super::steps::seconds;
use crate::build::Done;
use crate::printer::{Printer, human_size};

/// Says how many steps there were, how many were known, how long it took, and what was made.
pub(crate) fn summary(printer: &Printer, done: &Done, elapsed: Duration) {
    let steps = if done.steps == 1 { "step" } else { "steps" };
    let cached = match done.cached {
        0 => String::new(),
        all if all == done.steps => ", all cached".to_owned(),
        some => format!(", {some} cached"),
    };
    let image = done.exported.image_id.map_or_else(String::new, |id| format!(" {id}"));
    let size =
        done.exported.size.map_or_else(String::new, |size| format!(", {}", human_size(size)));
    printer.note(format_args!(
        "\nbuilt{image} in {}: {} {steps}{cached}{size}",
        seconds(elapsed),
        done.steps
    ));
    for name in &done.exported.names {
        printer.note(format_args!("named {name}"));
    }
    for told in &done.exported.told {
        printer.note(told);
    }
}
