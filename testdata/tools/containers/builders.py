"""Other builders, which build the probes in the same settings."""
import os
import shutil
import subprocess

from kernels.scenarios import Outcome
from kernels.trouble import REPOSITORY

from . import needs, probes
from .tables import Cell

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'builders')
# Empty files that a builder may leave for what is mounted there.
STUBS = ('/etc/hostname:', '/etc/hosts:', '/etc/resolv.conf:')
# The packages of each builder.
PACKAGES = {'buildah': ['buildah', 'libcap2-bin', 'runc', 'uidmap']}


def prepare(data, builder, archive):
    """Makes the root file system that holds a builder, with kiln, and puts its runner beside the probes."""
    data.add_debian()
    context = data.path(f'image-of-{builder}')
    os.makedirs(context)
    names = PACKAGES[builder]
    with open(os.path.join(HERE, builder), encoding='utf-8') as file:
        text = file.read().replace('PACKAGES', ' '.join(names))
    with open(os.path.join(context, 'Dockerfile'), 'w', encoding='utf-8') as file:
        file.write(text)
    store = data.path('store-of-image')
    subprocess.run([data.kiln, '--root', store, 'build', '--quiet', '--output', f'type=tar,dest={archive}',
                    '--build-context', f'debian=oci-layout://{data.path("debian")}',
                    '--build-context', f'files={needs.files(data.cache, names, [])}', context], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(store)
    shutil.copy2(os.path.join(HERE, f'{builder}-runner'), data.directory)


def judge(outcome, reference):
    """Returns the cell of a builder's image, whose files must be those that kiln builds as root of the machine."""
    alone = Outcome(outcome.name)
    alone.code, alone.said = outcome.code, outcome.said
    why = alone.judge(None)
    if not why and reference:
        tool = os.path.join(REPOSITORY, 'testdata/tools/ocidiff')
        done = subprocess.run([tool, '--no-config', outcome.image, reference.image], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        differences = [line for line in done.stdout.splitlines() if not line.startswith(STUBS)]
        if done.returncode and differences:
            outcome.said = differences[:30]
            why = f'it made other files: {differences[0]}'
    return Cell(why, outcome.seconds)
