//! The name services of the C library.
//!
//! glibc looks up hosts and users as `/etc/nsswitch.conf` specifies, and loads a library of the
//! system for each service that it doesn't contain. A static binary must not load one. Such a
//! library belongs to another glibc: an image with only kiln doesn't have it, and a different
//! version crashes the process.

/// Restricts a static binary to the name services that it contains: `/etc/hosts` and DNS for hosts,
/// `/etc/passwd` for users. Does nothing in other binaries.
pub fn use_contained_name_services() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    contained::configure();
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod contained {
    use std::ffi::{CStr, c_char, c_int};

    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }

    pub(super) fn configure() {
        configure_database(c"hosts", c"files dns");
        configure_database(c"passwd", c"files");
    }

    fn configure_database(database: &CStr, services: &CStr) {
        // SAFETY: both strings end with a zero and outlive the call, which copies them. The call
        // can only fail for a database or a service that glibc doesn't know, and then changes
        // nothing.
        unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}
