//! Certificates of servers, created with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The options of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct CertificateOptions<'a> {
    /// The subject's alternative names, as `IP:127.0.0.1,DNS:localhost`; empty for none.
    pub names: &'a str,
    /// The value of `basicConstraints`, as `CA:TRUE`; empty for none.
    pub constraints: &'a str,
    /// The first and the last year of its validity.
    pub years: (u16, u16),
}

impl Default for CertificateOptions<'_> {
    fn default() -> Self {
        Self { names: "IP:127.0.0.1,DNS:localhost", constraints: "CA:TRUE", years: (2020, 2099) }
    }
}

/// A certificate with its key. Dropping it removes their files.
#[derive(Debug)]
pub struct Certificate {
    directory: tempfile::TempDir,
}

impl Certificate {
    /// Creates a certificate for a registry as in Docker's manual, for the given names
    /// (`IP:127.0.0.1`).
    ///
    /// # Panics
    /// Panics if openssl fails.
    pub fn of_manual(names: &str) -> Self {
        let this = Self::empty();
        let names = format!("subjectAltName = {names}");
        let command = "req -newkey rsa:2048 -nodes -sha256 -keyout domain.key -subj /CN=registry \
                       -x509 -days 365 -out domain.crt -addext";
        let arguments: Vec<&str> = command.split_whitespace().chain([names.as_str()]).collect();
        this.openssl(&arguments);
        this
    }

    /// Creates a self-signed certificate.
    ///
    /// # Panics
    /// Panics if openssl fails.
    pub fn self_signed(options: CertificateOptions<'_>) -> Self {
        let this = Self::empty();
        this.request();
        this.write("extensions", &options);
        this.sign(&["-selfsign", "-keyfile", "domain.key"], options.years);
        this
    }

    /// Creates a certificate signed by `authority`.
    ///
    /// # Panics
    /// Panics if openssl fails.
    pub fn signed_by(authority: &Self, options: CertificateOptions<'_>) -> Self {
        let this = Self::empty();
        this.request();
        this.write("extensions", &options);
        let (certificate, key) = (authority.path(), authority.file("domain.key"));
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        this.sign(&["-cert", &certificate, "-keyfile", &key], options.years);
        this
    }

    /// Returns the path of the certificate, a PEM file.
    pub fn path(&self) -> PathBuf {
        self.file("domain.crt")
    }

    /// Returns the path of the private key, a PEM file.
    pub fn key_path(&self) -> PathBuf {
        self.file("domain.key")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the certificate in DER encoding.
    ///
    /// # Panics
    /// Panics if its file can't be read.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path()).expect("read the certificate")
    }

    /// Returns the TLS configuration of a server with this certificate.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from_pem_file(self.file("domain.key")).expect("read the key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("use the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.der()], key);
        Arc::new(config.expect("use the certificate"))
    }

    fn empty() -> Self {
        Self { directory: tempfile::tempdir().expect("make a temporary directory") }
    }

    fn request(&self) {
        let text = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                    -keyout domain.key -out request -subj /CN=test";
        self.openssl(&text.split_whitespace().collect::<Vec<_>>());
    }

    /// Writes the configuration file of openssl, with the extensions of a certificate.
    fn write(&self, extensions: &str, options: &CertificateOptions<'_>) {
        let mut text = format!(
            "[ca]\ndefault_ca = this\n[this]\ndatabase = index\nnew_certs_dir = .\n\
             rand_serial = yes\ndefault_md = sha256\npolicy = any\n[any]\ncommonName = optional\n\
             [{extensions}]\nsubjectKeyIdentifier = hash\n"
        );
        if !options.names.is_empty() {
            text.extend(["subjectAltName = ", options.names, "\n"]);
        }
        if !options.constraints.is_empty() {
            text.extend(["basicConstraints = critical,", options.constraints, "\n"]);
        }
        std::fs::write(self.file("config"), text).expect("write openssl's configuration");
        std::fs::write(self.file("index"), "").expect("write openssl's database");
    }

    fn sign(&self, by: &[&str], years: (u16, u16)) {
        let (begin, end) = (format!("{}0101000000Z", years.0), format!("{}1231235959Z", years.1));
        let what = ["ca", "-batch", "-config", "config", "-extensions", "extensions", "-notext"];
        let files = ["-in", "request", "-out", "domain.crt"];
        let dates = ["-startdate", &begin, "-enddate", &end];
        self.openssl(&[&what[..], by, &files, &dates].concat());
    }

    fn openssl(&self, arguments: &[&str]) {
        openssl(self.directory.path(), arguments);
    }
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(directory).args(arguments).output();
    let output = output.expect("run openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
