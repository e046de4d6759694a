"""The chart: bars, a group for each row, as an SVG that is read by itself.

Every group has a scale of its own, its longest bar being the slowest: a sleep of a second and a copy of a gibibyte have
nothing to do with each other. Colours follow the reader's preference for light or dark.
"""
from html import escape

from bench.builders import BUILDERS
from bench.results import mebibytes, ratio, seconds
from bench.rows import TITLES

WIDTH, MARGIN = 860, 28
NAMES = 168  # The column of the builders' names.
FIGURES = 132  # Room for the figure behind the longest bar.
BAR, GAP = 14, 6
HEAD, TITLE, REST = 74, 26, 20  # Above all groups, above the bars of one, below them.
SHORTEST = 2

STYLE = '''
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.ground { fill: #ffffff } .line { stroke: #e4e8ec } .bar { fill: #c3ccd6 } .bar.ours { fill: #0f7b6c }
text.head { font-size: 18px; font-weight: 650 } text.title { font-weight: 600 } text.quiet { fill: #59636e }
text.name { text-anchor: end; fill: #59636e } text.mine { fill: #0f7b6c; font-weight: 650 }
text.figure { font-variant-numeric: tabular-nums }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f3f6 } .ground { fill: #0d1117 } .line { stroke: #2b323a } .bar { fill: #4a5562 }
  .bar.ours { fill: #2fc2a6 } text.quiet, text.name { fill: #9ba6b2 } text.mine { fill: #2fc2a6 }
}
'''.strip()


def svg(results):
    """Returns the chart of the results."""
    columns = results.columns(BUILDERS)
    groups = [(TITLES[row], times(results, row, columns)) for row in results.rows(TITLES)]
    groups.append(('peak memory of any of these', memory(results, columns)))
    parts, y = [], HEAD
    for title, bars in groups:
        drawn, y = group(title, bars, y)
        parts.extend(drawn)
    height = y + MARGIN
    about = f'Medians; shorter is better. Measured on {results.machine}.'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="head about">',
        '<title id="head">kiln beside other builders</title>', f'<desc id="about">{escape(about)}</desc>',
        f'<style>{STYLE}</style>', f'<rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
        text(MARGIN, 36, 'What builds cost, side by side', 'head'),
        text(MARGIN, 58, about, 'quiet'),
    ]
    return '\n'.join([*head, *parts, text(MARGIN, height - 14, remarks(columns), 'quiet'), '</svg>', ''])


def times(results, row, columns):
    """Returns the bars of a row: (builder, its title, value, what is written behind it)."""
    ours = results.time(row, 'kiln')
    bars = []
    for name in columns:
        figure = results.time(row, name)
        if figure:
            behind = seconds(figure.median)
            if ours and name != 'kiln':
                behind += '  ' + ratio(figure.median, ours.median)
            # `docker run` has nothing to do with builders.
            label = 'Docker' if row == 'run' and name.startswith('docker') else results.builders[name]
            bars.append((name, label, figure.median, behind))
    return bars


def memory(results, columns):
    # Who only runs is no builder's measure.
    builders = [name for name in columns if name not in ('podman', 'runc')]
    peaks = [(name, results.memory(name)) for name in builders]
    return [(name, results.builders[name], peak, mebibytes(peak)) for name, peak in peaks if peak]


def group(title, bars, y):
    """Returns the elements of a group that begins at a height, and where it ends."""
    most = max((value for _, _, value, _ in bars), default=1) or 1
    room = WIDTH - 2 * MARGIN - NAMES - FIGURES
    left = MARGIN + NAMES
    parts = [f'<line class="line" x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y}" y2="{y}"/>',
             text(MARGIN, y + TITLE - 4, title.replace('`', ''), 'title')]
    y += TITLE + GAP
    for name, label, value, behind in bars:
        is_ours = name.startswith('kiln')
        length = max(SHORTEST, room * value / most)
        kind = 'bar ours' if is_ours else 'bar'
        parts.append(text(left - 12, y + BAR - 3, label, 'name mine' if is_ours else 'name'))
        parts.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>')
        parts.append(text(round(left + length + 8, 1), y + BAR - 3, behind, 'figure'))
        y += BAR + GAP
    return parts, y + REST - GAP


def remarks(columns):
    if any(name.startswith('docker') for name in columns):
        return 'Docker builds into its own store, uncompressed; kiln and buildah compress, and write an OCI archive.'
    return 'Every build compresses, and writes an OCI archive.'


def text(x, y, content, kind):
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(content)}</text>'
