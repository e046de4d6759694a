//! A hermetic place to run `kiln` in.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::account::{Account, is_public};
use crate::base;

/// A `kiln` binary with a store, a home and a working directory of its own, all removed at the end.
#[derive(Debug)]
pub struct Kiln {
    binary: PathBuf,
    base: PathBuf,
    directory: tempfile::TempDir,
    account: Option<Account>,
    /// What who runs kiln couldn't reach otherwise.
    shared: Option<tempfile::TempDir>,
}

/// What a command did.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; 128 and the signal's number where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Returns standard output of a command that has succeeded.
    ///
    /// # Panics
    /// Panics with all that the command said where it failed.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Returns standard error of a command that has failed.
    ///
    /// # Panics
    /// Panics with all that the command said where it succeeded.
    #[track_caller]
    pub fn failure(self) -> String {
        assert_ne!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }
}

impl Kiln {
    /// Makes a place for the binary at `binary` (`env!("CARGO_BIN_EXE_kiln")`).
    ///
    /// # Panics
    /// Panics where no temporary directory can be made.
    pub fn new(binary: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-test-").tempdir();
        let directory = directory.expect("make a temporary directory");
        std::fs::create_dir(directory.path().join("home")).expect("make a home");
        let (binary, base) = (PathBuf::from(binary), base_layout().to_owned());
        Self { binary, base, directory, account: None, shared: None }
    }

    /// Makes a place where kiln is run by a user who isn't root, and has subordinate ids.
    ///
    /// # Panics
    /// Panics where there is no such user ([`Need::Accounts`](crate::Need::Accounts)).
    pub fn rootless(binary: &str) -> Self {
        Self::new(binary).run_by(Account::MANY_IDS)
    }

    /// Makes a place where kiln is run by a user who isn't root, and has no id but one.
    ///
    /// # Panics
    /// Panics where there is no such user ([`Need::Accounts`](crate::Need::Accounts)).
    pub fn rootless_with_single_id(binary: &str) -> Self {
        Self::new(binary).run_by(Account::SINGLE_ID)
    }

    fn run_by(mut self, name: &'static str) -> Self {
        self.account = Some(Account::find(name).expect("setup has made the user"));
        // A target directory may be nobody else's business.
        let shared = tempfile::Builder::new().prefix("kiln-shared-").tempdir();
        let shared = shared.expect("make a temporary directory");
        open_to_all(shared.path());
        if !is_public(&self.binary) {
            let link = shared.path().join("kiln");
            if std::fs::hard_link(&self.binary, &link).is_err() {
                std::fs::copy(&self.binary, &link).expect("copy the binary");
            }
            self.binary = link;
        }
        if !is_public(&self.base) {
            let copy = shared.path().join("base");
            run(Command::new("cp").arg("-r").arg(&self.base).arg(&copy)).success();
            run(Command::new("chmod").arg("-R").arg("go+rX").arg(&copy)).success();
            self.base = copy;
        }
        self.shared = Some(shared);
        self
    }

    /// Has kiln run from a copy in the working directory, `kiln`, which belongs to who runs it.
    ///
    /// # Panics
    /// Panics where it can't be copied.
    pub fn own_binary(&mut self) {
        let copy = self.path("kiln");
        if self.binary != copy {
            std::fs::copy(&self.binary, &copy).expect("copy the binary");
            self.binary = copy;
        }
    }

    /// Returns who runs kiln, where that isn't root.
    pub fn account(&self) -> Option<Account> {
        self.account
    }

    /// Returns a command that runs `program` as who runs kiln, in the working directory.
    pub fn host(&self, program: &str) -> Command {
        let mut command = match self.account {
            Some(account) => account.command(program),
            None => Command::new(program),
        };
        command.current_dir(self.directory.path());
        command
    }

    /// Returns the OCI layout of the base image, as kiln can read it.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Returns a path in the working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the program's path.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Returns the store's root.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// Waits until the store holds nothing unfinished. A command on a busy machine leaves what it has
    /// no time to remove to the next one, so this runs further ones.
    ///
    /// # Panics
    /// Panics after a minute.
    pub fn wait_until_clean(&self) {
        let leftovers = self.root().join("tmp");
        crate::peers::wait_until("nothing is left of the commands", || {
            self.run(&["images"]).success();
            std::fs::read_dir(&leftovers).is_ok_and(|entries| entries.count() == 0)
        });
    }

    /// Writes a file of the working directory, its parents too, and returns its path.
    ///
    /// # Panics
    /// Panics where it can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let parent = path.parent().expect("the path is below the working directory");
        std::fs::create_dir_all(parent).expect("make the parents");
        std::fs::write(&path, content).expect("write the file");
        path
    }

    /// Returns a command that runs kiln with nothing of the caller's environment.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let command = match self.account {
            Some(account) => account.command(&self.binary),
            None => Command::new(&self.binary),
        };
        self.prepare(command, arguments)
    }

    /// Returns a command that runs kiln in a session of its own, whose terminal is the one on its
    /// standard input.
    pub fn command_on_terminal<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]);
        if let Some(account) = self.account {
            let setpriv = account.command(&self.binary);
            command.arg(setpriv.get_program()).args(setpriv.get_args());
        } else {
            command.arg(&self.binary);
        }
        self.prepare(command, arguments)
    }

    fn prepare<S: AsRef<std::ffi::OsStr>>(&self, mut command: Command, arguments: &[S]) -> Command {
        if let Some(account) = self.account {
            account.hand_over(self.directory.path(), &self.root());
        }
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("KILN_ROOT", self.root())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    /// Runs kiln to its end.
    ///
    /// # Panics
    /// Panics where the binary can't be started.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Output {
        run(&mut self.command(arguments))
    }

    /// Builds the directory `context` of the working directory, with the base image named `base`
    /// at hand, and more arguments.
    ///
    /// # Panics
    /// Panics where the binary can't be started.
    pub fn build(&self, context: &str, arguments: &[&str]) -> Output {
        let base = format!("base=oci-layout://{}", self.base.display());
        let mut all = vec!["build", "--progress", "plain", "--build-context", &base];
        all.extend_from_slice(arguments);
        all.push(context);
        self.run(&all)
    }

    /// Builds the text `dockerfile` with an empty context.
    ///
    /// # Panics
    /// Panics where the binary can't be started.
    pub fn build_text(&self, dockerfile: &str, arguments: &[&str]) -> Output {
        self.write("text/Dockerfile", dockerfile);
        self.build("text", arguments)
    }
}

impl Drop for Kiln {
    fn drop(&mut self) {
        // A build's last act, flushing the store, may still be under way.
        let gone = |path: &Path| std::fs::remove_dir_all(path).is_ok() || !path.exists();
        for _ in 0..250 {
            if gone(self.directory.path()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn open_to_all(directory: &Path) {
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755))
        .expect("let others into a directory");
}

/// Returns a command that does the same under another umask, `022` as `077`.
pub fn under_umask(command: &Command, umask: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask $0 && exec \"$@\"", umask]);
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    shell
}

/// Runs a command to its end.
///
/// # Panics
/// Panics where it can't be started.
pub fn run(command: &mut Command) -> Output {
    use std::os::unix::process::ExitStatusExt;
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let code = output.status.code().unwrap_or(128 + output.status.signal().unwrap_or_default());
    Output {
        code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Returns the OCI layout of the base image, made once and kept beside the test programs; its
/// archive lies beside it, as `base.tar`.
///
/// # Panics
/// Panics where the image can't be made.
pub fn base_layout() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| {
        kept("base", &["mkbase"], |directory| {
            base::write_base(&directory.join("base.tar"), &directory.join("base"));
        })
        .join("base")
    })
}

/// Returns the OCI layout of the base image for this machine and for arm64, made once and kept
/// beside the test programs. It takes Debian's package mirror.
///
/// # Panics
/// Panics where the image can't be made.
pub fn platforms_layout() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| {
        kept("platforms", &["mkbase", "mkbase-platforms"], |directory| {
            base::write_platforms(&directory.join("base"));
        })
        .join("base")
    })
}

/// Returns the directory beside the test programs that `make` has filled, now or earlier. Another
/// busybox, or other tools, make another one.
fn kept(name: &str, tools: &[&str], make: impl FnOnce(&Path)) -> PathBuf {
    let inputs = tools.iter().map(|name| base::tool(name)).chain([PathBuf::from("/bin/busybox")]);
    let inputs: Vec<Vec<u8>> = inputs
        .map(|path| std::fs::read(path).expect("read what the base image is made of"))
        .collect();
    let name = format!("{name}-{}", kiln_oci::Digest::of(&inputs.concat()).short());
    let program = std::env::current_exe().expect("find the test program");
    let kept = program.parent().expect("programs lie in a directory").join(name);
    if !kept.exists() {
        let parent = kept.parent().expect("it lies beside the program");
        let directory = tempfile::tempdir_in(parent).expect("make a temporary directory");
        make(directory.path());
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
            .expect("let others read the base image");
        // Test programs that run side by side may both make it; the first one's is kept.
        match std::fs::rename(directory.path(), &kept) {
            Ok(()) => drop(directory.keep()),
            Err(error) => assert!(kept.exists(), "keep the base image: {error}"),
        }
    }
    kept
}
