"""The rows of the table: what is measured, and how."""
import os

from bench.measure import Failed, run
from bench.results import Sample

# Rows that are measured together, since the second needs what the first has built: (key, what it is), and the context
# and the output of its builds.
GROUPS = {
    'noop': ([('noop', 'one small file, nothing changed')], 'w0', 'gzip'),
    'run': ([('run', '`run` of busybox’s `true`')], None, None),
    'w1': ([('w1-cold', '50 `RUN` steps, cold'), ('w1-cached', 'the same, all cached')], 'w1', 'gzip'),
    'w3': ([('w3-cold', '8 stages with `sleep 1`, 8 copies from them')], 'w3', 'gzip'),
    'w4': ([('w4-cold', '`COPY` of 20,000 files, 140 MB, cold'), ('w4-unchanged', 'the same, nothing changed')],
           'w4', 'gzip'),
    'w5': ([('w5-cold', '`COPY` of 1 GiB in 16 files, cold, gzip'), ('w5-unchanged', 'the same, nothing changed')],
           'w5', 'gzip'),
    'w5-zstd': ([('w5-zstd', '`COPY` of the 1 GiB, cold, zstd')], 'w5', 'zstd'),
}
NAMES = tuple(GROUPS)
TITLES = {key: title for rows, _, _ in GROUPS.values() for key, title in rows}


def contexts(names):
    """Returns the contexts that these rows need."""
    return sorted({GROUPS[name][1] for name in names} - {None})


def prepare(builders, results):
    """Notes who is measured, and leaves each builder with the base image alone."""
    for builder in builders:
        results.builders[builder.name] = builder.title
        results.versions[builder.name] = builder.version()
        builder.reset()


def measure(name, builders, inputs, rounds, results):
    """Measures the rows of a group with all builders in turns, and puts what comes out into `results`."""
    rows, context, output = GROUPS[name]
    if context:
        inputs.warm(context)
    able = [builder for builder in builders if commands(builder, context, output)]
    for key, _ in rows:
        results.forget(key, able)
    for number in range(rounds):
        for builder in in_turn(able, number):
            for key, sample in one(builder, name, number == 0):
                results.add(key, builder.name, sample)
                took = f'{sample.seconds:9.3f} s, {sample.memory / 2**20:6.0f} MiB'
                print(f'{key:13} {number + 1}/{rounds}  {builder.title:24} {took}', flush=True)


def in_turn(builders, number):
    """Returns the builders in the order of a round: each round begins with another."""
    first = number % max(len(builders), 1)
    return builders[first:] + builders[:first]


def one(builder, name, is_first):
    """Measures the rows of a group once with one builder, and gives each as it comes."""
    rows, context, output = GROUPS[name]
    if context is None:
        if is_first:
            timed(builder, builder.run())  # Files of the programs are read for the first time.
        yield rows[0][0], timed(builder, builder.run())
        return
    builder.reset()
    if name == 'noop':
        timed(builder, builder.build(context, output))
    for key, _ in rows:
        yield key, timed(builder, builder.build(context, output))


def commands(builder, context, output):
    return builder.run() if context is None else builder.build(context, output)


def timed(builder, what):
    # What was written before is nobody's work to bring to disk.
    os.sync()
    try:
        return Sample(*run(what, builder.environment, builder.daemons()))
    except Failed as failed:
        raise SystemExit(f'bench/run: {builder.title} fails:\n{failed}') from None
