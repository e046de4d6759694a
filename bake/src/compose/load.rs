//! Files of compose, with those that they include and extend.

use std::collections::BTreeMap;

use super::dotenv;
use super::interpolate::{self, Values};
use super::merge::merge;
use super::shape::{change, field, lengthen};
use super::yaml::{self, Node};
use crate::checks::reason;
use crate::definition::ReadOptions;
use crate::path;
use crate::remote;

/// The files that may include each other, and the services that may extend each other.
const CHAIN: usize = 50;
/// The files that are included and extended in all.
const FILES: usize = 1_000;

/// A reader of files.
pub(super) struct Loader<'a> {
    pub(super) options: &'a ReadOptions<'a>,
    /// Values of `.env` files, the outermost first.
    dotenv: Vec<BTreeMap<String, String>>,
    /// The warnings.
    pub(super) warnings: Vec<String>,
    /// The files that include the current one.
    including: Vec<String>,
    /// The project folder.
    folder: String,
    files: usize,
}

impl Values for Loader<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let found = self.options.lookup(name);
        let found = found.or_else(|| self.dotenv.iter().find_map(|file| file.get(name).cloned()));
        found.or_else(|| (name == "COMPOSE_PROJECT_NAME").then(|| "bake".to_owned()))
    }

    fn note_missing(&mut self, name: &str) {
        let warning = format!("The \"{name}\" variable is not set. Defaulting to a blank string.");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

impl<'a> Loader<'a> {
    pub(super) fn new(options: &'a ReadOptions<'a>) -> Result<Self, String> {
        let mut loader = Self {
            options,
            dotenv: Vec::new(),
            warnings: Vec::new(),
            including: Vec::new(),
            folder: ".".to_owned(),
            files: 0,
        };
        if options.surroundings.is_folder(".env") == Some(false) {
            let values = loader.variables(".env")?;
            loader.dotenv.push(values);
        }
        Ok(loader)
    }

    /// Reads a file of variables.
    pub(super) fn variables(&self, name: &str) -> Result<BTreeMap<String, String>, String> {
        let content = self.content(name)?;
        dotenv::parse(&content, &|name| self.value(name))
            .map_err(|error| format!("failed to read {name}: {error}"))
    }

    fn content(&self, name: &str) -> Result<String, String> {
        let content = self.options.surroundings.read(name);
        let content = content.map_err(|error| format!("open {name}: {}", reason(&error)))?;
        String::from_utf8(content).map_err(|_| format!("{name} isn't UTF-8"))
    }

    /// Reads a file alone.
    pub(super) fn own_model(&mut self, content: &[u8]) -> Result<Node, String> {
        let text = std::str::from_utf8(content).map_err(|_| "yaml: invalid UTF-8".to_owned())?;
        let documents = yaml::documents(text.strip_prefix('\u{feff}').unwrap_or(text))?;
        let mut model: Option<Node> = None;
        for mut document in documents {
            if document == Node::Null {
                continue;
            }
            if !matches!(document, Node::Map(_)) {
                return Err("top-level object must be a mapping".into());
            }
            interpolate::interpolate(&mut document, &mut Vec::new(), self)?;
            lengthen(&mut document);
            model = Some(match model {
                Some(model) => merge(model, document, &mut Vec::new()),
                None => document,
            });
        }
        model.ok_or_else(|| "empty compose file".to_owned())
    }

    /// Reads a file with what it includes and extends.
    pub(super) fn load(&mut self, name: &str, content: &[u8]) -> Result<Node, String> {
        self.files += 1;
        if self.files > FILES {
            return Err("too many files are included".into());
        }
        let mut model = self.own_model(content)?;
        self.including.push(path::clean(name));
        let included = field(&mut model, "include").map(|node| std::mem::replace(node, Node::Null));
        self.extend_all(&mut model, name)?;
        for entry in included.as_ref().map(Node::items).unwrap_or_default() {
            let other = self.include(entry)?;
            add_included(&mut model, other)?;
        }
        self.including.pop();
        if let Node::Map(fields) = &mut model {
            fields.remove("include");
        }
        Ok(model)
    }

    /// Reads the files of an entry of `include`.
    fn include(&mut self, entry: &Node) -> Result<Node, String> {
        let names: Vec<String> = match entry.get("path") {
            Some(Node::List(items)) => items.iter().filter_map(Node::text).collect(),
            Some(one) => one.text().into_iter().collect(),
            None => entry.text().into_iter().collect(),
        };
        let Some(first) = names.first() else {
            return Err("include must name a file".into());
        };
        let folder = match entry.get("project_directory").and_then(Node::text) {
            Some(folder) => path::join(&self.folder, &folder),
            None => path::folder(&path::join(&self.folder, first)),
        };
        let env_files: Vec<String> = match entry.get("env_file") {
            Some(Node::List(items)) => items.iter().filter_map(Node::text).collect(),
            Some(one) => one.text().into_iter().collect(),
            None => Vec::new(),
        };
        let mut values = BTreeMap::new();
        let default = path::join(&folder, ".env");
        if env_files.is_empty() && self.options.surroundings.is_folder(&default) == Some(false) {
            values = self.variables(&default)?;
        }
        for name in &env_files {
            let file = path::join(&self.folder, name);
            values.extend(self.variables(&file)?);
        }
        let outer = std::mem::replace(&mut self.folder, folder.clone());
        self.dotenv.push(values);
        let mut model = Node::Map(BTreeMap::new());
        for name in &names {
            let file = path::join(&outer, name);
            if self.including.contains(&path::clean(&file)) || self.including.len() > CHAIN {
                let chain = self.including[1..].iter().chain([&file]);
                let lines: Vec<String> = chain.map(|name| format!(" include {name}")).collect();
                return Err(format!("include cycle detected:\n{}", lines.join("\n")));
            }
            let content = self.content(&file)?;
            let next = self.load(&file, content.as_bytes())?;
            model = merge(model, next, &mut Vec::new());
        }
        self.dotenv.pop();
        self.folder = outer;
        self.rebase_model(&mut model, &folder);
        Ok(model)
    }

    /// Makes services of what they extend.
    fn extend_all(&mut self, model: &mut Node, file: &str) -> Result<(), String> {
        let names: Vec<String> = match field(model, "services") {
            Some(services) => services.fields().map(|(name, _)| name.clone()).collect(),
            None => Vec::new(),
        };
        for name in names {
            let service = self.extended(model, file, &name, &mut Vec::new())?;
            if let Some(services) = field(model, "services") {
                change(services, &name, |_| service);
            }
        }
        Ok(())
    }

    /// Returns a service with everything that it extends.
    fn extended(
        &mut self,
        model: &Node,
        file: &str,
        name: &str,
        chain: &mut Vec<String>,
    ) -> Result<Node, String> {
        let services = model.get("services");
        let Some(service) = services.and_then(|services| services.raw(name)) else {
            let from = chain.last().map(String::as_str).unwrap_or_default();
            let from = from.split(' ').next().unwrap_or_default();
            return Err(format!(
                "cannot extend service \"{from}\" in {file}: service \"{name}\" not found"
            ));
        };
        let Some(extends) = service.get("extends") else { return Ok(service.clone()) };
        let step = format!("{name} in {file}");
        if chain.contains(&step) || chain.len() > CHAIN {
            chain.push(step);
            return Err(format!("Circular reference:\n  {}", chain.join("\n  extends ")));
        }
        chain.push(step);
        let other = extends.get("service").or(Some(extends)).and_then(Node::text);
        let other = other.ok_or_else(|| format!("services.{name}.extends.service is required"))?;
        let base = match extends.get("file").and_then(Node::text) {
            None => self.extended(model, file, &other, chain)?,
            Some(named) => {
                let path = path::join(&self.folder, &named);
                let content = self.content(&path)?;
                self.files += 1;
                if self.files > FILES {
                    return Err("too many files are extended".into());
                }
                let folder = path::folder(&path::clean(&named));
                let outer = self.folder.clone();
                self.folder = path::join(&outer, &folder);
                let far = self.own_model(content.as_bytes())?;
                let mut base = self.extended(&far, &path, &other, chain)?;
                self.folder = outer;
                self.rebase_service(&mut base, &folder);
                base
            }
        };
        chain.pop();
        let mut own = service.clone();
        if let Node::Map(fields) = &mut own {
            fields.remove("extends");
        }
        let mut place = vec!["services".to_owned(), name.to_owned()];
        Ok(merge(base, own, &mut place))
    }

    /// Makes the paths of a model relative to the folder above.
    fn rebase_model(&self, model: &mut Node, folder: &str) {
        if let Some(Node::Map(services)) = field(model, "services") {
            for service in services.values_mut() {
                self.rebase_service(service, folder);
            }
        }
        if let Some(Node::Map(secrets)) = field(model, "secrets") {
            for secret in secrets.values_mut() {
                change(secret, "file", |node| self.rebased(node, folder));
            }
        }
    }

    fn rebase_service(&self, service: &mut Node, folder: &str) {
        change(service, "env_file", |node| match node {
            Node::List(items) => {
                let items = items.into_iter().map(|mut item| {
                    change(&mut item, "path", |path| self.rebased(path, folder));
                    self.rebased(item, folder)
                });
                Node::List(items.collect())
            }
            other => other,
        });
        let Some(build) = field(service, "build") else { return };
        if let Node::Map(fields) = build
            && !fields.contains_key("context")
        {
            fields.insert("context".into(), Node::Text(".".into()));
        }
        change(build, "context", |node| self.rebased(node, folder));
        if let Some(Node::Map(contexts)) = field(build, "additional_contexts") {
            for context in contexts.values_mut() {
                let taken = std::mem::replace(context, Node::Null);
                *context = self.rebased(taken, folder);
            }
        }
    }

    fn rebased(&self, node: Node, folder: &str) -> Node {
        match node {
            Node::Text(text) if is_local(&text) => Node::Text(self.local(&text, folder)),
            other => other,
        }
    }

    /// Returns a path that is relative to a folder. A tilde is the home folder.
    pub(super) fn local(&self, text: &str, folder: &str) -> String {
        let home = || self.options.surroundings.home();
        match text.strip_prefix('~') {
            Some("") => home(),
            Some(rest) if rest.starts_with('/') => path::clean(&format!("{}{rest}", home())),
            _ if text.starts_with('/') || folder == "." => path::clean(text),
            _ => path::join(folder, text),
        }
    }
}

/// Returns whether a context is a path.
pub(super) fn is_local(text: &str) -> bool {
    let has_scheme = text.contains("://");
    let names_another = text.starts_with("service:") || text.starts_with("target:");
    !has_scheme && !names_another && !remote::is_remote(text)
}

/// Adds what was included. Names must not clash.
fn add_included(model: &mut Node, other: Node) -> Result<(), String> {
    let (Node::Map(model), Node::Map(other)) = (model, other) else { return Ok(()) };
    for (kind, entries) in other {
        if !["services", "secrets"].contains(&kind.as_str()) {
            continue;
        }
        let Node::Map(entries) = entries else { continue };
        let existing = model.entry(kind.clone()).or_insert_with(|| Node::Map(BTreeMap::new()));
        let Node::Map(existing) = existing else { continue };
        for (name, entry) in entries {
            match existing.get(&name) {
                Some(same) if *same == entry => {}
                Some(_) => {
                    return Err(format!("{kind}.{name} conflicts with imported resource"));
                }
                None => {
                    existing.insert(name, entry);
                }
            }
        }
    }
    Ok(())
}
