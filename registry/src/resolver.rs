//! Host lookups with the system's resolver.

use std::fmt;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A failed lookup of a host.
#[derive(Debug)]
pub(crate) struct LookupError {
    pub(crate) name: String,
    /// The system's error message.
    pub(crate) problem: String,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "resolve {}: {}", self.name, self.problem)
    }
}

impl std::error::Error for LookupError {}

/// The system's resolver. Its errors contain the host's name.
#[derive(Debug)]
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(found) => found.collect::<Vec<_>>(),
                Err(error) => {
                    let text = error.to_string();
                    let problem = text.strip_prefix("failed to lookup address information: ");
                    let problem = problem.unwrap_or(&text).to_owned();
                    return Err(LookupError { name: name.as_str().to_owned(), problem }.into());
                }
            };
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
