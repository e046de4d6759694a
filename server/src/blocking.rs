//! Work that blocks its thread, such as reading files.

use tonic::Status;

/// Runs work on a thread that may block.
///
/// # Errors
/// Returns the work's error, and an internal one if the work panics.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}
