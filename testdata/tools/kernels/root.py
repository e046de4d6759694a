"""The root file system of a guest: busybox, kiln, a few programs of this machine, and files."""
import os
import re
import shutil
import subprocess
import tempfile

from .machine import BUSYBOX
from .trouble import Missing

# Programs that scenarios use and busybox lacks, with the packages that have them.
PROGRAMS = {'apparmor_parser': 'apparmor', 'setpriv': 'util-linux', 'unshare': 'util-linux', 'script': 'bsdutils', 'newuidmap': 'uidmap',
            'newgidmap': 'uidmap', 'getfattr': 'attr', 'getcap': 'libcap2-bin', 'nft': 'nftables',
            'mountpoint': 'util-linux', 'pgrep': 'procps'}
DIRECTORIES = '''bin dev etc lib lib64 proc root run sbin sys tmp usr/bin usr/sbin var/lib var/tmp home'''.split()
FILES = {
    'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n'
                  'kiln-test:x:1000:1000::/nonexistent:/bin/sh\nkiln-test-single:x:1001:1001::/nonexistent:/bin/sh\n',
    'etc/group': 'root:x:0:\ntty:x:5:\nkiln-test:x:1000:\nkiln-test-single:x:1001:\n',
    'etc/subuid': 'kiln-test:100000:65536\n', 'etc/subgid': 'kiln-test:100000:65536\n',
    'etc/hosts': '127.0.0.1 localhost\n', 'etc/resolv.conf': 'nameserver 127.0.0.1\n',
    'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
}


class Root:
    """A root file system in a directory, until it is written to a disk image."""

    def __init__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix='kiln-root-')
        self.directory = self.temporary.name
        os.chmod(self.directory, 0o755)
        for name in DIRECTORIES:
            os.makedirs(self.path(name))
        os.chmod(self.path('tmp'), 0o1777)
        os.chmod(self.path('var/tmp'), 0o1777)
        for name, text in FILES.items():
            self.write_text(name, text)
        shutil.copy2(BUSYBOX, self.path('bin/busybox'))
        applets = subprocess.run([BUSYBOX, '--list'], check=True, text=True, stdout=subprocess.PIPE).stdout.split()
        for applet in applets:
            if applet != 'busybox':
                os.symlink('/bin/busybox', self.path(f'bin/{applet}'))

    def path(self, name):
        """Returns where a file of the guest lies now."""
        return os.path.join(self.directory, name.lstrip('/'))

    def write_text(self, name, text):
        """Writes a text file."""
        with open(self.path(name), 'w', encoding='utf-8') as file:
            file.write(text)

    def carry(self, program, package):
        """Puts a program of this machine, and the libraries that it is linked with, to where they are here."""
        found = shutil.which(program, path='/usr/bin:/usr/sbin:/bin:/sbin')
        if not found:
            raise Missing(f'{program} (Debian package {package})')
        self.place(found, found)

    def place(self, source, destination):
        """Puts a program of this machine anywhere, and the libraries that it is linked with where they are here."""
        if os.path.islink(self.path(destination)):
            os.remove(self.path(destination))
        self.copy(source, destination)
        listing = subprocess.run(['ldd', source], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        for library in re.findall(r'(/\S+) \(0x', listing):
            if not os.path.exists(self.path(library)):
                self.copy(library, library)

    def copy(self, source, destination):
        """Copies a file with its mode, or a tree with its links."""
        path = self.path(destination)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isdir(source):
            # As cp does, it keeps owners, devices and extended attributes.
            subprocess.run(['cp', '-a', source, path], check=True)
            return
        if os.path.lexists(path):
            os.remove(path)
        shutil.copy2(os.path.realpath(source), path)

    def write(self, image, size='4G'):
        """Makes an ext4 file system of it."""
        if os.path.exists(image):
            os.remove(image)
        subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-m', '0', '-E', 'lazy_itable_init=1,lazy_journal_init=1',
                        '-d', self.directory, image, size], check=True, stdout=subprocess.DEVNULL)
        self.temporary.cleanup()


def with_programs(kiln):
    """Returns a root file system with kiln and the programs that the scenarios use."""
    root = Root()
    root.place(kiln, '/usr/bin/kiln')
    # Busybox's shell would take its own programs for those of the same name on the path.
    root.place('/bin/sh', '/bin/sh')
    for program, package in PROGRAMS.items():
        root.carry(program, package)
    return root
