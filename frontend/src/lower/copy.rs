//! `COPY`, and the parts that it shares with `ADD`.

use kiln_llb::op::{Chown, CopyAction, FileActionKind, UserRef};
use kiln_llb::{OpMetadata, op};
use kiln_oci::Digest;

use crate::error::Error;
use crate::instruction::{CopyInstruction, SourcesAndDest};
use crate::text::quote;

use super::chmod::{self, Chmod};
use super::copy_sources;
use super::dispatch::Site;
use super::graph::{Action, Output, Plan};
use super::{git, metadata, path, step_name};

/// The files to which source paths without a scheme refer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The files of the build context.
    Context,
    /// A stage's files; `None` if the stage has none.
    Stage(Option<Output>),
}

/// A `COPY` or `ADD` with expanded variables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copying<'a> {
    /// The keyword in upper case: `COPY` or `ADD`.
    pub keyword: &'static str,
    /// The sources and the destination.
    pub paths: &'a SourcesAndDest,
    /// The values of all `--exclude` flags.
    pub excludes: &'a [String],
    /// The value of `--chown`, or empty.
    pub chown: &'a str,
    /// The value of `--chmod`, or empty.
    pub chmod: &'a str,
    /// `true` if `--link` is set.
    pub link: bool,
    /// `true` if `--parents` is set.
    pub parents: bool,
    /// The files to which source paths without a scheme refer.
    pub origin: Origin,
    /// The value of `--keep-git-dir`, if it is set.
    pub keep_git_dir: Option<bool>,
    /// The value of `--checksum`, or empty.
    pub checksum: &'a str,
    /// The value of `--unpack`, if it is set.
    pub unpack: Option<bool>,
}

/// Dispatches a `COPY`: copies its sources to the destination.
pub(super) fn dispatch(site: &mut Site<'_, '_>, copy: &CopyInstruction) -> Result<(), Error> {
    let chown = site.expand(&copy.chown)?;
    let chmod = site.expand(&copy.chmod)?;
    let paths = expand_paths(site, &copy.paths)?;
    let context = &site.lowering.main_context;
    let (origin, used) = match site.sources.first() {
        None => (Origin::Context, context.paths),
        Some(id) => {
            let (files, used) = site.source(*id).ok_or_else(|| {
                Error::new(format!(
                    "cannot copy from stage {}, it needs to be defined before current stage {}",
                    quote(&copy.from),
                    quote(&site.stage.step_name)
                ))
            })?;
            (Origin::Stage(files), used)
        }
    };
    let copying = Copying {
        keyword: "COPY",
        paths: &paths,
        excludes: &copy.excludes,
        chown: &chown,
        chmod: &chmod,
        link: copy.link,
        parents: copy.parents,
        origin,
        keep_git_dir: None,
        checksum: "",
        unpack: None,
    };
    copying.run(site)?;
    for path in &paths.source_paths {
        site.lowering.graph.use_path(used, path);
    }
    Ok(())
}

/// Expands the variables in paths and heredocs.
pub(super) fn expand_paths(
    site: &mut Site<'_, '_>,
    paths: &SourcesAndDest,
) -> Result<SourcesAndDest, Error> {
    let mut expanded = SourcesAndDest {
        source_paths: site.expand_all(&paths.source_paths)?,
        dest: site.expand(&paths.dest)?,
        source_contents: paths.source_contents.clone(),
    };
    for file in expanded.source_contents.iter_mut().filter(|file| file.expand) {
        file.content = site.expand_text(&file.content)?;
    }
    Ok(expanded)
}

impl Copying<'_> {
    /// Adds the op for the copy, and the sources that it needs.
    pub(super) fn run(&self, site: &mut Site<'_, '_>) -> Result<(), Error> {
        let dest = destination(site, &self.paths.dest).map_err(Error::new)?;
        let chmod = match self.chmod {
            "" => None,
            text => Some(chmod::parse(text).map_err(Error::new)?),
        };
        self.check_checksum()?;
        let name = crate::text::without_credentials(&site.step_name());
        let sources = copy_sources::resolve(site, self, &name)?;
        // With `--link`, the files form a layer of their own, independent of the stage's files.
        let is_linked = self.link && chmod.is_none();
        let base = site.stage.state.output.filter(|_| !is_linked);
        let owner = owner(self.chown, base);
        let actions = sources
            .into_iter()
            .map(|(from, action)| {
                let action = CopyAction {
                    dest: path::for_action("/", &dest, true),
                    owner: owner.clone(),
                    create_dest_path: true,
                    exclude_patterns: self.excludes.to_vec(),
                    timestamp: -1,
                    ..with_mode(action, chmod.as_ref())
                };
                Action { from, kind: FileActionKind::Copy(action) }
            })
            .collect();
        let plan = Plan::File(base, actions);
        let output = if is_linked {
            link(site, plan, &name)
        } else {
            let metadata = step(site, &name);
            site.lowering.graph.add(plan, None, metadata)
        };
        site.stage.state.output = Some(output);
        site.commit_layer(&kiln_oci::redact::mask_queries(&self.message()));
        Ok(())
    }

    fn check_checksum(&self) -> Result<(), Error> {
        if self.checksum.is_empty() {
            return Ok(());
        }
        let [source] = self.paths.source_paths.as_slice() else {
            return Err(Error::new("checksum can't be specified for multiple sources"));
        };
        if git::is_http(source) || git::is_git(source) {
            return Ok(());
        }
        Err(Error::new("checksum requires HTTP(S) or Git sources"))
    }

    fn message(&self) -> String {
        let mut text = self.keyword.to_owned();
        if self.parents {
            text += " --parents";
        }
        if !self.chown.is_empty() {
            text = text + " --chown=" + self.chown;
        }
        if !self.chmod.is_empty() {
            text = text + " --chmod=" + self.chmod;
        }
        for source in &self.paths.source_paths {
            text = text + " " + source;
        }
        for file in &self.paths.source_contents {
            text = text + " <<" + &file.name;
        }
        crate::text::without_credentials(&(text + " " + &self.paths.dest))
    }
}

fn with_mode(action: CopyAction, chmod: Option<&Chmod>) -> CopyAction {
    match chmod {
        None => CopyAction { mode: -1, ..action },
        Some(Chmod::Bits(mode)) => CopyAction { mode: *mode, ..action },
        Some(Chmod::Symbolic(text)) => CopyAction { mode_str: text.clone(), ..action },
    }
}

/// Returns the absolute destination. A trailing slash is kept.
fn destination(site: &Site<'_, '_>, dest: &str) -> Result<String, String> {
    let os = site.stage.os();
    let dest = path::without_drive(dest, os, true)
        .map_err(|error| format!("removing drive letter: {error}"))?;
    if path::is_absolute(&dest, os) {
        return path::normalize("/", &dest, os, true);
    }
    let dest = if dest.is_empty() || dest == "." { "./" } else { &dest };
    path::normalize(&site.stage.state.dir, dest, os, true)
}

/// Parses `USER[:GROUP]`. The worker looks names up in the files of `base`.
pub(super) fn owner(text: &str, base: Option<Output>) -> Option<Chown> {
    if text.is_empty() {
        return None;
    }
    let reference = |text: &str| match chmod::numeric_id(text) {
        Some(id) => UserRef::Id(id),
        None => UserRef::Name { name: text.to_owned(), input: base.map(|_| 0) },
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    Some(op::Chown { user: Some(reference(user)), group: group.map(reference) })
}

fn step(site: &Site<'_, '_>, name: &str) -> OpMetadata {
    let metadata = metadata::step(name, Some(site.instruction.span));
    OpMetadata { ignore_cache: site.stage.ignore_cache, ..metadata }
}

/// Adds the op that creates the files, and one that merges them with the stage's files.
fn link(site: &mut Site<'_, '_>, plan: Plan, name: &str) -> Output {
    let group = Digest::of(format!("{name}\n{:?}", site.stage.state.output).as_bytes()).hex();
    let in_group = |metadata: OpMetadata, is_weak: bool| OpMetadata {
        progress_group: Some((group[..25].to_owned(), name.to_owned(), is_weak)),
        ..metadata
    };
    let metadata = in_group(step(site, name), true);
    let files = site.lowering.graph.add(plan, None, metadata);
    let Some(below) = site.stage.state.output else {
        return files;
    };
    let env = site.env();
    let text = step_name::of_instruction(&site.instruction.original, site.lowering.expander, &*env);
    let platform = site.stage.platform.clone();
    let platform = platform.and_then(|platform| site.lowering.named_platform(&platform));
    let name = step_name::current(site.stage, &format!("LINK {text}"), platform.as_ref(), &*env);
    let metadata = in_group(step(site, &name), false);
    site.lowering.graph.add(Plan::Merge(vec![below, files]), None, metadata)
}
