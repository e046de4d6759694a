//! Certificates of servers, judged.
//!
//! webpki judges them. One kind it refuses that docker, podman and containerd trust: a server's own
//! certificate that is given as an authority, as Docker's manual makes one for a registry with
//! `openssl req -x509`. It has signed itself, its extensions make it an authority (`CA:TRUE`), and
//! webpki takes no authority for a server.
//!
//! Such a certificate is trusted for what it is, and no other with it: it has to be one of those
//! given, byte for byte, and nothing may be wrong with it but who has signed it. Its dates are judged
//! by webpki before that, its names here, and that the server holds its key is proved by the signature
//! of the handshake. What it may be used for (the extended key usage) isn't looked at: whoever gave
//! this very certificate for this very host has said so.
//!
//! The certificates of the system are among those given. Whoever holds the key of one of them can
//! sign for any name anyway.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::Problem;

/// A verifier that trusts what authorities have signed, and the given certificates themselves.
#[derive(Debug)]
pub(crate) struct AcceptGivenOrSigned {
    given: Vec<CertificateDer<'static>>,
    signed: Arc<WebPkiServerVerifier>,
}

impl AcceptGivenOrSigned {
    /// Returns a verifier that trusts `given`, and what `roots` have signed.
    pub(crate) fn new(
        given: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Problem> {
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let signed = signed.build().map_err(|error| Problem::Tls(error.to_string()))?;
        Ok(Self { given, signed })
    }
}

/// Tells whether this is wrong with a certificate: who has signed it, or that it is one of an authority.
/// webpki looks at dates before it looks for either.
fn is_about_signer(problem: &CertificateError) -> bool {
    match problem {
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => true,
        problem => is_of_authority(problem),
    }
}

/// Tells whether a server was refused because its certificate is one of an authority.
pub(crate) fn is_of_authority(problem: &CertificateError) -> bool {
    matches!(webpki_error(problem), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Returns the error of webpki for which rustls has no word of its own.
pub(crate) fn webpki_error(problem: &CertificateError) -> Option<&webpki::Error> {
    let CertificateError::Other(other) = problem else { return None };
    other.0.downcast_ref()
}

impl ServerCertVerifier for AcceptGivenOrSigned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = self.signed.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match judged {
            Err(rustls::Error::InvalidCertificate(problem))
                if is_about_signer(&problem) && self.given.iter().any(|it| it == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// A verifier that trusts any certificate, for users who have said so.
#[derive(Debug)]
pub(crate) struct AcceptAnyCertificate(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiln_testkit::certificate::{Certificate, CertificateOptions};
    use kiln_testkit::needs::{Need, skip};

    use super::*;

    const TODAY: u64 = 1_790_000_000;

    /// Judges a server's certificate where `given` were given, at a time, under a name.
    fn judge(given: &[&Certificate], shown: &Certificate, now: u64, name: &str) -> String {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let given: Vec<_> = given.iter().map(|it| it.der()).collect();
        for certificate in &given {
            roots.add(certificate.clone()).unwrap();
        }
        let verifier = AcceptGivenOrSigned::new(given, roots, provider).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        match verifier.verify_server_cert(&shown.der(), &[], &name, &[], now) {
            Ok(_) => "trusted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn given_certificates_are_trusted_and_no_others() {
        if skip("given_certificates_are_trusted_and_no_others", &[Need::Program("openssl")]) {
            return;
        }
        let make = |constraints| {
            let options = CertificateOptions { constraints, ..CertificateOptions::default() };
            Certificate::self_signed(options)
        };
        let here = "127.0.0.1";
        let authority = make("CA:TRUE");
        for constraints in ["CA:TRUE", "CA:TRUE,pathlen:0", "CA:FALSE", ""] {
            let certificate = make(constraints);
            assert_eq!(
                judge(&[&certificate], &certificate, TODAY, here),
                "trusted",
                "{constraints}"
            );
            let both = [&authority, &certificate];
            assert_eq!(judge(&both, &certificate, TODAY, here), "trusted", "{constraints}");
            // One that says the same of itself, with another key.
            let other = judge(&[&make(constraints)], &certificate, TODAY, here);
            assert_ne!(other, "trusted", "{constraints}");
            // Its dates and its names count all the same.
            let late = judge(&[&certificate], &certificate, TODAY + 3_000_000_000, here);
            assert!(late.contains("expired"), "{constraints}: {late}");
            let early = judge(&[&certificate], &certificate, 1_500_000_000, here);
            assert!(early.contains("not valid yet"), "{constraints}: {early}");
            for name in ["127.0.0.2", "example.com"] {
                let named = judge(&[&certificate], &certificate, TODAY, name);
                assert!(named.contains("not valid for name"), "{constraints}: {named}");
            }
        }
        let options =
            CertificateOptions { constraints: "CA:FALSE", ..CertificateOptions::default() };
        let signed = Certificate::signed_by(&authority, options);
        assert_eq!(judge(&[&authority], &signed, TODAY, here), "trusted");
        // What another has signed is trusted by itself, without the other.
        assert_eq!(judge(&[&signed], &signed, TODAY, here), "trusted");
        assert_ne!(judge(&[&signed], &authority, TODAY, here), "trusted");
        // An authority isn't a server, unless it was given itself.
        let below = Certificate::signed_by(&authority, CertificateOptions::default());
        assert_ne!(judge(&[&authority], &below, TODAY, here), "trusted");
        assert_eq!(judge(&[&authority, &below], &below, TODAY, here), "trusted");
    }
}
