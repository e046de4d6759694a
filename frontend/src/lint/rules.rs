//! The rules, each with the finding that it makes.

use super::{Finding, Rule};
use crate::text::quote;

/// All rules.
pub static ALL: [&Rule; 22] = [
    &STAGE_NAME_CASING,
    &FROM_AS_CASING,
    &NO_EMPTY_CONTINUATION,
    &CONSISTENT_INSTRUCTION_CASING,
    &DUPLICATE_STAGE_NAME,
    &RESERVED_STAGE_NAME,
    &JSON_ARGS_RECOMMENDED,
    &MAINTAINER_DEPRECATED,
    &UNDEFINED_ARG_IN_FROM,
    &WORKDIR_RELATIVE_PATH,
    &UNDEFINED_VAR,
    &MULTIPLE_INSTRUCTIONS_DISALLOWED,
    &LEGACY_KEY_VALUE_FORMAT,
    &INVALID_BASE_IMAGE_PLATFORM,
    &REDUNDANT_TARGET_PLATFORM,
    &SECRETS_USED_IN_ARG_OR_ENV,
    &INVALID_DEFAULT_ARG_IN_FROM,
    &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    &COPY_IGNORED_FILE,
    &INVALID_DEFINITION_DESCRIPTION,
    &EXPOSE_PROTO_CASING,
    &EXPOSE_INVALID_FORMAT,
];

const fn rule(name: &'static str, description: &'static str, url: &'static str) -> Rule {
    Rule { name, description, url, is_experimental: false }
}

fn finding(rule: &'static Rule, message: impl Into<String>) -> Finding {
    Finding { rule, message: message.into() }
}

/// Returns what the end of a message says about a name that was probably meant.
fn did_you_mean(sigil: &str, suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(" (did you mean {sigil}{name}?)"))
}

/// A stage is named in upper or mixed case.
pub static STAGE_NAME_CASING: Rule = rule(
    "StageNameCasing",
    "Stage names should be lowercase",
    "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
);

/// A stage is named in upper or mixed case.
pub fn stage_name_casing(stage: &str) -> Finding {
    finding(&STAGE_NAME_CASING, format!("Stage name '{stage}' should be lowercase"))
}

/// `as` is written in another case than `from`.
pub static FROM_AS_CASING: Rule = rule(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
    "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
);

/// `as` is written in another case than `from`.
pub fn from_as_casing(from: &str, keyword: &str) -> Finding {
    finding(&FROM_AS_CASING, format!("'{keyword}' and '{from}' keywords' casing do not match"))
}

/// An instruction has an empty line in it.
pub static NO_EMPTY_CONTINUATION: Rule = rule(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
    "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/",
);

/// An instruction has an empty line in it.
pub fn no_empty_continuation() -> Finding {
    finding(&NO_EMPTY_CONTINUATION, "Empty continuation line")
}

/// A keyword is written in another case (`lowercase`, `uppercase`) than most.
pub static CONSISTENT_INSTRUCTION_CASING: Rule = rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "https://docs.docker.com/go/dockerfile/rule/consistent-instruction-casing/",
);

/// A keyword is written in another case (`lowercase`, `uppercase`) than most.
pub fn consistent_instruction_casing(keyword: &str, case: &str) -> Finding {
    finding(
        &CONSISTENT_INSTRUCTION_CASING,
        format!("Command '{keyword}' should match the case of the command majority ({case})"),
    )
}

/// Two stages have the same name.
pub static DUPLICATE_STAGE_NAME: Rule = rule(
    "DuplicateStageName",
    "Stage names should be unique",
    "https://docs.docker.com/go/dockerfile/rule/duplicate-stage-name/",
);

/// Two stages have the same name.
pub fn duplicate_stage_name(stage: &str) -> Finding {
    finding(
        &DUPLICATE_STAGE_NAME,
        format!("Duplicate stage name {}, stage names should be unique", quote(stage)),
    )
}

/// A stage has a name that means something else.
pub static RESERVED_STAGE_NAME: Rule = rule(
    "ReservedStageName",
    "Reserved words should not be used as stage names",
    "https://docs.docker.com/go/dockerfile/rule/reserved-stage-name/",
);

/// A stage has a name that means something else.
pub fn reserved_stage_name(stage: &str) -> Finding {
    finding(
        &RESERVED_STAGE_NAME,
        format!("Stage name should not use the same name as reserved stage {}", quote(stage)),
    )
}

/// `CMD` or `ENTRYPOINT` is in the shell form.
pub static JSON_ARGS_RECOMMENDED: Rule = rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
);

/// `CMD` or `ENTRYPOINT` is in the shell form.
pub fn json_args_recommended(keyword: &str) -> Finding {
    finding(
        &JSON_ARGS_RECOMMENDED,
        format!(
            "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
        ),
    )
}

/// `MAINTAINER` is used.
pub static MAINTAINER_DEPRECATED: Rule = rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
);

/// `MAINTAINER` is used.
pub fn maintainer_deprecated() -> Finding {
    finding(&MAINTAINER_DEPRECATED, "Maintainer instruction is deprecated in favor of using label")
}

/// `FROM` uses an argument that isn't declared in front of it.
pub static UNDEFINED_ARG_IN_FROM: Rule = rule(
    "UndefinedArgInFrom",
    "FROM command must use declared ARGs",
    "https://docs.docker.com/go/dockerfile/rule/undefined-arg-in-from/",
);

/// `FROM` uses an argument that isn't declared in front of it.
pub fn undefined_arg_in_from(arg: &str, suggestion: Option<&str>) -> Finding {
    finding(
        &UNDEFINED_ARG_IN_FROM,
        format!("FROM argument '{arg}' is not declared{}", did_you_mean("", suggestion)),
    )
}

/// `WORKDIR` is relative to one that isn't known.
pub static WORKDIR_RELATIVE_PATH: Rule = rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    "https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/",
);

/// `WORKDIR` is relative to one that isn't known.
pub fn workdir_relative_path(path: &str) -> Finding {
    finding(
        &WORKDIR_RELATIVE_PATH,
        format!(
            "Relative workdir {} can have unexpected results if the base image changes",
            quote(path)
        ),
    )
}

/// A variable isn't set where it is used.
pub static UNDEFINED_VAR: Rule = rule(
    "UndefinedVar",
    "Variables should be defined before their use",
    "https://docs.docker.com/go/dockerfile/rule/undefined-var/",
);

/// A variable isn't set where it is used.
pub fn undefined_var(name: &str, suggestion: Option<&str>) -> Finding {
    finding(
        &UNDEFINED_VAR,
        format!("Usage of undefined variable '${name}'{}", did_you_mean("$", suggestion)),
    )
}

/// An instruction is overridden by a later one of its stage.
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/",
);

/// An instruction is overridden by a later one of its stage.
pub fn multiple_instructions_disallowed(keyword: &str) -> Finding {
    finding(
        &MULTIPLE_INSTRUCTIONS_DISALLOWED,
        format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
        ),
    )
}

/// `ENV` or `LABEL` is written without `=`.
pub static LEGACY_KEY_VALUE_FORMAT: Rule = rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/",
);

/// `ENV` or `LABEL` is written without `=`.
pub fn legacy_key_value_format(keyword: &str) -> Finding {
    finding(
        &LEGACY_KEY_VALUE_FORMAT,
        format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        ),
    )
}

/// A base image isn't for the platform that was asked for.
pub static INVALID_BASE_IMAGE_PLATFORM: Rule = rule(
    "InvalidBaseImagePlatform",
    "Base image platform does not match expected target platform",
    "",
);

/// A base image isn't for the platform that was asked for.
pub fn invalid_base_image_platform(image: &str, expected: &str, actual: &str) -> Finding {
    finding(
        &INVALID_BASE_IMAGE_PLATFORM,
        format!(
            "Base image {image} was pulled with platform {}, expected {} for current build",
            quote(actual),
            quote(expected)
        ),
    )
}

/// `FROM --platform` says what is the default.
pub static REDUNDANT_TARGET_PLATFORM: Rule = rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "https://docs.docker.com/go/dockerfile/rule/redundant-target-platform/",
);

/// `FROM --platform` says what is the default.
pub fn redundant_target_platform(variable: &str) -> Finding {
    finding(
        &REDUNDANT_TARGET_PLATFORM,
        format!(
            "Setting platform to predefined {variable} in FROM is redundant as this is the default behavior"
        ),
    )
}

/// A secret is put into an argument or the environment.
pub static SECRETS_USED_IN_ARG_OR_ENV: Rule = rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/",
);

/// A secret is put into an argument or the environment.
pub fn secrets_used_in_arg_or_env(keyword: &str, name: &str) -> Finding {
    finding(
        &SECRETS_USED_IN_ARG_OR_ENV,
        format!(
            "Do not use ARG or ENV instructions for sensitive data ({keyword} {})",
            quote(name)
        ),
    )
}

/// A base image has no valid name unless arguments are given.
pub static INVALID_DEFAULT_ARG_IN_FROM: Rule = rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    "https://docs.docker.com/go/dockerfile/rule/invalid-default-arg-in-from/",
);

/// A base image has no valid name unless arguments are given.
pub fn invalid_default_arg_in_from(base: &str) -> Finding {
    finding(
        &INVALID_DEFAULT_ARG_IN_FROM,
        format!("Default value for ARG {base} results in empty or invalid base image name"),
    )
}

/// `FROM --platform` names a platform.
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    "https://docs.docker.com/go/dockerfile/rule/from-platform-flag-const-disallowed/",
);

/// `FROM --platform` names a platform.
pub fn from_platform_flag_const_disallowed(platform: &str) -> Finding {
    finding(
        &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
        format!("FROM --platform flag should not use constant value {}", quote(platform)),
    )
}

/// A file to copy is excluded from the context.
pub static COPY_IGNORED_FILE: Rule = rule(
    "CopyIgnoredFile",
    "Attempting to Copy file that is excluded by .dockerignore",
    "https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/",
);

/// A file to copy is excluded from the context.
pub fn copy_ignored_file(keyword: &str, file: &str) -> Finding {
    finding(
        &COPY_IGNORED_FILE,
        format!("Attempting to {keyword} file {} that is excluded by .dockerignore", quote(file)),
    )
}

/// A comment in front of an argument or a stage doesn't describe it.
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    is_experimental: true,
    ..rule(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
        "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/",
    )
};

/// A comment in front of an argument or a stage doesn't describe it.
pub fn invalid_definition_description(keyword: &str, name: &str) -> Finding {
    finding(
        &INVALID_DEFINITION_DESCRIPTION,
        format!("Comment for {keyword} should follow the format: `# {name} <description>`"),
    )
}

/// `EXPOSE` has a protocol in upper or mixed case.
pub static EXPOSE_PROTO_CASING: Rule = rule(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
    "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/",
);

/// `EXPOSE` has a protocol in upper or mixed case.
pub fn expose_proto_casing(port: &str) -> Finding {
    finding(
        &EXPOSE_PROTO_CASING,
        format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase"),
    )
}

/// `EXPOSE` has an address or a mapping.
pub static EXPOSE_INVALID_FORMAT: Rule = rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    "https://docs.docker.com/go/dockerfile/rule/expose-invalid-format/",
);

/// `EXPOSE` has an address or a mapping.
pub fn expose_invalid_format(port: &str) -> Finding {
    finding(
        &EXPOSE_INVALID_FORMAT,
        format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        for (finding, message) in [
            (undefined_var("x", Some("y")), "Usage of undefined variable '$x' (did you mean $y?)"),
            (undefined_var("x", None), "Usage of undefined variable '$x'"),
            (
                undefined_arg_in_from("a", Some("b")),
                "FROM argument 'a' is not declared (did you mean b?)",
            ),
            (duplicate_stage_name("a"), "Duplicate stage name \"a\", stage names should be unique"),
            (
                legacy_key_value_format("ENV"),
                "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            ),
            (from_as_casing("FROM", "as"), "'as' and 'FROM' keywords' casing do not match"),
        ] {
            assert_eq!(finding.message, message);
        }
    }

    #[test]
    fn urls_follow_the_names() {
        for rule in ALL.into_iter().filter(|rule| !rule.url.is_empty()) {
            let tail =
                rule.url.strip_prefix("https://docs.docker.com/go/dockerfile/rule/").unwrap();
            let name: String = tail.trim_end_matches('/').split('-').collect();
            assert_eq!(name, rule.name.to_lowercase());
        }
    }
}
