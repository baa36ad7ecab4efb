//! What a survey of files finds and leaves out.
#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]

use super::*;
use crate::formats::{Format, SourceFile, read_rows};

/// Files of texts, one a row.
struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, texts: &[&str]) -> SourceFile {
        let path = self.0.path().join(name);
        let row = |text: &&str| format!("{}\n", serde_json::json!({"text": text}));
        std::fs::write(&path, texts.iter().map(row).collect::<String>()).unwrap();
        SourceFile::new(path, Format::Text)
    }

    fn shown(&self, report: &Report) -> String {
        let prefix = format!("{}/", self.0.path().display());
        let lines = report.findings.iter().map(|finding| {
            let remarks = finding.remarks.iter().map(|remark| format!("  {remark}\n"));
            format!("{finding}\n{}", remarks.collect::<String>())
        });
        lines.collect::<String>().replace(&prefix, "")
    }
}

fn look(measured: &[SourceFile], train: &[SourceFile], hygiene: &Hygiene) -> Survey {
    let section = |key, sources| Section { key, sources, leaves_out_empty: false, tokenizer: None };
    let measured = [section("data.validation", measured)];
    survey(&measured, section("data.train", train), hygiene).unwrap()
}

/// The texts that are left of files.
fn left(sources: &[SourceFile], cleanings: &[Option<std::sync::Arc<Cleaning>>]) -> Vec<String> {
    let cleaned = sources.iter().zip(cleanings);
    let cleaned: Vec<SourceFile> =
        cleaned.map(|(source, cleaning)| source.clone().cleaned(cleaning.clone())).collect();
    let rows = read_rows(&cleaned).unwrap().rows;
    let text = |row| match row {
        crate::Row::Text(text) => text,
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(|(row, _)| text(row)).collect()
}

const FEE: &str = "A permit for a stall on the market costs twelve crowns a week and is paid in advance at the \
                   office of the clerk on the second floor of the town hall";
/// One word of it is another.
const FEE_AGAIN: &str = "A permit for a stall on the market costs twelve crowns a week and is paid in advance \
                         at the desk of the clerk on the second floor of the town hall";
const ROOM: &str = "The archive is open on weekdays from nine to twelve";

fn all(action: Action) -> Hygiene {
    Hygiene {
        duplicates: Some(action),
        near_duplicates: Some(Near { action, threshold: 0.7 }),
        contamination: Some(Contamination { action, words: 8 }),
        leaks: action,
        personal: std::sync::Arc::default(),
    }
}

#[test]
fn rows_are_found_in_other_files_and_told_with_both_places() {
    let room = Room::new();
    let long = format!("Someone quotes: {ROOM}, and goes on about other things for a while.");
    let train = [
        room.file("a.jsonl", &[FEE, "Other words entirely.", FEE]),
        room.file("b.jsonl", &[&FEE_AGAIN.to_uppercase(), &long, "Who signs?"]),
    ];
    let measured = [room.file("v.jsonl", &[ROOM, "Who signs?"])];
    let found = look(&measured, &train, &all(Action::Report));
    insta::assert_snapshot!(room.shown(&found.report), @r"
    1 row equal to an earlier one (the first: a.jsonl:3 and a.jsonl:1)
    1 row nearly equal to an earlier one (the first: b.jsonl:1 and a.jsonl:1, 82 % alike)
    1 row measured, too (the first: b.jsonl:3 and v.jsonl:2)
    1 row with a stretch of words of a measured one (the first: b.jsonl:2 and v.jsonl:1)
      measured rows with fewer than 8 words, not looked for: 1
    ");
    assert!(found.cleanings.iter().flatten().all(Option::is_none));
    // Both stay, so both stay together.
    let lines: Vec<_> = found.alike.iter().map(|(a, b)| (a.file, a.line, b.file, b.line)).collect();
    assert_eq!(lines, [(0, 1, 1, 1)]);
    let found = look(&measured, &train, &all(Action::Drop));
    assert_eq!(left(&train, &found.cleanings[1]), [FEE, "Other words entirely."]);
    assert!(found.alike.is_empty());
    let found = look(&measured, &train, &all(Action::Error));
    assert_eq!(found.report.errors().count(), 4);
}

#[test]
fn each_kind_is_left_out_by_its_own_key() {
    let room = Room::new();
    let train = [room.file("a.jsonl", &[FEE, FEE, FEE_AGAIN, ROOM])];
    let measured = [room.file("v.jsonl", &[ROOM])];
    let left_by = |hygiene: Hygiene| {
        let found = look(&measured, &train, &hygiene);
        left(&train, &found.cleanings[1]).len()
    };
    let none = Hygiene::default();
    let near = Some(Near { action: Action::Drop, threshold: 0.7 });
    assert_eq!(left_by(none.clone()), 4);
    assert_eq!(left_by(Hygiene { duplicates: Some(Action::Drop), ..none.clone() }), 3);
    assert_eq!(left_by(Hygiene { leaks: Action::Drop, ..none.clone() }), 3);
    let contamination = Some(Contamination { action: Action::Drop, words: 5 });
    assert_eq!(left_by(Hygiene { contamination, ..none.clone() }), 3);
    // A copy is nearly equal, too, unless copies have a word of their own.
    assert_eq!(left_by(Hygiene { near_duplicates: near, ..none.clone() }), 2);
    let report = Some(Action::Report);
    assert_eq!(left_by(Hygiene { near_duplicates: near, duplicates: report, ..none }), 3);
}

#[test]
fn a_row_goes_only_for_one_that_stays() {
    // Each is like the next, and the first is not like the third.
    let words: Vec<String> = (0..40).map(|word| format!("w{word}")).collect();
    let chain: Vec<String> = [0, 4, 8].map(|from| words[from..from + 30].join(" ")).into();
    let room = Room::new();
    let train = [room.file("a.jsonl", &[&chain[0], &chain[1], &chain[2]])];
    let hygiene = Hygiene {
        near_duplicates: Some(Near { action: Action::Drop, threshold: 0.7 }),
        ..Hygiene::default()
    };
    let found = look(&[], &train, &hygiene);
    assert_eq!(left(&train, &found.cleanings[1]), [chain[0].clone(), chain[2].clone()]);
}

#[test]
fn what_was_not_looked_at_closely_is_said() {
    let room = Room::new();
    // Rows that are all alike, and measured ones that share the words of their form.
    let alike: Vec<String> = (0..80).map(|row| format!("{FEE} {FEE} number {row}")).collect();
    let alike: Vec<&str> = alike.iter().map(String::as_str).collect();
    let form = "please answer the following question about the rules of the town";
    let asked: Vec<String> = (0..11).map(|row| format!("{form} q{row}")).collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let train = [room.file("a.jsonl", &alike), room.file("b.jsonl", &[form])];
    let measured = [room.file("v.jsonl", &asked)];
    let found = look(&measured, &train, &all(Action::Report));
    let remarks: Vec<&str> =
        found.report.findings.iter().flat_map(|it| &it.remarks).map(String::as_str).collect();
    insta::assert_snapshot!(remarks.join("\n"), @r"
    13 rows have much in common with very many others, and were compared with the first of those only
    stretches in more than ten measured rows, taken for words of their form: 4
    ");
}

#[test]
fn a_file_that_changes_after_the_survey_is_named() {
    let room = Room::new();
    let train = [room.file("a.jsonl", &["one", "one", "two"])];
    let found = look(&[], &train, &all(Action::Drop));
    room.file("a.jsonl", &["one", "two", "two"]);
    let cleaned = train[0].clone().cleaned(found.cleanings[1][0].clone());
    let error = read_rows(&[cleaned]).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "a.jsonl: the file changed while it was read; leave it alone and start again"
        )
    );
}

#[test]
fn files_without_rows_left_and_empty_answers_keep_the_count() {
    let room = Room::new();
    let train = [room.file("a.jsonl", &["x"]), room.file("b.jsonl", &["x", "y"])];
    let found = look(&[], &train, &all(Action::Drop));
    assert_eq!(left(&train, &found.cleanings[1]), ["x", "y"]);
    assert_eq!(
        found.report.rows,
        [("data.validation".to_owned(), 0), ("data.train".to_owned(), 3)]
    );
}
