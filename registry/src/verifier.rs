//! The verification of server certificates.
//!
//! webpki verifies certificates. It rejects one kind that docker, podman and containerd accept: a
//! server's own certificate that is configured as a CA. Docker's manual creates such certificates
//! for registries with `openssl req -x509`. They are self-signed, and their extensions make them a
//! CA (`CA:TRUE`). webpki doesn't accept a CA certificate as a server's.
//!
//! This module accepts such a certificate, and no others through it. It must equal a configured
//! certificate byte for byte, and its signer must be its only flaw. webpki checks its dates first,
//! this module checks its names, and the signature of the handshake proves that the server has its
//! key. The extended key usage isn't checked: the user has configured this very certificate for
//! this very host.
//!
//! The system's certificates count as configured ones. The owner of one of their keys can sign
//! certificates for any name anyway.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::Problem;

/// A verifier that accepts the configured certificates and those that authorities have signed.
#[derive(Debug)]
pub(crate) struct AcceptGivenOrSigned {
    given: Vec<CertificateDer<'static>>,
    signed: Arc<WebPkiServerVerifier>,
}

impl AcceptGivenOrSigned {
    /// Creates a verifier that accepts `given` and the certificates that `roots` have signed.
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

/// Returns `true` if the problem is the certificate's signer, or that the certificate is a CA.
/// webpki checks the dates before either.
fn is_about_signer(problem: &CertificateError) -> bool {
    match problem {
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => true,
        problem => is_of_authority(problem),
    }
}

/// Returns `true` if a server was rejected because its certificate is a CA.
pub(crate) fn is_of_authority(problem: &CertificateError) -> bool {
    matches!(webpki_error(problem), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Returns the webpki error that rustls wraps as [`CertificateError::Other`].
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

/// A verifier that accepts any certificate, for hosts that are configured as insecure.
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

    /// Returns the verdict on a server's certificate with the configured certificates `given`, at a
    /// time and for a name.
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
            // A similar certificate with another key.
            let other = judge(&[&make(constraints)], &certificate, TODAY, here);
            assert_ne!(other, "trusted", "{constraints}");
            // Dates and names count nevertheless.
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
        // A configured certificate that a CA has signed is accepted without that CA.
        assert_eq!(judge(&[&signed], &signed, TODAY, here), "trusted");
        assert_ne!(judge(&[&signed], &authority, TODAY, here), "trusted");
        // A CA is no server unless its certificate is configured itself.
        let below = Certificate::signed_by(&authority, CertificateOptions::default());
        assert_ne!(judge(&[&authority], &below, TODAY, here), "trusted");
        assert_eq!(judge(&[&authority, &below], &below, TODAY, here), "trusted");
    }
}
