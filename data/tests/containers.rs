//! The same rows of every form in every container that holds them, plain and in every packing, as a file and from a stream: the same
//! rows come out.
#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Int64Array, ListArray, NullArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::Field;
use graft_data::{Format, Row, RowReader, SourceFile};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

/// Texts that containers have to write otherwise.
const TEXTS: [&str; 5] =
    ["When?", "„Um 9“, \"9\";\t|\n\nor\r\n10 \\n", " 日本語 🙂 ", "[1, 2]", "{\"a\": \"'b'\"}"];

/// Rows of a form.
fn rows(format: Format) -> Vec<Value> {
    let two = |turns: Vec<Value>| json!({"messages": turns});
    let call = json!({"role": "assistant", "tool_calls": [
        {"type": "function", "function": {"name": "fee", "arguments": "{\"form\": 7, \"of\": [1.50, null]}"}},
    ]});
    let tools = json!([{"type": "function", "function": {"name": "fee", "description": "What a form costs"}}]);
    match format {
        Format::Messages => {
            let mut all: Vec<Value> = TEXTS
                .iter()
                .map(|text| {
                    two(vec![
                        json!({"role": "user", "content": text}),
                        json!({"role": "assistant", "content": "no", "weight": 0}),
                        json!({"role": "user", "content": "Again?"}),
                        json!({"role": "assistant", "content": text, "weight": 1}),
                    ])
                })
                .collect();
            let mut called = two(vec![
                json!({"role": "system", "content": "Be brief."}),
                json!({"role": "user", "content": "What is the fee?"}),
                call,
                json!({"role": "tool", "content": "{\"euros\": 12}"}),
                json!({"role": "assistant", "content": "12 €"}),
            ]);
            called["tools"] = tools;
            all.push(called);
            all
        }
        Format::ShareGpt => TEXTS
            .iter()
            .map(|text| {
                json!({"conversations": [
                    {"from": "human", "value": text}, {"from": "gpt", "value": text},
                ], "system": "Be brief."})
            })
            .collect(),
        Format::Alpaca => TEXTS
            .iter()
            .enumerate()
            .map(|(at, text)| {
                let input = if at % 2 == 0 { "" } else { text };
                json!({"instruction": text, "input": input, "output": text})
            })
            .collect(),
        Format::Completion => {
            TEXTS.iter().map(|text| json!({"prompt": text, "completion": text})).collect()
        }
        Format::Text => TEXTS.iter().map(|text| json!({"text": text})).collect(),
    }
}

/// Names of fields, in the order in which they are met.
fn names<'a>(objects: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for key in objects.filter_map(Value::as_object).flat_map(|object| object.keys()) {
        if !names.contains(key) {
            names.push(key.clone());
        }
    }
    names
}

/// Values of one kind as a column of Arrow.
fn column(values: &[Value]) -> ArrayRef {
    match values.iter().find(|value| !value.is_null()) {
        None => Arc::new(NullArray::new(values.len())),
        Some(Value::String(_)) => {
            Arc::new(values.iter().map(Value::as_str).collect::<StringArray>())
        }
        Some(Value::Number(_)) => {
            Arc::new(values.iter().map(Value::as_i64).collect::<Int64Array>())
        }
        Some(Value::Bool(_)) => {
            Arc::new(values.iter().map(Value::as_bool).collect::<BooleanArray>())
        }
        Some(Value::Array(_)) => {
            let lengths = values.iter().map(|value| value.as_array().map_or(0, Vec::len));
            let items: Vec<Value> =
                values.iter().filter_map(Value::as_array).flatten().cloned().collect();
            let (items, nulls) = (column(&items), values.iter().map(|value| !value.is_null()));
            let field = Arc::new(Field::new("item", items.data_type().clone(), true));
            let nulls: NullBuffer = nulls.collect();
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), items, Some(nulls)))
        }
        Some(Value::Object(_)) => {
            let columns = columns(values);
            let field = |(name, column): (String, ArrayRef)| {
                (Arc::new(Field::new(name, column.data_type().clone(), true)), column)
            };
            let nulls: NullBuffer = values.iter().map(|value| !value.is_null()).collect();
            let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().map(field).unzip();
            Arc::new(StructArray::new(fields.into(), arrays, Some(nulls)))
        }
        Some(Value::Null) => unreachable!("it was left out"),
    }
}

fn columns(objects: &[Value]) -> Vec<(String, ArrayRef)> {
    let of = |name: String| {
        let values: Vec<Value> = objects.iter().map(|object| object[&name].clone()).collect();
        let column = column(&values);
        (name, column)
    };
    names(objects.iter()).into_iter().map(of).collect()
}

fn quoted(rows: &[Value], part: char) -> Vec<u8> {
    let names = names(rows.iter());
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        other => format!("\"{}\"", other.to_string().replace('"', "\"\"")),
    };
    let line = |cells: Vec<String>| cells.join(&part.to_string()) + "\n";
    let head = line(names.clone());
    let body = rows.iter().map(|row| line(names.iter().map(|name| cell(&row[name])).collect()));
    (head + &body.collect::<String>()).into_bytes()
}

/// The rows in every container, each with the ending of its name.
fn containers(rows: &[Value]) -> Vec<(&'static str, Vec<u8>)> {
    let lines = rows.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let batch = RecordBatch::try_from_iter(columns(rows)).unwrap();
    let mut table = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    table.write(&batch).unwrap();
    let mut file = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    file.write(&batch).unwrap();
    let mut stream = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    vec![
        ("jsonl", lines.into_bytes()),
        ("json", serde_json::to_vec(rows).unwrap()),
        ("indented.json", serde_json::to_vec_pretty(rows).unwrap()),
        ("csv", quoted(rows, ',')),
        ("semicolon.csv", quoted(rows, ';')),
        ("tsv", quoted(rows, '\t')),
        ("parquet", table.into_inner().unwrap()),
        ("feather", file.into_inner().unwrap()),
        ("arrow", stream.into_inner().unwrap()),
    ]
}

/// The bytes in every packing, each with what it adds to the name.
fn packings(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip.write_all(bytes).unwrap();
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    xz.write_all(bytes).unwrap();
    vec![
        ("", bytes.to_vec()),
        (".gz", gzip.finish().unwrap()),
        (".zst", zstd::encode_all(bytes, 1).unwrap()),
        (".bz2", bzip.finish().unwrap()),
        (".xz", xz.finish().unwrap()),
    ]
}

fn read(source: SourceFile) -> Result<Vec<Row>, String> {
    let rows: Result<Vec<_>, _> =
        RowReader::new(&[source]).map(|row| row.map(|(row, _)| row)).collect();
    rows.map_err(|error| error.to_string())
}

#[test]
fn every_form_is_the_same_in_every_container_and_packing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut tried, mut kinds) = (0, BTreeSet::new());
    for format in Format::ALL {
        let rows = rows(format);
        let expected: Vec<Row> =
            rows.iter().map(|row| format.parse_row(&row.to_string()).unwrap()).collect();
        for (container, bytes) in containers(&rows) {
            for (packing, packed) in packings(&bytes) {
                let name = format!("{format}.{container}{packing}");
                let path = folder.path().join(&name);
                std::fs::write(&path, &packed).unwrap();
                let file = SourceFile::new(&path, format);
                // So it is found in a folder, too.
                assert!(file.ends_as_rows_do(), "{name}");
                let found = read(file);
                let mut stream = &packed[..];
                let streamed =
                    SourceFile::of_stream("standard input", format, &mut stream).unwrap();
                let streamed = read(streamed);
                if container == "parquet" && !packing.is_empty() {
                    // It packs its columns itself, and is read from its end.
                    let says = |found: &Result<Vec<Row>, String>| {
                        found.as_ref().is_err_and(|error| error.contains("unpack it first"))
                    };
                    assert!(says(&found) && says(&streamed), "{name}: {found:?} {streamed:?}");
                } else {
                    assert_eq!(found.as_ref(), Ok(&expected), "{name}");
                    if format == Format::Text && (container.ends_with("csv") || container == "tsv")
                    {
                        // Of one column, without a name that says so, it may be any text.
                        let error = streamed.unwrap_err();
                        assert!(error.contains("and this name ends in none of these"), "{error}");
                        tried += 1;
                        kinds.insert((container, packing));
                        continue;
                    }
                    assert_eq!(streamed.as_ref(), Ok(&expected), "{name} from a stream");
                }
                tried += 1;
                kinds.insert((container, packing));
            }
        }
    }
    assert_eq!((tried, kinds.len()), (Format::ALL.len() * 45, 45));
}
