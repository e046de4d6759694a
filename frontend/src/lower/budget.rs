//! The amount of text that a Dockerfile may expand to as a whole.
//!
//! A word has its own limit (`expand/limits.rs`), but thousands of lines may each use that much. Every
//! expanded word, step name and history entry is charged here, and so is what each step and stage
//! copies: the environment, the user, the directory and the image config. Whoever spends checks the
//! budget before the next word, so that it is exceeded by one word or one entry at most.
//!
//! A build for several platforms lowers the Dockerfile once for each, at the same time. All of them
//! share one budget, because all that they make is in memory together.
//!
//! The image config has a limit of its own, that of its readers. Its size is measured each time that
//! another MiB was spent: the instruction that the error names is the one that exceeded the limit, or
//! one soon after it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_oci::ImageConfig;

use crate::error::Error;

/// The number of bytes that a Dockerfile may expand to, for all platforms of a build.
const BYTES: usize = 64 << 20;

/// The number of bytes between two measurements of the image config.
const MEASURED: usize = 1 << 20;

/// The amount of text that a build has made of its Dockerfile. Clones count together: the lowerings
/// for the platforms of one build share it.
#[derive(Clone, Debug, Default)]
pub struct SpentText(Arc<AtomicUsize>);

/// The budget of one lowering.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: SpentText,
    /// The bytes that had been spent when the image config was measured last.
    measured: Cell<usize>,
    /// Whether nothing more is to be expanded.
    is_exhausted: Cell<bool>,
}

impl Budget {
    /// Returns a budget of which some may be spent already.
    pub(super) fn new(spent: SpentText) -> Self {
        let measured = Cell::new(spent.bytes());
        Self { spent, measured, is_exhausted: Cell::new(false) }
    }

    /// Charges for text.
    pub(super) fn spend(&self, bytes: usize) {
        self.spent.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Charges for a copy of an image config.
    pub(super) fn spend_config(&self, image: &ImageConfig) {
        let config = &image.config;
        let labels = config.labels.iter().map(|(key, value)| key.len() + value.len());
        let keys = config.exposed_ports.keys().chain(config.volumes.keys()).map(String::len);
        let texts = config.env.iter().chain(&config.on_build).map(String::len);
        self.spend(labels.chain(keys).chain(texts).fold(0, usize::saturating_add));
    }

    /// Ends the expansion.
    pub(super) fn exhaust(&self) {
        self.is_exhausted.set(true);
    }

    /// Tells whether more was spent than there is.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exhausted.get() || self.spent.bytes() > BYTES
    }

    /// Tells whether so much was spent since the last time that the image config is to be measured.
    pub(super) fn is_measurement_due(&self) -> bool {
        let spent = self.spent.bytes();
        let is_due = spent - self.measured.get() >= MEASURED;
        if is_due {
            self.measured.set(spent);
        }
        is_due
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

impl SpentText {
    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
