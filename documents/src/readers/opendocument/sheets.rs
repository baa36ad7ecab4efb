//! ODS: the sheets of a workbook, as their cells are shown.

use super::super::archive::Archive;
use super::super::sheet::Sheet;
use super::super::xml::{Element, Token, Xml};
use super::{MAIN, content};
use crate::document::Left;
use crate::error::Why;
use crate::kind::Kind;
use crate::writer::Writer;

pub(in super::super) fn read(writer: &mut Writer<'_>, bytes: &[u8]) -> Result<(), Why> {
    let budget = writer.budget;
    let mut archive = Archive::open(Kind::Ods, bytes, budget)?;
    let text = content(Kind::Ods, &mut archive)?;
    let mut xml = Xml::new(Kind::Ods, MAIN, &text, budget);
    loop {
        match xml.next()? {
            Token::Open(element) if element.name == "table:table" => {
                let mut sheet = Sheet::new(element.attribute("name").unwrap_or("sheet"));
                rows(&mut xml, writer, &mut sheet)?;
                sheet.end(writer)?;
            }
            // Cells as they were before they changed.
            Token::Open(element) if element.name == "table:tracked-changes" => xml.skip()?,
            Token::Open(_) | Token::Close | Token::Text(_) => {}
            Token::End => return Ok(()),
        }
    }
}

fn rows(xml: &mut Xml<'_>, writer: &mut Writer<'_>, sheet: &mut Sheet) -> Result<(), Why> {
    loop {
        match xml.next()? {
            Token::Open(element) if element.name == "table:table-row" => {
                let repeated = element.number("number-rows-repeated").unwrap_or(1);
                let mut cells = Vec::new();
                row(xml, writer, &mut cells)?;
                sheet.row(writer, &cells, repeated as u64)?;
            }
            Token::Open(element) if element.name.starts_with("table:table-") => {
                rows(xml, writer, sheet)?;
            }
            Token::Open(element) if element.name == "table:shapes" => {
                writer.leave(Left::Picture, 1);
                xml.skip()?;
            }
            Token::Open(_) => xml.skip()?,
            Token::Text(_) => {}
            Token::Close | Token::End => return Ok(()),
        }
    }
}

fn row(
    xml: &mut Xml<'_>,
    writer: &mut Writer<'_>,
    cells: &mut Vec<(usize, String)>,
) -> Result<(), Why> {
    /// No sheet has more columns.
    const REPEATED: usize = 16_384;
    let mut column = 0_usize;
    loop {
        match xml.next()? {
            Token::Open(element) if element.name.ends_with("table-cell") => {
                let repeated = element.number("number-columns-repeated").unwrap_or(1);
                let text = cell(xml, writer, &element)?;
                if !text.is_empty() {
                    for further in 0..repeated.min(REPEATED) {
                        cells.push((column.saturating_add(further), text.clone()));
                    }
                }
                column = column.saturating_add(repeated);
            }
            Token::Open(_) => xml.skip()?,
            Token::Text(_) => {}
            Token::Close | Token::End => return Ok(()),
        }
    }
}

/// What a cell shows; a cell that shows nothing, its value.
fn cell(xml: &mut Xml<'_>, writer: &mut Writer<'_>, element: &Element) -> Result<String, Why> {
    let mut text = String::new();
    loop {
        match xml.next()? {
            Token::Open(inner) => match &*inner.name {
                "text:p" => {
                    if !text.is_empty() {
                        text.push(' ');
                    }
                    text.push_str(xml.text()?.trim());
                }
                "office:annotation" => {
                    writer.leave(Left::Comment, 1);
                    xml.skip()?;
                }
                _ => {
                    writer.leave(Left::Picture, 1);
                    xml.skip()?;
                }
            },
            Token::Text(_) => {}
            Token::Close | Token::End => break,
        }
    }
    if text.is_empty() {
        let value = ["string-value", "value", "date-value", "time-value", "boolean-value"];
        let value = value.iter().find_map(|name| element.attribute(name));
        return Ok(value.unwrap_or_default().to_owned());
    }
    Ok(text)
}
