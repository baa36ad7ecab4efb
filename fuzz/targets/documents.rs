//! Documents of every kind, known by their content; the length says whether text is Markdown.
#![no_main]

#[path = "../caught.rs"]
mod caught;

use std::path::Path;

use graft_documents::{Limits, read_bytes, words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: caught::let_them(), |bytes: &[u8]| {
    let name = if bytes.len().is_multiple_of(2) { "a" } else { "a.md" };
    match read_bytes(Path::new(name), bytes.to_vec(), &Limits::default()) {
        Ok(document) => {
            for chunk in document.chunks(&words, 50, 10) {
                assert!(chunk.length <= 50 && !chunk.text.is_empty(), "{chunk:?}");
            }
        }
        Err(error) => assert!(error.to_string().len() < 2_500, "{error}"),
    }
});
