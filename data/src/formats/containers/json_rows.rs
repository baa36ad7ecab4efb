//! Rows of JSON: a row a line, or rows over several lines, one after the other or in one list. The file is
//! cut into one text a row, so that memory holds a row and never the file.

use super::foreign::{foreign, page};
use super::input::{FileDigest, Input};
use super::{BYTE_ORDER_MARK, Container, Record, Records, line_ends, text_of};
use crate::error::{Error, RowPlace, RowProblem};
use crate::formats::{MOST_BYTES_OF_A_ROW, json};

pub(super) static CONTAINER: Container = Container {
    endings: &["jsonl", "ndjson", "json"],
    of_text: false,
    begins: |_| false,
    foreign: |head| foreign(head).or_else(|| page(head)),
    open: |input| Ok(Box::new(RowTexts::new(input, MOST_BYTES_OF_A_ROW)?)),
};

/// Whether a text begins as rows of JSON do.
pub(super) fn is_json(head: &[u8]) -> bool {
    let head = text_of(head);
    head.starts_with(b"{") || head.starts_with(b"[")
}

/// The texts of the rows of an open file.
#[derive(Debug)]
struct RowTexts {
    input: Input,
    shape: Shape,
    /// Line that the next byte stands on, counted from 1.
    line: usize,
    /// Bytes before it on its line.
    column: usize,
    buffer: Vec<u8>,
    limit: usize,
}

/// How rows follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One a line.
    Lines,
    /// Over several lines.
    Values,
    /// In one list, of which so many were read.
    List { items: usize, at: At },
}

/// Where in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before its `[`.
    Before,
    /// Behind its `[`.
    Start,
    /// Behind a row.
    Row,
    /// Behind a comma.
    Comma,
    /// Behind its `]`.
    End,
}

/// A row as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowText<'a> {
    text: &'a str,
    /// Where it begins, lines counted from 1.
    line: usize,
    /// Bytes before it on its line.
    column: usize,
    /// Its number in a list, counted from 1.
    item: Option<usize>,
}

impl Records for RowTexts {
    fn next(&mut self) -> Result<Option<Record>, Error> {
        let Some(RowText { text, line, column, item }) = self.next_text()? else { return Ok(None) };
        let bytes = text.len();
        match json::read(text) {
            Ok(value) => Ok(Some(Record { value, line, item, bytes, of_texts: false })),
            Err(problem) => {
                let (line, problem) = placed(problem, line, column);
                let place = RowPlace { path: self.input.path.clone(), line, item };
                Err(Error::Row { place: Box::new(place), problem })
            }
        }
    }

    fn digest(self: Box<Self>) -> Result<FileDigest, Error> {
        self.input.digest()
    }
}

/// The line of the file that a problem of the row is on which begins there: JSON is malformed at a place of
/// its own.
fn placed(problem: RowProblem, start: usize, before: usize) -> (usize, RowProblem) {
    let RowProblem::Json { line, column, message } = problem else { return (start, problem) };
    let column = if line == 1 { before + column } else { column };
    // A row that is cut off is read up to line 0 of what follows.
    let line = line.max(1);
    (start + line - 1, RowProblem::Json { line, column, message })
}

impl RowTexts {
    /// Rows of at most `limit` bytes.
    fn new(mut input: Input, limit: usize) -> Result<Self, Error> {
        let shape = shape(input.ahead()?);
        Ok(Self { input, shape, line: 1, column: 0, buffer: Vec::new(), limit })
    }

    /// The next row; blank lines are skipped.
    fn next_text(&mut self) -> Result<Option<RowText<'_>>, Error> {
        self.buffer.clear();
        if self.shape == Shape::Lines { self.next_line() } else { self.next_value() }
    }

    fn next_line(&mut self) -> Result<Option<RowText<'_>>, Error> {
        let (start, line) = loop {
            let (start, line) = (self.input.offset(), self.line);
            self.buffer.clear();
            if !self.input.read_line(&mut self.buffer, self.limit)? {
                return Err(self.too_long(line));
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
            self.line += 1;
            if self.buffer.starts_with(BYTE_ORDER_MARK) {
                // It stands in later lines where files were joined. Spaces keep columns and offsets
                // as they are in the file.
                self.buffer[..BYTE_ORDER_MARK.len()].fill(b' ');
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                break (start, line);
            }
        };
        let text = self.text(start, line)?;
        // Without its end, or the parser would place a cut-off row in column 0 of the next line.
        Ok(Some(RowText { text: text.trim_end_matches(['\r', '\n']), line, column: 0, item: None }))
    }

    fn next_value(&mut self) -> Result<Option<RowText<'_>>, Error> {
        if !self.find_value()? {
            return Ok(None);
        }
        let (start, line, column) = (self.input.offset(), self.line, self.column);
        self.take_value(line)?;
        let mut item = None;
        if let Shape::List { items, at } = &mut self.shape {
            (*items, *at) = (*items + 1, At::Row);
            item = Some(*items);
        }
        let text = self.text(start, line)?.trim_end();
        Ok(Some(RowText { text, line, column, item }))
    }

    /// Passes what stands between two values; false where none follows.
    fn find_value(&mut self) -> Result<bool, Error> {
        loop {
            let next = self.after_blanks()?;
            let Shape::List { at, .. } = &mut self.shape else { return Ok(next.is_some()) };
            *at = match (*at, next) {
                (At::Before, Some(b'[')) => At::Start,
                (At::Start | At::Row, Some(b']')) => At::End,
                (At::Row, Some(b',')) => At::Comma,
                (At::Start, Some(_)) => return Ok(true),
                (At::Comma, Some(next)) if next != b']' => return Ok(true),
                (At::Before | At::End, None) => return Ok(false),
                (_, None) => return Err(self.malformed("the file ends before the list's `]`")),
                (At::Comma, _) => return Err(self.malformed("expected a row after the comma")),
                (At::Row, _) => return Err(self.malformed("expected `,` or `]` after a row")),
                (At::Before | At::End, _) => {
                    return Err(self.malformed("something stands behind the list of rows"));
                }
            };
            self.pass(1)?;
        }
    }

    /// The next byte that is no white space and no mark of byte order; it is not passed.
    fn after_blanks(&mut self) -> Result<Option<u8>, Error> {
        loop {
            let ahead = self.input.ahead()?;
            let Some(&first) = ahead.first() else { return Ok(None) };
            let mark = if ahead.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
            let blanks = ahead.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if mark + blanks == 0 {
                return Ok(Some(first));
            }
            self.pass(mark + blanks)?;
        }
    }

    /// Reads the value that begins here into the buffer.
    fn take_value(&mut self, line: usize) -> Result<(), Error> {
        let mut scan = Scan::default();
        while scan.inside != Inside::Done {
            let ahead = self.input.ahead()?;
            // The parser says what is missing from a row that the file's end cuts off.
            if ahead.is_empty() {
                break;
            }
            let count = scan.count(ahead);
            if self.buffer.len() + count > self.limit {
                self.buffer.extend_from_slice(&ahead[..self.limit - self.buffer.len()]);
                // A brace that was forgotten makes one row of many.
                let start = String::from_utf8_lossy(&self.buffer).into_owned();
                return Err(match serde_json::from_str::<serde::de::IgnoredAny>(&start) {
                    Err(error) if !error.is_eof() => {
                        self.at(line + error.line() - 1, json::problem(&error, &start))
                    }
                    _ => self.too_long(line),
                });
            }
            self.buffer.extend_from_slice(&ahead[..count]);
            self.pass(count)?;
        }
        Ok(())
    }

    /// Passes bytes, and keeps count of lines and columns.
    fn pass(&mut self, count: usize) -> Result<(), Error> {
        let passed = &self.input.ahead()?[..count];
        let lines = line_ends(passed);
        match passed.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => self.column = count - last - 1,
            None => self.column += count,
        }
        self.line += lines;
        self.input.pass(count);
        Ok(())
    }

    /// What the buffer holds, which began at offset `start` of the file, on this line.
    fn text(&self, start: u64, line: usize) -> Result<&str, Error> {
        std::str::from_utf8(&self.buffer).map_err(|error| {
            let valid = error.valid_up_to();
            let lines = line_ends(&self.buffer[..valid]);
            Error::NotUtf8 {
                path: self.input.path.clone(),
                line: line + lines,
                offset: start + valid as u64,
            }
        })
    }

    fn malformed(&self, message: &str) -> Error {
        let (line, column, message) = (1, self.column + 1, message.to_owned());
        self.at(self.line, RowProblem::Json { line, column, message })
    }

    fn at(&self, line: usize, problem: RowProblem) -> Error {
        Error::Row { place: Box::new(self.place(line)), problem }
    }

    fn too_long(&self, line: usize) -> Error {
        Error::LongRow { place: Box::new(self.place(line)), limit: self.limit }
    }

    fn place(&self, line: usize) -> RowPlace {
        let item = match self.shape {
            Shape::List { items, .. } => Some(items + 1),
            Shape::Lines | Shape::Values => None,
        };
        RowPlace { path: self.input.path.clone(), line, item }
    }
}

/// How the rows of a file that begins so follow one another.
fn shape(head: &[u8]) -> Shape {
    let head = text_of(head);
    match head.first() {
        Some(b'[') => Shape::List { items: 0, at: At::Before },
        Some(b'{') => {
            let line = head.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default();
            let mut scan = Scan::default();
            scan.count(line);
            // A text cannot go on over the end of a line: such a row is cut off.
            if line.ends_with(b"\n") && scan.inside == Inside::Structure {
                Shape::Values
            } else {
                Shape::Lines
            }
        }
        _ => Shape::Lines,
    }
}

/// Finds the end of a value of JSON by its braces and quotes alone.
#[derive(Debug, Default)]
struct Scan {
    /// Braces and brackets that are open.
    depth: usize,
    inside: Inside,
}

/// What the next byte belongs to.
#[derive(Debug, Default, PartialEq, Eq)]
enum Inside {
    /// Braces, brackets and what stands between values.
    #[default]
    Structure,
    /// A text.
    Text,
    /// A text, behind its backslash.
    Escape,
    /// A number, or a word such as `true`, that is a value by itself.
    Bare,
    /// Nothing more.
    Done,
}

impl Scan {
    /// How many of the bytes belong to the value.
    fn count(&mut self, bytes: &[u8]) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            match (&self.inside, byte) {
                (Inside::Structure, b'"') | (Inside::Escape, _) => self.inside = Inside::Text,
                (Inside::Structure, b'{' | b'[') => self.depth += 1,
                (Inside::Structure, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
                (Inside::Structure, _) if self.depth == 0 => self.inside = Inside::Bare,
                (Inside::Text, b'\\') => self.inside = Inside::Escape,
                (Inside::Text, b'"') => self.inside = Inside::Structure,
                (Inside::Bare, byte) if byte.is_ascii_whitespace() || b",]}".contains(&byte) => {
                    self.inside = Inside::Done;
                    return at;
                }
                _ => continue,
            }
            if self.inside == Inside::Structure && self.depth == 0 {
                self.inside = Inside::Done;
                return at + 1;
            }
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::{Format, SourceFile};

    /// Texts, lines and numbers of all rows.
    fn rows(
        text: &'static str,
        limit: usize,
    ) -> Result<Vec<(String, usize, Option<usize>)>, String> {
        let source = SourceFile::embedded("x.json", Format::Text, text);
        let read = || {
            let mut texts = RowTexts::new(Input::open(&source)?, limit)?;
            let mut rows = Vec::new();
            while let Some(RowText { text, line, item, .. }) = texts.next_text()? {
                rows.push((text.to_owned(), line, item));
            }
            assert_eq!(Box::new(texts).digest()?.bytes, text.len() as u64);
            Ok(rows)
        };
        read().map_err(|error: Error| error.to_string())
    }

    fn shown(text: &'static str) -> String {
        match rows(text, 1_000) {
            Ok(rows) => {
                let row = |(text, line, item): &(String, usize, Option<usize>)| {
                    format!("{line} {item:?} {}", text.replace('\n', "␤"))
                };
                rows.iter().map(row).collect::<Vec<_>>().join("\n")
            }
            Err(error) => error,
        }
    }

    #[test]
    fn rows_over_several_lines_and_lists_are_read_like_lines() {
        insta::assert_snapshot!(shown("{\"a\": 1}\n\n {\"b\": [\"\\\"}\"]}\r\n"), @r#"
        1 None {"a": 1}
        3 None  {"b": ["\"}"]}
        "#);
        insta::assert_snapshot!(shown("\u{feff}{\n  \"a\": \"}\"\n}\n\u{feff}{\n}{}"), @r#"
        1 None {␤  "a": "}"␤}
        4 None {␤}
        5 None {}
        "#);
        insta::assert_snapshot!(shown("[\n  {\n    \"a\": [1, {}]\n  },\n  {}\n]\n"), @r#"
        2 Some(1) {␤    "a": [1, {}]␤  }
        5 Some(2) {}
        "#);
        insta::assert_snapshot!(shown("\u{feff} [{\"a\":\"]\"},{},3,\"x\",[] , true]"), @r#"
        1 Some(1) {"a":"]"}
        1 Some(2) {}
        1 Some(3) 3
        1 Some(4) "x"
        1 Some(5) []
        1 Some(6) true
        "#);
        assert_eq!(shown("[]"), "");
    }

    #[test]
    fn lists_that_are_cut_off_or_written_wrongly_are_refused_where_it_is() {
        insta::assert_snapshot!(shown("[\n{},\n{}"), @"x.json:3, row 3 of the list: malformed JSON at column 3: the file ends before the list's `]`");
        insta::assert_snapshot!(shown("[{}, ]"), @"x.json:1, row 2 of the list: malformed JSON at column 6: expected a row after the comma");
        insta::assert_snapshot!(shown("[{} {}]"), @"x.json:1, row 2 of the list: malformed JSON at column 5: expected `,` or `]` after a row");
        insta::assert_snapshot!(shown("[{}]\n[{}]"), @"x.json:2, row 2 of the list: malformed JSON at column 1: something stands behind the list of rows");
    }

    #[test]
    fn a_row_longer_than_the_limit_is_refused_and_not_read() {
        for text in [
            "{\"a\": \"0123456789\"}\n",
            "{\n\"a\": \"0123456789\"}\n",
            "[{\"a\": \"0123456789\"}]",
        ] {
            assert_eq!(rows(text, 30).unwrap().len(), 1);
            let error = rows(text, 12).unwrap_err();
            assert!(error.contains("longer than 12 bytes"), "{error}");
        }
        let forgotten = "{\n\"a\": [\n{\"b\": 1}\n{\"b\": 2}\n{\"b\": 3}\n";
        insta::assert_snapshot!(rows(forgotten, 25).unwrap_err(), @"x.json:4: malformed JSON at column 1: expected `,` or `]`");
    }

    proptest! {
        #[test]
        fn any_layout_of_the_same_values_gives_the_same_rows(
            values in proptest::collection::vec("[a-z\"\\\\\\[\\]{}, \n\t]{0,12}", 1..6),
            indent in any::<bool>(), list in any::<bool>(),
        ) {
            let values: Vec<serde_json::Value> =
                values.iter().map(|text| serde_json::json!({"a": [text], text.as_str(): {}})).collect();
            let write = |value: &serde_json::Value| {
                if indent { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }
            };
            let written: Vec<String> = values.iter().map(|value| write(value).unwrap()).collect();
            let text = if list {
                format!("[{}]", written.join(if indent { ",\n" } else { "," }))
            } else {
                written.join("\n")
            };
            // Leaked: an embedded text lives as long as the program.
            let rows = rows(text.leak(), 10_000).unwrap();
            let read: Vec<serde_json::Value> =
                rows.iter().map(|(text, ..)| serde_json::from_str(text).unwrap()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
