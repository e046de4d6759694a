//! The networks of steps.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};

use kiln_testkit::{Kiln, Need, run_in_world, skip};

use crate::kiln;

/// The requirements of the bridge.
const BRIDGE: [Need; 3] = [Need::Root, Need::Program("nft"), Need::Program("ip")];

/// Starts a server that greets every caller until the test ends. Returns its port.
fn greeter(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for caller in listener.incoming().flatten() {
            let mut caller = caller;
            let _ = caller.write_all(b"greetings\n");
        }
    });
    port
}

fn text(kiln: &Kiln, image: &str, command: &str) -> String {
    kiln.run(&["run", "--rm", "--network=none", image, "sh", "-c", command]).success()
}

#[test]
fn a_step_is_on_a_network_of_its_own() {
    if skip("a_step_is_on_a_network_of_its_own", &BRIDGE) {
        return;
    }
    let kiln = kiln();
    let (everywhere, loopback) = (greeter(Ipv4Addr::UNSPECIFIED), greeter(Ipv4Addr::LOCALHOST));
    let call = |port| format!("nc -w 3 host {port} </dev/null | grep greetings");
    let dockerfile = format!(
        "FROM base\n\
         RUN ls /sys/class/net > /interfaces; ip -4 -o addr show dev eth0 > /address\n\
         RUN ip route > /routes; cat /etc/resolv.conf > /servers; cat /proc/net/if_inet6 > /six\n\
         RUN {} && ! {} && ! nc -w 3 127.0.0.1 {loopback} </dev/null\n\
         RUN --network=none test $(ls /sys/class/net) = lo && ! {}\n",
        call(everywhere),
        call(loopback),
        call(everywhere),
    );
    kiln.build_text(&dockerfile, &["-t", "img", "--add-host", "host:host-gateway"]).success();
    assert_eq!(text(&kiln, "img", "cat /interfaces"), "eth0\nlo\n");
    let address = text(&kiln, "img", "cat /address");
    let routes = text(&kiln, "img", "cat /routes");
    let bridge =
        std::process::Command::new("ip").args(["-4", "-o", "addr", "show", "kiln0"]).output();
    let bridge = String::from_utf8(bridge.unwrap().stdout).unwrap();
    let gateway = bridge.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned();
    assert!(routes.contains(&format!("default via {gateway} dev eth0")), "{routes}");
    assert!(
        address.contains("inet ") && !address.contains(&format!("inet {gateway}/")),
        "{address}"
    );
    // IPv6 works on the loopback device of the step only.
    let six = text(&kiln, "img", "cat /six");
    assert!(six.lines().all(|line| line.ends_with(" lo")), "{six}");

    // A step can use the host's network if it requests it and the user allows it.
    let host = format!("FROM base\nRUN nc -w 3 127.0.0.1 {loopback} </dev/null | grep greetings\n");
    kiln.build_text(&host, &["--network", "host"]).success();
    kiln.build_text(&host, &[]).failure();
    // There, the host itself is on the loopback address.
    let home = format!("FROM base\nRUN --network=host {}\n", call(loopback));
    let flags = ["--allow", "network.host", "--add-host", "host:host-gateway"];
    kiln.build_text(&home, &flags).success();
}

#[test]
fn steps_at_the_same_time_have_addresses_of_their_own() {
    if skip("steps_at_the_same_time_have_addresses_of_their_own", &BRIDGE) {
        return;
    }
    let kiln = kiln();
    // Two builds of ten stages each. A step prints its address and the times of its use, and that
    // it can't reach any other step.
    let stages = |build: usize| {
        let stage = |stage: usize| {
            format!(
                "FROM base AS s{stage}\nRUN echo {build} {stage} $(cut -d' ' -f1 /proc/uptime) \
                 $(ip -4 -o addr show dev eth0 | awk '{{print $4}}') > /a && sleep 1 && \
                 echo $(cut -d' ' -f1 /proc/uptime) > /b && paste -d' ' /a /b > /c\n"
            )
        };
        let copy = |stage: usize| format!("COPY --from=s{stage} /c /c{stage}\n");
        let stages: String = (0..10).map(stage).collect();
        format!("{stages}FROM base\n{}", (0..10).map(copy).collect::<String>())
    };
    kiln.write("one/Dockerfile", stages(1));
    kiln.write("two/Dockerfile", stages(2));
    std::thread::scope(|scope| {
        for name in ["one", "two"] {
            let kiln = &kiln;
            scope.spawn(move || kiln.build(name, &["-t", name]).success());
        }
    });
    let mut seen: Vec<(String, f64, f64)> = Vec::new();
    for name in ["one", "two"] {
        for line in text(&kiln, name, "cat /c?").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            seen.push((words[3].to_owned(), words[2].parse().unwrap(), words[4].parse().unwrap()));
        }
    }
    assert_eq!(seen.len(), 20);
    let mut together = 0;
    for (number, (address, begin, end)) in seen.iter().enumerate() {
        for (other, other_begin, other_end) in &seen[..number] {
            if begin < other_end && other_begin < end {
                together += 1;
                assert_ne!(address, other);
            }
        }
    }
    assert!(together > 20, "{together} pairs of steps ran at the same time");
}

#[test]
fn packets_get_out_and_nobody_gets_in() {
    let needs = [&BRIDGE[..], &[Need::Program("python3"), Need::Program("iptables")]].concat();
    if skip("packets_get_out_and_nobody_gets_in", &needs) {
        return;
    }
    let kiln = kiln();
    kiln.write("who.py", WHO);
    // A host that doesn't forward packets, and one with Docker's filter. Steps reach the outside on
    // both.
    let script = r"
out python3 who.py 203.0.113.2 7000 &
until_there out busybox nc -w 1 203.0.113.2 7000 </dev/null >/dev/null
echo 0 > /proc/sys/net/ipv4/ip_forward
build 'FROM base\nRUN nc -w 5 203.0.113.2 7000 </dev/null\n' --no-cache
echo forward $(cat /proc/sys/net/ipv4/ip_forward)
nft list chain inet kiln guard

# What nobody has changed isn't written once more.
nft -a list table inet kiln > once
build 'FROM base\nRUN nc -w 5 203.0.113.2 7000 </dev/null\n' --no-cache
nft -a list table inet kiln | cmp once -

iptables -P FORWARD DROP
iptables -N DOCKER-USER
iptables -I FORWARD -j DOCKER-USER
build 'FROM base\nRUN nc -w 5 203.0.113.2 7000 </dev/null\n' --no-cache
# Once is enough.
build 'FROM base\nRUN nc -w 5 203.0.113.2 7000 </dev/null\n' --no-cache
iptables -S DOCKER-USER
iptables -P FORWARD ACCEPT

# A firewall that is loaded anew forgets kiln's rules; the next build finds them missing.
nft flush ruleset
build 'FROM base\nRUN nc -w 5 203.0.113.2 7000 </dev/null\n' --no-cache

# Whoever has a route to containers from outside gets no further than the host.
build 'FROM base\nRUN (nc -ll -p 80 -e echo hello &) && ip -4 -o addr show dev eth0 && sleep 4\n' > log &
until_there grep -q 'inet ' log
address=$(sed -n 's/.*inet \([0-9.]*\).*/\1/p' log)
call $address 80
out ip route add $address via 203.0.113.1
! out busybox nc -w 2 $address 80 </dev/null
echo kept out
";
    let output = run_in_world(&kiln, script);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    // From outside, calls come from the host's address.
    assert_eq!(said.matches("from 203.0.113.1").count(), 5, "{said}");
    assert!(said.contains("forward 1"), "{said}");
    assert!(said.contains("iifname \"out0\" oifname \"out0\" drop"), "{said}");
    assert_eq!(said.matches("-A DOCKER-USER -i kiln0 -j ACCEPT").count(), 1, "{said}");
    assert_eq!(said.matches("-A DOCKER-USER -o kiln0 -j ACCEPT").count(), 1, "{said}");
    assert!(said.contains("kept out"), "{said}");
}

/// A server that tells callers their address.
pub(crate) const WHO: &str = "
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    caller, address = server.accept()
    caller.sendall(b'from %s\\n' % address[0].encode())
    caller.close()
";

/// A name server with a single answer.
pub(crate) const NAMES: &str = "
import socket, struct, threading
def answer(question):
    body = question[12:]
    end = body.index(0) + 5
    known = body[end - 4:end - 2] == b'\\0\\1'
    head = question[:2] + b'\\x81\\x80' + struct.pack('>4H', 1, int(known), 0, 0)
    record = b'\\xc0\\x0c' + struct.pack('>2HIH', 1, 1, 60, 4) + bytes([192, 0, 2, 77])
    return head + body[:end] + (record if known else b'')
def stream():
    server = socket.create_server(('127.0.0.1', 53))
    while True:
        caller, _ = server.accept()
        question = caller.recv(4096)
        if not question:
            caller.close()
            continue
        reply = answer(question[2:])
        caller.sendall(struct.pack('>H', len(reply)) + reply)
        caller.close()
threading.Thread(target=stream, daemon=True).start()
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('127.0.0.1', 53))
while True:
    question, caller = server.recvfrom(4096)
    server.sendto(answer(question), caller)
";

#[test]
fn names_are_asked_of_the_hosts_own_server() {
    let needs = [&BRIDGE[..], &[Need::Program("python3")]].concat();
    if skip("names_are_asked_of_the_hosts_own_server", &needs) {
        return;
    }
    let kiln = kiln();
    kiln.write("names.py", NAMES);
    // By datagrams and by a connection. The server is on loopback, where a step can't reach it
    // directly.
    let script = r"
echo 'nameserver 127.0.0.1' > resolv.conf
mount --bind resolv.conf /etc/resolv.conf
build 'FROM base\nRUN nslookup some.where; cat /etc/resolv.conf\n' --no-cache || true
echo ---
python3 names.py &
until_there call 127.0.0.1 53
build 'FROM base\nRUN cat /etc/resolv.conf && nslookup some.where\n' --no-cache -t img
cat > ask.sh <<'ASK'
printf '\000\034ab\001\000\000\001\000\000\000\000\000\000\001a\003bcd\000\000\001\000\001' |
    nc -w 2 127.0.0.11 53 | od -An -v -tu1 | tr -s ' \n' '  '
ASK
kiln run --rm -v $PWD:/w img sh /w/ask.sh
build 'FROM base\nRUN ! nc -w 2 10.75.72.1 53 </dev/null\n' --no-cache
";
    let output = run_in_world(&kiln, script);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    let (before, after) = said.split_once("---\n").unwrap();
    // No server listens, so the query fails at once.
    assert!(before.contains("nameserver 127.0.0.11") && !before.contains("192.0.2.77"), "{said}");
    assert!(after.contains("nameserver 127.0.0.11"), "{said}");
    assert!(after.contains("Address: 192.0.2.77"), "{said}");
    assert!(after.contains(" 192 0 2 77"), "{said}");
}

#[test]
fn the_hosts_network_takes_the_place_of_a_missing_bridge() {
    if skip("the_hosts_network_takes_the_place_of_a_missing_bridge", &BRIDGE) {
        return;
    }
    let kiln = kiln();
    let script = r"
for nft in /usr/sbin/nft /sbin/nft /usr/bin/nft; do
    [ ! -e $nft ] || mount --bind /dev/null $nft
done
build 'FROM base\nRUN ls /sys/class/net\nRUN echo second\nEXPOSE 80\n' --no-cache -t img
kiln run --rm img ls /sys/class/net
for flags in --network=bridge --publish=80 --publish-all; do
    ! kiln run --rm $flags img true
done
ip link show kiln0 || echo no bridge
";
    let output = run_in_world(&kiln, script);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    let reason = "no bridge: the program nft isn't there: install nftables";
    let warning = format!("steps use the host's network: {reason}");
    assert_eq!(said.matches(&warning).count(), 1, "{said}");
    let warning = format!("WARNING: the container uses the host's network: {reason}");
    assert_eq!(said.matches(&warning).count(), 1, "{said}");
    let refused = "ERROR: no bridge network: the program nft isn't there: install nftables";
    assert_eq!(said.matches(refused).count(), 3, "{said}");
    assert_eq!(said.matches("out0\n").count(), 2, "{said}");
    assert!(said.contains("no bridge\n"), "{said}");
}

#[test]
fn a_build_of_known_steps_makes_no_network() {
    if skip("a_build_of_known_steps_makes_no_network", &BRIDGE) {
        return;
    }
    let kiln = kiln();
    let script = r"
build 'FROM base\nRUN echo known\n'
ip link delete kiln0
nft flush ruleset
build 'FROM base\nRUN echo known\n'
! ip link show kiln0
nft list ruleset
";
    let output = run_in_world(&kiln, script);
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("CACHED"), "{}", output.stdout);
    assert!(!output.stdout.contains("table"), "{}", output.stdout);
}

#[test]
fn the_world_is_reached_by_name() {
    let needs = [&BRIDGE[..], &[Need::PackageMirror]].concat();
    if skip("the_world_is_reached_by_name", &needs) {
        return;
    }
    let kiln = kiln();
    let fetch = "wget -q -O - http://deb.debian.org/debian/dists/stable/Release | grep ^Origin";
    let dockerfile = format!("FROM base\nRUN test -e /sys/class/net/eth0 && {fetch}\n");
    kiln.build_text(&dockerfile, &["-t", "img"]).success();
    let run = |network: &str| kiln.run(&["run", network, "img", "sh", "-c", fetch]).success();
    assert_eq!(run("--network=bridge"), "Origin: Debian\n");
    assert_eq!(run("--network=host"), "Origin: Debian\n");
}
