"""The parts of the suite: which scenarios are run where."""
import functools
import os
import shutil
import subprocess
import tempfile
import threading

from . import filesystems, golden, machine, packages, root, scenarios, security, shares
from .tables import Table

FILE_SYSTEMS = [*filesystems.FILE_SYSTEMS, *shares.SHARES]
LAYOUTS = ['v1', 'hybrid', 'none']
# Kernels of which more than the scenarios is shown: all golden images, and the attack table.
GOLDEN = ['5.10', '6.1', '6.12']
SECURITY = ['6.1', '6.12']


def require(options):
    """Fails where this machine lacks what the parts need."""
    scenarios.require()
    shared = wanted_shares(options) if 'filesystems' in options.part else []
    if shared or set(options.part) != {'filesystems'}:
        machine.require()
    if shared:
        shares.require()
    if 'filesystems' in options.part:
        filesystems.require()


def wanted_shares(options):
    """Returns the shared file systems that stores are to lie on."""
    return [name for name in shares.SHARES if name in (options.filesystem or shares.SHARES)]


class Suite:
    """What all parts share: the program, the guests' disk, how scenarios end here, and the tables."""

    def __init__(self, options, work):
        self.options, self.work = options, work
        os.chmod(work, 0o755)
        self.kiln = os.path.join(work, 'kiln')
        shutil.copy2(options.kiln, self.kiln)
        self.scenarios = os.path.join(work, 'scenarios')
        scenarios.prepare(self.scenarios)
        self.lock = threading.RLock()
        self.made = {}

    def names(self, names=None):
        """Returns the scenarios that are to be run, of those given or of all."""
        names = names or scenarios.everything()
        wanted = self.options.scenario or (scenarios.SHORT if self.options.short else names)
        return [name for name in names if name in wanted]

    def kernels(self, names=None):
        """Returns the kernels that scenarios are to be run on, of those given or of all."""
        wanted = self.options.kernel or list(packages.RELEASES)
        wanted = [name for name in names or packages.RELEASES if name in wanted]
        for name in wanted:
            # One that can't be had is said before anything is run.
            packages.kernel(name, self.options.cache)
        return wanted

    def once(self, name, make):
        """Returns what `make` makes, the first time."""
        with self.lock:
            if name not in self.made:
                self.made[name] = make()
            return self.made[name]

    def table(self, title, corner):
        """Returns a table by its title."""
        return self.once(f'table {title}', lambda: Table(title, corner))

    def tables(self):
        """Returns the tables."""
        return [made for name, made in self.made.items() if name.startswith('table ')]

    def reference(self, name):
        """Returns how a scenario ended on this machine; `None` where it wasn't run."""
        return self.run_reference().get(name)

    def run_reference(self):
        """Runs scenarios on this machine, once."""
        return self.once('reference', self.make_reference)

    def make_reference(self):
        names = self.names([name for name in scenarios.everything() if name not in scenarios.GUESTS])
        lines = scenarios.run_here(self.scenarios, self.kiln, os.path.join(self.work, 'store'), names)
        table = Table('', '')
        outcomes = {}
        for outcome in scenarios.read(lines, self.say):
            self.note(table, outcome.name, 'here', outcome, None)
            outcomes[outcome.name] = outcome
        shutil.rmtree(os.path.join(self.work, 'store'), ignore_errors=True)
        return outcomes

    def machine(self, name, disk=None, **more):
        """Returns a machine with a kernel."""
        with self.lock:
            kernel = packages.kernel(name, self.options.cache)
        return machine.Machine(kernel, disk or self.once('disk', self.make_disk), **more)

    def make_disk(self):
        """Makes the disk of guests that run scenarios."""
        disk, tree = os.path.join(self.work, 'disk'), root.with_programs(self.kiln)
        for name in ['data', *scenarios.PROGRAMS]:
            tree.copy(os.path.join(self.scenarios, name), f'/work/{name}')
        tree.write_text('/work/settings', ': "${KILN:=/usr/bin/kiln}" "${STORE:=/var/lib/kiln}"\n')
        if 'golden' in self.options.part:
            golden.prepare(tree)
        if 'filesystems' in self.options.part and wanted_shares(self.options):
            shares.prepare(tree)
        tree.write(disk)
        return disk

    def run_guest(self, table, place, kernel, layout, names, snapshotter=''):
        """Runs scenarios in a guest, and notes how they end in a column of a table."""
        guest = self.machine(kernel)
        settings = {'SNAPSHOTTER': snapshotter or self.options.snapshotter}
        lines = guest.run(layout, f'sh /work/runner /work {" ".join(names)}', settings, seconds=1800)
        self.note_guest(table, place, names, lines)

    def run_shared(self, table, name, kernel, names):
        """Runs scenarios in a guest whose stores lie on a shared file system, and notes how they end."""
        share = shares.SHARES[name]
        directory = tempfile.mkdtemp(prefix='shared-', dir=self.work) if share.is_served else None
        if directory:
            os.chmod(directory, 0o755)
        guest = self.machine(kernel, modules=share.modules, shared=directory)
        # The server takes its time, too.
        settings = {'SNAPSHOTTER': self.options.snapshotter, 'STORE': shares.STORE, 'LIMIT': '900'}
        command = share.command(f'sh /work/runner /work {" ".join(names)}')
        lines = guest.run('v2', command, settings, seconds=3600)
        self.note_guest(table, f'{name}, Linux {kernel}', names, lines)
        if directory:
            shutil.rmtree(directory)

    def note_guest(self, table, place, names, lines):
        """Notes how scenarios end that a guest tells of."""
        missing = list(names)
        for outcome in scenarios.read(lines, self.say):
            missing.remove(outcome.name)
            self.note(table, outcome.name, place, outcome, self.reference(outcome.name))
        for name in missing:
            self.note(table, name, place, scenarios.Outcome(name), None)

    def note(self, table, row, column, outcome, reference):
        """Notes how a scenario ended, and says so."""
        why = outcome.judge(reference)
        with self.lock:
            table.set(row, column, why)
            self.say(f'{column:16} {outcome.name:24} {outcome.seconds:6.1f} s  {why or "ok"}')
            if why and self.options.verbose:
                self.say('\n'.join(f'    {line}' for line in outcome.said))

    def say(self, line):
        """Prints a line."""
        with self.lock:
            print(line, flush=True)


def kernels(suite):
    """All scenarios on each kernel, with control groups of version 2."""
    table, names, kernels = suite.table('Kernels', 'scenario'), suite.names(), suite.kernels()
    suite.run_reference()
    return [functools.partial(suite.run_guest, table, kernel, kernel, 'v2', names) for kernel in kernels]


def groups(suite):
    """What depends on control groups, with their other layouts."""
    table, names = suite.table('Control groups', 'scenario'), suite.names(scenarios.GROUPS)
    return [functools.partial(suite.run_guest, table, f'{kernel} {layout}', kernel, layout, names)
            for kernel in suite.kernels() for layout in LAYOUTS if names]


def copies(suite):
    """What depends on the file system, with trees that are copied."""
    table, names, kernels = suite.table('Copied trees', 'scenario'), suite.names(scenarios.FILES), suite.kernels()
    suite.run_reference()
    return [functools.partial(suite.run_guest, table, kernel, kernel, 'v2', names, 'copy') for kernel in kernels]


def build_golden(suite, kernel, variant):
    """Builds all contexts of the golden images in a guest."""
    table = suite.table('Golden images', 'context')
    base = os.path.join(suite.scenarios, 'data/base.tar')
    for outcome in golden.run(suite.machine(kernel), variant, base, suite.work):
        suite.note(table, outcome.name, f'{kernel} {variant}', outcome, None)


def golden_images(suite):
    """All golden images on some kernels, built in several ways."""
    return [functools.partial(build_golden, suite, kernel, variant)
            for kernel in suite.kernels(GOLDEN) for variant in golden.VARIANTS]


def attack(suite, kernel, disk):
    """Runs the attack table in a guest."""
    table = suite.table('Attack table', 'test')
    for outcome in security.run(suite.machine(kernel, disk), suite.say):
        suite.note(table, outcome.name, kernel, outcome, None)


def attacks(suite):
    """The attack table on some kernels."""
    disk = os.path.join(suite.work, 'security')
    tree = root.with_programs(suite.kiln)
    security.prepare(tree, security.build())
    tree.write(disk)
    return [functools.partial(attack, suite, kernel, disk) for kernel in suite.kernels(SECURITY)]


def file_system(suite, name):
    """Runs scenarios with the store on a file system of a kind."""
    table = suite.table('File systems', 'scenario')
    names = suite.names(scenarios.FILES)
    store, disk = os.path.join(suite.work, 'mounted'), os.path.join(suite.work, 'disk-of-store')
    before = filesystems.setup(name, store, disk)
    lines = scenarios.run_here(suite.scenarios, suite.kiln, store, names, before, suite.options.snapshotter)
    for outcome in scenarios.read(lines, suite.say):
        suite.note(table, outcome.name, name, outcome, suite.reference(outcome.name))
    subprocess.run(['rm', '-f', disk], check=True)


def file_systems(suite):
    """Scenarios with the store on each kind of file system; one at a time on this machine."""
    suite.run_reference()
    local = [name for name in filesystems.FILE_SYSTEMS if name in (suite.options.filesystem or filesystems.FILE_SYSTEMS)]
    table, names = suite.table('File systems', 'scenario'), suite.names(scenarios.FILES)
    kernels = suite.kernels(None if suite.options.kernel else [shares.KERNEL])
    return [lambda: [file_system(suite, name) for name in local]] + [
        functools.partial(suite.run_shared, table, name, kernel, names)
        for name in wanted_shares(suite.options) for kernel in kernels]


# Each returns jobs, functions without parameters, any number of which may run at once.
PARTS = {'kernels': kernels, 'groups': groups, 'copies': copies, 'golden': golden_images, 'security': attacks,
         'filesystems': file_systems}
