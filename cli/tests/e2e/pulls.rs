//! Pulls: their progress, their trusted certificates, and their failures.

use std::time::Duration;

use kiln_testkit::certificate::{Certificate, CertificateOptions};
use kiln_testkit::environment::Output;
use kiln_testkit::{FakeRegistry, Kiln, Need, skip};

use crate::kiln;
use crate::terminal::Terminal;

/// Pushes an image with a layer of 2 MB to a registry. Returns its name.
fn image(kiln: &Kiln, registry: &FakeRegistry) -> String {
    let name = format!("{}/x/image", registry.address());
    let text = "FROM base\nRUN head -c 2000000 /dev/urandom > /random\nCMD [\"echo\", \"hello\"]\n";
    kiln.build_text(text, &["-t", &name, "--push"]).success();
    name
}

/// Asserts that a terminal of 80 columns shows `begin`, then a pull's progress, then `end`.
fn on_terminal(kiln: &Kiln, line: &[&str], begin: &str, end: &str) {
    let (mut terminal, other) = Terminal::open();
    terminal.resize(24, 80);
    let stream = || other.try_clone().unwrap();
    let mut command = kiln.command_on_terminal(line);
    let mut child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
    terminal.expect(begin);
    terminal.expect("MB / 2MB ");
    terminal.expect(end);
    assert!(child.wait().unwrap().success());
}

#[test]
fn pulls_show_how_far_they_are() {
    if skip("pulls_show_how_far_they_are", &[Need::Root]) {
        return;
    }
    let registry = FakeRegistry::start();
    let name = image(&kiln(), &registry);
    let slow = |tenth: Option<u64>| {
        let pause = tenth.map(Duration::from_millis);
        registry.switch(|switches| switches.trickle = pause);
    };
    slow(Some(130));
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.contains(": Downloading "));
        lines.sort();
        lines.dedup_by(|one, other| one.split(": ").nth(1) == other.split(": ").nth(1));
        lines.iter().map(|line| line.rsplit(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let layers = ["Download complete", "Pull complete", "Pulling fs layer"];
    let has = |found: &[String], expected: &[&str]| {
        expected.iter().all(|line| found.iter().any(|found| found.contains(line)))
    };
    let pulled = kiln();
    let Output { stdout, stderr, .. } = pulled.run(&["pull", &name]);
    assert!(has(&lines(&stdout), &layers) && !stdout.contains("MB"), "{stdout}");
    assert!(stderr.contains(": Downloading ") && stderr.contains("MB / 2MB\n"), "{stderr}");
    assert_eq!(stderr.lines().count(), stderr.matches(": Downloading ").count(), "{stderr}");
    let run = kiln();
    let Output { code, stdout, stderr } = run.run(&["run", "--rm", &name]);
    assert_eq!((code, stdout.as_str()), (0, "hello\n"), "{stderr}");
    let begin =
        format!("Unable to find image '{name}:latest' locally\nlatest: Pulling from x/image\n");
    assert!(stderr.starts_with(&begin) && has(&lines(&stderr), &layers), "{stderr}");
    assert!(stderr.contains(": Downloading ") && stderr.contains("MB / 2MB\n"), "{stderr}");
    assert!(stderr.ends_with(&format!("Status: Downloaded newer image for {name}:latest\n")));
    slow(None);
    let quiet = kiln().run(&["pull", "-q", &name]);
    assert_eq!((quiet.stdout, quiet.stderr), (format!("{name}:latest\n"), String::new()));
    for flag in ["-q", "--quiet"] {
        let quiet = kiln().run(&["run", flag, &name]);
        assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("hello\n", ""));
    }
    // An image in the store runs without messages and without a request, whatever command brought
    // it there.
    registry.take_requests();
    for kiln in [&pulled, &run] {
        let again = kiln.run(&["run", &name]);
        assert_eq!((again.stdout.as_str(), again.stderr.as_str()), ("hello\n", ""));
        assert!(kiln.run(&["images"]).success().contains(&name));
        kiln.run(&["save", "-o", kiln.path("saved.tar").to_str().unwrap(), &name]).success();
    }
    assert!(registry.take_requests().is_empty());
    slow(Some(50));
    on_terminal(&kiln(), &["run", &name], "[+] Pulling ", "hello");
    on_terminal(&kiln(), &["pull", &name], "[+] Pulling ", "Status: Downloaded newer image");
}

#[test]
fn a_certificate_of_dockers_manual_is_trusted_by_all_commands() {
    let needs = [Need::Root, Need::Program("openssl")];
    if skip("a_certificate_of_dockers_manual_is_trusted_by_all_commands", &needs) {
        return;
    }
    let certificate = Certificate::of_manual("IP:127.0.0.1");
    let registry = FakeRegistry::start_tls(&certificate);
    registry.switch(|switches| switches.basic = Some(("user".to_owned(), "secret".to_owned())));
    let (address, kiln) = (registry.address(), kiln());
    let login = ["login", &address, "-u", "user", "-p", "secret"];
    let refused = kiln.run(&login).failure();
    let problem = "the server's certificate is signed by an unknown authority\nhint: ";
    assert!(refused.contains(problem) && refused.contains(&address), "{refused}");
    kiln.write(
        &format!("home/.config/docker/certs.d/{address}/ca.crt"),
        std::fs::read(certificate.path()).unwrap(),
    );
    kiln.run(&login).success();
    let name = format!("{address}/x");
    let (from, to) =
        (format!("type=registry,ref={name}:cache"), format!("type=registry,ref={name}:cache"));
    let text = "FROM base\nRUN echo x > /x\nCMD [\"cat\", \"/x\"]\n";
    kiln.build_text(text, &["-t", &name, "--push", "--cache-to", &to]).success();
    let clean = ["rmi", "-f", &name];
    kiln.run(&["run", "--rm", "--platform", "linux/amd64", &name]).success();
    kiln.run(&["pull", "--platform", "linux/amd64", &name]).success();
    kiln.run(&["tag", &name, &format!("{name}:2")]).success();
    kiln.run(&["push", &format!("{name}:2")]).success();
    kiln.run(&clean).success();
    let built = kiln.build_text(text, &["-t", "y", "--cache-from", &from]);
    assert!(
        built.stderr.contains("importing cache manifest") && built.code == 0,
        "{}",
        built.stderr
    );
    assert!(!built.stderr.contains("WARN"), "{}", built.stderr);
    kiln.run(&["imagetools", "inspect", &name]).success();
    // The same for a mirror. kiln doesn't trust another server with the same certificate.
    let mirror =
        format!("[registry.\"docker.io\"]\nmirrors = [\"{address}\"]\nonly-mirrors = true\n");
    kiln.write("home/.config/kiln/registries.toml", mirror);
    let copied = format!("{address}/library/x:latest");
    kiln.build_text(text, &["-t", &copied, "--push"]).success();
    kiln.run(&["pull", "x"]).success();
    let stranger = FakeRegistry::start_tls(&certificate);
    let refused = kiln.run(&["pull", &format!("{}/x", stranger.address())]).failure();
    assert!(refused.contains(problem), "{refused}");
}

/// Asserts that the output contains a problem `times` times, and its hint once after it.
#[track_caller]
fn names(said: &str, problem: &str, times: usize, hint: &str) {
    assert_eq!(said.matches(problem).count(), times, "{problem}: {said}");
    assert_eq!(said.matches("hint: ").count(), 1, "{said}");
    let way_out = said.find("hint: ").unwrap();
    assert!(said[way_out..].contains(hint), "{hint}: {said}");
    assert!(said.rfind(problem).unwrap() < way_out, "{said}");
}

#[test]
fn mistakes_are_said_once_with_the_way_out() {
    let needs = [Need::Root, Need::Program("openssl")];
    if skip("mistakes_are_said_once_with_the_way_out", &needs) {
        return;
    }
    let (plain, kiln) = (FakeRegistry::start(), kiln());
    let expired = CertificateOptions { years: (2020, 2021), ..CertificateOptions::default() };
    let expired = Certificate::self_signed(expired);
    let old = FakeRegistry::start_tls(&expired);
    let (plain, old) = (plain.address(), old.address());
    let toml = format!("[registry.\"{plain}\"]\nhttp = false\n");
    kiln.write("home/.config/kiln/registries.toml", toml);
    for (address, problem, hint) in [
        (
            &plain,
            "the server answered in plain HTTP",
            format!("set `http = true` for {plain} in registries.toml"),
        ),
        (&old, "the server's certificate has expired", "set this machine's clock".to_owned()),
    ] {
        let name = format!("{address}/x");
        kiln.build_text("FROM base\n", &["-t", &name]).success();
        for line in [
            &["pull", &name][..],
            &["push", &name],
            &["run", "--pull", "always", &name],
            &["login", address, "-u", "u", "-p", "p"],
            &["manifest", "inspect", &name],
            &["imagetools", "inspect", &name],
        ] {
            names(&kiln.run(line).failure(), problem, 1, &hint);
        }
        // A build prints the problem at the step, and again at its end.
        let from = kiln.build_text(&format!("FROM {name}\n"), &["--pull"]).failure();
        names(&from, problem, 2, &hint);
        let cached = kiln.build_text("FROM base\n", &["--cache-from", &name]);
        names(&cached.stderr, problem, 1, &hint);
        let cached =
            kiln.build_text("FROM base\n", &["--cache-to", &format!("type=registry,ref={name}")]);
        names(&cached.stderr, problem, 2, &hint);
        let url = format!("https://{address}/context.tar");
        let hint = if address == &plain { "write http:// in the URL" } else { &hint };
        for (times, failed) in [
            (2, kiln.build_text(&format!("FROM scratch\nADD {url} /\n"), &[])),
            (2, kiln.build(&url, &[])),
            (1, kiln.build("text", &["-f", &url])),
        ] {
            names(&failed.failure(), problem, times, hint);
        }
    }
}

#[test]
fn refusals_of_layers_are_as_those_of_manifests() {
    if skip("refusals_of_layers_are_as_those_of_manifests", &[Need::Root]) {
        return;
    }
    let registry = FakeRegistry::start();
    let of_image = kiln();
    let name = image(&of_image, &registry);
    let listed = registry.take_requests();
    let layer = listed.iter().filter(|request| request.method == "PUT").find_map(|request| {
        let digest = request.path.split("digest=").nth(1)?;
        (request.body.len() > 1_000_000).then(|| digest.replace("%3A", ":"))
    });
    let hint =
        format!("hint: check the spelling, or log in with `kiln login {}`", registry.address());
    let problem = "access denied: not for you (403 Forbidden)";
    for part in ["/manifests/", "/blobs/", &layer.unwrap()] {
        registry.switch(|switches| switches.forbidden = Some(part.to_owned()));
        names(&kiln().run(&["pull", &name]).failure(), problem, 1, &hint);
        names(&kiln().run(&["run", &name]).failure(), problem, 1, &hint);
        let built = kiln().build_text(&format!("FROM {name}\nRUN true\n"), &[]).failure();
        names(&built, problem, 2, &hint);
    }
    let other = format!("{}/y", registry.address());
    of_image.build_text("FROM base\n", &["-t", &other]).success();
    for part in ["/blobs/", "/blobs/uploads/", "/manifests/"] {
        registry.switch(|switches| switches.forbidden = Some(part.to_owned()));
        let refused = of_image.run(&["push", &other]).failure();
        names(&refused, "access denied", 1, &hint);
    }
}

#[test]
fn descriptors_that_disagree_with_what_is_here_are_refused() {
    if skip("descriptors_that_disagree_with_what_is_here_are_refused", &[Need::Root]) {
        return;
    }
    let (kiln, registry) = (kiln(), FakeRegistry::start());
    // An archive without files.
    let layer = registry.put_blob(&[0; 1024]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{layer}"]}}}}"#
    );
    let length = config.len() as u64;
    let config = registry.put_blob(config.as_bytes());
    let pull = |of_config: u64, of_layer: u64| {
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.to_string(),
                "size": of_config,
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer.to_string(),
                "size": of_layer,
            }],
        });
        let kind = manifest["mediaType"].as_str().unwrap();
        registry.put_manifest("a/b", "1", kind, manifest.to_string().as_bytes());
        let name = format!("{}/a/b:1", registry.address());
        kiln.run(&["pull", "--platform", "linux/amd64", &name])
    };
    pull(length, 1024).success();
    for size in [0, 7, 1025, i64::MAX as u64] {
        let stderr = pull(length, size).failure();
        assert!(stderr.contains("bytes"), "{stderr}");
        pull(size, 1024).failure();
    }
    pull(length, 1024).success();
}
