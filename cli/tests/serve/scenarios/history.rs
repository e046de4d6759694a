//! The history of builds, and the documents in it. The Docker engine's BuildKit has none.

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, SolveRequest, StatusRequest,
    StatusResponse, UpdateBuildHistoryRequest,
};
use prost::Message as _;
use serde_json::Value;
use tonic::{Code, Status};

use super::{Case, Docker, case};
use crate::client::{Client, ContentClient, Offer, Watched, unique};
use crate::graph::Graph;
use crate::target::{Target, exporting, solving};

const OLD: Docker = Docker::Cannot("its BuildKit is older than the history");

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(builds_are_recorded, OLD),
        case!(failed_builds_are_recorded, OLD),
        case!(internal_builds_are_not_recorded, OLD),
        case!(records_are_filtered, OLD),
        case!(records_are_limited, OLD),
        case!(wrong_filters_of_records_are_refused, OLD),
        case!(records_are_pinned, OLD),
        case!(records_are_deleted, OLD),
        case!(records_are_finalized, OLD),
        case!(running_builds_are_listed, OLD),
        case!(events_arrive_as_they_happen, OLD),
        case!(the_progress_is_replayed, OLD),
        case!(logs_are_documents, OLD),
        case!(results_are_documents, OLD),
        case!(traces_are_documents, OLD),
        case!(documents_are_read_in_parts, OLD),
        case!(unknown_documents_are_refused, OLD),
        case!(documents_are_never_written, OLD),
    ]
}

/// Builds something with output, and returns the client and the progress.
async fn built(to: &Target) -> (Client, Watched) {
    let client = to.client(Offer::default()).await;
    let graph = to.base().run(&format!("echo {}", unique("recorded"))).root();
    let request = exporting(&graph, "image", &[("name", &unique("name"))]);
    let (solved, watched) = client.solve(request).await;
    solved.unwrap();
    (client, watched)
}

async fn listed(
    client: &Client,
    request: BuildHistoryRequest,
) -> Result<Vec<BuildHistoryRecord>, Status> {
    let is_active_only = request.active_only;
    let request = BuildHistoryRequest { early_exit: true, ..request };
    let mut events = client.control().listen_build_history(request).await?.into_inner();
    let mut records = Vec::new();
    while let Some(event) = events.message().await? {
        // Builds of other scenarios are under way.
        if is_active_only || event.r#type() != BuildHistoryEventType::Started {
            records.extend(event.record);
        }
    }
    Ok(records)
}

async fn record(client: &Client, reference: &str) -> BuildHistoryRecord {
    let request =
        BuildHistoryRequest { r#ref: reference.to_owned(), ..BuildHistoryRequest::default() };
    let [record] = listed(client, request).await.unwrap().try_into().unwrap();
    record
}

async fn builds_are_recorded(to: &Target) {
    let (client, watched) = built(to).await;
    let record = record(&client, &watched.reference).await;
    assert_eq!(record.exporters[0].r#type, "image");
    assert!(record.created_at.is_some() && record.completed_at.is_some() && record.error.is_none());
    assert_eq!((record.num_total_steps, record.num_completed_steps), (3, 3));
    assert!(record.result.unwrap().results.contains_key(&0));
}

async fn failed_builds_are_recorded(to: &Target) {
    let client = to.client(Offer::default()).await;
    let (_, watched) = client.solve(solving(&to.base().run("exit 9").root())).await;
    let record = record(&client, &watched.reference).await;
    assert!(record.error.unwrap().message.contains("exit code: 9"));
    assert!(record.external_error.is_some());
}

async fn internal_builds_are_not_recorded(to: &Target) {
    let client = to.client(Offer::default()).await;
    let request = SolveRequest { internal: true, ..solving(&Graph::scratch().mkfile("/a", "")) };
    let (solved, watched) = client.solve(request).await;
    solved.unwrap();
    let request = BuildHistoryRequest { r#ref: watched.reference, ..Default::default() };
    assert!(listed(&client, request).await.unwrap_or_default().is_empty());
}

async fn records_are_filtered(to: &Target) {
    let (client, watched) = built(to).await;
    let count = async |filter: String| {
        let request = BuildHistoryRequest { filter: vec![filter], ..Default::default() };
        listed(&client, request).await.unwrap().len()
    };
    let reference = &watched.reference;
    assert_eq!(count(format!("ref=={reference}")).await, 1);
    assert_eq!(count(format!("ref=={reference},status==completed")).await, 1);
    assert_eq!(count(format!("ref=={reference},status==error")).await, 0);
    assert_eq!(count(format!("ref=={reference},duration<1h")).await, 1);
    assert_eq!(count(format!("ref=={reference},duration>1h")).await, 0);
}

async fn records_are_limited(to: &Target) {
    let (client, _) = built(to).await;
    let (_, newest) = built(to).await;
    let request = BuildHistoryRequest { limit: 1, ..BuildHistoryRequest::default() };
    assert_eq!(listed(&client, request).await.unwrap().len(), 1);
    let request = BuildHistoryRequest { limit: 10_000, ..BuildHistoryRequest::default() };
    let records = listed(&client, request).await.unwrap();
    assert!(records.iter().any(|record| record.r#ref == newest.reference));
}

async fn wrong_filters_of_records_are_refused(to: &Target) {
    let client = to.client(Offer::default()).await;
    let request = BuildHistoryRequest { filter: vec!["status==".to_owned()], ..Default::default() };
    assert!(listed(&client, request).await.is_err());
    let request = BuildHistoryRequest { limit: -1, ..BuildHistoryRequest::default() };
    assert!(listed(&client, request).await.is_err());
}

async fn update(
    client: &Client,
    reference: &str,
    change: impl FnOnce(&mut UpdateBuildHistoryRequest),
) -> Result<(), Status> {
    let mut request =
        UpdateBuildHistoryRequest { r#ref: reference.to_owned(), ..Default::default() };
    change(&mut request);
    client.control().update_build_history(request).await.map(drop)
}

async fn records_are_pinned(to: &Target) {
    let (client, watched) = built(to).await;
    for pinned in [true, false] {
        update(&client, &watched.reference, |it| it.pinned = pinned).await.unwrap();
        assert_eq!(record(&client, &watched.reference).await.pinned, pinned);
    }
    let status = update(&client, "none", |it| it.pinned = true).await.unwrap_err();
    assert!(status.message().contains("failed to retrieve ref none"), "{status:?}");
}

async fn records_are_deleted(to: &Target) {
    let (client, watched) = built(to).await;
    let logs = record(&client, &watched.reference).await.logs.unwrap();
    update(&client, &watched.reference, |it| it.delete = true).await.unwrap();
    let request = BuildHistoryRequest { r#ref: watched.reference.clone(), ..Default::default() };
    assert!(listed(&client, request).await.unwrap_or_default().is_empty());
    assert!(ContentClient::new(to.channel()).info(&logs.digest).await.is_err());
}

async fn records_are_finalized(to: &Target) {
    let (client, watched) = built(to).await;
    update(&client, &watched.reference, |it| it.finalize = true).await.unwrap();
    assert!(record(&client, &watched.reference).await.trace.is_some());
}

async fn running_builds_are_listed(to: &Target) {
    let client = to.client(Offer::default()).await;
    let graph = to.base().run("sleep 1").root().uncached();
    let request = SolveRequest { r#ref: unique("running"), ..solving(&graph) };
    let reference = request.r#ref.clone();
    let watch = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let request = BuildHistoryRequest { active_only: true, ..Default::default() };
        let active = listed(&client, request).await.unwrap();
        assert!(active.iter().any(|record| record.r#ref == reference), "{active:?}");
    };
    let (solved, ()) = tokio::join!(client.solve(request), watch);
    solved.0.unwrap();
}

async fn events_arrive_as_they_happen(to: &Target) {
    let client = to.client(Offer::default()).await;
    let request = SolveRequest {
        r#ref: unique("heard"),
        ..solving(&Graph::scratch().mkfile("/a", &unique("text")))
    };
    let listen = BuildHistoryRequest { active_only: true, ..BuildHistoryRequest::default() };
    let mut events = client.control().listen_build_history(listen).await.unwrap().into_inner();
    client.solve(request.clone()).await.0.unwrap();
    update(&client, &request.r#ref, |it| it.delete = true).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.last() != Some(&BuildHistoryEventType::Deleted) {
        let event = events.message().await.unwrap().unwrap();
        if event.record.as_ref().unwrap().r#ref == request.r#ref {
            kinds.push(event.r#type());
        }
    }
    kinds.dedup();
    let [started, complete, deleted] =
        [0, 1, 2].map(|it| BuildHistoryEventType::try_from(it).unwrap());
    assert_eq!(kinds, [started, complete, deleted]);
}

async fn the_progress_is_replayed(to: &Target) {
    let (client, watched) = built(to).await;
    let request = StatusRequest { r#ref: watched.reference.clone() };
    let messages = client.control().status(request).await.unwrap().into_inner();
    let replayed = Watched::read(watched.reference.clone(), messages).await;
    assert_eq!(replayed.output, watched.output);
    assert_eq!(replayed.steps(), watched.steps());
}

async fn logs_are_documents(to: &Target) {
    let (client, watched) = built(to).await;
    let logs = record(&client, &watched.reference).await.logs.unwrap();
    assert_eq!(logs.media_type, "application/vnd.buildkit.status.v0");
    let data = ContentClient::new(to.channel()).read(&logs.digest, 0, 0).await.unwrap();
    assert_eq!(data.len() as i64, logs.size);
    let length = u32::from_le_bytes(data[..4].try_into().unwrap()) as usize;
    assert!(!StatusResponse::decode(&data[4..4 + length]).unwrap().vertexes.is_empty());
}

async fn results_are_documents(to: &Target) {
    let (client, watched) = built(to).await;
    let result = record(&client, &watched.reference).await.result.unwrap();
    let provenance = &result.attestations[0];
    let data = ContentClient::new(to.channel()).read(&provenance.digest, 0, 0).await.unwrap();
    let predicate: Value = serde_json::from_slice(&data).unwrap();
    assert!(predicate["buildDefinition"].is_object(), "{predicate:#}");
}

async fn traces_are_documents(to: &Target) {
    let (client, watched) = built(to).await;
    update(&client, &watched.reference, |it| it.finalize = true).await.unwrap();
    let trace = record(&client, &watched.reference).await.trace.unwrap();
    let data = ContentClient::new(to.channel()).read(&trace.digest, 0, 0).await.unwrap();
    let spans = serde_json::Deserializer::from_slice(&data).into_iter::<Value>();
    assert!(spans.map(Result::unwrap).count() > 0);
}

async fn documents_are_read_in_parts(to: &Target) {
    let (client, watched) = built(to).await;
    let logs = record(&client, &watched.reference).await.logs.unwrap();
    let mut content = ContentClient::new(to.channel());
    assert_eq!(content.info(&logs.digest).await.unwrap().size, logs.size);
    let all = content.read(&logs.digest, 0, 0).await.unwrap();
    assert_eq!(content.read(&logs.digest, 3, 5).await.unwrap(), all[3..8]);
    assert_eq!(content.read(&logs.digest, 3, 0).await.unwrap(), all[3..]);
    assert!(content.list().await.unwrap().iter().any(|blob| blob.digest == logs.digest));
}

async fn unknown_documents_are_refused(to: &Target) {
    let mut content = ContentClient::new(to.channel());
    let digest = format!("sha256:{}", "0".repeat(64));
    assert_eq!(content.info(&digest).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(content.read(&digest, 0, 0).await.unwrap_err().code(), Code::NotFound);
    for digest in ["", "../../etc/passwd", "sha256:../../../../etc/passwd"] {
        assert!(content.read(digest, 0, 0).await.is_err(), "{digest}");
    }
}

async fn documents_are_never_written(to: &Target) {
    let status = ContentClient::new(to.channel()).write().await;
    assert!(
        [Code::Unimplemented, Code::FailedPrecondition].contains(&status.code())
            || status.message().contains("read-only"),
        "{status:?}"
    );
}
