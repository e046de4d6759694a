//! Isolation of steps and containers on the bridge from each other and from the host.

use kiln_testkit::{Need, run_in_world, skip};

use crate::arena::{Arena, is_rootless};

const NEEDS: [Need; 4] =
    [Need::Root, Need::Program("nft"), Need::Program("ip"), Need::Program("curl")];

/// A container runs a server. A step can't reach it, though the host can. A step with full control
/// of its interface takes the container's address and receives none of its callers.
#[test]
fn nobody_reaches_or_impersonates_another() {
    // Without root, kiln has no bridge.
    if is_rootless() || skip("nobody_reaches_or_impersonates_another", &NEEDS) {
        return;
    }
    let Some(arena) = Arena::new("nobody_reaches_or_impersonates_another") else { return };
    arena.build("FROM base\nRUN mkdir /www\n", &["-t", "server"]).success();
    let script = r#"
serve='trap exit TERM; httpd -f -p 80 -h /www & wait'
kiln run --rm server sh -c "ip -4 -o addr show dev eth0; echo of the victim > /www/f; $serve" > victim &
until_there grep -q 'inet ' victim
address=$(sed -n 's/.*inet \([0-9.]*\).*/\1/p' victim)
ask() { curl -sS --max-time 3 "http://$1/f"; }
until_there ask $address
(while true; do echo innocent | busybox nc -l -p 7000; done) &
build "FROM base\nRUN nc -w 3 10.75.72.1 7000 </dev/null | grep innocent && ! nc -w 2 $address 80 </dev/null\n"

hardware=$(ip neighbour show $address | sed 's/.*lladdr \([^ ]*\) .*/\1/')
build "FROM server\nRUN --security=insecure ip link set eth0 down && ip link set eth0 address $hardware && \
    ip link set eth0 up && ip addr flush dev eth0 && ip addr add $address/22 dev eth0 && \
    echo of the thief > /www/f && httpd -p 80 -h /www && wget -q -O - http://$address/f && \
    for i in 1 2 3 4 5 6; do arping -q -U -c 1 -I eth0 $address; nc -w 1 10.75.72.1 1; sleep 0.5; done; true\n" \
    --no-cache --allow security.insecure > thief &
thief=$!
until_there grep -q 'of the thief$' thief
for _ in 1 2 3 4 5 6; do ask $address; sleep 0.3; done
wait $thief
cat thief
"#;
    let output = run_in_world(&arena.kiln, script);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    let lines = |text: &str| output.stdout.lines().filter(|line| *line == text).count();
    assert_eq!((lines("of the victim"), lines("of the thief")), (7, 0), "{said}");
    arena.finish();
}

/// A port that is published on one address is not reachable on others.
#[test]
fn a_port_is_published_where_it_was_asked_for() {
    if is_rootless() || skip("a_port_is_published_where_it_was_asked_for", &NEEDS) {
        return;
    }
    let Some(arena) = Arena::new("a_port_is_published_where_it_was_asked_for") else { return };
    arena.build("FROM base\nRUN mkdir /www && echo page > /www/f\n", &["-t", "server"]).success();
    let script = r#"
kiln run --rm -p 127.0.0.1:8080:80 -p 8081:80 server sh -c 'trap exit TERM; httpd -f -p 80 -h /www & wait' &
ask() { curl -sS --max-time 2 "http://$1/f"; }
until_there ask 127.0.0.1:8080
! ask 203.0.113.1:8080
! out curl -sS --max-time 2 http://203.0.113.1:8080/f
# Nor by a packet for a loopback address that comes from outside, or from a container.
out ip route add 127.0.0.1/32 via 203.0.113.1 table 7
out ip rule add pref 0 table 7
! out curl -sS --max-time 2 http://127.0.0.1:8080/f
out ip rule del pref 0 table 7
! kiln run --rm server nc -w 2 10.75.72.1 8080
cat /proc/sys/net/ipv4/conf/*/route_localnet | sort -u
out curl -sS --max-time 2 http://203.0.113.1:8081/f
"#;
    let output = run_in_world(&arena.kiln, script);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    assert!(output.stdout.ends_with("page\n0\npage\n"), "{said}");
    arena.finish();
}
