//! Columns from text with tabs, laid out like docker's tables, which use Go's `text/tabwriter`.
//!
//! A tab ends a cell. Text after a line's last tab belongs to no column. A column is a run of
//! consecutive lines that have a cell there. Its width is that of its widest cell plus the padding,
//! but at least the minimum width.

/// The layout of columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    /// The minimum width of a column, including the padding.
    pub(crate) narrowest: usize,
    /// The number of spaces after a column's widest cell.
    pub(crate) padding: usize,
    /// The distance of tab stops if tabs fill the cells; `None` for blanks.
    pub(crate) tab: Option<usize>,
}

impl Columns {
    /// The layout of docker's tables.
    pub(crate) const DOCKER: Self = Self { narrowest: 10, padding: 3, tab: None };

    /// Aligns lines whose cells end with tabs. Every line ends with a line feed.
    pub(crate) fn align(self, text: &str) -> String {
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        let (widths, text) = (Vec::new(), String::new());
        let mut layout = Layout { columns: self, lines: &lines, widths, text };
        layout.block(0, lines.len());
        layout.text
    }
}

struct Layout<'a> {
    columns: Columns,
    lines: &'a [Vec<&'a str>],
    /// The widths of the columns to the left of the current one.
    widths: Vec<usize>,
    text: String,
}

impl Layout<'_> {
    /// Writes the lines of a block that shares the columns to the left.
    fn block(&mut self, mut start: usize, end: usize) {
        let column = self.widths.len();
        let mut at = start;
        while at < end {
            if !self.has_cell(at, column) {
                at += 1;
                continue;
            }
            self.write(start, at);
            start = at;
            let mut width = self.columns.narrowest;
            while at < end && self.has_cell(at, column) {
                width = width.max(self.lines[at][column].chars().count() + self.columns.padding);
                at += 1;
            }
            self.widths.push(width);
            self.block(start, at);
            self.widths.pop();
            start = at;
        }
        self.write(start, end);
    }

    fn has_cell(&self, line: usize, column: usize) -> bool {
        column + 1 < self.lines[line].len()
    }

    fn write(&mut self, start: usize, end: usize) {
        for line in &self.lines[start..end] {
            for (column, cell) in line.iter().enumerate() {
                self.text.push_str(cell);
                if let Some(&width) = self.widths.get(column) {
                    fill(&mut self.text, self.columns.tab, width, cell.chars().count());
                }
            }
            self.text.push('\n');
        }
    }
}

/// Fills a cell of a column up to its width.
fn fill(text: &mut String, tab: Option<usize>, width: usize, used: usize) {
    let (filler, count) = match tab {
        None => (' ', width.saturating_sub(used)),
        Some(tab) => ('\t', (width.next_multiple_of(tab)).saturating_sub(used).div_ceil(tab)),
    };
    text.extend(std::iter::repeat_n(filler, count));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn align(text: &str) -> String {
        Columns::DOCKER.align(text)
    }

    #[test]
    fn columns_are_aligned_as_dockers() {
        let text = "REPOSITORY\tTAG\tIMAGE ID\tSIZE\nb\tlatest\t0123456789ab\t1MB\n";
        let expected = "\
REPOSITORY   TAG       IMAGE ID       SIZE
b            latest    0123456789ab   1MB
";
        assert_eq!(align(text), expected);
        assert_eq!(align("ID\n1\n"), "ID\n1\n");
        assert_eq!(align("ä\tb\nxyz\tc\n"), "ä         b\nxyz       c\n");
        assert_eq!(align("a\t\nb\t\n"), "a         \nb         \n");
        assert_eq!(align(""), "");
    }

    #[test]
    fn a_column_ends_where_a_line_has_no_such_cell() {
        let text = "a\tb\tc\naaaaaaaaaaaa\tbb\nno cells\nx\tyyyyyyyyyyyyy\tz\n";
        let expected = "\
a              b         c
aaaaaaaaaaaa   bb
no cells
x         yyyyyyyyyyyyy   z
";
        assert_eq!(align(text), expected);
    }
}
