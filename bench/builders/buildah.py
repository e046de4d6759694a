"""buildah: a build into its store, then a push into an OCI archive, which is where it compresses."""
import os

from bench.builders.builder import Builder


class Buildah(Builder):
    name, title = 'buildah', 'buildah'

    def missing(self):
        return self.lacks('buildah', 'runc')

    def start(self):
        self.policy = f'{self.home}/policy.json'
        with open(self.policy, 'w') as file:
            file.write('{"default": [{"type": "insecureAcceptAnything"}]}\n')
        self.registries = f'{self.home}/registries.conf'
        open(self.registries, 'w').close()
        self.environment = {**self.environment, 'CONTAINERS_REGISTRIES_CONF': self.registries}
        base = self.call(*self.buildah('pull', '-q', f'--signature-policy={self.policy}', f'oci:{self.inputs.base}'))
        self.call(*self.buildah('tag', base.split()[-1], 'localhost/base:latest'))

    def version(self):
        return ' '.join(self.call('buildah', '--version').split()[:3]).replace(' version', '')

    def reset(self):
        images = self.call(*self.buildah('images', '-q', '--filter=reference=localhost/built'))
        if images:
            self.call(*self.buildah('rmi', '-f', *images.split()))
        self.call(*self.buildah('rmi', '--prune', '-f'))

    def build(self, context, output):
        if os.path.exists(self.out):
            os.unlink(self.out)
        compression = ['--compression-format', output]
        if output != 'gzip' and '--compression-format' not in self.call('buildah', 'push', '--help'):
            return None
        policy = f'--signature-policy={self.policy}'
        return [self.buildah('build', '-q', '--layers', '--pull=never', policy, '-t', 'localhost/built',
                             self.inputs.context(context)),
                self.buildah('push', '-q', policy, *compression, 'localhost/built', f'oci-archive:{self.out}')]

    def buildah(self, *arguments):
        stores = [f'--root={self.home}/store', f'--runroot={self.home}/run', '--storage-driver=overlay']
        return ['buildah', *stores, *arguments]
