//! The process of a container: the image's defaults, overridden by the request.

use std::path::PathBuf;

use anyhow::{Result, bail};
use kiln_oci::ContainerConfig;
use kiln_sandbox::{Process, User};

use super::spec::{EnvChange, ProcessOptions};

/// docker's `PATH` for images that set none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Combines the image's defaults with the request, as docker does.
pub(super) fn resolve(
    config: &ContainerConfig,
    options: &ProcessOptions,
    hostname: &str,
) -> Result<Process> {
    let args = command(config, options);
    if args.is_empty() {
        bail!("no command specified: the image has none, and none was given");
    }
    let cwd = match &options.workdir {
        Some(directory) if !directory.is_absolute() => {
            bail!("the working directory {:?} is no absolute path", directory.display())
        }
        Some(directory) => directory.clone(),
        None if config.working_dir.is_empty() => PathBuf::from("/"),
        None => PathBuf::from(&config.working_dir),
    };
    let user = options.user.clone().unwrap_or_else(|| config.user.clone());
    Ok(Process {
        args,
        env: environment(config, options, hostname),
        cwd,
        user: User::Named(user),
        groups: Vec::new(),
        terminal: options.terminal,
        rlimits: options.rlimits.clone(),
        oom_score_adj: None,
        has_init: false,
    })
}

fn command(config: &ContainerConfig, options: &ProcessOptions) -> Vec<String> {
    let entrypoint = match &options.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.clone()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    let command = if !options.command.is_empty() {
        options.command.clone()
    } else if options.entrypoint.is_some() {
        // The image's command belongs to the image's entrypoint, so it doesn't apply to another
        // one.
        Vec::new()
    } else {
        config.cmd.clone().unwrap_or_default()
    };
    entrypoint.into_iter().chain(command).collect()
}

/// Combines the image's environment with the request's changes. Later ones override earlier ones.
fn environment(config: &ContainerConfig, options: &ProcessOptions, hostname: &str) -> Vec<String> {
    let mut environment = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if options.has_term {
        environment.push("TERM=xterm".to_owned());
    }
    for variable in &config.env {
        set(&mut environment, variable);
    }
    for change in &options.env {
        match change {
            EnvChange::Set(variable) => set(&mut environment, variable),
            EnvChange::Unset(name) => environment.retain(|entry| self::name(entry) != name),
        }
    }
    environment
}

/// Sets a variable. Replaces an earlier variable of the same name.
fn set(environment: &mut Vec<String>, variable: &str) {
    match environment.iter_mut().find(|earlier| name(earlier) == name(variable)) {
        Some(earlier) => variable.clone_into(earlier),
        None => environment.push(variable.to_owned()),
    }
}

fn name(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(options: &ProcessOptions) -> Result<Process> {
        let config = ContainerConfig {
            entrypoint: Some(vec!["ep".to_owned()]),
            cmd: Some(vec!["image".to_owned(), "cmd".to_owned()]),
            env: vec!["A=1".to_owned(), "PATH=/p".to_owned()],
            working_dir: "/w".to_owned(),
            user: "u".to_owned(),
            ..ContainerConfig::default()
        };
        resolve(&config, options, "box")
    }

    #[test]
    fn commands_are_combined_as_docker_does() {
        let options = |entrypoint: Option<&str>, command: &[&str]| ProcessOptions {
            entrypoint: entrypoint.map(str::to_owned),
            command: command.iter().map(ToString::to_string).collect(),
            ..ProcessOptions::default()
        };
        let args = |entrypoint: Option<&str>, command: &[&str]| {
            process(&options(entrypoint, command)).unwrap().args.join(" ")
        };
        assert_eq!(args(None, &[]), "ep image cmd");
        assert_eq!(args(None, &["x", "-y"]), "ep x -y");
        assert_eq!(args(Some("e"), &[]), "e");
        assert_eq!(args(Some("e"), &["x"]), "e x");
        assert_eq!(args(Some(""), &["x"]), "x");
        assert!(process(&options(Some(""), &[])).is_err());
    }

    #[test]
    fn the_request_comes_before_the_images_defaults() {
        let defaults = process(&ProcessOptions::default()).unwrap();
        assert_eq!(defaults.env, ["PATH=/p", "HOSTNAME=box", "A=1"]);
        assert_eq!(defaults.cwd, PathBuf::from("/w"));
        assert_eq!(defaults.user, User::Named("u".to_owned()));
        let set = |text: &str| EnvChange::Set(text.to_owned());
        let unset = EnvChange::Unset("PATH".to_owned());
        let changed = process(&ProcessOptions {
            env: vec![set("A=2"), set("B=3"), unset],
            workdir: Some("/x".into()),
            user: Some("0".to_owned()),
            ..ProcessOptions::default()
        });
        let changed = changed.unwrap();
        assert_eq!(changed.env, ["HOSTNAME=box", "A=2", "B=3"]);
        assert_eq!(changed.cwd, PathBuf::from("/x"));
        assert_eq!(changed.user, User::Named("0".to_owned()));
        let workdir = Some("relative".into());
        assert!(process(&ProcessOptions { workdir, ..ProcessOptions::default() }).is_err());
    }
}
