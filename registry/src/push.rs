//! Uploads: blobs in one piece, then the manifest that names them.

use bytes::Bytes;
use kiln_oci::{Digest, Reference};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::client::Client;
use crate::error::{Error, Problem};
use crate::repository::Repository;
use crate::transport::{Access, Call, Target, redirect_target};

impl Client {
    /// Tells whether a repository has a blob.
    pub async fn has_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let call = push_call(repository, Method::HEAD, Target::Path(&path));
        match self.transport.send(&call).await {
            Ok(_) => Ok(true),
            Err(Problem::NotFound) => Ok(false),
            Err(problem) => Err(problem.of(&format!("{repository}@{digest}"))),
        }
    }

    /// Uploads a blob unless the repository has it, and returns its digest.
    pub async fn push_blob(&self, repository: &Repository, bytes: Bytes) -> Result<Digest, Error> {
        let digest = Digest::of(&bytes);
        if self.has_blob(repository, &digest).await? {
            return Ok(digest);
        }
        let upload = self.upload(repository, &digest, bytes).await;
        upload.map_err(|problem| problem.of(&format!("{repository}@{digest}")))?;
        Ok(digest)
    }

    async fn upload(
        &self,
        repository: &Repository,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), Problem> {
        let mut begin = push_call(repository, Method::POST, Target::Path("blobs/uploads/"));
        begin.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let mut url = redirect_target(&self.transport.send(&begin).await?)?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut put = push_call(repository, Method::PUT, Target::Url(url));
        put.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        put.body = Some(bytes);
        self.transport.send(&put).await.map(|_| ())
    }

    /// Uploads a manifest or index under the reference's tag, or its digest where it has no tag.
    /// Everything that it names has to be there already.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, Error> {
        let repository = Repository::from(reference);
        let digest = Digest::of(&bytes);
        if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
            return Err(Problem::Digest { expected, actual: digest }.of(reference));
        }
        let tag = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let path = format!("manifests/{tag}");
        let mut call = push_call(&repository, Method::PUT, Target::Path(&path));
        let media_type = HeaderValue::from_str(media_type).map_err(|_| {
            Problem::Document(format!("{media_type:?} is no media type")).of(reference)
        })?;
        call.headers.insert(CONTENT_TYPE, media_type);
        call.body = Some(bytes);
        self.transport.send(&call).await.map_err(|problem| problem.of(reference))?;
        Ok(digest)
    }
}

fn push_call<'a>(repository: &'a Repository, method: Method, target: Target<'a>) -> Call<'a> {
    let headers = HeaderMap::new();
    Call { repository, access: Access::Push, method, target, headers, body: None }
}
