//! `kiln build`.

mod attend;
mod call;
mod on_error;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::build::OutputStream;
use kiln_exporter::{remove_old, write_file};

use crate::arguments::build::BuildArguments;
use crate::arguments::call::Call;
use crate::arguments::progress::ProgressMode;
use crate::rendering::printer::Printer;
use crate::settings::build::{BuildRequest, metadata_has_warnings, progress};
use crate::settings::{Settings, platforms};
use attend::Console;

/// Runs `kiln build`.
pub(crate) async fn run(
    arguments: BuildArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    if let Some(threads) = arguments.threads {
        kiln_images::use_threads(threads.into())?;
    }
    if let Some(path) = &arguments.iidfile {
        // The file of an earlier build must not be mistaken for this build's.
        remove_old(path).context("remove the file of an earlier build")?;
    }
    let progress = progress(&arguments, settings)?;
    let (iidfile, metadata_file) = (arguments.iidfile.clone(), arguments.metadata_file.clone());
    let dump = arguments.dump_llb.clone();
    let call = if arguments.check { Call::CHECK } else { arguments.call };
    let mut request = BuildRequest::resolve(arguments, OutputStream::new(printer.stdout()))?;
    let console = Console { mode: progress, printer };
    if call != Call::BUILD {
        return Box::pin(call::call(request, call, settings, console)).await;
    }
    if let Some(path) = dump {
        return Box::pin(dump_graphs(&path, request, settings, console)).await;
    }
    request.find_engines(settings).await?;
    let finished = match Box::pin(attend::build(request, settings, console)).await? {
        Ok(finished) => finished,
        Err(code) => return Ok(code),
    };
    if let Some(path) = &metadata_file {
        finished.write_metadata(path, metadata_has_warnings())?;
    }
    let Some(id) = finished.built.exported.image_id else { return Ok(ExitCode::SUCCESS) };
    if let Some(path) = &iidfile {
        write_file(path, id.to_string().as_bytes()).context("write the image ID")?;
    }
    if progress == ProgressMode::Quiet {
        printer.line(id);
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the graph of each platform without building.
async fn dump_graphs(
    path: &Path,
    request: BuildRequest,
    settings: &Settings,
    console: Console<'_>,
) -> Result<ExitCode> {
    let platforms = request.spec.platforms.clone();
    if platforms.len() > 1 && path.as_os_str() == "-" {
        bail!(
            "{} platforms have a graph each, and standard output holds one: name a file, or one \
             platform",
            platforms.len()
        );
    }
    let graphs = match Box::pin(attend::graphs(&request, settings, console)).await? {
        Ok(graphs) => graphs,
        Err(code) => return Ok(code),
    };
    match graphs.as_slice() {
        [only] => write_graph(path, &only.to_bytes(), console.printer)?,
        graphs => {
            for (graph, platform) in graphs.iter().zip(&platforms) {
                let mut path = path.as_os_str().to_owned();
                path.push(format!(".{}", platforms::file_name(platform)));
                write_graph(path.as_ref(), &graph.to_bytes(), console.printer)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_graph(path: &Path, bytes: &[u8], printer: &Printer) -> Result<()> {
    if path.as_os_str() == "-" {
        printer.bytes(bytes);
        return Ok(());
    }
    write_file(path, bytes).with_context(|| format!("write the graph to {}", path.display()))
}
