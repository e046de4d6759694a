"""Other builders, which build the probes in the same settings."""
import hashlib
import os
import re
import shutil
import subprocess
import tempfile

from kernels.scenarios import Outcome
from kernels.trouble import REPOSITORY, Missing

from . import kaniko, needs
from .tables import Cell

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'builders')
# Differences that are none of the Dockerfile's: what a builder leaves at the targets of mounts, and marks of its storage driver.
IGNORED = re.compile(r'^/etc/(hostname|hosts|resolv\.conf):|^/(bind|cache|context|deep|one|tmpfs|run)\b[^:]*: only in A|user\.overlay\.')
BUILDERS = ['buildah', 'kaniko']
# The packages of the builders that Debian has.
PACKAGES = {'buildah': ['buildah', 'libcap2-bin', 'runc', 'uidmap']}


def choose(options):
    """Returns the builders that are to be tried. One that is named has to be there."""
    if options.kaniko:
        kaniko.require(options.kaniko)
    elif 'kaniko' in (options.builder or []):
        raise Missing(kaniko.HOW)
    return [name for name in options.builder or BUILDERS if name != 'kaniko' or options.kaniko]


def prepare(data, builder, options):
    """Puts a builder's runner beside the probes, and returns the root file system that holds the builder."""
    shutil.copy2(os.path.join(HERE, f'{builder}-runner'), data.directory)
    if builder in PACKAGES:
        return kept_archive(data, builder)
    archive = data.path(f'{builder}.tar')
    kaniko.prepare(data, options.kaniko, archive)
    return archive


def kept_archive(data, builder):
    """Returns the root file system with a builder's packages, which is made once."""
    data.add_debian()
    names = PACKAGES[builder]
    with open(os.path.join(HERE, builder), encoding='utf-8') as file:
        text = file.read().replace('PACKAGES', ' '.join(names))
    archive = os.path.join(data.cache, f'{builder}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.tar')
    if not os.path.exists(archive):
        make_archive(data, names, text, archive)
    return archive


def make_archive(data, names, text, archive):
    """Makes the root file system that holds a builder, with kiln, as a Dockerfile says."""
    with tempfile.TemporaryDirectory() as context:
        with open(os.path.join(context, 'Dockerfile'), 'w', encoding='utf-8') as file:
            file.write(text)
        subprocess.run([data.kiln, '--root', os.path.join(context, 'store'), 'build', '--quiet',
                        '--output', f'type=tar,dest={archive}.new', '--build-context', f'debian=oci-layout://{data.path("debian")}',
                        '--build-context', f'files={needs.files(data.cache, names, [])}', '-f', os.path.join(context, 'Dockerfile'),
                        context], check=True, stdout=subprocess.DEVNULL)
    os.rename(f'{archive}.new', archive)


def judge(outcome, reference):
    """Returns the cell of a builder's image, whose files must be those that kiln builds as root of the machine."""
    alone = Outcome(outcome.name)
    alone.code, alone.said = outcome.code, outcome.said
    why = alone.judge(None)
    if not why and reference:
        tool = os.path.join(REPOSITORY, 'testdata/tools/ocidiff')
        done = subprocess.run([tool, '--no-config', outcome.image, reference.image], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        differences = [line for line in done.stdout.splitlines() if not IGNORED.search(line)]
        if done.returncode and differences:
            outcome.said = differences[:30]
            why = f'it made other files: {differences[0]}'
    return Cell(why, outcome.seconds)
