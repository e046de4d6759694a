"""File systems that a store can lie on, made in files: how each is made and mounted at $STORE, with $DISK for its file."""
import shutil

from .trouble import Missing

LOOP = 'truncate -s 2G "$DISK"; {make} "$DISK" >/dev/null; mount -o loop "$DISK" "$STORE"'
# A directory on an ext4 of its own, for what goes on top of another file system.
BELOW = ('truncate -s 2G "$DISK"; mke2fs -q -t ext4 "$DISK"; mkdir -p "$DISK.d"; mount -o loop "$DISK" "$DISK.d"; '
         'cd "$DISK.d"; mkdir lower upper work; chmod 755 "$DISK.d"; ')
OVERLAY = 'lowerdir=lower,upperdir=upper,workdir=work'

FILE_SYSTEMS = {
    'ext4': LOOP.format(make='mke2fs -q -t ext4'),
    'xfs': LOOP.format(make='mkfs.xfs -q -m reflink=1'),
    'xfs without reflinks': LOOP.format(make='mkfs.xfs -q -m reflink=0'),
    'btrfs': LOOP.format(make='mkfs.btrfs -q'),
    'tmpfs': 'mount -t tmpfs -o mode=755 tmpfs "$STORE"',
    'overlay': BELOW + f'mount -t overlay -o {OVERLAY} overlay "$STORE"',
    'bindfs': BELOW + 'bindfs -o allow_other upper "$STORE"',
    'fuse-overlayfs': BELOW + f'fuse-overlayfs -o allow_other,{OVERLAY} "$STORE"',
}
PROGRAMS = {'mkfs.xfs': 'xfsprogs', 'mkfs.btrfs': 'btrfs-progs', 'bindfs': 'bindfs', 'fuse-overlayfs': 'fuse-overlayfs'}


def require():
    """Fails where a program that makes file systems isn't there."""
    for program, package in PROGRAMS.items():
        if not shutil.which(program, path='/usr/sbin:/usr/bin:/sbin:/bin'):
            raise Missing(f'{program} (Debian package {package})')


def setup(name, store, disk):
    """Returns the commands that mount a file system where stores are to lie."""
    return f'STORE={store}; DISK={disk}; mkdir -p "$STORE"; {FILE_SYSTEMS[name]}; cd /'
