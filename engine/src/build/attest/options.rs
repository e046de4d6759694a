//! `--attest`, and its short forms `--provenance` and `--sbom`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use kiln_attest::{SbomOptions, SlsaVersion};
use kiln_exporter::{Output, csv_fields};
use kiln_oci::text::parse_bool;
use serde_json::{Map, Value};

use super::super::scanner::Scanner;

const PROVENANCE: &str = "provenance";
const SBOM: &str = "sbom";
/// The parameter of a bill of materials that names the image of a scanner.
const GENERATOR: &str = "generator";
/// The name of the file with kiln's own bill of materials in outputs of files.
const SBOM_FILE: &str = "sbom.spdx.json";
/// The prefixes of a frontend's options about attestations. A later one replaces an earlier one.
const ATTEST: [&str; 2] = ["build-arg:BUILDKIT_ATTEST_", "attest:"];

/// The attestations to attach to images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttestOptions {
    /// The options of the provenance; `None` for no provenance.
    pub(super) provenance: Option<ProvenanceOptions>,
    /// The maker of the bill of materials; `None` for no bill.
    pub(super) sbom: Option<SbomMaker>,
}

/// The maker of a bill of materials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SbomMaker {
    /// The search for packages of kiln itself, with the name of the file in outputs of files.
    Own(String),
    /// A scanner's image.
    Scanner(Scanner),
}

/// The amount of detail in the provenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Without the values of arguments, and without steps.
    Min,
    /// Everything except credentials.
    Max,
}

/// The options of the provenance.
#[expect(clippy::struct_excessive_bools, reason = "each is a parameter of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProvenanceOptions {
    pub(super) mode: Mode,
    pub(super) builder_id: String,
    pub(super) version: SlsaVersion,
    pub(super) file_name: String,
    pub(super) reproducible: bool,
    pub(super) inline_only: bool,
    /// `true` if the provenance holds the build's ID and times.
    pub(super) timestamps: bool,
    /// `true` if the build fails when a material has no digest.
    pub(super) complete_materials: bool,
    /// The members about the builder's environment.
    pub(super) environment: Map<String, Value>,
}

impl AttestOptions {
    /// Parses the values of buildx's options `--attest`, `--provenance` and `--sbom`.
    ///
    /// # Errors
    /// Fails if a value is invalid, or if an attestation is requested twice.
    pub fn parse(attests: &[String], provenance: Option<&str>, sbom: Option<&str>) -> Result<Self> {
        let mut options = Self::default();
        let mut seen = Vec::new();
        let short = [(PROVENANCE, provenance), (SBOM, sbom)];
        let short =
            short.into_iter().filter_map(|(kind, text)| Some((kind, canonical(kind, text?))));
        let typed = attests.iter().map(|text| ("attest", text.clone())).chain(short);
        for (flag, text) in typed {
            let kind = options.add(&text).with_context(|| format!("invalid --{flag}"))?;
            if seen.contains(&kind) {
                bail!("attestations of type {kind} are asked for twice");
            }
            seen.push(kind);
        }
        Ok(options)
    }

    /// Reads the options of a frontend that are about attestations: `attest:TYPE`. Unknown parameters
    /// are ignored, as in BuildKit. All parameters of a scanner but `generator` are the scanner's.
    ///
    /// # Errors
    /// Fails if a type isn't known, or a value is invalid.
    pub fn of_frontend<'a>(
        options: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self> {
        let options: Vec<(&String, &String)> = options.into_iter().collect();
        let mut read = Self::default();
        for prefix in ATTEST {
            for (name, text) in &options {
                if let Some(kind) = name.strip_prefix(prefix) {
                    read.add_of_frontend(&kind.to_lowercase(), text)?;
                }
            }
        }
        Ok(read)
    }

    fn add_of_frontend(&mut self, kind: &str, text: &str) -> Result<()> {
        let mut keys = Keys::read_loosely(text)?;
        match kind {
            PROVENANCE => {
                keys.0.remove("capture-usage");
                keys.0.insert("timestamps".to_owned(), "true".to_owned());
                self.provenance = Some(keys.provenance()?);
            }
            SBOM => {
                self.sbom = Some(match keys.take(GENERATOR) {
                    None => SbomMaker::Own(SBOM_FILE.to_owned()),
                    Some(image) => SbomMaker::Scanner(Scanner::new(&image, keys.0)?),
                });
            }
            other => bail!("unknown attestation type {other:?}"),
        }
        Ok(())
    }

    /// Returns the scanner that makes the bills of materials, if the user names one.
    pub fn scanner(&self) -> Option<&Scanner> {
        match &self.sbom {
            Some(SbomMaker::Scanner(scanner)) => Some(scanner),
            _ => None,
        }
    }

    /// Returns the options of the bill of materials that kiln itself makes, if the user requests one.
    pub fn own_sbom(&self) -> Option<SbomOptions> {
        let Some(SbomMaker::Own(file_name)) = &self.sbom else { return None };
        let tool = concat!("kiln-", env!("CARGO_PKG_VERSION")).to_owned();
        Some(SbomOptions { tool, file_name: file_name.clone() })
    }

    /// Adds members about the builder's environment to the provenance, if it is requested.
    #[must_use]
    pub fn with_environment(mut self, environment: &Map<String, Value>) -> Self {
        if let Some(provenance) = &mut self.provenance {
            provenance.environment.clone_from(environment);
        }
        self
    }

    /// Returns `true` if the images get attestations.
    pub(in crate::build) fn is_requested(&self) -> bool {
        self.provenance.is_some() || self.sbom.is_some()
    }

    /// Returns `true` if provenance is requested.
    pub fn has_provenance(&self) -> bool {
        self.provenance.is_some()
    }

    /// Rejects outputs that can't hold the attestations, before the build begins.
    ///
    /// # Errors
    /// Fails for such an output.
    pub fn check(&self, outputs: &[Output]) -> Result<()> {
        let is_inline = self.provenance.as_ref().is_none_or(|it| it.inline_only);
        if self.sbom.is_some() || !is_inline {
            outputs.iter().try_for_each(Output::check_attestations)?;
        }
        Ok(())
    }

    /// Adds `type=TYPE,…` to the options and returns the type.
    fn add(&mut self, text: &str) -> Result<String> {
        let (mut keys, spellings) = (Keys::read(text)?, Keys::spellings(text)?);
        let kind = keys.take("type").context("type is required: provenance or sbom")?;
        let is_disabled = keys.flag("disabled")?;
        match kind.as_str() {
            PROVENANCE => {
                let options = keys.provenance()?;
                self.provenance = (!is_disabled).then_some(options);
            }
            SBOM => {
                let maker = keys.sbom(&spellings)?;
                self.sbom = (!is_disabled).then_some(maker);
            }
            other => bail!("unknown type {other:?}: provenance or sbom"),
        }
        keys.nothing_left(&kind)?;
        Ok(kind)
    }
}

/// Expands the value of a short form into the value of `--attest`.
fn canonical(kind: &str, text: &str) -> String {
    match parse_bool(text) {
        Some(wanted) => format!("type={kind},disabled={}", !wanted),
        None if text.is_empty() => format!("type={kind}"),
        None => format!("type={kind},{text}"),
    }
}

/// The fields of an option that the parser has not taken yet.
struct Keys(BTreeMap<String, String>);

impl Keys {
    /// Reads fields without values, too.
    fn read_loosely(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self(BTreeMap::new()));
        }
        let fields = csv_fields(text).map_err(|problem| anyhow::anyhow!("{text:?}: {problem}"))?;
        let pair = |field: String| match field.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (field, String::new()),
        };
        Ok(Self(fields.into_iter().map(pair).collect()))
    }

    fn read(text: &str) -> Result<Self> {
        let fields = csv_fields(text).map_err(|problem| anyhow::anyhow!("{text:?}: {problem}"))?;
        let mut values = BTreeMap::new();
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                bail!("{field:?} is not of the form key=value");
            };
            let key = key.trim().to_lowercase();
            if values.insert(key.clone(), value.to_owned()).is_some() {
                bail!("{key} is given twice");
            }
        }
        Ok(Self(values))
    }

    /// Returns the keys as the user has written them, by their lower-case form.
    fn spellings(text: &str) -> Result<BTreeMap<String, String>> {
        let fields = csv_fields(text).map_err(|problem| anyhow::anyhow!("{text:?}: {problem}"))?;
        let key = |field: &String| field.split('=').next().unwrap_or_default().trim().to_owned();
        Ok(fields.iter().map(key).map(|key| (key.to_lowercase(), key)).collect())
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// Takes the parameters of a bill of materials. Those that are left are a scanner's.
    fn sbom(&mut self, spellings: &BTreeMap<String, String>) -> Result<SbomMaker> {
        let Some(image) = self.take(GENERATOR) else {
            return Ok(SbomMaker::Own(self.file_name(SBOM_FILE)?));
        };
        if self.take("filename").is_some() {
            bail!("filename has no effect with generator: the generator names its files");
        }
        let spelled = |(key, value)| (spellings.get(&key).cloned().unwrap_or(key), value);
        let parameters = std::mem::take(&mut self.0).into_iter().map(spelled).collect();
        Ok(SbomMaker::Scanner(Scanner::new(&image, parameters)?))
    }

    fn flag(&mut self, key: &str) -> Result<bool> {
        let Some(text) = self.take(key) else { return Ok(false) };
        parse_bool(&text).with_context(|| format!("{key} is {text:?}, expected true or false"))
    }

    /// Takes the name of a file. The name must not contain directories.
    fn file_name(&mut self, default: &str) -> Result<String> {
        let name = self.take("filename").unwrap_or_else(|| default.to_owned());
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            bail!("filename {name:?} is no name of a file");
        }
        Ok(name)
    }

    fn provenance(&mut self) -> Result<ProvenanceOptions> {
        let mode = match self.take("mode").as_deref() {
            None | Some("max" | "full") => Mode::Max,
            Some("min") => Mode::Min,
            Some(other) => bail!("unknown mode {other:?}: min or max"),
        };
        let version = match self.take("version").as_deref() {
            None | Some("v1") => SlsaVersion::V1,
            Some("v0.2") => SlsaVersion::V02,
            Some(other) => bail!("unknown version {other:?}: v1 or v0.2"),
        };
        if self.flag("capture-usage")? {
            bail!("capture-usage is not supported: what steps use is not recorded");
        }
        Ok(ProvenanceOptions {
            mode,
            version,
            builder_id: self.take("builder-id").unwrap_or_default(),
            file_name: self.file_name("provenance.json")?,
            reproducible: self.flag("reproducible")?,
            inline_only: self.flag("inline-only")?,
            timestamps: self.flag("timestamps")?,
            environment: Map::new(),
            complete_materials: self.flag("complete-materials")?,
        })
    }

    fn nothing_left(&self, kind: &str) -> Result<()> {
        let Some(key) = self.0.keys().next() else { return Ok(()) };
        let known = match kind {
            PROVENANCE => {
                "builder-id, complete-materials, disabled, filename, inline-only, mode, \
                 reproducible, timestamps and version"
            }
            _ => "disabled, filename and generator; others need a generator",
        };
        bail!("unknown key {key:?}: {kind} takes {known}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        attests: &[&str],
        provenance: Option<&str>,
        sbom: Option<&str>,
    ) -> Result<AttestOptions> {
        let attests: Vec<String> = attests.iter().map(ToString::to_string).collect();
        AttestOptions::parse(&attests, provenance, sbom)
    }

    #[test]
    fn nothing_is_said_by_default() {
        for options in [
            resolve(&[], None, None),
            resolve(&[], Some("false"), Some("0")),
            resolve(&["type=provenance,disabled=true", "type=sbom,disabled=1"], None, None),
        ] {
            assert_eq!(options.unwrap(), AttestOptions::default());
        }
    }

    #[test]
    fn options_of_frontends_are_read() {
        let read = |name: &str, text: &str| {
            AttestOptions::of_frontend([(&name.to_owned(), &text.to_owned())])
        };
        let text = "mode=min,inline-only=true,unknown,version=v0.2";
        let provenance = read("attest:provenance", text).unwrap().provenance.unwrap();
        assert_eq!((provenance.mode, provenance.version), (Mode::Min, SlsaVersion::V02));
        assert!(provenance.inline_only && provenance.timestamps);
        assert!(read("build-arg:BUILDKIT_ATTEST_PROVENANCE", "").unwrap().has_provenance());
        assert!(!read("target", "x").unwrap().has_provenance());
        assert!(read("attest:other", "").is_err() && read("attest:provenance", "mode=x").is_err());
        for text in ["", "type=sbom,disabled=false"] {
            let options = read("attest:sbom", text).unwrap();
            assert_eq!(options.own_sbom().unwrap().file_name, "sbom.spdx.json");
            assert_eq!(options.scanner(), None);
        }
        let options = read("build-arg:BUILDKIT_ATTEST_SBOM", "generator=a/b:1,EXTRA=x,y").unwrap();
        let parameters = [("EXTRA", "x"), ("y", "")];
        assert_eq!(options.scanner(), Some(&scanner("a/b:1", &parameters)));
        assert!(options.own_sbom().is_none());
        assert!(read("attest:sbom", "generator=").is_err());
        let both = [("attest:sbom", ""), ("build-arg:BUILDKIT_ATTEST_SBOM", "generator=a")];
        let both = both.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let both = both.iter().map(|(name, text)| (name, text));
        assert!(AttestOptions::of_frontend(both).unwrap().own_sbom().is_some());
    }

    fn scanner(image: &str, parameters: &[(&str, &str)]) -> Scanner {
        let owned =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Scanner::new(image, owned.collect()).unwrap()
    }

    #[test]
    fn scanners_are_named_with_their_parameters() {
        for options in [
            resolve(&["type=sbom,Generator=a/b:1,ARG1=x,\"Other=y,z\""], None, None).unwrap(),
            resolve(&[], None, Some("generator=a/b:1,ARG1=x,\"Other=y,z\"")).unwrap(),
        ] {
            let parameters = [("ARG1", "x"), ("Other", "y,z")];
            assert_eq!(options.scanner(), Some(&scanner("a/b:1", &parameters)));
        }
        let disabled = resolve(&["type=sbom,generator=a,disabled=true"], None, None).unwrap();
        assert_eq!(disabled.scanner(), None);
    }

    #[test]
    fn short_forms_and_parameters_are_read() {
        let options = resolve(&[], Some("true"), Some("true")).unwrap();
        assert_eq!(
            options,
            resolve(&["type=sbom", "type=provenance,mode=max"], None, None).unwrap()
        );
        assert_eq!(options.sbom, Some(SbomMaker::Own("sbom.spdx.json".to_owned())));
        let text = "mode=min,version=v0.2,reproducible=true,inline-only=true,filename=p.json,\
                    \"builder-id=https://h/a,b\"";
        let provenance = resolve(&[], Some(text), None).unwrap().provenance.unwrap();
        assert_eq!((provenance.mode, provenance.version), (Mode::Min, SlsaVersion::V02));
        assert_eq!(provenance.builder_id, "https://h/a,b");
        assert!(provenance.reproducible && provenance.inline_only && !provenance.timestamps);
        assert_eq!(provenance.file_name, "p.json");
    }

    #[test]
    fn mistakes_are_named() {
        for (provenance, expected) in [
            ("mode=all", "unknown mode \"all\""),
            ("version=v2", "unknown version \"v2\""),
            ("reproducible=maybe", "reproducible is \"maybe\""),
            ("filename=../x", "filename \"../x\""),
            ("modes=max", "unknown key \"modes\""),
            ("mode=max,mode=min", "mode is given twice"),
            ("yes", "\"yes\" is not of the form key=value"),
            ("capture-usage=true", "capture-usage is not supported"),
        ] {
            let error = format!("{:#}", resolve(&[], Some(provenance), None).unwrap_err());
            assert!(error.contains("invalid --provenance") && error.contains(expected), "{error}");
        }
        for (attest, expected) in [
            ("mode=max", "type is required"),
            ("type=other", "unknown type \"other\""),
            ("type=sbom,generator=", "sbom generator cannot be empty"),
            ("type=sbom,generator=a b", "failed to parse sbom generator a b"),
            ("type=sbom,generator=a,filename=x", "filename has no effect with generator"),
            ("type=sbom,ARG1=x", "unknown key \"arg1\""),
        ] {
            let error = format!("{:#}", resolve(&[attest], None, None).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        assert!(resolve(&["type=sbom"], None, Some("true")).is_err());
    }
}
