#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::*;
use crate::formats::Format;
use crate::overlong::Overlong;
use crate::test_tokenizer::tokenizer;

/// A folder with a file of rows, and a cache of small files beside it.
struct Room {
    folder: tempfile::TempDir,
    cache: Cache,
    told: Vec<String>,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path().join("cache"), shard: 700 };
        let room = Self { folder, cache, told: Vec::new() };
        room.write(0..40);
        room
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("a.jsonl")
    }

    fn write(&self, rows: std::ops::Range<usize>) {
        let row = |row| format!("{{\"text\": \"The fee of form {row} is {row} euros.\"}}\n");
        fs::write(self.file(), rows.map(row).collect::<String>()).unwrap();
    }

    /// As if the file had been there for a minute.
    fn settle(&self) {
        let file = File::options().write(true).open(self.file()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
    }

    fn sources(&self) -> [SourceFile; 1] {
        [SourceFile::new(self.file(), Format::Text)]
    }

    fn options() -> SampleOptions {
        SampleOptions { overlong: Overlong::Split, ..SampleOptions::new(9) }
    }

    fn load_with(&mut self, options: &SampleOptions) -> Result<Dataset, Error> {
        let (cache, sources) = (self.cache.clone(), self.sources());
        cache.load(&sources, tokenizer(), options, &mut |note| self.told.push(note))
    }

    fn load(&mut self) -> Dataset {
        self.load_with(&Self::options()).unwrap()
    }

    fn in_memory(&self) -> Dataset {
        Dataset::load(&self.sources(), tokenizer(), &Self::options()).unwrap()
    }

    /// The folders of the cache.
    fn folders(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.cache.folder()) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Which one it is: another one has another place on the disk.
    fn made(&self) -> u64 {
        fs::metadata(self.folders()[0].join(stored::ROWS)).unwrap().ino()
    }
}

#[test]
fn what_is_kept_is_what_memory_would_hold_and_is_made_once() {
    let mut room = Room::new();
    let expected = room.in_memory();
    assert_eq!(room.load(), expected);
    let made = room.made();
    // Its times are too new to be trusted: it is hashed.
    assert_eq!(room.load(), expected);
    room.settle();
    assert_eq!(room.load(), expected);
    assert_eq!(room.load(), expected);
    assert_eq!(room.made(), made);
    assert!(room.told.is_empty(), "{:?}", room.told);
    let names = fs::read_dir(&room.folders()[0]).unwrap();
    assert!(names.count() > 6, "several files of records");
    let [memory, files] = room.load().samples.bytes();
    assert_eq!((memory, files), (0, expected.samples.bytes()[0]));
}

#[test]
fn another_content_is_made_anew_and_the_same_one_is_not() {
    let mut room = Room::new();
    room.load();
    let made = room.made();
    room.write(0..40);
    assert_eq!(room.load(), room.in_memory());
    assert_eq!(room.made(), made);
    // As many bytes as before.
    room.write(50..90);
    assert_eq!(room.load(), room.in_memory());
    room.write(0..30);
    assert_eq!(room.load(), room.in_memory());
    assert_eq!(
        (room.load().samples.len(), room.folders().len()),
        (room.in_memory().samples.len(), 1)
    );
}

#[test]
fn every_way_of_making_samples_has_a_place_of_its_own() {
    let mut room = Room::new();
    room.load();
    let changed: [fn(&mut SampleOptions); 5] = [
        |options| options.max_seq_len = 10,
        |options| options.overlong = Overlong::Drop,
        |options| options.train_on_inputs = true,
        |options| options.system_prompt = Some("Be brief.".to_owned()),
        |options| options.chat = crate::chat::ChatTemplate::built_in(crate::chat::Preamble::None),
    ];
    for (number, change) in changed.into_iter().enumerate() {
        let mut options = Room::options();
        change(&mut options);
        // Where nothing is left, nothing is kept.
        let kept = room.load_with(&options).is_ok();
        assert!(kept || number == 1);
    }
    assert_eq!(room.folders().len(), 5);
}

#[test]
fn a_damaged_record_is_refused_and_made_anew_at_the_next_start() {
    let mut room = Room::new();
    room.load();
    let folder = room.folders().remove(0);
    for name in [stored::shard(1), stored::ROWS.to_owned()] {
        let mut bytes = fs::read(folder.join(&name)).unwrap();
        bytes[50] ^= 1;
        fs::write(folder.join(&name), bytes).unwrap();
        let damaged = room.load();
        let samples = damaged.samples.iter().find_map(Result::err);
        let error = samples.or_else(|| damaged.rows.iter().find_map(Result::err)).unwrap();
        let shown = error.to_string().replace(&folder.display().to_string(), "rows-HASH");
        assert!(shown.starts_with("the cache of samples in rows-HASH is damaged: "), "{shown}");
        assert_eq!(room.load(), room.in_memory());
        assert_eq!(room.told.len(), 1);
        assert!(
            room.told.remove(0).contains("is damaged (cache.json is missing), and is made again")
        );
    }
}

#[test]
fn a_cut_or_missing_file_is_noticed_at_once() {
    let mut room = Room::new();
    room.load();
    let folder = room.folders().remove(0);
    let names = [
        stored::shard(0),
        stored::ROWS.to_owned(),
        "sizes".to_owned(),
        stored::DESCRIPTION.to_owned(),
    ];
    for name in &names {
        let bytes = fs::read(folder.join(name)).unwrap();
        fs::write(folder.join(name), &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(room.load(), room.in_memory());
        fs::remove_file(folder.join(name)).unwrap();
        assert_eq!(room.load(), room.in_memory());
    }
    let mut sizes = fs::read(folder.join("sizes")).unwrap();
    sizes[0] ^= 1;
    fs::write(folder.join("sizes"), sizes).unwrap();
    assert_eq!(room.load(), room.in_memory());
    assert_eq!(room.told.len(), 2 * names.len() + 1);
    assert!(room.told.iter().all(|told| told.contains("is damaged (")), "{:?}", room.told);
}

#[test]
fn wrong_rows_leave_nothing_and_nobody_else_reads_what_is_kept() {
    let mut room = Room::new();
    let first = fs::read_to_string(room.file()).unwrap();
    fs::write(room.file(), first.clone() + "{\"text\": 3}\n").unwrap();
    assert!(
        room.load_with(&Room::options()).unwrap_err().to_string().contains("a.jsonl:41: `text`")
    );
    assert!(room.folders().is_empty());
    fs::write(room.file(), first).unwrap();
    room.load();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let folder = room.folders().remove(0);
    assert_eq!((mode(room.cache.folder()), mode(&folder)), (0o700, 0o700));
    for entry in fs::read_dir(&folder).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_way_out() {
    let mut room = Room::new();
    fs::write(room.cache.folder(), "").unwrap();
    let shown = room.load_with(&Room::options()).unwrap_err().to_string();
    insta::assert_snapshot!(shown.replace(&room.folder.path().display().to_string(), "ROOT"), @"cannot write the cache of samples in ROOT/cache: File exists (os error 17). Name another folder (`data.cache: FOLDER`), or keep them in memory (`data.cache: off`)");
}

#[test]
fn what_somebody_put_into_a_cache_stays() {
    let mut room = Room::new();
    room.load();
    let folder = room.folders()[0].clone();
    let note = folder.join("notes.txt");
    fs::write(&note, "mine").unwrap();
    fs::remove_file(folder.join(stored::ROWS)).unwrap();
    let refused = room.load_with(&Room::options()).unwrap_err().to_string();
    assert!(refused.contains("notes.txt` is no part of a cache"), "{refused}");
    assert_eq!(fs::read(&note).unwrap(), b"mine");
    fs::remove_file(&note).unwrap();
    assert_eq!(room.load().samples.len(), room.in_memory().samples.len());
    // A file, or a link, in the folder's place is somebody's, too.
    fs::remove_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink("elsewhere", &folder).unwrap();
    assert!(room.load_with(&Room::options()).is_err());
    assert_eq!(fs::read_link(&folder).unwrap(), Path::new("elsewhere"));
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let mut room = Room::new();
    room.load();
    let file = room.folders()[0].join(stored::ROWS);
    fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    let refused = room.load_with(&Room::options()).unwrap_err().to_string();
    assert!(refused.contains("is no part of a cache"), "{refused}");
}
