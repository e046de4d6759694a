//! The folders to which relative contexts refer.

use std::collections::BTreeMap;

use super::Target;
use crate::path;
use crate::remote;

/// The folders to which the contexts of a target refer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base {
    /// The folder of the last file that describes the target.
    pub(crate) default: Option<String>,
    /// The folder of the file that sets the context.
    pub(crate) context: Option<String>,
    /// The target whose context this one takes by a reference.
    pub(crate) context_of: Option<String>,
    /// The folders of the files that set further contexts.
    pub(crate) contexts: BTreeMap<String, String>,
    /// `true` if a missing context is the default folder.
    pub(crate) uses_default: bool,
}

impl Base {
    /// Takes the folders of what another target sets.
    pub(super) fn merge(&mut self, other: &Target) {
        if other.base.default.is_some() {
            self.default.clone_from(&other.base.default);
            self.uses_default = other.base.uses_default;
        }
        if other.context.is_some() {
            self.context.clone_from(&other.base.context);
            self.context_of.clone_from(&other.base.context_of);
        }
        for name in other.contexts.iter().flat_map(BTreeMap::keys) {
            match other.base.contexts.get(name) {
                Some(folder) => {
                    self.contexts.insert(name.clone(), folder.clone());
                }
                None => {
                    self.contexts.remove(name);
                }
            }
        }
    }
}

impl Target {
    /// Notes the folder of the file that describes the target.
    pub(crate) fn set_base(&mut self, folder: &str) {
        self.base.default = Some(folder.to_owned());
        if self.context.is_some() {
            self.base.context = Some(folder.to_owned());
        }
        for name in self.contexts.iter().flat_map(BTreeMap::keys) {
            self.base.contexts.insert(name.clone(), folder.to_owned());
        }
    }

    /// Makes contexts relative to the working directory.
    fn rebase(&mut self) {
        match (&mut self.context, &self.base.context) {
            (Some(context), Some(folder)) => *context = rebased(folder, context),
            (Some(_), None) => {}
            (None, _) => self.base.uses_default = self.base.default.is_some(),
        }
        for (name, context) in self.contexts.iter_mut().flatten() {
            if let Some(folder) = self.base.contexts.get(name) {
                *context = rebased(folder, context);
            }
        }
    }
}

/// Makes the contexts of targets relative to the working directory.
pub(crate) fn rebase_all(targets: &mut [Target]) {
    let folders: BTreeMap<String, Option<String>> = targets
        .iter()
        .map(|target| {
            let base = &target.base;
            (target.name.clone(), base.context.clone().or_else(|| base.default.clone()))
        })
        .collect();
    for target in targets {
        let other = target.base.context_of.as_ref().and_then(|name| folders.get(name));
        if let Some(Some(folder)) = other {
            target.base.context = Some(folder.clone());
        }
        target.rebase();
    }
}

/// Makes a path relative to a folder, unless it isn't a relative path.
pub(crate) fn rebased(folder: &str, context: &str) -> String {
    let is_special = ["cwd://", "target:", "docker-image:", "oci-layout://"]
        .iter()
        .any(|prefix| context.starts_with(prefix));
    if folder.is_empty()
        || context.is_empty()
        || is_special
        || remote::is_remote(context)
        || context.starts_with('/')
    {
        return context.to_owned();
    }
    path::join(folder, context)
}
