"""runc alone: a container of files that lie ready, without image, layers or network."""
import json

from bench.builders.builder import Builder


class Runc(Builder):
    name, title = 'runc', 'runc alone'

    def missing(self):
        return self.lacks('runc')

    def start(self):
        self.call('runc', 'spec', '-b', self.home)
        with open(f'{self.home}/config.json') as file:
            config = json.load(file)
        config['process'].update(args=['true'], terminal=False)
        config['root'] = {'path': self.inputs.rootfs, 'readonly': False}
        with open(f'{self.home}/config.json', 'w') as file:
            json.dump(config, file)

    def version(self):
        return ' '.join(self.call('runc', '--version').splitlines()[0].split()).replace(' version', '')

    def run(self):
        return [['runc', f'--root={self.home}/state', 'run', '-b', self.home, 'bench']]
