//! `metrics.jsonl`: one JSON object a line, a training step or an evaluation, in the order it happened.
//!
//! A line is handed to the system whole as soon as it is known, so a killed run leaves every finished
//! line and at most one torn one. Going on from step `s` drops what lies after `s`: those steps run again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use graft_model::atomic;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Error, Result};

/// What one optimizer step did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainLine {
    /// The optimizer step, from 1.
    pub step: u64,
    /// Mean loss of the step's target tokens, nats.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The learning rate that the step used.
    #[serde(deserialize_with = "null_is_nan")]
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Tokens of the step that went through the model, without padding.
    pub tokens: u64,
    /// Tokens of the step that the loss counted.
    pub target_tokens: u64,
    /// `tokens` over the step's wall time.
    #[serde(deserialize_with = "null_is_nan")]
    pub tokens_per_second: f64,
    /// Largest resident size of the process so far; `null` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// Most memory of a GPU found in use so far; left out where none computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_device_memory_bytes: Option<u64>,
}

/// What one evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalLine {
    /// Optimizer steps taken before the evaluation.
    pub step: u64,
    /// Mean loss of the validation set's target tokens, nats.
    #[serde(deserialize_with = "null_is_nan")]
    pub eval_loss: f64,
    /// Target tokens of the validation set.
    pub eval_tokens: u64,
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A training step.
    Train(TrainLine),
    /// An evaluation.
    Eval(EvalLine),
}

impl Line {
    /// The optimizer step that the line belongs to.
    pub fn step(&self) -> u64 {
        match self {
            Self::Train(line) => line.step,
            Self::Eval(line) => line.step,
        }
    }
}

/// JSON has no NaN or infinity; serde_json writes both as `null`.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// What going on from a step found in the lines of the run so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Lines up to the step.
    pub kept: usize,
    /// Lines after the step, dropped because those steps run again.
    pub later: usize,
    /// Torn or foreign lines, dropped.
    pub unreadable: usize,
}

/// Appends to `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the log of a run that goes on after `step`: later lines go, and so does a torn last one.
    /// The file is replaced whole, never cut in place. `step` 0 starts it anew.
    pub fn open(path: &Path, step: u64) -> Result<(Self, Kept)> {
        let written = match std::fs::read(path) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        let (remaining, kept) = up_to(&written, step);
        if remaining != written || !path.exists() {
            atomic::write_bytes(path, &remaining).map_err(Error::Replace)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(|source| Error::write(path, source))?;
        Ok((Self { path: path.to_owned(), file }, kept))
    }

    /// Appends one line; the system has it when this returns. Lines of one step must be appended
    /// before the step's checkpoint is written, or a kill between the two loses them.
    pub fn append(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line).expect("a line has only numbers and fixed keys");
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|source| Error::write(&self.path, source))
    }

    /// Waits until the lines are on the disk; call it before a checkpoint is declared whole.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::write(&self.path, source))
    }
}

/// The readable lines of a run so far, in order; none when there is no file yet.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    match std::fs::read(path) {
        Ok(written) => Ok(lines(&written).flatten().map(|(_, line)| line).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// The non-empty lines as written, and each as read; `None` where it is torn or foreign.
fn lines(written: &[u8]) -> impl Iterator<Item = Option<(&[u8], Line)>> {
    written
        .split(|byte| *byte == b'\n')
        .filter(|text| !text.is_empty())
        .map(|text| serde_json::from_slice(text).ok().map(|line| (text, line)))
}

fn up_to(written: &[u8], step: u64) -> (Vec<u8>, Kept) {
    let (mut remaining, mut kept) = (Vec::with_capacity(written.len()), Kept::default());
    for line in lines(written) {
        match line {
            None => kept.unreadable += 1,
            Some((_, line)) if line.step() > step || step == 0 => kept.later += 1,
            Some((text, _)) => {
                kept.kept += 1;
                remaining.extend_from_slice(text);
                remaining.push(b'\n');
            }
        }
    }
    (remaining, kept)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write broken files on purpose")]
mod tests {
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
    fn a_loss_that_is_no_number_is_null_and_reads_back() {
        let line = EvalLine { step: 3, eval_loss: f64::NAN, eval_tokens: 1 };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"step":3,"eval_loss":null,"eval_tokens":1}"#);
        assert!(serde_json::from_str::<EvalLine>(&text).unwrap().eval_loss.is_nan());
    }

    #[test]
    fn appended_lines_can_be_read_while_the_log_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let (mut log, kept) = MetricsLog::open(&path, 0).unwrap();
        assert_eq!(kept, Kept::default());
        log.append(&train(1)).unwrap();
        log.append(&eval(1)).unwrap();
        assert_eq!(read(&path).unwrap(), [train(1), eval(1)]);
    }

    #[test]
    fn going_on_drops_later_steps_and_what_a_power_cut_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut written = text(&[train(1), train(2), eval(2), train(3), eval(3)]).into_bytes();
        written.extend_from_slice(b"\0\0\0\0\n{\"step\":4,\"lo");
        fs::write(&path, written).unwrap();

        let (mut log, kept) = MetricsLog::open(&path, 2).unwrap();
        assert_eq!(kept, Kept { kept: 3, later: 2, unreadable: 2 });
        log.append(&train(3)).unwrap();
        let expected = text(&[train(1), train(2), eval(2), train(3)]);
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_log_from_step_0_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, text(&[eval(0), train(1)])).unwrap();
        let (_log, kept) = MetricsLog::open(&path, 0).unwrap();
        assert_eq!(kept.kept, 0);
        assert_eq!(fs::read(&path).unwrap(), b"");
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

            let (mut remaining, _) = up_to(&whole.as_bytes()[..cut], from);
            remaining.extend_from_slice(text(&all[2 * from as usize..]).as_bytes());
            prop_assert_eq!(String::from_utf8(remaining).unwrap(), whole);
        }
    }
}
