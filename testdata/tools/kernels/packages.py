"""Kernels of Debian's and Ubuntu's releases, fetched as packages with an apt state of their own.

Nothing of the machine's own package lists is read or changed but the address of the mirror, the proxy settings and
the archive's keys. What was fetched stays in the cache directory, and later runs ask no server.
"""
import fcntl
import glob
import os
import re
import shutil
import subprocess

from .trouble import Missing

KEYRINGS = '/usr/share/keyrings'
MIRROR = 'http://deb.debian.org/debian'
UBUNTU = 'http://archive.ubuntu.com/ubuntu'


class Debian:
    """A release of Debian's."""

    # What depends on the release's kernel, and the names of the packages that the kernel consists of.
    meta_package = 'linux-image-cloud-amd64'
    parts = r'linux-(?:image|binary|modules)-\d\S*-cloud-amd64'

    def __init__(self, name):
        self.name = name

    def sources(self, _home):
        """Returns the sources of packages: on the mirrors that this machine uses."""
        keyring = os.path.join(KEYRINGS, 'debian-archive-keyring.gpg')
        signed = f'[signed-by={keyring}] ' if os.path.exists(keyring) else ''
        mirror, security = mirrors()
        lines = [f'deb {signed}{mirror} {self.name} main']
        if self.name != 'sid':
            lines.append(f'deb {signed}{security} {self.name}-security main')
        return '\n'.join(lines) + '\n'


class Ubuntu:
    """A release of Ubuntu's."""

    meta_package = 'linux-image-virtual'
    parts = r'linux-(?:image|modules)-\d\S*-generic'

    def __init__(self, name):
        self.name = name

    def sources(self, home):
        """Returns the sources of packages. The archive's keys are a package of Debian's, should this machine lack them."""
        keyring = 'ubuntu-archive-keyring.gpg'
        keys = os.path.join(KEYRINGS, keyring)
        if not os.path.exists(keys):
            keys = os.path.join(home, 'keys', KEYRINGS.lstrip('/'), keyring)
            unpack(Apt(RELEASES['newest'], os.path.join(home, 'apt-of-keys')), ['ubuntu-keyring'], os.path.join(home, 'keys'))
        return ''.join(f'deb [signed-by={keys}] {UBUNTU} {self.name}{suite} main\n' for suite in ('', '-updates', '-security'))


# The release that has a kernel, by the name that the kernel goes by here.
RELEASES = {'5.10': Debian('bullseye'), '5.15': Ubuntu('jammy'), '6.1': Debian('bookworm'), '6.8': Ubuntu('noble'),
            '6.12': Debian('trixie'), 'newest': Debian('sid')}


class Kernel:
    """A kernel with its modules, unpacked."""

    def __init__(self, name, directory):
        self.name = name
        self.image = only(directory, 'boot/vmlinuz-*', 'usr/lib/modules/*/vmlinuz', 'lib/modules/*/vmlinuz')
        self.modules = only(directory, 'usr/lib/modules/*/kernel', 'lib/modules/*/kernel')
        self.version = os.path.basename(os.path.dirname(self.modules))


def only(directory, *patterns):
    """Returns the newest path that fits the first pattern that fits any."""
    for pattern in patterns:
        found = sorted(glob.glob(os.path.join(directory, pattern)))
        if found:
            return found[-1]
    raise Missing(f'none of {" ".join(patterns)} in {directory}: the packages have another layout')


def kernel(name, cache):
    """Returns a kernel; it is fetched unless the cache has it."""
    if name not in RELEASES:
        raise Missing(f'no kernel {name}: there are {" ".join(RELEASES)}')
    home = os.path.join(os.path.abspath(cache), name)
    return Kernel(name, once(home, 'kernel', lambda ready: fetch(RELEASES[name], home, ready)))


def once(home, name, make):
    """Returns the directory `name` in `home`; `make` makes it, whole, unless it is there. Others wait meanwhile."""
    ready = os.path.join(home, name)
    os.makedirs(home, exist_ok=True)
    with open(os.path.join(home, 'lock'), 'w', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(ready):
            make(ready)
    return ready


def fetch(release, home, ready):
    """Downloads a release's kernel packages and unpacks them into `ready`."""
    for program in ('apt-get', 'apt-cache', 'dpkg-deb'):
        if not shutil.which(program):
            raise Missing(f'{program} is needed to fetch the kernel of {release.name}')
    temporary, unpacked = os.path.join(home, 'temporary'), ready + '.new'
    for directory in (temporary, unpacked):
        shutil.rmtree(directory, ignore_errors=True)
    apt = Apt(release, os.path.join(temporary, 'apt'))
    unpack(apt, apt.kernel_packages(), unpacked)
    Kernel(release.name, unpacked)
    os.rename(unpacked, ready)
    # The lists and packages are large, and no longer needed.
    shutil.rmtree(temporary)


def unpack(apt, packages, directory):
    """Downloads packages and unpacks them into a directory."""
    print(f'fetching {" ".join(packages)}', flush=True)
    archives = os.path.join(apt.home, 'packages')
    os.makedirs(archives, exist_ok=True)
    apt.run('apt-get', '-q', 'download', *packages, directory=archives)
    for archive in sorted(glob.glob(os.path.join(archives, '*.deb'))):
        subprocess.run(['dpkg-deb', '-x', archive, directory], check=True)


class Apt:
    """An apt that knows one release and nothing of this machine."""

    def __init__(self, release, home):
        self.release, self.home = release, home
        self.configuration = os.path.join(home, 'apt.conf')
        for directory in ('state/lists/partial', 'cache/archives/partial'):
            os.makedirs(os.path.join(home, directory), exist_ok=True)
        write(os.path.join(home, 'sources.list'), release.sources(home))
        write(os.path.join(home, 'status'), '')
        write(self.configuration, '\n'.join(f'{key} "{value}";' for key, value in {
            'APT::Architecture': 'amd64',
            'APT::Architectures': 'amd64',
            'APT::Sandbox::User': 'root',
            'APT::Update::Error-Mode': 'any',
            'Acquire::Check-Valid-Until': 'false',
            'Acquire::Languages': 'none',
            'Acquire::Retries': '3',
            'Dir::State': f'{home}/state',
            'Dir::State::status': f'{home}/status',
            'Dir::Cache': f'{home}/cache',
            'Dir::Etc::sourcelist': f'{home}/sources.list',
            'Dir::Etc::sourceparts': '/dev/null',
            'Dir::Etc::preferences': '/dev/null',
            'Dir::Etc::preferencesparts': '/dev/null',
        }.items()) + '\n')
        self.run('apt-get', '-q', 'update')

    def run(self, *command, directory=None):
        """Runs a program of apt and returns its output."""
        environment = dict(os.environ, APT_CONFIG=self.configuration, LC_ALL='C')
        done = subprocess.run(command, cwd=directory, env=environment, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith('E:')]
            raise Missing(f'{command[0]} {command[-1]} for {self.release.name}: {" ".join(said) or done.stderr}')
        return done.stdout

    def kernel_packages(self):
        """Returns the packages that hold the kernel which the meta package stands for."""
        text = self.run('apt-cache', 'depends', '--recurse', '--important', self.release.meta_package)
        names = set(re.findall(f'Depends: ({self.release.parts})$', text, re.MULTILINE))
        if not names:
            raise Missing(f'{self.release.meta_package} of {self.release.name} depends on no kernel')
        return sorted(names)


def mirrors():
    """Returns the addresses of the archive and of its security updates that this machine uses."""
    text = ''
    for path in ['/etc/apt/sources.list', *sorted(glob.glob('/etc/apt/sources.list.d/*'))]:
        if os.path.isfile(path):
            with open(path, encoding='utf-8', errors='replace') as file:
                text += file.read() + '\n'
    return addresses(text)


def addresses(text):
    """Returns the addresses that lists of sources name: the archive's, and that of its security updates."""
    text = '\n'.join(line for line in text.splitlines() if not line.startswith('#')) + '\n'
    archive = re.search(r'\bhttps?://\S+/debian(?=/?\s)', text)
    security = re.search(r'\bhttps?://\S+/debian-security(?=/?\s)', text)
    archive = archive.group() if archive else MIRROR
    return archive, security.group() if security else f'{archive}-security'


def write(path, text):
    """Writes a text file."""
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
