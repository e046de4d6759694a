"""A machine that QEMU emulates without the help of the host's processor."""
import gzip
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
import threading
import time

from .trouble import Missing

HERE = os.path.dirname(os.path.abspath(__file__))
# Modules that kiln and its scenarios make use of, where they aren't part of the kernel itself.
MODULES = '''virtio_pci virtio_blk ext4 overlay fuse loop vfat nls_cp437 nls_iso8859_1 nls_ascii
    tun veth bridge br_netfilter nf_tables nf_conntrack nf_nat nft_chain_nat nft_nat nft_masq nft_ct nft_reject_inet nft_fib_inet nft_compat nft_counter nft_objref'''.split()
BUSYBOX = '/bin/busybox'
# Where Debian's packages put the server of virtiofs.
VIRTIOFS_SERVERS = ['/usr/libexec/virtiofsd', '/usr/lib/qemu/virtiofsd']
# Should this program be killed, the one that it started goes with it.
DIE_TOGETHER = ['setpriv', '--pdeathsig', 'KILL']


class Machine:
    """A kernel, and the disks and the memory that it is booted with.

    With `shared`, a directory, the guest can mount that by virtiofs, under the name `store`.
    """

    def __init__(self, kernel, disk, modules=(), shared=None, memory='2G'):
        self.kernel, self.disk, self.shared, self.memory = kernel, disk, shared, memory
        self.modules = select_modules(kernel.modules, [*MODULES, *modules])

    def run(self, layout, command, settings=None, output=None, seconds=900):
        """Boots, runs a shell command, and yields what it prints, line by line.

        The disk stays as it is. What the guest writes to its second disk goes to the file `output`.
        """
        with tempfile.TemporaryDirectory(prefix='kiln-kernels-') as directory:
            initrd, console = os.path.join(directory, 'initrd'), os.path.join(directory, 'console')
            with open(initrd, 'wb') as file:
                file.write(self.initrd(layout, command, settings or {}))
            devices, server = serve(self.shared, directory, self.memory) if self.shared else ([], None)
            process = subprocess.Popen(self.qemu(initrd, console, output) + devices, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, text=True, errors='replace', start_new_session=True)
            watch = threading.Timer(seconds, process.kill)
            watch.start()
            is_over = False
            try:
                for line in process.stdout:
                    is_over = is_over or line.startswith('@over')
                    yield line.rstrip('\r\n')
            finally:
                watch.cancel()
                process.kill()
                process.wait()
                if server:
                    # It ends with the emulator.
                    server.wait(timeout=30)
            with open(console, encoding='utf-8', errors='replace') as file:
                messages = file.read()
            if not is_over or re.search(r'\bOops\b|\bBUG:|Kernel panic', messages):
                yield '@crash'
                yield from messages.splitlines()[-40:]

    def qemu(self, initrd, console, output):
        """Returns the command line."""
        command = [*DIE_TOGETHER, 'qemu-system-x86_64', '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none',
                   '-accel', 'tcg', '-cpu', 'max', '-smp', '1', '-m', self.memory, '-device', 'virtio-rng-pci',
                   '-kernel', self.kernel.image, '-initrd', initrd,
                   '-append', 'console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on',
                   '-serial', f'file:{console}', '-serial', 'stdio',
                   '-drive', f'file={self.disk},format=raw,if=virtio,snapshot=on,cache=unsafe']
        if output:
            command += ['-drive', f'file={output},format=raw,if=virtio,cache=unsafe']
        return command

    def initrd(self, layout, command, settings):
        """Returns the archive that the kernel begins with."""
        settings = ''.join(f"export {name}='{value}'\n" for name, value in {'LAYOUT': layout, **settings}.items())
        files = [('init', read(os.path.join(HERE, 'guest/init'))), ('start', read(os.path.join(HERE, 'guest/start'))),
                 ('bin/busybox', read(BUSYBOX)), ('command', command.encode()), ('settings', settings.encode()),
                 ('modules/order', '\n'.join(self.modules).encode())]
        files += [(f'modules/{name}', data) for name, data in self.modules.items()]
        return cpio(['bin', 'modules'], files)


def serve(shared, directory, memory):
    """Serves a directory by virtiofs; returns the arguments that the emulator takes for it, and the server."""
    socket, said = os.path.join(directory, 'virtiofs'), os.path.join(directory, 'virtiofs.log')
    command = [*DIE_TOGETHER, virtiofs_server(), f'--socket-path={socket}', '-o', f'source={shared},xattr']
    with open(said, 'wb') as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    while not os.path.exists(socket):
        if server.poll() is not None:
            raise Missing(f'a server of virtiofs that starts here: {read(said).decode(errors="replace")}')
        time.sleep(0.02)
    # The server reads and writes the guest's memory.
    return ['-object', f'memory-backend-memfd,id=memory,size={memory},share=on', '-numa', 'node,memdev=memory',
            '-chardev', f'socket,id=store,path={socket}', '-device', 'vhost-user-fs-pci,chardev=store,tag=store'], server


def virtiofs_server():
    """Returns the program that serves virtiofs."""
    for program in VIRTIOFS_SERVERS:
        if os.path.exists(program):
            return program
    raise Missing('virtiofsd (Debian package virtiofsd, before Debian 13 qemu-system-common)')


def select_modules(directory, wanted):
    """Returns the contents of the modules that are wanted, each after those that it needs."""
    paths = {}
    for top, _, names in os.walk(directory):
        for name in names:
            match = re.fullmatch(r'(.+)\.ko(\.xz|\.gz|\.zst)?', name)
            if match:
                paths[match[1].replace('-', '_')] = os.path.join(top, name)
    chosen = {}

    def add(name):
        # One that isn't there is part of the kernel, or not needed by it.
        if name in chosen or name not in paths:
            return
        data = unpack(paths[name])
        depends = re.search(rb'\0depends=([^\0]*)\0', data)
        for other in filter(None, depends[1].decode().split(',') if depends else []):
            add(other.replace('-', '_'))
        chosen[name] = data
    for name in wanted:
        add(name)
    return chosen


def unpack(path):
    """Returns a module as the kernel takes it."""
    if path.endswith('.xz'):
        return lzma.decompress(read(path))
    if path.endswith('.gz'):
        return gzip.decompress(read(path))
    if path.endswith('.zst'):
        return subprocess.run(['zstd', '-dcq', path], check=True, stdout=subprocess.PIPE).stdout
    return read(path)


def cpio(directories, files):
    """Returns an archive that the kernel unpacks."""
    entries = [(name, stat.S_IFDIR | 0o755, b'') for name in directories]
    entries += [(name, stat.S_IFREG | 0o755, data) for name, data in files] + [('TRAILER!!!', 0, b'')]
    out = bytearray()
    for number, (name, mode, data) in enumerate(entries):
        fields = (number + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b'070701' + b''.join(b'%08x' % field for field in fields) + name.encode() + b'\0'
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def read(path):
    """Returns what a file holds."""
    with open(path, 'rb') as file:
        return file.read()


def require():
    """Fails where the machine lacks what it takes to emulate another one."""
    for program, package in {'qemu-system-x86_64': 'qemu-system-x86', 'mke2fs': 'e2fsprogs', 'zstd': 'zstd'}.items():
        if not shutil.which(program):
            raise Missing(f'{program} (Debian package {package})')
    if not os.path.exists(BUSYBOX):
        raise Missing(f'{BUSYBOX} (Debian package busybox-static)')
