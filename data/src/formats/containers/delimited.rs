//! Tables of text: a line of names, and a row of fields a line, parted by commas, semicolons, tabs or bars.
//!
//! As RFC 4180 has it: a field in quotes may hold line ends, parting characters and quotes, each of these
//! written twice. A field is a text; what a row form needs as a list or number it reads from that.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use serde_json::Value;

use super::foreign::{Foreign, foreign, page};
use super::input::{FileDigest, Input};
use super::{BYTE_ORDER_MARK, Container, Record, Records, line_ends, text_of};
use crate::error::{Error, RowPlace, RowProblem};
use crate::formats::MOST_BYTES_OF_A_ROW;
use crate::shown::{shown, some};

pub(super) static CONTAINER: Container = Container {
    endings: &["csv", "tsv"],
    of_text: false,
    begins: |_| false,
    foreign: no_table,
    open: |input| Ok(Box::new(Table::open(input, MOST_BYTES_OF_A_ROW)?)),
};

/// What may part fields; of two that part a line equally often the first one does.
const PARTS: [u8; 4] = *b"\t;|,";
/// The most columns that a table may have.
const MOST_COLUMNS: usize = 4_096;

fn no_table(head: &[u8]) -> Option<Foreign> {
    foreign(head).or_else(|| page(head))
}

/// Whether a text begins with a line of names, so that it is a table whatever the file is called.
pub(super) fn is_table(head: &[u8]) -> bool {
    let head = text_of(head);
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let names = fields(line.trim_end().as_bytes(), part(line.as_bytes()));
    let is_name = |name: &String| {
        let name = name.trim();
        name.chars().count() <= 40
            && name.chars().all(|c| c.is_alphanumeric() || "_- .#".contains(c))
    };
    !line.starts_with(['{', '['])
        && names.len() > 1
        && names.iter().any(|name| !name.trim().is_empty())
        && names.iter().all(is_name)
}

/// The byte that parts the fields of a line.
fn part(line: &[u8]) -> u8 {
    let mut counts = [0_usize; PARTS.len()];
    let mut is_quoted = false;
    for byte in line {
        is_quoted ^= *byte == b'"';
        if let Some(place) = PARTS.iter().position(|part| part == byte).filter(|_| !is_quoted) {
            counts[place] += 1;
        }
    }
    let most = counts.into_iter().max().unwrap_or_default();
    let first = counts.iter().position(|&count| count == most && count > 0);
    first.map_or(b',', |place| PARTS[place])
}

/// The fields of a whole row of text.
fn fields(row: &[u8], part: u8) -> Vec<String> {
    let reader = ReaderBuilder::new().delimiter(part).build();
    let (bytes, ends) = cut(reader, row);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let field = |(start, end): (usize, &usize)| String::from_utf8_lossy(&bytes[start..*end]).into();
    starts.zip(&ends).map(field).collect()
}

/// The unquoted bytes of a row, and where each field of it ends.
fn cut(mut reader: Reader, row: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (vec![0; row.len() + 1], vec![0; 16]);
    let (mut read, mut written, mut count) = (0, 0, 0);
    loop {
        let (result, took, gave, ended) =
            reader.read_record(&row[read..], &mut bytes[written..], &mut ends[count..]);
        (read, written, count) = (read + took, written + gave, count + ended);
        match result {
            // Told again that nothing follows, it ends the last field.
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::OutputFull => bytes.resize(2 * bytes.len(), 0),
            ReadRecordResult::OutputEndsFull => ends.resize(2 * ends.len(), 0),
            ReadRecordResult::Record | ReadRecordResult::End => break,
        }
    }
    bytes.truncate(written);
    ends.truncate(count);
    (bytes, ends)
}

#[derive(Debug)]
struct Table {
    input: Input,
    part: u8,
    names: Vec<String>,
    /// Line that the next row begins on, counted from 1.
    line: usize,
    row: Vec<u8>,
    limit: usize,
}

impl Table {
    fn open(input: Input, limit: usize) -> Result<Self, Error> {
        let (names, row) = (Vec::new(), Vec::new());
        let mut table = Self { input, part: b',', names, line: 1, row, limit };
        table.part = part(table.first_line()?);
        let Some((line, start)) = table.next_row()? else { return Ok(table) };
        let mark = if table.row.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let text = table.row[mark..].trim_ascii_end();
        if text.contains(&b'\r') && !text.contains(&b'\n') {
            let what = "the lines of the table end in a carriage return alone, as old programs write them: write \
                        them anew, `tr '\\r' '\\n' < FILE > OUT`";
            return Err(table.wrong(line, RowProblem::Unsupported(what.to_owned())));
        }
        let names = table.fields(line, start, mark)?;
        table.names = table.named(line, names)?;
        Ok(table)
    }

    /// The line of names, as far as it is at hand.
    fn first_line(&mut self) -> Result<&[u8], Error> {
        let ahead = self.input.ahead()?;
        let blank = ahead.len() - ahead.trim_ascii_start().len();
        // A tab may be the first name's end.
        let start = ahead[..blank].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        Ok(ahead[start..].split(|&byte| byte == b'\n').next().unwrap_or_default())
    }

    /// Names that are each there once; a column without one, as pandas writes its index, is a note.
    fn named(&self, line: usize, names: Vec<String>) -> Result<Vec<String>, Error> {
        if names.len() > MOST_COLUMNS {
            let what = format!("{} columns; a table may have {MOST_COLUMNS}", names.len());
            return Err(self.wrong(line, RowProblem::Unsupported(what)));
        }
        let mut all: Vec<String> = Vec::with_capacity(names.len());
        for (index, name) in names.into_iter().enumerate() {
            let name = match name.trim() {
                "" => format!("_column_{}", index + 1),
                name => name.to_owned(),
            };
            if all.contains(&name) {
                return Err(self.wrong(line, RowProblem::Twice { field: shown(&name) }));
            }
            all.push(name);
        }
        Ok(all)
    }

    /// Reads the next row that is not blank into `row`; its line and offset.
    fn next_row(&mut self) -> Result<Option<(usize, u64)>, Error> {
        loop {
            self.row.clear();
            let (line, start) = (self.line, self.input.offset());
            let mut quotes = Quotes::Start;
            loop {
                let before = self.row.len();
                if !self.input.read_line(&mut self.row, self.limit)? {
                    return Err(self.too_long(line));
                }
                if self.row.len() == before {
                    if quotes == Quotes::Inside {
                        let what = "a field in quotes begins in this row and never ends: close it by `\"`, or \
                                    write a quote that belongs to the text twice";
                        return Err(self.wrong(line, RowProblem::Unsupported(what.to_owned())));
                    }
                    break;
                }
                self.line += 1;
                quotes = quotes.behind(&self.row[before..], self.part);
                if quotes == Quotes::Wrong {
                    let what = "text stands behind the quote that ends a field: a field with quotes in it stands in \
                                quotes whole, with each of its own written twice (`\"\"`)";
                    return Err(self.wrong(line, RowProblem::Unsupported(what.to_owned())));
                }
                if quotes != Quotes::Inside {
                    break;
                }
            }
            if self.row.is_empty() {
                return Ok(None);
            }
            let text = self.row.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.row);
            if !text.iter().all(|&byte| byte.is_ascii_whitespace() && byte != self.part) {
                return Ok(Some((line, start)));
            }
        }
    }

    /// The fields of the row behind its first `skipped` bytes.
    fn fields(&self, line: usize, start: u64, skipped: usize) -> Result<Vec<String>, Error> {
        let row = &self.row[skipped..];
        if let Err(error) = std::str::from_utf8(row) {
            let valid = skipped + error.valid_up_to();
            let line = line + line_ends(&self.row[..valid]);
            let (path, offset) = (self.input.path.clone(), start + valid as u64);
            return Err(Error::NotUtf8 { path, line, offset });
        }
        Ok(fields(row, self.part))
    }

    fn wrong(&self, line: usize, problem: RowProblem) -> Error {
        Error::Row { place: Box::new(self.place(line)), problem }
    }

    fn too_long(&self, line: usize) -> Error {
        Error::LongRow { place: Box::new(self.place(line)), limit: self.limit }
    }

    fn place(&self, line: usize) -> RowPlace {
        RowPlace { path: self.input.path.clone(), line, item: None }
    }
}

impl Records for Table {
    fn next(&mut self) -> Result<Option<Record>, Error> {
        let Some((line, start)) = self.next_row()? else { return Ok(None) };
        let values = self.fields(line, start, 0)?;
        if values.len() != self.names.len() {
            let what = format!(
                "the row has {} fields, and the table {} columns ({}): a field that holds the parting character \
                 `{}` or a line end stands in quotes",
                values.len(),
                self.names.len(),
                some(self.names.iter().map(String::as_str)),
                shown(&char::from(self.part).to_string()),
            );
            return Err(self.wrong(line, RowProblem::Unsupported(what)));
        }
        let named = self.names.iter().cloned().zip(values.into_iter().map(Value::String));
        let (value, bytes) = (Value::Object(named.collect()), self.row.len());
        Ok(Some(Record { value, line, item: None, bytes, of_texts: true }))
    }

    fn digest(self: Box<Self>) -> Result<FileDigest, Error> {
        self.input.digest()
    }
}

/// Where in a row a byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// Where a field begins.
    Start,
    /// In a field without quotes.
    Bare,
    /// In quotes.
    Inside,
    /// Behind a quote in quotes, which ends them or is the first of two.
    Behind,
    /// Behind what can stand behind no quote.
    Wrong,
}

impl Quotes {
    fn behind(mut self, bytes: &[u8], part: u8) -> Self {
        for &byte in bytes {
            self = match (self, byte) {
                (Self::Wrong, _) => Self::Wrong,
                (Self::Inside, b'"') => Self::Behind,
                (Self::Inside, _) | (Self::Start | Self::Behind, b'"') => Self::Inside,
                (_, byte) if byte == part || byte == b'\n' => Self::Start,
                (Self::Behind, b'\r' | b' ') => Self::Behind,
                (Self::Behind, _) => Self::Wrong,
                _ => Self::Bare,
            };
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::{Format, SourceFile};

    fn rows(text: &[u8]) -> Result<Vec<(usize, Value)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        graft_files::atomic::write_bytes(&path, text).unwrap();
        let read = || {
            let mut table =
                Table::open(Input::open(&SourceFile::new(&path, Format::Alpaca))?, 12_000)?;
            let mut rows = Vec::new();
            while let Some(record) = table.next()? {
                rows.push((record.line, record.value));
            }
            assert_eq!(Box::new(table).digest()?.bytes, text.len() as u64);
            Ok(rows)
        };
        let prefix = format!("{}/", folder.path().display());
        read().map_err(|error: Error| error.to_string().replace(&prefix, ""))
    }

    fn shown(text: &str) -> String {
        match rows(text.as_bytes()) {
            Ok(rows) => {
                let row = |(line, value): &(usize, Value)| format!("{line} {value}");
                rows.iter().map(row).collect::<Vec<_>>().join("\n")
            }
            Err(error) => error,
        }
    }

    #[test]
    fn fields_in_quotes_hold_line_ends_parting_characters_and_quotes() {
        insta::assert_snapshot!(shown("a,b\r\n1,\"x, \"\"y\"\"\r\nz\"\r\n\r\n2,\"\"\r\n3,5\" disk"), @r#"
        2 {"a":"1","b":"x, \"y\"\r\nz"}
        5 {"a":"2","b":""}
        6 {"a":"3","b":"5\" disk"}
        "#);
        insta::assert_snapshot!(shown("\u{feff}question ;\"the answer\"\nq, r;a\n"), @r#"2 {"question":"q, r","the answer":"a"}"#);
        insta::assert_snapshot!(shown("\n\ttext\tx\n\ta\tb\n"), @r#"3 {"_column_1":"","text":"a","x":"b"}"#);
        insta::assert_snapshot!(shown("text\nall, of it; one\n"), @"t.csv:2: the row has 2 fields, and the table 1 columns (text): a field that holds the parting character `,` or a line end stands in quotes");
        assert_eq!(shown("a,b\n"), "");
        assert_eq!(shown(""), "");
    }

    #[test]
    fn what_is_no_row_is_named_with_its_line() {
        insta::assert_snapshot!(shown("a,b\n1,2\n3\n"), @"t.csv:3: the row has 1 fields, and the table 2 columns (a, b): a field that holds the parting character `,` or a line end stands in quotes");
        insta::assert_snapshot!(shown("a,b\n1,2\n\n3,\"never\nends\n"), @r#"t.csv:4: a field in quotes begins in this row and never ends: close it by `"`, or write a quote that belongs to the text twice"#);
        insta::assert_snapshot!(shown("a,b\n1,\"x\" y\n"), @r#"t.csv:2: text stands behind the quote that ends a field: a field with quotes in it stands in quotes whole, with each of its own written twice (`""`)"#);
        assert_eq!(shown("a,b\n1,\"x\\\"y\"\n"), shown("a,b\n1,\"x\" y\n"));
        insta::assert_snapshot!(shown("a,b\r1,2\r"), @r"t.csv:1: the lines of the table end in a carriage return alone, as old programs write them: write them anew, `tr '\r' '\n' < FILE > OUT`");
        insta::assert_snapshot!(shown("a,b,a\n1,2,3\n"), @"t.csv:1: `a` stands twice; keep one of the two");
        insta::assert_snapshot!(shown(&format!("a,b\n1,\"{}", "x\n".repeat(6_000))), @"t.csv:2: the row is longer than 12000 bytes, the most that one may have; cut it into several");
        insta::assert_snapshot!(rows(b"a,b\n1,\"x\ny\xff\"\n").unwrap_err(), @"t.csv:3: not UTF-8: invalid byte at offset 10 of the file; convert the file to UTF-8");
        insta::assert_snapshot!(shown(&vec!["x"; 5_000].join(",")), @"t.csv:1: 5000 columns; a table may have 4096");
    }

    #[test]
    fn a_table_is_known_by_its_line_of_names() {
        for head in
            ["a,b\n1,2", "prompt\tcompletion\r\n", "\u{feff}\"a b\";c", ",text\n", "id|text"]
        {
            assert!(is_table(head.as_bytes()), "{head}");
        }
        for head in
            ["{\"a\", \"b\"}", "[1, 2]", "", "text", "He came, he saw (twice), he left.", ",\n"]
        {
            assert!(!is_table(head.as_bytes()), "{head}");
        }
    }

    proptest! {
        /// What Python's csv module writes comes back.
        #[test]
        fn what_is_written_comes_back(
            cells in proptest::collection::vec(proptest::collection::vec("[ab,;\t\"\n\r é]{0,6}", 3), 1..6)
        ) {
            let quoted = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n";
            let text = "x,y,z\r\n".to_owned() + &cells.iter().map(line).collect::<String>();
            let read: Vec<Vec<String>> = rows(text.as_bytes())
                .unwrap()
                .into_iter()
                .map(|(_, row)| row.as_object().unwrap().values().map(|cell| cell.as_str().unwrap().to_owned()).collect())
                .collect();
            prop_assert_eq!(read, cells);
        }
    }
}
