"""What was measured, and the figures that come out."""
import json
import os
import statistics
from dataclasses import dataclass, field


@dataclass
class Sample:
    """One measurement."""

    seconds: float
    memory: int  # bytes


@dataclass
class Results:
    """Samples of every row and builder, and what they were measured with."""

    machine: str = ''
    builders: dict = field(default_factory=dict)  # name: title
    versions: dict = field(default_factory=dict)  # name: one line
    samples: dict = field(default_factory=dict)  # row: {builder's name: [Sample]}

    def forget(self, row, builders):
        """Drops the earlier samples of a row, where these builders are about to be measured anew."""
        for builder in builders:
            self.samples.setdefault(row, {}).pop(builder.name, None)

    def add(self, row, builder, sample):
        self.samples.setdefault(row, {}).setdefault(builder, []).append(sample)

    def rows(self, order):
        """Returns the rows that were measured, in this order."""
        return [row for row in order if self.samples.get(row)]

    def columns(self, order):
        """Returns the builders of whom there is a sample, in this order."""
        return [name for name in order if any(name in row for row in self.samples.values())]

    def time(self, row, builder):
        """Returns the figure of a row in seconds, None where it wasn't measured."""
        samples = self.samples.get(row, {}).get(builder)
        return Figure.of([sample.seconds for sample in samples]) if samples else None

    def memory(self, builder, row=None):
        """Returns the peak of the memory in bytes, in a row or in all of them."""
        rows = [self.samples.get(row, {})] if row else self.samples.values()
        peaks = [sample.memory for samples in rows for sample in samples.get(builder, [])]
        return max(peaks, default=None)

    def save(self, path):
        document = {'machine': self.machine, 'builders': self.builders, 'versions': self.versions,
                    'samples': {row: {builder: [[s.seconds, s.memory] for s in samples]
                                      for builder, samples in of.items()} for row, of in self.samples.items()}}
        with open(f'{path}.new', 'w') as file:
            json.dump(document, file, indent=1)
            file.write('\n')
        os.replace(f'{path}.new', path)


def load(path):
    """Reads results; there are none where there is no such file."""
    if not os.path.exists(path):
        return Results()
    with open(path) as file:
        document = json.load(file)
    samples = {row: {builder: [Sample(*pair) for pair in pairs] for builder, pairs in of.items()}
               for row, of in document['samples'].items()}
    return Results(document['machine'], document['builders'], document['versions'], samples)


@dataclass(frozen=True)
class Figure:
    """The middle of several measurements, and how far they lie apart."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values), len(values))


def ratio(value, reference):
    """Returns how many times a reference a value is, as people write it."""
    times = value / reference
    return f'×{times:.0f}' if times >= 10 else f'×{times:.1f}'


def seconds(value):
    """Returns a time with three digits that mean something."""
    if value < 1:
        return f'{value * 1000:.0f} ms' if value >= 0.1 else f'{value * 1000:.1f} ms'
    return f'{value:.2f} s' if value < 10 else f'{value:.1f} s'


def mebibytes(value):
    return f'{value / 2**20:.0f} MiB'
