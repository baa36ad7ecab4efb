//! Tables of a page: those that hold data become Markdown, those that hold the page together are walked through.

use super::Page;
use super::tree::At;
use crate::error::Why;

impl Page<'_, '_, '_> {
    pub(super) fn table(&mut self, at: At, depth: usize) -> Result<(), Why> {
        if self.in_cell {
            return self.children(at, depth);
        }
        self.flush()?;
        let tree = self.tree;
        let rows: Vec<At> = self.rows(at);
        if self.holds_a_page(at, &rows) {
            self.children(at, depth)?;
            return self.flush();
        }
        for caption in tree.children(at).filter(|child| tree.name(*child) == Some("caption")) {
            self.children(caption, depth + 1)?;
            self.flush()?;
        }
        let mut grid = Vec::with_capacity(rows.len());
        // Rows that a cell above reaches down to, by column.
        let mut reaching: Vec<usize> = Vec::new();
        for row in rows {
            grid.push(self.row(row, &mut reaching, depth)?);
        }
        let span = self.line.take_lines();
        self.writer.table(&grid, span)
    }

    fn row(
        &mut self,
        row: At,
        reaching: &mut Vec<usize>,
        depth: usize,
    ) -> Result<Vec<String>, Why> {
        /// A cell that says that it is wider is broken.
        const WIDEST: usize = 100;
        let tree = self.tree;
        let mut cells: Vec<String> = Vec::new();
        let reached = |cells: &mut Vec<String>, reaching: &mut Vec<usize>| {
            while reaching.get(cells.len()).is_some_and(|rows| *rows > 0) {
                reaching[cells.len()] -= 1;
                cells.push(String::new());
            }
        };
        for cell in
            tree.children(row).filter(|child| matches!(tree.name(*child), Some("td" | "th")))
        {
            reached(&mut cells, reaching);
            self.in_cell = true;
            let read = self.children(cell, depth + 2);
            self.in_cell = false;
            let text = self.line.take_text();
            read?;
            let number = |name, most: usize| {
                let said =
                    tree.attribute(cell, name).and_then(|said| said.trim().parse::<usize>().ok());
                said.unwrap_or(1).clamp(1, most)
            };
            let (columns, down) = (number("colspan", WIDEST), number("rowspan", 65_534));
            for column in 0..columns {
                let place = cells.len();
                cells.push(if column == 0 { text.clone() } else { String::new() });
                if down > 1 {
                    reaching.resize(reaching.len().max(place + 1), 0);
                    reaching[place] = down - 1;
                }
            }
        }
        reached(&mut cells, reaching);
        Ok(cells)
    }

    fn rows(&self, at: At) -> Vec<At> {
        let tree = self.tree;
        let mut rows = Vec::new();
        for child in tree.children(at) {
            match tree.name(child) {
                Some("tr") => rows.push(child),
                Some("thead" | "tbody" | "tfoot") => {
                    rows.extend(tree.children(child).filter(|row| tree.name(*row) == Some("tr")));
                }
                _ => {}
            }
        }
        rows
    }

    /// Whether the table is there for where things stand on the page.
    fn holds_a_page(&self, at: At, rows: &[At]) -> bool {
        let tree = self.tree;
        if matches!(tree.attribute(at, "role"), Some("presentation" | "none")) {
            return true;
        }
        let cells = |row: &At| {
            tree.children(*row).filter(|cell| matches!(tree.name(*cell), Some("td" | "th"))).count()
        };
        let is_one_column = rows.iter().all(|row| cells(row) <= 1);
        let has_blocks = || {
            tree.below(at).any(|below| {
                matches!(
                    tree.name(below),
                    Some(
                        "table"
                            | "pre"
                            | "h1"
                            | "h2"
                            | "h3"
                            | "h4"
                            | "h5"
                            | "h6"
                            | "blockquote"
                            | "form"
                            | "hr"
                    )
                )
            })
        };
        is_one_column || has_blocks()
    }
}
