import os
import re
import subprocess
import tempfile
import unittest
from unittest import mock

from kernels import filesystems, machine, packages, scenarios, shares
from kernels.tables import Table
from kernels.trouble import Missing

SAID = '''module: insmod: unknown symbol
@up 6.1
@begin copy
#1 DONE
@record sha256:1
@end copy 0 2.5
@begin run
ERROR: mount overlay: Invalid argument
+ some command
@end run 1 0.5
@begin lost
'''


def outcomes(text):
    """Returns the outcomes that a text tells of, and its other lines."""
    others = []
    return {outcome.name: outcome for outcome in scenarios.read(text.splitlines(), others.append)}, others


class Scenarios(unittest.TestCase):
    def test_the_lists_name_scenarios(self):
        for names in (scenarios.SHORT, scenarios.GROUPS, scenarios.FILES):
            self.assertLessEqual(set(names), set(scenarios.everything()))

    def test_what_scenarios_call_is_none_itself(self):
        with open(os.path.join(scenarios.HERE, 'scenarios'), encoding='utf-8') as file:
            words = set(re.findall(r'^    ([a-z_]+)$', file.read(), re.MULTILINE))
        self.assertEqual(words & set(scenarios.everything()), set())

    def test_what_runs_say_is_judged(self):
        seen, others = outcomes(SAID)
        self.assertEqual(others, ['module: insmod: unknown symbol', '@up 6.1'])
        self.assertEqual((seen['copy'].records, seen['copy'].seconds), (['sha256:1'], 2.5))
        here, _ = outcomes(SAID)
        self.assertIsNone(seen['copy'].judge(here['copy']))
        here['copy'].records = ['sha256:2']
        self.assertEqual(seen['copy'].judge(here['copy']), 'it made sha256:1, and sha256:2 here')
        here['copy'].records = []
        self.assertEqual(seen['copy'].judge(here['copy']), 'it made 1 records, and 0 here')
        self.assertEqual(seen['run'].judge(None), 'ERROR: mount overlay: Invalid argument')
        self.assertEqual(seen['lost'].judge(None), 'it did not end')

    def test_the_runner_says_how_scenarios_end(self):
        with tempfile.TemporaryDirectory() as work:
            open(os.path.join(work, 'helpers'), 'w', encoding='utf-8').close()
            with open(os.path.join(work, 'scenarios'), 'w', encoding='utf-8') as file:
                file.write('good() { echo "$KILN" >"$out/records"; }\nbad() { echo no; false; echo yes; }\n')
            scenarios.write_settings(work, KILN='k', STORE=work)
            runner = os.path.join(scenarios.HERE, 'runner')
            done = subprocess.run(['sh', runner, work, 'good', 'bad'], stdout=subprocess.PIPE, text=True)
            seen, _ = outcomes(done.stdout)
            self.assertEqual((done.returncode, seen['good'].code, seen['good'].records), (1, 0, ['k']))
            self.assertEqual(seen['bad'].judge(None), '+ false')


class Sources(unittest.TestCase):
    def test_mirrors_are_those_of_the_machine(self):
        old = '# deb http://no/debian x main\ndeb [a=b] https://m.example/debian/ bookworm main\n'
        self.assertEqual(packages.addresses(old), ('https://m.example/debian', 'https://m.example/debian-security'))
        new = 'Types: deb\nURIs: http://a/debian\n\nTypes: deb\nURIs: http://b/debian-security\n'
        self.assertEqual(packages.addresses(new), ('http://a/debian', 'http://b/debian-security'))
        self.assertEqual(packages.addresses(''), (packages.MIRROR, packages.MIRROR + '-security'))

    def test_a_release_has_its_sources_and_the_names_of_its_kernel(self):
        with tempfile.TemporaryDirectory() as home:
            with open(os.path.join(home, 'ubuntu-archive-keyring.gpg'), 'wb'), mock.patch.object(packages, 'KEYRINGS', home):
                lines = packages.Ubuntu('jammy').sources(home).splitlines()
        self.assertEqual([line.split()[3:] for line in lines],
                         [['jammy', 'main'], ['jammy-updates', 'main'], ['jammy-security', 'main']])
        self.assertTrue(all(f'[signed-by={home}/ubuntu' in line for line in lines), lines)
        self.assertEqual(len(packages.Debian('sid').sources(home).splitlines()), 1)
        self.assertRegex('linux-modules-5.15.0-204-generic', packages.Ubuntu.parts)
        self.assertRegex('linux-image-6.1.0-57-cloud-amd64', packages.Debian.parts)
        self.assertNotRegex('linux-image-generic', packages.Ubuntu.parts)


class Machine(unittest.TestCase):
    def test_the_archive_is_what_cpio_reads(self):
        archive = machine.cpio(['d'], [('d/file', b'content'), ('odd', b'12345')])
        listing = subprocess.run([machine.BUSYBOX, 'cpio', '-tv'], input=archive, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL).stdout.decode()
        self.assertEqual([line.split()[-1] for line in listing.splitlines()], ['d', 'd/file', 'odd'])
        self.assertEqual([line.split()[0] for line in listing.splitlines()], ['drwxr-xr-x'] + ['-rwxr-xr-x'] * 2)

    def test_a_directory_is_served_until_the_emulator_ends(self):
        with tempfile.TemporaryDirectory() as directory:
            program = os.path.join(directory, 'server')
            with open(program, 'w', encoding='utf-8') as file:
                file.write('#!/bin/sh\nfor arg; do case $arg in --socket-path=*) touch "${arg#*=}" ;; esac; done\necho "$*" >&2\n')
            os.chmod(program, 0o755)
            with mock.patch.object(machine, 'VIRTIOFS_SERVERS', ['/no/such/program', program]):
                devices, server = machine.serve('/shared', directory, '1G')
            server.wait()
            said = machine.read(os.path.join(directory, 'virtiofs.log')).decode()
            self.assertEqual(said, f'--socket-path={directory}/virtiofs -o source=/shared,xattr\n')
            self.assertIn(f'socket,id=store,path={directory}/virtiofs', devices)
            self.assertIn('memory-backend-memfd,id=memory,size=1G,share=on', devices)

    def test_a_server_that_does_not_start_says_why(self):
        with tempfile.TemporaryDirectory() as directory:
            with mock.patch.object(machine, 'VIRTIOFS_SERVERS', ['/bin/false']):
                self.assertRaisesRegex(Missing, 'virtiofs', machine.serve, '/shared', directory, '1G')
            with mock.patch.object(machine, 'VIRTIOFS_SERVERS', ['/no/such/program']):
                self.assertRaisesRegex(Missing, 'Debian package virtiofsd', machine.serve, '/shared', directory, '1G')

    def test_modules_come_after_those_that_they_need(self):
        with tempfile.TemporaryDirectory() as directory:
            for name, needs in {'overlay': '', 'veth': 'other-one', 'other-one': 'deep', 'deep': ''}.items():
                with open(os.path.join(directory, f'{name}.ko'), 'wb') as file:
                    file.write(f'\0depends={needs}\0'.encode())
            self.assertEqual(list(machine.select_modules(directory, ['overlay', 'veth', 'missing'])), ['overlay', 'deep', 'other_one', 'veth'])


class Tables(unittest.TestCase):
    def test_failures_are_named(self):
        table = Table('Kernels', 'scenario')
        table.set('copy', '5.10', None)
        table.set('run', '5.10', 'mount: invalid argument')
        table.set('copy', '6.1', None)
        self.assertIn('| copy | ok | ok |\n| run | **fails** |  |\n', table.text())
        self.assertEqual(table.failures(), ['run on 5.10: mount: invalid argument'])

    def test_every_file_system_is_mounted_at_the_store(self):
        for name in filesystems.FILE_SYSTEMS:
            self.assertIn('"$STORE"', filesystems.setup(name, '/s', '/d'))
        for share in shares.SHARES.values():
            lines = share.command('run it').splitlines()
            self.assertEqual((lines[0], lines[-1]), ('set -e', 'run it'))
            self.assertIn(f' {shares.STORE}', lines[-2])
