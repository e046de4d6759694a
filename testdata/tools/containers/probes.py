"""The probes: Dockerfiles, and what they build from."""
import os
import shutil
import subprocess
import tempfile

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
        self.add_text(probe, text)
        if names:
            self.add_debian()
            subprocess.run(['cp', '-aT', needs.files(self.cache, names, wheels), self.path(f'probes/{probe}/files')], check=True)
        else:
            os.makedirs(self.path(f'probes/{probe}/files'), exist_ok=True)

    def add_text(self, name, text):
        """Adds a Dockerfile."""
        os.makedirs(self.path(f'probes/{name}'), exist_ok=True)
        with open(self.path(f'probes/{name}/Dockerfile'), 'w', encoding='utf-8') as file:
            file.write(text)

    def add_debian(self):
        """Adds Debian's image, once, as the tested kiln makes it of a root file system."""
        if os.path.exists(self.path('debian')):
            return
        with_archive = self.path('archive-of-debian')
        os.makedirs(with_archive)
        shutil.copy2(needs.debian(), os.path.join(with_archive, 'debian.tar'))
        self.make_image(self.path('debian'), 'FROM scratch\nADD debian.tar /\nCMD ["bash"]\n', with_archive)
        shutil.rmtree(with_archive)

    def make_image(self, layout, text, context):
        """Makes an image of a Dockerfile and a context, as an OCI layout, with the tested kiln."""
        with tempfile.TemporaryDirectory(dir=self.directory) as work:
            dockerfile = os.path.join(work, 'Dockerfile')
            with open(dockerfile, 'w', encoding='utf-8') as file:
                file.write(text)
            subprocess.run([self.kiln, '--root', os.path.join(work, 'store'), 'build', '--quiet', '--output',
                            f'type=oci,tar=false,dest={layout}', '-f', dockerfile, context], check=True, stdout=subprocess.DEVNULL)

    def give_to_users(self):
        """Makes a copy of it that belongs to the user that some settings have."""
        copy = f'{self.directory}-of-user'
        subprocess.run(['cp', '-a', self.directory, copy], check=True)
        for top, directories, names in os.walk(os.path.join(copy, 'probes')):
            for name in directories + names:
                path = os.path.join(top, name)
                mode = os.lstat(path).st_mode & 0o7777
                os.chown(path, 1000, 1000, follow_symlinks=False)
                # A new owner takes some bits of the mode away.
                if not os.path.islink(path):
                    os.chmod(path, mode)

    def of(self, setting):
        """Returns the directory that a setting is given."""
        copy = f'{self.directory}-of-user'
        return copy if setting.is_user and os.path.exists(copy) else self.directory
