//! Arguments that are described to the parser only if the user runs their command.
//!
//! Otherwise each start of kiln would describe the options of all commands, some hundreds. That
//! takes a third of the time until the command begins.

use std::ops::{Deref, DerefMut};

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

use super::{docker, flags};

/// The arguments of a command. Their description is deferred until the parser needs it.
#[derive(Debug)]
pub(crate) struct Deferred<T>(Box<T>);

impl<T> Deferred<T> {
    /// Returns the parsed arguments.
    pub(crate) fn into_inner(self) -> T {
        *self.0
    }
}

impl<T> Deref for Deferred<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Deferred<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: FromArgMatches> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self(Box::new(T::from_arg_matches(matches)?)))
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        Ok(Self(Box::new(T::from_arg_matches_mut(matches)?)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(describe::<T>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(describe::<T>)
    }
}

/// Adds the arguments to a command. Keeps the command's own description in place of that of `T`.
fn describe<T: Args>(command: Command) -> Command {
    let (short, long) = (command.get_about().cloned(), command.get_long_about().cloned());
    let command = docker::accept(flags::take_anything(T::augment_args(command)));
    command.about(Resettable::from(short)).long_about(Resettable::from(long))
}
