//! `kiln bake`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use kiln_bake::{Definition, ReadOptions};
use serde::Serialize;

use crate::arguments::bake::BakeArguments;
use crate::rendering::printer::Printer;
use crate::settings::bake::BakeRequest;

/// A list that the user asks for.
#[derive(Default)]
struct Listing {
    variables: bool,
    json: bool,
}

/// The output that is wanted.
enum Wanted<'a> {
    Requests,
    List(&'a str),
}

/// Runs `kiln bake`.
pub(crate) fn run(arguments: &BakeArguments, printer: &Printer) -> Result<ExitCode> {
    let wanted = match &arguments.list {
        Some(_) if arguments.print => bail!("--print and --list are mutually exclusive"),
        Some(list) => Wanted::List(list),
        None if arguments.print => Wanted::Requests,
        None => bail!(
            "`kiln bake` prints what a bake file describes, with --print or --list; build a target with `kiln build`"
        ),
    };
    let request = BakeRequest::resolve(arguments)?;
    let text = request.with_definition(|definition, options| {
        for warning in definition.warnings() {
            printer.note(format_args!("WARNING: {warning}"));
        }
        match wanted {
            Wanted::Requests => print(&request, definition, options),
            Wanted::List(list) => Listing::parse(list)?.render(definition),
        }
    });
    match text {
        Ok(text) => printer.text(text.strip_suffix('\n').unwrap_or(&text)),
        Err(error) => {
            let found = error.downcast_ref::<kiln_bake::Error>();
            if let Some(excerpt) = found.and_then(kiln_bake::Error::excerpt) {
                printer.note(format_args!("{}\n{}", excerpt.place, excerpt.lines.trim_end()));
            }
            return Err(error);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the requests of the chosen targets.
fn print(
    request: &BakeRequest,
    definition: &Definition,
    options: &ReadOptions<'_>,
) -> Result<String> {
    Ok(serde_json::to_string_pretty(&request.plan(definition, options)?)?)
}

impl Listing {
    /// Reads the value of `--list`.
    fn parse(text: &str) -> Result<Self> {
        let mut listing = Self::default();
        let mut kind = None;
        for field in text.split(',') {
            match field.split_once('=') {
                None if kind.is_none() => kind = Some(field),
                Some(("type", value)) => kind = Some(value),
                Some(("format", "json")) => listing.json = true,
                Some(("format", "table")) => listing.json = false,
                Some(("format", value)) => bail!("invalid list format {value:?}"),
                _ => bail!("invalid list {text:?}"),
            }
        }
        match kind.unwrap_or_default() {
            "variables" => listing.variables = true,
            "targets" => {}
            kind => bail!("invalid list type {kind:?}"),
        }
        Ok(listing)
    }

    /// Returns the list.
    fn render(&self, definition: &Definition) -> Result<String> {
        if self.variables {
            let listed = definition.listed_variables();
            return self.list(&listed, &["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"], |variable| {
                let value = variable.value.as_deref().unwrap_or("<null>");
                vec![
                    variable.name.clone(),
                    variable.kind.clone(),
                    value.to_owned(),
                    variable.description.clone(),
                ]
            });
        }
        self.list(&definition.listed_targets(), &["TARGET", "DESCRIPTION"], |target| {
            vec![target.name.clone(), target.description.clone()]
        })
    }

    fn list<T: Serialize>(
        &self,
        entries: &[T],
        heading: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<String> {
        if self.json {
            return Ok(serde_json::to_string_pretty(entries)?);
        }
        let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
        Ok(table(heading, &rows))
    }
}

/// Aligns rows in columns below a heading. The last cell of a row may have several lines.
fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&heading).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|row| row[column].chars().count()).max();
    let last = heading.len() - 1;
    let widths: Vec<usize> = (0..last).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in lines {
        for (cell, &width) in row.iter().zip(&widths) {
            let padded = format!("{cell:width$}   ");
            text.push_str(&padded);
        }
        text.push_str(&row[last]);
        text.push('\n');
    }
    text
}
