//! Published ports.

use kiln_testkit::{Kiln, Need, run_in_world, skip};

use crate::kiln;

const NEEDS: [Need; 4] =
    [Need::Root, Need::Program("nft"), Need::Program("ip"), Need::Program("curl")];

/// Returns a kiln with the image of a server that returns its caller's address by HTTP on port 80.
fn server() -> Kiln {
    let kiln = kiln();
    let script = "#!/bin/sh\\necho Content-type: text/plain\\necho\\necho you are $REMOTE_ADDR\\n";
    let dockerfile = format!(
        "FROM base\nRUN mkdir -p /www/cgi-bin && printf '{script}' > /www/cgi-bin/who && \
         chmod 755 /www/cgi-bin/who\nEXPOSE 80 7/udp\n\
         CMD trap exit TERM; httpd -f -p 80 -h /www & wait\n"
    );
    kiln.build_text(&dockerfile, &["-t", "server"]).success();
    kiln
}

/// Additional shell functions: `ask ADDRESS` asks a server for the caller's address; `leftovers`
/// lists remains of containers.
const WORDS: &str = r#"
plain() { tr -d '[]' | sed 's/::ffff://'; }
ask() {
    answer=$(curl -sS --max-time 3 "http://$1/cgi-bin/who" 2>/dev/null) || return 1
    echo "$answer" | plain
}
ask_outside() {
    answer=$(out curl -sS --max-time 3 "http://$1/cgi-bin/who" 2>/dev/null) || return 1
    echo "$answer" | plain
}
leftovers() {
    ip -o link | grep -o 'kiln[0-9a-f]\{8\}' || true
    nft list tables | grep 'kiln-' || true
    ss -Hltnu | grep -E ':(808[0-9]|9000)' || true
}
nothing_left() { test -z "$(leftovers)"; }
"#;

fn run(kiln: &Kiln, script: &str) -> String {
    let output = run_in_world(kiln, &format!("{WORDS}{script}"));
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    said
}

#[test]
fn ports_are_reached_from_where_they_are_published() {
    if skip("ports_are_reached_from_where_they_are_published", &NEEDS) {
        return;
    }
    let kiln = server();
    let script = r#"
kiln run --rm -p 8080:80 -p 127.0.0.1:8081:80 -p 203.0.113.1:8082:80 server &
server=$!
until_there ask 127.0.0.1:8080 > /dev/null
echo outside: $(ask_outside 203.0.113.1:8080)

echo loopback: $(ask 127.0.0.1:8080) $(ask localhost:8080) "$(ask '[::1]:8080')"
echo own: $(ask 203.0.113.1:8080)
echo only: $(ask 127.0.0.1:8081) $(ask 203.0.113.1:8082)
echo outside only: $(ask_outside 203.0.113.1:8082)
! ask_outside 203.0.113.1:8081
! ask 203.0.113.1:8081
! ask 127.0.0.1:8082
# From another container, by the host's address.
kiln run --rm --add-host me:host-gateway server wget -q -O - http://me:8080/cgi-bin/who
# A port that is taken.
! kiln run --rm -p 8080:80 server
! kiln run --rm -p 192.0.2.99:8080:80 server
# A range has room for both.
kiln run --rm -p 8080-8089:80 server > other 2>&1 &
other=$!
until_there grep '80/tcp -> 0.0.0.0:8083' other
until_there ask 127.0.0.1:8083
kill $other $server
until_there nothing_left
echo gone
"#;
    let said = run(&kiln, script);
    assert!(said.contains("outside: you are 203.0.113.2\n"), "{said}");
    // The packets pass through the host, so the caller has the bridge's address.
    let gateway = "you are 10.75.72.1";
    assert!(said.contains(&format!("loopback: {gateway} {gateway} {gateway}\n")), "{said}");
    assert!(said.contains(&format!("own: {gateway}\n")), "{said}");
    assert!(said.contains(&format!("only: {gateway} {gateway}\n")), "{said}");
    assert!(said.contains("outside only: you are 203.0.113.2\n"), "{said}");
    assert!(
        said.contains("ERROR: publish port 0.0.0.0:8080/tcp: address already in use"),
        "{said}"
    );
    let foreign = "publish port 192.0.2.99:8080/tcp: cannot assign requested address";
    assert!(said.contains(foreign), "{said}");
    assert!(said.contains("gone\n"), "{said}");
}

#[test]
fn exposed_ports_and_datagrams_are_published() {
    let needs = [&NEEDS[..], &[Need::Program("python3")]].concat();
    if skip("exposed_ports_and_datagrams_are_published", &needs) {
        return;
    }
    let kiln = server();
    kiln.write("ask.py", ASK);
    kiln.write("echo.py", ECHO);
    let script = r#"
python="-v /usr:/usr -v /lib:/lib -v /lib64:/lib64 -v $PWD:/w -e PATH=/bin:/usr/bin"
kiln run --rm -P $python server sh -c 'trap exit TERM; python3 /w/echo.py & httpd -f -p 80 -h /www & wait' 2> ports &
server=$!
until_there grep -q '80/tcp ->' ports
cat ports
port() { sed -n "s|^$1 -> .*:||p" ports; }
until_there ask 127.0.0.1:$(port 80/tcp)
python3 ask.py 127.0.0.1 $(port 7/udp)
kill $server
until_there nothing_left
kiln run --rm -p 9000:7/udp $python server sh -c 'trap exit TERM; python3 /w/echo.py & wait' &
server=$!
out python3 ask.py 203.0.113.1 9000
kill $server
until_there nothing_left
"#;
    let said = run(&kiln, script);
    assert!(said.contains("80/tcp -> 0.0.0.0:") && said.contains("7/udp -> 0.0.0.0:"), "{said}");
    assert_eq!(said.matches("echo of hello").count(), 2, "{said}");
}

/// A server that sends datagrams back.
pub(crate) const ECHO: &str = "
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('', 7))
while True:
    datagram, sender = server.recvfrom(100)
    server.sendto(datagram, sender)
";

/// A client that sends a datagram until it comes back.
pub(crate) const ASK: &str = "
import socket, sys
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(0.5)
for _ in range(20):
    asking.sendto(b'hello', (sys.argv[1], int(sys.argv[2])))
    try:
        print('echo of', asking.recv(100).decode())
        break
    except OSError:
        pass
else:
    sys.exit('nothing came back')
";

#[test]
fn a_killed_kiln_leaves_no_port_and_no_rule() {
    if skip("a_killed_kiln_leaves_no_port_and_no_rule", &NEEDS) {
        return;
    }
    let kiln = server();
    let script = r"
kiln run --rm -p 8080:80 -p 9000:7/udp server &
server=$!
until_there ask 127.0.0.1:8080
nft list tables | grep 'kiln-'
leftovers | grep -c .
kill -9 $server
until_there nothing_left
echo gone
! ask_outside 203.0.113.1:8080
kiln run --rm -p 8080:80 server &
until_there ask 127.0.0.1:8080
";
    let said = run(&kiln, script);
    assert!(said.contains("table inet kiln-"), "{said}");
    assert!(said.contains("gone\n"), "{said}");
    assert_eq!(said.matches("you are 10.75.72.1\n").count(), 2, "{said}");
}

#[test]
fn networks_without_ports_say_so() {
    if skip("networks_without_ports_say_so", &NEEDS) {
        return;
    }
    let kiln = server();
    for network in ["host", "none"] {
        let network_flag = format!("--network={network}");
        let output = kiln.run(&["run", "--rm", &network_flag, "-p", "8080:80", "server", "true"]);
        let warning = format!("WARNING: published ports are discarded with --network={network}\n");
        assert_eq!((output.code, output.stderr), (0, warning));
    }
    let refused = kiln.run(&["run", "--rm", "-p", "80:90000", "server", "true"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("invalid --publish \"80:90000\""), "{}", refused.stderr);
}
