"""Running scenarios, on this machine and in guests, and judging what they say."""
import os
import re
import shutil
import subprocess

from . import contexts
from .trouble import REPOSITORY, Missing

HERE = os.path.dirname(os.path.abspath(__file__))
# What runs scenarios, and the scenarios.
PROGRAMS = ['runner', 'helpers', 'scenarios']
# Functions that are no scenarios.
SETTINGS = ['changed_root', 'no_privileges']
# What `make test` runs.
SHORT = '''copy run mounts whiteouts layers volumes limits network port rootless_run single_copy chroot_run none_run'''.split()
# What depends on the layout of control groups.
GROUPS = 'limits out_of_memory forks devices impossible_limits inside_container'.split()
# What is run in guests alone: this machine's control groups, security modules and its file systems, may be of any kind.
GUESTS = [*GROUPS, 'apparmor', 'delegated', 'vfat']
# What has to do with the file system that the store lies on.
FILES = '''copy copy_local run special_files mounts user layers whiteouts archives volumes read_only killed closed store
    rootless_copy rootless_run rootless_mounts rootless_layers rootless_whiteouts rootless_volumes
    single_copy single_mounts single_layers single_whiteouts single_volumes'''.split()


def everything():
    """Returns the names of all scenarios, in the order of the file."""
    with open(os.path.join(HERE, 'scenarios'), encoding='utf-8') as file:
        text = file.read()
    names = re.findall(r'^([a-z_]+)\(\) \{', text, re.MULTILINE)
    return [name for name in names if name not in SETTINGS]


class Outcome:
    """How a scenario ended."""

    def __init__(self, name):
        self.name, self.records, self.said = name, [], []
        self.code, self.seconds = None, 0.0

    def judge(self, reference):
        """Returns why it failed, beside how it ended on the reference; `None` where it didn't."""
        if self.code is None:
            return 'it did not end'
        if self.code == 124:
            return 'it took too long'
        if self.code:
            return self.reason()
        if reference and reference.code == 0 and reference.records != self.records:
            pairs = [(ours, theirs) for ours, theirs in zip(self.records, reference.records) if ours != theirs]
            ours, theirs = pairs[0] if pairs else (f'{len(self.records)} records', str(len(reference.records)))
            return f'it made {shorten(ours)}, and {shorten(theirs)} here'
        return None

    def reason(self):
        """Returns the line that says best why it failed."""
        said = [line.strip() for line in self.said if line.strip()]
        for line, following in zip(said, said[1:]):
            if ' panicked at ' in line:
                return following
        own = re.compile(r'\berror\b|not refused|nothing says|left:', re.IGNORECASE)
        telling = [line for line in said if own.search(line) and not line.startswith('+')]
        return (telling or said or [f'status {self.code}'])[-1]


def shorten(record):
    """Returns a record with no more of its digests than tells them apart."""
    return re.sub(r'(sha256:\w{12})\w*', r'\1', record)


def read(lines, show):
    """Yields the outcomes that lines tell of; `show` is called with each line that says anything else."""
    current = None
    for line in lines:
        word, _, rest = line.partition(' ')
        if word == '@begin':
            current = Outcome(rest)
        elif word == '@record' and current:
            current.records.append(rest)
        elif word == '@end' and current:
            _, code, seconds = rest.split()
            current.code, current.seconds = int(code), float(seconds)
            yield current
            current = None
        elif current:
            current.said.append(line)
        else:
            show(line)
    if current:
        yield current


def prepare(work):
    """Puts all that scenarios need into a directory that any user may read."""
    os.makedirs(work)
    os.chmod(work, 0o755)
    contexts.prepare(os.path.join(work, 'data'))
    for name in PROGRAMS:
        shutil.copy2(os.path.join(HERE, name), work)


def write_settings(work, **settings):
    """Writes what the scenarios are told."""
    with open(os.path.join(work, 'settings'), 'w', encoding='utf-8') as file:
        file.writelines(f"{name}='{value}'\n" for name, value in settings.items())


def run_here(work, kiln, store, names, before='', snapshotter=''):
    """Runs scenarios on this machine, and yields what they print.

    They have mounts, processes and a network of their own, where `before` is run first.
    """
    write_settings(work, KILN=kiln, STORE=store, LAYOUT='host', SNAPSHOTTER=snapshotter)
    script = f'set -e; ip link set lo up; {before}\nexec sh "$@"'
    command = ['unshare', '--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', script, 'sh',
               os.path.join(work, 'runner'), work, *names]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors='replace') as process:
        for line in process.stdout:
            yield line.rstrip('\n')


def require():
    """Fails where this machine can't run scenarios."""
    if os.geteuid() != 0:
        raise Missing('root: mounts and users are made')
    with open('/etc/passwd', encoding='utf-8') as file:
        users = file.read()
    for user in ('kiln-test', 'kiln-test-single'):
        if not re.search(f'^{user}:', users, re.MULTILINE):
            raise Missing(f'the user {user}: run {os.path.relpath(REPOSITORY)}/testdata/tools/setup kernels')
