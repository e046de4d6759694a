//! Values that the command line sets for targets.

use crate::entries::{self, Output};
use crate::error::Error;
use crate::fields;
use crate::target::Target;

/// The keys whose values collect.
const LISTS: [&str; 12] = [
    "output",
    "cache-to",
    "cache-from",
    "tags",
    "platform",
    "secrets",
    "ssh",
    "attest",
    "entitlements",
    "network",
    "annotations",
    "policy",
];

/// An override as it is written.
#[derive(Debug)]
pub(crate) struct Override {
    /// The name or pattern of the targets.
    pub(crate) pattern: String,
    /// The attribute.
    pub(crate) key: String,
    /// The name within the attribute.
    pub(crate) name: Option<String>,
    /// The value.
    pub(crate) value: Option<String>,
    /// `true` if the value is added to those that are there.
    appends: bool,
}

/// The overrides of a target, in the order in which their keys came first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides(Vec<Setting>);

/// The values of a key.
#[derive(Clone, Debug)]
struct Setting {
    key: String,
    name: Option<String>,
    value: String,
    values: Vec<String>,
    appends: bool,
}

impl Override {
    /// Reads an override: `pattern.key=value` or `pattern.key.name+=value`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let (left, value) = match text.split_once('=') {
            Some((left, value)) => (left, Some(value.to_owned())),
            None => (text, None),
        };
        let (path, appends) = left.strip_suffix('+').map_or((left, false), |path| (path, true));
        let mut parts = path.splitn(3, '.');
        let pattern = parts.next().unwrap_or_default().to_owned();
        let Some(key) = parts.next() else {
            return Err(Error::new(format!("invalid override key {path}, expected target.name")));
        };
        let name = parts.next().map(str::to_owned);
        if value.is_none() && key != "args" {
            return Err(Error::new(format!("invalid override {text}, expected target.name=value")));
        }
        let needs_name = matches!(key, "resources" | "secret" | "args" | "contexts");
        if needs_name && name.is_none() {
            return Err(Error::new(format!("invalid key {left}, {key} requires name")));
        }
        if matches!(key, "resources" | "secret") && appends {
            return Err(Error::new(format!("invalid key {left}, {key} does not support append")));
        }
        Ok(Self { pattern, key: key.to_owned(), name, value, appends })
    }
}

impl Overrides {
    /// Adds an override.
    pub(crate) fn add(&mut self, given: &Override, environment: Option<String>) {
        let same = |setting: &Setting| setting.key == given.key && setting.name == given.name;
        let index = self.0.iter().position(same);
        let index = index.unwrap_or_else(|| {
            self.0.push(Setting {
                key: given.key.clone(),
                name: given.name.clone(),
                value: String::new(),
                values: Vec::new(),
                appends: false,
            });
            self.0.len() - 1
        });
        let setting = &mut self.0[index];
        match (&given.value, environment) {
            (Some(value), _) if LISTS.contains(&&*given.key) => {
                setting.appends = given.appends;
                setting.values.push(value.clone());
            }
            (Some(value), _) => setting.value.clone_from(value),
            (None, Some(value)) => setting.value = value,
            (None, None) => {}
        }
    }

    /// Applies the overrides to a target.
    pub(crate) fn apply(&self, target: &mut Target) -> Result<(), Error> {
        let is_late = |setting: &&Setting| matches!(&*setting.key, "push" | "load");
        let is_last = |setting: &&Setting| setting.key == "secret";
        for setting in self.0.iter().filter(|setting| !is_late(setting) && !is_last(setting)) {
            setting.apply(target)?;
        }
        for setting in self.0.iter().filter(is_late).chain(self.0.iter().filter(is_last)) {
            setting.apply(target)?;
        }
        Ok(())
    }
}

impl Setting {
    /// Applies a setting.
    fn apply(&self, target: &mut Target) -> Result<(), Error> {
        let value = Some(self.value.clone());
        match &*self.key {
            "context" => target.context = value,
            "dockerfile" => target.dockerfile = value,
            "target" => target.stage = value,
            "call" => target.call = value,
            "shm-size" => target.shm_size = value,
            "network" => target.network = value,
            "args" => {
                target.args.get_or_insert_default().insert(self.name("<name>=<value>")?, value);
            }
            "labels" => {
                target.labels.get_or_insert_default().insert(self.name("<name>=<value>")?, value);
            }
            "extra-hosts" => {
                let name = self.name("<hostname>=<ip>")?;
                target.extra_hosts.get_or_insert_default().insert(name, value);
            }
            "contexts" => {
                let name = self.name("<name>=<value>")?;
                target.contexts.get_or_insert_default().insert(name, self.value.clone());
            }
            "tags" => self.set_texts(&mut target.tags, self.appends),
            "platform" => self.set_texts(&mut target.platforms, self.appends),
            "annotations" => self.set_texts(&mut target.annotations, true),
            "entitlements" => self.set_texts(&mut target.entitlements, true),
            "no-cache-filter" => self.set_texts(&mut target.no_cache_filter, self.appends),
            "ulimits" => self.set_texts(&mut target.ulimits, self.appends),
            "no-cache" => target.no_cache = Some(self.flag()?),
            "pull" => target.pull = Some(self.flag()?),
            "push" => set_push(&mut target.outputs, self.flag()?),
            "load" => set_load(&mut target.outputs, self.flag()?),
            "resources" => {
                let name = self.name("<name>=<value>")?;
                target.resources.get_or_insert_default().set(&name, &self.value)?;
            }
            "secret" => self.set_secret(target)?,
            _ => self.apply_entries(target)?,
        }
        Ok(())
    }

    /// Applies a setting of entries.
    fn apply_entries(&self, target: &mut Target) -> Result<(), Error> {
        match &*self.key {
            "policy" => self.set_entries(&mut target.policy, self.appends, ""),
            "cache-from" => self.set_entries(&mut target.cache_from, self.appends, ""),
            "cache-to" => self.set_entries(&mut target.cache_to, self.appends, ""),
            "secrets" => self.set_entries(&mut target.secrets, self.appends, "outputs"),
            "ssh" => self.set_entries(&mut target.ssh, self.appends, "outputs"),
            "output" => self.set_entries(&mut target.outputs, self.appends, "outputs"),
            "attest" => self.set_entries(&mut target.attest, true, "attest"),
            key => Err(Error::new(format!("unknown key: {key}"))),
        }
    }

    /// Returns the name within the attribute.
    fn name(&self, form: &str) -> Result<String, Error> {
        let key = &self.key;
        self.name
            .clone()
            .ok_or_else(|| Error::new(format!("invalid format for {key}, expecting {key}.{form}")))
    }

    /// Returns the value as a boolean.
    fn flag(&self) -> Result<bool, Error> {
        fields::parse_bool(&self.value).map_err(|_| {
            Error::new(format!("invalid value {} for boolean key {}", self.value, self.key))
        })
    }

    /// Sets a list of texts.
    fn set_texts(&self, list: &mut Option<Vec<String>>, appends: bool) {
        if appends {
            list.get_or_insert_default().extend(self.values.iter().cloned());
        } else {
            *list = Some(self.values.clone());
        }
    }

    /// Sets a list of entries.
    fn set_entries<E: entries::Entry>(
        &self,
        list: &mut Option<Vec<E>>,
        appends: bool,
        what: &str,
    ) -> Result<(), Error> {
        let read = entries::from_texts(&self.values).map_err(|error| {
            if what.is_empty() {
                Error::new(error)
            } else {
                Error::new(format!("invalid value for {what}: {error}"))
            }
        })?;
        if appends {
            list.get_or_insert_default().extend(read);
        } else {
            *list = Some(read);
        }
        Ok(())
    }

    /// Exchanges the source of a declared secret.
    fn set_secret(&self, target: &mut Target) -> Result<(), Error> {
        let id = self.name("<value>").unwrap_or_default();
        if id.is_empty() {
            return Err(Error::new("invalid format for secret, expecting secret.<id>=<value>"));
        }
        let secret = target.secrets.iter_mut().flatten().find(|secret| secret.id == id);
        let secret = secret.ok_or_else(|| {
            Error::new(format!("secret {id:?} must be declared before it can be overridden"))
        })?;
        let read: Vec<crate::entries::Secret> = entries::from_texts([&self.value])?;
        let next = read.into_iter().next().unwrap_or_default();
        if !next.id.is_empty() && next.id != id {
            return Err(Error::new(format!(
                "secret override id {:?} does not match declared secret {id:?}",
                next.id
            )));
        }
        secret.variable = next.variable;
        secret.file = next.file;
        Ok(())
    }
}

/// Turns the upload of outputs on or off.
fn set_push(outputs: &mut Option<Vec<Output>>, push: bool) {
    let list = outputs.get_or_insert_default();
    if !push {
        let mut index = 0;
        while index < list.len() {
            if list[index].kind == "registry" {
                list.swap_remove(index);
                continue;
            }
            if list[index].kind == "image" {
                list[index].attributes.insert("push".into(), "false".into());
            }
            index += 1;
        }
        return;
    }
    let adds = list.iter().all(|output| output.kind == "docker");
    for output in list.iter_mut().filter(|output| output.kind == "image") {
        output.attributes.insert("push".into(), "true".into());
    }
    if adds {
        let mut output = Output::of_kind("image");
        output.attributes.insert("push".into(), "true".into());
        list.push(output);
    }
}

/// Adds an output to the local images unless another output stands in the way.
fn set_load(outputs: &mut Option<Vec<Output>>, load: bool) {
    if !load {
        return;
    }
    let list = outputs.get_or_insert_default();
    for output in list.iter() {
        match &*output.kind {
            "docker" if output.destination.is_empty() => return,
            "docker" | "image" | "registry" | "oci" => {}
            _ => return,
        }
    }
    list.push(Output::of_kind("docker"));
}
