//! The challenges of `WWW-Authenticate` headers (RFC 9110).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use crate::error::sanitize;

/// An authentication challenge of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// The registry requires a token of a token server.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// The name of the registry at the token server.
        service: Option<String>,
    },
    /// The registry requires a name and a password.
    Basic,
    /// A scheme that kiln doesn't implement, by name.
    Other(String),
}

impl Challenge {
    /// Returns the challenge to answer. A bearer challenge takes precedence over others.
    pub(super) fn choose(headers: &HeaderMap) -> Option<Self> {
        let mut best: Option<Self> = None;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = header.to_str() else { continue };
            for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
                let found = Self::of(&challenge);
                if best.as_ref().is_none_or(|best| found.rank() > best.rank()) {
                    best = Some(found);
                }
            }
        }
        best
    }

    fn of(challenge: &http_auth::ChallengeRef<'_>) -> Self {
        let param = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("bearer") {
            let realm = param("realm").unwrap_or_default();
            return Self::Bearer { realm, service: param("service") };
        }
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Self::Basic;
        }
        Self::Other(sanitize(challenge.scheme))
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Bearer { .. } => 2,
            Self::Basic => 1,
            Self::Other(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_preferred() {
        let choose = |challenges: &[&str]| {
            let mut headers = HeaderMap::new();
            for challenge in challenges {
                headers.append(WWW_AUTHENTICATE, challenge.parse().unwrap());
            }
            Challenge::choose(&headers)
        };
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        assert_eq!(
            choose(&["Basic realm=\"x\"", "bearer REALM=\"https://a/t\",service=\"x \\\"y\""]),
            Some(bearer("https://a/t", Some("x \"y")))
        );
        assert_eq!(choose(&["Basic realm=\"x\", Bearer realm=\"u\""]), Some(bearer("u", None)));
        assert_eq!(choose(&["Negotiate", "Basic realm=x"]), Some(Challenge::Basic));
        assert_eq!(choose(&["Negotiate"]), Some(Challenge::Other("Negotiate".to_owned())));
        assert_eq!(choose(&["\"\"\"", "=,=,"]), None);
        assert_eq!(choose(&[]), None);
    }
}
