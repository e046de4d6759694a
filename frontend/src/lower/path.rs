//! Operations on Dockerfile paths, without access to any file system.
//!
//! All functions follow Go's `path` package, since op digests depend on the exact result. If a
//! stage's platform is Windows, Windows paths are accepted: the letter of the system drive is
//! dropped and backslashes become slashes.

/// Returns the shortest path that is lexically equivalent. The result is never empty.
pub(super) fn clean(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Joins two paths and cleans the result. Empty paths are skipped.
pub(super) fn join(first: &str, second: &str) -> String {
    match (first.is_empty(), second.is_empty()) {
        (true, true) => String::new(),
        (true, false) => clean(second),
        (false, true) => clean(first),
        (false, false) => clean(&format!("{first}/{second}")),
    }
}

/// Returns the last element of a path, as Go's `path.Base` does.
pub(super) fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// Returns `true` if a path is absolute on the operating system `os`.
pub(super) fn is_absolute(path: &str, os: &str) -> bool {
    without_drive(path, os, false).is_ok_and(|path| path.starts_with('/'))
}

/// Returns `path` with slashes, as the graph stores it.
pub(super) fn to_slash(path: &str, os: &str) -> String {
    if os == "windows" { path.replace('\\', "/") } else { path.to_owned() }
}

/// Joins `path` to `parent` unless it is absolute. With `keep_slash`, keeps a trailing slash or
/// `/.`, which mark a destination as a directory.
///
/// # Errors
/// Fails on Windows paths that leave the system drive.
pub(super) fn normalize(
    parent: &str,
    path: &str,
    os: &str,
    keep_slash: bool,
) -> Result<String, String> {
    let original = to_slash(path, os);
    let parent = to_slash(if parent.is_empty() { "/" } else { parent }, os);
    let wrap = |error: String| format!("removing drive letter: {error}");
    let mut parent = without_drive(&parent, os, keep_slash).map_err(wrap)?;
    if !is_absolute(&parent, os) {
        parent = join("/", &parent);
    }
    let path = if original.is_empty() { parent.clone() } else { original.clone() };
    let mut path = without_drive(&path, os, keep_slash).map_err(wrap)?;
    if !is_absolute(&path, os) {
        path = join(&parent, &path);
    }
    if keep_slash {
        keep_directory_mark(&original, &mut path);
    }
    Ok(to_slash(&path, os))
}

/// Returns the working directory after `WORKDIR path`, with the system's own separators.
///
/// # Errors
/// Fails on Windows paths that leave the system drive.
pub(super) fn working_dir(current: &str, path: &str, os: &str) -> Result<String, String> {
    let path = normalize(current, path, os, false)
        .map_err(|error| format!("normalizing working directory: {error}"))?;
    Ok(if os == "windows" { path.replace('/', "\\") } else { path })
}

/// Returns an absolute path for a file action. A relative path is relative to `parent`.
pub(super) fn for_action(parent: &str, path: &str, keep_slash: bool) -> String {
    let mut cleaned = clean(path);
    if !cleaned.starts_with('/') {
        cleaned = join("/", &format!("{parent}/{cleaned}"));
    }
    if keep_slash {
        keep_directory_mark(path, &mut cleaned);
    }
    cleaned
}

/// Removes the drive letter of a Windows path. Returns other systems' paths unchanged.
///
/// # Errors
/// Fails on paths that leave the system drive.
pub(super) fn without_drive(path: &str, os: &str, keep_slash: bool) -> Result<String, String> {
    if os != "windows" {
        return Ok(path.to_owned());
    }
    if path.len() == 2 && path.ends_with(':') {
        return Err(format!("No relative path specified in {}", crate::text::quote(path)));
    }
    let path = to_slash(path, os);
    if path.starts_with("//") {
        return Err("UNC paths are not supported".to_owned());
    }
    let rest = match path.split_once(':') {
        None => path.as_str(),
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => {
            return Err("The specified path is not on the system drive (C:)".to_owned());
        }
    };
    let cleaned = clean(rest);
    let directory = keep_slash && cleaned.len() > 1 && rest.ends_with('/');
    Ok(if directory { cleaned + "/" } else { cleaned })
}

fn keep_directory_mark(original: &str, path: &mut String) {
    if original.ends_with('/') {
        if !path.ends_with('/') {
            path.push('/');
        }
    } else if original.ends_with("/.") {
        if path != "/" {
            path.push('/');
        }
        path.push('.');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, cleaned) in [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("a/../..", ".."),
            ("/../a", "/a"),
            ("./a/./b", "a/b"),
            ("../../a", "../../a"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert_eq!(join("", ""), "");
        assert_eq!(join("/", "../x"), "/x");
        assert_eq!(base("/a/b/"), "b");
        assert_eq!(base("//"), "/");
    }

    #[test]
    fn destinations_keep_their_mark() {
        let normal = |path| normalize("/w", path, "linux", true).unwrap();
        assert_eq!(normal("x/"), "/w/x/");
        assert_eq!(normal("x/."), "/w/x/.");
        assert_eq!(normal("./"), "/w/");
        assert_eq!(normal("/a//b"), "/a//b");
        assert_eq!(normalize("", "", "linux", false).unwrap(), "/");
    }

    #[test]
    fn windows_paths_lose_their_drive() {
        assert_eq!(working_dir("", r"C:\app\x", "windows").unwrap(), r"\app\x");
        assert_eq!(normalize("/", r"a\b\", "windows", true).unwrap(), "/a/b/");
        assert!(normalize("/", r"d:\x", "windows", false).is_err());
        assert!(is_absolute(r"\x", "windows"));
        assert!(!is_absolute(r"\x", "linux"));
    }
}
