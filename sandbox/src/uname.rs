//! The description of the system that programs read by `uname(2)`.

/// The length of a field of the kernel's `struct utsname`, with the zero at its end.
const FIELD: usize = 65;

/// Returns the kernel's `struct utsname` with another host name and, if given, domain name.
pub(super) fn utsname(hostname: &str, domain: Option<&str>) -> [u8; FIELD * 6] {
    let own = rustix::system::uname();
    let fields: [&[u8]; 6] = [
        own.sysname().to_bytes(),
        hostname.as_bytes(),
        own.release().to_bytes(),
        own.version().to_bytes(),
        own.machine().to_bytes(),
        domain.map_or(own.domainname().to_bytes(), str::as_bytes),
    ];
    let mut bytes = [0; FIELD * 6];
    for (place, field) in bytes.chunks_exact_mut(FIELD).zip(fields) {
        let length = field.len().min(FIELD - 1);
        place[..length].copy_from_slice(&field[..length]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_a_zero() {
        let long = "x".repeat(100);
        let bytes = utsname("box", Some(&long));
        assert_eq!(&bytes[FIELD..FIELD + 4], b"box\0");
        assert_eq!((bytes[FIELD * 6 - 2], bytes[FIELD * 6 - 1]), (b'x', 0));
    }
}
