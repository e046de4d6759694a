"""The machine: what it is, and a part of it that is ours."""
import ctypes
import os
import platform
import re
import subprocess
import sys

MARK = 'KILN_BENCH_ISOLATED'


def isolate():
    """Starts this program again in namespaces of its own, unless it runs in them already."""
    if os.geteuid() != 0:
        sys.exit('bench/run: the builders are compared as root: run it as root')
    if os.environ.get(MARK) != '1':
        os.environ[MARK] = '1'
        unshare = ['unshare', '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--']
        os.execvp('unshare', unshare + [sys.executable] + sys.argv)
    subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
    # Sockets and locks of the machine's own engines are not to be found.
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/run'], check=True)


def environment(work):
    """Returns the environment of everything that is measured."""
    home = f'{work}/home'
    os.makedirs(f'{home}/docker', exist_ok=True)
    with open(f'{home}/docker/config.json', 'w') as file:
        file.write('{}\n')  # No credentials, and buildah insists on the file.
    return {'PATH': os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin') + ':/usr/sbin:/sbin',
            'HOME': home, 'TMPDIR': home, 'LANG': 'C.UTF-8', 'DOCKER_CONFIG': f'{home}/docker'}


def describe():
    """Returns one line about the machine."""
    with open('/proc/cpuinfo') as file:
        model = re.search(r'^model name\s*: (.*)$', file.read(), re.MULTILINE)
    with open('/proc/meminfo') as file:
        kilobytes = int(re.search(r'^MemTotal:\s*(\d+)', file.read()).group(1))
    model = model.group(1).strip() if model else platform.machine()
    count = len(os.sched_getaffinity(0))
    processors = f'{count} processor' + ('s' if count > 1 else '')
    return f'{processors} ({model}), {kilobytes / 2**20:.0f} GiB, Linux {platform.release()}'


def die_with_parent():
    """Ends the process that is about to be executed when its parent dies."""
    pr_set_pdeathsig, sigterm = 1, 15
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, sigterm)
