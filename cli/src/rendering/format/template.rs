//! Go templates and the data that they access.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use gotmpl::{FuncMap, MissingKey, TemplateError, Value};
use kiln::json::Json;

use super::functions;

/// The maps with arbitrary keys. A missing key yields no value instead of an error.
const FREE: &[&str] = &["Annotations", "ExposedPorts", "Labels", "Volumes", "annotations"];

/// A parsed template.
pub(super) struct Template {
    text: String,
    parsed: gotmpl::Template,
}

impl Template {
    /// Parses a template with the given functions.
    pub(super) fn parse(text: &str, functions: FuncMap) -> Result<Self> {
        let template = gotmpl::Template::new("").missing_key(MissingKey::Error).funcs(functions);
        let parsed = template.parse(text);
        let parsed = parsed.map_err(|error| anyhow!("template parsing error: {error}"))?;
        Ok(Self { text: text.to_owned(), parsed })
    }

    /// Executes the template.
    ///
    /// # Errors
    /// Fails with a list of the known fields if the template names an unknown one.
    pub(super) fn execute(&self, data: &Data) -> Result<String> {
        let failed = |error: TemplateError| anyhow!("template parsing error: {error}");
        match self.parsed.execute_to_string(&data.value) {
            Err(TemplateError::MissingKey { key }) => {
                let chain = self.chain_before(&key);
                if chain.last().is_some_and(|name| FREE.contains(name)) {
                    let lenient = self.parsed.clone().missing_key(MissingKey::Invalid);
                    return lenient.execute_to_string(&data.value).map_err(failed);
                }
                let known = data.names(&chain).join(", ");
                Err(anyhow!("template parsing error: there is no field {key}; there are {known}"))
            }
            result => result.map_err(failed),
        }
    }

    /// Returns the names before a field's name in its chain, such as `Config` in `.Config.Cmd`.
    fn chain_before(&self, key: &str) -> Vec<&str> {
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let chains = self.text.split(|c: char| !is_name(c)).filter(|part| part.contains('.'));
        for chain in chains {
            let names: Vec<&str> = chain.split('.').filter(|name| !name.is_empty()).collect();
            if let Some(place) = names.iter().position(|name| *name == key) {
                return names[..place].to_vec();
            }
        }
        Vec::new()
    }
}

/// The data that a template accesses, together with the JSON form of its objects. Maps of templates
/// are sorted and complete, whereas docker's JSON has the order of its structs and omits empty
/// members.
pub(super) struct Data {
    pub(super) value: Value,
    written: Arc<Written>,
}

/// The JSON form of objects and lists. Keys are the addresses of the template values, which live as
/// long as [`Data`].
#[derive(Clone, Default)]
pub(super) struct Written {
    maps: HashMap<usize, String>,
    /// The empty lists that stand for missing members. Their JSON form is `null`.
    absent: HashSet<usize>,
}

impl Written {
    /// Returns the JSON form of a map that was created from a document.
    pub(super) fn map(&self, map: &Arc<BTreeMap<Arc<str>, Value>>) -> Option<&str> {
        self.maps.get(&address(map)).map(String::as_str)
    }

    /// Returns `true` if an empty list stands for a missing member.
    pub(super) fn is_absent(&self, list: &Arc<[Value]>) -> bool {
        list.is_empty() && self.absent.contains(&list.as_ptr().addr())
    }
}

fn address(map: &Arc<BTreeMap<Arc<str>, Value>>) -> usize {
    Arc::as_ptr(map).addr()
}

impl Data {
    /// Creates data for a document: templates access `fields`, and `json` is its JSON form. The
    /// JSON form of lists and objects that `json` lacks is `null`.
    pub(super) fn of(fields: &Json, json: &Json) -> Self {
        let mut written = Written::default();
        let value = convert(fields, Some(json), &mut written);
        Self { value, written: Arc::new(written) }
    }

    /// Replaces the JSON form of the whole document.
    pub(super) fn written_as(self, json: &Json) -> Self {
        let Self { value, written } = self;
        let mut written = Arc::unwrap_or_clone(written);
        if let Value::Map(map) = &value {
            written.maps.insert(address(map), json.compact());
        }
        Self { value, written: Arc::new(written) }
    }

    /// Creates data for a row of texts. The JSON form of the whole row has HTML escapes.
    pub(super) fn of_row<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let fields: BTreeMap<Arc<str>, Value> =
            fields.map(|(name, text)| (name.into(), Value::String(text.into()))).collect();
        let members = fields.iter().map(|(name, value)| {
            (name.to_string(), Json::String(value.as_str().unwrap_or_default().to_owned()))
        });
        let json = Json::Object(members.collect()).compact();
        let map = Arc::new(fields);
        let mut written = Written::default();
        written.maps.insert(address(&map), kiln::json::escape_html(&json));
        Self { value: Value::Map(map), written: Arc::new(written) }
    }

    /// Returns docker's functions for templates on this data.
    pub(super) fn functions(&self) -> FuncMap {
        functions::all(&self.written)
    }

    /// Returns the names of the fields of the object that a chain of fields leads to, or of the
    /// whole data if there is no such object.
    fn names(&self, chain: &[&str]) -> Vec<&str> {
        let end = chain.iter().try_fold(&self.value, |value, name| value.field(name));
        match end.unwrap_or(&self.value) {
            Value::Map(map) => map.keys().map(|name| &**name).collect(),
            _ => Vec::new(),
        }
    }
}

fn convert(fields: &Json, json: Option<&Json>, written: &mut Written) -> Value {
    match fields {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::Int(integer),
            (None, Some(integer)) => Value::Uint(integer),
            (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::String(text.as_str().into()),
        Json::List(items) => {
            let known = match json {
                Some(Json::List(known)) => known.as_slice(),
                _ => &[],
            };
            let item = |(place, item)| convert(item, known.get(place), written);
            let list: Arc<[Value]> = items.iter().enumerate().map(item).collect();
            if json.is_none() && list.is_empty() {
                written.absent.insert(list.as_ptr().addr());
            }
            Value::List(list)
        }
        Json::Object(members) => {
            let mut map = BTreeMap::new();
            let known: HashMap<&str, &Json> = match json {
                Some(Json::Object(known)) => known.iter().map(|(name, it)| (&**name, it)).collect(),
                _ => HashMap::new(),
            };
            for (name, value) in members {
                let cased = || known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                let json = known.get(name.as_str()).or_else(|| cased().map(|(_, json)| json));
                let json = json.copied();
                map.insert(Arc::from(name.as_str()), convert(value, json, written));
            }
            let map = Arc::new(map);
            let json = json.map_or_else(|| "null".to_owned(), Json::compact);
            written.maps.insert(address(&map), json);
            Value::Map(map)
        }
    }
}
