"""The contexts of `testdata/golden/image`, built in a guest and compared with what is expected."""
import glob
import os
import subprocess
import tarfile
import tempfile

from .scenarios import Outcome
from .trouble import REPOSITORY

CASES = os.path.join(REPOSITORY, 'testdata/golden/image')
LISTING = os.path.join(REPOSITORY, 'testdata/tools/image-listing')
# The size of the disk that the images are written to.
ROOM = 512 << 20
# Whose RUN makes a device, which a user namespace forbids.
MAKES_DEVICES = 'run-special-files'
# How the cases are built: the user, and the snapshotter.
VARIANTS = {'overlay': ('root', ''), 'copy': ('root', 'copy'), 'rootless': ('kiln-test', '')}

SCRIPT = r'''
mkdir -p /out
# A user's context belongs to them. A new owner takes some bits of the mode away.
[ "$RUNS_AS" = root ] || find /golden | while IFS= read -r path; do
    mode=$(stat -c %a "$path")
    chown -h "$RUNS_AS:$RUNS_AS" "$path"
    [ -L "$path" ] || chmod "$mode" "$path"
done
for directory in /golden/*/; do
    name=$(basename "$directory")
    echo "@begin $name"
    begun=$(sed 's/\..*//' /proc/uptime)
    home=/home/golden
    mkdir -p $home
    chown "$RUNS_AS" $home /out
    code=0
    # shellcheck disable=SC2046
    setpriv --reuid="$RUNS_AS" --regid="$RUNS_AS" --clear-groups env HOME=$home KILN_ROOT=$home/store \
        timeout 300 kiln ${SNAPSHOTTER:+--snapshotter=$SNAPSHOTTER} build -q -f "$directory/Dockerfile" \
        --build-context base=oci-layout:///work/data/base --output "type=oci,dest=/out/$name.tar" \
        $(cat "$directory/args" 2>/dev/null) "$directory/context" >"/out/$name.log" 2>&1 || code=$?
    echo "$code" >"/out/$name.code"
    echo "@end $name 0 $(($(sed 's/\..*//' /proc/uptime) - begun))"
done
tar -cf /dev/vdb -C /out .
'''


def prepare(root):
    """Puts the cases with their contexts into a guest's root file system."""
    for case in sorted(glob.glob(f'{CASES}/*/')):
        name = os.path.basename(case.rstrip('/'))
        context = root.path(f'golden/{name}/context')
        os.makedirs(context)
        for file in ('Dockerfile', 'args'):
            if os.path.exists(case + file):
                root.copy(case + file, f'golden/{name}/{file}')
        if os.path.exists(case + 'context.sh'):
            subprocess.run(['bash', '-c', f'umask 022 && . {case}context.sh'], cwd=context, check=True)


def run(machine, variant, base, work):
    """Builds all cases in a guest, and yields their outcomes.

    `base` is the archive of the base image, `work` where images are put for as long as they are looked at.
    """
    user, snapshotter = VARIANTS[variant]
    with tempfile.TemporaryDirectory(prefix='golden-', dir=work) as directory:
        disk = os.path.join(directory, 'disk')
        with open(disk, 'wb') as file:
            file.truncate(ROOM)
        settings = {'RUNS_AS': user, 'SNAPSHOTTER': snapshotter}
        lines = list(machine.run('v2', SCRIPT, settings, output=disk, seconds=1800))
        if not any(line.startswith('@over 0') for line in lines):
            yield broken(lines)
            return
        with tarfile.open(disk, 'r:') as tar:
            tar.extractall(directory)
        for built in sorted(glob.glob(f'{directory}/*.code')):
            yield judge(os.path.basename(built).removesuffix('.code'), directory, base, user)


def broken(lines):
    """Returns the outcome of a guest that wrote nothing."""
    outcome = Outcome('golden')
    outcome.code, outcome.said = 1, lines[-30:]
    return outcome


def judge(case, directory, base, user):
    """Compares an image with what is expected."""
    outcome = Outcome(case)
    image = os.path.join(directory, f'{case}.tar')
    failed = read(os.path.join(directory, f'{case}.code')).strip() != '0'
    if failed:
        seen = 'build failed\n'
    else:
        seen = subprocess.run([LISTING, image, base], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    expected = read(os.path.join(CASES, case, 'expected.txt'))
    if user != 'root' and case == MAKES_DEVICES:
        expected = 'build failed\n'
    outcome.code = int(seen != expected)
    if outcome.code:
        outcome.said = [f'- {line}' for line in expected.splitlines() if line not in seen.splitlines()]
        outcome.said += [f'+ {line}' for line in seen.splitlines() if line not in expected.splitlines()]
        outcome.said += read(os.path.join(directory, f'{case}.log')).splitlines()[-3:]
    return outcome


def read(path):
    """Returns a text file, or nothing where there is none."""
    if not os.path.exists(path):
        return ''
    with open(path, encoding='utf-8', errors='replace') as file:
        return file.read()
