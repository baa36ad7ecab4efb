//! `metrics.jsonl`: one JSON object a line, a training step or an evaluation, in the order it happened.
//!
//! A line is handed to the system whole as soon as it is known, so a killed run leaves every finished
//! line and at most one torn one. A checkpoint records the length and hash of the log so far; going on
//! from it keeps these bytes as they are, whoever wrote them, and drops the steps behind it: they run again.

mod line;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use graft_files::atomic;
use graft_files::sha256::hexadecimal;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::hashes::FileHash;
use super::{Error, Result, plain};
use crate::progress::warn;
pub use line::{EvalLine, Line, TrainLine, by_name};

/// Appends to `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    /// The folder that it is in.
    folder: Option<File>,
    hasher: Sha256,
    bytes: u64,
}

impl MetricsLog {
    /// Begins an empty log.
    pub fn begin(path: &Path) -> Result<Self> {
        Self::with(path, &[], true)
    }

    /// Begins the log of a run that begins anew, where it may have been in another way before. What is there is
    /// set aside, and said, unless it is what a run leaves that was ended before its first checkpoint; `has_come`
    /// tells that this one had come to one.
    pub fn begin_anew(path: &Path, has_come: bool) -> Result<(Self, Option<String>)> {
        let written = match plain::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|source| Error::Read { path: path.to_owned(), source })?,
        };
        if written.is_empty() || (!has_come && goes_on(&written, 0)) {
            return Ok((Self::begin(path)?, None));
        }
        let mode = atomic::mode_of(path);
        let aside = super::checkpoints::set_aside(path)?;
        let found = format!("the run begins anew: what it was is kept as `{aside}`");
        Ok((Self::written(path, &[], mode)?, Some(found)))
    }

    /// Opens the log of a run that goes on after `step`, whose checkpoint recorded `so_far`: later lines
    /// go, and so does a torn last one. The file is replaced whole, never cut in place. Where it does not
    /// begin with the bytes that it had, the second value says so; then it is set aside, and the lines up
    /// to the step that can be read are kept.
    pub fn go_on(path: &Path, step: u64, so_far: &FileHash) -> Result<(Self, Option<String>)> {
        let written = match plain::read(path) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let lost = "it is missing: the lines up to this step are lost".to_owned();
                return Ok((Self::with(path, &[], true)?, Some(lost)));
            }
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        let head = usize::try_from(so_far.bytes).ok().and_then(|len| written.get(..len));
        // What was measured behind the step stands behind its checkpoint.
        let is_own =
            |head: &&[u8]| FileHash::of(head) == *so_far && goes_on(&written[head.len()..], step);
        if let Some(head) = head.filter(is_own) {
            let (measured, _) = readable_up_to(&written[head.len()..], step);
            let content = [head, &measured].concat();
            return Ok((Self::with(path, &content, written != content)?, None));
        }
        let (remaining, lines) = readable_up_to(&written, step);
        if remaining == written {
            let found =
                format!("it was cut short or changed: its {lines} lines are kept as they are");
            return Ok((Self::with(path, &remaining, false)?, Some(found)));
        }
        let mode = atomic::mode_of(path);
        let aside = super::checkpoints::set_aside(path)?;
        let found = format!(
            "it was cut short or changed: {lines} lines that can be read are kept, the whole file is \
             `{aside}`"
        );
        Ok((Self::written(path, &remaining, mode)?, Some(found)))
    }

    fn with(path: &Path, content: &[u8], differs: bool) -> Result<Self> {
        // A second name of the file is a copy that somebody made: no line is added to that.
        if differs || path.metadata().is_ok_and(|found| found.nlink() > 1) {
            return Self::written(path, content, None);
        }
        Self::at(path, content)
    }

    /// A log of this content, no more open than `mode`.
    fn written(path: &Path, content: &[u8], mode: Option<u32>) -> Result<Self> {
        atomic::exchange_bytes(path, content, mode, |_| io::Result::Ok(()))
            .map_err(Error::Replace)?;
        Self::at(path, content)
    }

    /// The log that is there, and has this content.
    fn at(path: &Path, content: &[u8]) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(path)
            .map_err(|source| Error::write(path, source))?;
        let (hasher, bytes) = (Sha256::new_with_prefix(content), content.len() as u64);
        let folder = path.parent().and_then(|folder| File::open(folder).ok());
        Ok(Self { path: path.to_owned(), file, folder, hasher, bytes })
    }

    /// Takes its place again where somebody put another file there, as editors do when they save, or removed
    /// it: that one is set aside, and said. Where the whole folder was moved, the log is in its place there.
    fn stand(&mut self) -> Result<()> {
        let is_moved = match (&self.folder, self.path.parent()) {
            (Some(folder), Some(path)) => !atomic::is_at(folder, path),
            _ => true,
        };
        if is_moved || atomic::is_at(&self.file, &self.path) {
            return Ok(());
        }
        let unreadable = |source| Error::Read { path: self.path.clone(), source };
        let mut own = Vec::new();
        self.file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        (&self.file).take(self.bytes).read_to_end(&mut own).map_err(unreadable)?;
        let mode = atomic::mode_of(&self.path);
        if self.path.symlink_metadata().is_ok() {
            let aside = super::checkpoints::set_aside(&self.path)?;
            warn(&format!(
                "`{}` was replaced while the run wrote to it: it is written again, the other is `{aside}`",
                self.path.display()
            ));
        }
        *self = Self::written(&self.path, &own, mode)?;
        Ok(())
    }

    /// Appends one line; the system has it when this returns. Lines of one step must be appended
    /// before the step's checkpoint is written, or a kill between the two loses them.
    pub fn append(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line).expect("a line has only numbers and fixed keys");
        text.push('\n');
        self.stand()?;
        self.file.write_all(text.as_bytes()).map_err(|source| Error::write(&self.path, source))?;
        self.hasher.update(text.as_bytes());
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Length and hash of the log as it is, for the checkpoint that goes with it.
    pub fn so_far(&self) -> FileHash {
        let sha256 = hexadecimal(&self.hasher.clone().finalize());
        FileHash { bytes: self.bytes, sha256, sampled: false }
    }

    /// Waits until the lines are on the disk; call it before a checkpoint is declared whole.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::write(&self.path, source))
    }
}

/// The lines of a run so far that are a step or an evaluation, in order; none when there is no file yet.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let written = match plain::read(path) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    Ok(texts(&written).filter_map(|text| serde_json::from_slice(text).ok()).collect())
}

/// The non-empty lines as written.
fn texts(written: &[u8]) -> impl Iterator<Item = &[u8]> {
    written.split(|byte| *byte == b'\n').filter(|text| !text.is_empty())
}

/// Whether lines can be what a run wrote behind its checkpoint of `step`: none of an earlier step, and none
/// that is no line of a log, but for one that a power cut tore.
fn goes_on(written: &[u8], step: u64) -> bool {
    written.split_inclusive(|byte| *byte == b'\n').filter(|text| *text != b"\n").all(|text| {
        let is_torn = is_torn(text);
        let line: Result<Value, _> = serde_json::from_slice(text);
        line.map_or(is_torn, |line| {
            // Lines of later steps are made again: what goes has to be as a run writes it.
            line.is_object()
                && line["step"]
                    .as_u64()
                    .is_none_or(|found| found == step || found > step && is_of_a_run(text))
        })
    })
}

/// Whether a line is what a power cut leaves of one: its beginning, or bytes of zero. What else lacks its end
/// was written by somebody.
fn is_torn(text: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"{\"step\":";
    let content = text.strip_suffix(b"\n").unwrap_or(text);
    let whole = content.iter().position(|byte| *byte == 0).unwrap_or(content.len());
    let (written, zeros) = content.split_at(whole);
    (written.len() < content.len() || !text.ends_with(b"\n"))
        && (BEGINNING.starts_with(written) || written.starts_with(BEGINNING))
        && zeros.iter().all(|byte| *byte == 0)
}

/// Whether a line is as a run of this version writes it.
fn is_of_a_run(text: &[u8]) -> bool {
    let line: Result<Line, _> = serde_json::from_slice(text);
    let written = line.and_then(|line| serde_json::to_vec(&line));
    // The last one may lack its end.
    written.is_ok_and(|written| text.strip_suffix(b"\n").unwrap_or(text) == written)
}

/// The lines that are JSON objects, without those of later steps, and how many. What they say is for
/// others to know: another version may write lines of its own.
fn readable_up_to(written: &[u8], step: u64) -> (Vec<u8>, usize) {
    let is_kept = |text: &&[u8]| {
        let line: Result<Value, _> = serde_json::from_slice(text);
        let is_later = |line: &Value| line["step"].as_u64().is_some_and(|found| found > step);
        line.is_ok_and(|line| line.is_object() && !is_later(&line))
    };
    let kept: Vec<&[u8]> = texts(written).filter(is_kept).collect();
    (kept.iter().flat_map(|text| [text, &b"\n"[..]]).flatten().copied().collect(), kept.len())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write broken files on purpose")]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn train(step: u64) -> Line {
        Line::Train(TrainLine {
            step,
            loss: 2.5 / step as f64,
            learning_rate: 2e-4,
            grad_norm: 0.75,
            tokens: 512,
            target_tokens: 130,
            tokens_per_second: 1_234.5,
            peak_memory_bytes: Some(1 << 30),
            peak_device_memory_bytes: None,
            measures: BTreeMap::new(),
        })
    }

    fn eval(step: u64) -> Line {
        Line::Eval(EvalLine { step, eval_loss: 1.25, eval_tokens: 900 })
    }

    fn text(lines: &[Line]) -> String {
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    #[test]
    fn lines_keep_the_contract() {
        insta::assert_snapshot!(text(&[train(1), eval(1)]), @r#"
        {"step":1,"loss":2.5,"learning_rate":0.0002,"grad_norm":0.75,"tokens":512,"target_tokens":130,"tokens_per_second":1234.5,"peak_memory_bytes":1073741824}
        {"step":1,"eval_loss":1.25,"eval_tokens":900}
        "#);
    }

    #[test]
    fn the_peak_of_a_gpu_is_in_the_line_where_one_computes() {
        let Line::Train(line) = train(1) else { unreachable!("a training step") };
        let line = TrainLine { peak_device_memory_bytes: Some(7), ..line };
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.ends_with(r#","peak_device_memory_bytes":7}"#), "{text}");
        assert_eq!(serde_json::from_str::<TrainLine>(&text).unwrap(), line);
    }

    #[test]
    fn further_measures_follow_under_their_names() {
        let Line::Train(line) = train(1) else { unreachable!("a training step") };
        let plain = serde_json::to_string(&line).unwrap();
        let measures = by_name(&BTreeMap::from([("margin", 0.5), ("accuracy", 1.0)]));
        let line = TrainLine { measures, ..line };
        let text = serde_json::to_string(&line).unwrap();
        let own = text.strip_prefix(plain.strip_suffix('}').unwrap()).unwrap();
        assert_eq!(own, r#","accuracy":1.0,"margin":0.5}"#);
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), Line::Train(line));
        let lost = text.replace("0.5}", "null}");
        let Line::Train(line) = serde_json::from_str(&lost).unwrap() else { panic!("{lost}") };
        assert!(line.measures["margin"].is_nan());
    }

    #[test]
    fn no_measure_has_the_name_of_a_field() {
        let Line::Train(line) = train(1) else { unreachable!("a training step") };
        let line = TrainLine { peak_device_memory_bytes: Some(7), ..line };
        let fields = serde_json::to_value(&line).unwrap();
        assert!(fields.as_object().unwrap().keys().eq(TrainLine::KEYS), "{fields}");
        for key in TrainLine::KEYS {
            let refused = std::panic::catch_unwind(|| by_name(&BTreeMap::from([(key, 1.0)])));
            assert!(refused.is_err(), "{key}");
        }
    }

    #[test]
    fn a_loss_that_is_no_number_is_null_and_reads_back() {
        let line = EvalLine { step: 3, eval_loss: f64::NAN, eval_tokens: 1 };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"step":3,"eval_loss":null,"eval_tokens":1}"#);
        assert!(serde_json::from_str::<EvalLine>(&text).unwrap().eval_loss.is_nan());
    }

    fn log_of(path: &Path, lines: &[Line]) -> FileHash {
        let mut log = MetricsLog::begin(path).unwrap();
        for line in lines {
            log.append(line).unwrap();
        }
        log.so_far()
    }

    #[test]
    fn appended_lines_can_be_read_while_the_log_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::begin(&path).unwrap();
        log.append(&train(1)).unwrap();
        log.append(&eval(1)).unwrap();
        assert_eq!(read(&path).unwrap(), [train(1), eval(1)]);
        assert_eq!(log.so_far(), FileHash::of(&fs::read(&path).unwrap()));
    }

    #[test]
    fn going_on_drops_later_steps_and_what_a_power_cut_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let so_far = log_of(&path, &[train(1), train(2)]);
        let mut written = fs::read(&path).unwrap();
        written.extend_from_slice(text(&[eval(2), train(3), eval(3)]).as_bytes());
        written.extend_from_slice(b"\0\0\0\0\n{\"step\":4,\"lo");
        fs::write(&path, written).unwrap();

        let (mut log, found) = MetricsLog::go_on(&path, 2, &so_far).unwrap();
        assert_eq!(found, None);
        log.append(&train(3)).unwrap();
        let expected = text(&[train(1), train(2), eval(2), train(3)]);
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(log.so_far(), FileHash::of(expected.as_bytes()));
    }

    #[test]
    fn a_copy_by_a_second_name_gets_no_lines() {
        let folder = tempfile::tempdir().unwrap();
        let [path, copy] = ["metrics.jsonl", "copy"].map(|name| folder.path().join(name));
        let so_far = log_of(&path, &[train(1)]);
        fs::hard_link(&path, &copy).unwrap();
        let (mut log, _) = MetricsLog::go_on(&path, 1, &so_far).unwrap();
        log.append(&train(2)).unwrap();
        assert_eq!(
            (read(&path).unwrap(), read(&copy).unwrap()),
            (vec![train(1), train(2)], vec![train(1)])
        );
    }

    #[test]
    fn lines_of_other_versions_are_kept_as_they_are_and_read_where_they_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let newer = text(&[train(1)]).replace("{\"step\"", "{\"host\":\"a\",\"step\"");
        let others = format!("{newer}{{\"kind\":\"note\",\"text\":\"cooled\"}}\n");
        fs::write(&path, &others).unwrap();
        let so_far = FileHash::of(others.as_bytes());
        let (mut log, found) = MetricsLog::go_on(&path, 1, &so_far).unwrap();
        assert_eq!(found, None);
        log.append(&train(2)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), others + &text(&[train(2)]));
        assert_eq!(read(&path).unwrap(), [train(1), train(2)]);
    }

    #[test]
    fn beginning_anew_keeps_what_is_not_a_run_ended_before_its_first_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let torn = [text(&[eval(0), train(1)]).as_bytes(), b"{\"step\":2,\"lo"].concat();
        let mine = [&torn[..], b"\na note\n"].concat();
        for (content, has_come, is_kept) in
            [(&torn, false, false), (&torn, true, true), (&mine, false, true), (&mine, true, true)]
        {
            fs::write(&path, content).unwrap();
            let (_, found) = MetricsLog::begin_anew(&path, has_come).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"");
            let aside = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let aside: Vec<_> = aside.filter(|other| *other != path).collect();
            assert_eq!((found.is_some(), aside.len()), (is_kept, usize::from(is_kept)));
            for other in aside {
                assert_eq!(&fs::read(&other).unwrap(), content);
                fs::remove_file(other).unwrap();
            }
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(MetricsLog::begin_anew(&path, false).is_err(), "what is no file was replaced");
    }

    #[test]
    fn a_damaged_log_is_set_aside_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let so_far = log_of(&path, &[train(1), eval(1), train(2)]);
        let whole = fs::read(&path).unwrap();
        let mut torn = whole.clone();
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        torn[second] = b'!';
        fs::write(&path, &torn).unwrap();
        let (_, found) = MetricsLog::go_on(&path, 2, &so_far).unwrap();
        insta::assert_snapshot!(found.unwrap(), @"it was cut short or changed: 2 lines that can be read are kept, the whole file is `damaged-metrics.jsonl`");
        assert_eq!(read(&path).unwrap(), [train(1), train(2)]);
        assert_eq!(fs::read(folder.path().join("damaged-metrics.jsonl")).unwrap(), torn);

        // With a line of somebody's own.
        for mine in
            ["a note\n", "# a note", "{\"note", "\0a note", "{\"step\":5,\"note\":\"mine\"}\n"]
        {
            fs::write(&path, [&whole[..], mine.as_bytes()].concat()).unwrap();
            let (_, found) = MetricsLog::go_on(&path, 2, &so_far).unwrap();
            assert!(found.unwrap().contains("`damaged-metrics.jsonl-"));
        }

        for place in (0..whole.len()).step_by(29) {
            for other in [&whole[..place], &[&whole[..place], b"7", &whole[place + 1..]].concat()] {
                if *other != whole[..] {
                    fs::write(&path, other).unwrap();
                    let (_, found) = MetricsLog::go_on(&path, 2, &so_far).unwrap();
                    assert!(found.is_some(), "byte {place}");
                }
            }
        }
        // Lines that are still some: nothing would be lost, so no copy is made, however often it goes on.
        let edited = String::from_utf8(whole.clone()).unwrap().replace("130", "131");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let before = names();
        fs::write(&path, whole.repeat(2)).unwrap();
        let (_, found) = MetricsLog::go_on(&path, 2, &so_far).unwrap();
        assert!(found.unwrap().contains("its 6 lines are kept"));
        for _ in 0..2 {
            fs::write(&path, &edited).unwrap();
            let (_, found) = MetricsLog::go_on(&path, 2, &so_far).unwrap();
            let expected = "it was cut short or changed: its 3 lines are kept as they are";
            assert_eq!(found.unwrap(), expected);
            assert_eq!((fs::read_to_string(&path).unwrap(), names()), (edited.clone(), before));
        }
        fs::remove_file(&path).unwrap();
        let (_, found) = MetricsLog::go_on(&path, 2, &so_far).unwrap();
        insta::assert_snapshot!(found.unwrap(), @"it is missing: the lines up to this step are lost");
    }

    proptest! {
        /// Killed after any byte and gone on from any step, the log equals the uninterrupted one.
        #[test]
        fn a_cut_anywhere_then_going_on_equals_no_cut(cut in 0usize..2_000, from in 1u64..8) {
            let all: Vec<Line> = (1..=12).flat_map(|step| [train(step), eval(step)]).collect();
            let whole = text(&all);
            // The checkpoint of step `from` exists only once all its lines are written.
            let written_by_then = text(&all[..2 * from as usize]).len();
            let cut = cut.clamp(written_by_then, whole.len());

            let written = &whole.as_bytes()[..cut];
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("metrics.jsonl");
            fs::write(&path, written).unwrap();
            let so_far = FileHash::of(&whole.as_bytes()[..written_by_then]);
            let (mut log, found) = MetricsLog::go_on(&path, from, &so_far).unwrap();
            prop_assert_eq!(found, None);
            for line in &all[2 * from as usize..] {
                log.append(line).unwrap();
            }
            let remaining = fs::read(&path).unwrap();
            prop_assert_eq!(String::from_utf8(remaining).unwrap(), whole);
        }
    }
}
