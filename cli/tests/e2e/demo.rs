//! The steps of `make demo`.

use kiln_testkit::environment::base_layout;
use kiln_testkit::{Need, base, skip};

use crate::{kiln, steps};

#[test]
fn the_demo_is_built_run_and_then_found_in_the_cache() {
    if skip("the_demo_is_built_run_and_then_found_in_the_cache", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let demo = base::repository().join("testdata/demo");
    let demo = demo.to_str().unwrap();
    let context = format!("base=oci-layout://{}", base_layout().display());
    let build = || {
        kiln.run(&["build", "--progress=plain", "--build-context", &context, "-t", "demo", demo])
    };

    let first = build();
    assert!(steps(&first.stderr).1 >= 4, "{}", first.stderr);
    first.success();
    let output = kiln.run(&["run", "--rm", "demo"]).success();
    assert_eq!(
        output,
        "Hello, world! This image was built, and is run, by kiln.\n\
         It knows 25 primes; the largest is 97.\n"
    );
    assert!(kiln.run(&["run", "--rm", "demo", "you"]).success().starts_with("Hello, you!"));

    let second = build();
    let ran: Vec<&str> = second
        .stderr
        .lines()
        .filter(|line| line.contains("] RUN ") || line.contains("] COPY "))
        .collect();
    assert!(!ran.is_empty(), "{}", second.stderr);
    for line in ran {
        let number = line.split(' ').next().unwrap();
        assert!(second.stderr.contains(&format!("{number} CACHED")), "{line}\n{}", second.stderr);
    }
    second.success();
}
