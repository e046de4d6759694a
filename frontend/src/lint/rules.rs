//! The rules, each with the function that creates its finding.

use super::{Finding, Rule};
use crate::text::quote;

/// All rules, in BuildKit's order.
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

/// Returns the end of a message, which suggests a name.
fn did_you_mean(sigil: &str, suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(" (did you mean {sigil}{name}?)"))
}

/// The rule against stage names in upper or mixed case.
pub static STAGE_NAME_CASING: Rule = rule(
    "StageNameCasing",
    "Stage names should be lowercase",
    "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
);

/// Returns the finding for a stage name in upper or mixed case.
pub fn stage_name_casing(stage: &str) -> Finding {
    finding(&STAGE_NAME_CASING, format!("Stage name '{stage}' should be lowercase"))
}

/// The rule against an `AS` whose case differs from `FROM`'s.
pub static FROM_AS_CASING: Rule = rule(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
    "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
);

/// Returns the finding for an `AS` whose case differs from `FROM`'s.
pub fn from_as_casing(from: &str, keyword: &str) -> Finding {
    finding(&FROM_AS_CASING, format!("'{keyword}' and '{from}' keywords' casing do not match"))
}

/// The rule against empty lines within an instruction.
pub static NO_EMPTY_CONTINUATION: Rule = rule(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
    "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/",
);

/// Returns the finding for an empty line within an instruction.
pub fn no_empty_continuation() -> Finding {
    finding(&NO_EMPTY_CONTINUATION, "Empty continuation line")
}

/// The rule against keywords whose case differs from the majority's.
pub static CONSISTENT_INSTRUCTION_CASING: Rule = rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "https://docs.docker.com/go/dockerfile/rule/consistent-instruction-casing/",
);

/// Returns the finding for a keyword whose case differs from the majority's (`lowercase` or
/// `uppercase`).
pub fn consistent_instruction_casing(keyword: &str, case: &str) -> Finding {
    finding(
        &CONSISTENT_INSTRUCTION_CASING,
        format!("Command '{keyword}' should match the case of the command majority ({case})"),
    )
}

/// The rule against two stages of the same name.
pub static DUPLICATE_STAGE_NAME: Rule = rule(
    "DuplicateStageName",
    "Stage names should be unique",
    "https://docs.docker.com/go/dockerfile/rule/duplicate-stage-name/",
);

/// Returns the finding for the second stage of a name.
pub fn duplicate_stage_name(stage: &str) -> Finding {
    finding(
        &DUPLICATE_STAGE_NAME,
        format!("Duplicate stage name {}, stage names should be unique", quote(stage)),
    )
}

/// The rule against stage names with another meaning, such as `scratch`.
pub static RESERVED_STAGE_NAME: Rule = rule(
    "ReservedStageName",
    "Reserved words should not be used as stage names",
    "https://docs.docker.com/go/dockerfile/rule/reserved-stage-name/",
);

/// Returns the finding for a stage name with another meaning.
pub fn reserved_stage_name(stage: &str) -> Finding {
    finding(
        &RESERVED_STAGE_NAME,
        format!("Stage name should not use the same name as reserved stage {}", quote(stage)),
    )
}

/// The rule against `CMD` and `ENTRYPOINT` in shell form.
pub static JSON_ARGS_RECOMMENDED: Rule = rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
);

/// Returns the finding for a `CMD` or `ENTRYPOINT` in shell form.
pub fn json_args_recommended(keyword: &str) -> Finding {
    finding(
        &JSON_ARGS_RECOMMENDED,
        format!(
            "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
        ),
    )
}

/// The rule against `MAINTAINER`.
pub static MAINTAINER_DEPRECATED: Rule = rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
);

/// Returns the finding for a `MAINTAINER` instruction.
pub fn maintainer_deprecated() -> Finding {
    finding(&MAINTAINER_DEPRECATED, "Maintainer instruction is deprecated in favor of using label")
}

/// The rule against undeclared arguments in `FROM`.
pub static UNDEFINED_ARG_IN_FROM: Rule = rule(
    "UndefinedArgInFrom",
    "FROM command must use declared ARGs",
    "https://docs.docker.com/go/dockerfile/rule/undefined-arg-in-from/",
);

/// Returns the finding for a `FROM` that uses an undeclared argument.
pub fn undefined_arg_in_from(arg: &str, suggestion: Option<&str>) -> Finding {
    finding(
        &UNDEFINED_ARG_IN_FROM,
        format!("FROM argument '{arg}' is not declared{}", did_you_mean("", suggestion)),
    )
}

/// The rule against a relative `WORKDIR` without an absolute one before it.
pub static WORKDIR_RELATIVE_PATH: Rule = rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    "https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/",
);

/// Returns the finding for a relative `WORKDIR` without an absolute one before it.
pub fn workdir_relative_path(path: &str) -> Finding {
    finding(
        &WORKDIR_RELATIVE_PATH,
        format!(
            "Relative workdir {} can have unexpected results if the base image changes",
            quote(path)
        ),
    )
}

/// The rule against unset variables.
pub static UNDEFINED_VAR: Rule = rule(
    "UndefinedVar",
    "Variables should be defined before their use",
    "https://docs.docker.com/go/dockerfile/rule/undefined-var/",
);

/// Returns the finding for a use of an unset variable.
pub fn undefined_var(name: &str, suggestion: Option<&str>) -> Finding {
    finding(
        &UNDEFINED_VAR,
        format!("Usage of undefined variable '${name}'{}", did_you_mean("$", suggestion)),
    )
}

/// The rule against instructions that a later one of the stage overrides.
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/",
);

/// Returns the finding for an instruction that a later one of the stage overrides.
pub fn multiple_instructions_disallowed(keyword: &str) -> Finding {
    finding(
        &MULTIPLE_INSTRUCTIONS_DISALLOWED,
        format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
        ),
    )
}

/// The rule against `ENV` and `LABEL` without `=`.
pub static LEGACY_KEY_VALUE_FORMAT: Rule = rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/",
);

/// Returns the finding for an `ENV` or `LABEL` without `=`.
pub fn legacy_key_value_format(keyword: &str) -> Finding {
    finding(
        &LEGACY_KEY_VALUE_FORMAT,
        format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        ),
    )
}

/// The rule against base images for another platform than the requested one.
pub static INVALID_BASE_IMAGE_PLATFORM: Rule = rule(
    "InvalidBaseImagePlatform",
    "Base image platform does not match expected target platform",
    "",
);

/// Returns the finding for a base image for another platform than the requested one.
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

/// The rule against `FROM --platform` with the default platform.
pub static REDUNDANT_TARGET_PLATFORM: Rule = rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "https://docs.docker.com/go/dockerfile/rule/redundant-target-platform/",
);

/// Returns the finding for a `FROM --platform` with the default platform.
pub fn redundant_target_platform(variable: &str) -> Finding {
    finding(
        &REDUNDANT_TARGET_PLATFORM,
        format!(
            "Setting platform to predefined {variable} in FROM is redundant as this is the default behavior"
        ),
    )
}

/// The rule against secrets in arguments and environment variables.
pub static SECRETS_USED_IN_ARG_OR_ENV: Rule = rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/",
);

/// Returns the finding for a secret in an argument or an environment variable.
pub fn secrets_used_in_arg_or_env(keyword: &str, name: &str) -> Finding {
    finding(
        &SECRETS_USED_IN_ARG_OR_ENV,
        format!(
            "Do not use ARG or ENV instructions for sensitive data ({keyword} {})",
            quote(name)
        ),
    )
}

/// The rule against base images whose name is invalid with default arguments.
pub static INVALID_DEFAULT_ARG_IN_FROM: Rule = rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    "https://docs.docker.com/go/dockerfile/rule/invalid-default-arg-in-from/",
);

/// Returns the finding for a base image whose name is invalid with default arguments.
pub fn invalid_default_arg_in_from(base: &str) -> Finding {
    finding(
        &INVALID_DEFAULT_ARG_IN_FROM,
        format!("Default value for ARG {base} results in empty or invalid base image name"),
    )
}

/// The rule against `FROM --platform` with a constant.
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    "https://docs.docker.com/go/dockerfile/rule/from-platform-flag-const-disallowed/",
);

/// Returns the finding for a `FROM --platform` with a constant.
pub fn from_platform_flag_const_disallowed(platform: &str) -> Finding {
    finding(
        &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
        format!("FROM --platform flag should not use constant value {}", quote(platform)),
    )
}

/// The rule against copying files that `.dockerignore` excludes.
pub static COPY_IGNORED_FILE: Rule = rule(
    "CopyIgnoredFile",
    "Attempting to Copy file that is excluded by .dockerignore",
    "https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/",
);

/// Returns the finding for a copied file that `.dockerignore` excludes.
pub fn copy_ignored_file(keyword: &str, file: &str) -> Finding {
    finding(
        &COPY_IGNORED_FILE,
        format!("Attempting to {keyword} file {} that is excluded by .dockerignore", quote(file)),
    )
}

/// The experimental rule against comments in front of an argument or a stage that don't describe
/// it.
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    is_experimental: true,
    ..rule(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
        "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/",
    )
};

/// Returns the finding for a comment that doesn't describe the argument or stage behind it.
pub fn invalid_definition_description(keyword: &str, name: &str) -> Finding {
    finding(
        &INVALID_DEFINITION_DESCRIPTION,
        format!("Comment for {keyword} should follow the format: `# {name} <description>`"),
    )
}

/// The rule against `EXPOSE` protocols in upper or mixed case.
pub static EXPOSE_PROTO_CASING: Rule = rule(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
    "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/",
);

/// Returns the finding for an `EXPOSE` protocol in upper or mixed case.
pub fn expose_proto_casing(port: &str) -> Finding {
    finding(
        &EXPOSE_PROTO_CASING,
        format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase"),
    )
}

/// The rule against `EXPOSE` with an IP address or a port mapping.
pub static EXPOSE_INVALID_FORMAT: Rule = rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    "https://docs.docker.com/go/dockerfile/rule/expose-invalid-format/",
);

/// Returns the finding for an `EXPOSE` with an IP address or a port mapping.
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
