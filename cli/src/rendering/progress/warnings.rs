//! Warnings: of steps, and the findings of the build checks at the end of a build.

use kiln::build::Dockerfile;
use kiln_event::Cause;
use kiln_frontend::lint::Warning;
use kiln_frontend::render_warning;

use super::text::{clean, clean_text};
use crate::rendering::hints;
use crate::rendering::printer::Printer;

/// Prints warnings with their lines of the Dockerfile, below their number.
pub(crate) fn warnings(printer: &Printer, warnings: &[Warning], dockerfile: &Dockerfile) {
    if warnings.is_empty() {
        return;
    }
    let noun = if warnings.len() == 1 { "warning" } else { "warnings" };
    printer.note(format_args!("\n{} {noun} found:", warnings.len()));
    let source = String::from_utf8_lossy(&dockerfile.text);
    for warning in warnings {
        let text = render_warning(warning, &dockerfile.name, &source);
        printer.note(format_args!("\n{}", clean_text(&text)));
    }
}

/// Returns the warning of a step with the hint of its cause.
pub(super) fn with_hint(message: &str, cause: Option<&Cause>) -> String {
    match cause.and_then(|cause| hints::of(cause.error())) {
        Some(hint) => format!("{message} (hint: {hint})"),
        None => message.to_owned(),
    }
}

/// Returns the warning of a step on one line, for a terminal.
pub(super) fn warning(message: &str, cause: Option<&Cause>) -> String {
    clean(with_hint(message, cause).replace('\n', " ").as_bytes())
}
