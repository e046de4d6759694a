//! The networks of steps and containers without root.

use kiln_testkit::{Kiln, Need, run_in_world, skip};

use crate::network::{NAMES, WHO};
use crate::ports::{ASK, ECHO};

const NEEDS: [Need; 8] = [
    Need::Root,
    Need::Accounts,
    Need::Program("nft"),
    Need::Program("ip"),
    Need::Program("curl"),
    Need::Program("python3"),
    Need::Program("pasta"),
    Need::Program("slirp4netns"),
];

/// Additional shell functions. kiln is run by a user, and every user may open the device for
/// interfaces. `only TOOL` hides the other programs that connect namespaces; `tools` lists those that
/// run.
const WORDS: &str = r#"
mount -t tmpfs tmpfs /dev/net
mknod -m 666 /dev/net/tun c 10 200
echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range
kiln() { setpriv --reuid kiln-test --regid kiln-test --clear-groups -- "$KILN" "$@"; }
only() {
    for tool in pasta slirp4netns; do
        for directory in /usr/bin /bin /usr/local/bin; do
            [ $tool = $1 ] || [ ! -e $directory/$tool ] || mount --bind /dev/null $directory/$tool
        done
    done
}
tools() { ps -eo comm | grep -E '^(pasta|passt|slirp4netns)' || true; }
no_tools() { test -z "$(tools)"; }
ask() { curl -sS --max-time 3 "http://$1/f" 2>/dev/null; }
ask_outside() { out curl -sS --max-time 3 "http://$1/f" 2>/dev/null; }
"#;

/// Returns a kiln of a user, with the image of a server on port 80.
fn server() -> Kiln {
    let kiln = Kiln::rootless(env!("CARGO_BIN_EXE_kiln"));
    let dockerfile = "FROM base\nRUN --network=none mkdir /www && echo page > /www/f\nEXPOSE 80\n\
                      CMD trap exit TERM; httpd -f -p 80 -h /www & wait\n";
    kiln.build_text(dockerfile, &["-t", "server"]).success();
    kiln
}

fn run(kiln: &Kiln, script: &str) -> String {
    let output = run_in_world(kiln, &format!("{WORDS}{script}"));
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    said
}

/// Steps have a network of their own, behind the host's address. Neither a step nor a container with
/// all rights over its own network reaches the host's loopback device.
fn steps_reach_the_outside_only(tool: &str) {
    let kiln = server();
    kiln.write("who.py", WHO);
    kiln.write("names.py", NAMES);
    let script = r"
serve() { python3 who.py $1 $2 & until_there call $1 $2 > /dev/null; }
out python3 who.py 203.0.113.2 7000 &
until_there out busybox nc -w 1 203.0.113.2 7000 </dev/null >/dev/null
serve 0.0.0.0 7001
serve 127.0.0.1 7002
echo 'nameserver 127.0.0.1' > resolv.conf
mount --bind resolv.conf /etc/resolv.conf
python3 names.py &
until_there call 127.0.0.1 53
build 'FROM base
RUN echo interfaces $(ls /proc/sys/net/ipv4/conf); ip -4 -o addr show dev eth0; ip route
RUN echo outside $(sleep 1 | nc -w 5 203.0.113.2 7000)
RUN echo host $(sleep 1 | nc -w 5 host 7001) && ! nc -w 2 host 7002 </dev/null
RUN ! nc -w 2 127.0.0.1 7002 </dev/null && ! nc -w 2 127.0.0.1 53 </dev/null
RUN cat /proc/sys/net/ipv4/ip_unprivileged_port_start && nslookup some.where && ping -c 1 -w 5 203.0.113.2
' --no-cache --add-host host:host-gateway
for address in 10.75.72.2 10.75.72.3 10.75.72.100 10.139.72.1; do
    ! kiln run --rm server nc -w 1 $address 7002 </dev/null
    ! kiln run --rm server nc -w 1 $address 53 </dev/null
done
# A packet for a loopback address gets no further than the gateway.
cat > break.sh <<'BREAK'
ip route add 127.0.0.1/32 via $(ip route | sed -n 's/default via \([0-9.]*\) .*/\1/p') table 7
ip rule add pref 0 table 7
ip addr del 127.0.0.1/8 dev lo
ip route get 127.0.0.1
! nc -w 2 127.0.0.1 7002 </dev/null
BREAK
kiln run --rm --cap-add NET_ADMIN -v $PWD:/w server sh -e /w/break.sh
kiln run --rm server ls /proc/sys/net/ipv4/conf
kiln run --rm --network host server ls /proc/sys/net/ipv4/conf
until_there no_tools
";
    let said = run(&kiln, &format!("only {tool}\n{script}"));
    assert!(said.contains(" interfaces all default eth0 lo\n"), "{said}");
    assert!(said.contains("default via 10.139.72.1 dev eth0"), "{said}");
    assert!(said.contains(" outside from 203.0.113.1\n"), "{said}");
    assert!(said.contains(" host from 203.0.113.1\n"), "{said}");
    assert!(said.contains("Address: 192.0.2.77"), "{said}");
    assert!(said.contains(" 0% packet loss"), "{said}");
    assert!(said.contains("127.0.0.1 via 10.139.72.1 dev eth0"), "{said}");
    assert!(!said.contains("WARNING"), "{said}");
    assert!(said.contains("eth0\nlo\n") && said.contains("lo\nout0\n"), "{said}");
}

#[test]
fn steps_reach_the_outside_only_by_pasta() {
    if skip("steps_reach_the_outside_only_by_pasta", &NEEDS) {
        return;
    }
    steps_reach_the_outside_only("pasta");
}

#[test]
fn steps_reach_the_outside_only_by_slirp4netns() {
    if skip("steps_reach_the_outside_only_by_slirp4netns", &NEEDS) {
        return;
    }
    steps_reach_the_outside_only("slirp4netns");
}

/// Ports are published where the user says, and end with kiln however it ends.
fn ports_are_published(tool: &str) {
    let kiln = server();
    kiln.write("ask.py", ASK);
    kiln.write("echo.py", ECHO);
    let script = r#"
kiln run --rm -p 127.0.0.1:8080:80 -p 8081:80 server &
until_there ask 127.0.0.1:8080
ask 203.0.113.1:8081
ask_outside 203.0.113.1:8081
! ask 203.0.113.1:8080
! ask_outside 203.0.113.1:8080
! kiln run --rm -p 8081:80 server
! kiln run --rm -p 80:80 server
python="-v /usr:/usr -v /lib:/lib -v /lib64:/lib64 -v $PWD:/w -e PATH=/bin:/usr/bin"
kiln run --rm -p 9000:7/udp $python server python3 /w/echo.py &
python3 ask.py 127.0.0.1 9000
out python3 ask.py 203.0.113.1 9000
echo running $(tools)
pkill -KILL -x kiln
until_there no_tools
! ask 127.0.0.1:8080
echo gone
# Steps don't go on without the network that earlier steps had.
build 'FROM base
RUN echo ready; sleep 2
RUN true 2
RUN true 3
RUN true 4
' --no-cache > log &
building=$!
until_there grep -q ' ready$' log
pkill -KILL '^(pasta|passt|slirp4netns)'
! wait $building
cat log
"#;
    let said = run(&kiln, &format!("only {tool}\n{script}"));
    assert_eq!(said.matches("page\n").count(), 3, "{said}");
    assert_eq!(said.matches("echo of hello").count(), 2, "{said}");
    assert!(said.contains("publish port 0.0.0.0:8081/tcp: address already in use"), "{said}");
    assert!(said.contains("publish port 0.0.0.0:80/tcp: permission denied\nhint: "), "{said}");
    let running = said.lines().find(|line| line.starts_with("running "));
    assert_eq!(running.map(|line| line.split(' ').count()), Some(3), "{said}");
    assert!(said.contains("gone\n"), "{said}");
    let ended = "connect with the host's network: the program has ended";
    assert!(said.contains(ended), "{said}");
}

#[test]
fn ports_are_published_by_pasta() {
    if skip("ports_are_published_by_pasta", &NEEDS) {
        return;
    }
    ports_are_published("pasta");
}

#[test]
fn ports_are_published_by_slirp4netns() {
    if skip("ports_are_published_by_slirp4netns", &NEEDS) {
        return;
    }
    ports_are_published("slirp4netns");
}

#[test]
fn the_hosts_network_takes_the_place_of_a_missing_tool() {
    if skip("the_hosts_network_takes_the_place_of_a_missing_tool", &NEEDS) {
        return;
    }
    let kiln = server();
    let script = r"
show() { build 'FROM base\nRUN echo interfaces $(ls /proc/sys/net/ipv4/conf)\nRUN echo second\n' --no-cache; }
# pasta fails without a route, and slirp4netns takes its place.
ip route del default
show
ip route add default via 203.0.113.2
chmod 600 /dev/net/tun
show
chmod 666 /dev/net/tun
only none
show
kiln run --rm server ls /proc/sys/net/ipv4/conf
! kiln run --rm -p 8080:80 server
";
    let said = run(&kiln, script);
    assert_eq!(said.matches(" interfaces all default eth0 lo\n").count(), 1, "{said}");
    assert_eq!(said.matches(" interfaces all default lo out0\n").count(), 2, "{said}");
    let closed = "steps use the host's network: no bridge: open /dev/net/tun: permission denied";
    assert_eq!(said.matches(closed).count(), 1, "{said}");
    let missing = "no bridge: without root it takes pasta or slirp4netns: install the package passt \
                   or slirp4netns";
    let warning = format!("steps use the host's network: {missing}");
    assert_eq!(said.matches(&warning).count(), 1, "{said}");
    let warning = format!("WARNING: the container uses the host's network: {missing}");
    assert_eq!(said.matches(&warning).count(), 1, "{said}");
    let refused = missing.replace("no bridge", "ERROR: no bridge network");
    assert_eq!(said.matches(&refused).count(), 1, "{said}");
    assert!(said.contains("hint: with --network=host"), "{said}");
}
