#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]

use std::collections::BTreeMap;
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

/// What is in a folder, but for the description, by name.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let file = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    entries.map(file).filter(|(name, _)| name != stored::DESCRIPTION).collect()
}

/// How many rows the last note says that were taken over.
fn taken(room: &mut Room) -> usize {
    let note = room.told.pop().unwrap();
    assert!(room.told.is_empty(), "{:?}", room.told);
    let (_, behind) = note.split_once(": ").unwrap();
    let (taken, rest) = behind.split_once(" of 40 rows are taken from it").unwrap();
    assert_eq!(rest, ", and the others made again");
    taken.parse().unwrap()
}

#[test]
fn a_damaged_record_is_refused_and_that_alone_is_made_again_at_the_next_start() {
    let mut room = Room::new();
    room.load();
    let folder = room.folders().remove(0);
    let whole = content(&folder);
    for (name, most) in [(stored::shard(1), 1), (stored::ROWS.to_owned(), 40)] {
        let mut bytes = fs::read(folder.join(&name)).unwrap();
        bytes[50] ^= 1;
        fs::write(folder.join(&name), bytes).unwrap();
        let damaged = room.load();
        let samples = damaged.samples.iter().find_map(Result::err);
        let error = samples.or_else(|| damaged.rows.iter().find_map(Result::err)).unwrap();
        let shown = error.to_string().replace(&folder.display().to_string(), "rows-HASH");
        assert!(shown.starts_with("the cache of samples in rows-HASH is damaged: "), "{shown}");
        assert!(shown.ends_with(". Run the same command again, with `--resume` where a run has begun: what is damaged is made again then"), "{shown}");
        assert_eq!(room.load(), room.in_memory());
        let again = 40 - taken(&mut room);
        assert!(again > 0 && again <= most, "{name}: {again} rows were made again");
        assert_eq!(content(&folder), whole, "{name}");
    }
}

#[test]
fn whatever_is_damaged_cut_or_missing_is_made_again_as_it_was() {
    let mut room = Room::new();
    room.load();
    let expected = room.in_memory();
    let folder = room.folders().remove(0);
    let whole = content(&folder);
    let last = stored::shard(whole.len() - 4);
    for name in [&stored::shard(1), &last, stored::ROWS, stored::MADE, stored::SIZES] {
        let (path, bytes) = (folder.join(name), &whole[name]);
        for at in [bytes.len() / 2, bytes.len() - 1] {
            // A process that was killed leaves no description; who cuts a whole file leaves one.
            for is_finished in [true, false] {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                for left in [&damaged[..], &bytes[..at], b""] {
                    fs::write(&path, left).unwrap();
                    if !is_finished {
                        fs::remove_file(folder.join(stored::DESCRIPTION)).unwrap();
                    }
                    let made = room.load();
                    let is_whole = made.samples.iter().all(|sample| sample.is_ok())
                        && made.rows.iter().all(|row| row.is_ok());
                    if is_whole {
                        assert_eq!(made, expected, "{name} at {at}");
                    }
                    assert_eq!(room.load(), expected, "{name} at {at}");
                    if name != stored::MADE || !is_finished {
                        assert_eq!(content(&folder), whole, "{name} at {at}");
                    }
                    room.told.clear();
                    fs::write(&path, bytes).unwrap();
                }
            }
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(room.load(), expected, "without {name}");
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn what_was_ended_goes_on_behind_what_is_whole() {
    for policy in Overlong::ALL.into_iter().filter(|policy| *policy != Overlong::Error) {
        let mut room = Room::new();
        let all = Dataset::load(&room.sources(), tokenizer(), &SampleOptions::new(400)).unwrap();
        let options = SampleOptions {
            overlong: policy,
            ..SampleOptions::new(all.statistics.lengths.p50 - 1)
        };
        let expected = Dataset::load(&room.sources(), tokenizer(), &options).unwrap();
        room.load_with(&options).unwrap();
        let folder = room.folders().remove(0);
        let whole = content(&folder);
        let shards = whole.keys().filter(|name| name.starts_with("samples-")).count();
        assert!(shards > 1, "{policy}: {shards}");
        for kept in 0..shards {
            fs::remove_file(folder.join(stored::DESCRIPTION)).unwrap();
            (kept + 1..shards)
                .for_each(|at| fs::remove_file(folder.join(stored::shard(at))).unwrap());
            let last = &whole[&stored::shard(kept)];
            fs::write(folder.join(stored::shard(kept)), &last[..last.len() / 2]).unwrap();
            assert_eq!(room.load_with(&options).unwrap(), expected, "{policy}");
            let taken = taken(&mut room);
            let least = if policy == Overlong::Drop { kept } else { 40 * kept / shards };
            assert!(
                taken >= least && taken < 40,
                "{policy}: {taken} of 40, {kept} of {shards} whole"
            );
            assert_eq!(content(&folder), whole, "{policy}");
        }
    }
}

#[test]
fn a_row_that_changed_meanwhile_is_not_taken_over() {
    let mut room = Room::new();
    room.load();
    let folder = room.folders().remove(0);
    for (rows, least) in [(0..50, 40), (0..20, 20), (1..41, 0)] {
        fs::remove_file(folder.join(stored::DESCRIPTION)).unwrap();
        room.write(rows.clone());
        assert_eq!(room.load(), room.in_memory());
        let note = room.told.pop().unwrap();
        let said = format!(": {least} of {} rows are taken", rows.len());
        assert!(note.contains(&said), "{note}");
    }
    // What is learnt of a row counts, too.
    let turns = |weight: u8| {
        let row = |row| {
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{row}\"}}, {{\"role\": \"assistant\", \
             \"content\": \"one\", \"weight\": {weight}}}, {{\"role\": \"assistant\", \"content\": \"two\"}}]}}\n"
            )
        };
        (0..9).map(row).collect::<String>()
    };
    let sources = [SourceFile::new(room.file(), Format::Messages)];
    let options = SampleOptions::new(400);
    for weight in [1, 0, 0] {
        fs::write(room.file(), turns(weight)).unwrap();
        let cache = room.cache.clone();
        let kept = cache.load(&sources, tokenizer(), &options, &mut |_| ()).unwrap();
        assert_eq!(kept, Dataset::load(&sources, tokenizer(), &options).unwrap());
        for folder in room.folders() {
            let _ = fs::remove_file(folder.join(stored::DESCRIPTION));
        }
    }
}

#[test]
fn a_row_that_is_mended_leaves_those_before_it_as_they_are() {
    let mut room = Room::new();
    let whole = fs::read_to_string(room.file()).unwrap();
    fs::write(room.file(), whole.clone() + "{\"text\": 3}\n").unwrap();
    room.load_with(&Room::options()).unwrap_err();
    // Rows are read some thousand at once: the wrong one is met before the first of them is kept.
    assert!(room.folders().is_empty());
    let row = |row| format!("{{\"text\": \"The fee of form {row} is {row} euros.\"}}\n");
    let many: String = (0..5_000).map(row).collect();
    fs::write(room.file(), many.clone() + "{\"text\": 3}\n").unwrap();
    room.load_with(&Room::options()).unwrap_err();
    fs::write(room.file(), many).unwrap();
    assert_eq!(room.load(), room.in_memory());
    let note = room.told.remove(0);
    let taken =
        note.split_once(": ").unwrap().1.split_once(" of 5000 rows are taken from it").unwrap().0;
    let taken: usize = taken.parse().unwrap();
    assert!(taken > 4_000 && taken <= 4_096, "{note}");
    // Where it is not the rows that are to be mended, nothing stays.
    fs::remove_dir_all(room.cache.folder()).unwrap();
    let options = SampleOptions { overlong: Overlong::Error, ..Room::options() };
    assert!(room.load_with(&options).is_err());
    assert!(room.folders().is_empty());
}

#[test]
fn one_process_makes_a_cache_and_another_waits_for_it() {
    let mut room = Room::new();
    let expected = room.load();
    let folder = room.folders().remove(0);
    fs::remove_file(folder.join(stored::DESCRIPTION)).unwrap();
    let held = File::open(&folder).unwrap();
    held.lock().unwrap();
    let (cache, sources, (tell, told)) =
        (room.cache.clone(), room.sources(), std::sync::mpsc::channel());
    let other = std::thread::spawn(move || {
        let mut tell = |note| tell.send(note).unwrap();
        cache.load(&sources, tokenizer(), &Room::options(), &mut tell).unwrap()
    });
    assert!(told.recv().unwrap().starts_with("another process makes the samples in "));
    drop(held);
    assert_eq!(other.join().unwrap(), expected);
}

#[test]
fn other_caches_of_a_folder_are_told_and_left() {
    let mut room = Room::new();
    room.load();
    let first = room.folders().remove(0);
    let (mine, named) =
        (room.cache.folder().join("mine"), room.cache.folder().join("rows-of-mine"));
    fs::create_dir(&mine).unwrap();
    fs::create_dir(&named).unwrap();
    assert!(room.told.is_empty());
    let options = SampleOptions { max_seq_len: 10, ..Room::options() };
    room.load_with(&options).unwrap();
    let told = room.told.remove(0).replace(&room.cache.folder().display().to_string(), "FOLDER");
    insta::assert_snapshot!(told, @"FOLDER holds 0.0 MB of samples of other rows, or for other settings (1 of its folders `rows-…`): remove those that no run reads any more, as nobody else does");
    room.load_with(&options).unwrap();
    assert!(room.told.is_empty() && first.exists() && mine.exists() && named.exists());
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
