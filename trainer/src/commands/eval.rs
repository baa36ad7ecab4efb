//! `graft eval`: loss, perplexity and exact answers on rows; the scoring that others can compare with.

mod asked;

use std::path::PathBuf;

use graft_data::Origin;
use graft_files::{atomic, place};
use graft_model::Projection;
use serde_json::{Value, json};

use crate::cli::failure::WrongUse;
use crate::cli::model_args::EvalArgs;
use crate::cli::{Globals, on_threads, page};
use crate::device::{Backend, OnBackend};
use crate::progress::{Progress, Unit, Voice};
use crate::{privacy, signals};
use asked::{Asked, Rows};
use graft_engine::score::{RowScore, ScoreError, Scorer, Totals};

/// Scores a model on a file, or on what a recipe measures.
///
/// # Errors
/// Model, adapter or rows are unusable; scores are no numbers; the output cannot be written.
pub fn run(globals: &Globals, args: &EvalArgs) -> anyhow::Result<()> {
    signals::listen()?;
    if let Some(path) = &args.per_example {
        place::new_file(path)?;
    }
    let answers_rows = args.recipe.is_none() || args.data.is_some();
    if answers_rows && args.max_new_tokens.is_some() && !args.exact_match {
        let message = "--max-new-tokens bounds answers, and none is asked for: add --exact-match, or leave \
                       it out";
        return Err(WrongUse(message.to_owned()).into());
    }
    let device = globals.device.open()?;
    let asked = match &args.recipe {
        Some(recipe) => asked::by_recipe(globals, args, recipe, &device)?,
        None => asked::by_flags(globals, args, &device)?,
    };
    if args.per_example.is_some() && asked.rows.samples.is_empty() {
        let message = "--per-example lists the losses of rows, and there are none: the recipe sets no \
                       data.validation; give rows with --data and --format";
        return Err(WrongUse(message.to_owned()).into());
    }
    if let Some(path) = &args.per_example {
        asked.opening.files.folder.check_outside(path)?;
        privacy::as_private_as(path, asked.rows.files.iter().map(PathBuf::as_path));
    }
    asked.opening.warn(globals)?;
    on_threads(|| device.run(Scoring { args, asked, voice: globals.voice() }))
}

/// The work on whichever backend there is.
struct Scoring<'a> {
    args: &'a EvalArgs,
    asked: Asked,
    voice: Voice,
}

/// What was found.
#[derive(Default)]
struct Found {
    rows: usize,
    totals: Option<Totals>,
    general: Option<Totals>,
    /// Answers given exactly, and questions asked.
    exact: Option<(usize, usize)>,
}

impl OnBackend for Scoring<'_> {
    type Output = anyhow::Result<()>;

    fn on<B: Backend>(self, device: &B::Device) -> Self::Output {
        let Self { args, asked, voice } = self;
        let model = asked.opening.load::<B>(voice, asked.nf4, device)?;
        let scorer = Scorer { model: &model, precision: asked.precision };
        let scores = score(voice, &scorer, "score", &asked.rows)?;
        let general = score(voice, &scorer, "score general text", &asked.general)?;
        let found = Found {
            rows: scores.len(),
            totals: (!scores.is_empty()).then(|| Totals::of(&scores)),
            general: (!general.is_empty()).then(|| Totals::of(&general)),
            exact: exact(voice, &scorer, &asked)?,
        };
        if let Some(path) = &args.per_example {
            write_rows(path, &scores, &asked.rows)?;
        }
        if args.json {
            return Ok(page::print_json(&found.json(&asked))?);
        }
        Ok(page::print(&page::table(&found.table(&asked)))?)
    }
}

fn score<B: Backend, P: Projection<B>>(
    voice: Voice,
    scorer: &Scorer<'_, B, P>,
    title: &str,
    rows: &Rows,
) -> anyhow::Result<Vec<RowScore>> {
    if rows.samples.is_empty() {
        return Ok(Vec::new());
    }
    let progress = Progress::new(voice, title, rows.samples.len() as u64, Unit::Count("rows"));
    let fields = Default::default();
    let scores = scorer
        .score(&rows.samples, &mut |done| progress.step(done as u64, &fields))
        .map_err(|error| rows.named(error))?;
    progress.finish(&format!("{} rows", scores.len()));
    Ok(scores)
}

/// Answers given exactly, and questions asked.
fn exact<B: Backend, P: Projection<B>>(
    voice: Voice,
    scorer: &Scorer<'_, B, P>,
    asked: &Asked,
) -> anyhow::Result<Option<(usize, usize)>> {
    let questions = &asked.questions;
    if questions.is_empty() {
        return Ok(None);
    }
    let prompts: Vec<Vec<u32>> = questions.iter().map(|row| row.prompt.clone()).collect();
    let progress = Progress::new(voice, "answer", prompts.len() as u64, Unit::Count("questions"));
    let fields = Default::default();
    let tokenizer = &asked.opening.files.tokenizer;
    let answers = scorer.answers(&prompts, tokenizer, asked.max_new, &mut |done| {
        progress.step(done as u64, &fields);
    });
    let answers = answers.map_err(|error| match error {
        ScoreError::Generate(error) => asked.opening.named(error),
        other => other.into(),
    })?;
    progress.finish(&format!("{} questions", answers.len()));
    let right = answers.iter().zip(questions).filter(|(answer, row)| **answer == row.expected);
    Ok(Some((right.count(), answers.len())))
}

/// A line for each scored row, in order: a row that was split has several, one that was dropped has none, so
/// that file and line say which is which.
fn write_rows(path: &std::path::Path, scores: &[RowScore], rows: &Rows) -> anyhow::Result<()> {
    atomic::create_file::<std::io::Error>(path, |out| {
        for (index, (RowScore { nll, targets }, sample)) in
            scores.iter().zip(rows.samples.iter()).enumerate()
        {
            let Origin { file, line, item } = sample.map_err(std::io::Error::other)?.origin;
            let mut row = json!({
                "index": index, "nll": nll, "target_tokens": targets, "file": &rows.files[file],
                "line": (line > 0).then_some(line),
            });
            if let Some(item) = item {
                row["item"] = item.into();
            }
            writeln!(out, "{row}")?;
        }
        Ok(())
    })?;
    Ok(())
}

impl Found {
    fn table(&self, asked: &Asked) -> Vec<(&'static str, String)> {
        let Self { rows, totals, general, exact } = self;
        let mut table = Vec::new();
        if let Some(totals) = totals {
            table.extend([
                ("rows", page::grouped(*rows as u64)),
                ("target tokens", page::grouped(totals.targets as u64)),
                ("loss", format!("{:.6} nats a target token", totals.loss())),
                ("perplexity", format!("{:.4}", totals.perplexity())),
            ]);
        }
        if !asked.rows.counts.otherwise.is_empty() {
            table.push(("of the file's", asked.rows.counts.to_string()));
        }
        if let Some(general) = general {
            table.push(("general", format!("perplexity {:.4}", general.perplexity())));
        }
        if let Some((right, asked)) = exact {
            let percent = 100.0 * *right as f64 / *asked as f64;
            table.push(("exact match", format!("{percent:.1} % ({right} of {asked})")));
        }
        if let Some(system) = &asked.system {
            table.push(("system prompt", system.clone()));
        }
        table
    }

    fn json(&self, asked: &Asked) -> Value {
        let Self { rows, totals, general, exact } = self;
        let mut value = json!({"rows": rows});
        if asked.rows.counts.rows > 0 {
            value["of"] = json!(asked.rows.counts);
        }
        if let Some(totals) = totals {
            value["nll"] = json!(totals.nll);
            value["target_tokens"] = json!(totals.targets);
            value["loss"] = json!(totals.loss());
            value["perplexity"] = json!(totals.perplexity());
        }
        if let Some(general) = general {
            value["general_perplexity"] = json!(general.perplexity());
        }
        if let Some((right, asked)) = exact {
            let share = *right as f64 / *asked as f64;
            value["exact_match"] = json!({"right": right, "asked": asked, "share": share});
        }
        if let Some(system) = &asked.system {
            value["system_prompt"] = json!(system);
        }
        value
    }
}
