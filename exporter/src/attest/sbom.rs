//! What is in an image: a bill of materials.
//!
//! The files of the image, as a container of it would see them, are walked once. Package databases
//! that are known are read, each by a module of its own:
//!
//! | module | what it reads |
//! | --- | --- |
//! | [`dpkg`] | `var/lib/dpkg/status` and `status.d` |
//! | [`apk`] | `lib/apk/db/installed` |
//! | [`rpm`] | `rpmdb.sqlite`; older databases are told of in a warning |
//! | [`python`] | `*.dist-info` and `*.egg-info` |
//! | [`npm`] | `node_modules/**/package.json`, `package-lock.json` |
//! | [`cargo`] | executables with a list of their crates, as cargo-auditable makes them |
//!
//! All of them are hostile: they are opened through the image's root and nowhere else, read up to a
//! limit, and what can't be made sense of is skipped, with a warning where it is a whole database.
//! Packages are in the order of their URLs, so that the same files give the same document.

mod apk;
mod cargo;
mod dpkg;
mod npm;
mod python;
mod rpm;
mod source;
mod spdx;
mod stanzas;
mod system;

use std::collections::BTreeMap;

use kiln_tree::{View, walk};
use serde_json::Value;

use super::SbomOptions;
use crate::error::{Error, Result};
use crate::export::{ExportContext, ImageSource};
use crate::merged;

use source::Files;
use system::System;

/// The type of statements with a bill of materials.
pub(crate) const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

/// Most packages of an image.
const MOST_PACKAGES: usize = 250_000;

/// A package that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    /// Its package URL.
    pub(crate) url: String,
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// The file that names it, from the image's root.
    pub(crate) found_in: String,
    /// What its author says of its license.
    pub(crate) license: Option<String>,
    /// Who has made it, as a name, maybe with an address.
    pub(crate) supplier: Option<String>,
    /// Its home page.
    pub(crate) homepage: Option<String>,
}

/// What is in an image.
#[derive(Debug, Default)]
pub(crate) struct Sbom {
    system: System,
    packages: Vec<Package>,
    /// What couldn't be read.
    pub(crate) warnings: Vec<String>,
}

impl Sbom {
    /// Looks into an image.
    pub(crate) fn scan(image: &ImageSource, context: &ExportContext<'_>) -> Result<Self> {
        let name = "looking for packages";
        context.progress.status(name, 0, None, false);
        let dir = merged::open(image.layer.as_ref(), context)?;
        let view = View { xattrs: false, ..View::of(&dir) };
        let entries = walk::entries(view, std::path::Path::new("/"))?;
        let files = Files { dir: &dir, entries: &entries };
        let sbom = Self::of(&files, &|| context.store.temp_dir().map_err(Error::from))?;
        context.progress.status(name, 0, None, true);
        Ok(sbom)
    }

    /// Looks into files. `scratch` makes an empty directory.
    fn of(files: &Files<'_>, scratch: &source::Scratch<'_>) -> Result<Self> {
        let system = System::read(files)?;
        let mut found = Found::default();
        dpkg::find(files, &system, &mut found)?;
        apk::find(files, &system, &mut found)?;
        rpm::find(files, &system, scratch, &mut found)?;
        python::find(files, &mut found)?;
        npm::find(files, &mut found)?;
        cargo::find(files, &mut found)?;
        let Found { packages, warnings } = found;
        if packages.len() > MOST_PACKAGES {
            let problem = format!("the image has more than {MOST_PACKAGES} packages");
            return Err(Error::Unsupported(problem));
        }
        Ok(Self { system, packages: packages.into_values().collect(), warnings })
    }

    /// Returns the document about an image with a name.
    pub(crate) fn document(
        &self,
        options: &SbomOptions,
        name: &str,
        created: Option<&str>,
    ) -> Value {
        let purpose = "CONTAINER";
        spdx::document(self, spdx::About { name, purpose, created, tool: &options.tool })
    }

    /// Returns the document about files alone. Their time is the epoch's, or that of 1970.
    pub(crate) fn document_of_files(&self, options: &SbomOptions, epoch: Option<i64>) -> Value {
        let created =
            epoch.and_then(|epoch| crate::config::text(i128::from(epoch) * 1_000_000_000).ok());
        let (name, purpose) = ("files", "FILE");
        let about = spdx::About { name, purpose, created: created.as_deref(), tool: &options.tool };
        spdx::document(self, about)
    }
}

/// What was found so far. The same package in the same place counts once.
#[derive(Debug, Default)]
pub(crate) struct Found {
    packages: BTreeMap<(String, String), Package>,
    warnings: Vec<String>,
}

impl Found {
    /// Adds a package; one without a name is none.
    pub(crate) fn add(&mut self, package: Package) {
        if !package.name.is_empty() && self.packages.len() <= MOST_PACKAGES {
            let key = (package.url.clone(), package.found_in.clone());
            self.packages.entry(key).or_insert(package);
        }
    }

    /// Tells whether a package was found, wherever.
    pub(crate) fn knows(&self, url: &str) -> bool {
        let from = (url.to_owned(), String::new());
        self.packages.range(from..).next().is_some_and(|((known, _), _)| known == url)
    }

    /// Says that something couldn't be read.
    pub(crate) fn warn(&mut self, path: &str, problem: impl std::fmt::Display) {
        self.warnings.push(format!("/{path}: {problem}: its packages are not in the SBOM"));
    }
}

#[cfg(test)]
mod tests;
