import os
import subprocess
import sys
import unittest

from bench.measure import Failed, run, trees


class MeasureTest(unittest.TestCase):
    def test_the_memory_is_that_of_a_commands_children_too(self):
        grow = f'{sys.executable} -c "x = bytearray(64 << 20); import time; time.sleep(0.3)"'
        seconds, peak = run([['sh', '-c', f'{grow} & {grow}; wait']], dict(os.environ))
        self.assertGreaterEqual(seconds, 0.3)
        self.assertGreater(peak, 64 << 20)

    def test_what_fails_says_why(self):
        with self.assertRaisesRegex(Failed, '(?s)status 3.*the reason'):
            run([['sh', '-c', 'echo the reason >&2; exit 3']], dict(os.environ))

    def test_a_tree_has_grandchildren(self):
        shell = subprocess.Popen(['sh', '-c', '(sleep 60 & echo; wait); true'], stdout=subprocess.PIPE,
                                 start_new_session=True)
        try:
            shell.stdout.readline()
            self.assertGreaterEqual(len(trees([shell.pid])), 3)
        finally:
            os.killpg(shell.pid, 9)
            shell.wait()
            shell.stdout.close()
