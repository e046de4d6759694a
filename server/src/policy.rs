//! Source policies: the decisions about the sources of a build.
//!
//! A client sends rules with its build, its frontend may send more rules with a graph, and the client
//! may offer a service that decides ([`Session::check_policy`]). They apply to the sources of graphs,
//! before a graph is solved, and to the sources whose metadata a frontend asks for. The rules come
//! first. The client decides about the source that the rules leave, and may ask for its metadata
//! first; if the client replaces the source, both apply again.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::{Policy, PolicyAction, Rule};
use futures_util::future::{FutureExt as _, try_join_all};
use kiln_llb::op::{OpKind, SourceOp};
use kiln_llb::{Definition, Graph, replace_sources};
use kiln_oci::{Digest, Platform};
use kiln_worker::{
    AttributeCondition, AttributeConstraint, MatchType, SourceAction, SourcePolicies, SourcePolicy,
    SourceRule, SourceUpdate, normal_identifier,
};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::errors::{detail, of_error, with_details, within};
use crate::images;
use crate::jobs::{Job, canceled};
use crate::references::Reference;
use crate::session::{Decision, Session, Verdict};
use crate::{metadata, workers};

/// The most calls to the client about one source.
const MOST_CALLS: usize = 10;

/// The policies of a build.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobPolicy {
    /// The rules that the client has sent with the build.
    pub(crate) rules: SourcePolicies,
    /// The client that decides about sources, if one does.
    pub(crate) session: Option<Session>,
}

impl Job {
    /// Applies all policies of the build, and those of a request, to a source. Returns the source that
    /// replaces it; `None` if it stays.
    ///
    /// # Errors
    /// Fails if a policy denies the source.
    pub(crate) async fn check_source(
        &self,
        source: &SourceOp,
        platform: Option<&Platform>,
        rules: &SourcePolicies,
    ) -> Result<Option<SourceOp>, Status> {
        let check = self.check(source.clone(), platform, rules);
        tokio::select! {
            checked = check => checked,
            () = self.cancel.cancelled() => Err(canceled()),
        }
    }

    async fn check(
        &self,
        mut source: SourceOp,
        platform: Option<&Platform>,
        rules: &SourcePolicies,
    ) -> Result<Option<SourceOp>, Status> {
        let mut is_new = rules.apply(&mut source).map_err(|error| of_error(&error))?;
        let Some(session) = &self.policy.session else { return Ok(is_new.then_some(source)) };
        source.identifier = normal_identifier(&source);
        let mut known = described(&source);
        for _ in 0..MOST_CALLS {
            let verdict = session.check_policy(platform.map(workers::to_message), known).await;
            match verdict.map_err(|error| of_error(&error))? {
                Some(Verdict::Request(request)) => {
                    known = self.describe(&source, *request).await?;
                }
                Some(Verdict::Decision(decision)) => match decided(&source, &decision)? {
                    None => return Ok(is_new.then_some(source)),
                    Some(new) => {
                        source = new;
                        rules.apply(&mut source).map_err(|error| of_error(&error))?;
                        source.identifier = normal_identifier(&source);
                        is_new = true;
                        known = described(&source);
                    }
                },
                None => return Err(Status::unknown("no decision in policy response")),
            }
        }
        Err(Status::unknown("too many policy requests"))
    }

    /// Returns the metadata that a client's policy requests.
    async fn describe(
        &self,
        source: &SourceOp,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, Status> {
        let wanted = request.source.as_ref().map(images::op_of).unwrap_or_default();
        if wanted.identifier != source.identifier {
            return Err(Status::unknown(format!(
                "policy requested different source identifier: {:?} != {:?}",
                wanted.identifier, source.identifier
            )));
        }
        if wanted.attrs != source.attrs {
            return Err(Status::unknown("policy requested different source attrs"));
        }
        let described = Box::pin(metadata::describe(self, source.clone(), request)).await;
        described.map_err(|status| {
            within("error resolving source metadata from policy request", &status)
        })
    }

    /// Applies all policies to the sources of a graph, once. The graph that is solved has the sources
    /// that they leave.
    ///
    /// # Errors
    /// Fails if a policy denies a source.
    pub(crate) async fn enforce(&self, reference: &Reference) -> Result<(), Status> {
        let rules = self.policy.rules.followed_by(&reference.policies);
        if rules.is_empty() && self.policy.session.is_none() {
            return Ok(());
        }
        let failed =
            |status| within("failed to load LLB: error evaluating the source policy", &status);
        let graph = reference.graph();
        let sources = graph.vertices().iter().filter_map(|vertex| match &vertex.op.kind {
            Some(OpKind::Source(source)) => Some((vertex, source)),
            _ => None,
        });
        let checks = sources.map(|(vertex, source)| {
            let rules = &rules;
            async move {
                let platform = vertex.op.platform.as_ref();
                let new = self.check_source(source, platform, rules).await?;
                Ok::<_, Status>((vertex.digest, new))
            }
            .boxed()
        });
        let checked = try_join_all(checks).await.map_err(failed)?;
        let replaced: BTreeMap<Digest, SourceOp> =
            checked.into_iter().filter_map(|(digest, new)| Some((digest, new?))).collect();
        if !replaced.is_empty() {
            let definition = replace_sources(&reference.definition, &replaced);
            let definition = definition.map_err(|error| of_error(&error))?;
            let graph = Definition::from_pb(definition.clone()).and_then(|it| Graph::load(&it));
            reference.replace(definition, graph.map_err(|error| of_error(&error))?);
        }
        Ok(())
    }
}

/// Returns the new source of a decision; `None` if the source stays.
///
/// # Errors
/// Fails if the decision denies the source.
fn decided(source: &SourceOp, decision: &Decision) -> Result<Option<SourceOp>, Status> {
    match PolicyAction::try_from(decision.action) {
        Ok(PolicyAction::Allow) => Ok(None),
        Ok(PolicyAction::Convert) => {
            let missing = || Status::unknown("convert action requires updated source");
            decision.update.as_ref().map(images::op_of).ok_or_else(missing).map(Some)
        }
        action => {
            let name = action
                .map_or_else(|_| decision.action.to_string(), |it| it.as_str_name().to_owned());
            let text =
                format!("source {:?} not allowed by policy: action {name}", source.identifier);
            let messages: Vec<Value> = decision
                .deny_messages
                .iter()
                .map(|message| json!({"message": message.message}))
                .collect();
            let details = if messages.is_empty() {
                Vec::new()
            } else {
                let value = json!({"action": "DENY", "denyMessages": messages});
                vec![detail("policysession.DecisionResponse", &value)]
            };
            Err(with_details(Code::Unknown, text, details))
        }
    }
}

/// Returns what a client knows of a source at first: the source.
fn described(source: &SourceOp) -> ResolveSourceMetaResponse {
    ResolveSourceMetaResponse {
        source: Some(images::source_to_pb(source)),
        ..ResolveSourceMetaResponse::default()
    }
}

/// Compiles policies of a client.
///
/// # Errors
/// Fails if a policy is invalid.
pub(crate) fn compile<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
) -> Result<SourcePolicies, Status> {
    let read = |policy: &Policy| {
        let rules = policy.rules.iter().map(rule).collect::<Result<_, _>>()?;
        Ok(SourcePolicy { rules })
    };
    let policies = policies.into_iter().map(read).collect::<Result<_, Status>>()?;
    SourcePolicies::new(policies).map_err(|error| of_error(&error))
}

fn rule(rule: &Rule) -> Result<SourceRule, Status> {
    let selector = rule.selector.as_ref();
    let selector = selector.ok_or_else(|| Status::unknown("invalid nil selector in policy"))?;
    let identifier = selector.identifier.clone();
    let unknown = |kind: &str, number: i32| {
        Status::unknown(format!("source policy: rule {identifier:?}: unknown {kind} {number}"))
    };
    let constraints = selector.constraints.iter().map(|constraint| {
        let condition = AttributeCondition::of_number(constraint.condition)
            .ok_or_else(|| unknown("attr condition", constraint.condition))?;
        let (key, value) = (constraint.key.clone(), constraint.value.clone());
        Ok(AttributeConstraint { key, value, condition })
    });
    Ok(SourceRule {
        action: SourceAction::of_number(rule.action).ok_or_else(|| unknown("type", rule.action))?,
        match_type: MatchType::of_number(selector.match_type)
            .ok_or_else(|| unknown("match type", selector.match_type))?,
        constraints: constraints.collect::<Result<_, Status>>()?,
        updates: rule.updates.as_ref().map(|updates| SourceUpdate {
            identifier: updates.identifier.clone(),
            attrs: updates.attrs.clone().into_iter().collect(),
        }),
        identifier,
    })
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::Selector;

    use super::*;
    use crate::errors::to_message;
    use crate::session::DenyMessage;

    #[test]
    fn denials_carry_their_reasons() {
        let source = SourceOp { identifier: "docker-image://a".to_owned(), ..SourceOp::default() };
        let decision = |action: i32, messages: &[&str]| Decision {
            action,
            deny_messages: messages
                .iter()
                .map(|text| DenyMessage { message: (*text).to_owned() })
                .collect(),
            update: None,
        };
        assert!(decided(&source, &decision(0, &[])).unwrap().is_none());
        let error = decided(&source, &decision(1, &["one", "two"])).unwrap_err();
        let text = "source \"docker-image://a\" not allowed by policy: action DENY";
        assert_eq!(error.message(), text);
        let error = to_message(&within("outer", &error));
        assert_eq!(error.message, format!("outer: {text}"));
        let kind = "github.com/moby/buildkit/policysession.DecisionResponse+json";
        let reasons = error.details.iter().find(|detail| detail.type_url == kind).unwrap();
        let value: Value = serde_json::from_slice(&reasons.value).unwrap();
        assert_eq!(value["denyMessages"][1]["message"], "two");
        assert!(decided(&source, &decision(2, &[])).is_err(), "a conversion without a source");
        assert!(decided(&source, &decision(7, &[])).unwrap_err().message().ends_with("action 7"));
    }

    #[test]
    fn invalid_rules_are_refused() {
        let selector = Selector { identifier: "x".to_owned(), ..Selector::default() };
        let policy = |rule: Rule| Policy { version: 1, rules: vec![rule] };
        for (rule, problem) in [
            (Rule::default(), "invalid nil selector in policy"),
            (
                Rule { action: 9000, selector: Some(selector.clone()), updates: None },
                "unknown type",
            ),
            (
                Rule { action: 2, selector: Some(selector.clone()), updates: None },
                "missing destination for convert rule",
            ),
            (
                Rule {
                    selector: Some(Selector { match_type: 3, ..selector.clone() }),
                    ..Rule::default()
                },
                "unknown match type",
            ),
        ] {
            let error = compile([&policy(rule)]).unwrap_err();
            assert!(error.message().contains(problem), "{}", error.message());
        }
    }
}
