//! What is found in rows of which it is known: precision and recall on drawn sets.
#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]

mod labelled;

use std::collections::BTreeSet;

use graft_data::hygiene::personal::{MaskKey, Personal};
use graft_data::hygiene::{Action, Hygiene, Near, Section, survey};
use graft_data::{Format, SourceFile, read_rows};
use labelled::{Draw, KINDS, family, labelled};

/// Rows that were found, and those that should have been.
#[derive(Default, Debug)]
struct Score {
    right: usize,
    found: usize,
    known: usize,
}

impl Score {
    fn count(&mut self, found: bool, known: bool) {
        self.found += usize::from(found);
        self.known += usize::from(known);
        self.right += usize::from(found && known);
    }

    fn precision(&self) -> f64 {
        self.right as f64 / self.found as f64
    }

    fn recall(&self) -> f64 {
        self.right as f64 / self.known as f64
    }
}

#[test]
fn nearly_equal_rows_are_found_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let mut draw = Draw::new(7);
    let families: Vec<_> = (0..4_000).map(|_| family(&mut draw)).collect();
    let rows = families.iter().flat_map(|family| &family.texts);
    let rows: Vec<String> =
        rows.map(|text| serde_json::json!({"text": text}).to_string()).collect();
    std::fs::write(&path, rows.join("\n")).unwrap();
    let sources = [SourceFile::new(path, Format::Text)];
    let near_duplicates = Some(Near { action: Action::Drop, threshold: 0.8 });
    let asked = Hygiene { near_duplicates, ..Hygiene::default() };
    let train =
        Section { key: "data.train", sources: &sources, leaves_out_empty: false, tokenizer: None };
    let found = survey(&[], train, &asked).unwrap();
    let cleaned = sources[0].clone().cleaned(found.cleanings[0][0].clone());
    let left: BTreeSet<usize> =
        read_rows(&[cleaned]).unwrap().rows.iter().map(|(_, origin)| origin.line).collect();
    let mut score = Score::default();
    for (at, family) in families.iter().enumerate() {
        let [one, other] = [2 * at + 1, 2 * at + 2].map(|line| !left.contains(&line));
        assert!(!one, "the first of a family stays");
        score.count(other, family.likeness >= 0.8);
    }
    assert!(score.known > 1_000 && score.known < 3_500, "{score:?}");
    assert!(score.recall() >= 0.97 && score.precision() >= 0.99, "{score:?}");
}

#[test]
fn personal_data_is_found_and_what_looks_like_it_is_not() {
    let personal = Personal::that_reports(MaskKey::of_seed(7));
    let mut draw = Draw::new(8);
    for kind in KINDS {
        let mask = format!("<{}_", kind.to_uppercase());
        let mut score = Score::default();
        for _ in 0..2_000 {
            let set = labelled(kind, &mut draw);
            let shown = personal.shown(&set.text);
            let is_gone = set.value.as_ref().is_none_or(|value| !shown.contains(value.as_str()));
            score.count(shown.contains(&mask) && is_gone, set.value.is_some());
        }
        let (precision, recall) = (score.precision(), score.recall());
        assert!(precision >= 0.99 && recall >= 0.99, "{kind}: {precision} {recall} {score:?}");
    }
}

#[test]
fn numbers_in_groups_are_found_over_line_ends_and_what_looks_like_them_is_not() {
    let personal = Personal::that_reports(MaskKey::of_seed(7));
    let mut draw = Draw::new(9);
    for kind in ["card", "iban", "phone"] {
        let mask = format!("<{}_", kind.to_uppercase());
        let mut score = Score::default();
        for _ in 0..4_000 {
            let set = labelled(kind, &mut draw);
            // A blank between two digits or letters of numbers, whichever of them: a line may end there.
            let is_within = |at: &usize| {
                let bytes = set.text.as_bytes();
                bytes[*at] == b' '
                    && bytes[at - 1].is_ascii_digit()
                    && bytes[at + 1].is_ascii_digit()
            };
            let blanks: Vec<usize> = (1..set.text.len() - 1).filter(is_within).collect();
            if blanks.is_empty() {
                continue;
            }
            let mut text = set.text.clone();
            let at = blanks[draw.below(blanks.len())];
            text.replace_range(at..=at, draw.of(&["\n", "\r\n", " \n  "]));
            score.count(personal.shown(&text).contains(&mask), set.value.is_some());
        }
        assert!(score.known > 500, "{kind}: {score:?}");
        let (precision, recall) = (score.precision(), score.recall());
        assert!(precision >= 0.99 && recall >= 0.97, "{kind}: {precision} {recall} {score:?}");
    }
}
