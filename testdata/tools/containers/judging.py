"""How a build in a container ended, beside how it ended as root of the machine."""
import os
import subprocess

from kernels import scenarios
from kernels.trouble import REPOSITORY

from .tables import Cell


def judge(outcome, reference):
    """Returns the cell of an outcome."""
    records = dict(record.partition(' ')[::2] for record in outcome.records)
    ours, theirs = ([record for record in found.records if record.startswith('digest ')] if found else []
                    for found in (outcome, reference))
    alone = scenarios.Outcome(outcome.name)
    alone.code, alone.said, alone.records = outcome.code, outcome.said, ours
    expected = scenarios.Outcome(outcome.name)
    expected.code, expected.records = 0, theirs
    why = alone.judge(expected if reference else None)
    if reference and outcome.code == 0 and ours != theirs:
        outcome.said = differences(outcome.image, reference.image)
    return Cell(why, outcome.seconds, records.get('rung'))


def differences(image, other):
    """Returns the lines that say how two images differ."""
    tool = os.path.join(REPOSITORY, 'testdata/tools/ocidiff')
    done = subprocess.run([tool, '--layers', '--mtime', image, other], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.stdout.splitlines()[:30]
