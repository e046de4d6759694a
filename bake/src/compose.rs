//! Compose files: what they say about builds.

mod check;
mod dotenv;
mod interpolate;
mod load;
mod merge;
mod scalar;
mod service;
mod shape;
mod xbake;
mod yaml;

use std::collections::BTreeMap;

use crate::definition::{File, ReadOptions};
use crate::target::{Group, Target};
use load::Loader;
use yaml::Node;

/// The content of compose files.
#[derive(Default)]
pub(crate) struct Composed {
    /// The group of all services.
    pub(crate) groups: Vec<Group>,
    /// The services that are built.
    pub(crate) targets: Vec<Target>,
    /// The warnings.
    pub(crate) warnings: Vec<String>,
}

/// Checks whether a file is a compose file.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn check(file: &File, options: &ReadOptions<'_>) -> Result<(), String> {
    let mut loader = Loader::new(options)?;
    let model = loader.load(&file.name, &file.content)?;
    check::check_model(&model)
}

/// Reads compose files. Later ones are merged into earlier ones.
///
/// # Errors
/// Says what is wrong with them.
pub(crate) fn read(files: &[&File], options: &ReadOptions<'_>) -> Result<Composed, String> {
    let mut loader = Loader::new(options)?;
    let mut model = Node::Map(BTreeMap::new());
    for file in files {
        let next = loader.load(&file.name, &file.content)?;
        model = merge::merge(model, next, &mut Vec::new());
    }
    let model = merge::finished(model);
    check::check_model(&model)?;
    check::check_consistency(&model)?;
    let mut targets = Vec::new();
    for (name, service) in model.get("services").into_iter().flat_map(Node::fields) {
        if let Some(build) = service.get("build") {
            let reader = service::Reader { name, service, build, model: &model };
            targets.push(reader.target(&mut loader)?);
        }
    }
    let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
    let group = Group {
        name: "default".into(),
        targets: (!names.is_empty()).then_some(names),
        ..Group::default()
    };
    let has_services = model.get("services").is_some_and(|node| node.fields().next().is_some());
    let groups = if has_services { vec![group] } else { Vec::new() };
    Ok(Composed { groups, targets, warnings: loader.warnings })
}
