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
    // Labels are counted as training counts them.
    let sample = &json["samples"][0];
    let labels = sample["labels"].as_array().unwrap();
    let targets = labels.iter().filter(|label| **label != -100).count();
    assert_eq!(2 * targets, json["statistics"]["targets"].as_u64().unwrap() as usize);
    for (label, token) in labels.iter().zip(sample["tokens"].as_array().unwrap()) {
        assert!(*label == -100 || label == token, "{label} at {token}");
    }
}

#[test]
fn every_label_counts_once_where_a_row_is_cut_into_parts() {
    let room = Room::new();
    room.write("a.jsonl", format!("{{\"text\": \"{}\"}}\n", "word ".repeat(40)));
    let line = "data --file a.jsonl --format text --model builtin:quickstart --max-seq-len 16 --overlong split --show 9 --json";
    let json: serde_json::Value = serde_json::from_str(&room.done(line)).unwrap();
    let samples = json["samples"].as_array().unwrap();
    let counted = |sample: &serde_json::Value| {
        sample["labels"].as_array().unwrap().iter().filter(|label| **label != -100).count()
    };
    let all: usize = samples.iter().map(counted).sum();
    assert_eq!(all as u64, json["statistics"]["targets"].as_u64().unwrap());
    assert!(samples.len() > 2 && samples.iter().all(|sample| sample["labels"][0] == -100));
}

#[test]
fn a_long_sample_is_cut_for_the_eye() {
    let room = Room::new();
    room.write("a.jsonl", format!("{{\"text\": \"{}\"}}\n", "word ".repeat(20_000)));
    let line = "data --file a.jsonl --format text --model builtin:quickstart --max-seq-len 100000";
    let shown = room.done(line);
    assert!(shown.contains(" are left out here …\n") && shown.len() < 5_000, "{shown}");
}

#[test]
fn a_folder_with_a_tokenizer_alone_is_enough() {
    let room = Room::new();
    room.write("a.jsonl", ROW);
    room.model("m", |config| config);
    let line = "data --file a.jsonl --format messages --model m";
    let whole = room.done(line);
    std::fs::remove_file(room.path("m/config.json")).unwrap();
    assert_eq!(room.done(line), whole);
    std::fs::remove_file(room.path("m/tokenizer.json")).unwrap();
    assert!(room.refused(line).contains("tokenizer.json"));
}

#[test]
fn what_a_row_says_beside_its_turns_is_used_shown_or_refused() {
    let room = Room::new();
    room.write(
        "a.jsonl",
        ROW.replacen('{', "{\"system\": \"Answer like a pirate.\", \"id\": 1, \"_mine\": 2, ", 1),
    );
    let shown = room.done(&format!("data --file a.jsonl {FLAGS}"));
    assert!(shown.contains("Answer like a pirate.<|eot_id|>"), "{shown}");
    assert!(shown.contains("  not learnt from, as notes about the rows: _mine, id\n"), "{shown}");
    insta::assert_snapshot!(refused(ROW.replacen('{', "{\"quux\": 1, ", 1), ""), @r#"error: a.jsonl:1: `quux` is not supported: `format: messages` is made of `messages`, `system`, `tools`, `builtin_tools` and `tools_in_user_message`, and this is no known note about a row; leave it out by `ignore_columns: [quux]`, or begin its name with `_`, if nothing is to be learnt from it"#);
    insta::assert_snapshot!(refused(ROW.replace("\"content\": \"12", "\"content\": \"1\", \"content\": \"12"), ""), @"error: a.jsonl:1: `messages[1].content` stands twice; keep one of the two");
}

#[test]
#[cfg(unix)]
fn files_that_hold_no_rows_are_called_by_their_name_at_once() {
    let room = Room::new();
    let pipe = room.path("pipe.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("../blobs/1f2e", room.path("link.jsonl")).unwrap();
    for (file, what) in [
        ("pipe.jsonl", "cannot read pipe.jsonl: it is a pipe, and only plain files are read"),
        (
            "link.jsonl",
            "cannot read link.jsonl: it is a link to `../blobs/1f2e`, which is not there",
        ),
        ("/dev/zero", "cannot read /dev/zero: it is a device"),
        // Of a folder its files are read.
        (".", "cannot read ./link.jsonl: it is a link to `../blobs/1f2e`, which is not there"),
    ] {
        let said = room.refused(&format!("data --file {file} {FLAGS}"));
        assert!(said.contains(what), "{said}");
    }
    // One line that never ends, of bytes that take no disk.
    std::fs::File::create(room.path("sparse.jsonl")).unwrap().set_len(1 << 40).unwrap();
    let said = room.refused(&format!("data --file sparse.jsonl {FLAGS}"));
    assert!(said.contains("sparse.jsonl: it is full of bytes of zero"), "{said}");
    room.recipe("");
    let said = room.refused("validate r.yaml data.train.0.path=pipe.jsonl");
    assert!(said.contains("data.train.0.path: cannot read pipe.jsonl: it is a pipe"), "{said}");
}

#[test]
fn a_recipe_shows_what_it_trains_on() {
    let room = Room::new();
    let shown = room.done("data quickstart --show 2");
    assert!(
        shown.contains("\nbuiltin:quickstart/train  ") && shown.contains("sample 2"),
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
    insta::assert_snapshot!(refused(r#"{"messages": [{"role": "user", "content": "a"}]}"#, ""), @"error: a.jsonl:1: the conversation has no turn of the assistant, so there is nothing to learn from it");
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

/// Two equal rows, one that is nearly like them, and one with personal data.
const DOUBTFUL: &str = "{\"text\": \"A permit for a stall on the market costs twelve crowns a week and is paid in advance at the office of the clerk on the second floor of the town hall.\"}
{\"text\": \"A permit for a stall on the market costs twelve crowns a week and is paid in advance at the office of the clerk on the second floor of the town hall.\"}
{\"text\": \"A permit for a stall on the market costs twelve crowns a week and is paid in advance at the desk of the clerk on the second floor of the town hall.\"}
{\"text\": \"Ask anna@example.org, or pay to DE89370400440532013000 <b>now</b>.\"}
";

#[test]
fn what_is_found_is_told_by_place_and_mask_and_never_by_its_value() {
    let room = Room::new();
    room.write("a.jsonl", DOUBTFUL);
    let line = "data --file a.jsonl --format text --model builtin:quickstart --show 9";
    let shown = room.done(line);
    let found =
        &shown[shown.find("found in the rows").unwrap()..shown.find("── sample 1").unwrap()];
    insta::assert_snapshot!(found, @r"
    found in the rows:
      equal to an earlier one         1 row  report  a.jsonl:2 and a.jsonl:1
      nearly equal to an earlier one  1 row  report  a.jsonl:3 and a.jsonl:1, 82 % alike
      mail addresses                  1 row  report  a.jsonl:4, <MAIL_59844269>
      IBANs                           1 row  report  a.jsonl:4, <IBAN_78a1216d>
    found none: keys and tokens; passwords in URLs; numbers of payment cards; IP addresses; telephone numbers
    ");
    assert!(shown.contains("Ask <MAIL_") && shown.contains("pay to <IBAN_"), "{shown}");
    let json = room.done(&format!("{line} --json"));
    // Nor by ids that say what a mask stands for.
    let ids = |json: &str| {
        let shown: serde_json::Value = serde_json::from_str(json).unwrap();
        let samples = shown["samples"].as_array().unwrap().clone();
        samples
            .iter()
            .map(|it| [it["tokens"].is_null(), it["labels"].is_null()])
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&json), [[false; 2], [false; 2], [false; 2], [true; 2]]);
    assert_eq!(ids(&room.done(&format!("{line} --as-it-is --json"))), [[false; 2]; 4]);
    room.done(&format!("{line} --html page.html"));
    let page = std::fs::read_to_string(room.path("page.html")).unwrap();
    for text in [&shown, &json, &page] {
        assert!(!text.contains("anna@example") && !text.contains("DE8937"), "{text}");
    }
    assert!(page.contains("a.jsonl:3") && page.contains("<mark>desk </mark>"), "{page}");
    assert!(page.contains("&lt;b&gt;now&lt;/b&gt;") && !page.contains("<b>now"), "{page}");
    let exact = room.done(&format!("{line} --as-it-is"));
    assert!(exact.contains("anna@example.org") && !exact.contains("found"), "{exact}");
}

#[test]
#[cfg(unix)]
fn a_page_is_as_private_as_the_rows_and_replaces_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let room = Room::new();
    room.write("a.jsonl", DOUBTFUL);
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(room.path("a.jsonl"), private).unwrap();
    let line = "data --file a.jsonl --format text --model builtin:quickstart --html page.html";
    room.done(line);
    let mode = std::fs::metadata(room.path("page.html")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(room.path("page.html")).unwrap();
    let said = room.refused(line);
    assert!(said.contains("page.html"), "{said}");
    assert_eq!(std::fs::read(room.path("page.html")).unwrap(), before);
}

#[test]
fn the_help_has_a_row_of_each_form_to_copy() {
    let help = Room::new().done("data --help");
    for format in graft_data::Format::ALL {
        assert!(help.contains(format.example()), "{format}: {help}");
    }
}
