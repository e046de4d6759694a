//! Parses the limits for unpacking archives.

use anyhow::{Context, Result, bail};
use kiln_tree::ArchiveLimits;

use super::limits::size;

/// Parses `ratio=N,from=SIZE,entries=N`. Each of the three may be missing and then keeps its
/// default.
pub(crate) fn parse(text: &str) -> Result<ArchiveLimits> {
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
            "from" => limits.free_bytes = size(value)? as u64,
            _ => bail!("{}: expected ratio, from or entries", invalid()),
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_limits_are_raised_one_by_one() {
        let default = ArchiveLimits::default();
        assert_eq!(parse("ratio=9").unwrap(), ArchiveLimits { max_ratio: Some(9), ..default });
        assert_eq!(
            parse("entries=0,from=2m,ratio=0").unwrap(),
            ArchiveLimits { max_ratio: None, free_bytes: 2 << 20, max_entries: None }
        );
        for text in ["", "ratio", "ratio=x", "ratio=-1", "from=1y", "bytes=1", "ratio=1,"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
