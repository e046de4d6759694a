//! Sizes and limits, as they are typed.

use anyhow::{Context, Result, bail};
use kiln_tree::ArchiveLimits;

/// Parses a size, as `64m`; 0 stands for no limit.
pub(crate) fn size(text: &str) -> Result<Option<u64>> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[number.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => bail!("invalid size {text:?}: expected a number and k, m, g or t"),
    };
    let number: u64 = number.parse().with_context(|| format!("invalid size {text:?}"))?;
    let bytes =
        number.checked_mul(1 << shift).with_context(|| format!("size {text} is too large"))?;
    Ok((bytes > 0).then_some(bytes))
}

/// Parses `ratio=N,from=SIZE,entries=N`, of which each may be left out.
pub(crate) fn archive(text: &str) -> Result<ArchiveLimits> {
    let mut limits = ArchiveLimits::default();
    for field in text.split(',') {
        let invalid = || format!("invalid archive limit {field:?}");
        let (name, value) = field.split_once('=').with_context(invalid)?;
        let count = || -> Result<Option<u64>> {
            let count: u64 = value.parse().with_context(invalid)?;
            Ok((count > 0).then_some(count))
        };
        match name {
            "ratio" => limits.max_ratio = count()?,
            "entries" => limits.max_entries = count()?,
            "from" => limits.free_bytes = size(value)?.unwrap_or_default(),
            _ => bail!("{}: expected ratio, from or entries", invalid()),
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_sizes() {
        assert_eq!(size("0").unwrap(), None);
        assert_eq!(size("12").unwrap(), Some(12));
        assert_eq!(size("16G").unwrap(), Some(16 << 30));
        assert_eq!(size("3mb").unwrap(), Some(3 << 20));
        for text in ["", "g", "-1", "1x", "99999999999t", "1.5g"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn archive_limits_are_raised_one_by_one() {
        let default = ArchiveLimits::default();
        assert_eq!(archive("ratio=9").unwrap(), ArchiveLimits { max_ratio: Some(9), ..default });
        assert_eq!(
            archive("entries=0,from=2m,ratio=0").unwrap(),
            ArchiveLimits { max_ratio: None, free_bytes: 2 << 20, max_entries: None }
        );
        for text in ["", "ratio", "ratio=x", "ratio=-1", "from=1y", "bytes=1", "ratio=1,"] {
            assert!(archive(text).is_err(), "{text}");
        }
    }
}
