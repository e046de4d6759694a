"""The table."""
from bench.builders import BUILDERS
from bench.results import mebibytes, ratio, seconds
from bench.rows import TITLES

NOTES = {
    'kiln': 'kiln: `build` into an OCI archive.',
    'kiln-store': 'kiln, into its store: `build -t`, without an archive; layers are compressed all the same.',
    'docker-buildkit': 'Docker, BuildKit: `docker build` into the engine’s store. Nothing is compressed, and no '
                       'archive written. The memory is that of `dockerd` and all it started.',
    'docker-classic': 'Docker, classic builder: `docker build` into the engine’s store, as above.',
    'buildah': 'buildah: `build --layers` into its store, and `push` into an OCI archive.',
    'podman': 'podman: `run`, with runc.',
    'runc': 'runc alone: a bundle that lies ready, without image, layers or network.',
}


def table(results):
    """Returns the results as Markdown: times, memory, and what they are."""
    columns = results.columns(BUILDERS)
    rows = results.rows(TITLES)
    times = [[TITLES[row]] + [time(results, row, name) for name in columns] for row in rows]
    memory = [[TITLES[row]] + [peak(results.memory(name, row)) for name in columns] for row in rows]
    memory.append(['**most of all**'] + [peak(results.memory(name)) for name in columns])
    titles = [results.builders[name] for name in columns]
    notes = [f'- {NOTES[name]}' for name in columns]
    versions = ', '.join(dict.fromkeys(results.versions[name] for name in columns))
    return '\n'.join([
        'Times are medians of whole commands, with the least and the most; × is how many times kiln’s median it is.',
        '', *grid(['work'] + titles, times), '',
        'Peak memory of all processes that take part, daemons among them.',
        '', *grid(['work'] + titles, memory), '', *notes, '', f'Measured on {results.machine}, with {versions}.', ''])


def time(results, row, name):
    figure, ours = results.time(row, name), results.time(row, 'kiln')
    if figure is None:
        return '–'
    text = seconds(figure.median)
    if figure.count > 1:
        text += f' ({seconds(figure.least)} to {seconds(figure.most)})'
    return f'{text} {ratio(figure.median, ours.median)}' if ours and name != 'kiln' else text


def peak(value):
    return '–' if value is None else mebibytes(value)


def grid(head, rows):
    return ['| ' + ' | '.join(cells) + ' |' for cells in [head, ['---'] * len(head), *rows]]
