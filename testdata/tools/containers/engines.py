"""Docker's engines of the harness's own, with and without user namespaces.

Each has its state in a directory, listens to nothing but a socket there, and leaves the machine's network as it is.
"""
import os
import shutil
import signal
import subprocess
import threading
import time

from kernels.trouble import Missing

# Debian's client is preferred to another one that comes first on the path.
PATH = '/usr/bin:/usr/sbin:/bin:/sbin'
# Should this program be killed, the one that it started goes with it.
DIE_TOGETHER = ['setpriv', '--pdeathsig', 'KILL']
# The user whose subordinate IDs the remapped engine's containers have.
REMAPPED_TO = 'kiln-test'
IMAGE = 'kiln'
# What docker says of a container that the engine couldn't start.
NOT_STARTED = 'docker: Error response from daemon'
# Whose containers find programs as a shell does.
SEARCH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


def find(program, package):
    """Returns the path of a program of Debian's."""
    found = shutil.which(program, path=PATH)
    if not found:
        raise Missing(f'{program} (Debian package {package})')
    return found


def call(command, environment=None):
    """Runs a command and returns what it prints. An error has what it says."""
    done = subprocess.run(command, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, errors='replace')
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)}: {done.stderr.strip() or done.stdout.strip()}')
    return done.stdout


class Docker:
    """An engine of Docker's."""

    def __init__(self, directory, is_remapped=False):
        self.directory, self.is_remapped = directory, is_remapped
        self.socket = os.path.join(directory, 'socket')
        self.client = [find('docker', 'docker.io'), '--host', f'unix://{self.socket}']
        self.environment = dict(os.environ, DOCKER_CONFIG=directory)
        self.process = None

    def start(self):
        """Starts the engine. It ends with the thread that calls this."""
        # What containers mount lies below, and remapped users go through it.
        os.makedirs(self.directory, mode=0o711)
        command = [*DIE_TOGETHER, find('dockerd', 'docker.io'), '--host', f'unix://{self.socket}', '--bridge=none',
                   '--iptables=false', '--ip6tables=false', '--ip-masq=false']
        for option, name in {'data-root': 'data', 'exec-root': 'exec', 'pidfile': 'pid'}.items():
            command += [f'--{option}', os.path.join(self.directory, name)]
        if self.is_remapped:
            command += ['--userns-remap', REMAPPED_TO]
        with open(self.log(), 'wb') as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                            start_new_session=True)

    def wait(self):
        """Waits until the engine answers."""
        for _ in range(600):
            if self.process.poll() is not None:
                break
            if subprocess.run([*self.client, 'version'], env=self.environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.05)
        with open(self.log(), encoding='utf-8', errors='replace') as file:
            said = ' '.join(file.read().splitlines()[-2:])
        self.stop()
        raise Missing(f'a Docker engine that starts here: {said}')

    def log(self):
        """Returns the path of what the engine says."""
        return os.path.join(self.directory, 'log')

    def load(self, archive, image=IMAGE):
        """Makes an image of a root file system."""
        call([*self.client, 'import', '--change', f'ENV {SEARCH}', archive, image], self.environment)

    def run(self, setting, command, volumes, settings, seconds, image=IMAGE):
        """Runs a command in a container, and yields what it prints, line by line."""
        name = f'{IMAGE}-{setting.name}-{threading.get_ident()}'
        words = [*self.client, 'run', '--rm', '--name', name, '--network', 'none', *setting.options]
        for source, destination in volumes.items():
            words += ['--volume', f'{source}:{destination}']
        for key, value in settings.items():
            words += ['--env', f'{key}={value}']
        words += [image, *command]
        lines = stream(words, self.environment, seconds, lambda: self.kill(name))
        first = next(lines, '')
        if first.startswith(NOT_STARTED):
            # The engine now and then fails to set up a container of a busy machine.
            lines, first = stream(words, self.environment, seconds, lambda: self.kill(name)), ''
        if first:
            yield first
        yield from lines

    def kill(self, name):
        """Kills a container that takes too long."""
        subprocess.run([*self.client, 'kill', name], env=self.environment, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def stop(self):
        """Stops the engine with its containers."""
        if not self.process:
            return
        listing = subprocess.run([*self.client, 'ps', '--quiet'], env=self.environment, text=True, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL).stdout
        for container in listing.split():
            self.kill(container)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        unmount_below(self.directory)


def stream(command, environment, seconds, end):
    """Runs a command and yields what it prints. `end` is called if it takes too long."""
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors='replace') as process:
        watch = threading.Timer(seconds, lambda: (end(), process.kill()))
        watch.start()
        try:
            for line in process.stdout:
                yield line.rstrip('\r\n')
        finally:
            watch.cancel()
            if process.poll() is None and process.stdout.closed:
                process.kill()


def unmount_below(directory):
    """Unmounts everything below a directory, the deepest first."""
    with open('/proc/self/mounts', encoding='utf-8') as file:
        places = [line.split()[1] for line in file]
    for place in sorted((place for place in places if place.startswith(directory + '/')), key=len, reverse=True):
        subprocess.run(['umount', '--lazy', place], stderr=subprocess.DEVNULL)
