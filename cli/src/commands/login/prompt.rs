//! Asking for a name and a password on the terminal.

use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Asks for a name; what is remembered is taken where nothing is typed.
pub(super) fn username(remembered: Option<&str>) -> Result<String> {
    let default = remembered.map_or_else(String::new, |name| format!(" ({name})"));
    let typed = read(&format!("Username{default}: "))?;
    Ok(match remembered {
        Some(name) if typed.is_empty() => name.to_owned(),
        _ => typed,
    })
}

/// Asks for a password, which isn't shown while it is typed.
pub(super) fn password() -> Result<String> {
    let silence = Silence::begin()?;
    let typed = read("Password: ");
    drop(silence);
    // The line break that ended it wasn't shown either.
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

/// Keeps the terminal from showing what is typed, until dropped.
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
