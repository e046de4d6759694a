//! The sockets of a server: those that systemd passes, their owners, and TCP with TLS.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::InfoRequest;
use hyper_util::rt::TokioIo;
use kiln_testkit::environment::with_arguments;
use kiln_testkit::{Certificate, CertificateOptions, Kiln, connect_tls};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::client::control;
use crate::target::{Served, World, connect, environment};

/// The script of a service manager with two sockets on its standard input and output.
const PASS: &str = "exec 3<&0 4<&1 0</dev/null 1>/dev/null; export LISTEN_PID=$$; exec \"$@\"";

/// Returns a command that starts kiln with two sockets as systemd does. Their names are `one` and
/// `two`, and so are those of their files.
fn passing(kiln: &Kiln, address: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", PASS, "sh"]);
    let mut shell = with_arguments(shell, &kiln.command(&["serve", "--addr", address]));
    let socket = |name| OwnedFd::from(UnixListener::bind(kiln.path(name)).unwrap());
    shell.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "one:two");
    shell.stdin(Stdio::from(socket("one"))).stdout(Stdio::from(socket("two")));
    shell
}

/// Checks that a server answers on a socket.
async fn assert_answers(channel: Channel) {
    control(&channel).info(InfoRequest {}).await.unwrap();
}

/// `fd://` serves all sockets of systemd. They are systemd's, so they stay at the end.
pub(crate) async fn passed_sockets_are_served(_: &World) {
    let kiln = environment();
    let command = passing(&kiln, "fd://");
    let served = Served::spawn(Arc::clone(&kiln), command);
    for name in ["one", "two"] {
        assert_answers(connect(&kiln.path(name), false).await).await;
    }
    assert_eq!(served.end(), Some(0));
    assert!(kiln.path("one").exists() && kiln.path("two").exists());
}

/// `fd://NAME` serves the socket of a name or number alone. An unknown name is an error.
pub(crate) async fn passed_sockets_are_found_by_name(_: &World) {
    for (address, name) in [("fd://two", "two"), ("fd://3", "one")] {
        let kiln = environment();
        let command = passing(&kiln, address);
        let served = Served::spawn(Arc::clone(&kiln), command);
        assert_answers(connect(&kiln.path(name), false).await).await;
        let log = served.log();
        assert_eq!(log.matches("listening on").count(), 1, "{log}");
        assert!(log.contains(&format!("/{name}\n")), "{log}");
    }
    let kiln = environment();
    let output = passing(&kiln, "fd://three").stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("fd://three"), "{text}");
    let refused = kiln.run(&["serve", "--addr", "fd://"]).failure();
    assert!(refused.contains("LISTEN_FDS"), "{refused}");
}

pub(crate) async fn a_group_may_use_the_socket(_: &World) {
    for (group, number) in [("4321", 4321), ("daemon", 1)] {
        let served = Served::start(&["--group", group]);
        assert_answers(served.connect().await).await;
        let metadata = std::fs::metadata(served.socket()).unwrap();
        assert_eq!((metadata.gid(), metadata.uid()), (number, 0));
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
        let socket = served.socket();
        assert_eq!(served.end(), Some(0));
        assert!(!socket.exists());
    }
    let refused = environment().run(&["serve", "--group", "no-such-group"]).failure();
    assert!(refused.contains("no-such-group"), "{refused}");
}

/// Without TLS, TCP is for this machine, and only if the user insists.
pub(crate) async fn tcp_needs_tls(_: &World) {
    let refuse = |arguments: &[&str]| {
        environment().run(&[&["serve", "--addr"], arguments].concat()).failure()
    };
    let open = refuse(&["tcp://0.0.0.0:0", "--insecure-tcp"]);
    assert!(open.contains("without TLS lets everyone build"), "{open}");
    let local = refuse(&["tcp://127.0.0.1:0"]);
    assert!(local.contains("--insecure-tcp"), "{local}");
    let partial = refuse(&["tcp://127.0.0.1:0", "--tlscert", "/nothing"]);
    assert!(partial.contains("--tlscacert, --tlscert and --tlskey"), "{partial}");
    let served = Served::start(&["--addr", "tcp://127.0.0.1:0", "--insecure-tcp"]);
    let address = served.wait_for_message("listening on tcp://");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    assert_answers(endpoint.connect().await.unwrap()).await;
}

/// The certificates of a server, and of its clients.
pub(crate) struct Identities {
    pub(crate) authority: Certificate,
    server: Certificate,
    pub(crate) client: Certificate,
}

impl Identities {
    pub(crate) fn new() -> Self {
        let options =
            CertificateOptions { constraints: "CA:FALSE", ..CertificateOptions::default() };
        let authority = Certificate::self_signed(CertificateOptions::default());
        let sign = || Certificate::signed_by(&authority, options);
        let (server, client) = (sign(), sign());
        Self { authority, server, client }
    }

    /// Writes the files of the server.
    pub(crate) fn write(&self, directory: &Path) {
        let files = [
            ("ca.pem", self.authority.path()),
            ("cert.pem", self.server.path()),
            ("key.pem", self.server.key_path()),
        ];
        for (name, path) in files {
            std::fs::copy(path, directory.join(name)).unwrap();
        }
    }

    /// Starts a server with the identity on a TCP socket. Returns its address.
    pub(crate) fn serve(&self) -> (Served, SocketAddr) {
        let kiln = environment();
        self.write(&kiln.path(""));
        let more = ["--tlscacert", "ca.pem", "--tlscert", "cert.pem", "--tlskey", "key.pem"];
        let more = [&["--addr", "tcp://127.0.0.1:0"], &more[..]].concat();
        let served = Served::start_in(kiln, &more);
        let address = served.wait_for_message("listening on tcp://").parse().unwrap();
        (served, address)
    }

    /// Returns `true` if a server that has this identity answers a client with a certificate, or
    /// with none.
    pub(crate) async fn reach(&self, address: SocketAddr, own: Option<&Certificate>) -> bool {
        let Ok(stream) = connect_tls(address, &self.authority, own).await else { return false };
        let stream = Mutex::new(Some(TokioIo::new(stream)));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.lock().unwrap().take();
            async { stream.ok_or_else(|| std::io::Error::other("the connection has ended")) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let Ok(channel) = endpoint.connect_with_connector(connector).await else { return false };
        let mut control = control(&channel);
        let answer = tokio::time::timeout(Duration::from_secs(10), control.info(InfoRequest {}));
        answer.await.is_ok_and(|answer| answer.is_ok())
    }
}

/// Clients on TCP need a certificate of the authority.
pub(crate) async fn clients_need_certificates(_: &World) {
    let (ours, theirs) = (Identities::new(), Identities::new());
    let (served, address) = ours.serve();
    assert!(ours.reach(address, Some(&ours.client)).await, "{}", served.log());
    assert!(!ours.reach(address, Some(&theirs.client)).await);
    assert!(!ours.reach(address, None).await);
    assert!(!theirs.reach(address, Some(&ours.client)).await);
    assert_answers(served.connect().await).await;
}
