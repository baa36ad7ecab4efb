#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::formats::Format;
use crate::hygiene::personal::{Kind, MaskKey, Pattern, Personal};
use crate::hygiene::{Action, Contamination, Near};

/// Rows that are learnt, in two files, and measured ones.
struct Room {
    folder: tempfile::TempDir,
    told: Vec<String>,
}

impl Room {
    fn new() -> Self {
        let room = Self { folder: tempfile::tempdir().unwrap(), told: Vec::new() };
        let text = |text: &str| format!("{{\"text\": \"{text}\"}}\n");
        let long =
            "A permit for a stall on the market costs twelve crowns a week and is paid in advance";
        room.write(
            "v.jsonl",
            &text("Who signs the certificate of the office of weights and measures?"),
        );
        let all = [
            text(long),
            text("mail ana@example.org or call +49 30 1234567"),
            text(&format!("{long} at the desk")),
            text(long),
        ];
        room.write("a.jsonl", &all.concat());
        let all = [
            text("case AZ-123456"),
            text("Who signs the certificate of the office of weights and measures?"),
            text("nothing of that"),
        ];
        room.write("b.jsonl", &all.concat());
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As if the file had been there for a minute.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
    }

    fn survey_for(&mut self, hygiene: &Hygiene) -> Survey {
        let [v, a, b] = ["v", "a", "b"]
            .map(|name| SourceFile::new(self.path(&format!("{name}.jsonl")), Format::Text));
        let general = SourceFile::builtin("quickstart/general", Format::Text).unwrap();
        let (measured, general, train) = ([v], [general], [a, b]);
        let section =
            |key, sources| Section { key, sources, leaves_out_empty: false, tokenizer: None };
        let sections =
            [section("data.validation", &measured[..]), section("evaluation.general", &general)];
        let train = section("data.train", &train);
        let cache = Cache::at(self.path("cache"));
        let found =
            cache.survey(&sections, train, hygiene, &mut |note| self.told.push(note)).unwrap();
        assert_eq!(found, survey(&sections, train, hygiene).unwrap());
        found
    }

    fn survey(&mut self) -> Survey {
        self.survey_for(&all(Action::Drop))
    }

    /// The files of what was found.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("cache")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Which file it is: another one has another place on the disk.
    fn made(&self) -> u64 {
        fs::metadata(&self.files()[0]).unwrap().ino()
    }
}

fn all(action: Action) -> Hygiene {
    let mask = if action == Action::Drop { Action::Mask } else { action };
    let personal = Personal::with_key(MaskKey::of_seed(3))
        .kind(Kind::Mail, mask)
        .kind(Kind::Phone, Action::Report)
        .pattern(Pattern::new("case", r"AZ-\d{6}").unwrap(), action);
    Hygiene {
        duplicates: Some(action),
        near_duplicates: Some(Near { action: Action::Report, threshold: 0.7 }),
        contamination: Some(Contamination { action, words: 8 }),
        leaks: action,
        personal: Arc::new(personal),
    }
}

#[test]
fn what_was_found_is_found_once() {
    let mut room = Room::new();
    let found = room.survey();
    let rows: Vec<_> = found.report.findings.iter().map(|it| it.rows).collect();
    assert!(rows.iter().filter(|&&rows| rows > 0).count() >= 6, "{rows:?}");
    assert_eq!((found.alike.len(), found.cleanings.concat().into_iter().flatten().count()), (1, 2));
    let made = room.made();
    // Its change is too new to be trusted: the files are hashed.
    assert_eq!(room.survey(), found);
    assert_eq!(room.made(), made);
    assert!(room.told.is_empty(), "{:?}", room.told);
    assert_eq!(fs::metadata(&room.files()[0]).unwrap().mode() & 0o777, 0o600);
    // Nothing of a value is in it, but its mask.
    let bytes = fs::read(&room.files()[0]).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(!holds("example.org") && !holds("1234567") && holds("<MAIL_"));
}

#[test]
fn other_bytes_other_settings_and_other_files_are_looked_through_themselves() {
    let mut room = Room::new();
    room.survey();
    let made = room.made();
    room.survey_for(&all(Action::Report));
    assert_eq!(room.files().len(), 2);
    fs::remove_file(
        room.files().into_iter().find(|it| fs::metadata(it).unwrap().ino() != made).unwrap(),
    )
    .unwrap();
    // As many bytes as before, of a file that is learnt, and of one that is measured.
    for name in ["a.jsonl", "v.jsonl"] {
        let made = room.made();
        let text = fs::read_to_string(room.path(name)).unwrap();
        room.write(name, &text.replacen("of", "on", 1).replacen("at the desk", "in the hall", 1));
        room.survey();
        assert_ne!(room.made(), made);
    }
    assert_eq!(room.files().len(), 1);
    // The same bytes again are the same.
    let made = room.made();
    let text = fs::read_to_string(room.path("b.jsonl")).unwrap();
    room.write("b.jsonl", &text);
    room.survey();
    assert_eq!(room.made(), made);
    assert!(room.told.is_empty(), "{:?}", room.told);
}

#[test]
fn what_is_damaged_is_found_again_and_what_is_somebodys_stays() {
    let mut room = Room::new();
    room.survey();
    let file = room.files().remove(0);
    let whole = fs::read(&file).unwrap();
    let begin = BEGINNING.len();
    for at in (begin..whole.len()).step_by(61).chain([whole.len() - 1]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        for left in [&damaged[..], &whole[..at]] {
            fs::write(&file, left).unwrap();
            room.survey();
            let told = room.told.remove(0).replace(&file.display().to_string(), "found-HASH");
            assert_eq!(
                told,
                "what was found in the rows is damaged in found-HASH: they are looked through again",
                "{at}"
            );
            room.survey();
            assert!(room.told.is_empty(), "{at}: {:?}", room.told);
        }
    }
    fs::write(&file, "my notes").unwrap();
    room.survey();
    let told = room.told.remove(0).replace(&file.display().to_string(), "found-HASH");
    insta::assert_snapshot!(told, @"what is found in the rows is not kept, as found-HASH is no part of a cache: take it away");
    assert_eq!(fs::read(&file).unwrap(), b"my notes");
    fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    room.survey();
    let told = room.told.remove(0).replace(&file.display().to_string(), "found-HASH");
    insta::assert_snapshot!(told, @"what is found in the rows is not kept, as found-HASH cannot be read (it is a pipe, and only plain files are read): take it away");
}

#[test]
fn where_nothing_can_be_kept_that_is_said() {
    let mut room = Room::new();
    let (mut told, train) = (Vec::new(), [SourceFile::new(room.path("a.jsonl"), Format::Text)]);
    let train =
        Section { key: "data.train", sources: &train, leaves_out_empty: false, tokenizer: None };
    let cache = Cache::at("/proc/none/cache");
    cache.survey(&[], train, &all(Action::Report), &mut |note| told.push(note)).unwrap();
    let (before, behind) = told[0].split_once("found-").unwrap();
    insta::assert_snapshot!(format!("{before}…{}", behind.split_once(" (").unwrap().1), @"what was found in the rows cannot be kept in /proc/none/cache/…No such file or directory (os error 2)): the next start looks through them again");
    fs::write(room.path("cache"), "").unwrap();
    room.survey();
    let told = room.told.remove(0).replace(&room.folder.path().display().to_string(), "ROOT");
    let (before, behind) = told.split_once("found-").unwrap();
    insta::assert_snapshot!(format!("{before}…{}", behind.split_once(" cannot").unwrap().1), @"what is found in the rows is not kept, as ROOT/cache/… be read (Not a directory (os error 20)): take it away");
}
