//! A hermetic environment for running `kiln`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::account::{Account, is_public};
use crate::base;

/// The environment variable with the isolation that all kilns of a test run use, such as `none`.
const ISOLATION: &str = "KILN_TEST_ISOLATION";

/// A `kiln` binary with its own store, home and working directory. Dropping it removes all three.
#[derive(Debug)]
pub struct Kiln {
    binary: PathBuf,
    base: PathBuf,
    directory: tempfile::TempDir,
    account: Option<Account>,
    /// Copies of files that the user running kiln can't read otherwise.
    shared: Option<tempfile::TempDir>,
}

/// The result of a command that has ended.
#[derive(Debug)]
pub struct Output {
    /// The exit code, or 128 plus the number of the signal that ended the command.
    pub code: i32,
    /// The text on standard output.
    pub stdout: String,
    /// The text on standard error.
    pub stderr: String,
}

impl Output {
    /// Returns the standard output of a successful command.
    ///
    /// # Panics
    /// Panics with the whole output if the command failed.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Returns the standard error of a failed command.
    ///
    /// # Panics
    /// Panics with the whole output if the command succeeded.
    #[track_caller]
    pub fn failure(self) -> String {
        assert_ne!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }
}

impl Kiln {
    /// Creates an environment for the binary at `binary` (`env!("CARGO_BIN_EXE_kiln")`).
    ///
    /// # Panics
    /// Panics if no temporary directory can be created.
    pub fn new(binary: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-test-").tempdir();
        let directory = directory.expect("make a temporary directory");
        std::fs::create_dir(directory.path().join("home")).expect("make a home");
        let (binary, base) = (PathBuf::from(binary), base_layout().to_owned());
        Self { binary, base, directory, account: None, shared: None }
    }

    /// Creates an environment in which a user other than root, with subordinate IDs, runs kiln.
    ///
    /// # Panics
    /// Panics if the user doesn't exist ([`Need::Accounts`](crate::Need::Accounts)).
    pub fn rootless(binary: &str) -> Self {
        Self::new(binary).run_by(Account::MANY_IDS)
    }

    /// Creates an environment in which a user other than root, without subordinate IDs, runs kiln.
    ///
    /// # Panics
    /// Panics if the user doesn't exist ([`Need::Accounts`](crate::Need::Accounts)).
    pub fn rootless_with_single_id(binary: &str) -> Self {
        Self::new(binary).run_by(Account::SINGLE_ID)
    }

    fn run_by(mut self, name: &'static str) -> Self {
        self.account = Some(Account::find(name).expect("setup has made the user"));
        // The user may lack access to the target directory.
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

    /// Replaces the binary by a copy in the working directory, `kiln`, which the user running kiln
    /// owns.
    ///
    /// # Panics
    /// Panics if the binary can't be copied.
    pub fn own_binary(&mut self) {
        let copy = self.path("kiln");
        if self.binary != copy {
            std::fs::copy(&self.binary, &copy).expect("copy the binary");
            self.binary = copy;
        }
    }

    /// Returns the user that runs kiln, or `None` for root.
    pub fn account(&self) -> Option<Account> {
        self.account
    }

    /// Returns a command that runs `program` in the working directory as the user that runs kiln.
    pub fn host(&self, program: &str) -> Command {
        let mut command = match self.account {
            Some(account) => account.command(program),
            None => Command::new(program),
        };
        command.current_dir(self.directory.path());
        command
    }

    /// Returns the path of the base image's OCI layout, which kiln can read.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Returns a path in the working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the path of the binary.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Returns the root directory of the store.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// Waits until the store's `tmp` directory is empty. On a busy machine, a command may leave
    /// files for the next command to remove, so this runs further commands.
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

    /// Writes a file of the working directory, and creates its parents. Returns its path.
    ///
    /// # Panics
    /// Panics if the file can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let parent = path.parent().expect("the path is below the working directory");
        std::fs::create_dir_all(parent).expect("make the parents");
        std::fs::write(&path, content).expect("write the file");
        path
    }

    /// Returns a command that runs kiln without the caller's environment.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let command = match self.account {
            Some(account) => account.command(&self.binary),
            None => Command::new(&self.binary),
        };
        self.prepare(command, arguments)
    }

    /// Returns a command that runs kiln in a new session. The terminal on its standard input
    /// controls the session.
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
        if let Some(isolation) = std::env::var_os(ISOLATION) {
            command.env("KILN_ISOLATION", isolation);
        }
        command
    }

    /// Runs kiln and waits until it ends.
    ///
    /// # Panics
    /// Panics if the binary can't be started.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Output {
        run(&mut self.command(arguments))
    }

    /// Builds the directory `context` of the working directory, with `arguments` and the base image
    /// as the named context `base`.
    ///
    /// # Panics
    /// Panics if the binary can't be started.
    pub fn build(&self, context: &str, arguments: &[&str]) -> Output {
        let base = format!("base=oci-layout://{}", self.base.display());
        let mut all = vec!["build", "--progress", "plain", "--build-context", &base];
        all.extend_from_slice(arguments);
        all.push(context);
        self.run(&all)
    }

    /// Builds the Dockerfile `dockerfile` with an empty context.
    ///
    /// # Panics
    /// Panics if the binary can't be started.
    pub fn build_text(&self, dockerfile: &str, arguments: &[&str]) -> Output {
        self.write("text/Dockerfile", dockerfile);
        self.build("text", arguments)
    }
}

impl Drop for Kiln {
    fn drop(&mut self) {
        // A build may still be flushing the store.
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

/// Returns a command that does the same with another umask, such as `077`.
pub fn under_umask(command: &Command, umask: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask $0 && exec \"$@\"", umask]);
    with_arguments(shell, command)
}

/// Returns a command that runs a shell script as root, in a mount namespace of its own. The script
/// gets the words of `command` as its arguments, and executes them.
pub fn run_first(command: &Command, script: &str) -> Command {
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", script, "sh"]);
    with_arguments(shell, command)
}

/// Appends the words of `command` to those of `shell`, with its environment and directory.
pub fn with_arguments(mut shell: Command, command: &Command) -> Command {
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    shell
}

/// Runs a command and waits until it ends.
///
/// # Panics
/// Panics if the command can't be started.
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

/// Returns the path of the base image's OCI layout. The image is created once and kept beside the
/// test programs. Its archive is beside the layout, as `base.tar`.
///
/// # Panics
/// Panics if the image can't be created.
pub fn base_layout() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| {
        kept("base", &["mkbase"], |directory| {
            base::write_base(&directory.join("base.tar"), &directory.join("base"));
        })
        .join("base")
    })
}

/// Returns the path of the OCI layout of the base image for this machine and for arm64. The image
/// is created once, from Debian's package mirror, and kept beside the test programs.
///
/// # Panics
/// Panics if the image can't be created.
pub fn platforms_layout() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| {
        kept("platforms", &["mkbase", "mkbase-platforms"], |directory| {
            base::write_platforms(&directory.join("base"));
        })
        .join("base")
    })
}

/// Returns a directory beside the test programs that `make` fills. A directory from an earlier run
/// is used again unless busybox or the tools have changed.
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
        // Two test programs may create the directory at the same time. The first one wins.
        match std::fs::rename(directory.path(), &kept) {
            Ok(()) => drop(directory.keep()),
            Err(error) => assert!(kept.exists(), "keep the base image: {error}"),
        }
    }
    kept
}
