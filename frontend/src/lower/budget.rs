//! The amount of text that a Dockerfile may expand to as a whole.
//!
//! A word has its own limit (`expand/limits.rs`), but thousands of lines may each use that much. Every
//! expanded word, step name and history entry is charged here, and so is what each step and stage
//! copies: the environment, the user, the directory and the image config. Whoever spends checks the
//! budget before the next word, so that it is exceeded by one word or one entry at most.

use std::cell::Cell;

use kiln_oci::ImageConfig;

use crate::error::Error;

/// The number of bytes that a Dockerfile may expand to, for one platform.
const BYTES: usize = 64 << 20;

/// The bytes that are left to one lowering.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<usize>,
    is_exceeded: Cell<bool>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: Cell::new(BYTES), is_exceeded: Cell::new(false) }
    }
}

impl Budget {
    /// Charges for text.
    pub(super) fn spend(&self, bytes: usize) {
        match self.left.get().checked_sub(bytes) {
            Some(left) => self.left.set(left),
            None => self.is_exceeded.set(true),
        }
    }

    /// Charges for a copy of an image config.
    pub(super) fn spend_config(&self, image: &ImageConfig) {
        let config = &image.config;
        let labels = config.labels.iter().map(|(key, value)| key.len() + value.len());
        let keys = config.exposed_ports.keys().chain(config.volumes.keys()).map(String::len);
        let texts = config.env.iter().chain(&config.on_build).map(String::len);
        self.spend(labels.chain(keys).chain(texts).fold(0, usize::saturating_add));
    }

    /// Tells whether more was spent than there is.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
    }

    /// Checks that the budget still holds.
    ///
    /// # Errors
    /// Fails once more was spent than there is.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.is_exceeded() {
            return Ok(());
        }
        Err(Error::new(format!(
            "the Dockerfile expands to more than {} MiB up to this instruction",
            BYTES >> 20
        )))
    }
}
