//! `graft eval`: loss, perplexity and exact answers on rows; the scoring that others can compare with.

use graft_data::{Dataset, SampleOptions, SourceFile};
use graft_kernels::Precision;
use graft_model::{Projection, atomic, place};
use serde_json::{Value, json};

use super::open::Opening;
use crate::cli::model_args::EvalArgs;
use crate::cli::{Globals, page};
use crate::device::{Backend, OnBackend};
use crate::evaluate::{RowScore, Scorer, Totals};
use crate::plan::{HeldOut, ModelFiles, held_out_rows};
use crate::progress::{Progress, Unit};
use crate::{privacy, signals};

/// Scores a model on a file.
///
/// # Errors
/// Model, adapter or rows are unusable; the output cannot be written.
pub fn run(globals: &Globals, args: &EvalArgs) -> anyhow::Result<()> {
    signals::listen()?;
    let device = globals.device.open()?;
    let precision = args.model.precision(&device, globals);
    device.run(Scoring { args, precision })
}

/// The work on whichever backend there is.
struct Scoring<'a> {
    args: &'a EvalArgs,
    precision: Precision,
}

impl OnBackend for Scoring<'_> {
    type Output = anyhow::Result<()>;

    fn on<B: Backend>(self, device: &B::Device) -> Self::Output {
        let Self { args, precision } = self;
        let opening = Opening::new(&args.model.model, args.model.adapter.as_deref())?;
        let files = &opening.files;
        if let Some(path) = &args.per_example {
            place::new_file(path)?;
            place::outside(path, &files.folder)?;
            privacy::as_private_as([std::path::Path::new(&args.data)]);
        }
        let nf4 = args.model.nf4(&files.config, &opening.trained)?;
        let source = super::data::source(&args.data, args.format)?;
        let longest = files.config.max_position_embeddings;
        let options = SampleOptions {
            chat: args.model.chat(&opening.trained, opening.files.template.as_ref()),
            ..SampleOptions::new(args.max_seq_len.map_or(longest, std::num::NonZeroUsize::get))
        };
        let sources = [source];
        let rows = Dataset::load(&sources, &files.tokenizer, &options)?;
        let questions = questions(args, &sources, files, &options)?;
        let model = opening.load::<B>(nf4, device)?;
        let scorer = Scorer { model: &model, precision };
        let progress = Progress::new("score", rows.samples.len() as u64, Unit::Count("rows"));
        let fields = Default::default();
        let scores =
            scorer.score(&rows.samples, &mut |done| progress.step(done as u64, &fields))?;
        progress.finish(&format!("{} rows", scores.len()));
        if let Some(path) = &args.per_example {
            write_rows(path, &scores)?;
        }
        let exact = exact(args, &scorer, &questions, files)?;
        let totals = Totals::of(&scores);
        if args.json {
            return Ok(page::print_json(&as_json(scores.len(), totals, exact))?);
        }
        let mut table = vec![
            ("rows", page::grouped(scores.len() as u64)),
            ("target tokens", page::grouped(totals.targets as u64)),
            ("loss", format!("{:.6} nats a target token", totals.loss())),
            ("perplexity", format!("{:.4}", totals.perplexity())),
        ];
        if let Some((right, asked)) = exact {
            let percent = 100.0 * right as f64 / asked as f64;
            table.push(("exact match", format!("{percent:.1} % ({right} of {asked})")));
        }
        Ok(page::print(&page::table(&table))?)
    }
}

fn questions(
    args: &EvalArgs,
    sources: &[SourceFile],
    files: &ModelFiles,
    options: &SampleOptions,
) -> anyhow::Result<Vec<HeldOut>> {
    if !args.exact_match {
        return Ok(Vec::new());
    }
    Ok(held_out_rows(sources, &files.tokenizer, options)?)
}

/// Answers given exactly, and questions asked.
fn exact<B: Backend, P: Projection<B>>(
    args: &EvalArgs,
    scorer: &Scorer<'_, B, P>,
    questions: &[HeldOut],
    files: &ModelFiles,
) -> anyhow::Result<Option<(usize, usize)>> {
    if questions.is_empty() {
        return Ok(None);
    }
    let prompts: Vec<Vec<u32>> = questions.iter().map(|row| row.prompt.clone()).collect();
    let progress = Progress::new("answer", prompts.len() as u64, Unit::Count("questions"));
    let fields = Default::default();
    let max_new = args.max_new_tokens.get();
    let answers = scorer.answers(&prompts, &files.tokenizer, max_new, &mut |done| {
        progress.step(done as u64, &fields);
    })?;
    progress.finish(&format!("{} questions", answers.len()));
    let right = answers.iter().zip(questions).filter(|(answer, row)| **answer == row.expected);
    Ok(Some((right.count(), answers.len())))
}

fn write_rows(path: &std::path::Path, scores: &[RowScore]) -> anyhow::Result<()> {
    atomic::create_file::<std::io::Error>(path, |out| {
        for (index, RowScore { nll, targets }) in scores.iter().enumerate() {
            writeln!(out, "{}", json!({"index": index, "nll": nll, "target_tokens": targets}))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn as_json(rows: usize, totals: Totals, exact: Option<(usize, usize)>) -> Value {
    let mut value = json!({
        "rows": rows,
        "nll": totals.nll,
        "target_tokens": totals.targets,
        "loss": totals.loss(),
        "perplexity": totals.perplexity(),
    });
    if let Some((right, asked)) = exact {
        let share = right as f64 / asked as f64;
        value["exact_match"] = json!({"right": right, "asked": asked, "share": share});
    }
    value
}
