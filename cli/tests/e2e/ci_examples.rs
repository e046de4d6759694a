//! The examples for CI systems in `examples/ci`: their commands, run as the systems run them.

use std::path::{Path, PathBuf};

use kiln_testkit::environment::run;
use kiln_testkit::peers::{DockerRegistry, LOGIN, RegistryOptions};
use kiln_testkit::{Kiln, Need, base, skip};

use crate::kiln;
use crate::repository::Repository;

/// Returns the examples.
fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ci");
    let mut examples: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.retain(|path| path.file_name().unwrap() != "README.md");
    examples.sort();
    examples
}

/// A registry with a login, and a repository with a Dockerfile on its base image.
struct Scene {
    registry: DockerRegistry,
    kiln: Kiln,
    repository: Repository,
}

impl Scene {
    fn new() -> Self {
        let options = RegistryOptions { login: true, ..RegistryOptions::default() };
        let registry = DockerRegistry::start_with(options);
        let kiln = kiln();
        let (address, (user, password)) = (registry.address(), LOGIN);
        kiln.write("password", password);
        let mut login = kiln.command(&["login", "-u", user, "--password-stdin", &address]);
        let password = std::fs::File::open(kiln.path("password")).unwrap();
        run(login.stdin(password)).success();
        let base = format!("{address}/base");
        kiln.build_text("FROM base\n", &["-t", &base, "--push"]).success();
        let repository = Repository::new(&kiln);
        repository.write("Dockerfile", &format!("FROM {base}\nRUN echo built > /f\n"));
        repository.commit();
        Self { registry, kiln, repository }
    }

    /// Runs the commands of an example on a machine that knows nothing. Returns what they print.
    fn run(&self, example: &Path, machine: &str) -> String {
        let kiln = &self.kiln;
        let store = kiln.path(machine);
        std::fs::create_dir_all(store.join("bin")).unwrap();
        std::os::unix::fs::symlink(kiln.binary(), store.join("bin/kiln")).unwrap();
        let mut command = std::process::Command::new(base::tool("ci-example"));
        command.arg(example).env("REGISTRY", self.registry.address());
        command.env("REGISTRY_USER", LOGIN.0).env("REGISTRY_PASSWORD", LOGIN.1);
        command.env("REPOSITORY", self.repository.url()).env("STORE", &store);
        command.env("CREDENTIALS", kiln.path("home/.docker"));
        let script = run(&mut command).success();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1\n{script}")]).current_dir(&self.repository.work);
        shell.env_clear().env("HOME", &store).env("KILN_ROOT", store.join("store"));
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", store.join("bin").display());
        run(shell.env("PATH", path)).success()
    }
}

#[test]
fn examples_build_push_and_use_the_cache() {
    let needs = [
        Need::Root,
        Need::Program("docker-registry"),
        Need::Program("git"),
        Need::Program("python3"),
    ];
    if skip("examples_build_push_and_use_the_cache", &needs) {
        return;
    }
    let examples = examples();
    assert_eq!(examples.len(), 6);
    for example in &examples {
        let scene = Scene::new();
        let said = scene.run(example, "first");
        assert!(said.contains("RUN echo built") && !said.contains("CACHED"), "{said}");
        // Another machine takes the step from the registry.
        let said = scene.run(example, "second");
        assert!(said.contains("CACHED"), "{said}");
        let name = format!("{}/app:latest", scene.registry.address());
        let seen = scene.kiln.run(&["run", "--rm", "--network=none", &name, "cat", "/f"]);
        assert_eq!(seen.success(), "built\n", "{}", example.display());
    }
}
