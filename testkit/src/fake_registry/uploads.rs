//! Uploads of blobs and their monolithic or chunked bodies.

use kiln_oci::Digest;

use super::State;
use crate::http::{Answer, Request};

impl State {
    /// Begins an upload, or mounts a blob from another repository.
    pub(super) fn begin_upload(&mut self, repository: &str, query: &str) -> Answer {
        let field = |name: &str| {
            let found = query.split('&').find_map(|pair| pair.strip_prefix(name));
            found.map(|value| value.replace("%3A", ":").replace("%2F", "/"))
        };
        if let (Some(digest), Some(from)) = (field("mount="), field("from="))
            && !self.switches.no_mounts
            && self.has(&from, &digest)
        {
            self.holders.insert((repository.to_owned(), digest));
            return Answer::new(201, "");
        }
        self.next_upload += 1;
        let id = self.next_upload.to_string();
        self.uploads.insert(id.clone(), Vec::new());
        Answer::new(202, "").with("Location", location(repository, &id))
    }

    /// Handles a request for an upload that has begun.
    pub(super) fn continue_upload(
        &mut self,
        repository: &str,
        id: &str,
        query: &str,
        request: &Request,
    ) -> Option<Answer> {
        if self.switches.max_body.is_some_and(|most| request.body.len() > most) {
            return Some(Answer::new(413, "<html>"));
        }
        let Some(arrived) = self.uploads.get_mut(id) else {
            return Some(Answer::complaint(404, "upload unknown"));
        };
        if request.method == "PATCH"
            && let Some(range) = request.headers.get("content-range")
            && !range.starts_with(&format!("{}-", arrived.len()))
        {
            return Some(Answer::complaint(416, "wrong range"));
        }
        arrived.extend_from_slice(&request.body);
        if self.switches.keeps_little && request.method == "PATCH" {
            arrived.truncate(arrived.len() - request.body.len().saturating_sub(10));
        }
        let arrived = arrived.clone();
        if request.was_cut {
            if self.switches.forgets_uploads {
                self.uploads.remove(id);
            }
            return None;
        }
        if self.switches.keeps_nothing && request.method == "PATCH" {
            self.uploads.insert(id.to_owned(), Vec::new());
            let at = location(repository, id);
            return Some(Answer::new(202, "").with("Location", at).with("Range", "0-0"));
        }
        let range = format!("0-{}", arrived.len().saturating_sub(1));
        let at = location(repository, id);
        Some(match request.method.as_str() {
            "PATCH" => Answer::new(202, "").with("Location", at).with("Range", range),
            "GET" => Answer::new(204, "").with("Location", at).with("Range", range),
            "DELETE" => {
                self.uploads.remove(id);
                Answer::new(204, "")
            }
            "PUT" => self.end_upload(repository, id, query),
            _ => Answer::complaint(405, "no such method"),
        })
    }

    fn end_upload(&mut self, repository: &str, id: &str, query: &str) -> Answer {
        let arrived = self.uploads.remove(id).unwrap_or_default();
        let digest = Digest::of(&arrived).to_string();
        let announced = query.split('&').find_map(|pair| pair.strip_prefix("digest="));
        let announced = announced.unwrap_or_default().replace("%3A", ":");
        if announced != digest {
            return Answer::complaint(400, "provided digest did not match uploaded content");
        }
        self.holders.insert((repository.to_owned(), digest.clone()));
        self.blobs.insert(digest.clone(), arrived);
        let wrong = self.switches.wrong_announcement.then(|| Digest::of(b"another").to_string());
        Answer::new(201, "").with("Docker-Content-Digest", wrong.unwrap_or(digest))
    }

    pub(super) fn receive_manifest(
        &mut self,
        repository: &str,
        tag: &str,
        request: &Request,
    ) -> Answer {
        let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
        let digest = Digest::of(&request.body).to_string();
        for name in [tag.to_owned(), digest.clone()] {
            let document = (media_type.clone(), request.body.clone());
            self.manifests.insert((repository.to_owned(), name), document);
        }
        Answer::new(201, "").with("Docker-Content-Digest", digest)
    }
}

fn location(repository: &str, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?x=y")
}
