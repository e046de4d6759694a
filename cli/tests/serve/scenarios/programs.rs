//! Programs, and the mounts that they see.

use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use bollard_buildkit_proto::pb::{
    CacheSharingOpt, HostIp, MountType, SecretEnv, SecurityMode, TmpfsOpt, Ulimit,
};
use tonic::Code;

use super::{Case, Docker, Tree, case};
use crate::client::{Offer, unique};
use crate::graph::{Exec, Graph};
use crate::target::{Target, assert_status, solving};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(programs_change_their_root, Docker::Same),
        case!(programs_have_an_environment, Docker::Same),
        case!(programs_have_outputs, Docker::Same),
        case!(programs_fail, Docker::Other("it has no typed exit codes")),
        case!(programs_may_fail, Docker::Cannot("its BuildKit is older than valid exit codes")),
        case!(programs_that_are_missing, Docker::Cannot("it reports a failure of runc")),
        case!(programs_know_hosts, Docker::Same),
        case!(programs_have_limits, Docker::Cannot("its BuildKit is older than limits")),
        case!(programs_have_a_network_of_their_own, Docker::Same),
        case!(programs_may_be_privileged, Docker::Cannot("its configuration grants nothing")),
        case!(roots_may_be_read_only, Docker::Same),
        case!(mounts_of_file_systems, Docker::Same),
        case!(mounts_of_parts_of_file_systems, Docker::Same),
        case!(mounts_with_outputs, Docker::Same),
        case!(mounts_of_caches, Docker::Same),
        case!(mounts_of_private_caches, Docker::Same),
        case!(mounts_of_memory, Docker::Same),
        case!(mounts_of_secrets, Docker::Same),
        case!(mounts_of_secrets_that_are_missing, Docker::Same),
        case!(mounts_of_optional_secrets, Docker::Same),
        case!(secrets_in_the_environment, Docker::Cannot("its BuildKit is older than them")),
        case!(mounts_of_agents, Docker::Same),
        case!(mounts_of_agents_that_are_missing, Docker::Same),
        case!(steps_are_cached, Docker::Same),
        case!(steps_without_cache_run_again, Docker::Same),
    ]
}

/// Returns what a step has written to `/out`.
async fn output(to: &Target, exec: Exec, offer: Offer) -> Tree {
    let graph = Graph::scratch().copy(&exec.root(), "/out", "/");
    to.tree(&graph, offer).await
}

fn text(text: &str) -> Tree {
    [("out".to_owned(), format!("file 644 0:0 {text}"))].into()
}

async fn programs_change_their_root(to: &Target) -> Tree {
    let exec = to.base().run("echo text > /out; rm -r /home; id -u >> /out");
    let tree = output(to, exec, Offer::default()).await;
    assert_eq!(tree, text("text\n0\n"));
    tree
}

async fn programs_have_an_environment(to: &Target) -> Tree {
    let exec = to.base().run("echo $A $(pwd) $(id -u) > /tmp/out; cp /tmp/out /out 2>&1 || true");
    let exec = exec.meta(|meta| {
        meta.env.push("A=value".to_owned());
        "/etc".clone_into(&mut meta.cwd);
        "nobody".clone_into(&mut meta.user);
    });
    let graph = Graph::scratch().copy(&exec.root(), "/tmp/out", "/");
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree["out"], "file 644 65534:65534 value /etc 65534\n");
    tree
}

async fn programs_have_outputs(to: &Target) -> bool {
    let word = unique("word");
    let graph = to.base().run(&format!("echo {word}; echo to-error-{word} >&2")).root();
    let (tree, watched) = to.try_tree(&graph, Offer::default()).await;
    tree.unwrap();
    assert!(watched.output.contains(&format!("{word}\n")), "{watched:?}");
    watched.output.contains(&format!("to-error-{word}\n"))
}

async fn programs_fail(to: &Target) {
    let graph = to.base().run("echo broken; exit 42").root();
    let (tree, watched) = to.try_tree(&graph, Offer::default()).await;
    let status = tree.unwrap_err();
    assert_status(&status, Code::Unknown, "exit code: 42");
    let vertex = &watched.vertexes[&graph.digest()];
    assert!(vertex.error.contains("exit code: 42"), "{vertex:?}");
    if to.is_kiln() {
        let details = String::from_utf8_lossy(status.details());
        assert!(details.contains(&graph.digest()), "the vertex is named: {details}");
        assert!(details.contains("ExitMessage+json") && details.contains("42"), "{details}");
    }
}

async fn programs_may_fail(to: &Target) {
    let exec = to.base().run("echo failed > /out; exit 3");
    let exec = exec.meta(|meta| meta.valid_exit_codes = vec![3]);
    assert_eq!(output(to, exec, Offer::default()).await, text("failed\n"));
}

async fn programs_that_are_missing(to: &Target) {
    let exec = to.base().run("").meta(|meta| meta.args = vec!["/missing".to_owned()]);
    let status = to.failure(&exec.root(), Offer::default()).await;
    assert!(status.message().contains("/missing"), "{status:?}");
    assert!(status.message().contains("no such file or directory"), "{status:?}");
}

async fn programs_know_hosts(to: &Target) -> Tree {
    let exec = to.base().run("grep my-host /etc/hosts > /out; hostname >> /out");
    let exec = exec.meta(|meta| {
        meta.extra_hosts = vec![HostIp { host: "my-host".to_owned(), ip: "10.1.2.3".to_owned() }];
        "its-name".clone_into(&mut meta.hostname);
    });
    let tree = output(to, exec, Offer::default()).await;
    assert_eq!(tree, text("10.1.2.3\tmy-host\nits-name\n"));
    tree
}

async fn programs_have_limits(to: &Target) {
    let exec = to.base().run("ulimit -n > /out").meta(|meta| {
        meta.ulimit = vec![Ulimit { name: "nofile".to_owned(), soft: 321, hard: 321 }];
    });
    assert_eq!(output(to, exec, Offer::default()).await, text("321\n"));
}

async fn programs_have_a_network_of_their_own(to: &Target) -> Tree {
    let exec = to.base().run("ls /sys/class/net > /out");
    let tree = output(to, exec, Offer::default()).await;
    assert_eq!(tree, text("lo\n"));
    tree
}

async fn programs_may_be_privileged(to: &Target) {
    let exec = to.base().run("grep CapEff /proc/self/status > /out");
    let exec = exec.with(|op| op.security = SecurityMode::Insecure.into());
    let graph = exec.root();
    let client = to.client(Offer::default()).await;
    let status = client.solve(solving(&graph)).await.0.unwrap_err();
    assert!(status.message().contains("security.insecure"), "{status:?}");
    let entitlements = vec!["security.insecure".to_owned()];
    let request = SolveRequest { entitlements, ..solving(&graph) };
    client.solve(request).await.0.unwrap();
}

async fn roots_may_be_read_only(to: &Target) -> Tree {
    let mut exec = to.base().run("echo x > /forbidden 2>/dev/null || echo refused > /w/out");
    exec = exec.with(|op| {
        op.mounts[0].readonly = true;
        op.mounts[0].output = -1;
    });
    let graph = exec.bind(&Graph::scratch().mkdir("/empty", false), "/w", |mount| mount.output = 0);
    let graph = graph.with(|op| op.mounts[1].output = 0).root();
    let tree = to.tree(&graph, Offer::default()).await;
    assert_eq!(tree["out"], "file 644 0:0 refused\n");
    tree
}

fn data() -> Graph {
    Graph::scratch().mkdir("/sub", false).mkfile("/sub/file", "data")
}

async fn mounts_of_file_systems(to: &Target) -> Tree {
    let exec =
        to.base().run("cat /m/sub/file > /out; touch /m/new 2>/dev/null || echo ' ro' >> /out");
    let exec = exec.bind(&data(), "/m", |mount| mount.readonly = true);
    let tree = output(to, exec, Offer::default()).await;
    assert_eq!(tree, text("data ro\n"));
    tree
}

async fn mounts_of_parts_of_file_systems(to: &Target) -> Tree {
    let exec = to.base().run("cat /m/file > /out");
    let exec = exec.bind(&data(), "/m", |mount| {
        mount.readonly = true;
        "/sub".clone_into(&mut mount.selector);
    });
    let tree = output(to, exec, Offer::default()).await;
    assert_eq!(tree, text("data"));
    tree
}

async fn mounts_with_outputs(to: &Target) -> Tree {
    let exec = to.base().run("echo added > /m/added; rm /m/sub/file");
    let tree = to.tree(&exec.bind(&data(), "/m", |_| {}).root().output(1), Offer::default()).await;
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["added", "sub"]);
    tree
}

async fn mounts_of_caches(to: &Target) -> Tree {
    let id = unique("cache");
    let count = |round: usize| {
        let script = format!("echo {round} >> /c/list; cp /c/list /out");
        to.base().run(&script).cache(&id, CacheSharingOpt::Shared, "/c")
    };
    output(to, count(1), Offer::default()).await;
    let tree = output(to, count(2), Offer::default()).await;
    assert_eq!(tree, text("1\n2\n"));
    tree
}

async fn mounts_of_private_caches(to: &Target) -> Vec<Tree> {
    let id = unique("cache");
    let step = |name: &str| {
        let script = format!("sleep 0.5; echo {name} >> /c/list; cp /c/list /out");
        to.base().run(&script).cache(&id, CacheSharingOpt::Private, "/c")
    };
    let both = tokio::join!(
        output(to, step("same"), Offer::default()),
        output(to, step("same").meta(|meta| meta.env.push("X=1".into())), Offer::default())
    );
    assert_eq!(both.0, text("same\n"));
    vec![both.0, both.1]
}

async fn mounts_of_memory(to: &Target) -> Tree {
    let exec = to.base().run("touch /t/x; grep ' /t ' /proc/mounts | cut -d' ' -f3 > /out");
    let exec = exec.mount(MountType::Tmpfs, "/t", |mount| {
        mount.tmpfs_opt = Some(TmpfsOpt { size: 1 << 20 });
    });
    let tree = output(to, exec, Offer::default()).await;
    assert_eq!(tree, text("tmpfs\n"));
    tree
}

async fn mounts_of_secrets(to: &Target) -> Tree {
    let exec = to.base().run("stat -c '%a %u' /s > /out; cat /s >> /out").secret("id", "/s", false);
    let offer = Offer::default().secret("id", &format!("secret of {}", "client"));
    let tree = output(to, exec, offer).await;
    assert_eq!(tree, text("400 0\nsecret of client"));
    tree
}

async fn mounts_of_secrets_that_are_missing(to: &Target) {
    let graph = to.base().run("cat /s").secret("missing", "/s", false).root();
    let status = to.failure(&graph, Offer::default()).await;
    assert!(status.message().contains("not found"), "{status:?}");
}

async fn mounts_of_optional_secrets(to: &Target) -> Tree {
    let exec = to.base().run("ls /s > /out 2>&1 || echo none > /out").secret("missing", "/s", true);
    let tree = output(to, exec, Offer::default()).await;
    assert_eq!(tree, text("none\n"));
    tree
}

async fn secrets_in_the_environment(to: &Target) {
    let exec = to.base().run("echo $S > /out").with(|op| {
        let (id, name) = ("id".to_owned(), "S".to_owned());
        op.secretenv = vec![SecretEnv { id, name, optional: false }];
    });
    let tree = output(to, exec, Offer::default().secret("id", "value")).await;
    assert_eq!(tree, text("value\n"));
}

async fn mounts_of_agents(to: &Target) -> Tree {
    let script = "test -S /agent && echo socket > /out; stat -c %a /agent >> /out";
    let exec = to.base().run(script).ssh("mine", "/agent", false);
    let agents = vec!["mine".to_owned()];
    let tree = output(to, exec, Offer { agents, ..Offer::default() }).await;
    assert_eq!(tree, text("socket\n600\n"));
    tree
}

async fn mounts_of_agents_that_are_missing(to: &Target) {
    let graph = to.base().run("true").ssh("other", "/agent", false).root();
    let status = to.failure(&graph, Offer::default()).await;
    assert!(status.message().contains("unset ssh forward key other"), "{status:?}");
}

async fn steps_are_cached(to: &Target) -> Vec<bool> {
    let graph = to.base().run(&format!("echo {}", unique("cached"))).root();
    let mut cached = Vec::new();
    for _ in 0..2 {
        let (tree, watched) = to.try_tree(&graph, Offer::default()).await;
        tree.unwrap();
        cached.push(watched.vertexes[&graph.digest()].cached);
    }
    assert_eq!(cached, [false, true]);
    cached
}

async fn steps_without_cache_run_again(to: &Target) {
    let graph = to.base().run("cat /proc/sys/kernel/random/uuid > /out").root().uncached();
    let graph = Graph::scratch().copy(&graph, "/out", "/");
    let first = to.tree(&graph, Offer::default()).await;
    assert_ne!(to.tree(&graph, Offer::default()).await, first);
}
