//! A `buildkitd.toml`.
//!
//! Each key with a meaning is taken out of the document. Keys that stay are named in warnings, by
//! their whole paths. BuildKit ignores unknown keys, so they are no errors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use kiln::Dns;
use kiln::build::StepNetwork;
use kiln_oci::Platform;
use kiln_server::{Frontends, GcPolicy};
use kiln_store::Snapshotter;
use kiln_worker::CdiOptions;

use super::keys::{Keys, positive};
use super::log::LogChoice;

/// The part of a `buildkitd.toml` that has a meaning here.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) root: Option<PathBuf>,
    pub(super) log: LogChoice,
    pub(super) addresses: Vec<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) authority: Option<PathBuf>,
    pub(super) entitlements: Vec<String>,
    /// The directory of members for the provenance of images.
    pub(super) environment: Option<PathBuf>,
    /// The part about registries, as a document of its own.
    pub(super) registries: Option<String>,
    /// The most transfers from and to a registry at once.
    pub(super) transfers: Option<usize>,
    pub(super) labels: BTreeMap<String, String>,
    /// The platforms to announce. Empty for those that the machine runs.
    pub(super) platforms: Vec<Platform>,
    pub(super) snapshotter: Option<Snapshotter>,
    /// The network of steps.
    pub(super) network: StepNetwork,
    pub(super) has_gc: Option<bool>,
    /// The limits of the default rules.
    pub(super) limits: GcPolicy,
    pub(super) rules: Vec<GcPolicy>,
    pub(super) parallelism: Option<usize>,
    pub(super) builds: Option<usize>,
    pub(super) dns: Dns,
    pub(super) cdi: CdiOptions,
    pub(super) frontends: Frontends,
    pub(super) history_age: Option<Duration>,
    pub(super) history_entries: Option<usize>,
    pub(super) warnings: Vec<String>,
}

impl Document {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut keys = Keys(text.parse()?);
        let limits = keys.limits(&["worker", "oci"])?;
        let (snapshotter, is_rootless) = (keys.snapshotter()?, keys.rootless()?);
        let document = Self {
            root: keys.text(&["root"])?.map(PathBuf::from),
            log: keys.log()?,
            addresses: keys.texts(&["grpc", "address"])?,
            uid: keys.number(&["grpc", "uid"])?,
            gid: keys.number(&["grpc", "gid"])?,
            certificate: keys.text(&["grpc", "tls", "cert"])?.map(PathBuf::from),
            key: keys.text(&["grpc", "tls", "key"])?.map(PathBuf::from),
            authority: keys.text(&["grpc", "tls", "ca"])?.map(PathBuf::from),
            entitlements: keys.texts(&["insecure-entitlements"])?,
            environment: keys.text(&["provenanceEnvDir"])?.map(PathBuf::from),
            registries: keys.part("registry"),
            transfers: keys.transfers()?,
            labels: keys.labels(&["worker", "oci", "labels"])?,
            platforms: keys.platforms()?,
            snapshotter,
            network: keys.network()?,
            has_gc: keys.flag(&["worker", "oci", "gc"])?,
            limits,
            rules: keys.rules(&["worker", "oci", "gcpolicy"])?,
            parallelism: positive(keys.number(&["worker", "oci", "max-parallelism"])?),
            builds: positive(keys.number(&["kiln", "max-builds"])?),
            dns: Dns {
                servers: keys.texts(&["dns", "nameservers"])?,
                options: keys.texts(&["dns", "options"])?,
                domains: keys.texts(&["dns", "searchDomains"])?,
            },
            cdi: keys.devices()?,
            frontends: keys.frontends()?,
            history_age: keys.duration(&["history", "maxAge"])?,
            history_entries: positive(keys.number(&["history", "maxEntries"])?),
            warnings: Vec::new(),
        };
        if is_rootless && rustix::process::geteuid().is_root() {
            keys.put_back(&["worker", "oci", "rootless"], true);
        }
        // kiln looks for emulators whenever it is asked, so no age is too high.
        keys.duration(&["system", "platformsCacheMaxAge"])?;
        Ok(Self { warnings: keys.warnings(), ..document })
    }
}

#[cfg(test)]
mod tests {
    use kiln_server::Space;
    use toml::Table;

    use super::*;

    #[test]
    fn buildkits_configuration_is_read() {
        let document = Document::parse(
            "root = \"/r\"\ndebug = true\ninsecure-entitlements = [\"security.insecure\"]\n\
             [grpc]\naddress = [\"unix:///a\"]\nuid = 1\ngid = 2\n[grpc.tls]\ncert = \"/c\"\n\
             [registry.\"docker.io\"]\nmirrors = [\"m:5000\"]\n\
             [worker.oci]\nenabled = true\nmax-parallelism = 4\nreservedSpace = \"10%\"\n\
             maxUsedSpace = \"5GB\"\n[worker.oci.labels]\na = \"b\"\n\
             [[worker.oci.gcpolicy]]\nfilters = [\"type==regular\"]\nkeepDuration = \"48h\"\n\
             keepBytes = 512\n[dns]\nnameservers = [\"1.1.1.1\"]\n\
             [history]\nmaxAge = 172800\nmaxEntries = 7\n",
        );
        let document = document.unwrap();
        assert_eq!(document.warnings, Vec::<String>::new());
        assert_eq!(document.entitlements, ["security.insecure"]);
        assert_eq!(document.addresses, ["unix:///a"]);
        assert_eq!(document.log.filter.as_deref(), Some("kiln=debug"));
        let registries: Table = document.registries.unwrap().parse().unwrap();
        assert_eq!(registries["registry"]["docker.io"]["mirrors"][0].as_str(), Some("m:5000"));
        assert_eq!((document.uid, document.gid, document.parallelism), (Some(1), Some(2), Some(4)));
        assert_eq!(document.limits.reserved, Some(Space::Percent(10)));
        assert_eq!(document.limits.max_used, Some(Space::Bytes(5 << 30)));
        assert_eq!(document.rules[0].keep, Duration::from_hours(48));
        assert_eq!(document.rules[0].reserved, Some(Space::Bytes(512)));
        assert_eq!(document.history_age, Some(Duration::from_hours(48)));
        assert_eq!(document.history_entries, Some(7));
        assert_eq!(document.dns.servers, ["1.1.1.1"]);
    }

    #[test]
    fn devices_and_frontends_are_restricted() {
        let read = |text: &str| Document::parse(text).unwrap();
        assert_eq!(read("").cdi, CdiOptions::default());
        let some = read("[cdi]\nspecDirs = [\"/a\"]\nautoAllowed = [\"b.com/c\"]").cdi;
        assert_eq!(some.directories, [PathBuf::from("/a")]);
        assert_eq!(some.auto_allowed, ["b.com/c"]);
        assert!(read("[cdi]\ndisabled = true").cdi.directories.is_empty());
        let frontends = read(
            "[frontend.\"dockerfile.v0\"]\nenabled = false\n\
             [frontend.\"gateway.v0\"]\nenabled = true\nallowedRepositories = [\"docker.io/a/b\"]",
        )
        .frontends;
        assert_eq!(frontends.disabled, ["dockerfile.v0"]);
        assert_eq!(frontends.repositories.len(), 1);
        for text in ["[cdi]\nspecDirs = 1", "[frontend.\"gateway.v0\"]\nenabled = 1"] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_without_a_meaning_are_named_by_their_paths() {
        let document = Document::parse(
            "proxyNetwork = true\n[grpc]\ndebugAddress = \"x\"\n[worker.containerd]\nenabled = false\n\
             namespace = \"n\"\n[[worker.oci.gcpolicy]]\ncolour = 1\n\
             [frontend.\"gateway.v0\"]\ncolour = 1\n",
        );
        let named = document.unwrap().warnings.into_iter();
        let named: Vec<_> = named.map(|text| text.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(
            named,
            [
                "frontend.\"gateway.v0\".colour",
                "grpc.debugAddress",
                "proxyNetwork",
                "worker.containerd.namespace",
                "worker.oci.gcpolicy.colour",
            ]
        );
        for text in ["insecure-entitlements = 1", "[worker.oci]\nreservedSpace = \"x%\"", "root"] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_machine_is_configured() {
        let read = |text: &str| Document::parse(text);
        let document = read(
            "provenanceEnvDir = \"/e\"\n[worker.oci]\nplatforms = [\"linux/s390x\"]\n\
             networkMode = \"none\"\nsnapshotter = \"native\"\nrootless = false\n\
             [system]\nplatformsCacheMaxAge = \"1h\"\nmaxRegistryConcurrency = 4\n",
        );
        let document = document.unwrap();
        assert_eq!(document.warnings, Vec::<String>::new());
        assert_eq!(document.environment, Some(PathBuf::from("/e")));
        assert_eq!(document.platforms, ["linux/s390x".parse::<Platform>().unwrap()]);
        assert_eq!(document.network, StepNetwork::None);
        assert_eq!(document.snapshotter, Some(Snapshotter::Copy));
        assert_eq!(document.transfers, Some(4));
        for (mode, network) in [
            ("auto", StepNetwork::Default),
            ("bridge", StepNetwork::Default),
            ("host", StepNetwork::Host),
        ] {
            let document = read(&format!("[worker.oci]\nnetworkMode = \"{mode}\"")).unwrap();
            assert_eq!((document.network, document.warnings.len()), (network, 0), "{mode}");
        }
        for text in [
            "worker.oci.networkMode = \"x\"",
            "worker.oci.platforms = [\"a/b/c/d\"]",
            "system.maxRegistryConcurrency = 0",
            "system.platformsCacheMaxAge = \"soon\"",
            "log.format = \"xml\"",
            "log.level = \"loud\"",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn zero_values_change_nothing_and_others_have_reasons() {
        let document = Document::parse(
            "proxyNetwork = false\n[otel]\nsocketPath = \"\"\n[worker.oci]\nbinary = \"\"\n\
             cniPoolSize = 0\nnoProcessSandbox = false\nselinux = false\n[ghacache.sign]\ncmd = \"\"\n",
        );
        assert_eq!(document.unwrap().warnings, Vec::<String>::new());
        let document = Document::parse(
            "[otel]\nsocketPath = \"/s\"\n[worker.oci]\nenabled = false\nnetworkMode = \"cni\"\n\
             cniPoolSize = 16\napparmor-profile = \"p\"\nsnapshotter = \"zfs\"\n",
        );
        let warnings = document.unwrap().warnings;
        let named: Vec<_> = warnings.iter().map(|text| text.split(' ').next().unwrap()).collect();
        assert_eq!(
            named,
            [
                "otel.socketPath",
                "worker.oci.apparmor-profile",
                "worker.oci.cniPoolSize",
                "worker.oci.enabled",
                "worker.oci.networkMode",
                "worker.oci.snapshotter",
            ]
        );
        assert!(warnings[0].ends_with(": kiln gives steps no collector of traces"), "{warnings:?}");
    }
}
