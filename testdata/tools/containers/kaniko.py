"""kaniko: the root file system of its container, and the images from which it builds.

kaniko unpacks base images over the root file system of its own container and leaves only `/kaniko` and mounts as they are. So
everything that its container needs lies in `/kaniko`, and each probe has a container of its own. kaniko reads base images from
registries only: a registry in the container serves them, on the loopback interface. kaniko has no named build contexts, but
`COPY --from` accepts the name of an image: the registry has the context `files` as an image.
"""
import glob
import json
import os
import re
import shutil
import subprocess
import tempfile

from kernels.machine import BUSYBOX
from kernels.trouble import Missing

from .engines import find

HOME = 'kaniko'
# The registry's configuration. The runner adds the directory, which containers can't write to.
REGISTRY = {
    'version': 0.1, 'log': {'level': 'error', 'accesslog': {'disabled': True}}, 'http': {'addr': '127.0.0.1:15000'},
    'storage': {'filesystem': {}, 'maintenance': {'uploadpurging': {'enabled': False}, 'readonly': {'enabled': True}}},
}
# How to make the program, which no distribution has.
HOW = ('--kaniko PATH (the executor, made by: git clone --depth 1 --branch v1.24.0 https://github.com/GoogleContainerTools/kaniko'
       ' && cd kaniko && CGO_ENABLED=0 go build -mod=vendor ./cmd/executor)')


def require(executor):
    """Fails without kaniko's program, or one that needs libraries."""
    if not os.access(executor, os.X_OK):
        raise Missing(f'{executor}: {HOW}')
    if libraries(executor):
        raise Missing(f'{executor}: it is linked with libraries: {HOW}')


def prepare(data, executor, archive):
    """Makes the root file system that holds kaniko, and a registry for each probe."""
    with open(data.path('registry.yml'), 'w', encoding='utf-8') as file:
        # JSON is YAML.
        json.dump(REGISTRY, file)
    for probe in os.listdir(data.path('probes')):
        add_registry(data, probe)
    with tempfile.TemporaryDirectory() as tree:
        fill(tree, executor)
        subprocess.run(['tar', '-C', tree, '--owner=0', '--group=0', '-cf', archive, '.'], check=True)


def fill(tree, executor):
    """Fills the root file system: what kaniko's own image holds, busybox, and a registry with its libraries."""
    home = os.path.join(tree, HOME)
    for directory in ('bin', 'etc', f'{HOME}/bin', f'{HOME}/lib'):
        os.makedirs(os.path.join(tree, directory))
    os.chmod(tree, 0o755)
    # As in kaniko's own image, which allows other users than root.
    os.chmod(home, 0o777)
    with open(os.path.join(tree, 'etc/nsswitch.conf'), 'w', encoding='utf-8') as file:
        file.write('hosts: files dns\n')
    shutil.copy2(executor, os.path.join(home, 'executor'))
    shutil.copy2(BUSYBOX, os.path.join(home, 'bin/busybox'))
    for applet in subprocess.run([BUSYBOX, '--list'], check=True, text=True, stdout=subprocess.PIPE).stdout.split():
        if applet != 'busybox':
            os.symlink('busybox', os.path.join(home, 'bin', applet))
    # The engines start these.
    for program in ('sh', 'sleep'):
        os.symlink(f'/{HOME}/bin/busybox', os.path.join(tree, 'bin', program))
    registry = find('docker-registry', 'docker-registry')
    shutil.copy2(registry, os.path.join(home, 'bin/docker-registry'))
    for library in libraries(registry):
        name = os.path.basename(library)
        shutil.copy2(os.path.realpath(library), os.path.join(home, 'lib', 'ld.so' if name.startswith('ld-') else name))


def libraries(program):
    """Returns the paths of the libraries that a program is linked with."""
    listing = subprocess.run(['ldd', program], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return re.findall(r'(/\S+) \(0x', listing)


def add_registry(data, probe):
    """Makes the storage of a registry with the images that a probe builds from."""
    images = {name: data.path(name) for name in ('base', 'debian') if os.path.exists(data.path(name))}
    files = data.path(f'probes/{probe}/files')
    if os.listdir(files):
        images['files'] = data.path(f'probes/{probe}/image')
        data.make_image(images['files'], 'FROM scratch\nCOPY . /\n', files)
    for name, layout in images.items():
        store(layout, data.path(f'probes/{probe}/registry'), f'library/{name}')


def store(layout, storage, name):
    """Puts the image of an OCI layout into the storage of a registry, under the tag `latest`.

    The storage is that of the filesystem driver of Docker's registry: all blobs, and for each repository files that name its
    layers, manifests and tags.
    """
    top = os.path.join(storage, 'docker/registry/v2')
    repository = os.path.join(top, 'repositories', name)
    for blob in glob.glob(os.path.join(layout, 'blobs/sha256/*')):
        digest = os.path.basename(blob)
        data = os.path.join(top, 'blobs/sha256', digest[:2], digest, 'data')
        if not os.path.exists(data):
            os.makedirs(os.path.dirname(data))
            os.link(blob, data)
        link(os.path.join(repository, '_layers/sha256', digest), digest)
    with open(os.path.join(layout, 'index.json'), encoding='utf-8') as file:
        manifest = json.load(file)['manifests'][0]['digest'].removeprefix('sha256:')
    for directory in (f'revisions/sha256/{manifest}', 'tags/latest/current', f'tags/latest/index/sha256/{manifest}'):
        link(os.path.join(repository, '_manifests', directory), manifest)


def link(directory, digest):
    """Writes a file that names a blob."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, 'link'), 'w', encoding='utf-8') as file:
        file.write(f'sha256:{digest}')
