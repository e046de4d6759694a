"""The settings: ways to start a container that differ in what a program may do in it."""
import dataclasses

# The user that containers have in place of root, and that no file of users names.
USER = '1000:1000'
UNCONFINED = ['--security-opt', 'seccomp=unconfined']
UNMASKED = ['--security-opt', 'systempaths=unconfined']
AS_USER = ['--user', USER]
DROP_ALL = ['--cap-drop', 'ALL']
NO_NEW_PRIVILEGES = ['--security-opt', 'no-new-privileges']
ADMIN = ['--cap-add', 'SYS_ADMIN']
READ_ONLY = ['--read-only', '--tmpfs', '/tmp']

# Engines.
DOCKER, REMAPPED, PODMAN, KUBERNETES = 'docker', 'remapped', 'podman', 'kubernetes'


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting of an engine.

    `options` are those of `docker run`, and `rung` is the one that kiln is to choose. Pods have none.
    """

    name: str
    description: str
    rung: str
    options: tuple = ()
    engine: str = DOCKER

    @property
    def is_user(self):
        """Whether kiln runs as another user than root."""
        return '--user' in self.options or self.engine in (PODMAN, KUBERNETES)


def docker(name, description, rung, *options, engine=DOCKER):
    """Returns a setting of Docker's engine."""
    return Setting(name, description, rung, tuple(word for option in options for word in option), engine)


ALL = [
    docker('droot', 'root, default profile', 'chroot'),
    docker('duser', 'uid 1000, default profile', 'none', AS_USER),
    docker('restr', 'uid 1000, no capabilities, no_new_privs', 'none', AS_USER, DROP_ALL, NO_NEW_PRIVILEGES),
    docker('droproot', 'root, no capabilities', 'none', DROP_ALL),
    docker('sroot', 'root, seccomp off', 'userns', UNCONFINED),
    docker('suser', 'uid 1000, seccomp off', 'userns', AS_USER, UNCONFINED),
    docker('sproot', 'root, seccomp off, /proc unmasked', 'userns', UNCONFINED, UNMASKED),
    docker('spuser', 'uid 1000, seccomp off, /proc unmasked', 'userns', AS_USER, UNCONFINED, UNMASKED),
    docker('dropsp', 'root, no capabilities, seccomp off, /proc unmasked', 'none', DROP_ALL, UNCONFINED, UNMASKED),
    docker('admroot', 'root, SYS_ADMIN', 'root', ADMIN),
    docker('admsroot', 'root, SYS_ADMIN, seccomp off', 'root', ADMIN, UNCONFINED),
    docker('remap', 'remapped root, default profile', 'chroot', engine=REMAPPED),
    docker('remapS', 'remapped root, seccomp off', 'userns', UNCONFINED, engine=REMAPPED),
    docker('remapSP', 'remapped root, seccomp off, /proc unmasked', 'userns', UNCONFINED, UNMASKED, engine=REMAPPED),
    docker('remapA', 'remapped root, SYS_ADMIN', 'userns', ADMIN, engine=REMAPPED),
    docker('rodroot', 'root, default profile, read-only root', 'chroot', READ_ONLY),
    docker('rorestr', 'as restr, read-only root', 'none', AS_USER, DROP_ALL, NO_NEW_PRIVILEGES, READ_ONLY),
    Setting('pod', 'Kubernetes\' restricted profile, system calls as containerd allows them', 'none', engine=KUBERNETES),
    Setting('podman', 'Kubernetes\' restricted profile, system calls as podman allows them', 'none', engine=PODMAN),
]
BY_NAME = {setting.name: setting for setting in ALL}
# What `make test` runs: one setting of each kind.
SHORT = ['droot', 'duser', 'restr', 'sroot', 'suser', 'rodroot', 'remapS', 'pod', 'podman']
# A setting for each rung, for that of which a whole suite is run.
BY_RUNG = {'root': 'admsroot', 'userns': 'sroot', 'chroot': 'droot', 'none': 'restr'}
