//! The outputs of a build.

use anyhow::{Result, bail};
use kiln_exporter::{Annotations, EngineChoice, Output};
use kiln_oci::Reference;

use super::destinations;
use crate::arguments::build::{BuildArguments, Right};

/// Returns the outputs that the arguments name, or an image in the store.
pub(super) fn resolve(arguments: &BuildArguments, tags: &[Reference]) -> Result<Vec<Output>> {
    let texts = arguments.outputs.iter().filter(|text| !text.is_empty());
    let mut outputs = texts.map(|text| Output::parse(text)).collect::<Result<Vec<_>, _>>()?;
    if arguments.push {
        if !outputs.iter().any(Output::is_pushable) {
            outputs.push(Output::registry());
        }
        outputs.iter_mut().filter(|it| it.is_pushable()).for_each(|output| output.push = true);
    }
    if arguments.load && outputs.iter().all(|it| it.form().engine_choice.is_none()) {
        outputs.push(Output::load(EngineChoice::default()));
    }
    if outputs.is_empty() {
        outputs.push(Output::image());
    }
    for output in &mut outputs {
        for tag in tags {
            if !output.names.contains(tag) {
                output.names.push(tag.clone());
            }
        }
        output.check_names()?;
    }
    annotate(&mut outputs, &arguments.annotations)?;
    if arguments.iidfile.is_some() && outputs.iter().any(Output::is_files) {
        bail!("local and tar exporters are incompatible with image ID file");
    }
    destinations::check(&outputs, arguments.allow.contains(&Right::LocalDelete))?;
    Ok(outputs)
}

/// Adds the annotations of `--annotation` to every image.
fn annotate(outputs: &mut [Output], texts: &[String]) -> Result<()> {
    let mut annotations = Annotations::default();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        annotations.add(text)?;
    }
    if annotations.is_empty() {
        return Ok(());
    }
    if !outputs.iter().any(Output::is_image) {
        bail!("--annotation is for images, and no output is one");
    }
    for output in outputs.iter_mut().filter(|output| output.is_image()) {
        output.annotations.extend(&annotations);
    }
    Ok(())
}
