"""What is built: contexts, and a base image in the forms that builders take."""
import os
import subprocess

from bench.machine import environment

TOOLS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'testdata', 'tools')


class Inputs:
    """A directory with everything that builders read.

    contexts/NAME     what testdata/tools/workloads makes
    base              the base image, as an OCI layout; one layer with a static busybox
    base.tar          the same for `docker load`
    rootfs            its files
    """

    def __init__(self, work, contexts, kiln):
        self.work, self.kiln = work, kiln
        self.environment = environment(work)
        self.base, self.base_archive, self.rootfs = f'{work}/base', f'{work}/base.tar', f'{work}/rootfs'
        os.makedirs(self.base)
        if not os.access(kiln, os.X_OK):
            raise SystemExit(f'bench/run: {kiln}: no such program; build it with make dist, or use --kiln')
        subprocess.run([f'{TOOLS}/mkbase', f'{work}/layout.tar', 'base:latest'], check=True)
        subprocess.run(['tar', '-xf', f'{work}/layout.tar', '-C', self.base], check=True)
        print(f'making {", ".join(contexts) or "no contexts"}', flush=True)
        if contexts:
            subprocess.run([f'{TOOLS}/workloads', f'{work}/contexts', *contexts], check=True)
        self.only_base = f'{work}/only-base'
        os.makedirs(self.only_base)
        with open(f'{self.only_base}/Dockerfile', 'w') as file:
            file.write('FROM base\n')
        subprocess.run([kiln, 'build', '-q', f'--root={work}/store', f'--build-context=base=oci-layout://{self.base}',
                        f'--output=type=docker,name=base,dest={self.base_archive}',
                        f'--output=type=local,dest={self.rootfs}', self.only_base],
                       check=True, env=self.environment, stdout=subprocess.DEVNULL)

    def context(self, name):
        """Returns the directory of a context."""
        return f'{self.work}/contexts/{name}'

    def warm(self, name):
        """Reads a context, so that its files are in the page cache for whoever comes first."""
        for directory, _, files in os.walk(self.context(name)):
            for file in files:
                with open(os.path.join(directory, file), 'rb') as opened:
                    while opened.read(1 << 20):
                        pass
