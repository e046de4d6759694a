"""File systems that a server shares: a guest has its stores on them.

- virtiofs: this machine's virtiofsd shares a directory with the guest (`machine.Machine`).
- NFS: the guest's own kernel exports a directory of its disk to the guest.
"""
import shutil

from . import machine
from .trouble import Missing

STORE = '/store'
# The kernel of the guests, unless others are asked for.
KERNEL = '6.12'
# The programs that export and mount NFS, with the packages that have them.
PROGRAMS = {'exportfs': 'nfs-kernel-server', 'rpc.nfsd': 'nfs-kernel-server', 'rpc.mountd': 'nfs-kernel-server', 'mount.nfs': 'nfs-common'}
# A server that has just been started lets nobody open a file, for as long as clients of the one before may come back.
NFS = f'''mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /export /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab /var/lib/nfs/rmtab /etc/exports
echo 10 >/proc/fs/nfsd/nfsv4gracetime
exportfs -o rw,no_root_squash,no_subtree_check,fsid=0 127.0.0.1:/export
rpc.mountd --no-nfs-version 3
rpc.nfsd --no-nfs-version 3 --port 2049 4
echo Y >/proc/fs/nfsd/v4_end_grace
mount.nfs 127.0.0.1:/ {STORE} -o vers=4.2'''


class Share:
    """How a guest comes to a shared file system."""

    def __init__(self, modules, mount, is_served=False):
        # Whether this machine serves it.
        self.modules, self.mount, self.is_served = modules, mount, is_served

    def command(self, command):
        """Returns the commands that mount it where stores are to lie, and then run another one."""
        return f'set -e\nmkdir {STORE}\n{self.mount}\n{command}'


SHARES = {
    'virtiofs': Share(['virtiofs'], f'mount -t virtiofs store {STORE}', is_served=True),
    'nfs': Share(['nfsd', 'nfsv4'], NFS),
}


def require():
    """Fails where a program that shares file systems isn't there."""
    machine.virtiofs_server()
    for program, package in PROGRAMS.items():
        if not shutil.which(program, path='/usr/sbin:/usr/bin:/sbin:/bin'):
            raise Missing(f'{program} (Debian package {package})')


def prepare(root):
    """Puts the programs into the guests' root file system."""
    for program, package in PROGRAMS.items():
        root.carry(program, package)
