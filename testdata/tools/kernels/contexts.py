"""What the scenarios build from: a base image, images whose layers take things away or are many, and a build context.

All of it is the same, byte for byte, whenever it is made with the same busybox.
"""
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile

from .trouble import REPOSITORY

TIME = 1700000000
# More layers than fit into a page of mount options by their whole paths.
MANY = 149
# cap_net_bind_service=ep, as the extended attribute holds it.
CAPABILITY = bytes.fromhex('0100000200040000000000000000000000000000').decode('latin-1')
OCI = 'application/vnd.oci.image.'


def prepare(directory):
    """Makes `base`, `layers`, `many` and `context` in a directory."""
    base = make_base(directory)
    image = Image(base, os.path.join(directory, 'layers'))
    image.add_layer([('w', None, {}), ('w/plain', b'plain', {}), ('w/gone', b'gone', {}), ('w/opaque', None, {}),
                     ('w/opaque/old', b'old', {}), ('w/attribute', b'x', {'SCHILY.xattr.user.note': 'kept'}),
                     ('w/capable', b'x', {'SCHILY.xattr.security.capability': CAPABILITY})])
    image.add_layer([('w', None, {}), ('w/.wh.gone', b'', {}), ('w/opaque', None, {}),
                     ('w/opaque/.wh..wh..opq', b'', {}), ('w/opaque/new', b'new', {})])
    image.write()
    many = Image(base, os.path.join(directory, 'many'))
    for number in range(2, MANY):
        many.add_layer([('l', None, {}), (f'l/{number}', b'x', {})])
    many.write()
    make_context(os.path.join(directory, 'context'))


def make_base(directory):
    """Makes the base image, as an OCI layout, and its archive beside it."""
    base, archive = os.path.join(directory, 'base'), os.path.join(directory, 'base.tar')
    os.makedirs(base)
    subprocess.run([os.path.join(REPOSITORY, 'testdata/tools/mkbase'), archive], check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(base)
    return base


def make_context(context):
    """Makes the build context."""
    os.makedirs(os.path.join(context, 'tree/sub'))
    files = {'file': b'a file\n', 'secret': b'hello\n', 'tree/one': b'1\n', 'tree/sub/two': b'2\n', 'tree/run': b'#!/bin/sh\n'}
    for name, content in files.items():
        with open(os.path.join(context, name), 'wb') as file:
            file.write(content)
    os.symlink('sub/two', os.path.join(context, 'tree/link'))
    archive = make_tar([('a', None, {}), ('a/file', b'in the archive\n', {}), ('a/' + 'long' * 60, b'long', {}),
                        ('a/attribute', b'x', {'SCHILY.xattr.user.note': 'kept'})])
    with open(os.path.join(context, 'archive.tar.gz'), 'wb') as file:
        file.write(gzip.compress(archive, 6, mtime=0))
    for top, directories, names in os.walk(context, topdown=False):
        for name in names + directories:
            path = os.path.join(top, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.path.isdir(path) or name == 'run' else 0o644)
            os.utime(path, (TIME, TIME), follow_symlinks=False)
    os.chmod(context, 0o755)


def make_tar(entries):
    """Returns a tar of entries: names, contents (none for a directory), extended attributes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=tarfile.PAX_FORMAT) as tar:
        for name, content, attributes in entries:
            info = tarfile.TarInfo(name)
            info.mtime, info.mode, info.pax_headers = TIME, 0o644, attributes
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b''))
    return out.getvalue()


class Image:
    """An OCI layout that goes on where another one ends."""

    def __init__(self, base, directory):
        self.base, self.directory = base, directory
        os.makedirs(os.path.join(directory, 'blobs/sha256'))
        with open(os.path.join(base, 'index.json'), encoding='utf-8') as file:
            self.index = json.load(file)
        self.manifest = json.loads(self.take(self.index['manifests'][0]))
        self.config = json.loads(self.take(self.manifest['config']))
        for layer in self.manifest['layers']:
            self.take(layer)

    def take(self, descriptor):
        """Copies a blob of the base, and returns it."""
        with open(os.path.join(self.base, 'blobs', descriptor['digest'].replace(':', '/')), 'rb') as file:
            data = file.read()
        self.blob(data, descriptor['mediaType'])
        return data

    def blob(self, data, kind):
        """Writes a blob and returns its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(self.directory, 'blobs/sha256', digest), 'wb') as file:
            file.write(data)
        return {'mediaType': kind, 'digest': f'sha256:{digest}', 'size': len(data)}

    def add_layer(self, entries):
        """Adds a layer on top."""
        tar = make_tar(entries)
        self.manifest['layers'].append(self.blob(gzip.compress(tar, 6, mtime=0), OCI + 'layer.v1.tar+gzip'))
        self.config['rootfs']['diff_ids'].append('sha256:' + hashlib.sha256(tar).hexdigest())
        self.config['history'].append({'created': '2023-11-14T22:13:20Z', 'created_by': 'layer'})

    def write(self):
        """Writes what ties the layers together."""
        self.manifest['config'] = self.blob(json.dumps(self.config).encode(), OCI + 'config.v1+json')
        self.index['manifests'] = [self.blob(json.dumps(self.manifest).encode(), OCI + 'manifest.v1+json')]
        for name, content in {'index.json': self.index, 'oci-layout': {'imageLayoutVersion': '1.0.0'}}.items():
            with open(os.path.join(self.directory, name), 'w', encoding='utf-8') as file:
                json.dump(content, file)
