//! A chunk as a row of a corpus: its text, and beside it, as a note that is not learnt, where it came from.

use serde_json::{Map, Value, json};

use crate::chunk::Chunk;
use crate::document::Document;

/// `{"text": …, "_source": {…}}`, as `format: text` reads it.
pub fn row(document: &Document, chunk: &Chunk) -> Value {
    let mut source = Map::new();
    let mut say = |key: &str, value: Value| source.insert(key.to_owned(), value);
    say("path", document.path.to_string_lossy().into());
    say("sha256", document.sha256.as_str().into());
    say("kind", document.kind.name().into());
    match chunk.pages {
        Some((first, last)) if first == last => _ = say("page", first.into()),
        Some((first, last)) => _ = say("pages", json!([first, last])),
        None => {}
    }
    if !chunk.headings.is_empty() {
        say("heading", json!(chunk.headings));
    }
    if let Some(member) = &chunk.member {
        say("member", (&**member).into());
    }
    if let Some(span) = chunk.span {
        say("span", json!({span.unit.name(): [span.start, span.end]}));
    }
    json!({"text": chunk.text, "_source": source})
}
