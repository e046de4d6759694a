//! Flags that set attributes of all targets.

use anyhow::{Result, anyhow, bail};
use kiln_oci::text::parse_bool;

use crate::arguments::bake::BakeArguments;

/// The values of `--policy`.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// `true` if policies are off.
    pub(super) disabled: bool,
    entries: Vec<String>,
}

impl Policies {
    /// Reads the values of `--policy`.
    pub(super) fn parse(words: &[String]) -> Result<Self> {
        let mut policies = Self::default();
        for word in words {
            for field in word.split(',') {
                let (key, value) = field
                    .split_once('=')
                    .ok_or_else(|| anyhow!("invalid field {field:?} must be a key=value pair"))?;
                match key.trim().to_ascii_lowercase().as_str() {
                    "disabled" => {
                        policies.disabled |= parse_bool(value)
                            .ok_or_else(|| anyhow!("invalid value {value:?} for disabled"))?;
                    }
                    key @ ("filename" | "reset") => {
                        bail!("policy {key} is not supported for bake, set it in the bake file");
                    }
                    _ => {}
                }
            }
            policies.entries.push(word.clone());
        }
        Ok(policies)
    }
}

/// Returns the overrides: those that the user gives first.
pub(super) fn of(arguments: &BakeArguments, policies: &Policies) -> Vec<String> {
    let mut overrides = arguments.overrides.clone();
    let mut set = |text: String| overrides.push(format!("*.{text}"));
    if arguments.push {
        set("push=true".to_owned());
    }
    if arguments.load {
        set("load=true".to_owned());
    }
    let call = if arguments.check { Some("check") } else { arguments.call.as_deref() };
    if let Some(call) = call.filter(|call| *call != "build") {
        set(format!("call={}", if call == "check" { "lint" } else { call }));
    }
    if let Some(value) = &arguments.no_cache {
        set(format!("no-cache={value}"));
    }
    if let Some(value) = &arguments.pull {
        set(format!("pull={value}"));
    }
    for (kind, value) in [("sbom", &arguments.sbom), ("provenance", &arguments.provenance)] {
        if let Some(value) = value {
            set(match parse_bool(value) {
                Some(is_on) => format!("attest=type={kind},disabled={}", !is_on),
                None => format!("attest=type={kind},{value}"),
            });
        }
    }
    if !policies.disabled {
        for entry in &policies.entries {
            set(format!("policy+={entry}"));
        }
    }
    overrides
}
