//! Scanners: images whose programs write bills of materials, by BuildKit's protocol.
//!
//! A scan is a step of a graph like any other, so that it is cached. Its program finds the files of
//! the image in [`CORE`] and other files in directories of [`EXTRAS`], all read-only, and writes
//! in-toto statements to [`DESTINATION`]. Their predicates are SPDX documents.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use kiln_attest::GivenFormat;
use kiln_frontend::ScanExtras;
use kiln_llb::op::{ExecOp, Meta, Mount, MountKind, OpKind};
use kiln_llb::{Edge, Node, OpMetadata};
use kiln_oci::{ContainerConfig, Platform, Reference};

/// The type of the predicates.
pub const SPDX: &str = "https://spdx.dev/Document";
/// The name of the directory with the image's files, and of the statement about them.
pub const CORE_SBOM: &str = "sbom";
/// The directory of the image's files in the scanner.
const CORE: &str = "/run/src/core/sbom";
/// The directory of other files in the scanner, each in a directory of its own.
const EXTRAS: &str = "/run/src/extras";
/// The directory for the scanner's statements.
const DESTINATION: &str = "/run/out/";
/// The output of a scan that holds the statements. The other one is the root file system.
const STATEMENTS: u32 = 1;

/// A scanner that a user requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanner {
    image: Reference,
    /// The parameters, which are variables of the program: `BUILDKIT_SCAN_NAME`.
    parameters: BTreeMap<String, String>,
}

/// The image of a scanner.
#[derive(Debug)]
pub struct ScannerImage {
    /// The files.
    pub files: Edge,
    /// The environment and the program.
    pub config: ContainerConfig,
}

/// The files that a scanner reads.
#[derive(Debug)]
pub struct Scanned<'a> {
    /// The platform of the image, in the title of the step.
    pub platform: &'a str,
    /// The files of the image; `None` for an image without files.
    pub core: Option<Edge>,
    /// Other files.
    pub extras: &'a ScanExtras,
}

impl Scanner {
    /// Returns the scanner of an image.
    ///
    /// # Errors
    /// Fails if the name of the image is invalid.
    pub(super) fn new(image: &str, parameters: BTreeMap<String, String>) -> Result<Self> {
        if image.is_empty() {
            bail!("sbom generator cannot be empty");
        }
        let parsed = image.parse();
        let image = parsed.with_context(|| format!("failed to parse sbom generator {image}"))?;
        Ok(Self { image, parameters })
    }

    /// Returns the name of the scanner's image.
    pub fn image(&self) -> &Reference {
        &self.image
    }

    /// Returns the properties of the statements in the output of [`scan`](Self::scan).
    pub fn format() -> GivenFormat {
        GivenFormat {
            predicate_type: SPDX.to_owned(),
            core: Some(CORE_SBOM.to_owned()),
            inline_only: false,
        }
    }

    /// Returns the output with a bundle of statements about files.
    ///
    /// # Errors
    /// Fails if the scanner's image names no program.
    pub fn scan(&self, image: &ScannerImage, scanned: Scanned<'_>) -> Result<Edge> {
        let ContainerConfig { entrypoint, cmd, working_dir, .. } = &image.config;
        let args: Vec<String> =
            [entrypoint, cmd].into_iter().flatten().flatten().cloned().collect();
        if args.is_empty() {
            bail!("scanner {} does not have cmd", self.image);
        }
        let Scanned { platform, core, extras } = scanned;
        let cwd = if working_dir.is_empty() { "/" } else { working_dir }.to_owned();
        let env = self.env(&image.config.env, !extras.files.is_empty());
        let mut inputs = Inputs(Vec::new());
        let mut mounts = vec![
            Mount {
                input: inputs.number(Some(&image.files)),
                output: Some(0),
                ..Mount::new("/", MountKind::Bind)
            },
            Mount { output: Some(STATEMENTS), ..Mount::new(DESTINATION, MountKind::Bind) },
            inputs.source(CORE, core.as_ref()),
        ];
        let extra = |(name, files): (&String, &Option<Edge>)| {
            inputs.source(&format!("{EXTRAS}/{CORE_SBOM}-{name}"), files.as_ref())
        };
        mounts.extend(extras.files.iter().map(extra));
        mounts.push(Mount::new("/tmp", MountKind::Tmpfs { size: 0, explicit: true }));
        let meta = Meta { args, env, cwd, ..Meta::default() };
        let op = OpKind::Exec(ExecOp { meta, mounts, ..ExecOp::default() });
        let title = format!("[{platform}] generating sbom using {}", self.image);
        let metadata = OpMetadata {
            description: BTreeMap::from([("llb.customname".to_owned(), title)]),
            ignore_cache: extras.ignore_cache,
            ..OpMetadata::default()
        };
        Ok(Node::new(op, inputs.0, Some(Platform::host()), metadata).output(STATEMENTS))
    }

    /// Returns the environment of the program. A variable that is set again moves to the end.
    fn env(&self, image: &[String], has_extras: bool) -> Vec<String> {
        let protocol = [
            Some(format!("BUILDKIT_SCAN_DESTINATION={DESTINATION}")),
            Some(format!("BUILDKIT_SCAN_SOURCE={CORE}")),
            has_extras.then(|| format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}")),
        ];
        let own = self.parameters.iter().map(|(name, it)| format!("BUILDKIT_SCAN_{name}={it}"));
        let mut env: Vec<String> = Vec::new();
        for entry in image.iter().cloned().chain(protocol.into_iter().flatten()).chain(own) {
            let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
            env.retain(|earlier| name(earlier) != name(&entry));
            env.push(entry);
        }
        env
    }
}

/// The inputs of a step under construction, each once: a scanner may scan itself.
struct Inputs(Vec<Edge>);

impl Inputs {
    /// Returns the number of an input; `None` for an empty file system.
    fn number(&mut self, files: Option<&Edge>) -> Option<u32> {
        let files = files?;
        let known = self.0.iter().position(|input| input.input() == files.input());
        let number = known.unwrap_or_else(|| {
            self.0.push(files.clone());
            self.0.len() - 1
        });
        u32::try_from(number).ok()
    }

    fn source(&mut self, path: &str, files: Option<&Edge>) -> Mount {
        let input = self.number(files);
        Mount { input, readonly: true, ..Mount::new(path, MountKind::Bind) }
    }
}

#[cfg(test)]
mod tests {
    use kiln_llb::Graph;
    use kiln_llb::op::SourceOp;

    use super::*;

    fn files(name: &str) -> Edge {
        let source = SourceOp { identifier: format!("local://{name}"), ..SourceOp::default() };
        Node::new(OpKind::Source(source), Vec::new(), None, OpMetadata::default()).output(0)
    }

    fn scan(core: Option<Edge>, extras: &ScanExtras, cmd: &[&str]) -> Result<ExecOp> {
        let parameters = [("ARG".to_owned(), "x=y".to_owned())].into();
        let scanner = Scanner::new("a/b", parameters)?;
        let cmd = Some(cmd.iter().map(|arg| (*arg).to_owned()).collect());
        let env = vec!["BUILDKIT_SCAN_ARG=old".to_owned(), "PATH=/bin".to_owned()];
        let config = ContainerConfig { cmd, env, ..ContainerConfig::default() };
        let image = ScannerImage { files: files("scanner"), config };
        let edge = scanner.scan(&image, Scanned { platform: "linux/amd64", core, extras })?;
        Graph::load(&edge.marshal())?;
        assert_eq!(edge.index(), 1);
        match edge.node().op().kind.clone() {
            Some(OpKind::Exec(exec)) => Ok(exec),
            other => bail!("{other:?}"),
        }
    }

    #[test]
    fn scans_have_the_directories_and_variables_of_the_protocol() {
        let one = |name: &str, files| (name.to_owned(), files);
        let extras = ScanExtras {
            files: [one("context", Some(files("image"))), one("empty", None)].into(),
            ignore_cache: false,
        };
        let exec = scan(Some(files("image")), &extras, &["/scan"]).unwrap();
        let mounts: Vec<_> =
            exec.mounts.iter().map(|mount| (mount.dest.as_str(), mount.input)).collect();
        let expected = [
            ("/", Some(0)),
            ("/run/out/", None),
            ("/run/src/core/sbom", Some(1)),
            ("/run/src/extras/sbom-context", Some(1)),
            ("/run/src/extras/sbom-empty", None),
            ("/tmp", None),
        ];
        assert_eq!(mounts, expected);
        let env = [
            "PATH=/bin",
            "BUILDKIT_SCAN_DESTINATION=/run/out/",
            "BUILDKIT_SCAN_SOURCE=/run/src/core/sbom",
            "BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras",
            "BUILDKIT_SCAN_ARG=x=y",
        ];
        assert_eq!(exec.meta.env, env);
        let exec = scan(None, &ScanExtras::default(), &["/scan"]).unwrap();
        assert!(!exec.meta.env.iter().any(|entry| entry.contains("EXTRAS")), "{exec:?}");
    }

    #[test]
    fn scanners_scan_themselves() {
        let exec = scan(Some(files("scanner")), &ScanExtras::default(), &["/scan"]).unwrap();
        assert_eq!(exec.mounts[2].input, Some(0));
    }

    #[test]
    fn scanners_need_a_name_and_a_program() {
        let error = scan(None, &ScanExtras::default(), &[]).unwrap_err();
        assert_eq!(error.to_string(), "scanner docker.io/a/b:latest does not have cmd");
        let error = |name| Scanner::new(name, BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(error(""), "sbom generator cannot be empty");
        assert_eq!(error("a b"), "failed to parse sbom generator a b");
        assert_eq!(error("a\nRUN x"), "failed to parse sbom generator a\nRUN x");
    }
}
