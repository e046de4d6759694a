//! Name services of the C library.
//!
//! glibc looks hosts and users up as `/etc/nsswitch.conf` says, and loads a library of the system for each service
//! that it doesn't contain. A static binary must not do that: such a library belongs to another glibc, which is
//! absent in an image of nothing but kiln, and makes the process crash where its version differs.

/// Has a static binary resolve names by the services that it contains: hosts by `/etc/hosts` and DNS, users by
/// `/etc/passwd`. Otherwise does nothing.
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
        // SAFETY: both strings end with a zero and outlive the call, which copies what it needs. It can only fail for
        // a database or a service that glibc doesn't know, and changes nothing then.
        unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}
