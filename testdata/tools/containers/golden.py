"""The contexts of `testdata/golden/image`, built in containers and compared with what is expected, and with root's images."""
import glob
import os
import shutil
import subprocess

from kernels.golden import CASES, LISTING, read

from . import judging

BASE = []
# Cases whose times are those of the clock.
CLOCK = ['run-meta-only']


def prepare(data, names):
    """Adds cases to the probes, and returns their names."""
    BASE[:] = [data.path('base.tar')]
    cases = [os.path.basename(case.rstrip('/')) for case in sorted(glob.glob(f'{CASES}/*/'))]
    cases = [case for case in cases if case in (names or cases)]
    for case in cases:
        context = data.path(f'probes/{case}/context')
        os.makedirs(context)
        for file in ('Dockerfile', 'args'):
            if os.path.exists(f'{CASES}/{case}/{file}'):
                shutil.copy2(f'{CASES}/{case}/{file}', data.path(f'probes/{case}/{file}'))
        if os.path.exists(f'{CASES}/{case}/context.sh'):
            subprocess.run(['bash', '-c', f'umask 022 && . {CASES}/{case}/context.sh'], cwd=context, check=True)
    return cases


def judge(outcome, reference):
    """Returns the cell of a case: its files must be the expected ones, and its digest that of root's image."""
    expected = read(os.path.join(CASES, outcome.name, 'expected.txt'))
    if outcome.code:
        seen, reason = 'build failed\n', judging.judge(outcome, None).why
    else:
        seen = subprocess.run([LISTING, outcome.image, *BASE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        reason = None
    if seen == expected:
        outcome.code = 0
        return judging.judge(outcome, None if outcome.name in CLOCK else reference)
    cell = judging.judge(outcome, None)
    ours, theirs = seen.splitlines(), expected.splitlines()
    lines = [f'- {line}' for line in theirs if line not in ours] + [f'+ {line}' for line in ours if line not in theirs]
    cell.why = reason or f'it made another image: {lines[0]}'
    outcome.said = lines + outcome.said
    return cell
