//! The heap of a process that lives long.

/// Gives memory that is free back to the system. The C library keeps pages of its heaps, which are as
/// many as threads have needed at once. Does nothing with other allocators, which do it themselves.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function has no preconditions. It locks the heaps that it changes.
    unsafe {
        libc::malloc_trim(0);
    }
}
