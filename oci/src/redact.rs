//! The removal of credentials in URLs from names, messages and histories.

use std::borrow::Cow;

use crate::text::unescape;

/// The text that replaces a secret value.
const MASK: &str = "***";
/// The query parameters that contain credentials, in lower case.
const SECRET_PARAMETERS: [&str; 30] = [
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "api_token",
    "auth",
    "auth_token",
    "authorization",
    "awsaccesskeyid",
    "client_secret",
    "deploy_token",
    "id_token",
    "job_token",
    "jwt",
    "oauth_token",
    "passwd",
    "password",
    "private_token",
    "pwd",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
    "x-oss-signature",
];

/// Masks credentials in the queries of URLs in a text, such as `?token=` or the signatures of S3,
/// Google and Azure. Everything else stays as it is.
pub fn mask_queries(text: &str) -> Cow<'_, str> {
    let mut safe = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let is_end = |c: char| c.is_whitespace() || c.is_control() || "\"'<>`\\".contains(c);
        let (url, behind) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        safe.push_str(before);
        mask_query(url, &mut safe);
        rest = behind;
    }
    safe.push_str(rest);
    if safe == text { Cow::Borrowed(text) } else { Cow::Owned(safe) }
}

/// Appends a URL with the secrets in its query masked.
fn mask_query(url: &str, safe: &mut String) {
    let Some((place, query)) = url.split_once('?') else { return safe.push_str(url) };
    safe.push_str(place);
    safe.push('?');
    for part in query.split_inclusive(['&', ';', '?', '#']) {
        let end = part.find(['&', ';', '?', '#']).unwrap_or(part.len());
        let (parameter, separator) = part.split_at(end);
        let name = parameter.split_once('=').map_or("", |(name, _)| name);
        let decoded = unescape(name).unwrap_or_default().to_ascii_lowercase();
        if SECRET_PARAMETERS.contains(&decoded.replace('-', "_").as_str())
            || SECRET_PARAMETERS.contains(&decoded.as_str())
        {
            safe.push_str(name);
            safe.push('=');
            safe.push_str(MASK);
        } else {
            safe.push_str(parameter);
        }
        safe.push_str(separator);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_lose_their_credentials() {
        for (text, safe) in [
            ("https://h/a?token=x", "https://h/a?token=***"),
            (
                "ADD https://h/a?v=1&X-Amz-Signature=ab%2F&b=c#f /y",
                "ADD https://h/a?v=1&X-Amz-Signature=***&b=c#f /y",
            ),
            ("https://h/?sv=2&SIG=q;Private-Token=w", "https://h/?sv=2&SIG=***;Private-Token=***"),
            ("https://h/?%74oken=x", "https://h/?%74oken=***"),
            (
                "http://a/?password=x http://b/?access_token=y",
                "http://a/?password=*** http://b/?access_token=***",
            ),
            ("https://h/?v=1&tokens=2&key=3", "https://h/?v=1&tokens=2&key=3"),
            ("https://h/token=x", "https://h/token=x"),
            ("no?token=x", "no?token=x"),
        ] {
            assert_eq!(mask_queries(text), safe);
        }
    }
}
