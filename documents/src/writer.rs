//! What readers write a document with: blocks with their marks, under a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::budget::Budget;
use crate::document::{Block, Form, Left, Place, Span};
use crate::error::Why;

/// Takes blocks in order.
pub(crate) struct Writer<'b> {
    pub(crate) budget: &'b Budget,
    pub(crate) blocks: Vec<Block>,
    pub(crate) left_out: BTreeMap<Left, u64>,
    pub(crate) pages: Option<u32>,
    pub(crate) textless: Vec<u32>,
    pub(crate) unread: Vec<String>,
    /// The file within the file that is read now.
    pub(crate) member: Option<Arc<str>>,
    /// The page that is read now.
    pub(crate) page: Option<u32>,
    /// The stretch that stands for whatever is read now, as where it lies is not known more closely.
    pub(crate) fixed: Option<Span>,
    /// Quotations around what is read now.
    pub(crate) quotes: usize,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(budget: &'b Budget) -> Self {
        Self {
            budget,
            blocks: Vec::new(),
            left_out: BTreeMap::new(),
            pages: None,
            textless: Vec::new(),
            unread: Vec::new(),
            member: None,
            page: None,
            fixed: None,
            quotes: 0,
        }
    }

    /// Counts something that is left out.
    pub(crate) fn leave(&mut self, what: Left, count: u64) {
        if count > 0 {
            *self.left_out.entry(what).or_default() += count;
        }
    }

    /// A heading; its text is one line.
    pub(crate) fn heading(&mut self, level: u8, text: &str, span: Option<Span>) -> Result<(), Why> {
        let level = level.clamp(1, 6);
        let line = one_line(text);
        if line.is_empty() {
            return Ok(());
        }
        let marks = &"######"[..usize::from(level)];
        self.raw(Form::Heading(level), format!("{marks} {line}"), span)
    }

    /// Running text.
    pub(crate) fn paragraph(&mut self, text: &str, span: Option<Span>) -> Result<(), Why> {
        let text = trim_lines(text);
        if text.is_empty() { Ok(()) } else { self.raw(Form::Paragraph, text, span) }
    }

    /// An entry of a list; without a mark, a further paragraph of one.
    pub(crate) fn item(
        &mut self,
        depth: usize,
        mark: Option<&str>,
        text: &str,
        span: Option<Span>,
    ) -> Result<(), Why> {
        let text = trim_lines(text);
        if text.is_empty() {
            return Ok(());
        }
        let indent = "  ".repeat(depth.min(16));
        let lead = mark.map_or_else(|| "  ".to_owned(), |mark| format!("{mark} "));
        let further = format!("\n{indent}{}", " ".repeat(lead.len()));
        let text = format!("{indent}{lead}{}", text.replace('\n', &further));
        self.raw(Form::Item, text, span)
    }

    /// Lines as they are.
    pub(crate) fn code(&mut self, text: &str, span: Option<Span>) -> Result<(), Why> {
        let text = text.trim_end();
        let text = text.trim_start_matches(['\r', '\n']);
        if text.is_empty() {
            return Ok(());
        }
        let longest = text.lines().map(|line| fence_length(line.trim_start())).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        self.raw(Form::Code, format!("{fence}\n{text}\n{fence}"), span)
    }

    /// Rows of cells; the first row is the head. A table of one column is no table.
    pub(crate) fn table(&mut self, rows: &[Vec<String>], span: Option<Span>) -> Result<(), Why> {
        if let Some(text) = table(rows) {
            return self.raw(Form::Table, text, span);
        }
        let cells = rows.iter().flatten().map(|cell| one_line(cell));
        let lines: Vec<String> = cells.filter(|cell| !cell.is_empty()).collect();
        self.paragraph(&lines.join("\n"), span)
    }

    /// A table that has ended; one within a cell, the innermost of `cells`, is text of that.
    pub(crate) fn table_in(
        &mut self,
        cells: &mut [String],
        rows: &[Vec<String>],
        span: Span,
    ) -> Result<(), Why> {
        let Some(cell) = cells.last_mut() else { return self.table(rows, Some(span)) };
        for row in rows {
            cell.push_str(&row.join(" "));
            cell.push('\n');
        }
        Ok(())
    }

    /// A block whose text has its marks already.
    pub(crate) fn raw(&mut self, form: Form, text: String, span: Option<Span>) -> Result<(), Why> {
        let text = match self.quotes.min(8) {
            0 => text,
            quotes => {
                let marks = "> ".repeat(quotes);
                format!("{marks}{}", text.replace('\n', &format!("\n{marks}")))
            }
        };
        self.budget.block(text.len())?;
        let place =
            Place { member: self.member.clone(), page: self.page, span: self.fixed.or(span) };
        self.blocks.push(Block { form, text, place });
        Ok(())
    }
}

/// How many backticks a line begins with.
fn fence_length(line: &str) -> usize {
    line.len() - line.trim_start_matches('`').len()
}

/// The words of a text on one line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// A text without blank lines around and spaces at ends of lines.
fn trim_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// A Markdown table, of at least two columns that have text.
fn table(rows: &[Vec<String>]) -> Option<String> {
    let full = |row: &&Vec<String>| row.iter().any(|cell| !cell.trim().is_empty());
    let rows: Vec<&Vec<String>> = rows.iter().filter(full).collect();
    let columns = rows.iter().map(|row| row.len()).max().filter(|columns| *columns > 1)?;
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        text.push('|');
        for column in 0..columns {
            let cell = row.get(column).map_or_else(String::new, |cell| one_line(cell));
            text.push(' ');
            text.push_str(&cell.replace('|', "\\|"));
            text.push_str(" |");
        }
        if number == 0 {
            text.push_str("\n|");
            text.push_str(&" --- |".repeat(columns));
        }
    }
    Some(text)
}
