//! A run folder: what its manifest says, and how far its metrics go.

use std::path::Path;

use serde_json::json;

use super::Findings;
use crate::cli::page::grouped;
use crate::run_folder::RunFolder;
use crate::run_folder::contract::Change;
use crate::run_folder::manifest::{Manifest, Mended, Recorded, Status};
use crate::run_folder::metrics::{self, EvalLine, Line, TrainLine};

/// Describes the run; a run that goes on meanwhile is not disturbed.
pub(super) fn inspect(path: &Path) -> anyhow::Result<Findings> {
    let manifest = RunFolder::read_manifest(path)?;
    let lines = metrics::read(&path.join("metrics.jsonl"))?;
    let checkpoints = RunFolder::checkpoints_of(path, &manifest).list()?;
    let (mut train, mut eval) = (None, None);
    for line in &lines {
        match line {
            Line::Train(line) => train = Some(line),
            Line::Eval(line) => eval = Some(line),
        }
    }
    let names = ["adapter", "merged", "model", "report.html"];
    // What is being made is none yet, whatever lies in its place.
    let is_made =
        |name: &str| manifest.made.get(name).is_some_and(|made| made.after_step.is_some());
    let outputs = names.into_iter().filter(|name| is_made(name) && path.join(name).exists());
    let outputs: Vec<&str> = outputs.collect();
    let json = json!({
        "kind": "run",
        "path": path,
        "manifest": manifest,
        "last_training_step": train,
        "last_evaluation": eval,
        "checkpoints": checkpoints.iter().map(|checkpoint| checkpoint.step).collect::<Vec<_>>(),
        "outputs": outputs,
    });
    let Manifest { status, started, ended, resumed_after, changes, mended, inputs, made, .. } =
        &manifest;
    let mut rows = vec![
        ("run", format!("{} in {}", inputs.run, path.display())),
        ("status", status_text(status)),
        ("begun", started.clone()),
        ("ended", ended.clone().unwrap_or_else(|| "–".to_owned())),
        ("model", format!("{}, {} parameters", inputs.model, grouped(inputs.parameters))),
        (
            "method",
            format!(
                "{}, {} trainable parameters, quantization {}, {} on {}, seed {}",
                inputs.method,
                grouped(inputs.trainable_parameters),
                inputs.quantization,
                inputs.compute_dtype,
                inputs.device,
                inputs.seed
            ),
        ),
        ("data", inputs.data.values().map(|file| &*file.path).collect::<Vec<_>>().join(", ")),
    ];
    if !resumed_after.is_empty() {
        let steps: Vec<String> = resumed_after.iter().map(ToString::to_string).collect();
        rows.push(("resumed", format!("after step {}", steps.join(", "))));
    }
    rows.extend(changes.iter().map(|Recorded { after_step, what }| {
        let Change { what, from, to } = what;
        ("changed", format!("after step {after_step}: {what} from {from} to {to}"))
    }));
    rows.extend(mended.iter().map(|Recorded { after_step, what: Mended { file, found } }| {
        ("damage", format!("after step {after_step}: {file}: {found}"))
    }));
    rows.extend(train.map(|line| ("last step", train_text(line))));
    rows.extend(eval.map(|line| ("last eval", eval_text(line))));
    let steps: Vec<String> = checkpoints.iter().map(|found| found.step.to_string()).collect();
    let none = |list: String| if list.is_empty() { "none".to_owned() } else { list };
    rows.push(("checkpoints", none(steps.join(", "))));
    let after = |name: &&str| made.get(*name).and_then(|made| made.after_step);
    let last = outputs.iter().filter_map(after).max();
    let shown = outputs.iter().map(|name| match after(name) {
        Some(step) if last != Some(step) || manifest.is_left_behind(&made[*name]) => {
            format!("{name} (of step {step})")
        }
        _ => (*name).to_owned(),
    });
    rows.push(("outputs", none(shown.collect::<Vec<_>>().join(", "))));
    Ok(Findings { rows, json, fault: None })
}

fn status_text(status: &Status) -> String {
    match status {
        Status::Running => "running, or killed".to_owned(),
        Status::Finished => "finished".to_owned(),
        Status::Stopped { reason } => format!("stopped: {reason}"),
        Status::Failed { reason } => format!("failed: {reason}"),
    }
}

fn train_text(line: &TrainLine) -> String {
    let TrainLine { step, loss, learning_rate, grad_norm, tokens_per_second, measures, .. } = line;
    let measure = |(name, value)| format!("{name} {value:.4}, ");
    let measures: Vec<String> = measures.iter().map(measure).collect();
    format!(
        "{step}: loss {loss:.4}, {}learning rate {learning_rate:e}, gradient norm {grad_norm:.3}, \
         {tokens_per_second:.0} tokens/s",
        measures.concat()
    )
}

fn eval_text(line: &EvalLine) -> String {
    let EvalLine { step, eval_loss, eval_tokens } = line;
    format!("after step {step}: loss {eval_loss:.4} over {} tokens", grouped(*eval_tokens))
}
