//! Checks of what a target would use when it is built.

use kiln_oci::Platform;

use crate::entries::{Output, Secret, Ssh};
use crate::error::Error;
use crate::fields;
use crate::path;
use crate::remote;
use crate::surroundings::Surroundings;
use crate::target::Target;

/// Cleans the paths of a target and checks what it uses.
pub(crate) fn check(target: &mut Target, surroundings: &dyn Surroundings) -> Result<(), Error> {
    if target.context.as_deref() == Some("-") {
        return Err(Error::new("context from stdin not allowed in bake"));
    }
    if target.dockerfile.as_deref() == Some("-") {
        return Err(Error::new("dockerfile from stdin not allowed in bake"));
    }
    let context = target.context.clone().unwrap_or_else(|| ".".into());
    target.context = Some(match context.strip_prefix("cwd://") {
        Some(rest) => path::clean(rest),
        None if remote::is_remote(&context) => context,
        None => path::clean(&context),
    });
    if let Some(size) = &target.shm_size
        && fields::parse_size(size).is_err()
    {
        return Err(Error::new(format!("invalid value {size} for membytes key shm-size")));
    }
    for platform in target.platforms.iter().flatten().flat_map(|list| list.split(',')) {
        if !platform.eq_ignore_ascii_case("local") {
            platform.parse::<Platform>().map_err(|error| Error::new(error.to_string()))?;
        }
    }
    for secret in target.secrets.iter().flatten() {
        check_secret(secret, surroundings)?;
    }
    check_agents(target, surroundings)?;
    check_outputs(target.outputs.iter_mut().flatten(), surroundings)?;
    for annotation in target.annotations.iter().flatten() {
        check_annotation(annotation)?;
    }
    for limit in target.ulimits.iter().flatten() {
        check_ulimit(limit)?;
    }
    check_resources(target)
}

/// Checks that the file of a secret exists. A secret without source may be in the environment.
fn check_secret(secret: &Secret, surroundings: &dyn Surroundings) -> Result<(), Error> {
    if secret.id.is_empty() {
        return Err(Error::new("secret missing ID"));
    }
    let file = match (&*secret.file, &*secret.variable) {
        ("", "") if surroundings.variable(&secret.id).is_some() => return Ok(()),
        ("", "") => &secret.id,
        ("", _) => return Ok(()),
        (file, _) => file,
    };
    surroundings.check(file).map_err(|error| {
        Error::new(format!("failed to stat {file}: stat {file}: {}", reason(&error)))
    })
}

/// Says why a file can't be used, the way it is usually said.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "is a directory".into(),
        std::io::ErrorKind::NotADirectory => "not a directory".into(),
        _ => error.to_string(),
    }
}

/// Checks SSH agents. A repository that is reached by SSH needs the default one.
fn check_agents(target: &Target, surroundings: &dyn Surroundings) -> Result<(), Error> {
    let mut agents: Vec<Ssh> = target.ssh.clone().unwrap_or_default();
    if agents.is_empty() && target.context.as_deref().is_some_and(remote::is_git_ssh) {
        agents.push(Ssh { id: "default".into(), paths: Vec::new() });
    }
    let mut seen: Vec<String> = Vec::new();
    for mut agent in agents {
        if agent.id.is_empty() {
            agent.id = "default".into();
        }
        let shown = format!("{{{} [{}] false}}", agent.id, agent.paths.join(" "));
        if seen.contains(&agent.id) {
            return Err(Error::new(format!("duplicate agent ID {:?}", agent.id)));
        }
        let failed =
            |why: String| Error::new(format!("failed to convert agent config {shown}: {why}"));
        let for_id = |why: String| {
            failed(format!("failed to convert agent config for ID: {:?}: {why}", agent.id))
        };
        if agent.paths.is_empty() || agent.paths == [""] {
            let socket = surroundings.variable("SSH_AUTH_SOCK").unwrap_or_default();
            if socket.is_empty() {
                return Err(failed(
                    "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set".into(),
                ));
            }
            agent.paths = vec![socket];
        }
        for file in &agent.paths {
            surroundings.check(file).map_err(|error| {
                for_id(format!("failed to open {file}: open {file}: {}", reason(&error)))
            })?;
        }
        if agent.paths.len() > 1 {
            return Err(for_id("only single socket allowed".into()));
        }
        seen.push(agent.id.clone());
    }
    Ok(())
}

/// Checks the destinations of outputs.
fn check_outputs<'a>(
    outputs: impl Iterator<Item = &'a mut Output>,
    surroundings: &dyn Surroundings,
) -> Result<(), Error> {
    let mut writes_to_stdout = false;
    for output in outputs {
        let kind = output.kind.clone();
        let archive = output
            .attributes
            .get("tar")
            .and_then(|text| fields::parse_bool(text).ok())
            .unwrap_or(true);
        let is_archive = match &*kind {
            "tar" => true,
            "oci" | "docker" => archive,
            _ => false,
        };
        let is_folder = kind == "local" || (matches!(&*kind, "oci" | "docker") && !archive);
        if is_folder {
            if output.destination.is_empty() {
                return Err(Error::new(format!("dest is required for {kind} exporter")));
            }
            if output.destination == "-" {
                return Err(Error::new(format!("dest cannot be stdout for {kind} exporter")));
            }
            if surroundings.is_folder(&output.destination) == Some(false) {
                return Err(Error::new(format!(
                    "destination directory {} is a file",
                    output.destination
                )));
            }
        }
        if !is_archive {
            continue;
        }
        if output.destination.is_empty() && kind != "docker" {
            output.destination = "-".into();
        }
        if output.destination == "-" {
            if writes_to_stdout {
                return Err(Error::new("multiple outputs configured to write to stdout"));
            }
            if surroundings.prints_to_terminal() {
                return Err(Error::new(format!(
                    "dest file is required for {kind} exporter. refusing to write to console"
                )));
            }
            writes_to_stdout = true;
        } else if surroundings.is_folder(&output.destination) == Some(true) {
            return Err(Error::new(format!(
                "destination file {} is a directory",
                output.destination
            )));
        }
    }
    Ok(())
}

/// Checks the form of an annotation.
fn check_annotation(annotation: &str) -> Result<(), Error> {
    const KINDS: [&str; 4] = ["index", "index-descriptor", "manifest", "manifest-descriptor"];
    if annotation.is_empty() {
        return Ok(());
    }
    let Some((key, _)) = annotation.split_once('=') else {
        return Err(Error::new(format!("invalid annotation {annotation:?}, expected key=value")));
    };
    let Some((kinds, _)) = key.split_once(':') else {
        return Ok(());
    };
    for kind in kinds.split(',') {
        let (word, platform) = match kind.strip_suffix(']').and_then(|kind| kind.split_once('[')) {
            Some((word, platform)) => (word, Some(platform)),
            None => (kind, None),
        };
        let is_word =
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        if !is_word || platform.is_some_and(str::is_empty) {
            return Err(Error::new(format!(
                "invalid annotation type {kind:?}, expected type and optional platform in square \
                 brackets"
            )));
        }
        if !KINDS.contains(&word) {
            return Err(Error::new(format!("unknown annotation type {word:?}")));
        }
        if let Some(platform) = platform {
            platform
                .parse::<Platform>()
                .map_err(|error| Error::new(format!("invalid platform {platform:?}: {error}")))?;
        }
    }
    Ok(())
}

/// Checks the form of a limit of processes.
fn check_ulimit(limit: &str) -> Result<(), Error> {
    const ORDER: &str = "ulimit soft limit must be less than or equal to hard limit";
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
    let Some((name, values)) = limit.split_once('=') else {
        return Err(Error::new(format!("invalid ulimit argument: {limit}")));
    };
    if !NAMES.contains(&name) {
        return Err(Error::new(format!("invalid ulimit type: {name}")));
    }
    let parts: Vec<&str> = values.split(':').collect();
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| Error::new(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    };
    let (soft, hard) = match parts.as_slice() {
        [both] => (number(both)?, number(both)?),
        [soft, hard] => {
            let hard = number(hard)?;
            (number(soft)?, hard)
        }
        _ => {
            return Err(Error::new(format!(
                "too many limit value arguments - {values}, can only have up to two, `soft[:hard]`"
            )));
        }
    };
    if hard != -1 && soft == -1 {
        return Err(Error::new(format!("{ORDER}: soft: -1 (unlimited), hard: {hard}")));
    }
    if hard != -1 && soft > hard {
        return Err(Error::new(format!("{ORDER}: {soft} > {hard}")));
    }
    Ok(())
}

/// Checks the limits of memory.
fn check_resources(target: &Target) -> Result<(), Error> {
    let Some(resources) = &target.resources else {
        return Ok(());
    };
    let check = |name: &str, value: &Option<String>| match value.as_deref().map(str::trim) {
        None => Ok(()),
        Some("-1") if name == "memory-swap" => Ok(()),
        Some(text) => match fields::parse_size(text) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(Error::new(format!("invalid value {text:?} for resource {name}: {error}")))
            }
        },
    };
    check("memory", &resources.memory)?;
    check("memory-swap", &resources.memory_swap)
}
