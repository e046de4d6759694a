"""Pods of the Kubernetes restricted profile, run by a podman with images and settings of its own."""
import errno
import json
import os
import subprocess
import threading

from kernels.trouble import Missing

from .engines import IMAGE, SEARCH, call, find, stream, unmount_below

# The name by which podman finds the image of the process that holds a pod's namespaces: any that has been loaded.
INFRA = 'infra'
PROFILE = '/usr/share/containers/seccomp.json'
# Calls that containerd's and Docker's default profiles refuse to a program without SYS_ADMIN and SYS_PTRACE, and podman's
# allows.
REFUSED = '''add_key fsconfig fsmount fsopen fspick keyctl mount mount_setattr move_mount open_tree pidfd_getfd pivot_root
    process_vm_readv process_vm_writev request_key setns syslog umount umount2 unshare'''.split()
# Before version 4.4, podman reads only what the field `seccompProfile` has replaced.
ANNOTATION = 'seccomp.security.alpha.kubernetes.io/pod'
# The flags of clone(2) that make namespaces.
NAMESPACES = 0x7E020000


class Podman:
    """A podman with images of its own, which runs pods.

    Its own profile of system calls allows namespaces. A strict one allows what containerd does in Kubernetes.
    """

    def __init__(self, directory, is_strict=False):
        self.directory, self.is_strict = directory, is_strict
        self.podman = find('podman', 'podman')
        self.environment = dict(os.environ, HOME=directory, TMPDIR=directory, CONTAINERS_CONF=self.path('containers.conf'),
                                CONTAINERS_STORAGE_CONF=self.path('storage.conf'))

    def path(self, name):
        """Returns the path of a file of podman's."""
        return os.path.join(self.directory, name)

    def start(self):
        """Writes the configuration. There is no daemon."""
        os.makedirs(self.directory, mode=0o711)
        # The process that holds a pod's namespaces is the image's own entry point.
        files = {
            'storage.conf': f'[storage]\ndriver = "vfs"\ngraphroot = "{self.directory}/root"\nrunroot = "{self.directory}/run"\n',
            'containers.conf': '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
                               f'infra_image = "localhost/{INFRA}:latest"\n'
                               '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n',
        }
        if self.is_strict:
            with open(PROFILE, encoding='utf-8') as file:
                files['seccomp.json'] = json.dumps(strict_profile(json.load(file)))
        for name, text in files.items():
            with open(self.path(name), 'w', encoding='utf-8') as file:
                file.write(text)

    def wait(self):
        """Does nothing: it is ready."""

    def load(self, archive, image=IMAGE):
        """Makes an image of a root file system."""
        call([self.podman, 'import', '--quiet', '--change', f'ENV {SEARCH}', '--change', 'ENTRYPOINT ["/bin/sleep","100000"]',
              archive, f'{image}:latest'], self.environment)
        call([self.podman, 'tag', f'localhost/{image}:latest', f'localhost/{INFRA}:latest'], self.environment)

    def run(self, setting, command, volumes, settings, seconds, image=IMAGE):
        """Runs a command in a restricted pod, and yields what it prints, line by line."""
        name = f'{IMAGE}-{setting.name}-{threading.get_ident()}'
        path = self.path(f'{name}.yaml')
        with open(path, 'w', encoding='utf-8') as file:
            # JSON is YAML.
            json.dump(restricted_pod(name, f'localhost/{image}:latest', command, volumes, settings, self.is_strict), file)
        container = f'{name}-build'
        try:
            call([self.podman, 'kube', 'play', '--seccomp-profile-root', self.directory, path], self.environment)
            # Without a log of events, nothing that follows the output would end with the container.
            end = self.follow(container, seconds)
            yield from stream([self.podman, 'logs', container], self.environment, seconds, lambda: None)
            yield from end
        finally:
            subprocess.run([self.podman, 'pod', 'rm', '--force', '--time', '1', name], env=self.environment,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def follow(self, container, seconds):
        """Waits for a container, and returns what there is to say about its end."""
        try:
            subprocess.run([self.podman, 'wait', container], env=self.environment, stdout=subprocess.DEVNULL, timeout=seconds)
        except subprocess.TimeoutExpired:
            return [f'the pod takes more than {seconds} s']
        return []

    def stop(self):
        """Releases what podman has mounted."""
        unmount_below(self.directory)


def restricted_pod(name, image, command, volumes, settings, is_strict=False):
    """Returns a pod that Kubernetes' Pod Security Standards accept at the level `restricted`.

    A strict one has the profile of system calls that is beside podman's configuration, instead of podman's own.
    """
    profile = {'type': 'Localhost', 'localhostProfile': 'seccomp.json'} if is_strict else {'type': 'RuntimeDefault'}
    annotation = 'localhost/seccomp.json' if is_strict else 'runtime/default'
    mounts = [(f'volume-{number}', *pair) for number, pair in enumerate(sorted(volumes.items()))]
    return {
        'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': name, 'annotations': {ANNOTATION: annotation}},
        'spec': {
            'restartPolicy': 'Never',
            # There is no network to join: the host's is seen, and not used.
            'hostNetwork': True,
            'securityContext': {'runAsNonRoot': True, 'runAsUser': 1000, 'runAsGroup': 1000, 'seccompProfile': profile},
            'containers': [{
                'name': 'build', 'image': image, 'imagePullPolicy': 'Never', 'command': command,
                'env': [{'name': key, 'value': str(value)} for key, value in settings.items()],
                'securityContext': {'allowPrivilegeEscalation': False, 'capabilities': {'drop': ['ALL']}},
                'volumeMounts': [{'name': volume, 'mountPath': place.removesuffix(':ro'), 'readOnly': place.endswith(':ro')}
                                 for volume, _, place in mounts],
            }],
            'volumes': [{'name': volume, 'hostPath': {'path': source}} for volume, source, _ in mounts],
        },
    }


def strict_profile(profile):
    """Returns a profile of system calls with less allowed: no namespaces, no mounts, no look into other programs."""
    rules = []
    for rule in profile['syscalls']:
        names = [name for name in rule['names'] if name not in (*REFUSED, 'clone', 'clone3')]
        if names:
            rules.append({**rule, 'names': names})
    masked = [{'index': 0, 'value': NAMESPACES, 'valueTwo': 0, 'op': 'SCMP_CMP_MASKED_EQ'}]
    rules.append({'names': ['clone'], 'action': 'SCMP_ACT_ALLOW', 'args': masked})
    rules.append({'names': ['clone3'], 'action': 'SCMP_ACT_ERRNO', 'errnoRet': errno.ENOSYS})
    rules.append({'names': REFUSED, 'action': 'SCMP_ACT_ERRNO', 'errnoRet': errno.EPERM})
    return {**profile, 'syscalls': rules}


def require():
    """Fails where this machine can't run pods."""
    for program in ('podman', 'runc'):
        find(program, program)
    if not os.path.exists(PROFILE):
        raise Missing(f'{PROFILE} (Debian package golang-github-containers-common)')
