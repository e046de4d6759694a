//! The findings of the build checks at the end of a build.

use kiln::build::files::Dockerfile;
use kiln_frontend::Warning;
use kiln_frontend::error::render_warning;

use super::text::clean_text;
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
