"""The matrix: a row for each setting, a column for each probe."""
from . import settings


class Cell:
    """How a probe ended in a setting."""

    def __init__(self, why, seconds, rung=None):
        self.why, self.seconds, self.rung = why, seconds, rung


class Matrix:
    """Cells by setting and probe."""

    def __init__(self, title, settings, probes):
        self.title, self.settings, self.probes = title, settings, probes
        self.cells = {}

    def set(self, setting, probe, cell):
        """Notes how a probe ended."""
        if probe not in self.probes:
            self.probes.append(probe)
        self.cells[setting, probe] = cell

    def rung(self, setting):
        """Returns the rungs that kiln has said it uses in a setting."""
        rungs = {cell.rung for (name, _), cell in self.cells.items() if name == setting and cell.rung}
        return ', '.join(sorted(rungs))

    def wrong_rungs(self, forced):
        """Returns the settings in which kiln has chosen another rung than it should, in words."""
        wrong = []
        for name in self.settings:
            expected, rung = settings.BY_NAME[name].rung if name in settings.BY_NAME else '', self.rung(name)
            if rung and expected and rung != (forced or expected):
                wrong.append(f'the isolation in {name} is {rung}, not {forced or expected}')
        return wrong

    def text(self, descriptions):
        """Returns it in Markdown. `descriptions` is what each setting is called there."""
        lines = [['setting', 'what it is', 'isolation', *self.probes], ['---'] * (len(self.probes) + 3)]
        for setting in self.settings:
            cells = [self.mark(setting, probe) for probe in self.probes]
            lines.append([setting, descriptions.get(setting, ''), self.rung(setting), *cells])
        return f'### {self.title}\n\n' + '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'

    def mark(self, setting, probe):
        """Returns the text of a cell."""
        cell = self.cells.get((setting, probe))
        if cell is None:
            return ''
        return f'**{kind(cell.why)}**' if cell.why else f'{cell.seconds:.1f} s'

    def failures(self):
        """Returns the cells that failed, with the reasons."""
        return {key: cell.why for key, cell in self.cells.items() if cell.why}


def kind(why):
    """Returns the word for a failure: whether the image is another one, or there is none."""
    return 'different' if why.startswith('it made') else 'fails'


class Listing(Matrix):
    """Cells with a row for each probe, for many probes."""

    def text(self, _descriptions):
        """Returns it in Markdown."""
        heads = [f'{setting} ({self.rung(setting)})' if self.rung(setting) else setting for setting in self.settings]
        lines = [['name', *heads], ['---'] * (len(heads) + 1)]
        lines += [[probe, *(self.mark(setting, probe) for setting in self.settings)] for probe in self.probes]
        return f'### {self.title}\n\n' + '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'

    def mark(self, setting, probe):
        """Returns the text of a cell, without the time."""
        mark = super().mark(setting, probe)
        return 'ok' if mark.endswith(' s') else mark


class Costs(Matrix):
    """What a step costs: a build of many steps, less one of none."""

    # The most milliseconds that a step may take on a rung.
    BUDGETS = {'chroot': 10, 'none': 20}

    def __init__(self, title, names, probes, number):
        super().__init__(title, names, probes)
        self.number = number

    def cost(self, setting):
        """Returns the milliseconds of a step; `None` where a build failed."""
        none, many = (self.cells.get((setting, probe)) for probe in self.probes)
        if not none or not many or none.why or many.why:
            return None
        return (many.seconds - none.seconds) / self.number * 1000

    def text(self, descriptions):
        """Returns it in Markdown."""
        lines = [['setting', 'what it is', 'isolation', f'a step of {self.number}'], ['---'] * 4]
        for setting in self.settings:
            cost = self.cost(setting)
            mark = '**fails**' if cost is None else f'{cost:.1f} ms'
            lines.append([setting, descriptions.get(setting, ''), self.rung(setting), mark])
        return f'### {self.title}\n\n' + '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines) + '\n'

    def failures(self):
        """Returns the cells that failed, with the reasons: those that took too long, too."""
        slow = {}
        for setting in self.settings:
            cost, budget = self.cost(setting), self.BUDGETS.get(self.rung(setting))
            if cost and budget and cost > budget:
                slow[setting, self.probes[1]] = f'a step takes {cost:.1f} ms, and should take {budget} ms'
        return {**super().failures(), **slow}
