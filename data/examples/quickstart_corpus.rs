//! Writes the quickstart's texts: corpus, task, general validation text, and the tokenizer trained on the corpus.
//!
//! ```text
//! cargo run --release -p graft-data --example quickstart_corpus -- --out DIR
//! ```
//!
//! `DIR` then holds `corpus-text.jsonl` (format `text`), `corpus-messages.jsonl` (format `messages`), `train.jsonl`,
//! `held-out.jsonl`, `general.jsonl` and `tokenizer.json`; the last four are the committed ones.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use graft_data::quickstart::{
    CORPUS_DOCUMENTS, CORPUS_SEED, Document, GENERAL_DOCUMENTS, GENERAL_SEED, TASK_SEED, corpus,
    general, jsonl, task, train_tokenizer,
};
use tokenizers::Tokenizer;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let out = match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("--out"), Some(folder), None) => PathBuf::from(folder),
        _ => return Err("usage: quickstart_corpus --out DIR".into()),
    };
    fs::create_dir_all(&out)?;

    let documents: Vec<Document> = corpus(CORPUS_SEED, CORPUS_DOCUMENTS).collect();
    let texts: Vec<&str> = documents.iter().flat_map(Document::texts).collect();
    let tokenizer = train_tokenizer(texts.iter())?;
    replace(&out.join("tokenizer.json"), &(tokenizer.to_string(true)? + "\n"))?;

    let (text, messages) =
        documents.into_iter().partition(|document| matches!(document, Document::Text(_)));
    let task = task(TASK_SEED);
    let files: [(&str, Vec<Document>); 5] = [
        ("corpus-text.jsonl", text),
        ("corpus-messages.jsonl", messages),
        ("train.jsonl", task.train),
        ("held-out.jsonl", task.held_out),
        ("general.jsonl", general(GENERAL_SEED, GENERAL_DOCUMENTS).collect()),
    ];
    for (name, rows) in files {
        let tokens = rows.iter().map(|row| length(&tokenizer, row)).sum::<Result<usize, _>>()?;
        let longest = rows
            .iter()
            .map(|row| length(&tokenizer, row))
            .try_fold(0, |most, tokens| tokens.map(|tokens| most.max(tokens)))?;
        writeln!(
            std::io::stdout(),
            "{name}: {} rows, {tokens} tokens, longest {longest}",
            rows.len()
        )?;
        replace(&out.join(name), &jsonl(rows))?;
    }
    Ok(())
}

/// Tokens of a row as Graft trains on it: a begin token, then text and end, or per turn a header (two marks around the role
/// and a blank line), the content and an end.
fn length(tokenizer: &Tokenizer, row: &Document) -> tokenizers::Result<usize> {
    let count = |text: &str| tokenizer.encode_fast(text, false).map(|encoding| encoding.len());
    match row {
        Document::Text(text) => Ok(2 + count(text)?),
        Document::Messages(turns) => turns.iter().try_fold(1, |tokens, turn| {
            Ok(tokens + 4 + count(turn.role.name())? + count(&turn.content)?)
        }),
    }
}

/// Replaces the whole file: a reader sees the old bytes or the new ones.
fn replace(path: &Path, content: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}
