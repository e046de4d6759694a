import argparse
import json
import os
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from containers import builders, golden, judging, kaniko, pods, probes, settings, suite
from containers.tables import Cell, Costs, Listing, Matrix
from kernels import contexts, scenarios
from kernels.machine import BUSYBOX
from kernels.trouble import Missing


def outcome(text):
    """Returns the outcome that a text tells of."""
    found, = scenarios.read(text.splitlines(), lambda line: None)
    found.image = '/no/image'
    return found


def ended(digest, code=0, seconds=1.5):
    """Returns the outcome of a build."""
    return outcome(f'@begin run\nERROR: no such thing\n@record digest {digest}\n@record rung chroot\n@end run {code} {seconds}\n')


class Settings(unittest.TestCase):
    def test_the_lists_name_settings_and_probes(self):
        for names in (settings.SHORT, settings.BY_RUNG.values()):
            self.assertLessEqual(set(names), set(settings.BY_NAME))
        for rung, name in settings.BY_RUNG.items():
            self.assertEqual(settings.BY_NAME[name].rung, rung)
        there = set(os.listdir(probes.DIRECTORY))
        self.assertLessEqual({*probes.SHORT, *probes.MATRIX, *probes.INSTALLED}, there)
        for setting, probe in suite.EXCEPTIONS:
            self.assertIn(setting, settings.BY_NAME)
            self.assertIn(probe, there | set(os.listdir(golden.CASES)))

    def test_every_kind_of_engine_is_in_the_short_list(self):
        kinds = {settings.BY_NAME[name].engine for name in settings.SHORT}
        self.assertEqual(kinds, {setting.engine for setting in settings.ALL})
        rungs = {settings.BY_NAME[name].rung for name in settings.SHORT}
        self.assertLessEqual({'userns', 'chroot', 'none'}, rungs)

    def test_users_are_known_by_their_options(self):
        users = [name for name, setting in settings.BY_NAME.items() if setting.is_user]
        self.assertEqual(users, ['duser', 'restr', 'suser', 'spuser', 'rorestr', 'pod', 'podman'])


class Pods(unittest.TestCase):
    def test_a_pod_is_restricted(self):
        pod = pods.restricted_pod('n', 'i', ['c'], {'/a': '/data:ro', '/b': '/out'}, {'KILN': 'k', 'ROUNDS': 2})
        spec, container = pod['spec'], pod['spec']['containers'][0]
        self.assertTrue(spec['securityContext']['runAsNonRoot'])
        self.assertEqual(spec['securityContext']['seccompProfile'], {'type': 'RuntimeDefault'})
        self.assertEqual(container['securityContext'], {'allowPrivilegeEscalation': False, 'capabilities': {'drop': ['ALL']}})
        self.assertEqual([(mount['mountPath'], mount['readOnly']) for mount in container['volumeMounts']],
                         [('/data', True), ('/out', False)])
        self.assertIn({'name': 'ROUNDS', 'value': '2'}, container['env'])

    def test_a_strict_profile_allows_no_namespaces(self):
        allowed = {'names': ['clone', 'clone3', 'mount', 'read', 'unshare'], 'action': 'SCMP_ACT_ALLOW'}
        only = {'names': ['setns'], 'action': 'SCMP_ACT_ALLOW', 'includes': {'caps': ['CAP_SYS_ADMIN']}}
        rules = pods.strict_profile({'defaultAction': 'SCMP_ACT_ERRNO', 'syscalls': [allowed, only]})['syscalls']
        self.assertEqual(rules[0]['names'], ['read'])
        self.assertEqual([rule['names'] for rule in rules if rule['action'] == 'SCMP_ACT_ALLOW'], [['read'], ['clone']])
        self.assertEqual(rules[1]['args'][0]['op'], 'SCMP_CMP_MASKED_EQ')


class Judging(unittest.TestCase):
    def test_an_image_is_roots_or_another(self):
        cell = judging.judge(ended('sha256:1'), ended('sha256:1'))
        self.assertEqual((cell.why, cell.seconds, cell.rung), (None, 1.5, 'chroot'))
        cell = judging.judge(ended('sha256:1'), ended('sha256:2'))
        self.assertEqual(cell.why, 'it made digest sha256:1, and digest sha256:2 here')
        self.assertEqual(judging.judge(ended('sha256:1', code=1), None).why, 'ERROR: no such thing')

    def test_a_golden_build_that_has_to_fail_fails(self):
        found = ended('', code=1)
        found.name = 'run-fails'
        self.assertIsNone(golden.judge(found, None).why)
        found = ended('', code=1)
        found.name = 'copy-modes-owners'
        self.assertEqual(golden.judge(found, None).why, 'ERROR: no such thing')

    def test_the_runner_says_how_builds_end(self):
        with tempfile.TemporaryDirectory() as work:
            program = os.path.join(work, 'kiln')
            with open(program, 'w', encoding='utf-8') as file:
                file.write(r'''#!/bin/sh
until [ "$1" = --metadata-file ]; do shift; done
echo "isolation: chroot (why)"
case $* in *good*) echo '  "containerimage.digest": "sha256:1",' >"$2" ;; *) echo "ERROR: bad"; echo "hint: x"; exit 3 ;; esac
''')
            os.chmod(program, 0o755)
            os.makedirs(os.path.join(work, 'probes/good'))
            environment = dict(os.environ, KILN=program, DATA=work, OUT=os.path.join(work, 'out'), ROUNDS='2')
            runner = os.path.join(probes.HERE, 'runner')
            done = subprocess.run(['sh', runner, 'good', 'bad'], env=environment, stdout=subprocess.PIPE, text=True)
            good, bad = scenarios.read(done.stdout.splitlines(), print)
            self.assertEqual((done.returncode, good.code, good.records), (1, 0, ['digest sha256:1', 'rung chroot']))
            self.assertEqual((bad.code, judging.judge(bad, None).why), (3, 'ERROR: bad'))
            self.assertNotIn('hint: x', bad.said)


class Kaniko(unittest.TestCase):
    def test_it_is_left_out_unless_its_program_is_there(self):
        def chosen(builder, program):
            return builders.choose(argparse.Namespace(builder=builder, kaniko=program))

        self.assertEqual(chosen(None, None), ['buildah'])
        self.assertEqual(chosen(None, BUSYBOX), ['buildah', 'kaniko'])
        self.assertEqual(chosen(['kaniko'], BUSYBOX), ['kaniko'])
        for builder, program in ((['kaniko'], None), (None, '/no/executor'), (None, '/bin/cat')):
            self.assertRaises(Missing, chosen, builder, program)

    def test_all_that_its_container_needs_is_in_its_directory(self):
        with tempfile.TemporaryDirectory() as tree:
            kaniko.fill(tree, BUSYBOX)
            others = [os.path.relpath(os.path.join(top, name), tree) for top, _, names in os.walk(tree) for name in names]
            others = [name for name in others if not name.startswith('kaniko/')]
            self.assertEqual(sorted(others), ['bin/sh', 'bin/sleep', 'etc/nsswitch.conf'])
            self.assertEqual(os.readlink(os.path.join(tree, 'bin/sh')), '/kaniko/bin/busybox')
            self.assertTrue(os.access(os.path.join(tree, 'kaniko/bin/busybox'), os.X_OK))

    def test_a_registry_serves_what_is_stored(self):
        with tempfile.TemporaryDirectory() as work:
            layout, tree = contexts.make_base(work), os.path.join(work, 'tree')
            kaniko.fill(tree, BUSYBOX)
            kaniko.store(layout, os.path.join(work, 'registry'), 'library/base')
            with open(os.path.join(work, 'registry.yml'), 'w', encoding='utf-8') as file:
                json.dump(kaniko.REGISTRY, file)
            with open(os.path.join(layout, 'index.json'), encoding='utf-8') as file:
                expected, = json.load(file)['manifests']
            with socket.create_server(('127.0.0.1', 0)) as free:
                address = f'127.0.0.1:{free.getsockname()[1]}'
            environment = {'REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY': os.path.join(work, 'registry'), 'REGISTRY_HTTP_ADDR': address}
            home = os.path.join(tree, kaniko.HOME)
            with subprocess.Popen([f'{home}/lib/ld.so', '--library-path', f'{home}/lib', f'{home}/bin/docker-registry', 'serve',
                                   os.path.join(work, 'registry.yml')], env=environment) as server:
                try:
                    self.check_image(f'http://{address}/v2/library/base', expected)
                finally:
                    server.kill()

    def check_image(self, url, expected):
        """Fails unless a repository has an image, with its layers."""
        headers, manifest = get(f'{url}/manifests/latest')
        self.assertEqual((headers['Docker-Content-Digest'], headers['Content-Type']), (expected['digest'], expected['mediaType']))
        manifest = json.loads(manifest)
        for blob in (manifest['config'], *manifest['layers']):
            self.assertEqual(len(get(f'{url}/blobs/{blob["digest"]}')[1]), blob['size'])


def get(url):
    """Returns the headers and the body of what a server has, which may still be starting."""
    request = urllib.request.Request(url, headers={'Accept': 'application/vnd.oci.image.manifest.v1+json'})
    for _ in range(100):
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.headers, response.read()
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            time.sleep(0.1)
    raise TimeoutError(url)


class Tables(unittest.TestCase):
    def test_a_matrix_has_rungs_and_times(self):
        table = Matrix('Settings', ['restr', 'droot'], ['copy', 'run'])
        table.set('restr', 'copy', Cell(None, 0.24))
        table.set('restr', 'run', Cell('ERROR: x', 0.2, 'none'))
        table.set('droot', 'run', Cell('it made digest 1, and digest 2 here', 0.2, 'userns'))
        lines = table.text({'restr': 'a user'}).splitlines()
        self.assertEqual(lines[4], '| restr | a user | none | 0.2 s | **fails** |')
        self.assertEqual(lines[5], '| droot |  | userns |  | **different** |')
        self.assertEqual(set(table.failures()), {('restr', 'run'), ('droot', 'run')})
        self.assertEqual(table.wrong_rungs(''), ['the isolation in droot is userns, not chroot'])
        self.assertEqual(table.wrong_rungs('userns'), ['the isolation in restr is none, not userns'])

    def test_steps_have_a_budget(self):
        table = Costs('Steps', ['restr'], ['none', 'many'], 200)
        table.set('restr', 'none', Cell(None, 0.5, 'none'))
        table.set('restr', 'many', Cell(None, 3.5, 'none'))
        self.assertIn('| none | 15.0 ms |', table.text({}))
        self.assertEqual(table.failures(), {})
        table.set('restr', 'many', Cell(None, 5.5, 'none'))
        self.assertEqual(table.failures(), {('restr', 'many'): 'a step takes 25.0 ms, and should take 20 ms'})

    def test_a_listing_has_a_row_for_each_case(self):
        table = Listing('Golden', ['droot'], ['copy-json'])
        table.set('droot', 'copy-json', Cell(None, 0.5, 'chroot'))
        self.assertEqual(table.text({}).splitlines()[2:], ['| name | droot (chroot) |', '| --- | --- |', '| copy-json | ok |'])
