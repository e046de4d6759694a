//! The process of a container: the image's defaults, overridden by the arguments.

use std::path::PathBuf;

use anyhow::{Result, bail};
use kiln_oci::ContainerConfig;
use kiln_sandbox::{Process, Rlimit, User};

use super::environment;
use crate::commands::run::RunArguments;
use crate::limits::{self, Ulimit};

/// Combines the image's defaults with the arguments, as docker does.
pub(super) fn resolve(
    config: &ContainerConfig,
    arguments: &RunArguments,
    hostname: &str,
) -> Result<Process> {
    let args = command(config, arguments);
    if args.is_empty() {
        bail!("no command specified: the image has none, and none was given");
    }
    let asked = arguments.workdir.as_ref().filter(|directory| !directory.as_os_str().is_empty());
    let cwd = match asked {
        Some(directory) if !directory.is_absolute() => {
            bail!("the working directory {:?} is no absolute path", directory.display())
        }
        Some(directory) => directory.clone(),
        None if config.working_dir.is_empty() => PathBuf::from("/"),
        None => PathBuf::from(&config.working_dir),
    };
    let user = arguments.user.clone().unwrap_or_else(|| config.user.clone());
    Ok(Process {
        args,
        env: environment::resolve(config, arguments, hostname)?,
        cwd,
        user: User::Named(user),
        groups: Vec::new(),
        terminal: None,
        rlimits: limits::ulimits(&arguments.ulimits)?.into_iter().map(rlimit).collect(),
        oom_score_adj: None,
        has_init: false,
    })
}

fn rlimit(limit: Ulimit) -> Rlimit {
    // -1 means no limit.
    let value = |value: i64| u64::try_from(value).ok();
    Rlimit { name: limit.name, soft: value(limit.soft), hard: value(limit.hard) }
}

fn command(config: &ContainerConfig, arguments: &RunArguments) -> Vec<String> {
    let entrypoint = match &arguments.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.clone()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    let command = if !arguments.command().is_empty() {
        arguments.command().to_vec()
    } else if arguments.entrypoint.is_some() {
        // The image's command belongs to the image's entrypoint, so it doesn't apply to another
        // one.
        Vec::new()
    } else {
        config.cmd.clone().unwrap_or_default()
    };
    entrypoint.into_iter().chain(command).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::flags::tests::run as run_arguments;

    fn process(typed: &[&str]) -> Result<Process> {
        let arguments = run_arguments(typed);
        let config = ContainerConfig {
            entrypoint: Some(vec!["ep".to_owned()]),
            cmd: Some(vec!["image".to_owned(), "cmd".to_owned()]),
            env: vec!["A=1".to_owned(), "PATH=/p".to_owned()],
            working_dir: "/w".to_owned(),
            user: "u".to_owned(),
            ..ContainerConfig::default()
        };
        resolve(&config, &arguments, "box")
    }

    #[test]
    fn commands_are_combined_as_docker_does() {
        let args = |typed: &[&str]| process(typed).unwrap().args.join(" ");
        assert_eq!(args(&["img"]), "ep image cmd");
        assert_eq!(args(&["img", "x", "-y"]), "ep x -y");
        assert_eq!(args(&["--rm", "img", "--version", "--rm", "-x"]), "ep --version --rm -x");
        assert_eq!(args(&["--entrypoint", "e", "img"]), "e");
        assert_eq!(args(&["--entrypoint", "e", "img", "x"]), "e x");
        assert_eq!(args(&["--entrypoint", "", "img", "x"]), "x");
        assert!(process(&["--entrypoint", "", "img"]).is_err());
    }

    #[test]
    fn what_was_asked_for_comes_before_the_images_defaults() {
        let defaults = process(&["img"]).unwrap();
        assert_eq!(defaults.env, ["PATH=/p", "HOSTNAME=box", "A=1"]);
        assert_eq!(defaults.cwd, PathBuf::from("/w"));
        assert_eq!(defaults.user, User::Named("u".to_owned()));
        let asked = process(&["-e", "A=2", "-e", "B=3", "-w", "/x", "-u", "0", "img"]).unwrap();
        assert_eq!(asked.env, ["PATH=/p", "HOSTNAME=box", "A=2", "B=3"]);
        assert_eq!(asked.cwd, PathBuf::from("/x"));
        assert_eq!(asked.user, User::Named("0".to_owned()));
        assert!(process(&["-w", "relative", "img"]).is_err());
        assert_eq!(process(&["-w", "", "img"]).unwrap().cwd, PathBuf::from("/w"));
    }
}
