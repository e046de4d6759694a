//! Hints for errors whose message doesn't suggest a solution.

/// Returns the correct form of an instruction, given its keyword and the error's message.
pub(super) fn way_out(keyword: &str, message: &str) -> Option<String> {
    let keyword = crate::text::to_upper(keyword);
    let form = if message.ends_with("must have two arguments") || message.contains("can't find =") {
        format!("{keyword} name=value, and quotes around a value with blanks")
    } else if message.contains("Destination could not be determined") {
        format!("{keyword} source destination")
    } else if message.contains("arguments to be in JSON form") {
        format!("{keyword} [\"program\", \"argument\"], with double quotes")
    } else if message.starts_with("FROM requires") {
        "FROM image, or FROM image AS name".to_owned()
    } else if message.starts_with("Unknown type") || message.starts_with("Missing command") {
        "HEALTHCHECK [options] CMD command, or HEALTHCHECK NONE".to_owned()
    } else {
        return None;
    };
    Some(format!("write {form}"))
}
