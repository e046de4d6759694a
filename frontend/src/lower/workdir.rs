//! `WORKDIR`: the working directory, which is created if it doesn't exist.

use kiln_llb::op::{FileActionKind, MkDirAction};

use crate::error::Error;
use crate::lint::rules;

use super::copy::owner;
use super::dispatch::Site;
use super::graph::{Action, Plan};
use super::stage::Stage;
use super::{metadata, path};

/// Changes the working directory and creates it.
pub(super) fn dispatch(site: &mut Site<'_, '_>, written: &str) -> Result<(), Error> {
    let written = site.expand(written)?;
    // A relative path is fine after an absolute one in the same Dockerfile. The working directory
    // of a base image may change.
    if !site.stage.workdir_set && !path::is_absolute(&written, site.stage.os()) {
        site.report(rules::workdir_relative_path(&written));
    }
    site.stage.workdir_set = true;
    change(site.stage, &written)?;
    let dir = site.stage.state.dir.clone();
    let is_root = dir == "/";
    if !is_root {
        make(site, &dir);
    }
    site.commit(format!("WORKDIR {dir}"), !is_root);
    Ok(())
}

/// Changes the working directory of the stage and the image.
pub(super) fn change(stage: &mut Stage, written: &str) -> Result<(), Error> {
    let os = stage.os().to_owned();
    let dir = path::working_dir(&stage.image.config.working_dir, written, &os)
        .map_err(|error| Error::new(format!("normalizing workdir: {error}")))?;
    stage.state.dir = path::to_slash(&dir, &os);
    if stage.image.config.working_dir != dir {
        stage.image_mut().config.working_dir = dir;
    }
    Ok(())
}

fn make(site: &mut Site<'_, '_>, dir: &str) {
    let base = site.stage.state.output;
    let action = MkDirAction {
        path: path::for_action("/", dir, false),
        mode: 0o755,
        make_parents: true,
        owner: owner(&site.stage.image.config.user, base),
        timestamp: site.lowering.epoch.as_ref().map_or(-1, super::epoch::Epoch::nanoseconds),
    };
    let action = Action { from: None, kind: FileActionKind::MkDir(action) };
    let name = site.step_name();
    let metadata = metadata::step(&name, Some(site.instruction.span));
    let output = site.lowering.graph.add(Plan::File(base, vec![action]), None, metadata);
    site.stage.state.output = Some(output);
}
