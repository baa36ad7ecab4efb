//! The rows of a list of files, in order, each with its place.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::columns::{self, Columns};
use super::containers::{FileDigest, Record, Records};
use super::forms::ParsedRow;
use super::given::Measure;
use super::{Origin, Row, SourceFile};
use crate::error::{Error, RowPlace, RowProblem};
use crate::hygiene::{Cleaned, is_dropping};
use crate::tokenizer::Tokenizer;

/// Names of notes that are counted in a file; more are left out.
const MOST_NOTES: usize = 64;

/// What was met in a file beside its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRows {
    /// Its size and hash: of the very bytes that the rows were made of.
    pub digest: FileDigest,
    /// Fields that are notes about a row, and how many rows have each.
    pub notes: BTreeMap<String, usize>,
    /// Rows that are parts of a document, each with what the parts of that document have in common.
    pub documents: Vec<(Origin, u64)>,
    /// Rows that were left out, since they have an answer that says nothing.
    pub left_out: usize,
    /// Rows that were left out, since they say so (`weight: 0`).
    pub by_themselves: usize,
    /// What is to be said of it, such as parts of a document that were left out as was allowed.
    pub remarks: Vec<String>,
    /// What was done to rows as the file's [`crate::hygiene::Cleaning`] has it, and to how many.
    pub cleaned: Cleaned,
}

/// Reads the rows of files one after the other; holds one row in memory.
///
/// Yields an error and then ends at the first row that is wrong.
#[derive(Debug)]
pub struct RowReader<'a> {
    sources: &'a [SourceFile],
    leave_out_empty: bool,
    /// What says how long a text is.
    tokenizer: Option<&'a Tokenizer>,
    /// The file being read.
    open: Option<OpenFile>,
    /// Bytes of all rows that were read.
    bytes: u64,
    /// Files behind.
    files: Vec<FileRows>,
    failed: bool,
}

/// A file while it is read.
#[derive(Debug)]
struct OpenFile {
    records: Box<dyn Records>,
    rows: usize,
    /// Columns, where some are asked for by name.
    met: BTreeSet<String>,
    /// Rows that its cleaning has a word on.
    judged: usize,
    notes: BTreeMap<String, usize>,
    documents: Vec<(Origin, u64)>,
    left_out: usize,
    by_themselves: usize,
    cleaned: Cleaned,
}

impl OpenFile {
    fn new(records: Box<dyn Records>) -> Self {
        Self {
            records,
            rows: 0,
            met: BTreeSet::new(),
            judged: 0,
            notes: BTreeMap::new(),
            documents: Vec::new(),
            left_out: 0,
            by_themselves: 0,
            cleaned: Cleaned::new(),
        }
    }

    /// What was met in it, once there is no row left.
    fn end(self, source: &SourceFile) -> Result<FileRows, Error> {
        let Self { mut records, rows, met, notes, documents, left_out, by_themselves, .. } = self;
        let (cleaned, remarks) = (self.cleaned, records.remarks());
        if rows == 0 && remarks.is_empty() {
            return Err(Error::EmptyFile { path: source.path.clone() });
        }
        if let Some((key, name)) = source.columns.unmet(source.format.form(), &met) {
            let what = columns::unmet_problem(key, &name, &met);
            return Err(Error::NotRows { path: source.path.clone(), what });
        }
        let digest = records.digest()?;
        if let Some(cleaning) = source.cleaning() {
            cleaning.check(&source.path, &digest)?;
        }
        Ok(FileRows { digest, notes, documents, left_out, by_themselves, remarks, cleaned })
    }
}

impl<'a> RowReader<'a> {
    /// A reader that stands before the first row of the first file.
    pub fn new(sources: &'a [SourceFile]) -> Self {
        Self {
            sources,
            leave_out_empty: false,
            tokenizer: None,
            open: None,
            bytes: 0,
            files: Vec::new(),
            failed: false,
        }
    }

    /// Leaves out and counts rows with an answer that says nothing; they are errors otherwise.
    #[must_use]
    pub fn leaving_out_empty(self, leave_out_empty: bool) -> Self {
        Self { leave_out_empty, ..self }
    }

    /// Cuts what is no row yet, such as documents, by the tokenizer's tokens.
    #[must_use]
    pub fn cutting_by(self, tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer: Some(tokenizer), ..self }
    }

    /// Bytes of all rows that were read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was met in each file that was read to its end.
    pub fn into_files(self) -> Vec<FileRows> {
        self.files
    }

    fn read(&mut self) -> Result<Option<(Row, Origin)>, Error> {
        while let Some(source) = self.sources.get(self.files.len()) {
            let file = self.files.len();
            let open = match &mut self.open {
                Some(open) => open,
                closed => {
                    let tokens = |tokenizer: &'a Tokenizer| {
                        move |text: &str| Ok(tokenizer.encode(text)?.len())
                    };
                    let measure = self.tokenizer.map(tokens);
                    let measure = measure.as_ref().map(|measure| measure as Measure<'_>);
                    closed.insert(OpenFile::new(source.open(measure)?))
                }
            };
            let Some(Record { value, line, item, bytes, of_texts }) = open.records.next()? else {
                let open = self.open.take().expect("its end was met, so it is open");
                self.files.push(open.end(source)?);
                continue;
            };
            open.rows += 1;
            self.bytes += bytes as u64;
            let form = source.format.form();
            meet(&mut open.met, source, &value);
            let document = document(&value);
            let value = source.columns.fields_of(value);
            let value = value.and_then(|value| columns::unfolded(form, value, of_texts));
            let value = value.and_then(|value| source.columns.turns_of(form, value, &mut open.met));
            let parsed = value.and_then(|value| form.read(&value));
            match parsed.and_then(|parsed| learnable(source, parsed)) {
                Ok(ParsedRow { learnt: false, .. }) => open.by_themselves += 1,
                Ok(ParsedRow { row, notes, learnt: true }) => {
                    // What a reader says of a row beside its text is nobody's to mend.
                    if source.reader().is_none() {
                        count(&mut open.notes, &notes);
                    }
                    let row = match source.cleaning() {
                        Some(cleaning) => cleaning.apply(open.judged, row, &mut open.cleaned),
                        None => Some(row),
                    };
                    open.judged += 1;
                    if let Some(row) = row {
                        let origin = Origin { file, line, item };
                        open.documents.extend(document.map(|document| (origin, document)));
                        return Ok(Some((row, origin)));
                    }
                }
                Err(RowProblem::EmptyAnswer(_)) if self.leave_out_empty => open.left_out += 1,
                Err(problem) => {
                    let place = RowPlace { path: source.path.clone(), line, item };
                    return Err(Error::Row { place: Box::new(place), problem });
                }
            }
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

/// Rows that are in memory as text.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRows {
    /// All rows of all files, in order.
    pub rows: Vec<(Row, Origin)>,
    /// What was met in each file.
    pub files: Vec<FileRows>,
}

/// Reads all rows of all files, for datasets that fit in memory as text.
///
/// # Errors
/// A file cannot be read, is empty, or holds a row that is wrong; or there are no files.
pub fn read_rows(sources: &[SourceFile]) -> Result<ReadRows, Error> {
    if sources.is_empty() {
        return Err(Error::EmptyDataset { reason: "no file was given".to_owned() });
    }
    let mut reader = RowReader::new(sources);
    let rows: Vec<_> = reader.by_ref().collect::<Result<_, _>>()?;
    if rows.is_empty() {
        let cleaned = reader.files.iter().flat_map(|file| &file.cleaned);
        let dropped: Vec<String> = cleaned
            .filter(|(what, _)| is_dropping(what))
            .map(|(what, count)| format!("{what}: {count}"))
            .collect();
        if !dropped.is_empty() {
            let reason = format!("`data.hygiene` leaves no row of it ({})", dropped.join("; "));
            return Err(Error::EmptyDataset { reason });
        }
        let reason = "every row says that it is not to be learnt (`weight: 0`)".to_owned();
        return Err(Error::EmptyDataset { reason });
    }
    Ok(ReadRows { rows, files: reader.into_files() })
}

/// The row with what is learnt of it; of rows that are learnt, each says something there.
fn learnable(source: &SourceFile, mut parsed: ParsedRow) -> Result<ParsedRow, RowProblem> {
    if let Row::Conversation(conversation) = &mut parsed.row {
        source.train_on.apply(conversation)?;
    }
    match parsed.row.empty_answer(source.format.form().learnt) {
        Some(field) if parsed.learnt => Err(RowProblem::EmptyAnswer(field)),
        _ => Ok(parsed),
    }
}

/// The document that a row is part of, by the hash that its note `_source` has of it.
fn document(row: &Value) -> Option<u64> {
    let sha256 = row.get("_source")?.get("sha256")?.as_str()?;
    u64::from_str_radix(sha256.get(..16)?, 16).ok()
}

/// Notes the names of a row's columns, as far as they are asked for, and some others for messages.
fn meet(met: &mut BTreeSet<String>, source: &SourceFile, row: &Value) {
    let (Value::Object(row), Columns { fields, ignored, turn_fields, roles: _ }) =
        (row, &source.columns)
    else {
        return;
    };
    if fields.is_empty() && ignored.is_empty() && turn_fields.is_empty() {
        return;
    }
    for column in row.keys() {
        let is_asked_for =
            || ignored.contains(column) || fields.values().any(|name| name == column);
        if !met.contains(column) && (met.len() < MOST_NOTES || is_asked_for()) {
            met.insert(column.clone());
        }
    }
}

fn count(all: &mut BTreeMap<String, usize>, notes: &[String]) {
    for note in notes {
        if all.len() < MOST_NOTES || all.contains_key(note) {
            *all.entry(note.clone()).or_default() += 1;
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write their own input files")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::{Format, MOST_BYTES_OF_A_ROW};

    fn read(name: &str, bytes: &[u8], format: Format) -> Result<Vec<(Row, Origin)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let prefix = format!("{}/", folder.path().display());
        read_rows(&[SourceFile::new(path, format)])
            .map(|read| read.rows)
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
        insta::assert_snapshot!(fail("a.pdf", b"x", Text), @"a.pdf: `format: text` reads .txt and .md (one document a file) and .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow and .feather (one {\"text\": …} a line), not `pdf`");
        insta::assert_snapshot!(fail("a.jsonl", br#"{"messages": [{"role": "user", "content": "a"}]}"#, Messages), @"a.jsonl:1: the conversation has no turn of the assistant, so there is nothing to learn from it");
        insta::assert_snapshot!(read_rows(&[]).unwrap_err(), @"the dataset is empty: no file was given");
        let missing = SourceFile::new("/no/such.jsonl", Text);
        insta::assert_snapshot!(read_rows(&[missing]).unwrap_err(), @"cannot read /no/such.jsonl: No such file or directory (os error 2)");
    }

    #[test]
    fn blank_lines_are_skipped_but_counted_and_a_byte_order_mark_is_ignored() {
        let rows =
            read("a.jsonl", b"\xef\xbb\xbf{\"text\": \"a\"}\r\n\n{\"text\": \"b\"}", Format::Text);
        let rows = rows.unwrap();
        let at = |line| Origin { file: 0, line, item: None };
        assert_eq!(rows[0], (Row::Text("a".into()), at(1)));
        assert_eq!(rows[1], (Row::Text("b".into()), at(3)));
        let joined = b"{\"text\": \"a\"}\n\xef\xbb\xbf{\"text\": \"b\"}\n\xef\xbb\xbf\n";
        let rows = read("a.jsonl", joined, Format::Text).unwrap();
        assert_eq!(rows[1], (Row::Text("b".into()), at(2)));
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn a_plain_file_is_one_document() {
        let rows = read("a.TXT", b"\xef\xbb\xbfone\ntwo\n", Format::Text).unwrap();
        assert_eq!(
            rows,
            [(Row::Text("one\ntwo\n".into()), Origin { file: 0, line: 1, item: None })]
        );
    }

    const CHAT: &str = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "A"}]}"#;

    #[test]
    fn answers_that_say_nothing_are_refused_alike_in_every_format() {
        for (format, row) in [
            (Format::Messages, CHAT),
            (Format::ShareGpt, r#"{"conversations": [{"from": "gpt", "value": "A"}]}"#),
            (Format::Alpaca, r#"{"instruction": "q", "output": "A"}"#),
            (Format::Alpaca, r#"{"instruction": "q", "output": "a", "history": [["q", "A"]]}"#),
            (Format::Completion, r#"{"prompt": "q", "completion": "A"}"#),
            (Format::Text, r#"{"text": "A"}"#),
        ] {
            for nothing in ["", " \\n\\t"] {
                let empty = row.replace("\"A\"", &format!("\"{nothing}\""));
                let error =
                    read("a.jsonl", format!("{row}\n{empty}").as_bytes(), format).unwrap_err();
                assert!(
                    error.starts_with("a.jsonl:2: ") && error.contains("is empty: the model"),
                    "{error}"
                );
            }
        }
        // What is not learnt may be empty.
        let masked = CHAT.replace("\"A\"", "\"\", \"weight\": 0");
        assert_eq!(read("a.jsonl", masked.as_bytes(), Format::Messages).unwrap().len(), 1);
        insta::assert_snapshot!(read("a.jsonl", CHAT.replace('A', "").as_bytes(), Format::Messages).unwrap_err(), @"a.jsonl:1: the assistant's answer in turn 2 is empty: the model would learn to say nothing; remove the row, or allow such rows to be dropped (`data.allow_empty_targets: true`)");
    }

    #[test]
    fn rows_without_an_answer_can_be_left_out_and_are_counted_with_the_notes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let bytes = format!(
            "{CHAT}\n{}\n{}\n",
            CHAT.replace('A', ""),
            CHAT.replace("{\"messages", "{\"id\": 1, \"_x\": 2, \"messages")
        );
        std::fs::write(&path, &bytes).unwrap();
        let sources = [SourceFile::new(path, Format::Messages)];
        let mut reader = RowReader::new(&sources).leaving_out_empty(true);
        let lines: Vec<usize> = reader.by_ref().map(|row| row.unwrap().1.line).collect();
        assert_eq!(lines, [1, 3]);
        let files = reader.into_files();
        assert_eq!((files[0].left_out, files[0].digest.bytes), (1, bytes.len() as u64));
        assert_eq!(files[0].notes, BTreeMap::from([("_x".to_owned(), 1), ("id".to_owned(), 1)]));
    }

    #[test]
    fn a_list_of_rows_is_read_and_its_wrong_rows_are_named() {
        let list = format!("[\n  {CHAT},\n  {CHAT}]\n");
        let rows = read("a.json", list.as_bytes(), Format::Messages).unwrap();
        let places: Vec<(usize, Option<usize>)> =
            rows.iter().map(|(_, origin)| (origin.line, origin.item)).collect();
        assert_eq!(places, [(2, Some(1)), (3, Some(2))]);
        let fail = |text: &str| read("a.json", text.as_bytes(), Format::Messages).unwrap_err();
        insta::assert_snapshot!(fail(&format!("[{CHAT}, {{\"messages\": 1}}]")), @"a.json:1, row 2 of the list: `messages` must be a list, found the number 1");
        insta::assert_snapshot!(fail(&format!("[{CHAT}, {{\"messages\" 1}}]")), @"a.json:1, row 2 of the list: malformed JSON at column 103: expected `:`");
        insta::assert_snapshot!(fail("{\n  \"messages\": [\n    nothing\n  ]\n}\n"), @"a.json:3: malformed JSON at column 6: expected ident");
    }

    #[test]
    fn what_is_hashed_is_what_was_read() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.jsonl", "\u{feff}{\"text\": \"x\"}\n\n{\"text\": \"y\"}\n\n \n"),
            ("a.json", "[{\"text\": \"x\"},\n{\"text\": \"y\"}]\n \n"),
            ("a.txt", "\u{feff}any text\n"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let ReadRows { files, .. } = read_rows(&[SourceFile::new(path, Format::Text)]).unwrap();
            let sha256 = graft_files::sha256::sha256_hex(text.as_bytes());
            assert_eq!(files[0].digest, FileDigest { bytes: text.len() as u64, sha256 }, "{name}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn files_of_other_kinds_are_called_by_their_name() {
        let fail = |name, bytes: &[u8], format| read(name, bytes, format).unwrap_err();
        insta::assert_snapshot!(fail("a.jsonl.gz", b"\x1f\x8b\x08\0\0", Format::Messages), @"a.jsonl.gz: it is packed by gzip, and cannot be unpacked: unexpected end of file. Is it whole? Fetch or pack it again");
        insta::assert_snapshot!(fail("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", Format::Text), @"a.jsonl: it is a Git LFS pointer that stands for the file; run `git lfs pull` in its folder");
        insta::assert_snapshot!(fail("a.csv", b"instruction,output\na,b\nc\n", Format::Alpaca), @"a.csv:3: the row has 1 fields, and the table 2 columns (instruction, output): a field that holds the parting character `,` or a line end stands in quotes");
        insta::assert_snapshot!(fail("a.txt", b"%PDF-1.7\n", Format::Text), @"a.txt: it is a PDF document; extract its text first: `pdftotext FILE`");
        // A document may be written in HTML.
        assert!(read("a.md", b"<html><body>text", Format::Text).is_ok());
        let check = |path: &str| SourceFile::new(path, Format::Messages).check().unwrap_err();
        insta::assert_snapshot!(check("/dev/zero"), @"cannot read /dev/zero: it is a device, and only plain files are read: write what it gives into a file first");
        insta::assert_snapshot!(check("/"), @"cannot read /: it is a folder");
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("a.jsonl");
        std::os::unix::fs::symlink("../../blobs/0a1b", &link).unwrap();
        let dangling = SourceFile::new(&link, Format::Messages).check().unwrap_err().to_string();
        insta::assert_snapshot!(dangling.replace(&link.display().to_string(), "a.jsonl"), @"cannot read a.jsonl: it is a link to `../../blobs/0a1b`, which is not there: copy the files that the links of this folder lead to, too (`cp -rL` does)");
    }

    #[test]
    fn a_document_longer_than_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let text = "word ".repeat(MOST_BYTES_OF_A_ROW / 5 + 1);
        std::fs::write(&path, &text).unwrap();
        let error = read_rows(&[SourceFile::new(&path, Format::Text)]).unwrap_err().to_string();
        insta::assert_snapshot!(error.replace(&path.display().to_string(), "a.txt"), @r#"a.txt: the document is longer than 4194304 bytes, the most that one may have; cut it into several files, or into lines of {"text": …}"#);
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
