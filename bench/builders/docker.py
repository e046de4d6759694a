"""Docker's engine, with its two builders: each has an engine of its own.

Both end in the engine's own store, uncompressed: this engine writes no OCI archives, so what the others compress and
write into an archive isn't in its figures.
"""
import os
import subprocess
import time

from bench.builders.builder import Builder
from bench.machine import die_with_parent


class Docker(Builder):
    """An engine with a socket, data and containerd of its own. Its bridge is in our network namespace."""

    buildkit = ''

    def __init__(self, inputs):
        super().__init__(inputs)
        # Debian's client, where another one is first on the path.
        self.client = '/usr/bin/docker' if os.path.exists('/usr/bin/docker') else 'docker'
        self.socket, self.process = f'{self.home}/socket', None
        self.environment = {**self.environment, 'DOCKER_BUILDKIT': self.buildkit}

    def missing(self):
        return self.lacks('dockerd', self.client, 'containerd', 'iptables')

    def start(self):
        command = ['dockerd', f'--host=unix://{self.socket}', f'--data-root={self.home}/data',
                   f'--exec-root={self.home}/exec', f'--pidfile={self.home}/pid', f'--bridge={self.bridge()}']
        with open(f'{self.home}/log', 'wb') as log:
            self.process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, preexec_fn=die_with_parent)
        deadline = time.monotonic() + 60
        while subprocess.run(self.docker('version'), env=self.environment, capture_output=True).returncode != 0:
            if time.monotonic() > deadline or self.process.poll() is not None:
                with open(f'{self.home}/log') as log:
                    raise SystemExit(f'bench/run: dockerd does not answer:\n{log.read()[-3000:]}')
            time.sleep(0.1)
        self.call(*self.docker('load', '-q', '-i', self.inputs.base_archive))

    def bridge(self):
        """Makes a bridge, one for each engine, and returns its name."""
        name, address = self.link
        subprocess.run(['ip', 'link', 'add', name, 'type', 'bridge'], check=True)
        subprocess.run(['ip', 'address', 'add', address, 'dev', name], check=True)
        subprocess.run(['ip', 'link', 'set', name, 'up'], check=True)
        return name

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def version(self):
        return 'Docker ' + self.call(*self.docker('version', '--format', '{{.Server.Version}}'))

    def reset(self):
        images = self.call(*self.docker('images', '-q', 'built')).split()
        if images:
            self.call(*self.docker('rmi', '-f', *images))
        self.call(*self.docker('image', 'prune', '-f'))
        self.call(*self.docker('builder', 'prune', '-af'))

    def build(self, context, output):
        if output != 'gzip':
            return None
        return [self.docker('build', '-q', '-t', 'built', self.inputs.context(context))]

    def daemons(self):
        return (self.process.pid,)

    def docker(self, *arguments):
        return [self.client, f'--host=unix://{self.socket}', *arguments]


class DockerBuildKit(Docker):
    name, title, buildkit = 'docker-buildkit', 'Docker, BuildKit', '1'
    link = ('bench0', '172.31.253.1/24')

    def run(self):
        return [self.docker('run', '--rm', 'base', 'true')]


class DockerClassic(Docker):
    name, title, buildkit = 'docker-classic', 'Docker, classic builder', '0'
    link = ('bench1', '172.31.254.1/24')
