//! `tensorboard/`: scalars that a stock TensorBoard shows.
//!
//! An event file is a row of TFRecords (framing and checksums by `tensorboard-rs`), each one an
//! `Event` of tensorflow/core/util/event.proto; the four fields that scalars need are encoded here.
//! The `SummaryWriter` of `tensorboard-rs` is not used: it puts the host's name into the file's name,
//! panics in a thread of its own when the disk is full, and empties a file begun in the same second.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tensorboard_rs::record_writer::RecordWriter;

use super::metrics::Line;
use super::{Error, Result};

/// Appends scalars to one event file.
pub struct EventLog {
    path: PathBuf,
    records: RecordWriter<BufWriter<File>>,
}

impl EventLog {
    /// Begins an event file in `folder`. A run that goes on after `step` begins another file, and
    /// TensorBoard then forgets what earlier files say about later steps.
    pub fn open(folder: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|source| Error::write(folder, source))?;
        let (path, file) = create_next(folder).map_err(|source| Error::write(folder, source))?;
        let records = RecordWriter::new(BufWriter::new(file));
        let mut log = Self { path, records };
        log.write(&Event::version())?;
        if step > 0 {
            log.write(&Event::session_start(step + 1))?;
        }
        log.flush()?;
        Ok(log)
    }

    /// Writes the values of a line of `metrics.jsonl` under their TensorBoard names; the system
    /// has them when this returns, so that a kill loses none of an earlier step.
    pub fn log(&mut self, line: &Line) -> Result<()> {
        for (tag, value) in scalars(line) {
            self.write(&Event::scalar(line.step(), tag, value as f32))?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        self.records.flush().map_err(|source| Error::write(&self.path, source))
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        self.records.write(&event.0).map_err(|source| Error::write(&self.path, source))
    }
}

fn scalars(line: &Line) -> Vec<(&str, f64)> {
    match line {
        Line::Train(line) => {
            let mut scalars = vec![
                ("loss/train", line.loss),
                ("learning_rate", line.learning_rate),
                ("grad_norm", line.grad_norm),
                ("tokens_per_second", line.tokens_per_second),
            ];
            let peaks = [
                ("memory/peak_gib", line.peak_memory_bytes),
                ("memory/peak_device_gib", line.peak_device_memory_bytes),
            ];
            let in_gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            scalars
                .extend(peaks.into_iter().filter_map(|(name, peak)| Some((name, in_gib(peak?)))));
            scalars.extend(line.measures.iter().map(|(name, &value)| (name.as_str(), value)));
            scalars
        }
        Line::Eval(line) => vec![("loss/eval", line.eval_loss)],
    }
}

/// TensorBoard reads the files of a folder in the order of their names, so a later file's name must
/// sort after an earlier one's even when the clock went backwards or a second has not passed.
fn create_next(folder: &Path) -> io::Result<(PathBuf, File)> {
    let mut next = (now().as_secs(), 0u32);
    for entry in fs::read_dir(folder)? {
        if let Some((seconds, count)) = entry?.file_name().to_str().and_then(stamp) {
            next = next.max((seconds, count + 1));
        }
    }
    let (seconds, count) = next;
    let path = folder.join(format!("events.out.tfevents.{seconds:010}.graft.{count:04}"));
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    Ok((path, file))
}

fn stamp(name: &str) -> Option<(u64, u32)> {
    let (seconds, count) = name.strip_prefix("events.out.tfevents.")?.split_once(".graft.")?;
    Some((seconds.parse().ok()?, count.parse().ok()?))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A serialised `Event`: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
struct Event(Vec<u8>);

impl Event {
    fn at(step: u64) -> Self {
        let mut bytes = Vec::with_capacity(64);
        key(&mut bytes, 1, FIXED64);
        bytes.extend_from_slice(&now().as_secs_f64().to_le_bytes());
        key(&mut bytes, 2, VARINT);
        varint(&mut bytes, step);
        Self(bytes)
    }

    fn version() -> Self {
        let mut event = Self::at(0);
        field(&mut event.0, 3, b"brain.Event:2");
        event
    }

    /// `SessionLog {status: START}`: steps from here on replace those of earlier files.
    fn session_start(step: u64) -> Self {
        let mut session = Vec::new();
        key(&mut session, 1, VARINT);
        varint(&mut session, 1);
        let mut event = Self::at(step);
        field(&mut event.0, 7, &session);
        event
    }

    /// `Summary {value: [{tag = 1, simple_value = 2}]}`.
    fn scalar(step: u64, tag: &str, value: f32) -> Self {
        let mut entry = Vec::new();
        field(&mut entry, 1, tag.as_bytes());
        key(&mut entry, 2, FIXED32);
        entry.extend_from_slice(&value.to_le_bytes());
        let mut summary = Vec::new();
        field(&mut summary, 1, &entry);
        let mut event = Self::at(step);
        field(&mut event.0, 5, &summary);
        event
    }
}

// Protocol buffers' wire types.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// Field numbers below 16 take one byte with their wire type.
fn key(bytes: &mut Vec<u8>, number: u8, wire_type: u8) {
    bytes.push(number << 3 | wire_type);
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn field(bytes: &mut Vec<u8>, number: u8, content: &[u8]) {
    key(bytes, number, BYTES);
    varint(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{EvalLine, TrainLine};
    use super::*;

    fn eval(step: u64) -> Line {
        Line::Eval(EvalLine { step, eval_loss: 1.5, eval_tokens: 3 })
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_event_is_what_protobuf_says() {
        let event = Event::scalar(300, "loss", 1.0).0;
        // Eight bytes of wall time after the first key differ from run to run.
        let rest = [
            &[0x10, 0xac, 0x02][..], // step = 300
            &[0x2a, 13, 0x0a, 11],   // summary, its first value
            &[0x0a, 4],
            b"loss",
            &[0x15, 0, 0, 0x80, 0x3f], // simple_value = 1.0
        ]
        .concat();
        assert_eq!(event[0], 0x09);
        assert_eq!(event[9..], rest);
    }

    #[test]
    fn measures_of_a_loss_come_last_under_their_own_names() {
        let line = TrainLine {
            step: 1,
            loss: 2.0,
            learning_rate: 1e-4,
            grad_norm: 0.5,
            tokens: 8,
            target_tokens: 3,
            tokens_per_second: 9.0,
            peak_memory_bytes: None,
            peak_device_memory_bytes: None,
            measures: [("margin".to_owned(), 0.25), ("accuracy".to_owned(), 1.0)].into(),
        };
        let line = Line::Train(line);
        let tags: Vec<&str> = scalars(&line).into_iter().map(|(tag, _)| tag).collect();
        let expected =
            ["loss/train", "learning_rate", "grad_norm", "tokens_per_second", "accuracy", "margin"];
        assert_eq!(tags, expected);
    }

    #[test]
    fn every_file_sorts_after_the_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let future = folder.path().join("events.out.tfevents.9999999999.graft.0007");
        File::create(future).unwrap();
        for step in 0..3 {
            EventLog::open(folder.path(), step).unwrap();
        }
        let found = names(folder.path());
        assert_eq!(found.len(), 4);
        assert_eq!(found.last().unwrap(), "events.out.tfevents.9999999999.graft.0010");
    }

    #[test]
    fn a_killed_log_has_written_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path(), 0).unwrap();
        log.log(&eval(1)).unwrap();
        let path = log.path.clone();
        std::mem::forget(log);
        let written = fs::read(path).unwrap();
        assert!(written.windows(9).any(|window| window == b"loss/eval"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_and_no_panic() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let path = PathBuf::from("/dev/full");
        let records = RecordWriter::new(BufWriter::new(full));
        let mut log = EventLog { path, records };
        let error = log.log(&eval(1)).unwrap_err();
        assert!(error.to_string().contains("/dev/full"), "{error}");
    }
}
