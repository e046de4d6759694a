//! Node packages: those in a `node_modules` directory, and those of lock files that aren't
//! installed. Development dependencies of lock files are left out.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::source::{Files, MANIFEST};
use super::{Found, Package};
use crate::error::Result;
use crate::purl::PackageUrl;

/// The maximum size of a lock file in bytes.
const LOCK: u64 = 64 << 20;
/// The maximum depth of nested dependencies in a lock file of version 1.
const DEPTH: u32 = 64;

/// The metadata in a package's `package.json`.
#[derive(Deserialize)]
struct Manifest {
    name: String,
    version: String,
    license: Option<Value>,
    author: Option<Value>,
    homepage: Option<Value>,
}

pub(super) fn find(files: &Files<'_>, found: &mut Found) -> Result<()> {
    for path in &files.named(is_installed) {
        let Some(bytes) = files.read(path, MANIFEST)? else { continue };
        // Packages also contain files named `package.json` for other purposes.
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { continue };
        found.add(Package {
            url: url(&manifest.name, &manifest.version),
            found_in: path.to_owned(),
            license: text(manifest.license, "type"),
            supplier: text(manifest.author, "name"),
            homepage: text(manifest.homepage, "url"),
            name: manifest.name,
            version: manifest.version,
        });
    }
    for path in &files.named(|_, name| name == "package-lock.json") {
        let Some(bytes) = files.read(path, LOCK)? else { continue };
        let Ok(Value::Object(lock)) = serde_json::from_slice(&bytes) else {
            found.warn(path, "it is no lock file of npm's");
            continue;
        };
        for (name, version) in locked(&lock) {
            let url = url(&name, &version);
            if !found.knows(&url) {
                let found_in = path.to_owned();
                found.add(Package { url, name, version, found_in, ..Package::default() });
            }
        }
    }
    Ok(())
}

/// Returns `true` for the `package.json` of an installed package: `node_modules/NAME/package.json`
/// or `node_modules/@SCOPE/NAME/package.json`.
fn is_installed(path: &str, name: &str) -> bool {
    if name != "package.json" {
        return false;
    }
    let mut parents = path.rsplit('/').skip(1);
    let (_, above, further) = (parents.next(), parents.next(), parents.next());
    match above {
        Some("node_modules") => true,
        Some(scope) => scope.starts_with('@') && further == Some("node_modules"),
        None => false,
    }
}

/// Returns the name and version of each package in a lock file.
fn locked(lock: &Map<String, Value>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    match (lock.get("packages"), lock.get("dependencies")) {
        (Some(Value::Object(packages)), _) => {
            for (place, package) in packages {
                let name = package["name"].as_str();
                let name = name.or_else(|| Some(place.rsplit_once("node_modules/")?.1));
                add(&mut all, name, package);
            }
        }
        (_, Some(Value::Object(dependencies))) => nested(&mut all, dependencies, DEPTH),
        _ => {}
    }
    all
}

fn nested(all: &mut Vec<(String, String)>, dependencies: &Map<String, Value>, depth: u32) {
    for (name, package) in dependencies {
        add(all, Some(name), package);
        if let Some(Value::Object(below)) = package.get("dependencies")
            && depth > 0
        {
            nested(all, below, depth - 1);
        }
    }
}

fn add(all: &mut Vec<(String, String)>, name: Option<&str>, package: &Value) {
    let is_left_out = ["dev", "link", "extraneous"].iter().any(|key| package[*key] == true);
    if let (Some(name), Some(version)) = (name, package["version"].as_str())
        && !is_left_out
    {
        all.push((name.to_owned(), version.to_owned()));
    }
}

fn url(name: &str, version: &str) -> String {
    let (scope, name) = name.split_once('/').unwrap_or(("", name));
    PackageUrl { kind: "npm", namespace: &[scope], name, version, qualifiers: &[] }.build()
}

/// Returns a string, or the string member of an object.
fn text(value: Option<Value>, member: &str) -> Option<String> {
    match value? {
        Value::String(text) => Some(text),
        Value::Object(members) => members.get(member)?.as_str().map(str::to_owned),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, urls};

    #[test]
    fn installed_and_locked_packages_are_found() {
        let lock = r#"{"lockfileVersion": 3, "packages": {
            "": {"name": "app", "version": "1.0.0"},
            "node_modules/left-pad": {"version": "1.3.0"},
            "node_modules/a/node_modules/b": {"version": "2.0.0"},
            "node_modules/tool": {"version": "9.0.0", "dev": true}}}"#;
        let old =
            r#"{"dependencies": {"x": {"version": "1", "dependencies": {"y": {"version": "2"}}}}}"#;
        let sbom = found(&[
            (
                "app/node_modules/left-pad/package.json",
                r#"{"name": "left-pad", "version": "1.3.0", "license": "WTFPL"}"#,
            ),
            (
                "app/node_modules/@types/node/package.json",
                r#"{"name": "@types/node", "version": "20.1.0", "author": {"name": "Somebody"}}"#,
            ),
            ("app/node_modules/left-pad/lib/package.json", r#"{"name": "no", "version": "1"}"#),
            ("app/node_modules/broken/package.json", "{"),
            ("app/package-lock.json", lock),
            ("old/package-lock.json", old),
            ("bad/package-lock.json", "[]"),
        ]);
        let expected = [
            "pkg:npm/%40types/node@20.1.0",
            "pkg:npm/app@1.0.0",
            "pkg:npm/b@2.0.0",
            "pkg:npm/left-pad@1.3.0",
            "pkg:npm/x@1",
            "pkg:npm/y@2",
        ];
        assert_eq!(urls(&sbom), expected);
        assert_eq!(sbom.packages[0].supplier.as_deref(), Some("Somebody"));
        assert_eq!(sbom.warnings.len(), 1, "{:?}", sbom.warnings);
    }
}
