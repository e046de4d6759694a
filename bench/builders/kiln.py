"""kiln."""
import os
import shutil

from bench.builders.builder import Builder


class Kiln(Builder):
    name, title = 'kiln', 'kiln'

    def __init__(self, inputs):
        super().__init__(inputs)
        self.root = f'{self.home}/store'

    def version(self):
        return self.call(self.inputs.kiln, '--version')

    def reset(self):
        shutil.rmtree(self.root, ignore_errors=True)
        # The base image's tree is there, as on a machine that has built from it before; and its name, for `run`.
        self.call(*self.command(self.inputs.only_base, '-t', 'base', f'--output=type=local,dest={self.home}/base',
                                '--output=type=image'))

    def build(self, context, output):
        if os.path.exists(self.out):
            os.unlink(self.out)
        compression = '' if output == 'gzip' else f',compression={output}'
        return [self.command(self.inputs.context(context), f'--output=type=oci,dest={self.out}{compression}')]

    def run(self):
        return [[self.inputs.kiln, 'run', f'--root={self.root}', '--rm', 'base', 'true']]

    def command(self, context, *more):
        base = f'--build-context=base=oci-layout://{self.inputs.base}'
        return [self.inputs.kiln, 'build', '-q', f'--root={self.root}', base, *more, context]


class KilnStore(Kiln):
    """The same, but that builds end in the store, as those of engines do; the layers are compressed there, too."""

    name, title = 'kiln-store', 'kiln, into its store'

    def build(self, context, output):
        return [self.command(self.inputs.context(context), '-t', 'built')] if output == 'gzip' else None

    def run(self):
        return None
