//! `graft data`: the preview, and every way in which rows can be wrong.

use crate::room::{ROW, Room};

const FLAGS: &str = "--format messages --model builtin:quickstart --preamble none";

fn refused(content: impl AsRef<[u8]>, flags: &str) -> String {
    let room = Room::new();
    room.write("a.jsonl", content);
    room.refused(&format!("data --file a.jsonl {FLAGS} {flags}"))
}

#[test]
fn samples_are_shown_plain_in_a_pipe_and_coloured_if_asked() {
    let room = Room::new();
    room.write("a.jsonl", format!("{ROW}\n{ROW}\n"));
    let line = format!("data --file a.jsonl {FLAGS} --show 1");
    let plain = room.done(&line);
    assert!(!plain.contains('\u{1b}'));
    assert!(plain.contains("⟦12 euros.<|eot_id|>⟧"), "{plain}");
    assert!(plain.contains("── sample 1, a.jsonl:1, ") && !plain.contains("sample 2"), "{plain}");
    let coloured = room.done(&format!("{line} --color always"));
    assert!(coloured.contains("\u{1b}[32m12 euros."), "{coloured}");
    let json: serde_json::Value =
        serde_json::from_str(&room.done(&format!("{line} --json"))).unwrap();
    assert_eq!(json["statistics"]["rows"], 2);
    assert_eq!(json["samples"][0]["line"], 1);
}

#[test]
fn a_recipe_shows_what_it_trains_on() {
    let room = Room::new();
    let shown = room.done("data quickstart --show 2");
    assert!(
        shown.contains("builtin:quickstart/train: rows ") && shown.contains("sample 2"),
        "{shown}"
    );
    // An output folder in use does not keep anyone from looking at data.
    room.recipe("");
    room.write("run/recipe.yaml", "name: other\n");
    room.done("data r.yaml");
}

#[test]
fn wrong_rows_are_named_with_file_and_line() {
    let mut latin = format!("{ROW}\n").into_bytes();
    latin.extend_from_slice(b"{\"messages\": \"\xe9\"}\n");
    insta::assert_snapshot!(refused(latin, ""), @"error: a.jsonl:2: not UTF-8: invalid byte at offset 113 of the file; convert the file to UTF-8");
    insta::assert_snapshot!(refused(format!("{ROW}\n\n{{\"messages\"\n"), ""), @"error: a.jsonl:3: malformed JSON at column 11: EOF while parsing an object");
    insta::assert_snapshot!(refused("", ""), @"error: a.jsonl holds no rows");
    insta::assert_snapshot!(refused(r#"{"messages": [{"role": "user", "content": "a"}]}"#, ""), @"error: a.jsonl:1: the conversation has no assistant turn, so there is nothing to learn from it");
    insta::assert_snapshot!(refused(ROW, "--max-seq-len 12"), @r"
    error: a.jsonl:1: the row has 26 tokens, but max_seq_len is 12; 1 of 1 rows are too long, the longest has 26 (a.jsonl:1)
           tokens      rows
             1–64         1 ██████████████████████████████
    raise `max_seq_len`, or choose what happens to them: `overlong: drop`, `truncate_left`, `truncate_right` or `split`
    ");
    insta::assert_snapshot!(refused(ROW, "--max-seq-len 6 --overlong truncate_right"), @"error: a.jsonl:1: no target token is left in this row (6 tokens, after cutting it to `max_seq_len`): nothing would be learnt from it; fix the row, raise `max_seq_len`, or allow such rows to be dropped");
    insta::assert_snapshot!(refused(ROW, "--max-seq-len 6 --overlong drop"), @"error: the dataset is empty: all 1 rows are longer than max_seq_len 6 and were dropped; raise it");
}

#[test]
fn files_and_flags_that_do_not_fit_are_refused() {
    let room = Room::new();
    let none = room.refused(&format!("data --file none.jsonl {FLAGS}"));
    insta::assert_snapshot!(none, @"error: cannot read none.jsonl: No such file or directory (os error 2)");
    assert_eq!(room.graft("data --file a.jsonl --model builtin:quickstart").code, 2);
    assert_eq!(room.graft("data quickstart --format messages").code, 2);
    let builtin = room.refused(&format!("data --file builtin:nothing {FLAGS}"));
    assert!(builtin.contains("builtin:quickstart/held-out"), "{builtin}");
}
