//! Files as pyarrow, pandas and `datasets` write them, against the same rows in JSON; and each of them damaged.
//!
//! Written by pyarrow 22, pandas 2 and datasets 4 from the rows of `chat.jsonl` and `qa.jsonl`.
#![expect(clippy::expect_used, reason = "a fixture that cannot be read fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use graft_data::{Columns, Format, Row, RowReader, SourceFile};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables")
}

fn files() -> Vec<(PathBuf, Format)> {
    let entries = std::fs::read_dir(folder()).expect("the folder of fixtures");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let of = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of_questions =
            ["qa", "categories", "pandas.csv", "pandas-index", "semicolon", "tabs", "utf-16.csv"];
        let format = if of_questions.iter().any(|it| name.starts_with(it)) {
            Format::Alpaca
        } else {
            Format::Messages
        };
        (path, format)
    };
    let mut files: Vec<_> = paths.map(of).collect();
    files.sort();
    files
}

fn read(path: &Path, format: Format) -> Result<Vec<Row>, String> {
    let sources = [SourceFile::new(path, format)];
    let rows =
        RowReader::new(&sources).map(|row| row.map(|(row, _)| row)).collect::<Result<_, _>>();
    rows.map_err(|error| error.to_string())
}

#[test]
fn every_container_gives_the_rows_that_were_written() {
    let expected = BTreeMap::from([
        (Format::Messages, read(&folder().join("chat.jsonl"), Format::Messages).expect("rows")),
        (Format::Alpaca, read(&folder().join("qa.jsonl"), Format::Alpaca).expect("rows")),
    ]);
    assert!(expected.values().all(|rows| rows.len() == 3));
    let all = files();
    assert!(all.len() > 20, "fixtures are missing");
    for (path, format) in all {
        // pandas writes its index in a column without a name.
        let rows = read(&path, format).expect("rows");
        assert!(rows == expected[&format], "{}: {rows:?}", path.display());
    }
}

/// pandas writes a group of rows that has none, and no pages.
#[test]
fn a_table_without_rows_is_told_as_one() {
    let path = folder().with_file_name("no_rows.parquet");
    let error = read(&path, Format::Text).expect_err("it holds none");
    assert!(error.ends_with("no_rows.parquet holds no rows"), "{error}");
}

#[test]
fn the_content_tells_what_a_file_is_whatever_it_is_called() {
    let temporary = tempfile::tempdir().expect("a folder for temporary files");
    for (path, format) in files() {
        let expected = read(&path, format).expect("rows");
        for name in ["rows", "rows.jsonl", "rows.csv", "rows.parquet", "rows.gz"] {
            let copy = temporary.path().join(name);
            std::fs::copy(&path, &copy).expect("a writable folder");
            let is_table =
                path.extension().is_some_and(|ending| ending == "csv" || ending == "tsv");
            let rows = read(&copy, format);
            // A table of text that is called so after another kind is read for what it is, too.
            assert!(
                rows.as_ref() == Ok(&expected),
                "{} as {name} ({is_table}): {rows:?}",
                path.display()
            );
        }
    }
}

#[test]
fn what_is_not_read_is_called_by_its_name() {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packed.feather");
    let message = read(&packed, Format::Messages).expect_err("refused");
    let message = message.replace(&packed.display().to_string(), "packed.feather");
    insta::assert_snapshot!(message, @r#"packed.feather: it is an Arrow file, and cannot be read: its columns are packed, by LZ4 or Zstandard; write it as Parquet, or without packing (`compression="uncompressed"` in pandas and pyarrow)"#);
}

#[test]
fn columns_are_read_under_other_names() {
    let path = folder().join("pandas.csv");
    let columns = |fields: &[(&str, &str)], ignored: &[&str]| Columns {
        fields: fields
            .iter()
            .map(|&(field, column)| (field.to_owned(), column.to_owned()))
            .collect(),
        ignored: ignored.iter().map(|&name| name.to_owned()).collect(),
        ..Columns::default()
    };
    let read = |format, columns| {
        let sources = [SourceFile::new(&path, format).with_columns(columns)];
        let rows: Result<Vec<_>, _> = RowReader::new(&sources).collect();
        rows.map_err(|error| error.to_string().replace(&format!("{}/", folder().display()), ""))
    };
    let both = [("prompt", "instruction"), ("completion", "output")];
    let rows = read(Format::Completion, columns(&both, &[])).expect("rows");
    assert!(
        matches!(&rows[2].0, Row::Completion { prompt, completion } if prompt == "a,b\tc" && completion == "d")
    );
    let rows = read(Format::Text, columns(&[("text", "output")], &["instruction"])).expect("rows");
    assert_eq!(rows[1].0, Row::Text("12 €, 日本語.".to_owned()));
    let fail = |format, columns| read(format, columns).expect_err("refused");
    insta::assert_snapshot!(fail(Format::Text, columns(&[("text", "output")], &[])), @"pandas.csv:2: `instruction` is not supported: `format: text` is made of `text`, and this is no known note about a row; leave it out by `ignore_columns: [instruction]`, or begin its name with `_`, if nothing is to be learnt from it");
    insta::assert_snapshot!(fail(Format::Text, columns(&[("text", "answer")], &[])), @"pandas.csv:2: `text` is missing (found: instruction, output)");
    insta::assert_snapshot!(fail(Format::Alpaca, columns(&[], &["id"])), @"pandas.csv: `ignore_columns` names `id`, which no row has (found: instruction, output)");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test writes its own input files")]
fn a_damaged_file_is_an_error_that_names_it_or_gives_rows() {
    let temporary = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let temporary = temporary.expect("a folder for temporary files");
    let mut refused = 0;
    for (path, format) in files() {
        let whole = std::fs::read(&path).expect("a fixture");
        let copy = temporary.path().join(path.file_name().expect("a name"));
        let mut check = |bytes: &[u8], what: &str| {
            std::fs::write(&copy, bytes).expect("a writable folder");
            if let Err(message) = read(&copy, format) {
                refused += 1;
                let told = message.replace(&copy.display().to_string(), "FILE");
                assert!(told.contains("FILE") && told.len() < 2_000, "{what}: {told}");
                assert!(!told.contains(char::is_control), "{what}: {told:?}");
            }
        };
        for length in (0..whole.len()).step_by(13) {
            check(&whole[..length], &format!("{} cut to {length} bytes", path.display()));
        }
        for place in (0..whole.len()).step_by(5) {
            let mut other = whole.clone();
            other[place] ^= 0x55;
            check(&other, &format!("{} with another byte {place}", path.display()));
        }
    }
    assert!(refused > 1_000, "{refused} of the damaged files were refused");
}
