"""What builders have in common."""
import os
import shutil
import subprocess


class Builder:
    """A builder; see the package for what its methods are to do."""

    name = title = ''

    def __init__(self, inputs):
        self.inputs, self.environment = inputs, inputs.environment
        self.home = f'{inputs.work}/{self.name}'
        self.out = f'{self.home}/out.tar'
        os.makedirs(self.home)

    def missing(self):
        return ''

    def start(self):
        pass

    def stop(self):
        pass

    def version(self):
        return ''

    def reset(self):
        pass

    def build(self, context, output):
        return None

    def run(self):
        return None

    def daemons(self):
        return ()

    def call(self, *command):
        """Runs a command that isn't timed, and returns its standard output."""
        done = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f'bench/run: {" ".join(command)}: status {done.returncode}\n{done.stderr[-2000:]}')
        return done.stdout.strip()

    def lacks(self, *programs):
        """Returns what to say where one of these programs isn't installed."""
        missing = [program for program in programs if not shutil.which(program, path=self.environment['PATH'])]
        return f'no {", ".join(missing)} here; testdata/tools/setup bench installs it' if missing else ''
