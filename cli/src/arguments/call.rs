//! `--call`: a query about a Dockerfile.

use std::str::FromStr;

use anyhow::{Result, bail};

/// A query and the format of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) is_json: bool,
    /// `true` if findings of the build checks don't change the exit code.
    pub(crate) ignores_status: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Build,
    Check,
    Outline,
    Targets,
}

impl Call {
    /// A plain build.
    pub(crate) const BUILD: Self = Self::of(Method::Build);
    /// The build checks, in the default format.
    pub(crate) const CHECK: Self = Self::of(Method::Check);

    const fn of(method: Method) -> Self {
        Self { method, is_json: false, ignores_status: false }
    }
}

impl FromStr for Call {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut fields = text.split(',');
        let method = match fields.next().unwrap_or_default() {
            "" | "build" => Method::Build,
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => bail!("{other:?} is none of build, check, lint, outline, targets"),
        };
        let mut call = Self::of(method);
        for field in fields {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            match (key, value) {
                ("format", "json") => call.is_json = true,
                ("format", "text") => call.is_json = false,
                ("ignorestatus", "" | "true" | "1") => call.ignores_status = true,
                ("ignorestatus", "false" | "0") => call.ignores_status = false,
                ("format", _) => bail!("format {value:?} is neither json nor text"),
                _ => bail!("unknown field {field:?}: expected format=json or ignorestatus"),
            }
        }
        if call.is_json && method == Method::Build {
            bail!("a build has no format");
        }
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_a_method_and_a_format() {
        assert_eq!("build".parse::<Call>().unwrap(), Call::BUILD);
        assert_eq!("check".parse::<Call>().unwrap(), Call::CHECK);
        assert_eq!("lint".parse::<Call>().unwrap(), Call::CHECK);
        let call: Call = "lint,format=json,ignorestatus=true".parse().unwrap();
        assert_eq!(call, Call { is_json: true, ignores_status: true, ..Call::CHECK });
        for text in ["nothing", "check,format=xml", "check,colour=red", "build,format=json"] {
            assert!(text.parse::<Call>().is_err(), "{text}");
        }
    }
}
