//! JSON whose bytes are a function of the value alone.

use serde::Serialize;

/// Returns `value` as compact JSON with the keys of every object sorted.
///
/// Use it for documents that are named by their digest and whose types keep maps in hash order.
///
/// # Errors
/// Fails where a value has no JSON form, as a map with keys that are not strings.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&serde_json::to_value(value)?)
}
