//! The environment of a stage.
//!
//! Variables are in the order in which they were last set, as in the reference's list. The order
//! decides the order in `Meta.env`, and with it the digests. A stage changes its environment in
//! place. A stage built on another one copies the environment once.

use std::collections::HashMap;
use std::rc::Rc;

use crate::expand::Env;

/// Names and values, in the order in which they were last set.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    /// The variables. Setting a variable again leaves a hole at its old index.
    slots: Vec<Option<(Rc<str>, Rc<str>)>>,
    index: HashMap<Rc<str>, usize>,
}

impl Environment {
    /// Sets a variable, which becomes the last one.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        let (key, value): (Rc<str>, Rc<str>) = (Rc::from(key), Rc::from(value));
        if let Some(old) = self.index.insert(Rc::clone(&key), self.slots.len()) {
            self.slots[old] = None;
        }
        self.slots.push(Some((key, value)));
        if self.slots.len() > 2 * self.index.len() + 16 {
            self.compact();
        }
    }

    /// Removes a variable, if it is set.
    pub(super) fn remove(&mut self, key: &str) {
        if let Some(old) = self.index.remove(key) {
            self.slots[old] = None;
        }
    }

    /// Returns a variable's value, if it is set.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let slot = self.slots.get(*self.index.get(key)?)?;
        slot.as_ref().map(|(_, value)| value.as_ref())
    }

    /// Returns an iterator over names and values, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.slots.iter().flatten().map(|(key, value)| (key.as_ref(), value.as_ref()))
    }

    /// Returns an iterator over the names, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    /// Returns the variables as `NAME=value`, in order.
    pub(super) fn to_strings(&self) -> Vec<String> {
        self.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    fn compact(&mut self) {
        self.slots.retain(Option::is_some);
        for (position, (key, _)) in self.slots.iter().flatten().enumerate() {
            self.index.insert(Rc::clone(key), position);
        }
    }
}

impl Env for Environment {
    fn get(&self, name: &str) -> Option<&str> {
        Self::get(self, name)
    }

    fn keys(&self) -> Vec<&str> {
        Self::keys(self).collect()
    }
}

/// Splits `NAME=value`. The value is empty if there is no `=`.
pub(super) fn split(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_again_moves_to_the_end() {
        let mut environment = Environment::default();
        for round in 0..50 {
            environment.set("A", &round.to_string());
            environment.set("B", "b");
        }
        environment.set("A", "last");
        environment.remove("C");
        assert_eq!(environment.to_strings(), ["B=b", "A=last"]);
        assert_eq!(environment.get("A"), Some("last"));
        environment.remove("B");
        assert_eq!(environment.keys().collect::<Vec<_>>(), ["A"]);
    }
}
