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
# Attacks that a container can't make, and those that a rung meets in another way: the reasons, with the rungs.
EVERY, COPYING, SUPERVISED = tuple(BY_RUNG), ('userns', 'chroot', 'none'), ('chroot', 'none')
EXCEPTIONS = {
    'network::a_port_is_published_where_it_was_asked_for': ('the test makes networks of its own', EVERY),
    'network::nobody_reaches_or_impersonates_another': ('the test makes networks of its own', EVERY),
    'lifetimes::a_writer_changes_no_layer_of_a_runtime': ('OCI runtimes take more than the container has', EVERY),
    'archives::real_archives_are_unpacked': ('copied trees share no files with layers below', COPYING),
    'lifetimes::a_writer_outside_of_a_step_fails_it': ('a step can\'t reach the socket of another', SUPERVISED),
    'lifetimes::a_descriptor_opens_nothing_for_writing_after_its_step': ('a step can\'t reach the socket of another', SUPERVISED),
    'lifetimes::everything_ends_with_kiln_and_with_its_helper': ('the message names no helper', SUPERVISED),
    'runtime::descriptors_lead_nowhere': ('a list of /proc/self/fd lacks its own descriptor', ('chroot',)),
    'runtime::every_step_is_confined': ('no_new_privs is set', ('chroot',)),
    'runtime::masked_paths_stay_masked': ('a hidden directory has no file system of its own', ('chroot',)),
}
FILES = {'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n', 'etc/group': 'root:x:0:\ntty:x:5:\n'}


def exceptions():
    """Returns the reasons by setting and test."""
    return {(BY_RUNG[rung], test): reason for test, (reason, rungs) in EXCEPTIONS.items() for rung in rungs}


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
