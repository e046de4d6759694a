//! Prints the result of lowering a golden case, in the form of its `expected.json`:
//!
//! ```text
//! cargo run -q -p kiln-frontend --example lower -- CASE_DIR
//! ```

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

#[path = "../tests/support/case.rs"]
mod case;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed too, the exit code is all that the caller gets.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: lower CASE_DIR")?);
    let outcome = case::Case::read(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?
        .outcome();
    let mut output = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut output, &outcome)?;
    writeln!(output)?;
    Ok(())
}
