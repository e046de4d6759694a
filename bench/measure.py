"""One command, its time, and how much memory it has taken."""
import os
import subprocess
import tempfile
import threading
import time

# Seconds between two looks at the memory: often enough for what takes a while, and some 1 % of a processor, since /proc
# shows our own process namespace alone. What is over sooner is known by the kernel's own account of the process.
INTERVAL = 0.02
PAGE = os.sysconf('SC_PAGE_SIZE')


class Failed(Exception):
    """A command has failed; holds its last lines."""


def run(commands, environment, daemons=()):
    """Runs commands one after the other; returns their time in seconds and the peak of their memory in bytes.

    The memory is that of the processes and everything they started, and of `daemons`, process ids, with everything
    that those started.
    """
    peak, seconds = 0, 0.0
    for command in commands:
        with tempfile.TemporaryFile() as log:
            begun = time.perf_counter()
            child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=log)
            watch = Watch([child.pid, *daemons])
            _, status, usage = os.wait4(child.pid, 0)
            seconds += time.perf_counter() - begun
            child.returncode = os.waitstatus_to_exitcode(status)
            resting = resident(trees(daemons)) if daemons else 0
            peak = max(peak, watch.stop(), usage.ru_maxrss * 1024 + resting)
            if child.returncode != 0:
                log.seek(0)
                lines = log.read().decode(errors='replace').splitlines()[-20:]
                raise Failed('\n'.join([f'{" ".join(command)}: status {child.returncode}', *lines]))
    return seconds, peak


class Watch:
    """Looks at the memory of processes and their descendants until it is stopped."""

    def __init__(self, roots):
        self.roots, self.peak, self.over = roots, 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while not self.over.wait(INTERVAL):
            self.peak = max(self.peak, resident(trees(self.roots)))

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.peak


def trees(roots):
    """Returns processes and their descendants, each once."""
    children = {}
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open(f'/proc/{name}/stat') as file:
                    # The name of the program, in parentheses, may hold anything.
                    parent = int(file.read().rpartition(')')[2].split()[1])
            except (OSError, IndexError):
                continue  # It is over.
            children.setdefault(parent, []).append(int(name))
    found, queue = set(), list(roots)
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue.extend(children.get(pid, []))
    return found


def resident(pids):
    """Returns the memory of processes in bytes: what is each one's own, and of what they share (programs and
    libraries, mapped files) the largest part of one of them."""
    own, shared = 0, 0
    for pid in pids:
        try:
            with open(f'/proc/{pid}/statm') as file:
                _, all_of_it, mapped = (int(pages) * PAGE for pages in file.read().split()[:3])
        except (OSError, ValueError):
            continue  # It is over.
        own += all_of_it - mapped
        shared = max(shared, mapped)
    return own + shared
