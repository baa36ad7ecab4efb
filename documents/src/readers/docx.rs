//! DOCX: Word's documents, ISO/IEC 29500-1, part 17 (WordprocessingML).

mod styles;

use std::collections::BTreeMap;

use super::archive::Archive;
use super::xml::{Element, Token, Xml, text_of};
use crate::document::{Left, Span, Unit};
use crate::error::Why;
use crate::kind::Kind;
use crate::writer::Writer;

use styles::{Lists, Role, Styles};

const MAIN: &str = "word/document.xml";

/// A cell that says that it takes more columns is broken.
const WIDEST: usize = 100;

pub(super) fn read(writer: &mut Writer<'_>, bytes: &[u8]) -> Result<(), Why> {
    let budget = writer.budget;
    let mut archive = Archive::open(Kind::Docx, bytes, budget)?;
    let styles = Styles::read(&mut archive, budget)?;
    let mut lists = Lists::read(&mut archive, budget)?;
    let is_running =
        |name: &str| name.starts_with("word/header") || name.starts_with("word/footer");
    writer.leave(Left::RunningLine, archive.count(is_running));
    let mut notes = BTreeMap::new();
    for (member, kind) in [("word/footnotes.xml", ""), ("word/endnotes.xml", "e")] {
        if let Some(bytes) = archive.read(member)? {
            read_notes(writer, member, &text_of(&bytes), kind, &mut notes)?;
        }
    }
    let text = text_of(&archive.needed(MAIN)?);
    let mut story = Story {
        xml: Xml::new(Kind::Docx, MAIN, &text, budget),
        writer,
        styles: &styles,
        lists: &mut lists,
        cells: Vec::new(),
        columns: 1,
        code: None,
        noted: Vec::new(),
        in_contents: false,
    };
    loop {
        match story.xml.next()? {
            Token::Open(element) if element.name == "w:body" => story.blocks()?,
            Token::Open(_) | Token::Close | Token::Text(_) => {}
            Token::End => break,
        }
    }
    story.end_code()?;
    let noted = std::mem::take(&mut story.noted);
    for id in noted {
        let text = notes.get(&id).map(|text| format!("[^{id}]: {text}"));
        writer.paragraph(&text.unwrap_or_default(), None)?;
    }
    Ok(())
}

/// The texts of notes, by the ids that the main text names them by.
fn read_notes(
    writer: &mut Writer<'_>,
    member: &str,
    text: &str,
    kind: &str,
    notes: &mut BTreeMap<String, String>,
) -> Result<(), Why> {
    let mut xml = Xml::new(Kind::Docx, member, text, writer.budget);
    let mut current: Option<(String, String)> = None;
    loop {
        match xml.next()? {
            Token::Open(element) => match &*element.name {
                "w:footnote" | "w:endnote" => {
                    notes.extend(current.take());
                    current =
                        element.attribute("id").map(|id| (format!("{kind}{id}"), String::new()));
                }
                "w:t" => {
                    let more = xml.text()?;
                    if let Some((_, text)) = &mut current {
                        text.push_str(&more);
                    }
                }
                "w:tab" | "w:br" | "w:p" => {
                    if let Some((_, text)) = &mut current {
                        text.push(' ');
                    }
                }
                "w:delText" | "w:instrText" | "w:pPr" | "w:rPr" => xml.skip()?,
                _ => {}
            },
            Token::Close | Token::Text(_) => {}
            Token::End => break,
        }
    }
    notes.extend(current);
    for text in notes.values_mut() {
        *text = text.trim().to_owned();
    }
    Ok(())
}

/// The main text as it is walked.
struct Story<'s, 'w, 'b> {
    xml: Xml<'s>,
    writer: &'w mut Writer<'b>,
    styles: &'s Styles,
    lists: &'s mut Lists,
    /// Text of the cells that the walk is in, the innermost last.
    cells: Vec<String>,
    /// Lines of code, which each are a paragraph, and where the first begins.
    code: Option<(String, Span)>,
    /// Columns that the cell just read takes.
    columns: usize,
    /// Notes in the order of their marks.
    noted: Vec<String>,
    in_contents: bool,
}

/// A paragraph while it is read.
#[derive(Default)]
struct Paragraph {
    text: String,
    style: Option<String>,
    list: Option<String>,
    level: usize,
    outline: Option<usize>,
    is_hidden: bool,
}

impl Story<'_, '_, '_> {
    /// All blocks within an element, up to its end.
    fn blocks(&mut self) -> Result<(), Why> {
        loop {
            let at = self.xml.at();
            match self.xml.next()? {
                Token::Open(element) => match &*element.name {
                    "w:p" => self.paragraph(at)?,
                    "w:tbl" => self.table(at)?,
                    "w:gridSpan" => {
                        self.columns = element.number("val").unwrap_or(1).clamp(1, WIDEST);
                        self.xml.skip()?;
                    }
                    "w:del" | "w:moveFrom" => {
                        self.writer.leave(Left::Deletion, 1);
                        self.xml.skip()?;
                    }
                    "mc:Fallback" | "w:sectPr" | "w:sdtPr" | "w:tblPr" | "w:trPr" | "w:tblGrid" => {
                        self.xml.skip()?;
                    }
                    _ => self.blocks()?,
                },
                Token::Text(_) => {}
                Token::Close | Token::End => return Ok(()),
            }
        }
    }

    fn paragraph(&mut self, at: u64) -> Result<(), Why> {
        let mut paragraph = Paragraph::default();
        self.inline(&mut paragraph)?;
        let span = Span { unit: Unit::Bytes, start: at, end: self.xml.at() };
        let Paragraph { text, style, list, level, outline, is_hidden: _ } = paragraph;
        if let Some(cell) = self.cells.last_mut() {
            if !text.trim().is_empty() {
                cell.push_str(&text);
                cell.push('\n');
            }
            return Ok(());
        }
        let mut role = style.as_deref().map_or(Role::Text, |style| self.styles.role(style));
        if let (Role::Text, Some(level)) = (role, outline.filter(|level| *level < 6)) {
            role = Role::Heading(level as u8 + 1);
        }
        if role != Role::Code {
            self.end_code()?;
        }
        let was_in_contents = std::mem::replace(&mut self.in_contents, role == Role::Contents);
        let list = list.or_else(|| self.styles.list(style.as_deref()?).map(str::to_owned));
        match role {
            Role::Contents => {
                self.writer.leave(Left::Contents, u64::from(!was_in_contents));
                Ok(())
            }
            Role::Heading(level) => self.writer.heading(level, &text, Some(span)),
            Role::Code => {
                self.add_code(&text, span);
                Ok(())
            }
            Role::Quote => {
                self.writer.quotes += 1;
                let written = self.writer.paragraph(&text, Some(span));
                self.writer.quotes -= 1;
                written
            }
            Role::Text => match list.filter(|list| list != "0" && !text.trim().is_empty()) {
                Some(list) => {
                    let mark = self.lists.next(&list, level);
                    self.writer.item(level, mark.as_deref(), &text, Some(span))
                }
                None => self.writer.paragraph(&text, Some(span)),
            },
        }
    }

    fn add_code(&mut self, text: &str, span: Span) {
        let (code, whole) = self.code.get_or_insert_with(|| (String::new(), span));
        if !code.is_empty() {
            code.push('\n');
        }
        code.push_str(text);
        whole.end = span.end;
    }

    fn end_code(&mut self) -> Result<(), Why> {
        match self.code.take() {
            Some((code, span)) => self.writer.code(&code, Some(span)),
            None => Ok(()),
        }
    }

    /// What stands in a paragraph, up to the end of the element that has just begun.
    fn inline(&mut self, into: &mut Paragraph) -> Result<(), Why> {
        loop {
            let at = self.xml.at();
            match self.xml.next()? {
                Token::Open(element) => self.piece(&element, into, at)?,
                Token::Text(_) => {}
                Token::Close | Token::End => return Ok(()),
            }
        }
    }

    fn piece(&mut self, element: &Element, into: &mut Paragraph, at: u64) -> Result<(), Why> {
        let is_on = || !matches!(element.attribute("val"), Some("0" | "false" | "off"));
        match &*element.name {
            "w:t" | "m:t" => {
                let text = self.xml.text()?;
                if into.is_hidden {
                    self.writer.leave(Left::Hidden, 1);
                } else {
                    into.text.push_str(&text.replace('\u{ad}', ""));
                }
                return Ok(());
            }
            "w:r" => into.is_hidden = false,
            "w:vanish" => into.is_hidden = is_on(),
            "w:pStyle" => into.style = element.attribute("val").map(str::to_owned),
            "w:numId" => into.list = element.attribute("val").map(str::to_owned),
            "w:ilvl" => into.level = element.number("val").unwrap_or(0).min(8),
            "w:outlineLvl" => into.outline = element.number("val"),
            "w:tab" => into.text.push(' '),
            "w:br" | "w:cr" => into.text.push('\n'),
            "w:noBreakHyphen" => into.text.push('-'),
            "w:hyperlink" => {
                self.writer.leave(Left::Link, u64::from(element.attribute("id").is_some()));
            }
            "w:commentReference" => self.writer.leave(Left::Comment, 1),
            "w:footnoteReference" | "w:endnoteReference" => {
                let kind = if element.name == "w:endnoteReference" { "e" } else { "" };
                if let Some(id) = element.attribute("id") {
                    let id = format!("{kind}{id}");
                    into.text.push_str("[^");
                    into.text.push_str(&id);
                    into.text.push(']');
                    self.noted.push(id);
                }
            }
            "w:del" | "w:moveFrom" => {
                self.writer.leave(Left::Deletion, 1);
                return self.xml.skip();
            }
            "w:instrText" | "mc:Fallback" | "w:tabs" | "w:rPrChange" | "w:pPrChange"
            | "w:sectPr" => {
                return self.xml.skip();
            }
            "w:drawing" | "w:pict" | "w:object" => self.writer.leave(Left::Picture, 1),
            // Of a box beside the text: blocks of its own, before the paragraph that holds it.
            "w:txbxContent" => return self.blocks(),
            "w:tbl" => return self.table(at),
            "w:p" => return self.paragraph(at),
            _ => {}
        }
        self.inline(into)
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
                Token::Open(element) if element.name == "w:tr" => {
                    let mut row = Vec::new();
                    self.row(&mut row)?;
                    self.writer.budget.block(0)?;
                    rows.push(row);
                }
                Token::Open(element) if element.name == "w:del" => self.xml.skip()?,
                // Rows may lie in controls.
                Token::Open(_) => self.rows(rows)?,
                Token::Text(_) => {}
                Token::Close | Token::End => return Ok(()),
            }
        }
    }

    fn row(&mut self, row: &mut Vec<String>) -> Result<(), Why> {
        loop {
            match self.xml.next()? {
                Token::Open(element) if element.name == "w:tc" => {
                    self.cells.push(String::new());
                    let read = self.blocks();
                    let text = self.cells.pop().unwrap_or_default();
                    read?;
                    row.push(text);
                    let columns = std::mem::replace(&mut self.columns, 1);
                    row.extend((1..columns).map(|_| String::new()));
                }
                Token::Open(element) if element.name == "w:trPr" => self.xml.skip()?,
                Token::Open(_) => self.row(row)?,
                Token::Text(_) => {}
                Token::Close | Token::End => return Ok(()),
            }
        }
    }
}
