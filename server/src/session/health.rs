//! Health checks of sessions.

use std::time::Duration;

use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::MetadataMap;

use super::Session;

/// The key of a client's own time limit in milliseconds.
const CUSTOM: &str = "x-buildkit-session-health-custom-timeout";
const METHOD: &str = "/grpc.health.v1.Health/Check";

/// The rule by which an unresponsive client's session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HealthCheck {
    interval: Duration,
    /// The time limit of a check. A check may take 1.5 times as long as the last one in any case: a
    /// slow connection that carries files delays the answers.
    limit: Duration,
    /// The number of failed checks in a row that end the session.
    failures: u32,
}

impl HealthCheck {
    /// Returns the rule that a client's metadata asks for. A custom time limit is at least one
    /// second.
    pub(super) fn from_metadata(metadata: &MetadataMap) -> Self {
        let custom = metadata.get(CUSTOM).and_then(|value| value.to_str().ok()?.parse().ok());
        match custom {
            Some(milliseconds) if milliseconds > 0 => {
                let limit = Duration::from_millis(milliseconds).max(Duration::from_secs(1));
                Self { interval: limit, limit, failures: 1 }
            }
            _ => Self {
                interval: Duration::from_secs(5),
                limit: Duration::from_secs(15),
                failures: 2,
            },
        }
    }

    /// Returns when the session has ended or should end.
    pub(super) async fn watch(self, session: &Session) {
        if session.supports(METHOD) {
            tokio::select! {
                () = session.closed().cancelled() => {}
                () = self.check(session) => {}
            }
        } else {
            session.closed().cancelled().await;
        }
    }

    /// Returns when checks have failed.
    async fn check(self, session: &Session) {
        let mut client = HealthClient::new(session.channel());
        let (mut failures, mut last) = (0, Duration::ZERO);
        while failures < self.failures {
            sleep(self.interval).await;
            let start = Instant::now();
            let check = client.check(HealthCheckRequest::default());
            let is_healthy =
                matches!(timeout(self.limit.max(last * 3 / 2), check).await, Ok(Ok(_)));
            last = start.elapsed();
            failures = if is_healthy { 0 } else { failures + 1 };
        }
        tracing::warn!(session = session.id(), "the client doesn't answer health checks");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_set_a_limit_of_a_second_or_more() {
        let rule = |value: Option<&'static str>| {
            let mut metadata = MetadataMap::new();
            if let Some(value) = value {
                metadata.insert(CUSTOM, value.parse().unwrap());
            }
            let HealthCheck { interval, limit, failures } = HealthCheck::from_metadata(&metadata);
            (interval.as_millis(), limit.as_millis(), failures)
        };
        for value in [None, Some(""), Some("0"), Some("-5"), Some("x")] {
            assert_eq!(rule(value), (5000, 15_000, 2), "{value:?}");
        }
        assert_eq!(rule(Some("2500")), (2500, 2500, 1));
        assert_eq!(rule(Some("1")), (1000, 1000, 1));
    }
}
