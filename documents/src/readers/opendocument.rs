//! ODT and ODS: OpenDocument 1.3, part 3 (ISO/IEC 26300). Both keep their matter in `content.xml`.

pub(super) mod sheets;
mod styles;

use super::archive::Archive;
use super::xml::{Element, Token, Xml, text_of};
use crate::document::{Left, Span, Unit};
use crate::error::Why;
use crate::kind::Kind;
use crate::writer::Writer;

use styles::{Role, Styles};

const MAIN: &str = "content.xml";

/// Opens the archive, and gives its `content.xml`.
fn content(kind: Kind, archive: &mut Archive<'_>) -> Result<String, Why> {
    // What is encrypted says so in the manifest, and is noise where the matter should be.
    if let Some(manifest) = archive.read("META-INF/manifest.xml")?
        && text_of(&manifest).contains("encryption-data")
    {
        return Err(Why::Encrypted { kind });
    }
    Ok(text_of(&archive.needed(MAIN)?))
}

pub(super) fn read(writer: &mut Writer<'_>, bytes: &[u8]) -> Result<(), Why> {
    let budget = writer.budget;
    let mut archive = Archive::open(Kind::Odt, bytes, budget)?;
    let text = content(Kind::Odt, &mut archive)?;
    let mut styles = Styles::default();
    if let Some(bytes) = archive.read("styles.xml")? {
        let running = styles.add("styles.xml", &text_of(&bytes), budget)?;
        writer.leave(Left::RunningLine, running);
    }
    styles.add(MAIN, &text, budget)?;
    let mut story = Story {
        xml: Xml::new(Kind::Odt, MAIN, &text, budget),
        writer,
        styles: &styles,
        cells: Vec::new(),
        code: None,
        lists: Vec::new(),
        mark: None,
        notes: Vec::new(),
    };
    loop {
        match story.xml.next()? {
            Token::Open(element) if element.name == "office:text" => story.blocks()?,
            Token::Open(_) | Token::Close | Token::Text(_) => {}
            Token::End => break,
        }
    }
    story.end_code()?;
    for note in std::mem::take(&mut story.notes) {
        writer.paragraph(&note, None)?;
    }
    Ok(())
}

/// A list that is walked: its style, and the number of its next entry.
struct List {
    style: Option<String>,
    next: Option<u64>,
}

struct Story<'s, 'w, 'b> {
    xml: Xml<'s>,
    writer: &'w mut Writer<'b>,
    styles: &'s Styles,
    /// Text of the cells that the walk is in, the innermost last.
    cells: Vec<String>,
    code: Option<(String, Span)>,
    lists: Vec<List>,
    /// The mark of the entry of which nothing was written yet.
    mark: Option<String>,
    notes: Vec<String>,
}

impl Story<'_, '_, '_> {
    /// All blocks up to the end of the element that has just begun.
    fn blocks(&mut self) -> Result<(), Why> {
        loop {
            let at = self.xml.at();
            match self.xml.next()? {
                Token::Open(element) => self.block(&element, at)?,
                Token::Text(_) => {}
                Token::Close | Token::End => return Ok(()),
            }
        }
    }

    fn block(&mut self, element: &Element, at: u64) -> Result<(), Why> {
        match &*element.name {
            "text:p" | "text:h" => self.paragraph(element, at),
            "text:list" => self.list(element),
            "table:table" => self.table(at),
            "text:table-of-content"
            | "text:alphabetical-index"
            | "text:illustration-index"
            | "text:table-index"
            | "text:object-index"
            | "text:user-index" => {
                self.writer.leave(Left::Contents, 1);
                self.xml.skip()
            }
            "text:tracked-changes" => {
                let (mut deletions, mut open) = (0, 1);
                while open > 0 {
                    match self.xml.next()? {
                        Token::Open(element) => {
                            deletions += u64::from(element.name == "text:deletion");
                            open += 1;
                        }
                        Token::Close => open -= 1,
                        Token::Text(_) => {}
                        Token::End => break,
                    }
                }
                self.writer.leave(Left::Deletion, deletions);
                Ok(())
            }
            "office:annotation" => {
                self.writer.leave(Left::Comment, 1);
                self.xml.skip()
            }
            "draw:image" | "draw:object" | "draw:object-ole" | "draw:plugin" => {
                self.writer.leave(Left::Picture, 1);
                self.xml.skip()
            }
            "office:forms"
            | "text:sequence-decls"
            | "text:variable-decls"
            | "text:user-field-decls" => self.xml.skip(),
            _ => self.blocks(),
        }
    }

    fn paragraph(&mut self, element: &Element, at: u64) -> Result<(), Why> {
        let mut text = String::new();
        self.inline(&mut text)?;
        let text = text.replace(HARD, " ");
        let span = Span { unit: Unit::Bytes, start: at, end: self.xml.at() };
        if let Some(cell) = self.cells.last_mut() {
            if !text.trim().is_empty() {
                cell.push_str(&text);
                cell.push('\n');
            }
            return Ok(());
        }
        let mut role =
            element.attribute("style-name").map_or(Role::Text, |style| self.styles.role(style));
        if element.name == "text:h" {
            role = Role::Heading(element.number("outline-level").unwrap_or(1).clamp(1, 6) as u8);
        }
        if role == Role::Code {
            let (code, whole) = self.code.get_or_insert_with(|| (String::new(), span));
            if !code.is_empty() {
                code.push('\n');
            }
            code.push_str(&text);
            whole.end = span.end;
            return Ok(());
        }
        self.end_code()?;
        match role {
            Role::Heading(level) => self.writer.heading(level, &text, Some(span)),
            _ if !self.lists.is_empty() => {
                let mark = if text.trim().is_empty() { None } else { self.mark.take() };
                self.writer.item(self.lists.len() - 1, mark.as_deref(), &text, Some(span))
            }
            Role::Quote => {
                self.writer.quotes += 1;
                let written = self.writer.paragraph(&text, Some(span));
                self.writer.quotes -= 1;
                written
            }
            Role::Text | Role::Code => self.writer.paragraph(&text, Some(span)),
        }
    }

    fn end_code(&mut self) -> Result<(), Why> {
        match self.code.take() {
            Some((code, span)) => self.writer.code(&code, Some(span)),
            None => Ok(()),
        }
    }

    /// What stands in a paragraph, up to its end.
    fn inline(&mut self, text: &mut String) -> Result<(), Why> {
        loop {
            let at = self.xml.at();
            match self.xml.next()? {
                Token::Open(element) => self.piece(&element, text, at)?,
                Token::Text(more) => push_collapsed(text, &more),
                Token::Close | Token::End => return Ok(()),
            }
        }
    }

    fn piece(&mut self, element: &Element, text: &mut String, at: u64) -> Result<(), Why> {
        /// More spaces than a line has say nothing.
        const SPACES: usize = 1_000;
        match &*element.name {
            "text:s" => {
                let count = element.number("c").unwrap_or(1).min(SPACES);
                text.extend(std::iter::repeat_n(HARD, count));
            }
            "text:tab" => text.push(HARD),
            "text:line-break" => text.push('\n'),
            "text:a" => self.writer.leave(Left::Link, 1),
            "text:note" => return self.note(text),
            "text:ruby-text" => return self.xml.skip(),
            "office:annotation" | "draw:image" | "draw:object" | "draw:object-ole"
            | "text:list" | "table:table" => return self.block(element, at),
            // Of a box: blocks of its own, before the paragraph that holds it.
            "text:p" | "text:h" => return self.paragraph(element, at),
            _ => {}
        }
        self.inline(text)
    }

    fn note(&mut self, text: &mut String) -> Result<(), Why> {
        let mut mark = String::new();
        let mut body = String::new();
        loop {
            match self.xml.next()? {
                Token::Open(element) if element.name == "text:note-citation" => {
                    mark = self.xml.text()?;
                }
                Token::Open(_) => body.push_str(&self.xml.text()?),
                Token::Text(_) => {}
                Token::Close | Token::End => break,
            }
        }
        let mark = mark.trim();
        text.push_str("[^");
        text.push_str(mark);
        text.push(']');
        self.notes.push(format!("[^{mark}]: {}", body.trim()));
        Ok(())
    }

    fn list(&mut self, element: &Element) -> Result<(), Why> {
        self.end_code()?;
        let outer = self.lists.last().and_then(|list| list.style.clone());
        let style = element.attribute("style-name").map(str::to_owned).or(outer);
        let next = self.styles.list_start(style.as_deref(), self.lists.len() + 1);
        self.lists.push(List { style, next });
        let read = self.entries();
        self.lists.pop();
        read
    }

    fn entries(&mut self) -> Result<(), Why> {
        loop {
            match self.xml.next()? {
                Token::Open(element) => {
                    if let Some(list) =
                        self.lists.last_mut().filter(|_| element.name == "text:list-item")
                    {
                        self.mark = Some(match &mut list.next {
                            Some(next) => {
                                let mark = format!("{next}.");
                                *next = next.saturating_add(1);
                                mark
                            }
                            None => "-".to_owned(),
                        });
                    }
                    self.blocks()?;
                    self.mark = None;
                }
                Token::Text(_) => {}
                Token::Close | Token::End => return Ok(()),
            }
        }
    }

    fn table(&mut self, at: u64) -> Result<(), Why> {
        self.end_code()?;
        let mut rows = Vec::new();
        self.rows(&mut rows)?;
        let span = Span { unit: Unit::Bytes, start: at, end: self.xml.at() };
        self.writer.table_in(&mut self.cells, &rows, span)
    }

    fn rows(&mut self, rows: &mut Vec<Vec<String>>) -> Result<(), Why> {
        loop {
            match self.xml.next()? {
                Token::Open(element) if element.name == "table:table-row" => {
                    let mut row = Vec::new();
                    self.row(&mut row)?;
                    self.writer.budget.block(0)?;
                    rows.push(row);
                }
                Token::Open(_) => self.rows(rows)?,
                Token::Text(_) => {}
                Token::Close | Token::End => return Ok(()),
            }
        }
    }

    fn row(&mut self, row: &mut Vec<String>) -> Result<(), Why> {
        loop {
            match self.xml.next()? {
                Token::Open(element) if element.name.ends_with("table-cell") => {
                    self.cells.push(String::new());
                    let lists = std::mem::take(&mut self.lists);
                    let read = self.blocks();
                    self.lists = lists;
                    let text = self.cells.pop().unwrap_or_default();
                    read?;
                    row.push(text);
                }
                Token::Open(_) => self.xml.skip()?,
                Token::Text(_) => {}
                Token::Close | Token::End => return Ok(()),
            }
        }
    }
}

/// A space that stays where others run together; written as one in the end.
const HARD: char = '\u{a0}';

/// Adds text, runs of spaces as one.
fn push_collapsed(text: &mut String, more: &str) {
    for character in more.chars() {
        if matches!(character, ' ' | '\t' | '\n' | '\r') {
            if !text.ends_with([' ', '\n', HARD]) {
                text.push(' ');
            }
        } else if character != '\u{ad}' {
            // Where a word may be cut is no part of it.
            text.push(character);
        }
    }
}
