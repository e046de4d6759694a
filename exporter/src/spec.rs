//! Outputs out of what is typed after `--output`.
//!
//! A text is a list of `key=value` fields, separated by commas and quoted as Go's CSV reader takes
//! them. A lone path stands for `type=local,dest=PATH`, and `-` for a tar of the files on standard
//! output.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_oci::Reference;

use crate::compression::{Compression, Packing};
use crate::csv;
use crate::error::{Error, Result};

/// Where an output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file or a directory.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// What an output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// An OCI image layout in a tar.
    Oci {
        /// The tar's file.
        dest: Destination,
    },
    /// An OCI image layout in a directory.
    OciLayout {
        /// The directory.
        dest: PathBuf,
    },
    /// A tar that `docker load` takes.
    Docker {
        /// The tar's file.
        dest: Destination,
    },
    /// An image in the store.
    Image,
    /// An image in a registry, and nowhere else.
    Registry,
    /// The files, in a directory.
    Local {
        /// The directory.
        dest: PathBuf,
        /// Whether each platform gets a directory of its own; `None`: where there are several.
        split: Option<bool>,
    },
    /// The files, in a tar.
    Tar {
        /// The tar's file.
        dest: Destination,
        /// Whether each platform gets a directory of its own; `None`: where there are several.
        split: Option<bool>,
    },
}

/// One output of a build.
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// The image's names.
    pub names: Vec<Reference>,
    /// Whether the image is brought into the registries of its names.
    pub push: bool,
    /// Whether it has no name there but its digest.
    pub push_by_digest: bool,
    /// How layers are packed.
    pub packing: Packing,
    /// Whether media types are OCI's rather than Docker's.
    pub oci_types: bool,
    /// Whether manifests of attestations are artifacts of OCI 1.1.
    pub oci_artifact: bool,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

const TYPES: &[&str] = &["docker", "image", "local", "oci", "registry", "tar"];

/// The keys that each type takes, besides `type`.
const IMAGE_KEYS: &[&str] = &[
    "compression",
    "compression-level",
    "force-compression",
    "name",
    "oci-artifact",
    "oci-mediatypes",
    "push",
    "push-by-digest",
    "rewrite-timestamp",
];

impl Output {
    /// Tells whether the image is written as blobs, and not kept where it can be run.
    pub fn is_archive(&self) -> bool {
        matches!(
            self.kind,
            OutputKind::Oci { .. }
                | OutputKind::OciLayout { .. }
                | OutputKind::Docker { .. }
                | OutputKind::Registry
        )
    }

    /// Returns an output of a kind, with nothing special about it.
    pub fn new(kind: OutputKind) -> Self {
        let oci_types = !matches!(kind, OutputKind::Docker { .. });
        Self {
            push: kind == OutputKind::Registry,
            kind,
            names: Vec::new(),
            push_by_digest: false,
            packing: Packing::default(),
            oci_types,
            oci_artifact: false,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads what is typed after `--output`.
    ///
    /// # Errors
    /// Fails on types, keys and values that are unknown or wrong, and on those that are not
    /// supported yet, naming them.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |problem: String| Error::Spec { text: text.to_owned(), problem };
        let fields = csv::fields(text).map_err(fail)?;
        if let [only] = fields.as_slice()
            && only == text
            && !text.starts_with("type=")
        {
            return match text {
                "" => Err(fail("it is empty".to_owned())),
                "-" => Ok(Self::new(OutputKind::Tar { dest: Destination::Stdout, split: None })),
                path => Ok(Self::new(OutputKind::Local { dest: path.into(), split: None })),
            };
        }
        let mut keys = Keys::read(&fields).map_err(fail)?;
        let output = keys.output().map_err(fail)?;
        keys.nothing_left().map_err(fail)?;
        Ok(output)
    }

    /// Makes sure that what is pushed has names to be pushed by.
    ///
    /// # Errors
    /// Fails where it has none, or one that says more than the digest does.
    pub fn check_names(&self) -> Result<()> {
        if self.push && self.names.is_empty() {
            return Err(Error::Unsupported("tag is needed when pushing to registry".to_owned()));
        }
        let tagged = |name: &&Reference| name.tag().is_some_and(|tag| tag != "latest");
        if self.push_by_digest
            && let Some(name) = self.names.iter().find(tagged)
        {
            return Err(Error::Unsupported(format!("can't push tagged ref {name} by digest")));
        }
        Ok(())
    }

    /// Tells whether it goes to standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(
            &self.kind,
            OutputKind::Oci { dest: Destination::Stdout }
                | OutputKind::Docker { dest: Destination::Stdout }
                | OutputKind::Tar { dest: Destination::Stdout, .. }
        )
    }
}

/// The keys of a text that have not been used yet.
struct Keys {
    kind: String,
    values: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

type Checked<T> = std::result::Result<T, String>;

impl Keys {
    fn read(fields: &[String]) -> Checked<Self> {
        let mut values = BTreeMap::new();
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                return Err(format!("{field:?} is not of the form key=value"));
            };
            let key = key.trim().to_lowercase();
            if values.insert(key.clone(), value.to_owned()).is_some() {
                return Err(format!("{key} is given twice"));
            }
        }
        let kind = values.remove("type").ok_or("type is required")?;
        Ok(Self { kind, values, known: Vec::new() })
    }

    fn output(&mut self) -> Checked<Output> {
        let mut output = Output::new(self.kind()?);
        if matches!(output.kind, OutputKind::Local { .. } | OutputKind::Tar { .. }) {
            return Ok(output);
        }
        self.known.extend_from_slice(IMAGE_KEYS);
        output.names = self.names()?;
        output.packing = self.packing()?;
        if let Some(oci) = self.flag("oci-mediatypes")? {
            output.oci_types = oci;
        }
        output.oci_artifact = self.flag("oci-artifact")? == Some(true);
        if output.oci_artifact && !output.oci_types {
            return Err("oci-artifact=true conflicts with Docker's media types".to_owned());
        }
        self.pushing(&mut output)?;
        if self.flag("rewrite-timestamp")? == Some(true) {
            return Err("rewrite-timestamp is not supported yet".to_owned());
        }
        let is_annotation = |key: &String| key.starts_with("annotation.");
        let keys: Vec<String> =
            self.values.keys().filter(|key| is_annotation(key)).cloned().collect();
        for key in keys {
            let value = self.values.remove(&key).unwrap_or_default();
            output.annotations.insert(key["annotation.".len()..].to_owned(), value);
        }
        Ok(output)
    }

    fn pushing(&mut self, output: &mut Output) -> Checked<()> {
        let kinds = [OutputKind::Image, OutputKind::Registry];
        match self.flag("push")? {
            Some(true) if !kinds.contains(&output.kind) => {
                return Err(format!("type {} can't be pushed: add a type=registry", self.kind));
            }
            Some(false) if output.kind == OutputKind::Registry => {
                return Err("type registry with push=false goes nowhere".to_owned());
            }
            push => output.push |= push == Some(true),
        }
        output.push_by_digest = self.flag("push-by-digest")? == Some(true);
        if output.push_by_digest && !output.push {
            return Err("push-by-digest is for what is pushed".to_owned());
        }
        Ok(())
    }

    fn kind(&mut self) -> Checked<OutputKind> {
        if !matches!(self.kind.as_str(), "image" | "registry") {
            self.known.push("dest");
        }
        match self.kind.as_str() {
            "oci" => {
                self.known.push("tar");
                if self.flag("tar")? == Some(false) {
                    return Ok(OutputKind::OciLayout { dest: self.directory()? });
                }
                Ok(OutputKind::Oci { dest: self.file()? })
            }
            "docker" if !self.values.contains_key("dest") => {
                Err("dest is required: there is no engine to load the image into".to_owned())
            }
            "docker" => Ok(OutputKind::Docker { dest: self.file()? }),
            "image" => Ok(OutputKind::Image),
            "registry" => Ok(OutputKind::Registry),
            "local" => {
                self.known.push("platform-split");
                let split = self.flag("platform-split")?;
                Ok(OutputKind::Local { dest: self.directory()?, split })
            }
            "tar" => {
                self.known.push("platform-split");
                let split = self.flag("platform-split")?;
                Ok(OutputKind::Tar { dest: self.file()?, split })
            }
            "cacheonly" => Err(format!("type {} is not supported yet", self.kind)),
            other => {
                let hint = nearest(other, TYPES)
                    .map_or_else(|| format!("one of {}", TYPES.join(", ")), ToOwned::to_owned);
                Err(format!("unknown type {other:?}, expected {hint}"))
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        self.values.remove(key)
    }

    fn file(&mut self) -> Checked<Destination> {
        match self.take("dest").as_deref() {
            None | Some("-") => Ok(Destination::Stdout),
            Some("") => Err("dest is empty".to_owned()),
            Some(path) => Ok(Destination::Path(path.into())),
        }
    }

    fn directory(&mut self) -> Checked<PathBuf> {
        match self.take("dest").as_deref() {
            None | Some("") => Err("dest is required".to_owned()),
            Some("-") => Err("a directory can't go to standard output".to_owned()),
            Some(path) => Ok(path.into()),
        }
    }

    fn names(&mut self) -> Checked<Vec<Reference>> {
        let text = self.take("name").unwrap_or_default();
        text.split(',')
            .filter(|name| !name.is_empty())
            .map(|name| name.parse().map_err(|error| format!("name {name:?}: {error}")))
            .collect()
    }

    fn packing(&mut self) -> Checked<Packing> {
        let compression = match self.take("compression").as_deref() {
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::Uncompressed,
            Some("estargz") => return Err("compression estargz is not supported yet".to_owned()),
            Some(other) => {
                let problem = format!("unknown compression {other:?}");
                return Err(problem + ", expected gzip, zstd or uncompressed");
            }
        };
        let most = match compression {
            Compression::Uncompressed => 0,
            Compression::Gzip => 9,
            Compression::Zstd => 22,
        };
        let level = match self.take("compression-level") {
            None => None,
            Some(text) => {
                let level = text.parse::<u32>().ok().filter(|level| *level <= most);
                let name = compression.name();
                let problem = || format!("compression-level {text:?} is not 0 to {most} ({name})");
                Some(level.ok_or_else(problem)?)
            }
        };
        let force = self.flag("force-compression")?.unwrap_or_default();
        Ok(Packing { compression, level, force })
    }

    /// Reads a boolean as Go's `strconv.ParseBool` does.
    fn flag(&mut self, key: &'static str) -> Checked<Option<bool>> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(format!("{key} is {other:?}, expected true or false")),
        }
    }

    fn nothing_left(&self) -> Checked<()> {
        let Some(key) = self.values.keys().next() else { return Ok(()) };
        let hint = nearest(key, &self.known).map_or_else(
            || format!("{} takes {}", self.kind, self.known.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        Err(format!("unknown key {key:?} for type {}: {hint}", self.kind))
    }
}

/// Returns the word that `typed` is probably meant to be.
fn nearest<'a>(typed: &str, words: &[&'a str]) -> Option<&'a str> {
    let best = words.iter().map(|word| (distance(typed, word), *word)).min()?;
    (best.0 <= 2 && best.0 < typed.chars().count()).then_some(best.1)
}

/// Returns how many characters have to be inserted, removed or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Destination {
        Destination::Path(text.into())
    }

    #[test]
    fn outputs_are_read() {
        for (text, kind) in [
            ("out", OutputKind::Local { dest: "out".into(), split: None }),
            ("out=1", OutputKind::Local { dest: "out=1".into(), split: None }),
            ("-", OutputKind::Tar { dest: Destination::Stdout, split: None }),
            ("type=tar,dest=-", OutputKind::Tar { dest: Destination::Stdout, split: None }),
            (
                "type=local,dest=d,platform-split=1",
                OutputKind::Local { dest: "d".into(), split: Some(true) },
            ),
            ("type=oci,dest=a.tar", OutputKind::Oci { dest: path("a.tar") }),
            ("type=oci", OutputKind::Oci { dest: Destination::Stdout }),
            ("type=oci,dest=d,tar=false", OutputKind::OciLayout { dest: "d".into() }),
            (r#"type=docker,"dest=a,b.tar""#, OutputKind::Docker { dest: path("a,b.tar") }),
            ("type=docker,dest=-", OutputKind::Docker { dest: Destination::Stdout }),
            ("type=image", OutputKind::Image),
            ("type=registry,name=x", OutputKind::Registry),
        ] {
            assert_eq!(Output::parse(text).unwrap().kind, kind, "{text}");
        }
    }

    #[test]
    fn options_are_read() {
        let text = r#"type=image,"name=a,b:1",compression=zstd,compression-level=22,force-compression=true,oci-mediatypes=false,annotation.x=y"#;
        let output = Output::parse(text).unwrap();
        let names: Vec<String> = output.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["docker.io/library/a:latest", "docker.io/library/b:1"]);
        let packing = Packing { compression: Compression::Zstd, level: Some(22), force: true };
        assert_eq!((output.packing, output.oci_types), (packing, false));
        assert_eq!(output.annotations["x"], "y");
        assert!(!Output::parse("type=docker,dest=x").unwrap().oci_types);
        let pushed = |text: &str| {
            let output = Output::parse(text).unwrap();
            (output.push, output.push_by_digest)
        };
        assert_eq!(pushed("type=image"), (false, false));
        assert_eq!(pushed("type=image,push=true"), (true, false));
        assert_eq!(pushed("type=registry"), (true, false));
        assert_eq!(pushed("type=registry,push-by-digest=true"), (true, true));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("", "it is empty"),
            ("type=oic", "unknown type \"oic\", expected oci"),
            ("type=cacheonly", "type cacheonly is not supported yet"),
            ("dest=x,y=z", "type is required"),
            ("type=oci,dst=x", "unknown key \"dst\" for type oci: did you mean dest?"),
            ("type=image,zzz=1", "unknown key \"zzz\" for type image: image takes compression"),
            ("type=oci,dest", "\"dest\" is not of the form key=value"),
            ("type=oci,dest=a,dest=b", "dest is given twice"),
            ("type=local", "dest is required"),
            ("type=docker", "dest is required: there is no engine"),
            ("type=oci,push=true", "type oci can't be pushed"),
            ("type=registry,push=false", "goes nowhere"),
            ("type=image,push-by-digest=true", "push-by-digest is for what is pushed"),
            ("type=oci,compression=lzma", "unknown compression"),
            ("type=oci,compression-level=10", "compression-level \"10\" is not 0 to 9 (gzip)"),
            ("type=oci,tar=maybe", "tar is \"maybe\""),
            ("type=docker,dest=x,oci-artifact=true", "conflicts with Docker's media types"),
            ("type=image,name=A", "name \"A\""),
            ("type=local,dest=x,compression=gzip", "unknown key \"compression\""),
        ] {
            let error = Output::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
