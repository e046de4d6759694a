//! A writer of protobuf's wire format.
//!
//! It has only what canonical ops need, and it doesn't reorder fields. Methods named after a type
//! leave out proto3 defaults; those that end in `_always` write them.

const VARINT: u32 = 0;
const LENGTH_DELIMITED: u32 = 2;

/// The bytes of a message under construction.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Returns the bytes that `fill` writes.
    pub(crate) fn build(fill: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut writer = Self::default();
        fill(&mut writer);
        writer.finish()
    }

    /// Returns the written bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes a varint without a field number.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    /// Writes a varint field, even if it is zero.
    pub(crate) fn uint_always(&mut self, field: u32, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    /// Writes an unsigned number or an enumeration value.
    pub(crate) fn uint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.uint_always(field, value);
        }
    }

    /// Writes a signed number. A negative one takes ten bytes.
    pub(crate) fn int(&mut self, field: u32, value: i64) {
        self.uint(field, value as u64);
    }

    /// Writes a boolean field.
    pub(crate) fn bool(&mut self, field: u32, value: bool) {
        self.uint(field, u64::from(value));
    }

    /// Writes a bytes field, even if it is empty.
    pub(crate) fn bytes_always(&mut self, field: u32, value: &[u8]) {
        self.key(field, LENGTH_DELIMITED);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Writes a bytes field.
    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.bytes_always(field, value);
        }
    }

    /// Writes a string field.
    pub(crate) fn string(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// Writes a list of strings, including empty ones.
    pub(crate) fn strings(&mut self, field: u32, values: &[String]) {
        for value in values {
            self.bytes_always(field, value.as_bytes());
        }
    }

    /// Writes numbers packed into one field.
    pub(crate) fn packed(&mut self, field: u32, values: &[i32]) {
        let packed = Self::build(|w| {
            for value in values {
                w.varint(i64::from(*value) as u64);
            }
        });
        self.bytes(field, &packed);
    }

    /// Writes a set message, even if it is empty.
    pub(crate) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        let bytes = Self::build(fill);
        self.bytes_always(field, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_left_out_and_negative_numbers_take_ten_bytes() {
        let bytes = Writer::build(|w| {
            w.int(1, 0);
            w.string(2, "");
            w.bool(3, false);
            w.int(4, -1);
            w.message(5, |_| {});
            w.strings(6, &[String::new()]);
            w.packed(7, &[1, -1]);
            w.uint(16, 300);
        });
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let mut expected = vec![0x20];
        expected.extend(minus_one);
        expected.extend([0x2a, 0, 0x32, 0, 0x3a, 11, 1]);
        expected.extend(minus_one);
        expected.extend([0x80, 0x01, 0xac, 0x02]);
        assert_eq!(bytes, expected);
    }
}
