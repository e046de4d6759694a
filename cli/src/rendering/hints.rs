//! Hints in words. Errors carry their hints as data ([`kiln_registry::hint::Hint`] and its like); this
//! module alone finds them in a chain of errors and turns them into text.

use std::error::Error;
use std::path::Path;

use kiln::build::Unresolved;
use kiln_frontend::hint::Form;
use kiln_frontend::suggest::{Case, nearest};
use kiln_frontend::text::quote;
use kiln_oci::error::causes;
use kiln_registry::hint::{CertificateHint, Server, Setting};
use kiln_sandbox::SandboxError;
use kiln_sandbox::network::{NetworkError, NetworkHint};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::rootless;

/// Returns the hint against an error: that of the outermost error in its chain that has one. If the
/// error is about an image that can't be resolved, names similar images first.
pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<String> {
    let unresolved = causes(error).find_map(|cause| cause.downcast_ref::<Unresolved>());
    let near = unresolved.map(|unresolved| unresolved.near.as_slice()).unwrap_or_default();
    let near = (!near.is_empty()).then(|| format!("the store has {}", near.join(", ")));
    let all: Vec<String> = near.into_iter().chain(causes(error).find_map(of_one)).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn of_one(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<kiln_frontend::Error>() {
        return error.hint.as_ref().map(of_dockerfile);
    }
    if let Some(error) = error.downcast_ref::<kiln_worker::Error>() {
        return error.hint().as_ref().and_then(of_step);
    }
    if let Some(error) = error.downcast_ref::<kiln_registry::Error>() {
        return error.hint().as_ref().map(of_request);
    }
    if let Some(error) = error.downcast_ref::<NetworkError>() {
        return error.hint().map(of_network);
    }
    error.downcast_ref::<SandboxError>().and_then(|_| rootless::hint()).map(str::to_owned)
}

fn of_dockerfile(hint: &kiln_frontend::hint::Hint) -> String {
    use kiln_frontend::hint::Hint;
    match hint {
        Hint::Write(form) => format!("write {}", form_of(form)),
        Hint::EndHeredoc(name) => format!("no line behind it is {} and nothing else", quote(name)),
        Hint::BeginWithFrom => "begin with FROM; only ARG may stand in front".to_owned(),
        Hint::NamedStages(names) => match names.as_slice() {
            [] => "no stage has a name, as in `FROM image AS name`".to_owned(),
            [name] => format!("the only stage with a name is {name}"),
            names => format!("the stages are {}", names.join(", ")),
        },
        Hint::InvalidEpoch(seconds) => {
            format!("SOURCE_DATE_EPOCH is {seconds}, which is no time in seconds")
        }
        Hint::GiveEpochInSeconds => {
            "give SOURCE_DATE_EPOCH as a number of seconds since 1970".to_owned()
        }
        Hint::ChecksAreErrors => "`error=true` makes the build checks errors".to_owned(),
    }
}

fn form_of(form: &Form) -> String {
    match form {
        Form::NameAndValue(keyword) => {
            format!("{keyword} name=value, and quotes around a value with blanks")
        }
        Form::SourceAndDestination(keyword) => format!("{keyword} source destination"),
        Form::Json(keyword) => {
            format!("{keyword} [\"program\", \"argument\"], with double quotes")
        }
        Form::From => "FROM image, or FROM image AS name".to_owned(),
        Form::Healthcheck => "HEALTHCHECK [options] CMD command, or HEALTHCHECK NONE".to_owned(),
    }
}

fn of_step(hint: &kiln_worker::Hint) -> Option<String> {
    use kiln_worker::Hint;
    Some(match hint {
        Hint::Allow(right) => format!("--allow {right} lets the steps of this build do it"),
        Hint::PassAgent(id) => format!("--ssh {id}[=SOCKET] lends an agent to this build"),
        Hint::InstallEmulator(architecture) => format!(
            "\"apt-get install qemu-user-static\" brings emulators; they are registered by \
             \"systemctl restart systemd-binfmt\", without systemd by \"apt-get install \
             binfmt-support\" and \"update-binfmts --enable\", or on any machine with docker by \
             \"docker run --privileged --rm tonistiigi/binfmt --install {architecture}\""
        ),
        Hint::Excluded(path) => {
            format!("{} is there, but an ignore file excludes it", path.display())
        }
        Hint::CheckPath { path, siblings } => {
            let near = path.with_file_name(similar(path, siblings)?);
            format!("did you mean {}?", near.display())
        }
    })
}

/// Returns the name in `siblings` that the name of a missing file is likely a mistake for.
fn similar<'a>(missing: &Path, siblings: &'a [String]) -> Option<&'a str> {
    let name = missing.file_name()?.to_str()?;
    let names = || siblings.iter().map(String::as_str);
    let same = names().find(|known| known.eq_ignore_ascii_case(name)).map(str::to_owned);
    let near = same.or_else(|| nearest(name, names(), Case::Insensitive))?;
    names().find(|known| known.eq_ignore_ascii_case(&near))
}

fn of_request(hint: &kiln_registry::hint::Hint) -> String {
    use kiln_registry::hint::Hint;
    match hint {
        Hint::LogIn { registry } => {
            let command = match registry.as_str() {
                "docker.io" => "kiln login".to_owned(),
                registry => format!("kiln login {registry}"),
            };
            format!("check the spelling, or log in with `{command}`")
        }
        Hint::CheckSpelling => "check the spelling".to_owned(),
        Hint::AvoidRateLimit => "wait, log in, or pull through a mirror".to_owned(),
        Hint::TrustTokenServer { server } => format!(
            "if that is right, put token-servers = [\"{server}\"] under the registry in \
             registries.toml"
        ),
        Hint::LogInToProxy => {
            "put a name and a password into the proxy's address, as http://NAME:PASSWORD@PROXY"
                .to_owned()
        }
        Hint::LowerMinimumSpeed => {
            "--min-download-speed sets how slow a server may be; 0 lifts the limit".to_owned()
        }
        Hint::InstallAuthorities => "install the package ca-certificates".to_owned(),
        Hint::CheckHostName => {
            "check the spelling of the host's name, and this machine's DNS".to_owned()
        }
        Hint::CheckServer(server) => {
            let server = match server {
                Server::Registry => "registry",
                Server::Mirror => "mirror",
                Server::Other => "server",
            };
            format!("check that the {server} is running and can be reached from here")
        }
        Hint::CheckProxy { host } => format!(
            "check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; NO_PROXY={host} goes around the proxy"
        ),
        Hint::UsePlainHttp { setting, replaces_trust } => use_plain_http(setting, *replaces_trust),
        Hint::UseHttps(setting) => match setting {
            Setting::Registry(host) => {
                format!("remove `http = true` for {host} in registries.toml")
            }
            Setting::Mirror(host) => format!("write the mirror as https://{host}"),
            Setting::Url => "write https:// in the URL".to_owned(),
        },
        Hint::Certificate(hint) => of_certificate(hint),
    }
}

fn use_plain_http(setting: &Setting, replaces_trust: bool) -> String {
    match setting {
        Setting::Registry(host) => {
            let rest = if replaces_trust { ", in place of certificates" } else { "" };
            format!("set `http = true` for {host} in registries.toml{rest}")
        }
        Setting::Mirror(host) => format!("write the mirror as http://{host}"),
        Setting::Url => "write http:// in the URL".to_owned(),
    }
}

fn of_certificate(hint: &CertificateHint) -> String {
    match hint {
        CertificateHint::TrustAuthority { host } => format!(
            "if it is the right one, give it or its authority's: as /etc/docker/certs.d/{host}/ca.crt, \
             or as `ca` for {host} in registries.toml"
        ),
        CertificateHint::Renew => {
            let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
            let now = OffsetDateTime::now_utc().format(format).unwrap_or_default();
            format!("replace the certificate, or set this machine's clock: it says {now}")
        }
        CertificateHint::NameHost { subject, has_names } => {
            let other = if *has_names { "use a name that it has, or " } else { "" };
            format!(
                "{other}make one for this host, as with openssl's \
                 -addext \"subjectAltName = {subject}\""
            )
        }
        CertificateHint::AcceptAny { host } => format!(
            "replace the certificate, or set `insecure = true` for {host} in registries.toml to \
             take any"
        ),
        CertificateHint::GiveClient { host } => format!(
            "name the client's certificate and its key as `keypair` for {host} in registries.toml"
        ),
    }
}

fn of_network(hint: NetworkHint) -> String {
    match hint {
        NetworkHint::UseHostNetwork => {
            "with --network=host, programs of the container listen on ports of the host \
             themselves; without root from 1024 on, or from what \
             net.ipv4.ip_unprivileged_port_start says"
        }
        NetworkHint::OpenLowPorts => {
            "ports below 1024 take root; \"sysctl net.ipv4.ip_unprivileged_port_start=PORT\" \
             opens those from PORT on to all users"
        }
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use kiln_frontend::ResolveError;
    use kiln_solver::StepError;
    use kiln_testkit::FakeRegistry;
    use kiln_worker::Error as StepFailure;

    use super::*;
    use kiln::build::Failure;

    #[test]
    fn near_names_are_suggested() {
        let hint = |path: &str, siblings: &[&str], is_excluded| {
            let siblings = siblings.iter().map(ToString::to_string).collect();
            let source = kiln_tree::Error::NotFound { path: path.into() };
            of(&StepFailure::Missing {
                source,
                path: path.into(),
                siblings,
                is_excluded,
                in_key: true,
            })
        };
        let names = ["main.go", "Makefile", "main.go.bak"];
        let meant = Some("did you mean /src/main.go?".to_owned());
        assert_eq!(hint("/src/Main.go", &names, false), meant);
        assert_eq!(hint("/src/mian.go", &names, false), meant);
        assert_eq!(hint("/src/other", &names, false), None);
        let excluded = Some("/main.go is there, but an ignore file excludes it".to_owned());
        assert_eq!(hint("/main.go", &names, true), excluded);
    }

    #[test]
    fn emulators_are_named_as_they_are_installed() {
        let error = |platform: &str| StepFailure::NoEmulator {
            platform: platform.to_owned(),
            problem: String::new(),
        };
        let shown = of(&error("linux/arm/v7")).unwrap_or_default();
        assert!(shown.ends_with("--install arm\""), "{shown}");
        assert_eq!(of(&error("windows/amd64")), None);
    }

    /// The errors in which a registry's error arrives at the command line.
    fn wrapped(refusal: &dyn Fn() -> kiln_registry::Error) -> Vec<Box<dyn Error>> {
        let worker = || StepFailure::Registry(refusal());
        let images = || kiln_images::Error::Registry(refusal());
        let digest = kiln_oci::Digest::of(b"");
        let cached = kiln_images::Error::Cached { digest, source: images().into() };
        let fetch = || {
            let source = Box::new(images());
            kiln_exporter::Error::from(kiln_images::Error::Fetch { layer: "x".into(), source })
        };
        let unresolved = Unresolved { near: Vec::new(), source: images() };
        let unresolved = ResolveError::new("unresolved").because(unresolved);
        let mut dockerfile = kiln_frontend::Error::new("unresolved");
        dockerfile.source.clone_from(&unresolved.source);
        vec![
            worker().into(),
            Box::new(StepFailure::from(cached)),
            Box::new(StepError::other(worker())),
            Box::new(solve_error(StepError::other(fetch()))),
            Box::new(kiln_exporter::Error::Registry(refusal())),
            Box::new(fetch()),
            Box::new(unresolved),
            Box::new(Failure::Dockerfile(vec![dockerfile])),
            Box::new(Failure::Solve(solve_error(StepError::other(worker())))),
            Box::new(Failure::Other(anyhow::Error::new(fetch()).context("export"))),
            Box::new(kiln_solver::CacheError::new(worker())),
        ]
    }

    fn solve_error(error: StepError) -> kiln_solver::SolveError {
        let (name, locations, log_tail) = ("x".to_owned(), Vec::new(), Vec::new());
        let error = Box::new(error);
        kiln_solver::SolveError::Step { name, locations, id: 0, log_tail, log_length: 0, error }
    }

    #[tokio::test]
    async fn a_chain_from_the_registry_arrives_whole() {
        let registry = FakeRegistry::start();
        let refused = Some(("/manifests/".to_owned(), 403));
        registry.switch(|switches| switches.refused = refused);
        let reference = format!("{}/a/b:1", registry.address()).parse().unwrap();
        let client = kiln_registry::Client::new(kiln_registry::Options::default());
        let error = client.resolve(&reference).await.unwrap_err();
        let refusal = || kiln_registry::Error {
            registry: error.registry.clone(),
            target: error.target.clone(),
            problem: Box::new(kiln_registry::Problem::Denied("not for you".to_owned())),
        };
        let login =
            format!("check the spelling, or log in with `kiln login {}`", registry.address());
        assert_eq!(of(&error).as_ref(), Some(&login));
        for wrapped in wrapped(&refusal) {
            let has_refusal = causes(&*wrapped).any(<dyn Error>::is::<kiln_registry::Error>);
            assert!(has_refusal, "{wrapped:?} has lost the registry's error");
            assert_eq!(of(&*wrapped).as_ref(), Some(&login), "{wrapped:?}");
            let text = kiln_oci::error::chain(&*wrapped);
            assert_eq!(text.matches("access denied").count(), 1, "{text}");
        }
    }
}
