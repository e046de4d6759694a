//! The keys of a `buildkitd.toml` about the machine: platforms, networks, snapshots and transfers.

use anyhow::{Context, Result, bail, ensure};
use kiln::build::StepNetwork;
use kiln_oci::Platform;
use kiln_store::Snapshotter;

use super::keys::{Keys, positive};

impl Keys {
    /// Takes the platforms that the worker announces.
    pub(super) fn platforms(&mut self) -> Result<Vec<Platform>> {
        let names = self.texts(&["worker", "oci", "platforms"])?;
        let platform =
            |name: &String| name.parse().with_context(|| format!("worker.oci.platforms: {name:?}"));
        names.iter().map(platform).collect()
    }

    /// Takes the network of steps. The key stays if kiln has no such network.
    pub(super) fn network(&mut self) -> Result<StepNetwork> {
        let path = ["worker", "oci", "networkMode"];
        let mode = self.text(&path)?;
        Ok(match mode.as_deref() {
            None | Some("auto" | "bridge") => StepNetwork::Default,
            Some("host") => StepNetwork::Host,
            Some("none") => StepNetwork::None,
            Some(mode @ "cni") => {
                self.put_back(&path, mode);
                StepNetwork::Default
            }
            Some(other) => bail!("worker.oci.networkMode: there is no network {other:?}"),
        })
    }

    /// Takes the name of the snapshotter. The key stays if kiln has no such one.
    pub(super) fn snapshotter(&mut self) -> Result<Option<Snapshotter>> {
        let path = ["worker", "oci", "snapshotter"];
        let name = self.text(&path)?;
        Ok(match name.as_deref() {
            None | Some("auto") => None,
            Some("overlayfs") => Some(Snapshotter::Overlay),
            Some("native") => Some(Snapshotter::Copy),
            Some(other) => {
                self.put_back(&path, other);
                None
            }
        })
    }

    /// Takes the flag about kiln's user.
    pub(super) fn rootless(&mut self) -> Result<bool> {
        Ok(self.flag(&["worker", "oci", "rootless"])?.unwrap_or_default())
    }

    /// Takes the most transfers from and to a registry at once.
    pub(super) fn transfers(&mut self) -> Result<Option<usize>> {
        let number = self.number(&["system", "maxRegistryConcurrency"])?;
        ensure!(number != Some(0), "system.maxRegistryConcurrency must be greater than zero");
        Ok(positive(number))
    }
}
