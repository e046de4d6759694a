//! `kiln debug`: internal files in readable form.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln_llb::{Definition, Graph, dump};

use crate::arguments::debug::{DebugArguments, DebugCommand, LlbArguments};
use crate::rendering::printer::Printer;

/// The most bytes of a graph.
const GRAPH_LIMIT: u64 = 256 << 20;

/// Runs a command of `kiln debug`.
pub(crate) fn run(arguments: &DebugArguments, printer: &Printer) -> Result<ExitCode> {
    match &arguments.command {
        DebugCommand::Llb(arguments) => llb(arguments, printer),
    }
}

fn llb(arguments: &LlbArguments, printer: &Printer) -> Result<ExitCode> {
    let name = &arguments.file.display().to_string();
    let bytes = read(&arguments.file).with_context(|| format!("read {name}"))?;
    let definition =
        Definition::from_bytes(&bytes).with_context(|| format!("{name} is no build graph"))?;
    if arguments.dot {
        let graph = Graph::load(&definition).with_context(|| format!("check {name}"))?;
        printer.line(dump::to_dot(&graph).trim_end());
    } else {
        let ops = dump::to_json(&definition).with_context(|| format!("show {name}"))?;
        printer.line(serde_json::to_string_pretty(&ops)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(GRAPH_LIMIT + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(GRAPH_LIMIT + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > GRAPH_LIMIT {
        bail!("larger than {} MiB", GRAPH_LIMIT >> 20);
    }
    Ok(bytes)
}
