//! The server itself: its workers, its disk, its health, and requests that are wrong.

use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use bollard_buildkit_proto::moby::buildkit::v1::{
    DiskUsageRequest, InfoRequest, ListWorkersRequest, PruneRequest, SolveRequest, StatusRequest,
    UsageRecord,
};
use bytes::Bytes;
use futures_util::stream;
use tonic::{Code, Request, Status};

use super::{Case, Docker, case};
use crate::client::{Client, Offer, RawCodec, unique};
use crate::graph::Graph;
use crate::target::{Target, exporting, solving};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(the_server_names_its_version, Docker::Cannot("its BuildKit is older than the call")),
        case!(workers_are_listed, Docker::Other("its labels are Docker's")),
        case!(workers_are_filtered, Docker::Other("it has no label a")),
        case!(wrong_filters_of_workers_are_refused, Docker::Same),
        case!(alone disk_usage_is_listed, Docker::Other("its kinds of records are older")),
        case!(alone disk_usage_is_filtered, Docker::Same),
        case!(alone disk_usage_by_age, Docker::Cannot("its BuildKit is older than the field")),
        case!(alone parts_are_pruned, Docker::Same),
        case!(alone all_is_pruned, Docker::Other("it keeps images in Docker's own store")),
        case!(alone pruning_keeps_some_space, Docker::Other("it counts what it shares otherwise")),
        case!(the_server_is_healthy, Docker::Cannot("it doesn't serve its health")),
        case!(an_unknown_service_has_no_health, Docker::Cannot("it doesn't serve its health")),
        case!(traces_are_accepted, Docker::Cannot("it doesn't serve traces")),
        case!(unknown_methods_are_refused, Docker::Same),
        case!(an_unknown_build_has_no_status, Docker::Other("its BuildKit gives no code")),
        case!(nothing_is_built, Docker::Same),
        case!(unknown_exporters_are_refused, Docker::Same),
        case!(unknown_frontends_are_refused, Docker::Other("its words are other ones")),
        case!(rights_have_to_be_granted, Docker::Cannot("it grants the network of the host")),
        case!(unknown_sessions_are_refused, Docker::Same),
        case!(a_name_belongs_to_one_build, Docker::Same),
    ]
}

async fn the_server_names_its_version(to: &Target) {
    let client = to.client(Offer::default()).await;
    let info = client.control().info(InfoRequest {}).await.unwrap().into_inner();
    let version = info.buildkit_version.unwrap();
    assert!(version.version.starts_with("v0."), "{version:?}");
    assert!(version.revision.contains("kiln"), "{version:?}");
}

async fn workers(to: &Target, filter: &[&str]) -> Result<usize, Status> {
    let filter = filter.iter().map(|&text| text.to_owned()).collect();
    let client = to.client(Offer::default()).await;
    let workers = client.control().list_workers(ListWorkersRequest { filter }).await?;
    Ok(workers.into_inner().record.len())
}

async fn workers_are_listed(to: &Target) {
    let client = to.client(Offer::default()).await;
    let workers = client.control().list_workers(ListWorkersRequest::default()).await.unwrap();
    let [worker] = workers.into_inner().record.try_into().unwrap();
    assert_eq!(worker.platforms[0].os, "linux");
    assert!(!worker.id.is_empty());
    if to.is_kiln() {
        assert_eq!(worker.labels["a"], "b");
    }
}

async fn workers_are_filtered(to: &Target) {
    assert_eq!(workers(to, &["labels.none==x"]).await.unwrap(), 0);
    if to.is_kiln() {
        for filter in ["labels.a==b", "id~=.", "labels.a~=^b$", "labels.a!=c"] {
            assert_eq!(workers(to, &[filter]).await.unwrap(), 1, "{filter}");
        }
        assert_eq!(workers(to, &["labels.a==c", "labels.a==b"]).await.unwrap(), 1);
        assert_eq!(workers(to, &["labels.a==b,labels.x==y"]).await.unwrap(), 0);
    }
}

async fn wrong_filters_of_workers_are_refused(to: &Target) {
    let status = workers(to, &["labels.a=="]).await.unwrap_err();
    assert!(status.message().contains("parse"), "{status:?}");
}

async fn used(client: &Client, filter: &[&str], age_limit: i64) -> Vec<UsageRecord> {
    let filter = filter.iter().map(|&text| text.to_owned()).collect();
    let request = DiskUsageRequest { filter, age_limit };
    client.control().disk_usage(request).await.unwrap().into_inner().record
}

async fn prune(client: &Client, request: PruneRequest) -> Vec<UsageRecord> {
    let mut removed = client.control().prune(request).await.unwrap().into_inner();
    let mut records = Vec::new();
    while let Some(record) = removed.message().await.unwrap() {
        records.push(record);
    }
    records
}

/// Builds something of 100 kB, and returns the client that has done it.
async fn built(to: &Target) -> Client {
    let client = to.client(Offer::default()).await;
    let text = unique("text").repeat(5000);
    client.solve(solving(&Graph::scratch().mkfile("/file", &text))).await.0.unwrap();
    client
}

async fn disk_usage_is_listed(to: &Target) {
    let client = built(to).await;
    let records = used(&client, &[], 0).await;
    let record = records.iter().find(|record| record.size > 50_000).unwrap();
    assert!(!record.in_use && record.size > 0 && record.created_at.is_some(), "{record:?}");
    assert_eq!(record.record_type, "regular");
}

async fn disk_usage_is_filtered(to: &Target) {
    let client = built(to).await;
    let all = used(&client, &[], 0).await;
    let one = used(&client, &[&format!("id=={}", all[0].id)], 0).await;
    assert_eq!(one.iter().map(|it| &it.id).collect::<Vec<_>>(), [&all[0].id]);
    assert!(used(&client, &["id==nothing"], 0).await.is_empty());
    assert!(!used(&client, &["type==regular"], 0).await.is_empty());
    assert!(used(&client, &["type==teleport"], 0).await.is_empty());
}

async fn disk_usage_by_age(to: &Target) {
    let client = built(to).await;
    assert!(used(&client, &[], 3_600_000_000_000).await.is_empty());
}

async fn parts_are_pruned(to: &Target) {
    let client = built(to).await;
    let all = used(&client, &[], 0).await;
    let record = all.iter().find(|record| record.size > 50_000).unwrap();
    let filter = vec![format!("id=={}", record.id)];
    let removed = prune(&client, PruneRequest { filter, ..PruneRequest::default() }).await;
    assert_eq!(removed.iter().map(|it| &it.id).collect::<Vec<_>>(), [&record.id]);
    assert!(used(&client, &[], 0).await.iter().all(|other| other.id != record.id));
}

async fn all_is_pruned(to: &Target) {
    let client = built(to).await;
    let removed = prune(&client, PruneRequest { all: true, ..PruneRequest::default() }).await;
    assert!(!removed.is_empty());
    if to.is_kiln() {
        let rest = used(&client, &[], 0).await;
        assert!(rest.iter().all(|record| record.in_use), "{rest:?}");
    }
}

async fn pruning_keeps_some_space(to: &Target) {
    let client = built(to).await;
    let request = PruneRequest { all: true, reserved_space: 1 << 50, ..PruneRequest::default() };
    assert!(prune(&client, request).await.is_empty());
    let keep_duration = 3_600_000_000_000;
    let request = PruneRequest { all: true, keep_duration, ..PruneRequest::default() };
    assert!(prune(&client, request).await.is_empty());
}

async fn the_server_is_healthy(to: &Target) {
    let mut health = HealthClient::new(to.channel());
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status, 1);
}

async fn an_unknown_service_has_no_health(to: &Target) {
    let request = HealthCheckRequest { service: "none".to_owned() };
    let status = HealthClient::new(to.channel()).check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

/// Calls a method with the bytes of a message.
pub(crate) async fn call(to: &Target, path: &str, message: &[u8]) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(to.channel());
    grpc.ready().await.unwrap();
    let message = Bytes::copy_from_slice(message);
    let request = Request::new(stream::iter([message]));
    let mut answers = grpc.streaming(request, path.parse().unwrap(), RawCodec).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

async fn traces_are_accepted(to: &Target) {
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    call(to, path, b"").await.unwrap();
    call(to, path, b"\x0a\x02\x12\x00").await.unwrap();
}

async fn unknown_methods_are_refused(to: &Target) {
    for path in ["/moby.buildkit.v1.Control/Teleport", "/none.Service/Call"] {
        let status = call(to, path, b"").await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
}

async fn an_unknown_build_has_no_status(to: &Target) {
    let client = to.client(Offer::default()).await;
    let request = StatusRequest { r#ref: "unknown".to_owned() };
    let status = match client.control().status(request).await {
        Err(status) => status,
        Ok(mut messages) => messages.get_mut().message().await.unwrap_err(),
    };
    assert!(status.message().contains("no such job"), "{status:?}");
    if to.is_kiln() {
        assert_eq!(status.code(), Code::NotFound);
    }
}

async fn nothing_is_built(to: &Target) -> usize {
    let client = to.client(Offer::default()).await;
    let (solved, watched) = client.solve(solving(&Graph::scratch())).await;
    solved.unwrap().len() + watched.vertexes.len()
}

async fn unknown_exporters_are_refused(to: &Target) {
    let request = exporting(&Graph::scratch().mkfile("/a", ""), "teleport", &[]);
    let status = to.client(Offer::default()).await.solve(request).await.0.unwrap_err();
    assert!(status.message().contains("exporter \"teleport\" could not be found"), "{status:?}");
}

async fn unknown_frontends_are_refused(to: &Target) {
    let request = SolveRequest { frontend: "teleport".to_owned(), ..SolveRequest::default() };
    let status = to.client(Offer::default()).await.solve(request).await.0.unwrap_err();
    assert!(status.message().contains("frontend"), "{status:?}");
    assert!(status.message().contains("teleport"), "{status:?}");
}

async fn rights_have_to_be_granted(to: &Target) {
    let entitlements = vec!["network.host".to_owned()];
    let graph = Graph::scratch().mkfile("/a", "");
    let request = SolveRequest { entitlements, ..solving(&graph) };
    let status = to.client(Offer::default()).await.solve(request).await.0.unwrap_err();
    assert!(status.message().contains("network.host is not allowed"), "{status:?}");
}

async fn unknown_sessions_are_refused(to: &Target) {
    let client = to.client(Offer::default()).await;
    let graph = Graph::source("local://context", &[("local.session", "nobody")]);
    let request =
        SolveRequest { r#ref: unique("build"), session: "nobody".to_owned(), ..solving(&graph) };
    let status = client.control().solve(request).await.unwrap_err();
    assert!(status.message().contains("no active session"), "{status:?}");
}

async fn a_name_belongs_to_one_build(to: &Target) {
    let graph = to.base().run("sleep 1").root().uncached();
    let request = SolveRequest { r#ref: unique("build"), ..solving(&graph) };
    let (first, second) = (to.client(Offer::default()).await, to.client(Offer::default()).await);
    let (one, two) = tokio::join!(first.solve(request.clone()), second.solve(request));
    let failed = [one.0, two.0].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].message().contains("exists"), "{failed:?}");
}
