//! The verification of credentials.

use kiln_oci::Reference;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use crate::auth::{AuthRequest, Scopes, grant};
use crate::body::Body;
use crate::client::Client;
use crate::credentials::Credential;
use crate::error::{Error, Problem};
use crate::retry::Failure;
use crate::transport::{Call, Target};

impl Client {
    /// Verifies credentials with a registry and returns the credentials to store: the given ones,
    /// or a refresh token if the registry issues one.
    ///
    /// # Errors
    /// Fails if the registry can't be reached or rejects the credentials.
    pub async fn login(
        &self,
        registry: &str,
        credential: &Credential,
    ) -> Result<Credential, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Failure { problem, pause } = match self.try_login(registry, credential).await {
                Ok(kept) => return Ok(kept),
                Err(failure) => failure,
            };
            if attempt >= self.transport.options.attempts || !problem.is_transient() {
                return Err(problem.at(registry, &registry));
            }
            let pause = pause.unwrap_or_else(|| self.transport.pause(attempt));
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_login(
        &self,
        registry: &str,
        credential: &Credential,
    ) -> Result<Credential, Failure> {
        let endpoint = self.transport.upstream(registry)?;
        let base = self.transport.base(&endpoint).await?;
        let scopes = Scopes::none();
        let call = Call {
            endpoint: &endpoint,
            repository: "",
            scopes: scopes.clone(),
            method: Method::GET,
            target: Target::Url(base.clone()),
            headers: HeaderMap::new(),
            body: Body::Empty,
            attempts: 1,
        };
        let pace = self.transport.options.pace;
        let response = self.transport.follow(&call, &base, base.clone(), None).await?;
        if response.status().is_success() {
            return Ok(credential.clone());
        }
        if response.status() != StatusCode::UNAUTHORIZED {
            return Err(crate::transport::failure(response, &endpoint, pace).await);
        }
        let asking =
            AuthRequest { endpoint: &endpoint, base: &base, repository: "", scopes: &scopes };
        let granted = grant(&self.transport, &asking, &response, Some(credential), true).await?;
        let proof = Some(&granted.authorization);
        let response = self.transport.follow(&call, &base, base.clone(), proof).await?;
        if !response.status().is_success() {
            return Err(crate::transport::failure(response, &endpoint, pace).await);
        }
        Ok(match granted.refresh {
            Some(token) => Credential::Identity { token },
            None => credential.clone(),
        })
    }
}

/// Returns the registry that the argument of `login` names. The empty text and all names of Docker
/// Hub mean `docker.io`.
///
/// # Errors
/// Fails if the text isn't a host with or without a port.
pub fn registry_of(text: &str) -> Result<String, Error> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    if matches!(host, "" | "docker.io" | "index.docker.io" | "registry-1.docker.io") {
        return Ok("docker.io".to_owned());
    }
    // `host/x` is a name on Docker Hub unless the host has a dot or a port.
    let is_host = format!("{host}/x").parse::<Reference>().is_ok_and(|it| it.registry() == host)
        || (!host.contains(['@', ':', '?', '#'])
            && format!("{host}:443/x").parse::<Reference>().is_ok());
    if is_host {
        return Ok(host.to_owned());
    }
    Err(Problem::Document("this is no address of a registry".to_owned())
        .at(text, &format!("{text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_have_several_names() {
        for (text, expected) in [
            ("", Some("docker.io")),
            ("https://index.docker.io/v1/", Some("docker.io")),
            ("ghcr.io", Some("ghcr.io")),
            ("https://localhost:5000/v2/", Some("localhost:5000")),
            ("registry", Some("registry")),
            ("[::1]:5000", Some("[::1]:5000")),
            ("a b", None),
            ("u@h", None),
        ] {
            assert_eq!(registry_of(text).ok().as_deref(), expected, "{text}");
        }
    }
}
