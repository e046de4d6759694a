"""What came of it all, as tables: a row for each scenario, a column for each place where it was run."""


class Table:
    """Cells by row and column."""

    def __init__(self, title, corner):
        self.title, self.corner = title, corner
        self.rows, self.columns, self.cells = [], [], {}

    def set(self, row, column, why):
        """Notes that a scenario passed (no `why`), or why it failed."""
        if row not in self.rows:
            self.rows.append(row)
        if column not in self.columns:
            self.columns.append(column)
        self.cells[row, column] = why

    def failures(self):
        """Returns the cells that failed, in words."""
        return [f'{row} on {column}: {why}' for (row, column), why in self.cells.items() if why]

    def text(self):
        """Returns it in Markdown."""
        def mark(row, column):
            return '' if (row, column) not in self.cells else '**fails**' if self.cells[row, column] else 'ok'
        lines = [[self.corner, *self.columns], ['---'] * (len(self.columns) + 1)]
        lines += [[row.replace('_', ' '), *(mark(row, column) for column in self.columns)] for row in self.rows]
        text = '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)
        failures = ''.join(f'\n- {failure}' for failure in self.failures())
        return f'### {self.title}\n\n{text}\n' + (f'\nWhat fails:\n{failures}\n' if failures else '')
