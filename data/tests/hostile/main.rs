//! Files that nobody meant, against every reader of rows: none may panic, and what is said about
//! them stays short. `GRAFT_MUTATIONS=1000000 cargo test --release -p graft-data --test hostile`
//! tries a million.
#![expect(clippy::expect_used, reason = "a corpus that cannot be read fails the test")]

mod mutate;

use std::path::Path;

use graft_data::{Error, FileProblem, Format, RowReader, SourceFile};
use mutate::{Draw, corpus, first, inputs, mutate};

/// Bytes that a message about an input may have, its path left out.
const LONGEST_MESSAGE: usize = 2_000;

fn check_message(message: &str, number: u64) {
    assert!(message.len() < LONGEST_MESSAGE, "input {number}: {} bytes: {message}", message.len());
    let steers = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!message.contains(steers), "input {number}: {message:?}");
}

/// Reads a file in a format, and holds what comes out to the size of what went in.
fn read(path: &Path, format: Format, length: usize, number: u64) {
    let sources = [SourceFile::new(path, format)];
    let mut reader = RowReader::new(&sources).leaving_out_empty(number.is_multiple_of(2));
    let (mut rows, mut told) = (0, false);
    for row in reader.by_ref() {
        match row {
            Ok((row, origin)) => {
                rows += 1;
                assert!(origin.line <= length + 1, "input {number}: {origin:?}");
                // Escapes of two bytes become one character of up to three, and names of fields
                // stand in each row once.
                let size = format!("{row:?}").len();
                assert!(size <= 100 * (length + 100), "input {number}: {size} bytes");
                let _ = row.digest();
            }
            Err(error) => {
                told = true;
                check_message(&error.to_string().replace(&path.display().to_string(), ""), number);
            }
        }
    }
    assert!(
        rows <= length && (rows > 0 || told || number.is_multiple_of(2)),
        "input {number}: {rows} rows"
    );
    let files = reader.into_files();
    assert!(told || files[0].digest.bytes == length as u64, "input {number}: {files:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test writes its own input files")]
fn no_file_of_rows_panics_or_says_much() {
    let corpus = corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/rows"));
    // In memory, where the system has such a folder: a file an input.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let folder = folder.expect("a folder for temporary files");
    // The same bytes are read in as many ways.
    let endings: Vec<&str> = Format::endings().collect();
    let (first, count) = (first(), inputs(4_000));
    for number in first..first + count {
        let mut draw = Draw::new(number);
        let bytes = mutate(&corpus, &mut draw);
        let path = folder.path().join(format!("a.{}", draw.one(&endings)));
        std::fs::write(&path, &bytes).expect("a writable folder");
        let format = *draw.one(&Format::ALL);
        read(&path, format, bytes.len(), number);
        // As it is, without the line that it would have to fit.
        if let Ok(text) = std::str::from_utf8(&bytes)
            && let Err(problem) = format.parse_row(text)
        {
            check_message(&problem.to_string(), number);
        }
    }
}

#[test]
fn the_corpus_is_read_as_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/rows");
    for (name, format, rows) in [
        ("messages.jsonl", Format::Messages, 2),
        ("messages.json", Format::Messages, 2),
        ("list.json", Format::Messages, 2),
        ("indented.json", Format::Messages, 2),
        ("sharegpt.jsonl", Format::ShareGpt, 2),
        ("alpaca.jsonl", Format::Alpaca, 2),
        ("completion.jsonl", Format::Completion, 1),
        ("text.jsonl", Format::Text, 2),
        ("plain.txt", Format::Text, 1),
    ] {
        let sources = [SourceFile::new(folder.join(name), format)];
        let read: Result<Vec<_>, _> = RowReader::new(&sources).collect();
        assert_eq!(read.expect(name).len(), rows, "{name}");
    }
    let endless = SourceFile::new("/dev/zero", Format::Messages).check();
    let is_refused =
        matches!(endless, Err(Error::File { problem: FileProblem::Endless(_), path: _ }));
    assert!(cfg!(not(unix)) || is_refused, "{endless:?}");
}
