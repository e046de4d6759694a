"""Kernels of Debian's releases, fetched as packages with an apt state of their own.

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

META_PACKAGE = 'linux-image-cloud-amd64'
KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
MIRROR = 'http://deb.debian.org/debian'
# The release that has a kernel, by the name that the kernel goes by here.
RELEASES = {'5.10': 'bullseye', '6.1': 'bookworm', '6.12': 'trixie', 'newest': 'sid'}


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
    ready = os.path.join(home, 'kernel')
    os.makedirs(home, exist_ok=True)
    with open(os.path.join(home, 'lock'), 'w', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(ready):
            fetch(RELEASES[name], home, ready)
    return Kernel(name, ready)


def fetch(release, home, ready):
    """Downloads a release's kernel packages and unpacks them into `ready`."""
    for program in ('apt-get', 'apt-cache', 'dpkg-deb'):
        if not shutil.which(program):
            raise Missing(f'{program} is needed to fetch the kernel of Debian {release}')
    apt = Apt(release, os.path.join(home, 'apt'))
    apt.run('apt-get', '-q', 'update')
    packages = apt.kernel_packages()
    print(f'fetching {" ".join(packages)}', flush=True)
    archives = os.path.join(home, 'packages')
    os.makedirs(archives, exist_ok=True)
    apt.run('apt-get', '-q', 'download', *packages, directory=archives)
    unpacked = ready + '.new'
    shutil.rmtree(unpacked, ignore_errors=True)
    for archive in sorted(glob.glob(os.path.join(archives, '*.deb'))):
        subprocess.run(['dpkg-deb', '-x', archive, unpacked], check=True)
    Kernel(release, unpacked)
    os.rename(unpacked, ready)
    # They are large, and no longer needed.
    shutil.rmtree(os.path.join(home, 'apt'))
    shutil.rmtree(archives)


class Apt:
    """An apt that knows one release and nothing of this machine."""

    def __init__(self, release, home):
        self.release = release
        self.configuration = os.path.join(home, 'apt.conf')
        for directory in ('state/lists/partial', 'cache/archives/partial'):
            os.makedirs(os.path.join(home, directory), exist_ok=True)
        write(os.path.join(home, 'sources.list'), sources(release))
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

    def run(self, *command, directory=None):
        """Runs a program of apt and returns its output."""
        environment = dict(os.environ, APT_CONFIG=self.configuration, LC_ALL='C')
        done = subprocess.run(command, cwd=directory, env=environment, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith('E:')]
            raise Missing(f'{command[0]} {command[-1]} for Debian {self.release}: {" ".join(said) or done.stderr}')
        return done.stdout

    def kernel_packages(self):
        """Returns the packages that hold the kernel which the meta package stands for."""
        text = self.run('apt-cache', 'depends', '--recurse', '--important', META_PACKAGE)
        names = set(re.findall(r'Depends: (linux-(?:image|binary|modules)-\d\S*-cloud-amd64)$', text, re.MULTILINE))
        if not names:
            raise Missing(f'{META_PACKAGE} of Debian {self.release} depends on no kernel')
        return sorted(names)


def sources(release):
    """Returns the sources of a release: on the mirrors that this machine uses."""
    signed = f'[signed-by={KEYRING}] ' if os.path.exists(KEYRING) else ''
    mirror, security = mirrors()
    lines = [f'deb {signed}{mirror} {release} main']
    if release != 'sid':
        lines.append(f'deb {signed}{security} {release}-security main')
    return '\n'.join(lines) + '\n'


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
