//! The world around a definition.

use std::collections::BTreeMap;
use std::io;

/// The world around a definition. The caller decides what of it a definition sees.
pub trait Surroundings {
    /// Returns a variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;

    /// Returns all variables of the environment.
    fn variables(&self) -> BTreeMap<String, String>;

    /// Returns the seconds since the beginning of 1970.
    fn now(&self) -> i64;

    /// Returns the home directory of the user.
    fn home(&self) -> String;

    /// Fills a buffer with random bytes.
    fn random(&self, buffer: &mut [u8]);

    /// Returns the content of a file, by a path relative to the working directory.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// Checks that a file exists.
    ///
    /// # Errors
    /// Fails if it doesn't.
    fn check(&self, path: &str) -> io::Result<()>;

    /// Returns whether a path is a folder, or `None` if nothing is there.
    fn is_folder(&self, path: &str) -> Option<bool>;

    /// Returns `true` if the standard output is a terminal.
    fn prints_to_terminal(&self) -> bool;

    /// Returns the working directory.
    fn working_directory(&self) -> String;
}
