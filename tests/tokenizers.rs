//! The tokenizer against tiktoken and tokenizers on adversarial texts, read from tokenizer.json and from
//! Meta's tokenizer.model: every script, emoji, invisible and control characters, long runs, text that
//! spells special tokens. `fixtures/tokenizer/generate.py` says what the cases are.
//!
//! Halves of characters, `"\ud800"` in JSON, are refused with their row: Python's json takes them, but
//! its tokenizers refuses the text then, too, and any replacement would train on another text.
#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read fails the test")]

use std::path::{Path, PathBuf};

use graft_data::{Format, Row, Tokenizer};
use graft_tests::parity::{Deviations, cases, is_live};
use serde_json::Value;

/// What makes the cases, and what Python leaves beside it.
const SCRIPTS: [&str; 3] = ["generate.py", "small_vocabulary.py", "__pycache__"];
const FILES: [&str; 4] = ["surrogates.jsonl", "texts.jsonl", "tokenizer.json", "tokenizer.model"];

/// The small vocabulary, and Meta's where the cases were drawn with it.
fn vocabularies() -> Vec<(&'static str, PathBuf)> {
    let folder = cases("tokenizer");
    let real = folder.join("real");
    let mut vocabularies = vec![("small vocabulary", folder)];
    if is_live() && real.exists() {
        vocabularies.push(("Llama 3's vocabulary", real));
    }
    vocabularies
}

fn lines(folder: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// By the file it was read from.
fn tokenizers(folder: &Path) -> [(&'static str, Tokenizer); 2] {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let json = Tokenizer::from_bytes(&read("tokenizer.json"), "tokenizer.json").unwrap();
    let model = Tokenizer::from_tiktoken(&read("tokenizer.model"), "tokenizer.model").unwrap();
    [("tokenizer.json", json), ("tokenizer.model", model)]
}

#[test]
fn the_folder_holds_exactly_the_cases() {
    for (_, folder) in vocabularies() {
        let mut found: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !SCRIPTS.contains(&name.as_str()))
            .filter(|name| !(is_live() && name == "real"))
            .collect();
        found.sort();
        assert_eq!(found, FILES, "{}", folder.display());
        assert!(lines(&folder, "texts.jsonl").len() > 1_000);
        assert!(lines(&folder, "surrogates.jsonl").len() > 40);
    }
}

#[test]
fn ids_are_those_of_tiktoken_and_tokenizers() {
    let (mut off, mut compared) = (Deviations::of("tokenizer"), 0);
    for (vocabulary, folder) in vocabularies() {
        let rows = lines(&folder, "texts.jsonl");
        let texts: Vec<&str> = rows.iter().map(|row| row["text"].as_str().unwrap()).collect();
        for (file, tokenizer) in tokenizers(&folder) {
            let found = tokenizer.encode_batch(&texts).unwrap();
            let comparison = format!("{vocabulary}, {file}");
            for ((row, text), found) in rows.iter().zip(&texts).zip(found) {
                off.exact(&comparison, &format!("{text:?}"), found == ids(&row["ids"]));
                assert_eq!(tokenizer.decode(&found, false).unwrap(), *text);
                assert!(found.iter().all(|&id| !tokenizer.is_special(id)), "{text:?}");
            }
            compared += rows.len();
        }
    }
    off.finish(compared);
}

#[test]
fn halves_of_characters_are_refused_where_tokenizers_refuses_them() {
    let (mut off, mut compared) = (Deviations::of("tokenizer"), 0);
    for (vocabulary, folder) in vocabularies() {
        let [(_, tokenizer), _] = tokenizers(&folder);
        let rows = lines(&folder, "surrogates.jsonl");
        for row in &rows {
            let written = row["json"].as_str().unwrap();
            let line = format!(r#"{{"prompt": "{written}", "completion": "x"}}"#);
            let same = match Format::Completion.parse_row(&line) {
                Ok(Row::Completion { prompt, .. }) => {
                    !row["ids"].is_null() && tokenizer.encode(&prompt).unwrap() == ids(&row["ids"])
                }
                Ok(other) => panic!("{other:?}"),
                Err(problem) => {
                    let problem = problem.to_string();
                    assert!(
                        problem.contains("column") && problem.contains("half of a surrogate pair"),
                        "{problem}"
                    );
                    row["ids"].is_null()
                }
            };
            off.exact(&format!("{vocabulary}, escapes of JSON"), written, same);
        }
        compared += rows.len();
    }
    off.finish(compared);
}

#[test]
fn both_files_of_a_vocabulary_are_one_tokenizer() {
    for (_, folder) in vocabularies() {
        let [(_, json), (_, model)] = tokenizers(&folder);
        assert_eq!(json.vocab_size(), model.vocab_size());
        let spelled = |tokenizer: &Tokenizer| -> Vec<_> {
            let ids = 0..tokenizer.vocab_size() as u32;
            ids.map(|id| (tokenizer.token(id), tokenizer.is_special(id))).collect()
        };
        assert_eq!(spelled(&json), spelled(&model));
        assert_eq!(json.stop_ids(), model.stop_ids());
    }
}
