//! `Exporter`: the client's outputs that depend on the result of its build.

use std::collections::{BTreeMap, HashMap};

use prost::Message;
use tonic::metadata::MetadataMap;

use super::Session;
use super::error::{Error, Result};

const FIND: &str = "/moby.exporter.v1.Exporter/FindExporters";
const FINALIZE: &str = "/moby.exporter.v1.Exporter/FinalizeExport";

#[derive(Clone, PartialEq, Message)]
struct FindRequest {
    #[prost(map = "string, bytes", tag = "1")]
    metadata: HashMap<String, Vec<u8>>,
    #[prost(string, repeated, tag = "2")]
    references: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct FindResponse {
    #[prost(message, repeated, tag = "1")]
    exporters: Vec<Found>,
}

#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(map = "string, string", tag = "2")]
    attributes: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct FinalizeRequest {
    #[prost(btree_map = "string, string", tag = "1")]
    answer: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

impl Session {
    /// Asks the client for the outputs of a result: their types and attributes. `references` are the
    /// IDs of the result's references.
    ///
    /// # Errors
    /// Fails if the client does, and with the code of a client that doesn't offer the method.
    pub async fn find_exporters(
        &self,
        metadata: &HashMap<String, Vec<u8>>,
        references: Vec<String>,
    ) -> Result<Vec<(String, HashMap<String, String>)>> {
        let request = FindRequest { metadata: metadata.clone(), references };
        let call = async {
            let answer = self.unary::<_, FindResponse>(FIND, MetadataMap::new(), request).await;
            answer.map_err(|status| Error::call("find exporters", status))
        };
        let answer = self.unless_closed(call).await?;
        Ok(answer.exporters.into_iter().map(|found| (found.kind, found.attributes)).collect())
    }

    /// Sends the keys and values of its exports to the client.
    ///
    /// # Errors
    /// Fails if the client does, and with the code of a client that doesn't offer the method.
    pub async fn finalize_export(&self, answer: &BTreeMap<String, String>) -> Result<()> {
        let request = FinalizeRequest { answer: answer.clone() };
        let call = async {
            let answer = self.unary::<_, Empty>(FINALIZE, MetadataMap::new(), request).await;
            answer.map_err(|status| Error::call("finalize the export", status))
        };
        self.unless_closed(call).await.map(drop)
    }
}
