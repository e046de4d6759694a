//! Devices of the Container Device Interface (CDI).
//!
//! A vendor describes its devices in files, as JSON or YAML. Each device has a qualified name,
//! `vendor.com/class=name`, and edits of a container: device nodes, mounts, variables. The files are
//! read each time that something asks for devices, so new ones count at once. A file in a later
//! directory replaces devices of an earlier one. A device that two files of the same directory
//! describe is left out, as is a file that can't be understood.
//!
//! Hooks aren't run: they are programs of the host that change a container from outside.

mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_llb::op::CdiDevice;

pub(crate) use self::spec::{DeviceNode, Edits, MountEdit};

use self::spec::{Document, read};
use crate::error::{Error, Result};
use crate::exec::allowed::Allowed;

/// The annotation with the class that a device is also found by.
const CLASS: &str = "org.mobyproject.buildkit.device.class";

/// The annotation of devices that every build may use.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// The places of device descriptions, and the devices that every build may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiOptions {
    /// The directories with descriptions. Without any, there are no devices.
    pub directories: Vec<PathBuf>,
    /// The names of devices, or of kinds, that need no entitlement.
    pub auto_allowed: Vec<String>,
}

impl Default for CdiOptions {
    /// Returns the directories that the interface's specification names.
    fn default() -> Self {
        let directories = ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec();
        Self { directories, auto_allowed: Vec::new() }
    }
}

/// A device that is described on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDevice {
    /// The qualified name.
    pub name: String,
    /// `true` if every build may use it.
    pub is_auto_allowed: bool,
    /// The annotations of its file, and its own.
    pub annotations: BTreeMap<String, String>,
}

/// A device with the place of its edits.
#[derive(Clone, Debug)]
struct Found {
    document: Arc<Document>,
    /// The position among the document's devices.
    place: usize,
    directory: usize,
}

/// The described devices at one time, by their qualified names.
#[derive(Clone, Debug, Default)]
struct Registry(BTreeMap<String, Found>);

impl CdiOptions {
    /// Returns all devices, sorted by name.
    pub fn devices(&self) -> Vec<KnownDevice> {
        let registry = Registry::read(&self.directories);
        registry.0.iter().map(|(name, found)| self.known(name, found)).collect()
    }

    /// Returns the qualified names of the devices that an op gets.
    ///
    /// # Errors
    /// Fails if a required device isn't described, or if the build may not use a device.
    pub(crate) fn resolve(&self, wanted: &[CdiDevice], allowed: &Allowed) -> Result<Vec<String>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let registry = Registry::read(&self.directories);
        let (mut names, mut forbidden) = (Vec::new(), Vec::new());
        let granted = registry.granted(allowed);
        for device in wanted {
            let alias = allowed.devices.names.get(&device.name).cloned().flatten();
            let is_alias = alias.is_some();
            let asked = CdiDevice { name: alias.unwrap_or(device.name.clone()), ..device.clone() };
            for name in registry.find(&asked)? {
                let may = is_alias
                    || allowed.devices.all
                    || granted.contains(&name)
                    || registry
                        .0
                        .get(&name)
                        .is_some_and(|it| self.known(&name, it).is_auto_allowed);
                let list = if may { &mut names } else { &mut forbidden };
                if !list.contains(&name) {
                    list.push(name);
                }
            }
        }
        match forbidden.as_slice() {
            [] => Ok(names),
            [one] => Err(Error::Invalid(format!(
                "device {one} is requested by the build but not allowed"
            ))),
            several => Err(Error::Invalid(format!(
                "devices {} are requested by the build but not allowed",
                several.join(", ")
            ))),
        }
    }

    /// Returns the edits of devices by their qualified names: those of each device, and those of
    /// its file once.
    pub(crate) fn edits(&self, names: &[String]) -> Vec<Edits> {
        let registry = Registry::read(&self.directories);
        let mut edits = Vec::new();
        let mut documents: Vec<Arc<Document>> = Vec::new();
        for found in names.iter().filter_map(|name| registry.0.get(name)) {
            edits.push(found.document.devices[found.place].edits.clone());
            if !documents.iter().any(|known| Arc::ptr_eq(known, &found.document)) {
                edits.push(found.document.edits.clone());
                documents.push(Arc::clone(&found.document));
            }
        }
        edits
    }

    fn known(&self, name: &str, found: &Found) -> KnownDevice {
        let annotations = found.annotations();
        let kind = name.split_once('=').map_or(name, |(kind, _)| kind);
        let is_listed = self.auto_allowed.iter().any(|listed| listed == name || listed == kind);
        let is_annotated = annotations.get(AUTO_ALLOW).is_some_and(|value| is_true(value));
        KnownDevice {
            name: name.to_owned(),
            is_auto_allowed: is_listed || is_annotated,
            annotations,
        }
    }
}

/// Returns the boolean of a text as Go's parser does.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

impl Found {
    fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = self.document.annotations.clone();
        annotations.extend(self.document.devices[self.place].annotations.clone());
        annotations
    }
}

impl Registry {
    fn read(directories: &[PathBuf]) -> Self {
        let mut all = BTreeMap::<String, Found>::new();
        let mut twice = BTreeSet::new();
        for (directory, path) in directories.iter().enumerate() {
            twice.clear();
            for document in documents(path) {
                let document = Arc::new(document);
                for (place, device) in document.devices.iter().enumerate() {
                    let name = format!("{}={}", document.kind, device.name);
                    let found = Found { document: Arc::clone(&document), place, directory };
                    let old = all.insert(name.clone(), found);
                    if old.is_some_and(|old| old.directory == directory) {
                        twice.insert(name);
                    }
                }
            }
            for name in &twice {
                tracing::warn!(name, "two files describe the same CDI device");
                all.remove(name);
            }
        }
        Self(all)
    }

    /// Returns the qualified names for a device of an op: a device, the first of a kind
    /// (`vendor.com/class`), all of a kind (`vendor.com/class=*`), or those of a class.
    fn find(&self, wanted: &CdiDevice) -> Result<Vec<String>> {
        let (kind, name) = wanted.name.split_once('=').unwrap_or((&wanted.name, ""));
        let mut found: Vec<String> = Vec::new();
        if kind.contains('/') {
            let of_kind = self
                .0
                .keys()
                .filter(|key| key.strip_prefix(kind).is_some_and(|rest| rest.starts_with('=')));
            match name {
                "" => found.extend(of_kind.take(1).cloned()),
                "*" => found.extend(of_kind.cloned()),
                _ => found.extend(self.0.contains_key(&wanted.name).then(|| wanted.name.clone())),
            }
        }
        if found.is_empty() {
            let is_of_class =
                |it: &Found| it.annotations().get(CLASS).is_some_and(|it| *it == wanted.name);
            let of_class = self.0.iter().filter(|(_, found)| is_of_class(found));
            found.extend(of_class.map(|(name, _)| name.clone()));
        }
        if found.is_empty() && !wanted.optional {
            let name = &wanted.name;
            return Err(Error::Invalid(format!("required device {name:?} is not registered")));
        }
        Ok(found)
    }

    /// Returns the devices that the entitlements name.
    fn granted(&self, allowed: &Allowed) -> BTreeSet<String> {
        let names = allowed.devices.names.keys();
        let find = |name: &String| self.find(&CdiDevice { name: name.clone(), optional: true });
        names.filter_map(|name| find(name).ok()).flatten().collect()
    }
}

/// Returns the descriptions of a directory that can be understood, by the names of their files.
fn documents(directory: &Path) -> Vec<Document> {
    #[expect(clippy::disallowed_methods, reason = "the directories are the machine's")]
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_spec = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| matches!(extension, "json" | "yaml" | "yml"))
    };
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(is_spec).collect();
    paths.sort();
    let read = |path: PathBuf| match read(&path) {
        Ok(document) => Some(document),
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, error, "a CDI file can't be used");
            None
        }
    };
    paths.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use crate::exec::allowed::AllowedDevices;

    use super::*;

    const FIRST: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor.com/device"
annotations:
  org.mobyproject.buildkit.device.autoallow: true
containerEdits:
  env: [ALL=1]
devices:
- name: foo
  annotations:
    org.mobyproject.buildkit.device.class: class1
  containerEdits:
    env: [FOO=injected]
    deviceNodes:
    - path: /dev/null
- name: bar
  containerEdits:
    env: [BAR=injected]
"#;
    const SECOND: &str = r#"{"cdiVersion": "0.5.0", "kind": "other.com/gpu",
        "devices": [{"name": "0", "containerEdits": {"env": ["GPU=0"]}}]}"#;

    fn options(directory: &Path) -> CdiOptions {
        std::fs::write(directory.join("first.yaml"), FIRST).unwrap();
        std::fs::write(directory.join("second.json"), SECOND).unwrap();
        std::fs::write(directory.join("broken.json"), "{").unwrap();
        std::fs::write(directory.join("notes.txt"), FIRST).unwrap();
        CdiOptions { directories: vec![directory.to_owned()], auto_allowed: Vec::new() }
    }

    fn resolve(
        cdi: &CdiOptions,
        name: &str,
        allowed: &Allowed,
    ) -> std::result::Result<String, String> {
        let wanted = [CdiDevice { name: name.to_owned(), optional: false }];
        let names = cdi.resolve(&wanted, allowed).map_err(|error| error.to_string())?;
        Ok(names.join(" "))
    }

    #[test]
    fn devices_are_found_by_name_kind_and_class() {
        let temp = tempfile::tempdir().unwrap();
        let cdi = options(temp.path());
        let none = Allowed::default();
        let find = |name: &str| resolve(&cdi, name, &none);
        assert_eq!(find("vendor.com/device=foo").unwrap(), "vendor.com/device=foo");
        assert_eq!(find("vendor.com/device").unwrap(), "vendor.com/device=bar");
        assert_eq!(
            find("vendor.com/device=*").unwrap(),
            "vendor.com/device=bar vendor.com/device=foo"
        );
        assert_eq!(find("class1").unwrap(), "vendor.com/device=foo");
        assert_eq!(
            find("vendor.com/device=baz").unwrap_err(),
            r#"required device "vendor.com/device=baz" is not registered"#
        );
        let optional = [CdiDevice { name: "x.com/y=z".to_owned(), optional: true }];
        assert!(cdi.resolve(&optional, &none).unwrap().is_empty());
        let edits = cdi.edits(&["vendor.com/device=foo".into(), "vendor.com/device=bar".into()]);
        let env: Vec<_> = edits.iter().flat_map(|edits| edits.env.clone()).collect();
        assert_eq!(env, ["FOO=injected", "ALL=1", "BAR=injected"]);
    }

    #[test]
    fn devices_need_an_entitlement() {
        let temp = tempfile::tempdir().unwrap();
        let cdi = options(temp.path());
        let find = |name: &str, devices: AllowedDevices| {
            resolve(&cdi, name, &Allowed { devices, ..Allowed::default() })
        };
        let none = AllowedDevices::default();
        assert_eq!(
            find("other.com/gpu=0", none.clone()).unwrap_err(),
            "device other.com/gpu=0 is requested by the build but not allowed"
        );
        let mut some = none.clone();
        some.grant("other.com/gpu").unwrap();
        assert!(find("other.com/gpu=0", some).is_ok());
        let mut alias = none.clone();
        alias.grant("other.com/gpu=0,alias=gpu").unwrap();
        assert_eq!(find("gpu", alias.clone()).unwrap(), "other.com/gpu=0");
        assert!(find("other.com/gpu=0", alias).is_err());
        let mut all = none;
        all.grant("").unwrap();
        assert!(find("other.com/gpu=0", all).is_ok());
        let listed = CdiOptions { auto_allowed: vec!["other.com/gpu".into()], ..cdi.clone() };
        assert!(resolve(&listed, "other.com/gpu=0", &Allowed::default()).is_ok());
    }

    #[test]
    fn later_directories_replace_devices_and_conflicts_remove_them() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut cdi = options(first.path());
        std::fs::write(second.path().join("a.json"), SECOND.replace("GPU=0", "GPU=new")).unwrap();
        cdi.directories.push(second.path().to_owned());
        assert_eq!(cdi.edits(&["other.com/gpu=0".into()])[0].env, ["GPU=new"]);
        std::fs::write(second.path().join("b.json"), SECOND).unwrap();
        assert_eq!(cdi.devices().len(), 2);
    }
}
