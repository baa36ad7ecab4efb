//! Files that are broken in ways that files break, over every container: each is an error that names the file
//! and the place, in bounded memory. With `GRAFT_MALFORMED=FOLDER` the files are kept there, to try a
//! command on.
#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{
    Array as _, ArrayRef, DictionaryArray, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::Field;
use graft_data::{Format, RowReader, SourceFile};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// The memory that a test of all of them may take.
const MOST_MEMORY: u64 = 1 << 30;

/// A broken file: what breaks it, the ending of its name, its bytes, and how its rows are asked for.
struct Broken {
    what: String,
    ending: &'static str,
    bytes: Vec<u8>,
    format: Format,
}

const GOOD: &str =
    r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;

/// Rows of `messages` that none can be read as.
fn rows() -> Vec<String> {
    let turns = |turns: &str| format!(r#"{{"messages": [{turns}]}}"#);
    let user = r#"{"role": "user", "content": "q"}"#;
    let answer = |fields: &str| turns(&format!(r#"{user}, {{"role": "assistant", {fields}}}"#));
    let call =
        |call: &str| turns(&format!(r#"{user}, {{"role": "assistant", "tool_calls": {call}}}"#));
    let mut rows: Vec<String> = [
        "{",
        "}",
        "[",
        "{}",
        "null",
        "17",
        "\"text\"",
        "{]",
        "{\"messages\"",
        "{\"messages\":}",
        "{\"messages\": [}",
        "{\"messages\": null}",
        "{\"messages\": 1}",
        "{\"messages\": {}}",
        "{\"messages\": []}",
        "{\"messages\": [null]}",
        "{\"messages\": [[]]}",
        "{\"messages\": [1]}",
        "{'messages': []}",
        "{messages: []}",
        "{\"messages\": [] \"a\": 1}",
        "{\"a\": 1}",
        "{\"messages\": [NaN]}",
        "{\"messages\": \"[\"}",
        "{\"messages\": \"not JSON\"}",
        "{\"a\": \"\\x\"}",
        "{\"a\": \"\\ud800\"}",
        "{\"a\": 1e999}",
        "{\"a\": 01}",
        "{\"a\": +1}",
        "{\"a\": .5}",
        "{\"a\": tru}",
        "{\"a\": \"\u{1}\"}",
        "{\"a\": 1,}",
        "{\"a\" 1}",
        "{\"a\": 1} {",
        "{\"a\": [1,]}",
    ]
    .map(str::to_owned)
    .to_vec();
    for field in [
        r#""content": 1"#,
        r#""content": null"#,
        r#""content": []"#,
        r#""content": {}"#,
        r#""content": ["a"]"#,
        r#""content": """#,
        r#""content": " ""#,
        r#""content": "a", "content": "b""#,
        r#""text": "a""#,
        r#""content": "a", "weight": 2"#,
        r#""content": "a", "weight": "1""#,
        r#""content": "a", "weight": -1"#,
        r#""content": "a", "train": "yes""#,
        r#""content": "a", "weight": 0, "train": 1"#,
        r#""content": "a", "mood": 1"#,
        r#""content": "a", "name": "Ana""#,
        r#""content": "a", "tool_calls": 1"#,
        r#""content": "a", "thinking": "b""#,
        r#""content": "a", "loss_mask": 0"#,
    ] {
        rows.push(answer(field));
    }
    for one in [
        "1",
        "{}",
        "[1]",
        "[{}]",
        r#"[{"function": 1}]"#,
        r#"[{"function": {}}]"#,
        r#"[{"function": {"name": 1, "arguments": {}}}]"#,
        r#"[{"function": {"name": "f"}}]"#,
        r#"[{"function": {"name": "f", "arguments": "{"}}]"#,
        r#"[{"function": {"name": "f", "arguments": []}}]"#,
        r#"[{"function": {"name": "f", "arguments": {"a": 1, "a": 2}}}]"#,
        "[{}, {}]",
        r#"[{"type": "code", "function": {"name": "f", "arguments": {}}}]"#,
    ] {
        rows.push(call(one));
    }
    rows.extend(beside_the_turns());
    rows.push(turns(user));
    rows.push(turns(r#"{"role": "bot", "content": "a"}"#));
    rows.push(turns(r#"{"role": 1, "content": "a"}"#));
    for depth in [200, 20_000, 1_000_000] {
        rows.push(format!("{{\"a\": {}", "[".repeat(depth)));
        rows.push(format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)));
    }
    rows
}

/// A good row with fields that it may not have.
fn beside_the_turns() -> Vec<String> {
    let mut rows = Vec::new();
    for fields in [
        r#""tools": 1"#,
        r#""tools": "x""#,
        r#""tools": [1]"#,
        r#""builtin_tools": [1]"#,
        r#""system": 1"#,
        r#""tools_in_user_message": "no""#,
        r#""images": ["a.png"]"#,
        r#""weight": 0.5"#,
        r#""weight": "0""#,
        r#""whatever": 1"#,
        r#""chosen": "a""#,
        r#""prompt": "a""#,
        r#""messages": []"#,
        r#""functions": [{}]"#,
    ] {
        rows.push(GOOD.replacen('{', &format!("{{{fields}, "), 1));
    }
    rows
}

/// Every way in which a row stands in a file.
fn of_rows() -> Vec<Broken> {
    let mut all = Vec::new();
    for (number, row) in rows().into_iter().enumerate() {
        // Of a good row and this one: plain, indented, packed, and in two bytes a character.
        let lines = format!("{GOOD}\n{row}\n");
        let wide: Vec<u8> = std::iter::once(0xfeff)
            .chain(lines.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        let list = format!("[\n  {GOOD},\n  {row}\n]\n");
        let mut files = vec![
            ("jsonl", lines.clone().into_bytes()),
            ("json", list.into_bytes()),
            ("jsonl", wide),
        ];
        for (ending, bytes) in packed(lines.as_bytes()) {
            if number % 4 == ["gz", "zst", "bz2", "xz"].iter().position(|it| *it == ending).unwrap()
            {
                files.push((ending, bytes));
            }
        }
        for (ending, bytes) in files {
            all.push(Broken {
                what: format!("row {number}"),
                ending,
                bytes,
                format: Format::Messages,
            });
        }
    }
    all
}

fn packed(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes).unwrap();
    let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    bzip.write_all(bytes).unwrap();
    let mut packed = vec![
        ("gz", gzip.finish().unwrap()),
        ("zst", zstd::encode_all(bytes, 3).unwrap()),
        ("bz2", bzip.finish().unwrap()),
    ];
    if bytes.len() < 1 << 20 {
        let fixture = std::fs::read(tables().join("chat.jsonl.xz")).unwrap();
        packed.push(("xz", fixture[..fixture.len() - 1].to_vec()));
    }
    packed
}

fn tables() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables")
}

/// Tables of text.
fn of_tables() -> Vec<Broken> {
    let mut all = Vec::new();
    for part in [',', ';', '\t', '|'] {
        let wide: Vec<String> = (0..5_000).map(|number| format!("c{number}")).collect();
        for (what, text) in [
            ("a field too few", "instruction,output\nq,a\nq\n".to_owned()),
            ("a field too many", "instruction,output\nq,a\nq,a,b\n".to_owned()),
            ("an open quote", "instruction,output\nq,\"a\nq,a\n".to_owned()),
            ("text behind a quote", "instruction,output\n\"q\"x,a\n".to_owned()),
            ("a name twice", "instruction,output,output\nq,a,b\n".to_owned()),
            ("no such column", "question,answer\nq,a\n".to_owned()),
            ("a column that nothing reads", "instruction,output,mood\nq,a,glad\n".to_owned()),
            ("an empty answer", "instruction,output\nq,\n".to_owned()),
            ("no rows", "instruction,output\n".to_owned()),
            ("no JSON", "instruction,output,history\nq,a,[\n".to_owned()),
            ("a weight of a half", "instruction,output,weight\nq,a,0.5\n".to_owned()),
            ("too many columns", format!("{},instruction,output\n", wide.join(","))),
            ("carriage returns", "instruction,output\rq,a\r".to_owned()),
            ("a long line", format!("instruction,output\nq,{}\n", "a".repeat(5 << 20))),
            ("a long quote", format!("instruction,output\nq,\"{}\n", "a\n".repeat(3 << 20))),
        ] {
            let bytes = text.replace(',', &part.to_string()).into_bytes();
            all.push(Broken {
                what: format!("{what}, {part:?}"),
                ending: "csv",
                bytes,
                format: Format::Alpaca,
            });
        }
    }
    all
}

/// Packed files that are cut, damaged, or become very large.
fn of_packings() -> Vec<Broken> {
    let mut all = Vec::new();
    for ending in ["gz", "zst", "xz", "bz2"] {
        let whole = std::fs::read(tables().join(format!("chat.jsonl.{ending}"))).unwrap();
        for part in 1..=9 {
            let bytes = whole[..whole.len() * part / 10].to_vec();
            all.push(Broken {
                what: format!("cut to {part} tenths"),
                ending,
                bytes,
                format: Format::Messages,
            });
        }
    }
    // One line, and one JSON value, without end.
    for start in ["", "{\"messages\": \"", "[", "instruction,output\nq,"] {
        let mut bytes = start.as_bytes().to_vec();
        bytes.resize(64 << 20, b'[');
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        let zstandard = zstd::encode_all(&bytes[..], 1).unwrap();
        for (ending, bytes) in [("gz", gzip.finish().unwrap()), ("zst", zstandard)] {
            all.push(Broken {
                what: format!("a bomb behind {start:?}"),
                ending,
                bytes,
                format: Format::Alpaca,
            });
        }
    }
    all
}

/// Tables by columns: cut, with a footer that lies, and with a value that is small in the file alone.
fn of_columns() -> Vec<Broken> {
    let mut all = Vec::new();
    let names = [
        "pandas.parquet",
        "pyarrow-zstd.parquet",
        "datasets.parquet",
        "datasets.arrow",
        "feather.feather",
    ];
    for name in names {
        let whole = std::fs::read(tables().join(name)).unwrap();
        let ending = if name.ends_with("parquet") { "parquet" } else { "arrow" };
        let mut add = |what: String, bytes: Vec<u8>| {
            all.push(Broken {
                what: format!("{name}, {what}"),
                ending,
                bytes,
                format: Format::Messages,
            });
        };
        for part in 1..=9 {
            add(format!("cut to {part} tenths"), whole[..whole.len() * part / 10].to_vec());
        }
        if ending == "parquet" {
            let end = whole.len();
            for length in [0, 1, 7, 1_000_000, u32::MAX, 1 << 31] {
                let mut bytes = whole.clone();
                bytes[end - 8..end - 4].copy_from_slice(&length.to_le_bytes());
                add(format!("a footer of {length} bytes"), bytes);
            }
            let footer = u32::from_le_bytes(whole[end - 8..end - 4].try_into().unwrap()) as usize;
            for byte in [0x00, 0x18, 0x5c, 0xff] {
                let mut bytes = whole.clone();
                bytes[end - 8 - footer] = byte;
                add(format!("a footer that begins with {byte}"), bytes);
            }
            let mut bytes = whole.clone();
            bytes[4..end - 8 - footer].fill(0xff);
            add("pages of nothing".to_owned(), bytes);
        }
    }
    for megabytes in [5, 20, 100] {
        let bytes = small_in_the_file(megabytes << 20, 64);
        let what = format!("a value of {megabytes} MB");
        all.push(Broken { what, ending: "parquet", bytes, format: Format::Text });
    }
    for in_struct in [false, true] {
        let (bytes, format) = small_in_a_list(1 << 20, 2_000, in_struct);
        let what = "a value of 1 MB, two thousand times in a list".to_owned();
        all.push(Broken { what, ending: "parquet", bytes, format });
    }
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let twice = RecordBatch::try_from_iter([("text", column.clone()), ("text", column)]).unwrap();
    for (ending, bytes) in [("parquet", parquet(&twice, true)), ("arrow", arrow(&twice))] {
        all.push(Broken { what: "a column twice".to_owned(), ending, bytes, format: Format::Text });
    }
    all
}

/// A file of some kilobytes with one text of so many bytes in every row.
fn small_in_the_file(bytes: usize, rows: usize) -> Vec<u8> {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(bytes)]));
    let keys = Int32Array::from(vec![0; rows]);
    let column: ArrayRef = Arc::new(DictionaryArray::new(keys, text));
    parquet(&RecordBatch::try_from_iter([("text", column)]).unwrap(), true)
}

/// A file of some kilobytes with one text of so many bytes in a list of its only row, by itself or in turns.
fn small_in_a_list(bytes: usize, times: usize, in_turns: bool) -> (Vec<u8>, Format) {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(bytes)]));
    let texts: ArrayRef = Arc::new(DictionaryArray::new(Int32Array::from(vec![0; times]), text));
    let (name, items, format) = if in_turns {
        let roles: ArrayRef = Arc::new(StringArray::from(vec!["user"; times]));
        let field =
            |name: &str, of: &ArrayRef| Arc::new(Field::new(name, of.data_type().clone(), true));
        let turns = StructArray::from(vec![
            (field("role", &roles), roles.clone()),
            (field("content", &texts), texts.clone()),
        ]);
        ("messages", Arc::new(turns) as ArrayRef, Format::Messages)
    } else {
        ("text", texts, Format::Text)
    };
    let item = Arc::new(Field::new("item", items.data_type().clone(), true));
    let list = ListArray::new(item, OffsetBuffer::from_lengths([times]), items, None);
    let column: ArrayRef = Arc::new(list);
    (parquet(&RecordBatch::try_from_iter([(name, column)]).unwrap(), true), format)
}

fn parquet(batch: &RecordBatch, is_dictionary: bool) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_dictionary_enabled(is_dictionary)
        .set_dictionary_page_size_limit(1 << 30)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn arrow(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

/// What is no file of rows.
fn of_other_kinds() -> Vec<Broken> {
    let kinds: [(&str, &[u8]); 18] = [
        ("nothing", b""),
        ("blanks", b" \n\r\n\t"),
        ("a mark alone", b"\xef\xbb\xbf"),
        ("half a mark", b"\xff\xfe"),
        ("an odd byte", b"\xff\xfea"),
        ("UTF-32", b"\xff\xfe\0\0{\0\0\0"),
        ("a pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("a page", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
        ("a zip", b"PK\x03\x04\x14\0\0\0\x08\0"),
        ("an old sheet", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("a PDF", b"%PDF-1.7\n"),
        ("a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ("a program", b"\x7fELF\x02\x01\x01\0"),
        ("a database", b"SQLite format 3\0"),
        ("zeros", &[0; 4_096]),
        ("ones", &[0xff; 4_096]),
        ("a tail of zeros", b"{\"text\": \"a\"}\n\0\0\0\0\0\0\0\0"),
        ("Latin-1", b"{\"text\": \"caf\xe9\"}\n"),
    ];
    let mut all = Vec::new();
    for (what, bytes) in kinds {
        for ending in ["jsonl", "csv", "parquet", "txt"] {
            let is_a_text = ending == "txt" && what == "a page";
            if !is_a_text {
                let (what, bytes) = (what.to_owned(), bytes.to_vec());
                all.push(Broken { what, ending, bytes, format: Format::Text });
            }
        }
    }
    all
}

#[test]
fn every_broken_file_is_an_error_that_names_it() {
    let kept = std::env::var_os("GRAFT_MALFORMED").map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let folder = kept.unwrap_or_else(|| temporary.path().to_owned());
    let all = [of_rows(), of_tables(), of_packings(), of_columns(), of_other_kinds()];
    let (mut distinct, mut counts) = (BTreeSet::new(), BTreeMap::new());
    for (number, Broken { what, ending, bytes, format }) in all.into_iter().flatten().enumerate() {
        let path = folder.join(format!("{number:03}-{format}.{ending}"));
        std::fs::write(&path, &bytes).unwrap();
        let sources = [SourceFile::new(&path, format)];
        let rows: Result<Vec<_>, _> = RowReader::new(&sources).collect();
        let Err(error) = rows else { panic!("{}: {what} was read", path.display()) };
        let told = error.to_string();
        assert!(told.contains(&path.display().to_string()), "{what}: {told}");
        assert!(told.len() < 2_000 && !told.contains('\0'), "{what}: {told}");
        distinct.insert(bytes);
        *counts.entry(ending).or_insert(0) += 1;
    }
    assert!(distinct.len() >= 500, "{} files: {counts:?}", distinct.len());
    if let Some(peak) = peak() {
        assert!(peak < MOST_MEMORY, "{peak} bytes");
    }
}

/// The most memory that this program has held so far, the files that it made included.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}
