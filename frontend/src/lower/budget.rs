//! A budget for the text to which a Dockerfile expands.
//!
//! A word has its own limit (`expand/limits.rs`), but thousands of lines may each use that much.
//! This budget is charged for every expanded word, step name and history entry, and for the data
//! that each step and stage copies: the environment, the user, the directory and the image config.
//! The budget is checked before each word, so that at most one word or entry exceeds it.
//!
//! A build for several platforms lowers the Dockerfile once for each platform, all at the same
//! time. The lowerings share one budget, because their results are in memory together.
//!
//! The image config has a limit of its own, the same as its readers have. Its size is measured
//! after each MiB that the budget is charged. An error therefore names the instruction that
//! exceeded the limit, or one soon after it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_oci::ImageConfig;

use crate::error::Error;

/// The number of bytes that a Dockerfile may expand to, for all platforms of a build.
const BYTES: usize = 64 << 20;

/// The number of bytes between two measurements of the image config.
const MEASURED: usize = 1 << 20;

/// The number of bytes to which a build has expanded its Dockerfile. Clones share the number: the
/// lowerings for the platforms of one build use the same one.
#[derive(Clone, Debug, Default)]
pub struct SpentText(Arc<AtomicUsize>);

/// The budget of one lowering.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: SpentText,
    /// The number of bytes spent at the last measurement of the image config.
    measured: Cell<usize>,
    /// `true` if nothing more may be expanded.
    is_exhausted: Cell<bool>,
}

impl Budget {
    /// Returns a budget of which `spent` is used already.
    pub(super) fn new(spent: SpentText) -> Self {
        let measured = Cell::new(spent.bytes());
        Self { spent, measured, is_exhausted: Cell::new(false) }
    }

    /// Charges `bytes` bytes of text.
    pub(super) fn spend(&self, bytes: usize) {
        self.spent.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Charges the texts of an image config that is copied.
    pub(super) fn spend_config(&self, image: &ImageConfig) {
        let config = &image.config;
        let labels = config.labels.iter().map(|(key, value)| key.len() + value.len());
        let keys = config.exposed_ports.keys().chain(config.volumes.keys()).map(String::len);
        let texts = config.env.iter().chain(&config.on_build).map(String::len);
        self.spend(labels.chain(keys).chain(texts).fold(0, usize::saturating_add));
    }

    /// Uses up the whole budget, so that nothing more is expanded.
    pub(super) fn exhaust(&self) {
        self.is_exhausted.set(true);
    }

    /// Returns `true` if the budget is exceeded.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exhausted.get() || self.spent.bytes() > BYTES
    }

    /// Returns `true` if the image config must be measured again, and counts from here.
    pub(super) fn is_measurement_due(&self) -> bool {
        let spent = self.spent.bytes();
        let is_due = spent - self.measured.get() >= MEASURED;
        if is_due {
            self.measured.set(spent);
        }
        is_due
    }

    /// Checks that the budget is not exceeded.
    ///
    /// # Errors
    /// Fails if it is exceeded.
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
