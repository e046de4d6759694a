//! Authentication: challenges, and a token server with three protocols.

use super::{Switches, TOKEN, TokenKind};
use crate::http::{Answer, Request};

/// The refresh token that replaces a password after its verification.
pub const REFRESH_TOKEN: &str = "a-refresh-token-of-the-fake-registry";

/// Returns the refusal of a request without valid credentials, if credentials are required.
pub(super) fn refuse(switches: &Switches, request: &Request, origin: &str) -> Option<Answer> {
    let given = request.headers.get("authorization").map(String::as_str);
    let refusal = Answer::complaint(401, "authentication required");
    if let Some((username, password)) = switches.basic.as_ref() {
        let expected = format!("Basic {}", base64(format!("{username}:{password}").as_bytes()));
        if given == Some(&expected) {
            return None;
        }
        return Some(refusal.with("WWW-Authenticate", "Basic realm=\"fake\""));
    }
    if !switches.require_token || given == Some(&format!("Bearer {TOKEN}")) {
        return None;
    }
    let realm = switches.realm.clone().unwrap_or_else(|| format!("{origin}/token"));
    let scheme = switches.scheme.as_deref().unwrap_or("Bearer");
    let challenge = format!("{scheme} realm=\"{realm}\",service=\"fake\"");
    Some(refusal.with("WWW-Authenticate", challenge))
}

/// Answers a request to the token server.
pub(super) fn answer(switches: &Switches, request: &Request) -> Answer {
    let post = request.method == "POST";
    if switches.token_kind == TokenKind::Post && !post {
        return Answer::complaint(405, "only POST");
    }
    if switches.token_kind == TokenKind::Get && post {
        return Answer::complaint(404, "only GET");
    }
    let refused = || Answer::new(401, r#"{"details": "incorrect username or password"}"#);
    let form =
        if post { String::from_utf8_lossy(&request.body).into_owned() } else { query(request) };
    let field =
        |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let mut token = serde_json::json!({"token": TOKEN, "expires_in": 300});
    let given = request.headers.get("authorization");
    if let Some((username, password)) = &switches.login {
        let basic = format!("Basic {}", base64(format!("{username}:{password}").as_bytes()));
        let allowed = match field("grant_type") {
            Some("refresh_token") => field("refresh_token") == Some(REFRESH_TOKEN),
            Some("password") => {
                field("username") == Some(username) && field("password") == Some(password)
            }
            _ => given == Some(&basic),
        };
        if !allowed {
            return refused();
        }
        let wants =
            field("offline_token") == Some("true") || field("access_type") == Some("offline");
        if switches.token_kind == TokenKind::Identity && wants {
            token["refresh_token"] = REFRESH_TOKEN.into();
        }
    } else if given.is_some() {
        return refused();
    }
    Answer::new(200, token.to_string())
}

fn query(request: &Request) -> String {
    request.path.split_once('?').map_or_else(String::new, |(_, query)| query.to_owned())
}

/// Returns the base64 encoding of bytes.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let at = |index: usize| u32::from(piece.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let shown = digit <= piece.len();
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if shown { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}
