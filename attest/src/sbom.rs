//! The bill of materials of an image.
//!
//! The search walks the image's files once, as a container of the image would see them. A module
//! per database format reads the package databases:
//!
//! | module | files |
//! | --- | --- |
//! | [`dpkg`] | `var/lib/dpkg/status` and `status.d` |
//! | [`apk`] | `lib/apk/db/installed` |
//! | [`rpm`] | `rpmdb.sqlite`; older databases cause a warning |
//! | [`python`] | `*.dist-info` and `*.egg-info` |
//! | [`npm`] | `node_modules/**/package.json`, `package-lock.json` |
//! | [`cargo`] | executables with a list of their crates, as cargo-auditable writes them |
//!
//! All of these files may be hostile. They are opened below the image's root only and read up to a
//! size limit. Unreadable content is skipped; if it is a whole database, the search adds a warning.
//! Packages are sorted by URL, so that the same files have the same document.

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

use kiln_store::Store;
use kiln_tree::{Dir, View, walk};
use serde_json::Value;

use crate::SbomOptions;
use crate::error::{Error, Result};

use source::Files;
use system::System;

/// The predicate type of a bill of materials.
pub(crate) const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

/// The maximum number of packages in an image.
const MOST_PACKAGES: usize = 250_000;

/// A package in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    /// The package URL, which identifies the package.
    pub(crate) url: String,
    /// The name in the package's own metadata.
    pub(crate) name: String,
    /// The version in the package's own metadata.
    pub(crate) version: String,
    /// The path of the file that lists the package, from the image's root.
    pub(crate) found_in: String,
    /// The license that the package declares.
    pub(crate) license: Option<String>,
    /// The author or vendor: a name with an optional e-mail address.
    pub(crate) supplier: Option<String>,
    /// The URL of the project's home page.
    pub(crate) homepage: Option<String>,
}

/// The packages of an image.
#[derive(Debug, Default)]
pub struct Sbom {
    system: System,
    packages: Vec<Package>,
    warnings: Vec<String>,
}

impl Sbom {
    /// Searches the files of an image for packages. Databases are copied to temporary directories of
    /// the store.
    ///
    /// # Errors
    /// Fails if the files can't be read, or if the image has more than 250,000 packages.
    pub fn scan(dir: &Dir, store: &Store) -> Result<Self> {
        let view = View { xattrs: false, ..View::of(dir) };
        let entries = walk::entries(view, std::path::Path::new("/"))?;
        Self::of(&Files { dir, entries: &entries }, &|| store.temp_dir().map_err(Error::from))
    }

    /// Returns warnings about databases that couldn't be read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Searches files for packages. `scratch` creates an empty directory.
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
            return Err(Error::TooManyPackages(MOST_PACKAGES));
        }
        Ok(Self { system, packages: packages.into_values().collect(), warnings })
    }

    /// Returns the SPDX document of an image with a name.
    pub(crate) fn document_of_image(
        &self,
        options: &SbomOptions,
        name: &str,
        created: Option<&str>,
    ) -> Value {
        let purpose = "CONTAINER";
        spdx::document(self, spdx::About { name, purpose, created, tool: &options.tool })
    }

    /// Returns the SPDX document of an output of files. Its creation time is 1970 by default.
    pub(crate) fn document_of_files(&self, options: &SbomOptions, created: Option<&str>) -> Value {
        let (name, purpose) = ("files", "FILE");
        let about = spdx::About { name, purpose, created, tool: &options.tool };
        spdx::document(self, about)
    }
}

/// The results of a search. A package that occurs twice in the same file counts once.
#[derive(Debug, Default)]
pub(crate) struct Found {
    packages: BTreeMap<(String, String), Package>,
    warnings: Vec<String>,
}

impl Found {
    /// Adds a package. Packages without a name are ignored.
    pub(crate) fn add(&mut self, package: Package) {
        if !package.name.is_empty() && self.packages.len() <= MOST_PACKAGES {
            let key = (package.url.clone(), package.found_in.clone());
            self.packages.entry(key).or_insert(package);
        }
    }

    /// Returns `true` if the package was found in any file.
    pub(crate) fn knows(&self, url: &str) -> bool {
        let from = (url.to_owned(), String::new());
        self.packages.range(from..).next().is_some_and(|((known, _), _)| known == url)
    }

    /// Adds a warning about a file that couldn't be read.
    pub(crate) fn warn(&mut self, path: &str, problem: impl std::fmt::Display) {
        self.warnings.push(format!("/{path}: {problem}: its packages are not in the SBOM"));
    }
}

#[cfg(test)]
mod tests;
