"""The attack table (`cli/tests/security`), run in containers: the compiled tests with the tools that they use."""
import os
import subprocess

from kernels import root, scenarios, security

from . import settings
from .tables import Cell

IMAGE = 'security'
# Containers have a processor of their own, unlike emulated machines.
SCRIPT = security.SCRIPT.replace('PATIENCE=20', 'PATIENCE=4')
# The settings, one for each rung. The tests run as root alone.
BY_RUNG = {'root': 'admsroot', 'userns': 'sproot', 'chroot': 'droot', 'none': 'droproot'}
FILES = {'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n', 'etc/group': 'root:x:0:\ntty:x:5:\n'}


def make_archive(archive):
    """Makes the root file system of containers that run the tests."""
    tree = root.Root()
    for program, package in root.PROGRAMS.items():
        if program not in ('apparmor_parser', 'newuidmap', 'newgidmap'):
            tree.carry(program, package)
    tree.place('/bin/sh', '/bin/sh')
    security.prepare(tree, security.build())
    for name, text in FILES.items():
        tree.write_text(name, text)
    subprocess.run(['tar', '-C', tree.directory, '-cf', archive, '.'], check=True)


def run(suite, setting, table):
    """Runs the tests in a setting, and notes how each ended."""
    # The store is no overlay on an overlay.
    volume = suite.volume(setting)
    os.chmod(volume, 0o1777)
    engine = suite.engines[settings.BY_NAME[setting].engine]
    lines = engine.run(settings.BY_NAME[setting], ['/bin/sh', '-c', SCRIPT], {volume: '/tmp'}, {}, seconds=3600, image=IMAGE)
    for outcome in scenarios.read(lines, suite.say):
        cell = Cell(outcome.judge(None), outcome.seconds)
        suite.note(table, setting, outcome, cell)
    suite.remove(volume)
