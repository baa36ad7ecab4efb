//! XLSX: Excel's workbooks, ISO/IEC 29500-1, part 18 (SpreadsheetML). Numbers come out as they are kept, dates and
//! times as ISO 8601 writes them; formulas as what they last gave.

mod formats;

use std::collections::BTreeMap;

use super::archive::Archive;
use super::sheet::Sheet;
use super::xml::{Element, Token, Xml, text_of};
use crate::budget::Budget;
use crate::document::Left;
use crate::error::Why;
use crate::kind::Kind;
use crate::writer::Writer;

use formats::{Formats, Shown};

pub(super) fn read(writer: &mut Writer<'_>, bytes: &[u8]) -> Result<(), Why> {
    let budget = writer.budget;
    let mut archive = Archive::open(Kind::Xlsx, bytes, budget)?;
    let book = Book::read(&mut archive, budget)?;
    let strings = shared_strings(&mut archive, budget)?;
    let formats = Formats::read(&mut archive, budget, book.since_1904)?;
    writer.leave(Left::Picture, archive.count(|name| name.starts_with("xl/drawings/drawing")));
    writer.leave(Left::Comment, archive.count(|name| name.starts_with("xl/comments")));
    for (name, member, is_hidden) in &book.sheets {
        if *is_hidden {
            writer.leave(Left::Hidden, 1);
            continue;
        }
        let Some(bytes) = archive.read(member)? else { continue };
        read_sheet(writer, name, member, &text_of(&bytes), &strings, &formats)?;
    }
    Ok(())
}

/// The sheets of a workbook: name, file, and whether it is out of sight.
struct Book {
    sheets: Vec<(String, String, bool)>,
    since_1904: bool,
}

impl Book {
    fn read(archive: &mut Archive<'_>, budget: &Budget) -> Result<Self, Why> {
        const MEMBER: &str = "xl/workbook.xml";
        const RELATIONS: &str = "xl/_rels/workbook.xml.rels";
        let mut files = BTreeMap::new();
        if let Some(bytes) = archive.read(RELATIONS)? {
            let text = text_of(&bytes);
            let mut xml = Xml::new(Kind::Xlsx, RELATIONS, &text, budget);
            loop {
                match xml.next()? {
                    Token::Open(element) if element.name == "rel:Relationship" => {
                        if let Some((id, target)) =
                            element.attribute("Id").zip(element.attribute("Target"))
                        {
                            let target = target.trim_start_matches("./");
                            let file = target
                                .strip_prefix('/')
                                .map_or(format!("xl/{target}"), str::to_owned);
                            files.insert(id.to_owned(), file);
                        }
                    }
                    Token::Open(_) | Token::Close | Token::Text(_) => {}
                    Token::End => break,
                }
            }
        }
        let text = text_of(&archive.needed(MEMBER)?);
        let mut xml = Xml::new(Kind::Xlsx, MEMBER, &text, budget);
        let mut book = Self { sheets: Vec::new(), since_1904: false };
        loop {
            match xml.next()? {
                Token::Open(element) if element.name == "x:sheet" => {
                    let name = element.attribute("name").unwrap_or("sheet").to_owned();
                    let is_hidden =
                        matches!(element.attribute("state"), Some("hidden" | "veryHidden"));
                    if let Some(file) = element.attribute("id").and_then(|id| files.get(id)) {
                        budget.entries(book.sheets.len())?;
                        book.sheets.push((name, file.clone(), is_hidden));
                    }
                }
                Token::Open(element) if element.name == "x:workbookPr" => {
                    book.since_1904 = matches!(element.attribute("date1904"), Some("1" | "true"));
                }
                Token::Open(_) | Token::Close | Token::Text(_) => {}
                Token::End => return Ok(book),
            }
        }
    }
}

/// Texts that cells name by their number.
fn shared_strings(archive: &mut Archive<'_>, budget: &Budget) -> Result<Vec<String>, Why> {
    const MEMBER: &str = "xl/sharedStrings.xml";
    let Some(bytes) = archive.read(MEMBER)? else { return Ok(Vec::new()) };
    let text = text_of(&bytes);
    let mut xml = Xml::new(Kind::Xlsx, MEMBER, &text, budget);
    let mut strings = Vec::new();
    loop {
        match xml.next()? {
            Token::Open(element) if element.name == "x:si" => {
                let string = string(&mut xml)?;
                budget.nodes(strings.len())?;
                strings.push(string);
            }
            Token::Open(_) | Token::Close | Token::Text(_) => {}
            Token::End => return Ok(strings),
        }
    }
}

/// The text of a string, without how it is pronounced.
fn string(xml: &mut Xml<'_>) -> Result<String, Why> {
    let mut text = String::new();
    let mut open = 1;
    while open > 0 {
        match xml.next()? {
            Token::Open(element) if element.name == "x:t" => text.push_str(&xml.text()?),
            Token::Open(element) if element.name == "x:rPh" => xml.skip()?,
            Token::Open(_) => open += 1,
            Token::Close => open -= 1,
            Token::Text(_) => {}
            Token::End => break,
        }
    }
    Ok(text)
}

fn read_sheet(
    writer: &mut Writer<'_>,
    name: &str,
    member: &str,
    text: &str,
    strings: &[String],
    formats: &Formats,
) -> Result<(), Why> {
    let mut xml = Xml::new(Kind::Xlsx, member, text, writer.budget);
    let mut sheet = Sheet::new(name);
    loop {
        match xml.next()? {
            Token::Open(element) if element.name == "x:row" => {
                if let Some(number) = element.number("r") {
                    sheet.go_to(writer, number as u64)?;
                }
                let mut cells = Vec::new();
                row(&mut xml, strings, formats, &mut cells)?;
                sheet.row(writer, &cells, 1)?;
            }
            Token::Open(_) | Token::Close | Token::Text(_) => {}
            Token::End => return sheet.end(writer),
        }
    }
}

fn row(
    xml: &mut Xml<'_>,
    strings: &[String],
    formats: &Formats,
    cells: &mut Vec<(usize, String)>,
) -> Result<(), Why> {
    let mut column = 0_usize;
    loop {
        match xml.next()? {
            Token::Open(element) if element.name == "x:c" => {
                column = element.attribute("r").and_then(column_of).unwrap_or(column);
                let text = cell(xml, &element, strings, formats)?;
                if !text.is_empty() {
                    cells.push((column, text));
                }
                column = column.saturating_add(1);
            }
            Token::Open(_) => xml.skip()?,
            Token::Text(_) => {}
            Token::Close | Token::End => return Ok(()),
        }
    }
}

/// The column of a reference such as `AB12`, counted from 0.
fn column_of(reference: &str) -> Option<usize> {
    let letters = reference.bytes().take_while(u8::is_ascii_alphabetic).take(4);
    let number = letters.fold(0, |number, letter| {
        number * 26 + usize::from(letter.to_ascii_uppercase() - b'A') + 1
    });
    number.checked_sub(1)
}

fn cell(
    xml: &mut Xml<'_>,
    element: &Element,
    strings: &[String],
    formats: &Formats,
) -> Result<String, Why> {
    let (mut value, mut inline) = (String::new(), String::new());
    loop {
        match xml.next()? {
            Token::Open(inner) if inner.name == "x:v" => value = xml.text()?,
            Token::Open(inner) if inner.name == "x:is" => inline = string(xml)?,
            Token::Open(_) => xml.skip()?,
            Token::Text(_) => {}
            Token::Close | Token::End => break,
        }
    }
    Ok(match element.attribute("t") {
        Some("s") => {
            let string = value.trim().parse::<usize>().ok().and_then(|number| strings.get(number));
            string.cloned().unwrap_or_default()
        }
        Some("inlineStr") => inline,
        Some("b") => if value.trim() == "1" { "TRUE" } else { "FALSE" }.to_owned(),
        Some("str" | "e" | "d") => value,
        _ => match formats.shown(element.number("s").unwrap_or(0)) {
            Shown::AsKept => number(&value),
            Shown::Percent => percent(&value),
            Shown::Date => formats.date(&value).unwrap_or(value),
        },
    })
}

/// A number without what binary fractions leave behind its digits.
fn number(value: &str) -> String {
    match value.trim().parse::<f64>() {
        // Fifteen digits are what Excel keeps and shows.
        Ok(number) if number.is_finite() && value.trim().len() > 15 => {
            let rounded: f64 = format!("{number:.14e}").parse().unwrap_or(number);
            format!("{rounded}")
        }
        _ => value.trim().to_owned(),
    }
}

fn percent(value: &str) -> String {
    match value.trim().parse::<f64>() {
        Ok(share) if share.is_finite() => format!("{}%", number(&format!("{:.14}", share * 100.0))),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_columns_and_numbers_are_as_people_wrote_them() {
        let columns = ["A1", "Z9", "AA1", "XFD1048576", "12"].map(column_of);
        assert_eq!(columns, [Some(0), Some(25), Some(26), Some(16_383), None]);
        for (kept, shown) in
            [("0.30000000000000004", "0.3"), ("12", "12"), ("1E-3", "1E-3"), ("x", "x")]
        {
            assert_eq!(number(kept), shown);
        }
        assert_eq!([percent("0.075"), percent("1")], ["7.5%", "100%"]);
    }
}
