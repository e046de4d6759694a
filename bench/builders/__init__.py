"""The builders, one a file, in the order of the columns.

A builder has a `title` and these:

missing()               why it can't be measured here, or nothing
start(), stop()         a daemon, where it has one
version()               one line
reset()                 forgets everything but the base image; never timed
build(context, output)  the commands that build a context, and write it where `output` says; None if it can't
run()                   the commands that run `true` in the base image; None if it can't
daemons()               the process ids of its daemons
"""
from bench.builders.buildah import Buildah
from bench.builders.docker import DockerBuildKit, DockerClassic
from bench.builders.kiln import Kiln, KilnStore
from bench.builders.podman import Podman
from bench.builders.runc import Runc

ALL = (Kiln, KilnStore, DockerBuildKit, DockerClassic, Buildah, Podman, Runc)
BUILDERS = {builder.name: builder for builder in ALL}
