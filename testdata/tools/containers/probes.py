"""The probes: Dockerfiles, and what they build from."""
import os
import shutil
import subprocess

from kernels import contexts

from . import needs

HERE = os.path.dirname(os.path.abspath(__file__))
DIRECTORY = os.path.join(HERE, 'probes')
# The builds of the matrix, and those that `make test` runs.
MATRIX = ['copy', 'run', 'user', 'mounts', 'debian']
SHORT = ['copy', 'run', 'user', 'mounts']
# The packages, and the wheels, that a probe installs.
INSTALLED = {
    'debian': (['openssh-client'], []),
    'packages': ('openssh-client openssh-server git curl python3-pip iputils-ping sudo dbus cron less file rsync nginx-light'.split(),
                 ['requests', 'jinja2', 'pyyaml']),
}


class Data:
    """The directory that is mounted in containers: a base image, contexts, probes, and what these install."""

    def __init__(self, directory, kiln, cache):
        self.directory, self.kiln, self.cache = directory, kiln, cache
        os.makedirs(self.path('probes'))
        os.makedirs(self.path('files'))
        contexts.prepare(directory)
        shutil.copy2(os.path.join(HERE, 'runner'), directory)
        os.chmod(directory, 0o755)

    def path(self, name):
        """Returns the path of a file of the directory."""
        return os.path.join(self.directory, name)

    def add(self, probe):
        """Adds a probe with what it installs."""
        names, wheels = INSTALLED.get(probe, ([], []))
        with open(os.path.join(DIRECTORY, probe), encoding='utf-8') as file:
            text = file.read().replace('PACKAGES', ' '.join(names)).replace('WHEELS', ' '.join(wheels))
        with open(self.path(f'probes/{probe}'), 'w', encoding='utf-8') as file:
            file.write(text)
        if names:
            self.add_debian()
            subprocess.run(['cp', '-a', needs.files(self.cache, names, wheels), self.path(f'files/{probe}')], check=True)
        else:
            os.makedirs(self.path(f'files/{probe}'))

    def add_debian(self):
        """Adds Debian's image, once, as the tested kiln makes it of a root file system."""
        if os.path.exists(self.path('debian')):
            return
        with_archive = self.path('archive-of-debian')
        os.makedirs(with_archive)
        shutil.copy2(needs.debian(), os.path.join(with_archive, 'debian.tar'))
        with open(os.path.join(with_archive, 'Dockerfile'), 'w', encoding='utf-8') as file:
            file.write('FROM scratch\nADD debian.tar /\nCMD ["bash"]\n')
        store = self.path('store-of-debian')
        subprocess.run([self.kiln, '--root', store, 'build', '--quiet', '--output',
                        f'type=oci,tar=false,dest={self.path("debian")}', with_archive], check=True, stdout=subprocess.DEVNULL)
        for directory in (store, with_archive):
            shutil.rmtree(directory)
