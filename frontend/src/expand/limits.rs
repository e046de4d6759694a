//! What an expansion may cost.
//!
//! Substitutions nest, and a replacement can stand between any two characters of a value: a line
//! of a hundred characters can ask for more text than there is memory. And a pattern takes time in
//! proportion to the product of its length and the value's. So each scan has a budget for both; no
//! word that anybody means comes near it.

/// Bytes that substitutions may yield in any case.
const BYTES: usize = 1 << 20;
/// Bytes that they may yield for each byte of the word.
const BYTES_PER_BYTE: usize = 4;
/// Steps of pattern matching.
const STEPS: usize = 1 << 26;

/// What is left to be spent.
#[derive(Debug)]
pub(super) struct Limits {
    bytes: usize,
    steps: usize,
}

impl Limits {
    /// Returns what may be spent on a word of the given length.
    pub(super) fn of(length: usize) -> Self {
        Self { bytes: length.saturating_mul(BYTES_PER_BYTE).saturating_add(BYTES), steps: STEPS }
    }

    /// Pays for text.
    pub(super) fn bytes(&mut self, count: usize) -> Result<(), String> {
        let left = self.bytes.checked_sub(count);
        self.bytes = left.ok_or("the substitutions yield too much text")?;
        Ok(())
    }

    /// Pays for matching a pattern of `parts` parts with a text of `length` characters.
    pub(super) fn matching(&mut self, parts: usize, length: usize) -> Result<(), String> {
        let left = self.steps.checked_sub((parts + 1).saturating_mul(length + 1));
        self.steps = left.ok_or("the substitution's pattern and value are too long")?;
        Ok(())
    }
}
