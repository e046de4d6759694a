"""podman, which only runs here: its builder is buildah."""
from bench.builders.builder import Builder


class Podman(Builder):
    name, title = 'podman', 'podman'

    def missing(self):
        return self.lacks('podman', 'conmon', 'runc')

    def start(self):
        self.call(*self.podman('load', '-q', '-i', self.inputs.base_archive))

    def version(self):
        return self.call('podman', '--version').replace(' version', '')

    def run(self):
        # Debian's crun refuses machines whose control groups are of both versions.
        return [self.podman('--runtime=runc', 'run', '--rm', '--pull=never', 'docker.io/library/base', 'true')]

    def podman(self, *arguments):
        stores = [f'--root={self.home}/store', f'--runroot={self.home}/run', '--storage-driver=overlay',
                  '--cgroup-manager=cgroupfs', '--events-backend=none']
        return ['podman', *stores, *arguments]
