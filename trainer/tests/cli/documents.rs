//! `graft documents`: what it shows, what it writes, and what it refuses.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::Value;

use crate::room::Room;

/// A folder of documents, one of them in a folder of its own.
fn folder() -> Room {
    let room = Room::new();
    room.write("docs/fees.md", "# Fees\n\nA permit costs five euros.\n\n## Late\n\nSeven, then.\n");
    let page = "<!DOCTYPE html><nav>Menu</nav><main><h1>Hours</h1><p>Nine to twelve.</main>";
    room.write("docs/web/hours.html", page);
    room.write("docs/.hidden", "x");
    room.write("docs/copy.md", "# Fees\n\nA permit costs five euros.\n\n## Late\n\nSeven, then.\n");
    room
}

#[test]
fn what_came_out_of_each_file_is_shown_and_totals() {
    let room = folder();
    insta::assert_snapshot!(room.done("documents docs docs/fees.md --out corpus.jsonl --max-tokens 8"), @"
    file                 kind      pages  words  rows
    docs/copy.md         markdown            11     2
    docs/fees.md         markdown            11     2  the same content as docs/copy.md
    docs/web/hours.html  html                 5     1  left out: 1 piece of navigation

    files         3
    words         27
    rows          5
    left out      1 piece of navigation
    hidden        1: left out
    named twice   1: read once
    same content  1: their rows are there twice
    written       corpus.jsonl
    ");
    let rows = std::fs::read_to_string(room.path("corpus.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), 5);
    insta::assert_snapshot!(rows[1], @r###"{"text":"## Late\n\nSeven, then.","_source":{"path":"docs/copy.md","sha256":"1cb7c56ecf2fac066174ddd82e8fd34684a7451b6f24d70f7681b33e8297371e","kind":"markdown","heading":["Fees","Late"],"span":{"bytes":[36,57]}}}"###);
    let json: Value = serde_json::from_str(&room.done("documents docs --json")).unwrap();
    assert_eq!(json["files"][2]["left_out"]["navigation"], 1);
    assert_eq!(json["files"][1]["same_content_as"], "docs/copy.md");
    assert_eq!((&json["hidden"], &json["out"]), (&1.into(), &Value::Null));
}

#[test]
fn a_corpus_is_rows_of_text_whose_tokens_are_counted_as_training_counts_them() {
    let room = folder();
    let model = "--model builtin:quickstart";
    room.done(&format!("documents docs --out corpus.jsonl --max-tokens 12 --overlap 2 {model}"));
    let line = format!("data --file corpus.jsonl --format text {model} --max-seq-len 13 --json");
    let data: Value = serde_json::from_str(&room.done(&line)).unwrap();
    // With the token that begins a text, none is longer: nothing is cut.
    let rows = std::fs::read_to_string(room.path("corpus.jsonl")).unwrap().lines().count();
    assert_eq!(data["statistics"]["rows"], rows);
    assert_eq!(data["statistics"]["samples"], rows, "{}", data["statistics"]);
    let again = std::fs::read(room.path("corpus.jsonl")).unwrap();
    room.done(&format!("documents docs --out again.jsonl --max-tokens 12 --overlap 2 {model}"));
    assert_eq!(std::fs::read(room.path("again.jsonl")).unwrap(), again);
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_all_of_it_unless_allowed() {
    let room = folder();
    room.write("docs/old.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1");
    room.write("docs/rows.jsonl", "{\"text\": \"a\"}\n");
    room.write("docs/empty.txt", "");
    symlink("nowhere", room.path("docs/link")).unwrap();
    symlink("..", room.path("docs/web/up")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(room.path("docs/pipe")).status().unwrap();
    assert!(made.success());
    insta::assert_snapshot!(room.refused("documents -q docs --out corpus.jsonl"), @"
    error: 6 things could not be read in 9 files, and nothing was written:
      `docs/empty.txt`: it is empty
      `docs/link`: No such file or directory (os error 2)
      `docs/old.doc`: it is a file of an old Office (DOC, XLS, PPT, MSG), or one with a password: save it in the new form (DOCX, XLSX), a message as EML, without a password
      `docs/pipe`: it is a pipe, and only plain files are read
      `docs/rows.jsonl`: it is JSON: rows of it are read with `format: text` or another form of rows, and no document
      `docs/web/up`: it is a link to a folder, which is not followed: name that folder itself, or allow it to be left out
    Mend these, take them away, or leave them out, counted: --allow unreadable
    ");
    let allowed = room.done("documents docs --out corpus.jsonl --allow unreadable");
    assert!(allowed.contains("unreadable    6: left out, as allowed"), "{allowed}");
    assert_eq!(std::fs::read_to_string(room.path("corpus.jsonl")).unwrap().lines().count(), 3);
}

#[test]
fn pages_without_text_are_an_error_of_their_own() {
    let room = Room::new();
    let pdf = concat!(env!("CARGO_MANIFEST_DIR"), "/../documents/tests/kinds/permits.pdf");
    std::fs::copy(pdf, room.path("permits.pdf")).unwrap();
    insta::assert_snapshot!(room.refused("documents -q permits.pdf --allow unreadable"), @"
    error: something could not be read in 1 file:
      `permits.pdf`: page 3 has no text
    Mend these, take them away, or leave them out, counted: --allow pages-without-text
    ");
    insta::assert_snapshot!(room.done("documents permits.pdf --allow pages-without-text"), @"
    file         kind  pages  words  rows
    permits.pdf  pdf       4     74     1  page 3 has no text; left out: 3 running heads and feet, 3 page numbers, 1 hyphen rejoined

    files         1
    words         74
    rows          1
    left out      3 running heads and feet, 3 page numbers, 1 hyphen rejoined
    without text  1: pages, as allowed
    ");
}

#[test]
fn places_and_numbers_that_are_none_are_refused() {
    let room = folder();
    room.write("taken.jsonl", "x");
    let refused = |flags: &str| room.refused(&format!("documents {flags}"));
    insta::assert_snapshot!(refused("docs --out taken.jsonl"), @"error: `taken.jsonl` exists and is not replaced: choose another name, or remove this one");
    insta::assert_snapshot!(refused("docs --out none/a.jsonl"), @"error: there is no folder `none` to write `none/a.jsonl` into: make it, or choose another");
    insta::assert_snapshot!(refused("docs --max-tokens 10 --overlap 6"), @"error: --overlap is 6, and a text has at most 10 (--max-tokens): allowed is at most half of that, so that each brings something new");
    insta::assert_snapshot!(refused("docs --model none"), @"error: there is no model folder `none`. Graft downloads nothing: fetch the model yourself, for example with `hf download OWNER/none --local-dir none`, and copy it there, or use `builtin:quickstart`");
    room.write("bare/.hidden", "x");
    insta::assert_snapshot!(refused("bare"), @"error: there is no file in `bare`, but for 1 whose names begin with a dot");
    assert_eq!(std::fs::read_to_string(room.path("taken.jsonl")).unwrap(), "x");
}

#[test]
fn a_corpus_is_as_private_as_the_most_private_document() {
    let room = folder();
    let mode = |name: &str| room.path(name).metadata().unwrap().permissions().mode() & 0o077;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(room.path("docs/fees.md"), private).unwrap();
    room.done("documents docs --out corpus.jsonl");
    assert_eq!(mode("corpus.jsonl"), 0);
}
