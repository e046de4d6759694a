//! `kiln login` and `kiln logout`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use kiln_testkit::fake_registry::{FakeRegistry, REFRESH_TOKEN, TokenKind};
use kiln_testkit::{Kiln, Output};

use crate::kiln;

fn registry() -> FakeRegistry {
    let registry = FakeRegistry::start();
    registry.switch(|switches| {
        switches.require_token = true;
        switches.login = Some(("user".to_owned(), "secret".to_owned()));
    });
    registry
}

fn login(kiln: &Kiln, server: &str, password: &str) -> Output {
    let arguments = ["login", server, "--username", "user", "--password-stdin"];
    let mut child = kiln
        .command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn config(kiln: &Kiln) -> serde_json::Value {
    let text = std::fs::read(kiln.path("home/.docker/config.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn passwords_are_checked_and_kept() {
    let (kiln, registry) = (kiln(), registry());
    let server = registry.address();
    kiln.write("home/.docker/config.json", r#"{"psFormat": "x"}"#);
    let stderr = login(&kiln, &server, "guess").failure();
    assert!(stderr.contains("incorrect username or password"), "{stderr}");
    assert!(!stderr.contains("guess") && !stderr.contains("log in"), "{stderr}");
    assert_eq!(config(&kiln), serde_json::json!({"psFormat": "x"}));

    let done = login(&kiln, &server, "secret");
    let file = kiln.path("home/.docker/config.json");
    let warning = format!("Your password will be stored unencrypted in {}", file.display());
    assert!(done.stderr.contains(&warning), "{}", done.stderr);
    assert_eq!(done.success(), "Login Succeeded\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let expected = serde_json::json!({
        "psFormat": "x",
        "auths": {server.clone(): {"auth": "dXNlcjpzZWNyZXQ="}},
    });
    assert_eq!(config(&kiln), expected);

    let again = kiln.run(&["login", &format!("http://{server}/v2/")]).success();
    assert_eq!(again, "Authenticating with existing credentials...\nLogin Succeeded\n");
    let gone = kiln.run(&["logout", &server]).success();
    assert_eq!(gone, format!("Removing login credentials for {server}\n"));
    assert_eq!(config(&kiln), serde_json::json!({"psFormat": "x", "auths": {}}));
    let nothing = kiln.run(&["logout", &server]).success();
    assert_eq!(nothing, format!("Not logged in to {server}\n"));
}

#[test]
fn tokens_are_kept_in_place_of_passwords() {
    let (kiln, registry) = (kiln(), registry());
    registry.switch(|switches| switches.token_kind = TokenKind::Identity);
    login(&kiln, &registry.address(), "secret").success();
    let entry = &config(&kiln)["auths"][registry.address()];
    assert_eq!(entry["identitytoken"], REFRESH_TOKEN);
    assert_eq!(entry["auth"], "dXNlcjo=", "the name alone");
    let files = std::fs::read_to_string(kiln.path("home/.docker/config.json")).unwrap();
    assert!(!files.contains("secret"));
}

#[test]
fn helpers_keep_what_is_told_them() {
    let (kiln, registry) = (kiln(), registry());
    let server = registry.address();
    let kept = kiln.path("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat >{0} ;;\nget) cat >{0}.asked; cat {0} 2>/dev/null ||\n\
         {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\n\
         erase) cat >/dev/null; rm {0} ;;\nesac\n",
        kept.display()
    );
    let program = kiln.write("bin/docker-credential-test", script);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    kiln.write("home/.docker/config.json", r#"{"credsStore": "test"}"#);
    let path = format!("{}:/usr/bin:/bin", kiln.path("bin").display());
    let with_helper = |arguments: &[&str], input: &str| {
        let mut command = kiln.command(arguments);
        command.env("PATH", &path).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        write!(child.stdin.take().unwrap(), "{input}").unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        assert!(!stderr.contains("unencrypted"), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    let arguments = ["login", &server, "-u", "user", "--password-stdin"];
    assert_eq!(with_helper(&arguments, "secret"), "Login Succeeded\n");
    let stored: serde_json::Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    let expected = serde_json::json!({
        "ServerURL": server.clone(), "Username": "user", "Secret": "secret",
    });
    assert_eq!(stored, expected);
    let expected = serde_json::json!({"credsStore": "test", "auths": {server.clone(): {}}});
    assert_eq!(config(&kiln), expected);
    let again = with_helper(&["login", &server], "");
    assert!(again.ends_with("Login Succeeded\n"), "{again}");
    let asked = std::fs::read_to_string(kiln.path("kept.asked")).unwrap();
    assert_eq!(asked, server);
    with_helper(&["logout", &server], "");
    assert!(!kept.exists());
    assert_eq!(config(&kiln)["auths"], serde_json::json!({}));
}

#[test]
fn what_cannot_be_is_refused_as_docker_does() {
    let kiln = kiln();
    for (arguments, text) in [
        (&["login", "x", "--password-stdin"][..], "Must provide --username with --password-stdin"),
        (
            &["login", "x", "-u", "u", "-p", "p", "--password-stdin"],
            "--password and --password-stdin are mutually exclusive",
        ),
        (&["login", "x"], "Cannot perform an interactive login from a non TTY device"),
        (&["login", "x", "-u", "u", "-p", ""], "Password Required"),
        (&["login", "a b"], "this is no address of a registry"),
    ] {
        let stderr = kiln.run(arguments).failure();
        assert!(stderr.contains(text), "{arguments:?}: {stderr}");
    }
}
