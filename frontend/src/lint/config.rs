//! The settings of build checks: `skip=RULE,…;error=true;experimental=RULE,…`.

use crate::error::Error;
use kiln_oci::text::parse_bool;

use crate::text::quote;

/// The disabled and the enabled checks, and whether warnings are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The names of disabled checks.
    pub skip: Vec<String>,
    /// `true` if all checks are disabled, except for experimental checks that are enabled by name.
    pub skip_all: bool,
    /// The names of enabled experimental checks.
    pub experimental: Vec<String>,
    /// `true` if all experimental checks are enabled.
    pub experimental_all: bool,
    /// `true` if a warning fails the build.
    pub is_error: bool,
}

impl Config {
    /// Parses the value of a `check` directive. An empty value stands for the defaults.
    ///
    /// # Errors
    /// Fails on a malformed option.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for part in text.splitn(3, ';') {
            let Some((name, value)) = part.split_once('=') else {
                return Err(Error::new(format!("invalid check option {}", quote(part))));
            };
            config.set(part, name.trim(), value.trim())?;
        }
        Ok(config)
    }

    fn set(&mut self, part: &str, name: &str, value: &str) -> Result<(), Error> {
        let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
        match (name, value) {
            ("skip", "all") => self.skip_all = true,
            ("skip", _) => self.skip = names(),
            ("experimental", "all") => self.experimental_all = true,
            ("experimental", _) => self.experimental = names(),
            ("error", _) => {
                self.is_error = parse_bool(value).ok_or_else(|| {
                    Error::new(format!(
                        "failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax",
                        quote(part),
                        quote(value)
                    ))
                })?;
            }
            _ => return Err(Error::new(format!("invalid check option {}", quote(name)))),
        }
        Ok(())
    }

    /// Adds the disabled and the enabled checks of `other`.
    pub(super) fn merge(&mut self, other: Self) {
        self.skip_all |= other.skip_all;
        self.skip.extend(other.skip);
        self.experimental_all |= other.experimental_all;
        self.experimental.extend(other.experimental);
    }
}

/// Returns the settings in a comment `check=…`, or `None` for any other comment.
pub(super) fn in_comment(comment: &str) -> Option<Result<Config, Error>> {
    let mut directives = crate::parser::directive::Directives::new("");
    let directive = directives.take(comment).ok()??;
    if directive.name != "check" {
        return None;
    }
    Some(Config::parse(directive.value.split(' ').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed() {
        for (text, message) in [
            ("skip", "invalid check option \"skip\""),
            ("skip=A;", "invalid check option \"\""),
            ("what=1", "invalid check option \"what\""),
            (
                "error=maybe",
                "failed to parse check option \"error=maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(Config::parse(text).unwrap_err().message, message);
        }
    }

    #[test]
    fn well_formed() {
        let config = Config::parse(" skip = A , B ; error = 1 ;experimental=C").unwrap();
        assert_eq!(config.skip, ["A", "B"]);
        assert_eq!(config.experimental, ["C"]);
        assert!(config.is_error);
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }
}
