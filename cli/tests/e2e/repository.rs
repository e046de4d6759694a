//! Git repositories for tests.

use std::path::PathBuf;
use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::peers::GitDaemon;
use kiln_testkit::{FileServer, Kiln, Need};

/// The requirements of tests with repositories.
pub(crate) const GIT: [Need; 2] = [Need::Root, Need::Program("git")];

/// A repository under construction, and the daemon that serves it.
pub(crate) struct Repository {
    pub(crate) work: PathBuf,
    pub(crate) served: tempfile::TempDir,
    pub(crate) daemon: GitDaemon,
}

impl Repository {
    pub(crate) fn new(kiln: &Kiln) -> Self {
        let served = tempfile::tempdir().unwrap();
        let work = kiln.path("repository");
        std::fs::create_dir(&work).unwrap();
        let daemon = GitDaemon::start(served.path());
        let repository = Self { work, served, daemon };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(&self.work).env("GIT_CONFIG_GLOBAL", "/dev/null");
        git.args(["-c", "user.name=x", "-c", "user.email=x@example.com"]);
        git.args(["-c", "protocol.file.allow=always"]).args(arguments);
        run(&mut git).success().trim().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.work.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Commits all changes, pushes them to the daemon's repository, and returns the commit.
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=x"]);
        self.publish("r.git");
        self.git(&["rev-parse", "HEAD"])
    }

    /// Serves the commits from a plain file server, for git's simple HTTP protocol.
    pub(crate) fn serve_plainly(&self, server: &FileServer) {
        let bare = self.served.path().join("r.git");
        run(Command::new("git").arg("-C").arg(&bare).arg("update-server-info")).success();
        server.serve_directory(self.served.path().to_owned());
    }

    pub(crate) fn publish(&self, name: &str) -> PathBuf {
        let bare = self.served.path().join(name);
        let _ = std::fs::remove_dir_all(&bare);
        let bare_text = bare.to_str().unwrap();
        self.git(&["clone", "--quiet", "--bare", ".", bare_text]);
        bare
    }

    pub(crate) fn url(&self) -> String {
        self.daemon.url("r.git")
    }
}
