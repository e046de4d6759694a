//! Limits for the processes of a build.

use serde::Serialize;

use super::{optional_object, text_attribute};
use crate::convert::convert;
use crate::types::Type;
use crate::value::{Entries, Value};

/// Limits for the processes of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Resources {
    /// Memory, as `1g`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Memory and swap space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<String>,
    /// The weight among all processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<i64>,
    /// The period of the quota, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<i64>,
    /// The time within a period, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// The processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// The memory nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
}

impl Resources {
    /// Makes limits of an object. Unknown attributes are dropped.
    pub(crate) fn from_value(value: &Value) -> Result<Option<Self>, String> {
        match value {
            Value::Null(_) => return Ok(None),
            Value::Unknown(_) => return Err("value must be known".into()),
            _ => {}
        }
        let given = convert(value, &Self::value_type())?;
        let number = |name: &str| match given.entries().and_then(|entries| entries.get(name)) {
            Some(Value::Number(number)) => number.to_i64().map(Some).ok_or_else(|| {
                format!("value must be a whole number, between {} and {}", i64::MIN, i64::MAX)
            }),
            _ => Ok(None),
        };
        let text = |name: &str| text_attribute(&given, name);
        Ok(Some(Self {
            memory: text("memory"),
            memory_swap: text("memory-swap"),
            cpu_shares: number("cpu-shares")?,
            cpu_period: number("cpu-period")?,
            cpu_quota: number("cpu-quota")?,
            cpuset_cpus: text("cpuset-cpus"),
            cpuset_mems: text("cpuset-mems"),
        }))
    }

    /// Returns the type of the values.
    fn value_type() -> Type {
        optional_object(&[
            ("memory", Type::String),
            ("memory-swap", Type::String),
            ("cpu-shares", Type::Number),
            ("cpu-period", Type::Number),
            ("cpu-quota", Type::Number),
            ("cpuset-cpus", Type::String),
            ("cpuset-mems", Type::String),
        ])
    }

    /// Makes a value that expressions see.
    pub(crate) fn to_value(resources: Option<&Self>) -> Value {
        let Some(resources) = resources else {
            return Value::Null(Self::value_type().without_optional());
        };
        let text = |value: &Option<String>| match value {
            Some(value) => Value::text(value),
            None => Value::Null(Type::String),
        };
        let number = |value: Option<i64>| match value {
            Some(value) => Value::Number(value.into()),
            None => Value::Null(Type::Number),
        };
        let mut entries = Entries::new();
        entries.insert("memory".into(), text(&resources.memory));
        entries.insert("memory-swap".into(), text(&resources.memory_swap));
        entries.insert("cpu-shares".into(), number(resources.cpu_shares));
        entries.insert("cpu-period".into(), number(resources.cpu_period));
        entries.insert("cpu-quota".into(), number(resources.cpu_quota));
        entries.insert("cpuset-cpus".into(), text(&resources.cpuset_cpus));
        entries.insert("cpuset-mems".into(), text(&resources.cpuset_mems));
        Value::object(entries)
    }

    /// Takes the limits that another value has.
    pub(crate) fn merge(&mut self, other: Self) {
        fn take<T>(own: &mut Option<T>, other: Option<T>) {
            if other.is_some() {
                *own = other;
            }
        }
        take(&mut self.memory, other.memory);
        take(&mut self.memory_swap, other.memory_swap);
        take(&mut self.cpu_shares, other.cpu_shares);
        take(&mut self.cpu_period, other.cpu_period);
        take(&mut self.cpu_quota, other.cpu_quota);
        take(&mut self.cpuset_cpus, other.cpuset_cpus);
        take(&mut self.cpuset_mems, other.cpuset_mems);
    }

    /// Sets a limit by its name.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || {
            value
                .parse()
                .map(Some)
                .map_err(|_| format!("invalid value {value} for int64 key resources.{name}"))
        };
        let text = Some(value.to_owned());
        match name {
            "memory" => self.memory = text,
            "memory-swap" => self.memory_swap = text,
            "cpu-shares" => self.cpu_shares = number()?,
            "cpu-period" => self.cpu_period = number()?,
            "cpu-quota" => self.cpu_quota = number()?,
            "cpuset-cpus" => self.cpuset_cpus = text,
            "cpuset-mems" => self.cpuset_mems = text,
            _ => return Err(format!("unknown resources key {name}")),
        }
        Ok(())
    }
}
