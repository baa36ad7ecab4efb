//! After the last step: the scores again, the adapter or model, the merged folder, the report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use graft_adapters::merge::Merge;
use graft_adapters::{Began, Learns, Learnt, PeftAdapter, Trainable};
use graft_model::checkpoint::ShardedWriter;
use graft_model::stop;
use graft_recipes::TrainOn;
use serde::Serialize;

use super::going_on::say_mended;
use super::scores::Scores;
use super::stage::{Part, Stage};
use super::training::Run;
use super::{RunError, inputs, programs};
use crate::device::Backend;
use crate::memory::{give_freed_memory_back, peak_resident_bytes};
use crate::merge_bound::{MergeBound, onto};
use crate::merging::{self, Merging};
use crate::plan::{LoadedData, Plan, result_name};
use crate::progress::{Voice, warn};
use crate::report::{Answer, Better, PromptAnswer, Report, Sample, Score, ScoreUnit};
use crate::run_folder::manifest::{FileHash, Mended, Status};
use crate::run_folder::metrics::{self, Line};
use crate::run_folder::{ADAPTER, AFTER, Content, MERGED, REPORT};
use crate::trained_with::{BASE_HASH, TrainedWith, base_hash};
use graft_engine::probe::{Divergence, Probe};
use graft_engine::score::{ScoreError, Scorer};
use graft_engine::step::Trainer;

/// What a finished run is summed up as.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The run folder.
    pub folder: PathBuf,
    /// Steps taken.
    pub steps: u64,
    /// Loss of the last step.
    pub loss: f64,
    /// Tokens seen.
    pub tokens: u64,
    /// Seconds spent in steps.
    pub seconds: f64,
    /// Parameters that were trained.
    pub trainable_parameters: u64,
    /// Parameters of the base.
    pub parameters: u64,
    /// Peak resident memory.
    pub peak_memory_bytes: Option<u64>,
    /// Most memory of a GPU found in use in a step.
    pub peak_device_memory_bytes: Option<u64>,
    /// Share of held-out questions answered exactly, before and after.
    pub exact_match: Option<[f64; 2]>,
    /// Perplexity on the general rows, before and after.
    pub general_perplexity: Option<[f64; 2]>,
    /// Validation loss, before and after.
    pub validation_loss: Option<[f64; 2]>,
    /// What was written: adapter or model, and the merged folder.
    pub written: Vec<PathBuf>,
    /// How far the merged model's answers are from those of base + adapter.
    pub merged_divergence: Option<f64>,
    /// Said where that is farther than such merges should be, with the way out.
    pub merge_warning: Option<String>,
    /// The recipe's prompts and their answers by base and tuned model.
    pub answers: Vec<[String; 3]>,
}

/// Writes everything that a finished run leaves: what was learnt first, then each other part on its own.
/// What an earlier try has made of the same step is not made again.
pub(super) fn finish<B: Backend, P: Trainable<B>>(
    mut run: Run<'_, B, P>,
) -> Result<Outcome, RunError> {
    let mut failed = None;
    run.whereabouts.enter(Stage::After(Part::Result));
    let mut written = vec![write_result(&mut run)?];
    let after = attempt(&mut run, Part::Scores, &mut failed, score)?;
    let merged = attempt(&mut run, Part::Merge, &mut failed, merge)?.flatten();
    let given = attempt(&mut run, Part::Programs, &mut failed, programs::give)?;
    let status = match &failed {
        None => Status::after_last_step(run.position.step, run.position.loss),
        Some(error) => Status::Failed { reason: error.to_string() },
    };
    // The report and the terminal give one number.
    let peak = peak_resident_bytes();
    if let Some(after) = &after {
        let report = |run: &mut Run<'_, B, P>| write_report(run, after, &status, peak);
        attempt(&mut run, Part::Report, &mut failed, report)?;
    }
    match (failed, after) {
        (None, Some(after)) => {
            run.folder.end(status)?;
            let divergence = merged.as_ref().and_then(|(_, divergence)| *divergence);
            written.extend(merged.map(|(path, _)| path));
            written.extend(given.into_iter().flatten());
            Ok(outcome(&run, &after, written, divergence, peak))
        }
        (Some(error), _) => Err(error),
        (None, None) => unreachable!("what is not there has failed"),
    }
}

/// Does a part of the finish. Its failure is kept, and the next part has its turn; a stop is obeyed.
fn attempt<'a, B: Backend, P: Trainable<B>, T>(
    run: &mut Run<'a, B, P>,
    part: Part,
    failed: &mut Option<RunError>,
    work: impl FnOnce(&mut Run<'a, B, P>) -> Result<T, RunError>,
) -> Result<Option<T>, RunError> {
    run.whereabouts.enter(Stage::After(part));
    give_freed_memory_back();
    stop::check().map_err(graft_model::Error::from)?;
    match work(run) {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.stopped().is_some() => Err(error),
        Err(error) => {
            failed.get_or_insert(RunError::Unfinished { part, error: error.into() });
            Ok(None)
        }
    }
}

fn outcome<B: Backend, P: Trainable<B>>(
    run: &Run<'_, B, P>,
    after: &Scores,
    written: Vec<PathBuf>,
    merged_divergence: Option<f64>,
    peak_memory_bytes: Option<u64>,
) -> Outcome {
    let plan = run.plan;
    let pair = |of: fn(&Scores) -> Option<f64>| Some([of(&run.before)?, of(after)?]);
    let questions = plan.finish.prompts.iter().zip(&run.before.prompts).zip(&after.prompts);
    Outcome {
        folder: run.folder.path().to_owned(),
        steps: run.position.step,
        loss: run.position.loss,
        tokens: run.position.tokens,
        seconds: run.position.seconds,
        trainable_parameters: plan.trainable_parameters(),
        parameters: plan.parameters(),
        peak_memory_bytes,
        peak_device_memory_bytes: run.peak_device_memory,
        exact_match: pair(|scores| scores.exact.map(super::scores::Exact::share)),
        general_perplexity: pair(|scores| scores.general_perplexity),
        validation_loss: pair(|scores| scores.validation_loss),
        written,
        merged_divergence,
        merge_warning: merged_divergence
            .and_then(|mean| MergeBound::of(plan.finish.onto, plan.nf4).warning(mean)),
        answers: questions
            .map(|((question, base), tuned)| [question.clone(), base.clone(), tuned.clone()])
            .collect(),
    }
}

/// Writes what was learnt into a folder. `base` are the files of the base's folder.
pub(super) fn write_learnt<B: Backend, P: Trainable<B>>(
    out: &Path,
    plan: &Plan,
    base: &BTreeMap<String, FileHash>,
    began: &Began,
    trainer: &mut Trainer<B, P>,
) -> Result<(), RunError> {
    let shapes = trainer.parameters.slots().iter();
    let tensors: Vec<_> = shapes.map(|slot| (slot.name.clone(), slot.shape.clone())).collect();
    let with = TrainedWith {
        // One that took a part from the weights is written for them as they were.
        nf4: plan.nf4.filter(|_| !plan.method.takes_from_weights()),
        chat: plan.chat().clone(),
        system_prompt: plan.sample.system_prompt.clone(),
        template: plan.chat().own.as_ref().map(|own| own.sha256()),
        learnt: learnt_turns(plan),
        base: plan.base_mark()?,
    };
    let mut metadata = with.to_metadata();
    metadata.insert(BASE_HASH.to_owned(), base_hash(base));
    let values = trainer.values_by_name();
    let (base, config) = (&plan.model_folder, &plan.config);
    let learnt = Learnt { base, config, tensors: &tensors, values: &values, began, metadata };
    Ok(plan.method.write(out, &learnt)?)
}

/// Which turns are learnt, where they are others than the assistant's.
fn learnt_turns(plan: &Plan) -> Option<String> {
    let recipe = plan.recipe.to_value();
    let said = |key: &str| recipe["data"][key].to_string();
    if plan.recipe.data.train_on_inputs {
        return Some(format!("train_on_inputs: {}", said("train_on_inputs")));
    }
    let is_usual = plan.recipe.data.train_on == TrainOn::default();
    (!is_usual).then(|| said("train_on"))
}

/// Writes what was learnt: the adapter, or the fully trained model. A model of it that answers with what
/// is no number is not written.
fn write_result<B: Backend, P: Trainable<B>>(run: &mut Run<'_, B, P>) -> Result<PathBuf, RunError> {
    let (plan, step) = (run.plan, run.position.step);
    let learns = plan.method.learns();
    let name = result_name(learns);
    let of = run.folder.trained_sha256().to_owned();
    if run.folder.has(name, step, &of)? {
        return Ok(run.folder.path().join(name));
    }
    run.check_values()?;
    if learns == Learns::Model {
        inputs::check_base(plan, &run.folder.manifest().inputs)?;
    }
    let scorer = Scorer { model: &run.trainer.model, precision: plan.precision };
    match scorer.score(&run.data.train.choose(&[0]), &mut |_| ()) {
        Ok(_) => {}
        Err(ScoreError::NotANumber { nll: loss, .. }) => {
            return Err(RunError::NoAnswer { step, loss });
        }
        Err(other) => return Err(other.into()),
    }
    let base = run.folder.manifest().inputs.base.clone();
    let (began, trainer) = (&run.began, &mut run.trainer);
    let make = |path: &Path| write_learnt(path, plan, &base, began, trainer);
    let (made, told) = run.folder.make_folder(name, step, &of, make);
    tell_of_kept(&told);
    made?;
    Ok(run.folder.path().join(name))
}

/// Says where files are that somebody put where the run makes its own.
pub(super) fn tell_of_kept(told: &[String]) {
    for what in told {
        warn(what);
    }
}

/// Scores the result, unless it was.
fn score<B: Backend, P: Trainable<B>>(run: &mut Run<'_, B, P>) -> Result<Scores, RunError> {
    let step = run.position.step;
    let of = format!("{} asked {}", run.folder.trained_sha256(), run.asked);
    let made = match run.folder.content(AFTER, step, &of)? {
        Content::Whole(text) => Scores::read(&text),
        Content::None | Content::Other | Content::Damaged(_) => None,
    };
    let after = if let Some(after) = made {
        after
    } else {
        let validated = run.validated.filter(|(behind, _)| *behind == step).map(|(_, found)| found);
        let model = &run.trainer.model;
        let after =
            Scores::of(run.voice, "score the result", run.plan, run.data, model, validated)?;
        let changed = run.folder.put(AFTER, step, &of, after.to_text().as_bytes())?;
        tell_of_changed(run, changed)?;
        after
    };
    run.log_validation(step, &after)?;
    Ok(after)
}

/// Merges, where that is asked for and was not done: the folder, and how far its model is off.
fn merge<B: Backend, P: Trainable<B>>(
    run: &mut Run<'_, B, P>,
) -> Result<Option<(PathBuf, Option<f64>)>, RunError> {
    let (plan, step) = (run.plan, run.position.step);
    if !plan.merges() {
        if let Some(earlier) = run.folder.left_behind(MERGED) {
            warn(&format!(
                "`{}` holds a model as it was after step {earlier}, and not what the run came to at \
                 step {step}: merge again with `--resume finish.merge=true`, or remove it",
                run.folder.path().join(MERGED).display()
            ));
        }
        return Ok(None);
    }
    let of = format!("{} onto {}", run.folder.trained_sha256(), plan.finish.onto.name());
    if run.folder.has(MERGED, step, &of)? {
        return Ok(Some((run.folder.path().join(MERGED), None)));
    }
    inputs::check_base(plan, &run.folder.manifest().inputs)?;
    let (data, trainer, voice) = (run.data, &run.trainer, run.voice);
    let adapter = run.folder.path().join(ADAPTER);
    let make = |path: &Path| write_merged(voice, plan, data, trainer, &adapter, path);
    let (divergence, told) = run.folder.make_folder(MERGED, step, &of, make);
    tell_of_kept(&told);
    Ok(Some((run.folder.path().join(MERGED), Some(divergence?.mean))))
}

/// Merges the adapter, compared with the trained model before it takes its place.
fn write_merged<B: Backend, P: Trainable<B>>(
    voice: Voice,
    plan: &Plan,
    data: &LoadedData,
    trainer: &Trainer<B, P>,
    adapter: &Path,
    out: &Path,
) -> Result<Divergence, RunError> {
    let adapter = PeftAdapter::open(adapter)?;
    let told = TrainedWith::of_models(&adapter);
    let request = Merge {
        base: &plan.model_folder,
        config: &plan.config,
        adapter: &adapter,
        onto: onto(plan.finish.onto, plan.nf4),
        told: &told,
    };
    let bound = MergeBound::of(plan.finish.onto, plan.nf4);
    let probe = Probe::of(&data.train)?;
    let precision = plan.precision;
    let (allowed, max_shard_bytes) = (bound.refused(), ShardedWriter::MAX_SHARD_BYTES);
    let how = Merging { probe: &probe, precision, max_shard_bytes, allowed, voice };
    let expected = |probe: &Probe| Ok::<_, RunError>(probe.hear(&trainer.model, precision));
    let (_, divergence) = merging::write(out, &request, &how, expected)?;
    if let Some(warning) = bound.warning(divergence.mean) {
        voice.note(&format!("warning: {warning}"));
    }
    Ok(divergence)
}

fn write_report<B: Backend, P: Trainable<B>>(
    run: &mut Run<'_, B, P>,
    after: &Scores,
    status: &Status,
    peak: Option<u64>,
) -> Result<(), RunError> {
    let text = report(run, after, status, peak)?.render();
    let changed = run.folder.put(REPORT, run.position.step, "", text.as_bytes())?;
    tell_of_changed(run, changed)
}

/// Records and says that a file was not as the run had made it.
fn tell_of_changed<B: Backend, P: Trainable<B>>(
    run: &mut Run<'_, B, P>,
    changed: Option<Mended>,
) -> Result<(), RunError> {
    if let Some(changed) = changed {
        say_mended(&run.folder.mended(run.position.step, changed)?);
    }
    Ok(())
}

fn report<B: Backend, P: Trainable<B>>(
    run: &Run<'_, B, P>,
    after: &Scores,
    status: &Status,
    peak_memory_bytes: Option<u64>,
) -> Result<Report, RunError> {
    let mut train = Vec::new();
    let mut eval = Vec::new();
    for line in metrics::read(&run.folder.metrics_path())? {
        match line {
            Line::Train(line) => train.push(line),
            Line::Eval(line) => eval.push(line),
        }
    }
    let before = &run.before;
    let answer =
        |text: &String, expected: &str| Answer { text: text.clone(), right: text == expected };
    let samples = run.data.held_out().iter().zip(&before.samples).zip(&after.samples);
    let prompts = run.plan.finish.prompts.iter().zip(&before.prompts).zip(&after.prompts);
    Ok(Report {
        manifest: run.folder.ending(status),
        recipe: run.plan.recipe.to_yaml(),
        seconds: run.position.seconds,
        tokens: run.position.tokens,
        target_tokens: run.position.target_tokens,
        tokens_per_second: run.position.tokens as f64 / run.position.seconds.max(f64::EPSILON),
        peak_memory_bytes,
        train,
        eval,
        scores: score_rows(run, after),
        samples: samples
            .map(|((row, base), tuned)| Sample {
                question: row.question.clone(),
                expected: row.expected.clone(),
                base: answer(base, &row.expected),
                tuned: answer(tuned, &row.expected),
            })
            .collect(),
        prompts: prompts
            .map(|((prompt, base), tuned)| PromptAnswer {
                prompt: prompt.clone(),
                base: Some(base.clone()),
                tuned: tuned.clone(),
            })
            .collect(),
    })
}

fn score_rows<B: Backend, P>(run: &Run<'_, B, P>, after: &Scores) -> Vec<Score> {
    let before = &run.before;
    let row = |name: &str, on: String, unit, better, values: [Option<f64>; 2]| {
        let [before, after] = values;
        (before.is_some() || after.is_some()).then(|| Score {
            name: name.to_owned(),
            on,
            unit,
            better,
            before,
            after,
        })
    };
    let share = |scores: &Scores| scores.exact.map(super::scores::Exact::share);
    let rows = |count: usize| format!("{count} rows");
    [
        row(
            "Exact match",
            rows(run.data.held_out().len()),
            ScoreUnit::Share,
            Better::Higher,
            [share(before), share(after)],
        ),
        row(
            "General perplexity",
            rows(run.data.general.len()),
            ScoreUnit::Number,
            Better::Lower,
            [before.general_perplexity, after.general_perplexity],
        ),
        row(
            "Validation loss",
            rows(run.data.validation.len()),
            ScoreUnit::Number,
            Better::Lower,
            [before.validation_loss, after.validation_loss],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
