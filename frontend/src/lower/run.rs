//! `RUN`: a process that changes the stage's files.

use std::net::IpAddr;

use kiln_llb::op::{
    ContentCache, ExecOp, HOST_GATEWAY, HostIp, Meta, Mount, MountKind, NetMode, SecurityMode,
};
use kiln_llb::{OpMetadata, op};

use crate::error::Error;
use crate::expand::{Env, Expander};
use crate::instruction::run::{self, Network, RunFlags, Security, parse_run_flags};
use crate::instruction::{CommandLine, RunInstruction};
use crate::parser::heredoc;

use super::copy_sources::inline_file;
use super::dispatch::Site;
use super::go_text;
use super::graph::{Output, Plan};
use super::run_mount::{self, Mounts};
use super::shell::with_shell;
use super::stage::BuildArg;
use super::{Lowering, metadata, path, step_name};

/// The directory where scripts from heredocs are mounted.
const SCRIPTS: &str = "/dev/pipes/";

/// Adds the op for the process.
pub(super) fn dispatch(site: &mut Site<'_, '_>, instruction: &RunInstruction) -> Result<(), Error> {
    let flags = flags(site, instruction)?;
    // A process may read any file.
    site.lowering.graph.use_path(site.stage.paths, "/");
    let mut mounts = Mounts::default();
    let (args, remark) = arguments(site, &instruction.command, &mut mounts)?;
    let args =
        if instruction.command.prepend_shell { with_shell(&site.stage.image, &args) } else { args };
    run_mount::dispatch(site, &flags.mounts, &mut mounts)?;
    if !flags.devices.is_empty() {
        return Err(Error::new(
            "device feature is only supported in Dockerfile frontend 1.14.0-labs or later",
        ));
    }
    let name = name(site, &remark, &flags);
    let text = format!("RUN {}", history_command(site, &args));
    let (exec, inputs) = process(site, &flags, args, mounts)?;
    let metadata = metadata::step(&name, Some(site.instruction.span));
    let metadata = metadata::with_command(metadata, &site.instruction.original);
    let metadata = OpMetadata { ignore_cache: site.stage.ignore_cache, ..metadata };
    let platform = site.stage.state.platform.clone();
    let platform = platform.unwrap_or_else(|| site.lowering.options.platform.clone());
    let plan = Plan::Exec(Box::new(exec), inputs);
    site.stage.state.output = Some(site.lowering.graph.add(plan, Some(platform), metadata));
    site.commit_layer(&text);
    Ok(())
}

fn flags(site: &mut Site<'_, '_>, instruction: &RunInstruction) -> Result<RunFlags, Error> {
    parse_run_flags(&instruction.flags, Some(&mut |word: &str| site.expand(word)))
}

/// Returns the words of the command, and the part of the step's name that describes a heredoc.
fn arguments(
    site: &mut Site<'_, '_>,
    command: &CommandLine,
    mounts: &mut Mounts,
) -> Result<(Vec<String>, String), Error> {
    let Some(first) = command.files.first() else {
        return Ok((command.args.clone(), String::new()));
    };
    let [line] = command.args.as_slice() else {
        return Err(invalid_command(command));
    };
    if !command.prepend_shell {
        return Err(invalid_command(command));
    }
    if heredoc::parse(line).is_none() {
        // The shell parses the heredocs itself.
        let mut script = line.clone();
        for file in &command.files {
            script = script + "\n" + &file.content + &file.name;
        }
        return Ok((vec![script], String::new()));
    }
    let data = if first.chomp { heredoc::chomped(&first.content) } else { first.content.clone() };
    let remark = format!(" ({})", summary(&first.content));
    if site.stage.image.os != "windows" && data.starts_with("#!") {
        let file = path::for_action("/", &first.name, false);
        let output = inline_file(site, &file, 0o755, data.into_bytes());
        mounts.add(read_only_directory(SCRIPTS), Some(output));
        return Ok((vec![path::join(SCRIPTS, &first.name)], remark));
    }
    Ok((vec![data], remark))
}

fn invalid_command(command: &CommandLine) -> Error {
    let args = go_text::list(&command.args);
    Error::new(format!("parsing produced an invalid run command: {args}"))
}

/// Returns the first line of a script, with `...` if there are more.
fn summary(script: &str) -> String {
    let script = script.trim().replace("\r\n", "\n");
    match script.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => script,
    }
}

fn read_only_directory(dest: &str) -> Mount {
    Mount {
        input: None,
        selector: "/".to_owned(),
        dest: dest.to_owned(),
        output: None,
        readonly: true,
        kind: MountKind::Bind,
        content_cache: ContentCache::Default,
        result_id: String::new(),
    }
}

/// An environment for step names, with masked secrets.
struct Masked<'a> {
    env: &'a dyn Env,
    secrets: Vec<&'a str>,
}

impl Env for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if self.secrets.contains(&name) { Some("****") } else { self.env.get(name) }
    }

    fn keys(&self) -> Vec<&str> {
        let others = self.env.keys().into_iter().filter(|key| !self.secrets.contains(key));
        others.chain(self.secrets.iter().copied()).collect()
    }
}

fn name(site: &mut Site<'_, '_>, remark: &str, flags: &RunFlags) -> String {
    let env = site.env();
    let expander = Expander { raw_quotes: true, skip_unset: true, ..site.lowering.expander };
    let secret = |mount: &'_ run::Mount| mount.kind == run::MountKind::Secret;
    let secrets = flags.mounts.iter().filter(|mount| secret(mount));
    let secrets = secrets.filter_map(|mount| mount.env.as_deref()).collect();
    let masked = Masked { env: &*env, secrets };
    let text = format!("{}{remark}", site.instruction.original);
    let text = step_name::of_instruction(&text, expander, &masked);
    site.lowering.budget.spend(text.len());
    let platform = site.stage.state.platform.clone();
    let platform = platform.and_then(|platform| site.lowering.named_platform(&platform));
    step_name::next(site.stage, &text, platform.as_ref(), &*env)
}

/// Returns the command for the history, with the build arguments in front.
fn history_command(site: &Site<'_, '_>, args: &[String]) -> String {
    let env = &site.stage.state.env;
    let mut values: Vec<String> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for BuildArg { key, value } in &site.stage.build_args {
        let value = env.get(key).or(value.as_deref()).unwrap_or_default();
        let entry = format!("{key}={value}");
        let place = *places.entry(key).or_insert(values.len());
        if place < values.len() {
            values[place] = entry;
        } else {
            values.push(entry);
        }
    }
    let mut words = Vec::with_capacity(values.len() + args.len() + 1);
    if !values.is_empty() {
        words.push(format!("|{}", values.len()));
    }
    words.append(&mut values);
    words.extend_from_slice(args);
    words.join(" ")
}

/// Returns the op and the sources of its mounts.
fn process(
    site: &Site<'_, '_>,
    flags: &RunFlags,
    args: Vec<String>,
    mut mounts: Mounts,
) -> Result<(ExecOp, Vec<Option<Output>>), Error> {
    let state = &site.stage.state;
    let lowering = &site.lowering;
    lowering.budget.spend(state.env.iter().map(|(key, value)| key.len() + value.len()).sum());
    lowering.budget.spend(args.iter().map(String::len).sum());
    lowering.budget.check()?;
    let mut env = state.env.to_strings();
    let mut meta = Meta {
        args,
        cwd: state.dir.clone(),
        user: state.user.clone(),
        proxy_env: lowering.proxies.clone(),
        extra_hosts: extra_hosts(lowering)?,
        hostname: lowering.hostname.clone(),
        remove_mount_stubs_recursive: true,
        ..Meta::default()
    };
    lowering.options.limits.apply(&mut meta, &mut mounts);
    let (mounts, inputs, agent) = mounts.finish(state.output);
    if let Some(agent) = agent
        && state.env.get("SSH_AUTH_SOCK").is_none()
    {
        env.push(format!("SSH_AUTH_SOCK={agent}"));
    }
    let exec = ExecOp {
        meta: Meta { env, ..meta },
        mounts,
        network: match flags.network {
            Network::Default => state.network,
            Network::None => NetMode::None,
            Network::Host => NetMode::Host,
        },
        security: match flags.security {
            Security::Sandbox => SecurityMode::Sandbox,
            Security::Insecure => SecurityMode::Insecure,
        },
        secret_env: run_mount::secret_env(&flags.mounts),
        cdi_devices: Vec::new(),
    };
    Ok((exec, inputs))
}

fn extra_hosts(lowering: &Lowering<'_>) -> Result<Vec<op::HostIp>, Error> {
    let host = |(host, ip): &(String, String)| {
        // The worker determines the address when the step runs.
        if ip == HOST_GATEWAY {
            return Ok(HostIp { host: host.to_lowercase(), ip: ip.clone() });
        }
        let address = ip.parse::<IpAddr>();
        let address = address.map_err(|_| Error::new(format!("failed to parse IP {ip}")))?;
        Ok(HostIp { host: host.to_lowercase(), ip: address.to_canonical().to_string() })
    };
    lowering.options.extra_hosts.iter().map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_summed_up() {
        assert_eq!(summary("\nset -e\r\necho\n"), "set -e...");
        assert_eq!(summary("one\n"), "one");
        assert_eq!(summary(""), "");
    }
}
