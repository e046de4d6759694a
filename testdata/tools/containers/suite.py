"""The parts of the suite, and what they share: engines, an image that holds kiln, and volumes."""
import concurrent.futures
import functools
import os
import shutil
import subprocess
import tempfile
import threading

from kernels import root, scenarios
from kernels.trouble import Missing

from . import builders, engines, golden, judging, kaniko, pods, probes, security, settings
from .tables import Cell, Costs, Listing, Matrix

# Where volumes are in containers.
DATA, OUT, KILN = '/data', '/out', '/usr/bin/kiln'
# The root file system of containers has no other users: nothing of the machine is known there.
FILES = {'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n', 'etc/group': 'root:x:0:\n', 'etc/subuid': '', 'etc/subgid': ''}
HERE = 'root of the machine'
STEPS = 200

DESCRIPTIONS = {HERE: '', **{setting.name: setting.description for setting in settings.ALL}}
# Cells that fail for a reason that kiln can't change: the setting and the probe, with the reason.
ONE_ID = 'the user namespace has one ID: a step can\'t change to another, and links belong to root; `--isolation none` builds it'
EXCEPTIONS = {(setting, probe): ONE_ID for setting in ('suser', 'spuser') for probe in ('copy', 'user', 'debian')}


def require(options):
    """Fails where this machine lacks what containers need."""
    if os.geteuid() != 0:
        raise Missing('root: container engines are started')
    kinds = {settings.BY_NAME[name].engine for name in options.setting}
    if kinds & {settings.DOCKER, settings.REMAPPED}:
        engines.find('dockerd', 'docker.io')
    if kinds & {settings.PODMAN, settings.KUBERNETES}:
        pods.require()
    if settings.REMAPPED in kinds:
        with open('/etc/subuid', encoding='utf-8') as file:
            if f'{engines.REMAPPED_TO}:' not in file.read():
                raise Missing(f'subordinate IDs of {engines.REMAPPED_TO}: run testdata/tools/setup test')
    if 'builders' in options.part:
        builders.choose(options)


class Suite:
    """What all parts share."""

    def __init__(self, options, work):
        self.options, self.work = options, work
        self.kiln, self.data = os.path.join(work, 'kiln'), None
        self.use_kiln()
        self.lock = threading.RLock()
        self.engines, self.made, self.archives = {}, {}, {}
        self.sections, self.failures = [], []
        self.is_over = False

    def use_kiln(self):
        """Has containers hold kiln, not another builder."""
        self.image, self.runner = engines.IMAGE, 'runner'

    def prepare(self):
        """Copies the program, and makes what the probes build from."""
        os.chmod(self.work, 0o711)
        shutil.copy2(self.options.kiln, self.kiln)
        self.data = probes.Data(os.path.join(self.work, 'data'), self.kiln, self.options.cache)

    def stop(self):
        """Stops the engines. No other container is started."""
        self.is_over = True
        for engine in self.engines.values():
            engine.stop()

    def say(self, line):
        """Prints a line."""
        with self.lock:
            print(line, flush=True)

    def once(self, name, make):
        """Returns what `make` makes, the first time."""
        with self.lock:
            if name not in self.made:
                self.made[name] = make()
            return self.made[name]

    def start(self, names):
        """Starts the engines of settings, and gives each the image with kiln."""
        kinds = {settings.BY_NAME[name].engine for name in names}
        for kind in kinds - set(self.engines):
            engine = self.make_engine(kind, os.path.join(self.work, kind))
            engine.start()
            self.engines[kind] = engine
        archive = self.archives.get(self.image) or self.once('archive', self.make_archive)
        for kind in kinds:
            self.engines[kind].wait()
            self.once(f'{self.image} in {kind}', lambda: self.engines[kind].load(archive, self.image) or True)

    def make_engine(self, kind, directory):
        """Returns an engine of a kind, with its state in a directory."""
        if kind in (settings.PODMAN, settings.KUBERNETES):
            return pods.Podman(directory, is_strict=kind == settings.KUBERNETES)
        return engines.Docker(directory, is_remapped=kind == settings.REMAPPED)

    def make_archive(self):
        """Makes the root file system of containers: busybox, kiln, and the libraries that it is linked with."""
        archive, tree = os.path.join(self.work, 'image.tar'), root.Root()
        tree.place(self.kiln, KILN)
        for name, text in FILES.items():
            tree.write_text(name, text)
        subprocess.run(['tar', '-C', tree.directory, '-cf', archive, '.'], check=True)
        return archive

    def volume(self, name):
        """Returns a new directory that every user may write to."""
        directory = tempfile.mkdtemp(prefix=f'{name}-', dir=self.work)
        os.chmod(directory, 0o777)
        return directory

    def run(self, setting, names, rounds=1):
        """Runs probes in a setting, and yields their outcomes."""
        setting = settings.BY_NAME[setting]
        out, data = self.volume(setting.name), self.data.of(setting)
        environment = {'KILN': KILN, 'DATA': DATA, 'OUT': OUT, 'ROUNDS': rounds, 'ISOLATION': self.options.isolation}
        lines = self.engines[setting.engine].run(
            setting, ['/bin/sh', f'{DATA}/{self.runner}', *names], {data: f'{DATA}:ro', out: OUT}, environment,
            seconds=900 * rounds, image=self.image)
        yield from self.read(lines, out, rounds)
        self.remove(out)

    def run_here(self, names, rounds=1):
        """Runs probes as root of this machine, and yields their outcomes."""
        out = self.volume('here')
        environment = dict(os.environ, KILN=self.kiln, DATA=self.data.directory, OUT=out, ROUNDS=str(rounds), ISOLATION='')
        command = ['unshare', '--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c',
                   'ip link set lo up; exec sh "$@"', 'sh', os.path.join(self.data.directory, 'runner'), *names]
        lines = engines.stream(command, environment, 900 * rounds, lambda: None)
        yield from self.read(lines, out, rounds)

    def read(self, lines, out, rounds):
        """Yields the outcomes that lines tell of, with their images."""
        for outcome in scenarios.read(lines, self.say):
            outcome.image = os.path.join(out, f'{outcome.name}-{rounds}/image.tar')
            yield outcome

    def note(self, table, setting, outcome, cell):
        """Notes how something ended in a setting, and says so."""
        with self.lock:
            table.set(setting, outcome.name, cell)
            self.say(f'{setting:20} {outcome.name:10} {cell.seconds:6.2f} s  {cell.rung or "":7} {cell.why or "ok"}')
            if cell.why and self.options.verbose:
                self.say('\n'.join(f'    {line}' for line in outcome.said))

    def in_parallel(self, jobs):
        """Runs functions, as many at a time as there may be containers."""
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            for job in [pool.submit(lambda job: self.is_over or job(), job) for job in jobs]:
                job.result()

    def conclude(self, table, is_ours=True, exceptions=None):
        """Keeps a table for the report, with what failed though it was to pass, or the other way round."""
        exceptions = EXCEPTIONS if exceptions is None else exceptions
        if not is_ours:
            self.sections.append(table.text(DESCRIPTIONS))
            return
        text, failures = table.text(DESCRIPTIONS), table.failures()
        expected = {} if self.options.isolation else {key: why for key, why in exceptions.items() if key in table.cells}
        known = {}
        for setting, probe in (key for key in failures if key in expected):
            known.setdefault((setting, expected[setting, probe]), []).append(probe)
        if known:
            text += '\nExceptions:\n\n'
            text += ''.join(f'- {setting}, {", ".join(names)}: {reason}\n' for (setting, reason), names in known.items())
        self.sections.append(text)
        self.failures += [f'{probe} in {setting}: {why}' for (setting, probe), why in failures.items()
                          if (setting, probe) not in expected]
        self.failures += [f'{" in ".join(reversed(key))} is an exception, and passes' for key in expected if key not in failures]
        self.failures += table.wrong_rungs(self.options.isolation)

    def selected(self, names):
        """Returns those of some settings that are to be tried, or all that are named."""
        wanted = self.options.setting
        return wanted if self.options.is_chosen else [name for name in settings.BY_NAME if name in names]

    def report(self):
        """Prints the tables, and returns the exit status."""
        text = '\n'.join(self.sections)
        print(f'\n{text}')
        if self.options.out:
            with open(self.options.out, 'w', encoding='utf-8') as file:
                file.write(text)
        for failure in self.failures:
            print(f'failed: {failure}')
        return 1 if self.failures else 0

    def remove(self, directory):
        """Removes what builds have written."""
        if not self.options.keep:
            shutil.rmtree(directory, ignore_errors=True)


class Comparison:
    """Probes that are built in settings, and as root of this machine."""

    def __init__(self, suite, table, names, judge=judging.judge, is_ours=True):
        self.suite, self.table, self.names, self.judge, self.is_ours = suite, table, names, judge, is_ours
        self.reference = {}

    def run(self):
        """Builds everything, first as root of this machine."""
        rounds, places = self.suite.options.rounds, [name for name in self.table.settings if name != HERE]
        self.suite.start(places)
        self.note(HERE, self.suite.run_here(self.names, rounds), self.names)
        self.suite.in_parallel([functools.partial(self.run_in, setting, rounds) for setting in places])
        self.suite.conclude(self.table, self.is_ours)

    def run_in(self, setting, rounds):
        """Builds everything in a setting. Another builder builds each probe in a container of its own."""
        for names in [self.names] if self.is_ours else [[name] for name in self.names]:
            self.note(setting, self.suite.run(setting, names, rounds), names)

    def note(self, setting, outcomes, names):
        """Notes how probes ended, and says so."""
        missing = list(names)
        for outcome in outcomes:
            missing.remove(outcome.name)
            judge = self.judge if self.is_ours or setting != HERE else judging.judge
            cell = judge(outcome, self.reference.get(outcome.name))
            self.suite.note(self.table, setting, outcome, cell)
            if setting == HERE:
                self.reference[outcome.name] = outcome
        for name in missing:
            self.table.set(setting, name, Cell('it did not run', 0))


def matrix(suite):
    """The probes in every setting."""
    names = suite.options.probe or (probes.SHORT if suite.options.short else probes.MATRIX)
    build(suite, 'Settings of container engines', names, suite.options.setting)


def packages(suite):
    """Many packages of Debian's, and wheels, on every rung."""
    build(suite, 'Packages', ['packages'], suite.selected(settings.BY_RUNG.values()))


def build(suite, title, names, places):
    """Builds probes in settings."""
    for name in names:
        suite.data.add(name)
    Comparison(suite, Matrix(title, [HERE, *places], names), names).run()


def golden_images(suite):
    """The golden images on every rung, in a setting that has it."""
    names = golden.prepare(suite.data, suite.options.probe)
    places = suite.selected(settings.BY_RUNG.values())
    suite.data.give_to_users()
    Comparison(suite, Listing('Golden images', [HERE, *places], names), names, golden.judge).run()


def steps(suite):
    """What a step costs on every rung."""
    for name, number in {'no-steps': 0, 'steps': STEPS}.items():
        suite.data.add_text(name, 'FROM base\nENV A=b\n' + 'RUN true\n' * number)
    places = suite.selected(settings.BY_RUNG.values())
    Comparison(suite, Costs('Steps', [HERE, *places], ['no-steps', 'steps'], STEPS), ['no-steps', 'steps']).run()


def other_builders(suite):
    """The probes by other builders, in every setting. What these can't build is no failure."""
    names = suite.options.probe or probes.MATRIX
    for name in names:
        suite.data.add(name)
    chosen = builders.choose(suite.options)
    if 'kaniko' not in chosen and not suite.options.builder:
        suite.say(f'kaniko is left out: it takes {kaniko.HOW}')
    for builder in chosen:
        suite.image, suite.runner = builder, f'{builder}-runner'
        suite.archives[builder] = builders.prepare(suite.data, builder, suite.options)
        table = Matrix(f'The same by {builder}', [HERE, *suite.options.setting], names)
        Comparison(suite, table, names, builders.judge, is_ours=False).run()


def attacks(suite):
    """The attack table on every rung."""
    suite.image, suite.archives[security.IMAGE] = security.IMAGE, os.path.join(suite.work, 'security.tar')
    security.make_archive(suite.archives[security.IMAGE])
    places = suite.selected(security.BY_RUNG.values())
    suite.start(places)
    table = Listing('Attack table', places, [])
    suite.in_parallel([functools.partial(security.run, suite, setting, table) for setting in places])
    suite.conclude(table, exceptions=security.exceptions())


PARTS = {'matrix': matrix, 'golden': golden_images, 'steps': steps, 'packages': packages, 'security': attacks, 'builders': other_builders}
# Those that `all` stands for: the rest takes long, or needs more than this repository.
ALL = ['matrix', 'golden', 'steps', 'packages', 'security']
