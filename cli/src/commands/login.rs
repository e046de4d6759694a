//! `kiln login`.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln_registry::{Credential, CredentialPlace, Credentials, registry_of};

use crate::arguments::login::LoginArguments;
use crate::rendering::printer::Printer;
use crate::settings::Settings;
use crate::terminal::prompt;

/// The most bytes of a password on standard input.
const PASSWORD: usize = 1 << 20;

/// Runs `kiln login`.
pub(crate) async fn run(
    arguments: LoginArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let registry = registry_of(arguments.server.as_deref().unwrap_or_default())?;
    let (client, files) = (settings.registries.client(), settings.registries.credentials());
    if arguments.username.is_none() && arguments.password.is_none() && !arguments.password_stdin {
        let files = files.clone();
        let known = registry.clone();
        let known = tokio::task::spawn_blocking(move || files.get(&known, "")).await?;
        if let Some(known) = known? {
            printer.line("Authenticating with existing credentials...");
            match client.login(&registry, &known).await {
                Ok(_) => {
                    printer.line("Login Succeeded");
                    return Ok(ExitCode::SUCCESS);
                }
                Err(error) => printer.note(format_args!("Login did not succeed: {error}")),
            }
        }
    }
    let remembered = files.username(&registry);
    let (username, password) =
        tokio::task::block_in_place(|| ask(arguments, remembered.as_deref(), printer))?;
    let credential = Credential::Password { username: username.clone(), password };
    let kept = match client.login(&registry, &credential).await {
        // The hint to log in wouldn't help against a wrong password.
        Err(error) if error.is_denied() => {
            printer.failure(&error, None);
            return Ok(ExitCode::FAILURE);
        }
        kept => kept?,
    };
    let name = registry.clone();
    let put = move || files.put(&name, &username, &kept);
    if let CredentialPlace::File(path) = tokio::task::spawn_blocking(put).await?? {
        printer.note(format_args!(
            "WARNING! Your password will be stored unencrypted in {}.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/engine/reference/commandline/login/#credentials-store\n",
            path.display()
        ));
    }
    printer.line("Login Succeeded");
    Ok(ExitCode::SUCCESS)
}

/// Returns the user name and password from the arguments, standard input or the terminal.
fn ask(
    arguments: LoginArguments,
    remembered: Option<&str>,
    printer: &Printer,
) -> Result<(String, String)> {
    let LoginArguments { username, password, password_stdin, .. } = arguments;
    if password.is_some() && password_stdin {
        bail!("--password and --password-stdin are mutually exclusive");
    }
    if password.is_some() {
        printer.note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let password = if password_stdin {
        if username.as_deref().unwrap_or_default().is_empty() {
            bail!("Must provide --username with --password-stdin");
        }
        Some(read_password()?)
    } else {
        password
    };
    if (username.is_none() || password.is_none()) && !std::io::stdin().is_terminal() {
        bail!("Cannot perform an interactive login from a non TTY device");
    }
    let username = match username {
        Some(username) => username,
        None => prompt::username(remembered)?,
    };
    if username.is_empty() {
        bail!("Non-null Username Required");
    }
    let password = match password {
        Some(password) => password,
        None => prompt::password()?,
    };
    if password.is_empty() {
        bail!("Password Required");
    }
    Ok((username, password))
}

fn read_password() -> Result<String> {
    let mut bytes = Vec::new();
    let input = std::io::stdin().lock();
    input
        .take(PASSWORD as u64 + 1)
        .read_to_end(&mut bytes)
        .context("read the password from standard input")?;
    if bytes.len() > PASSWORD {
        bail!("the password on standard input is too long");
    }
    let text = String::from_utf8(bytes).context("the password on standard input is no text")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
