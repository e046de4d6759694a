"""The attack table (`cli/tests/security`), run in a guest: the compiled tests with the tools that they use."""
import glob
import json
import os
import subprocess

from . import scenarios
from .trouble import REPOSITORY, Missing

TARGET = 'x86_64-unknown-linux-gnu'
PROFILE = 'guest'
# What the tests call, with the packages that have it; these take the place of busybox's.
PROGRAMS = {'bash': 'bash', 'bzip2': 'bzip2', 'curl': 'curl', 'git': 'git', 'ip': 'iproute2', 'openssl': 'openssl',
            'python3': 'python3', 'tar': 'tar', 'xz': 'xz-utils', 'setsid': 'util-linux', 'timeout': 'coreutils',
            'cp': 'coreutils', 'chmod': 'coreutils', 'chown': 'coreutils', 'stat': 'coreutils', 'base64': 'coreutils',
            'env': 'coreutils', 'mount': 'mount', 'umount': 'mount', 'pgrep': 'procps', 'setfattr': 'attr', 'ps': 'procps',
            'nsenter': 'util-linux', 'runc': 'runc'}
GIT = '/usr/lib/git-core'
SCRIPT = r'''
export CI=true RUST_BACKTRACE=0 KILN_SECURITY_PATIENCE=20
mkdir -p /root
for program in /security/*; do
    # The races, and the bombs among the archives, take longest, and come last.
    "$program" --list --format terse | sed -n 's/: test$//p' >/run/all
    { grep -vE '^(races|archives)::' /run/all; grep -E '^(races|archives)::' /run/all; } >/run/tests
    while read -r name; do
        echo "@begin $name"
        begun=$(sed 's/\..*//' /proc/uptime)
        code=0
        timeout 1800 "$program" --exact "$name" </dev/null 2>&1 || code=$?
        echo "@end $name $code $(($(sed 's/\..*//' /proc/uptime) - begun))"
    done </run/tests
done
'''


def build():
    """Compiles the tests, and kiln, without shared libraries; returns the paths of the tests."""
    command = ['cargo', 'test', '--no-run', '--locked', '-p', 'kiln-cli', '--test', 'security', '--profile', PROFILE,
               '--target', TARGET, '--message-format', 'json']
    environment = dict(os.environ, RUSTFLAGS='-C target-feature=+crt-static')
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    artifacts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
    return [artifact['executable'] for artifact in artifacts
            if artifact.get('executable') and 'test' in artifact['target']['kind']]


def prepare(root, tests):
    """Puts the tests and their tools into a guest's root file system."""
    # The guest's own /tmp would hide them.
    if REPOSITORY.startswith('/tmp/'):
        raise Missing(f'a checkout that is not in /tmp, as {REPOSITORY} is')
    for test in tests:
        root.copy(test, '/security/' + os.path.basename(test).split('-')[0])
    # The tests know these by where they were compiled.
    root.copy(f'{REPOSITORY}/target/{TARGET}/{PROFILE}/kiln', f'{REPOSITORY}/target/{TARGET}/{PROFILE}/kiln')
    for tool in glob.glob(f'{REPOSITORY}/testdata/tools/*'):
        if os.path.isfile(tool):
            root.copy(tool, tool)
    for program, package in PROGRAMS.items():
        root.carry(program, package)
    for name in ('git-remote-http', 'git-remote-https'):
        root.place(f'{GIT}/git-remote-http', f'{GIT}/{name}')
    root.copy('/usr/bin/git', f'{GIT}/git')
    os.symlink('git', root.path('/usr/bin/git-upload-pack'))
    library = subprocess.run(['/usr/bin/python3', '-c', 'import sysconfig; print(sysconfig.get_path("stdlib"))'],
                             stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    root.copy(library, library)
    for module in glob.glob(f'{library}/lib-dynload/*.so'):
        root.place(module, module)


def run(machine, say):
    """Runs the tests in a guest, and yields how each ended."""
    yield from scenarios.read(machine.run('v2', SCRIPT, seconds=6000), say)
