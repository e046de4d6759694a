//! The build's request in its provenance, with the names that `BuildKit`'s clients use.

use kiln_attest::{ConfigSource, Request};
use kiln_frontend::Options;

use super::super::lowering::options;
use super::super::spec::ContextPlace;
use super::super::spec::{BuildSpec, CONTEXT_NAME};
use super::sources::Sources;
use crate::redact::{self, Redactor};

const BUILD_ARG: &str = "build-arg:";
const LABEL: &str = "label:";
const NAMED_CONTEXT: &str = "context:";
const LAYOUT: &str = "oci-layout://";

/// Returns the request with its options and the secrets and agents of its steps.
pub(super) fn request(request: &BuildSpec, sources: &Sources) -> Request {
    let Options {
        target,
        build_args,
        labels,
        network,
        named_contexts,
        extra_hosts,
        limits,
        no_cache,
        ..
    } = options(request);
    let mut args = std::collections::BTreeMap::new();
    let prefixed = |prefix: &'static str| move |(name, value)| (format!("{prefix}{name}"), value);
    args.extend(build_args.into_iter().map(prefixed(BUILD_ARG)));
    args.extend(labels.into_iter().map(prefixed(LABEL)));
    let contexts = named_contexts.into_iter().filter(|(name, _)| name != CONTEXT_NAME);
    args.extend(contexts.map(|(name, value)| {
        // The provenance doesn't reveal the directory's path.
        let value = if value.starts_with(LAYOUT) { format!("{LAYOUT}{name}") } else { value };
        (format!("{NAMED_CONTEXT}{name}"), redact::urls(&value).into_owned())
    }));
    let hosts: Vec<String> =
        extra_hosts.iter().map(|(host, address)| format!("{host}={address}")).collect();
    let ulimits: Vec<String> =
        limits.ulimits.iter().map(|it| format!("{}={}:{}", it.name, it.soft, it.hard)).collect();
    let shm_size = (limits.shm_size > 0).then(|| limits.shm_size.to_string());
    for (name, value) in [
        ("target", target),
        ("force-network-mode", network),
        ("add-hosts", (!hosts.is_empty()).then(|| hosts.join(","))),
        ("ulimit", (!ulimits.is_empty()).then(|| ulimits.join(","))),
        ("shm-size", shm_size),
        ("no-cache", no_cache.map(|stages| stages.join(","))),
    ] {
        args.extend(value.map(|value| (name.to_owned(), value)));
    }
    Request {
        frontend: "dockerfile.v0".to_owned(),
        args,
        secrets: sources.secrets(),
        ssh: sources.agents(),
        locals: sources.locals.iter().cloned().collect(),
        ..Request::default()
    }
}

/// Removes credentials. Returns `true` if the request contained none.
pub(super) fn hide_credentials(request: &mut Request, redactor: &Redactor) -> bool {
    let before = request.args.len();
    request.args.retain(|name, value| {
        let given = [BUILD_ARG, LABEL].iter().find_map(|prefix| name.strip_prefix(prefix));
        !given.is_some_and(|given| redact::is_credential(given, value))
    });
    let mut is_whole = request.args.len() == before;
    for value in request.args.values_mut() {
        let safe = redactor.text(value);
        is_whole &= safe == *value;
        *value = safe;
    }
    is_whole
}

/// Removes the values of arguments and labels, and the secrets and SSH agents. Returns `true` if it
/// removed values.
pub(super) fn reduce(request: &mut Request) -> bool {
    let before = request.args.len();
    request.args.retain(|name, _| !name.starts_with(BUILD_ARG) && !name.starts_with(LABEL));
    request.secrets.clear();
    request.ssh.clear();
    request.args.len() < before
}

/// Returns the source of the Dockerfile.
pub(super) fn config_source(
    request: &BuildSpec,
    dockerfile: &str,
    sources: &Sources,
) -> ConfigSource {
    let path = dockerfile.to_owned();
    let ContextPlace::Remote(url) = &request.context else {
        return ConfigSource { path, ..ConfigSource::default() };
    };
    let uri = redact::urls(url).into_owned();
    // A fetched source is known without its subdirectory.
    let (address, fragment) = uri.split_once('#').unwrap_or((&uri, ""));
    let reference = fragment.split(':').next().unwrap_or_default();
    let fetched =
        if reference.is_empty() { address.to_owned() } else { format!("{address}#{reference}") };
    let digest = sources.find(&fetched).map(|it| it.digest.clone()).unwrap_or_default();
    ConfigSource { uri, digest, path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Request {
        let args = [
            ("build-arg:VERSION", "1"),
            ("build-arg:NPM_TOKEN", "x"),
            ("label:a", "b"),
            ("target", "t"),
            ("context:c", "see s3cret"),
        ];
        let args = args.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Request { args: args.into(), ..Request::default() }
    }

    fn names(request: &Request) -> Vec<&str> {
        request.args.keys().map(String::as_str).collect()
    }

    #[test]
    fn credentials_are_never_told() {
        let mut redactor = Redactor::default();
        redactor.add(b"s3cret");
        let mut request = given();
        assert!(!hide_credentials(&mut request, &redactor));
        assert_eq!(names(&request), ["build-arg:VERSION", "context:c", "label:a", "target"]);
        assert_eq!(request.args["context:c"], "see ***");
        assert!(hide_credentials(&mut request, &redactor), "nothing is left to hide");
    }

    #[test]
    fn little_is_told_where_little_is_wanted() {
        let mut request = given();
        assert!(reduce(&mut request));
        assert_eq!(names(&request), ["context:c", "target"]);
        assert!(!reduce(&mut request));
    }
}
