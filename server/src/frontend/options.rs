//! The options of a call of the built-in frontend.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard_buildkit_proto::pb;
use kiln_frontend::{ContextInput, Options, ProcessLimits, ResolveMode, SpentText};
use kiln_llb::op::Ulimit;
use kiln_llb::{Definition, Edge, base64};
use kiln_oci::text::parse_bool;
use kiln_oci::{ImageConfig, Platform};
use tonic::Status;

use super::Call;
use crate::errors::of_error;
use crate::exports::CONFIG;

/// The name of the local source with the build context.
pub(super) const CONTEXT: &str = "context";

/// Options about resources that steps can't be given.
const RESOURCES: [&str; 7] =
    ["memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "cpusetcpus", "cpusetmems"];

/// The options of a call, as the frontend needs them.
#[derive(Clone, Debug)]
pub(super) struct Requested {
    /// The frontend's options, but for the context and the platform.
    pub(super) options: Options,
    /// The platforms to build for; empty for this machine's.
    pub(super) platforms: Vec<Platform>,
    /// `true` if the result has an entry for each platform.
    pub(super) is_multi: bool,
}

impl Requested {
    /// Reads the options of a call.
    ///
    /// # Errors
    /// Fails if one is invalid, or if steps can't have what it asks for.
    pub(super) fn read(call: Call<'_>) -> Result<Self, Status> {
        if let Some(name) = RESOURCES.iter().find(|name| call.option(name).is_some()) {
            return Err(Status::unimplemented(format!("option {name} of the frontend")));
        }
        let platforms = platforms(call.option("platform").unwrap_or_default())?;
        let is_multi = is_multi(call, platforms.len())?;
        let mut named_contexts = call.with_prefix("context:");
        named_contexts.remove(CONTEXT);
        if let Some(url) = context_address(call) {
            named_contexts.insert(CONTEXT.to_owned(), url.to_owned());
        }
        let options = Options {
            target: call.option("target").map(str::to_owned),
            build_args: call.with_prefix("build-arg:"),
            labels: call.with_prefix("label:"),
            implicit_platform: platforms.is_empty(),
            network: call.option("force-network-mode").map(str::to_owned),
            resolve_mode: resolve_mode(call.option("image-resolve-mode"))?,
            named_contexts,
            inputs: inputs(call)?,
            local_sessions: call.with_prefix("local-sessionid:"),
            session: "kiln".to_owned(),
            extra_hosts: hosts(call.option("add-hosts").unwrap_or_default())?,
            limits: limits(call)?,
            hostname: call.option("hostname").map(str::to_owned),
            no_cache: call.options.get("no-cache").map(|stages| {
                stages.split(',').map(str::to_owned).filter(|stage| !stage.is_empty()).collect()
            }),
            context_name: CONTEXT.to_owned(),
            multi_platform: is_multi,
            strict_buildkit: true,
            spent: SpentText::default(),
            ..Options::default()
        };
        Ok(Self { options, platforms, is_multi })
    }
}

/// Returns the address of a build context that is no directory of the client.
pub(super) fn context_address(call: Call<'_>) -> Option<&str> {
    let name = call.option("contextkey").unwrap_or(CONTEXT);
    call.option(name).filter(|address| kiln_frontend::is_remote_context(address))
}

/// Returns `true` if the result has an entry for each platform.
fn is_multi(call: Call<'_>, count: usize) -> Result<bool, Status> {
    let named = call.option("build-arg:BUILDKIT_MULTI_PLATFORM").or(call.option("multi-platform"));
    let Some(text) = named else { return Ok(count > 1) };
    let problem = || format!("invalid boolean value for multi-platform: {text}");
    let asked = parse_bool(text).ok_or_else(|| Status::unknown(problem()))?;
    if !asked && count > 1 {
        let problem = "conflicting config: returning multiple target platforms is not allowed";
        return Err(Status::unknown(problem));
    }
    Ok(asked)
}

fn platforms(text: &str) -> Result<Vec<Platform>, Status> {
    let parse = |name: &str| {
        let failed =
            |error| Status::unknown(format!("failed to parse target platform {name}: {error}"));
        name.trim().parse().map_err(failed)
    };
    text.split(',').filter(|name| !name.trim().is_empty()).map(parse).collect()
}

fn resolve_mode(mode: Option<&str>) -> Result<ResolveMode, Status> {
    match mode {
        None | Some("default") => Ok(ResolveMode::Default),
        Some("pull") => Ok(ResolveMode::Pull),
        Some("local") => Ok(ResolveMode::Local),
        Some(mode) => Err(Status::unknown(format!("invalid image-resolve-mode: {mode}"))),
    }
}

fn hosts(text: &str) -> Result<Vec<(String, String)>, Status> {
    let failed =
        |problem: String| Status::unknown(format!("failed to parse additional hosts: {problem}"));
    let parse = |entry: &str| {
        let entry = entry.to_lowercase();
        let (name, address) = entry
            .split_once('=')
            .ok_or_else(|| failed(format!("invalid key-value pair {entry}")))?;
        let valid = address.parse::<IpAddr>();
        let valid = valid.map_err(|_| failed(format!("failed to parse IP {address}")))?;
        Ok((name.to_owned(), valid.to_string()))
    };
    fields(text).iter().map(|entry| parse(entry)).collect()
}

/// Splits a list at its commas. A field may be in quotes.
fn fields(text: &str) -> Vec<String> {
    let fields = text.split(',').map(|field| field.trim().trim_matches('"').to_owned());
    fields.filter(|field| !field.is_empty()).collect()
}

fn limits(call: Call<'_>) -> Result<ProcessLimits, Status> {
    let shm_size = match call.option("shm-size") {
        None => 0,
        Some(text) => text.parse().map_err(|error| {
            Status::unknown(format!("failed to parse shm size: {text}: {error}"))
        })?,
    };
    let ulimits = fields(call.option("ulimit").unwrap_or_default());
    let ulimits = ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?;
    let cgroup_parent = call.option("cgroup-parent").unwrap_or_default().to_owned();
    Ok(ProcessLimits { shm_size, ulimits, cgroup_parent })
}

fn ulimit(text: &str) -> Result<Ulimit, Status> {
    let failed = || Status::unknown(format!("failed to parse ulimit: invalid ulimit {text:?}"));
    let (name, values) = text.split_once('=').ok_or_else(failed)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |value: &str| value.parse::<i64>().map_err(|_| failed());
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(failed());
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// Reads the graphs that named contexts may refer to, with the image configs beside them.
fn inputs(call: Call<'_>) -> Result<BTreeMap<String, ContextInput>, Status> {
    let read = |(name, definition): (&String, &pb::Definition)| {
        let metadata = call.option(&format!("input-metadata:{name}"));
        let input = ContextInput {
            edge: edge(definition.clone())?,
            config: metadata.map(|text| input_config(name, text)).transpose()?.flatten(),
        };
        Ok((name.clone(), input))
    };
    call.inputs.iter().map(read).collect()
}

/// Returns the output that a graph targets; `None` for an empty file system.
fn edge(definition: pb::Definition) -> Result<Option<Edge>, Status> {
    if definition.def.is_empty() {
        if definition.metadata.is_empty() {
            return Err(Status::unknown("invalid nil input definition to definition op"));
        }
        return Ok(None);
    }
    let definition = Definition::from_pb(definition).map_err(|error| of_error(&error))?;
    Edge::load(&definition).map(Some).map_err(|error| of_error(&error))
}

fn input_config(name: &str, text: &str) -> Result<Option<ImageConfig>, Status> {
    let failed = |problem: String| {
        Status::unknown(format!("failed to parse input metadata of {name}: {problem}"))
    };
    let metadata: HashMap<String, String> =
        serde_json::from_str(text).map_err(|error| failed(error.to_string()))?;
    let Some(config) = metadata.get(CONFIG) else { return Ok(None) };
    let bytes = base64::decode(config).ok_or_else(|| failed("invalid base64".to_owned()))?;
    ImageConfig::parse(&bytes).map(Some).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Requested, Status> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let options = options.iter().map(owned).collect();
        let inputs = HashMap::new();
        Requested::read(Call { name: "dockerfile.v0", options: &options, inputs: &inputs })
    }

    #[test]
    fn options_are_read() {
        let read = read(&[
            ("add-hosts", "A=1.2.3.4,b=::1"),
            ("ulimit", "nofile=5:7"),
            ("shm-size", "128"),
            ("no-cache", ""),
            ("platform", "linux/amd64,linux/arm64/v8"),
            ("context:context", "local:x"),
            ("context:a", "input:b"),
        ]);
        let Requested { options, platforms, is_multi } = read.unwrap();
        assert_eq!(options.extra_hosts[0], ("a".to_owned(), "1.2.3.4".to_owned()));
        let limit = &options.limits.ulimits[0];
        assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("nofile", 5, 7));
        assert_eq!(options.limits.shm_size, 128);
        assert_eq!(options.no_cache, Some(Vec::new()));
        assert_eq!(platforms.len(), 2);
        assert!(is_multi && !options.implicit_platform);
        assert_eq!(options.named_contexts.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn invalid_options_are_named() {
        for (name, value, part) in [
            ("add-hosts", "a", "invalid key-value pair a"),
            ("add-hosts", "a=b", "failed to parse IP b"),
            ("shm-size", "x", "failed to parse shm size"),
            ("ulimit", "x", "failed to parse ulimit"),
            ("ulimit", "nofile=2:1", "failed to parse ulimit"),
            ("image-resolve-mode", "x", "invalid image-resolve-mode: x"),
            ("platform", "a/b/c/d", "failed to parse target platform"),
            ("multi-platform", "x", "invalid boolean value for multi-platform: x"),
            ("memory", "1", "option memory"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.message().contains(part), "{name}={value}: {error}");
        }
    }
}
