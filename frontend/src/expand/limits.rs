//! Limits on the cost of an expansion.
//!
//! Substitutions nest, and a replacement can be inserted between any two characters of a value. So
//! a line of a hundred characters can produce more text than fits into memory. Matching a pattern
//! takes time in proportion to the product of its length and the value's. Each scan therefore has a
//! budget for both. Ordinary words come nowhere near it.

/// The number of bytes that substitutions may yield for a word of any length.
const BYTES: usize = 1 << 20;
/// The number of further bytes that they may yield for each byte of the word.
const BYTES_PER_BYTE: usize = 4;
/// The maximal number of pattern matching steps in one scan.
const STEPS: usize = 1 << 26;

/// The rest of a scan's budget.
#[derive(Debug)]
pub(super) struct Limits {
    bytes: usize,
    steps: usize,
}

impl Limits {
    /// Returns the budget for a word of `length` bytes.
    pub(super) fn of(length: usize) -> Self {
        Self { bytes: length.saturating_mul(BYTES_PER_BYTE).saturating_add(BYTES), steps: STEPS }
    }

    /// Charges `count` bytes of text to the budget.
    pub(super) fn bytes(&mut self, count: usize) -> Result<(), String> {
        let left = self.bytes.checked_sub(count);
        self.bytes = left.ok_or("the substitutions yield too much text")?;
        Ok(())
    }

    /// Charges a match of a pattern of `parts` parts against a text of `length` characters.
    pub(super) fn matching(&mut self, parts: usize, length: usize) -> Result<(), String> {
        let left = self.steps.checked_sub((parts + 1).saturating_mul(length + 1));
        self.steps = left.ok_or("the substitution's pattern and value are too long")?;
        Ok(())
    }
}
