//! Contexts that aren't on this machine.

/// The beginnings of what is fetched from elsewhere.
const PREFIXES: [&str; 5] = ["http://", "https://", "git://", "github.com/", "ssh://"];

/// Returns `true` if a context is fetched from elsewhere.
pub(crate) fn is_remote(context: &str) -> bool {
    if PREFIXES.iter().any(|prefix| context.starts_with(prefix)) {
        return true;
    }
    is_scp_style(context)
}

/// Returns `true` for `user@host:path`.
fn is_scp_style(context: &str) -> bool {
    let Some((user, rest)) = context.split_once('@') else {
        return false;
    };
    let Some((host, path)) = rest.split_once(':') else {
        return false;
    };
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "._-".contains(character))
    };
    is_name(user) && is_name(host) && !path.is_empty()
}

/// Returns `true` if a context is a repository that is reached by SSH.
pub(crate) fn is_git_ssh(context: &str) -> bool {
    context.starts_with("ssh://") || is_scp_style(context)
}
