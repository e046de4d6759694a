//! Changes to permission bits.

use crate::error::{Error, Result};

const ALL: u32 = 0o7777;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const USER: u32 = 0o700;
const GROUP: u32 = 0o070;
const OTHERS: u32 = 0o007;
/// The bits of a clause without `u`, `g`, `o` and `a`: all except the sticky bit.
const EVERYBODY: u32 = SETUID | SETGID | USER | GROUP | OTHERS;

/// A change to permission bits: octal, or symbolic as in `chmod` (`u=rwX,go=rX`).
///
/// The symbolic language is that of BSD's `setmode(3)`, which BuildKit uses, with a umask of 0:
/// classes `ugoa`, operators `+-=` (several after one list of classes, as `u=r+x`), permissions
/// `rwxXst`, and copies from another class (`go=u`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange {
    commands: Vec<Command>,
    bits: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Add(u32),
    Remove(u32),
    /// Adds the bits to directories and to files that any class may execute.
    AddExecute(u32),
    /// Copies the bits of the class at `shift` to `classes`, using the operator.
    Copy {
        shift: u32,
        classes: u32,
        operator: Operator,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

impl ModeChange {
    /// Returns the change that sets the bits to `mode`.
    pub fn set(mode: u32) -> Self {
        let bits = mode & ALL;
        Self { commands: vec![Command::Remove(ALL), Command::Add(bits)], bits: Some(bits) }
    }

    /// Parses an octal or a symbolic mode.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::invalid(text, "invalid mode");
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= ALL);
            return mode.map(|mode| Self { bits: None, ..Self::set(mode) }).ok_or_else(invalid);
        }
        let mut parser = Parser { rest: text.as_bytes(), commands: Vec::new(), done: false };
        parser.parse().ok_or_else(invalid)?;
        Ok(Self { commands: parser.commands, bits: None })
    }

    /// Returns the bits passed to [`ModeChange::set`]. New parent directories of a copy's
    /// destination get these bits. They never get a parsed mode.
    pub fn bits(&self) -> Option<u32> {
        self.bits
    }

    /// Returns `mode` after the change.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        let executable = directory || mode & 0o111 != 0;
        let mut new = mode & ALL;
        for command in &self.commands {
            match *command {
                Command::Add(bits) => new |= bits,
                Command::Remove(bits) => new &= !bits,
                Command::AddExecute(bits) if executable => new |= bits,
                Command::AddExecute(_) => {}
                Command::Copy { shift, classes, operator } => {
                    let value = ((new >> shift & OTHERS) * 0o111) & classes;
                    match operator {
                        Operator::Add => new |= value,
                        Operator::Remove => new &= !value,
                        Operator::Set => new = new & !classes | value,
                    }
                }
            }
        }
        new
    }
}

struct Parser<'a> {
    rest: &'a [u8],
    commands: Vec<Command>,
    /// `true` if the current `=` has already cleared its bits.
    done: bool,
}

impl Parser<'_> {
    fn parse(&mut self) -> Option<()> {
        loop {
            let mut who = 0;
            loop {
                who |= match self.rest.first()? {
                    b'a' => EVERYBODY,
                    b'u' => SETUID | USER,
                    b'g' => SETGID | GROUP,
                    b'o' => OTHERS,
                    _ => break,
                };
                self.rest = &self.rest[1..];
            }
            loop {
                who &= !STICKY;
                self.operation(&mut who)?;
                match self.rest.first() {
                    None => return Some(()),
                    Some(b',') => break,
                    Some(_) => {}
                }
            }
            self.rest = &self.rest[1..];
        }
    }

    /// Parses an operator and its permissions.
    fn operation(&mut self, who: &mut u32) -> Option<()> {
        let (operator, mut rest) = self.rest.split_first()?;
        let operator = match operator {
            b'+' => Operator::Add,
            b'-' => Operator::Remove,
            b'=' => Operator::Set,
            _ => return None,
        };
        self.done &= operator != Operator::Set;
        let (mut permissions, mut execute) = (0, 0);
        let not_only_others = *who == 0 || *who & !OTHERS != 0;
        while let Some((letter, after)) = rest.split_first() {
            match letter {
                b'r' => permissions |= 0o444,
                b'w' => permissions |= 0o222,
                b'x' => permissions |= 0o111,
                b'X' if operator == Operator::Remove => permissions |= 0o111,
                b'X' => execute = 0o111,
                b's' if not_only_others => permissions |= SETUID | SETGID,
                b't' if not_only_others => {
                    *who |= STICKY;
                    permissions |= STICKY;
                }
                b's' | b't' => {}
                b'u' | b'g' | b'o' => {
                    if permissions != 0 {
                        self.change(operator, *who, permissions);
                    }
                    self.done |= operator == Operator::Set;
                    self.execute(*who, execute);
                    (permissions, execute) = (0, 0);
                    self.copy(*letter, operator, *who);
                }
                _ => break,
            }
            rest = after;
        }
        if permissions != 0 || operator == Operator::Set && !self.done {
            self.done |= operator == Operator::Set;
            self.change(operator, *who, permissions);
        }
        self.execute(*who, execute);
        self.rest = rest;
        Some(())
    }

    fn change(&mut self, operator: Operator, who: u32, permissions: u32) {
        let bits = if who == 0 { permissions } else { who & permissions };
        if operator == Operator::Set {
            self.commands.push(Command::Remove(if who == 0 { EVERYBODY } else { who }));
        }
        self.commands.push(match operator {
            Operator::Remove => Command::Remove(bits),
            Operator::Add | Operator::Set => Command::Add(bits),
        });
    }

    fn execute(&mut self, who: u32, execute: u32) {
        if execute != 0 {
            self.commands.push(Command::AddExecute(if who == 0 { execute } else { who & execute }));
        }
    }

    fn copy(&mut self, class: u8, operator: Operator, who: u32) {
        let shift = match class {
            b'u' => 6,
            b'g' => 3,
            _ => 0,
        };
        let classes = if who == 0 { 0o777 } else { who & 0o777 };
        self.commands.push(Command::Copy { shift, classes, operator });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_says() {
        for (text, before, directory, after) in [
            ("644", 0o4755, false, 0o644),
            ("4755", 0o600, false, 0o4755),
            ("u=rw,go=", 0o777, false, 0o600),
            ("a+x", 0o644, false, 0o755),
            ("a+x", 0o4755, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+X", 0o640, false, 0o640),
            ("go=u", 0o750, false, 0o777),
            ("go=u-w", 0o750, false, 0o755),
            ("g-u", 0o570, false, 0o520),
            ("+t", 0o755, true, 0o1755),
            ("o+t", 0o755, true, 0o755),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("o+s", 0o755, false, 0o755),
            ("=r", 0o6755, false, 0o444),
            ("u=", 0o4755, false, 0o055),
            ("a=rw-w", 0o777, false, 0o444),
            ("-X", 0o755, false, 0o644),
            ("u=g,g=o", 0o751, false, 0o511),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(before, directory), after, "{text} on {before:o}");
        }
    }

    #[test]
    fn malformed_modes_are_refused() {
        for text in ["", "8", "17777", "u", "u+r,", "z+r", "+rq", "0x1", "-1", "07777777"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_set_mode_is_for_parents() {
        assert_eq!(ModeChange::set(0o750).bits(), Some(0o750));
        assert_eq!(ModeChange::parse("750").unwrap().bits(), None);
    }
}
