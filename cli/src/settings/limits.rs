//! Sizes and limits in docker's notation.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// The names of the limits that can be set.
const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A resource limit. -1 means unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ulimit {
    /// The limit's name, such as `nofile`.
    pub(crate) name: String,
    /// The value that the kernel enforces.
    pub(crate) soft: i64,
    /// The highest value that a process may set.
    pub(crate) hard: i64,
}

/// Parses limits and returns them sorted by name. If a name is repeated, its last limit counts.
pub(crate) fn ulimits(texts: &[String]) -> Result<Vec<Ulimit>> {
    let mut limits = BTreeMap::new();
    for text in texts {
        let limit = ulimit(text)?;
        limits.insert(limit.name.clone(), limit);
    }
    Ok(limits.into_values().collect())
}

fn ulimit(text: &str) -> Result<Ulimit> {
    let Some((name, values)) = text.split_once('=') else {
        bail!("invalid ulimit {text:?}: expected NAME=SOFT[:HARD]");
    };
    if !NAMES.contains(&name) {
        bail!("invalid ulimit {text:?}: there is no limit {name:?}");
    }
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |value: &str| -> Result<i64> {
        let number = value.parse().ok().filter(|number| *number >= -1);
        number.with_context(|| format!("invalid ulimit {text:?}: {value:?} is no limit"))
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        bail!("invalid ulimit {text:?}: the soft limit is above the hard one");
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// Parses a number of bytes, which may have a fraction and a suffix `k`, `m`, `g`, `t` or `p`.
pub(crate) fn size(text: &str) -> Result<i64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let scale: u64 = match text[digits.len()..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => bail!("invalid size {text:?}: expected a number and k, m, g, t or p"),
    };
    let number = digits.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    let number = number.with_context(|| format!("invalid size {text:?}"))?;
    let bytes = number * scale as f64;
    if bytes >= i64::MAX as f64 {
        bail!("size {text} is too large");
    }
    Ok(bytes as i64)
}

/// Parses a limit in bytes, like [`size`]. 0 means no limit.
pub(crate) fn size_limit(text: &str) -> Result<Option<u64>> {
    Ok(Some(size(text)?.cast_unsigned()).filter(|bytes| *bytes > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_units_and_fractions() {
        for (text, bytes) in
            [("0", 0), ("64m", 64 << 20), ("1.5 GiB", 3 << 29), ("5B", 5), ("2k", 2048)]
        {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "m", "-1", "inf", "1x", "9000p", "1m1"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_sizes() {
        for (text, limit) in [
            ("0", None),
            ("0g", None),
            ("12", Some(12)),
            ("16G", Some(16 << 30)),
            ("1.5 g", Some(3 << 29)),
            ("2p", Some(2 << 50)),
        ] {
            assert_eq!(size_limit(text).unwrap(), limit, "{text}");
        }
        for text in ["", "g", "-1", "1x", "99999999999t"] {
            assert!(size_limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ulimits_are_pairs_by_name() {
        let read =
            |texts: &[&str]| ulimits(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let limit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard };
        let found = read(&["nofile=1", "core=0:-1", "nofile=5:7", "nproc=-1"]).unwrap();
        let expected = [limit("core", 0, -1), limit("nofile", 5, 7), limit("nproc", -1, -1)];
        assert_eq!(found, expected);
        for text in ["nofile", "colour=1", "nofile=x", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3"]
        {
            assert!(read(&[text]).is_err(), "{text}");
        }
    }
}
