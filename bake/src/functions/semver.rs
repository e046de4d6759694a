//! Semantic versions.

use std::cmp::Ordering;

use super::{Failure, Function, Parameter, ParameterKind, text};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[Function::new(
    "semvercmp",
    &[Parameter::string("version"), Parameter::string("contraint")],
    ParameterKind::Bool,
    |_, values| {
        let version = Version::read(text(values, 0)?)?;
        Ok(Value::Bool(Constraints::read(text(values, 1)?)?.allow(&version)))
    },
)];

/// A version, or the version of a constraint.
#[derive(Clone, Debug, Default)]
struct Version {
    /// Major, minor and patch. `None` is an x, or nothing.
    numbers: [Option<u64>; 3],
    /// The parts behind a dash.
    pre: String,
}

impl Version {
    /// Reads a version, whose last numbers may be missing.
    fn read(written: &str) -> Result<Self, Failure> {
        let invalid = || Failure::new("invalid semantic version");
        let version = Self::parse(written, false).ok_or_else(invalid)?;
        let starts_with_zero = |part: &str| {
            part.len() > 1
                && part.starts_with('0')
                && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if version.pre.split('.').any(starts_with_zero) {
            return Err(Failure::new("version segment starts with 0"));
        }
        Ok(version)
    }

    /// Parses a version, with x and * for numbers if it belongs to a constraint.
    fn parse(written: &str, wild: bool) -> Option<Self> {
        let rest = written.strip_prefix('v').unwrap_or(written);
        let (rest, meta) = rest.split_once('+').map_or((rest, None), |cut| (cut.0, Some(cut.1)));
        let (numbers, pre) = rest.split_once('-').map_or((rest, None), |cut| (cut.0, Some(cut.1)));
        if [meta, pre].into_iter().flatten().any(|part| !is_dotted(part)) {
            return None;
        }
        let mut version = Self { pre: pre.unwrap_or_default().to_owned(), ..Self::default() };
        let parts: Vec<&str> = numbers.split('.').collect();
        if parts.len() > 3 {
            return None;
        }
        for (index, part) in parts.iter().enumerate() {
            if wild && matches!(*part, "x" | "X" | "*") {
                continue;
            }
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            version.numbers[index] = Some(part.parse().ok()?);
        }
        if let Some(first) = version.numbers.iter().position(Option::is_none) {
            version.numbers[first..].fill(None);
        }
        Some(version)
    }

    /// Returns major, minor and patch, those that are missing as 0.
    fn filled(&self) -> [u64; 3] {
        self.numbers.map(Option::unwrap_or_default)
    }

    /// Compares two versions.
    fn compare(&self, other: &Self) -> Ordering {
        self.filled().cmp(&other.filled()).then_with(|| match (&*self.pre, &*other.pre) {
            ("", "") => Ordering::Equal,
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            (left, right) => compare_pre(left, right),
        })
    }
}

/// Returns `true` for parts of letters, digits and dashes between dots.
fn is_dotted(text: &str) -> bool {
    text.split('.').all(|part| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Compares what stands behind the dashes, part by part.
fn compare_pre(left: &str, right: &str) -> Ordering {
    let mut left = left.split('.');
    let mut right = right.split('.');
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(left), Some(right)) => match (left.parse::<u64>(), right.parse::<u64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => left.cmp(right),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// A comparison with a version.
#[derive(Debug)]
struct Constraint {
    operator: &'static str,
    version: Version,
}

/// Groups of comparisons, of which one has to hold as a whole.
#[derive(Debug)]
struct Constraints(Vec<Vec<Constraint>>);

/// The operators, longer ones before their beginnings.
const OPERATORS: [&str; 11] = ["!=", ">=", "=>", "<=", "=<", "~>", "=", ">", "<", "~", "^"];

impl Constraints {
    /// Reads constraints.
    fn read(written: &str) -> Result<Self, Failure> {
        let groups = written.split("||").map(|group| {
            read_group(group).ok_or_else(|| Failure::new(format!("improper constraint: {group}")))
        });
        Ok(Self(groups.collect::<Result<_, _>>()?))
    }

    /// Returns `true` if a version fulfils a group.
    fn allow(&self, version: &Version) -> bool {
        self.0.iter().any(|group| {
            let allows_pre = group.iter().any(|constraint| !constraint.version.pre.is_empty());
            group.iter().all(|constraint| {
                (version.pre.is_empty() || allows_pre) && constraint.holds(version)
            })
        })
    }
}

/// Reads comparisons that all have to hold, between commas or blanks.
fn read_group(written: &str) -> Option<Vec<Constraint>> {
    let mut words: Vec<&str> = Vec::new();
    for part in written.split([',', ' ', '\t', '\n']) {
        if !part.is_empty() {
            words.push(part);
        }
    }
    if words.is_empty() {
        return None;
    }
    let mut constraints = Vec::new();
    let mut index = 0;
    while index < words.len() {
        let is_span = words.get(index + 1) == Some(&"-");
        if is_span {
            constraints
                .push(Constraint { operator: ">=", version: constraint_version(words[index])? });
            let last = constraint_version(words.get(index + 2)?)?;
            constraints.push(Constraint { operator: "<=", version: last });
            index += 3;
            continue;
        }
        let word = words[index];
        let operator = OPERATORS.into_iter().find(|operator| word.starts_with(operator));
        let mut version = &word[operator.map_or(0, str::len)..];
        if version.is_empty() {
            index += 1;
            version = words.get(index)?;
        }
        let version = constraint_version(version)?;
        constraints.push(Constraint { operator: operator.unwrap_or(""), version });
        index += 1;
    }
    Some(constraints)
}

/// Reads the version of a constraint. One without a major version keeps nothing but its tail.
fn constraint_version(written: &str) -> Option<Version> {
    Version::parse(written, true)
}

impl Constraint {
    /// Returns `true` if the comparison holds.
    fn holds(&self, version: &Version) -> bool {
        let order = version.compare(&self.version);
        let is_open = self.version.numbers.contains(&None);
        match self.operator {
            "!=" if is_open => !self.covers(version),
            "!=" => order != Ordering::Equal,
            ">" if is_open => self.is_below(version),
            ">" => order == Ordering::Greater,
            "<" => order == Ordering::Less,
            ">=" | "=>" => order != Ordering::Less,
            "<=" | "=<" if is_open => !self.is_below(version),
            "<=" | "=<" => order != Ordering::Greater,
            "^" => self.is_compatible(version),
            "~" | "~>" => self.is_near(version),
            _ if is_open => self.is_near(version),
            _ => order == Ordering::Equal,
        }
    }

    /// Returns `true` if the numbers that are given are those of a version.
    fn covers(&self, version: &Version) -> bool {
        let [major, minor, _] = version.filled();
        let [own_major, own_minor, _] = self.version.numbers;
        match (own_major, own_minor) {
            (None, _) => major == 0,
            (Some(own), None) => own == major,
            (Some(own), Some(own_minor)) => own == major && own_minor == minor,
        }
    }

    /// Returns `true` if a version is above everything that the open version stands for.
    fn is_below(&self, version: &Version) -> bool {
        let [major, minor, _] = version.filled();
        let [own_major, own_minor, _] = self.version.numbers;
        match (own_major, own_minor) {
            (None, _) => version.compare(&self.version) == Ordering::Greater,
            (Some(own), None) => major > own,
            (Some(own), Some(own_minor)) => major > own || (major == own && minor > own_minor),
        }
    }

    /// Returns `true` for versions of the same major and minor number.
    fn is_near(&self, version: &Version) -> bool {
        if version.compare(&self.version) == Ordering::Less {
            return false;
        }
        let [major, minor, _] = version.filled();
        match self.version.numbers {
            [None, ..] | [Some(0), Some(0), Some(0)] => true,
            [Some(own), None, _] => own == major,
            [Some(own), Some(own_minor), _] => own == major && own_minor == minor,
        }
    }

    /// Returns `true` for versions whose leftmost number that isn't 0 is the same.
    fn is_compatible(&self, version: &Version) -> bool {
        if version.compare(&self.version) == Ordering::Less {
            return false;
        }
        let [major, minor, patch] = version.filled();
        match self.version.numbers {
            [Some(own), ..] if own > 0 => own == major,
            [Some(own), None, _] => own == major,
            [_, own_minor, own_patch] => {
                if major > 0 {
                    return false;
                }
                let own_minor = own_minor.unwrap_or_default();
                if own_minor > 0 || (self.version.numbers[1].is_some() && own_patch.is_none()) {
                    return own_minor == minor;
                }
                minor == 0 && own_patch.unwrap_or_default() == patch
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: &str, constraint: &str) -> bool {
        let version = Version::read(version).unwrap();
        Constraints::read(constraint).unwrap().allow(&version)
    }

    #[test]
    fn constraints_hold() {
        assert!(check("1.9.0", "^1.2"));
        assert!(!check("0.3.0", "^0.2"));
        assert!(check("1.2.9", "~1.2.3"));
        assert!(check("1.5.0", "1.2 - 2.0"));
        assert!(check("5.0.0", "1.x || >=5"));
        assert!(!check("2.0.0-rc.1", ">= 1.0"));
        assert!(check("2.0.0-rc.1", ">= 2.0.0-beta"));
        assert!(check("1.2.3", ">1.2 <1.3") == check("1.2.3", ">1.2, <1.3"));
    }
}
