//! The rows of a list of files, in order, each with its place.

use std::path::Path;

use super::lines::{Lines, read_document};
use super::{Format, Origin, Row, SourceFile};
use crate::error::{Error, RowProblem};

/// Reads the rows of files one after the other; holds one line in memory.
///
/// Yields an error and then ends at the first row that is wrong.
#[derive(Debug)]
pub struct RowReader<'a> {
    sources: &'a [SourceFile],
    /// The file being read.
    file: usize,
    lines: Option<Lines>,
    /// Rows of the file being read.
    rows: usize,
    failed: bool,
}

impl<'a> RowReader<'a> {
    /// A reader that stands before the first row of the first file.
    pub fn new(sources: &'a [SourceFile]) -> Self {
        Self { sources, file: 0, lines: None, rows: 0, failed: false }
    }

    fn read(&mut self) -> Result<Option<(Row, Origin)>, Error> {
        while let Some(source) = self.sources.get(self.file) {
            if source.format == Format::Text && is_document(source)? {
                let origin = Origin { file: self.file, line: 1 };
                self.file += 1;
                let text = read_document(&source.path)?;
                if text.trim().is_empty() {
                    return Err(Error::EmptyFile { path: source.path.clone() });
                }
                return Ok(Some((Row::Text(text), origin)));
            }
            let lines = match &mut self.lines {
                Some(lines) => lines,
                closed => closed.insert(Lines::open(source)?),
            };
            if let Some((line, text)) = lines.next_line()? {
                let row = source.format.parse_row(text).and_then(learnable);
                let path = || source.path.clone();
                let row = row.map_err(|problem| Error::Row { path: path(), line, problem })?;
                self.rows += 1;
                return Ok(Some((row, Origin { file: self.file, line })));
            }
            if self.rows == 0 {
                return Err(Error::EmptyFile { path: source.path.clone() });
            }
            (self.lines, self.rows) = (None, 0);
            self.file += 1;
        }
        Ok(None)
    }
}

impl Iterator for RowReader<'_> {
    type Item = Result<(Row, Origin), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.read();
        self.failed = result.is_err();
        result.transpose()
    }
}

/// All rows of all files, in order; for datasets that fit in memory as text.
///
/// # Errors
/// A file cannot be read, is empty, or holds a row that is wrong; or there are no files.
pub fn read_rows(sources: &[SourceFile]) -> Result<Vec<(Row, Origin)>, Error> {
    if sources.is_empty() {
        return Err(Error::EmptyDataset { reason: "no file was given".to_owned() });
    }
    RowReader::new(sources).collect()
}

fn learnable(row: Row) -> Result<Row, RowProblem> {
    match &row {
        Row::Conversation(conversation) if !conversation.has_assistant_turn() => {
            Err(RowProblem::NoAssistantTurn)
        }
        _ => Ok(row),
    }
}

fn is_document(source: &SourceFile) -> Result<bool, Error> {
    if source.embedded_text().is_some() {
        return Ok(false);
    }
    let path: &Path = &source.path;
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "txt" | "md" => Ok(true),
        "jsonl" | "ndjson" | "json" => Ok(false),
        _ => Err(Error::UnknownExtension { path: path.to_owned(), extension }),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write their own input files")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(name: &str, bytes: &[u8], format: Format) -> Result<Vec<(Row, Origin)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let prefix = format!("{}/", folder.path().display());
        read_rows(&[SourceFile::new(path, format)])
            .map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        use Format::*;
        let fail = |name, bytes: &[u8], format| read(name, bytes, format).unwrap_err();
        insta::assert_snapshot!(fail("a.jsonl", b"{\"text\": \"x\"}\n\n{\"text\": \"\xff\"}", Text), @"a.jsonl:3: not UTF-8: invalid byte at offset 25 of the file; convert the file to UTF-8");
        insta::assert_snapshot!(fail("a.txt", b"ab\ncd\xc3", Text), @"a.txt:2: not UTF-8: invalid byte at offset 5 of the file; convert the file to UTF-8");
        insta::assert_snapshot!(fail("a.jsonl", b"{\"text\": \"x\"}\n{\"text\"", Text), @"a.jsonl:2: malformed JSON at column 7: EOF while parsing an object");
        insta::assert_snapshot!(fail("a.jsonl", b"\n \r\n", Messages), @"a.jsonl holds no rows");
        insta::assert_snapshot!(fail("a.md", b" \n", Text), @"a.md holds no rows");
        insta::assert_snapshot!(fail("a.pdf", b"x", Text), @"a.pdf: `format: text` reads .txt and .md (one document a file) and .jsonl, .ndjson and .json (one {\"text\": …} a line), not `pdf`");
        insta::assert_snapshot!(fail("a.jsonl", br#"{"messages": [{"role": "user", "content": "a"}]}"#, Messages), @"a.jsonl:1: the conversation has no assistant turn, so there is nothing to learn from it");
        insta::assert_snapshot!(read_rows(&[]).unwrap_err(), @"the dataset is empty: no file was given");
        let missing = SourceFile::new("/no/such.jsonl", Text);
        insta::assert_snapshot!(read_rows(&[missing]).unwrap_err(), @"cannot read /no/such.jsonl: No such file or directory (os error 2)");
    }

    #[test]
    fn blank_lines_are_skipped_but_counted_and_a_byte_order_mark_is_ignored() {
        let rows =
            read("a.jsonl", b"\xef\xbb\xbf{\"text\": \"a\"}\r\n\n{\"text\": \"b\"}", Format::Text);
        let rows = rows.unwrap();
        assert_eq!(rows[0], (Row::Text("a".into()), Origin { file: 0, line: 1 }));
        assert_eq!(rows[1], (Row::Text("b".into()), Origin { file: 0, line: 3 }));
    }

    #[test]
    fn a_plain_file_is_one_document() {
        let rows = read("a.TXT", b"\xef\xbb\xbfone\ntwo\n", Format::Text).unwrap();
        assert_eq!(rows, [(Row::Text("one\ntwo\n".into()), Origin { file: 0, line: 1 })]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in Format::ALL {
                let _ = read("a.jsonl", &bytes, format);
            }
            let _ = read("a.txt", &bytes, Format::Text);
        }
    }
}
