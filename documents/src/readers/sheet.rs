//! The sheets of a workbook as tables: a heading with the sheet's name, and a table for each stretch of rows without an
//! empty one between.

use crate::document::{Span, Unit};
use crate::error::Why;
use crate::writer::Writer;

/// A sheet while its rows come.
pub(super) struct Sheet {
    name: String,
    has_heading: bool,
    /// The number of the last row that came.
    row: u64,
    /// The rows of the table that is open, as (column, text), and the number of the first.
    rows: Vec<Vec<(usize, String)>>,
    first: u64,
}

/// Columns further right than this are beyond any sheet.
const WIDEST: usize = 16_384;

impl Sheet {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), has_heading: false, row: 0, rows: Vec::new(), first: 1 }
    }

    /// The cells of the next row that have text, with their columns, in order.
    pub(super) fn row(
        &mut self,
        writer: &mut Writer<'_>,
        cells: &[(usize, String)],
        repeated: u64,
    ) -> Result<(), Why> {
        writer.budget.time()?;
        let has_text = cells.iter().any(|(_, text)| !text.trim().is_empty());
        if !has_text {
            self.row = self.row.saturating_add(repeated);
            return self.end_table(writer);
        }
        let bytes = cells.iter().map(|(_, text)| text.len() + 8).sum();
        for _ in 0..repeated {
            self.row += 1;
            if self.rows.is_empty() {
                self.first = self.row;
            }
            writer.budget.block(bytes)?;
            self.rows.push(cells.iter().filter(|(column, _)| *column < WIDEST).cloned().collect());
        }
        Ok(())
    }

    /// Goes to a row of a number, counted from 1: those between are empty.
    pub(super) fn go_to(&mut self, writer: &mut Writer<'_>, number: u64) -> Result<(), Why> {
        if number > self.row + 1 {
            self.end_table(writer)?;
            self.row = number - 1;
        }
        Ok(())
    }

    pub(super) fn end(mut self, writer: &mut Writer<'_>) -> Result<(), Why> {
        self.end_table(writer)?;
        writer.member = None;
        Ok(())
    }

    fn end_table(&mut self, writer: &mut Writer<'_>) -> Result<(), Why> {
        let rows = std::mem::take(&mut self.rows);
        let columns: std::collections::BTreeSet<usize> =
            rows.iter().flatten().map(|(column, _)| *column).collect();
        if columns.is_empty() {
            return Ok(());
        }
        writer.member = Some(self.name.as_str().into());
        if !self.has_heading {
            self.has_heading = true;
            writer.heading(2, &self.name.clone(), None)?;
        }
        // Columns without a cell take no bars.
        let columns: Vec<usize> = columns.into_iter().collect();
        writer.budget.block(rows.len().saturating_mul(columns.len()))?;
        let table: Vec<Vec<String>> = rows
            .into_iter()
            .map(|row| {
                let mut cells = vec![String::new(); columns.len()];
                for (column, text) in row {
                    if let Ok(place) = columns.binary_search(&column) {
                        cells[place] = text;
                    }
                }
                cells
            })
            .collect();
        let span =
            Span { unit: Unit::Rows, start: self.first, end: self.first + table.len() as u64 - 1 };
        writer.table(&table, Some(span))
    }
}
