//! Prompts for a user name and a password on the terminal.

use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Prompts for a user name. Returns the remembered one if the user presses only Enter.
pub(crate) fn username(remembered: Option<&str>) -> Result<String> {
    let default = remembered.map_or_else(String::new, |name| format!(" ({name})"));
    let typed = read(&format!("Username{default}: "))?;
    Ok(match remembered {
        Some(name) if typed.is_empty() => name.to_owned(),
        _ => typed,
    })
}

/// Prompts for a password without echo.
pub(crate) fn password() -> Result<String> {
    let silence = Silence::begin()?;
    let typed = read("Password: ");
    drop(silence);
    // The terminal didn't echo the user's line break either.
    let _ = writeln!(anstream::stderr());
    typed
}

fn read(question: &str) -> Result<String> {
    let mut stderr = anstream::stderr();
    let asked = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
    asked.context("ask on the terminal")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read from the terminal")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A guard that disables the terminal's echo until it is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("read the terminal's mode")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent).context("set the terminal's mode")?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
