//! Plain text: paragraphs are what blank lines part, and lines stay as they are. A form feed ends a page.

use crate::decode::decode;
use crate::document::{Left, Span, Unit};
use crate::error::Why;
use crate::writer::Writer;

pub(super) fn read(
    writer: &mut Writer<'_>,
    bytes: &[u8],
    declared: Option<&str>,
) -> Result<(), Why> {
    let decoded = decode(bytes, declared);
    writer.leave(Left::Undecodable, decoded.replaced);
    let text: &str = &decoded.text;
    let has_pages = text.trim_end().contains('\x0c');
    if has_pages {
        writer.page = Some(1);
    }
    let mut paragraph =
        Paragraph { begins: decoded.begins, text: String::new(), start: 0, end: 0, lines: (1, 1) };
    let (mut at, mut number) = (0, 0);
    for line in text.split_inclusive('\n') {
        number += 1;
        let mut rest = line;
        while let Some((before, behind)) = rest.split_once('\x0c') {
            paragraph.add(before, at, number);
            paragraph.end(writer)?;
            at += before.len() + 1;
            rest = behind;
            if has_pages && !text[at..].trim().is_empty() {
                writer.page = writer.page.map(|page| page + 1);
                writer.budget.pages(writer.page.unwrap_or(0) as usize)?;
            }
        }
        if rest.trim().is_empty() {
            paragraph.end(writer)?;
        } else {
            paragraph.add(rest, at, number);
        }
        at += rest.len();
    }
    paragraph.end(writer)?;
    if has_pages {
        writer.pages = writer.page;
    }
    writer.page = None;
    Ok(())
}

/// Lines that belong together.
struct Paragraph {
    /// Where the text begins in the bytes, where its offsets are theirs.
    begins: Option<u64>,
    text: String,
    start: usize,
    end: usize,
    lines: (u64, u64),
}

impl Paragraph {
    fn add(&mut self, line: &str, at: usize, number: u64) {
        let kept = line.trim_end();
        if kept.is_empty() {
            return;
        }
        if self.text.is_empty() {
            self.start = at;
            self.lines.0 = number;
        } else {
            self.text.push('\n');
        }
        // Overstruck letters of terminals.
        if kept.contains('\x08') {
            self.text.push_str(&without_overstrikes(kept));
        } else {
            self.text.push_str(kept);
        }
        self.end = at + kept.len();
        self.lines.1 = number;
    }

    fn end(&mut self, writer: &mut Writer<'_>) -> Result<(), Why> {
        if self.text.is_empty() {
            return Ok(());
        }
        let span = match self.begins {
            Some(begins) => Span {
                unit: Unit::Bytes,
                start: begins + self.start as u64,
                end: begins + self.end as u64,
            },
            None => Span { unit: Unit::Lines, start: self.lines.0, end: self.lines.1 },
        };
        // Spaces at the beginning of a first line mean as much as on others.
        writer.raw(crate::document::Form::Paragraph, std::mem::take(&mut self.text), Some(span))
    }
}

fn without_overstrikes(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    for character in line.chars() {
        if character == '\x08' {
            kept.pop();
        } else {
            kept.push(character);
        }
    }
    kept
}
