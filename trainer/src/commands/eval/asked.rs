//! What is scored, and how: as flags say it, or as a recipe's run does it.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use graft_data::{Dataset, RowCounts, SampleOptions, Samples, SourceFile, Tokenizer};
use graft_kernels::Precision;
use graft_kernels::nf4::AbsmaxFormat;
use graft_recipes::TrainOn;

use crate::cli::Globals;
use crate::cli::failure::WrongUse;
use crate::cli::model_args::EvalArgs;
use crate::cli::page::grouped;
use crate::commands::data;
use crate::commands::open::Opening;
use crate::device::Device;
use crate::plan::{
    HeldOut, Plan, Resolved, Start, answers_without_end, held_out_rows, no_room, without_room,
};
use graft_engine::score::ScoreError;

/// Tokens of an answer, where neither a flag nor a recipe says otherwise.
const MAX_NEW: usize = 64;

/// What is scored, and how.
pub(super) struct Asked {
    pub(super) opening: Opening,
    pub(super) nf4: Option<AbsmaxFormat>,
    pub(super) precision: Precision,
    /// Rows for the loss.
    pub(super) rows: Rows,
    /// Text of general ability, of a recipe.
    pub(super) general: Rows,
    /// Questions for exact match.
    pub(super) questions: Vec<HeldOut>,
    pub(super) max_new: usize,
    /// System prompt of rows that bring none.
    pub(super) system: Option<String>,
}

/// Rows as samples, and the files they are from.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) samples: Samples,
    pub(super) files: Vec<PathBuf>,
    /// How many rows the files have, and what became of them.
    pub(super) counts: RowCounts,
}

impl Rows {
    fn new(samples: Samples, files: &[SourceFile], counts: RowCounts) -> Self {
        Self { samples, files: files.iter().map(|file| file.path.clone()).collect(), counts }
    }

    fn read(
        files: &[SourceFile],
        tokenizer: &Tokenizer,
        options: &SampleOptions,
        globals: &Globals,
    ) -> anyhow::Result<Self> {
        let Dataset { samples, statistics, .. } = Dataset::load(files, tokenizer, options)?;
        for file in files {
            let from = file.path.display().to_string();
            if let Some(found) = answers_without_end(&from, "scored", &statistics, tokenizer) {
                globals.note(&format!(
                    "warning: {found}: whether the model stops is not part of the score; look at one with \
                     `graft data`, and at what the chat template writes behind an answer"
                ));
            }
        }
        Ok(Self::new(samples, files, statistics.counts()))
    }

    /// An error of scoring, a row in it named by its file.
    pub(super) fn named(&self, error: ScoreError) -> anyhow::Error {
        let ScoreError::NotANumber { row, .. } = error else { return error.into() };
        let origin = match self.samples.origin_of(row) {
            Ok(origin) => origin,
            Err(error) => return error.into(),
        };
        let place = origin.place_in(&self.files[origin.file]);
        anyhow::Error::from(error).context(format!("{place} has no score"))
    }
}

/// A file of rows, with a model, as flags name them.
pub(super) fn by_flags(
    globals: &Globals,
    args: &EvalArgs,
    device: &Device,
) -> anyhow::Result<Asked> {
    let model = args.model.as_deref().expect("clap asks for --model where there is no --recipe");
    let opening = args.beside.open(model)?;
    let config = &opening.files.config;
    let longest = config.max_position_embeddings;
    let nf4 = args.beside.nf4(config, &opening.trained, model)?;
    let precision = args.beside.precision(device, globals);
    let max_seq_len = args.max_seq_len.map_or(longest, NonZeroUsize::get);
    if max_seq_len > longest {
        return Err(WrongUse(format!(
            "--max-seq-len is {}, but the model's longest sequence is {} (max_position_embeddings of \
             config.json): what stands beyond has no position that the model knows",
            grouped(max_seq_len as u64),
            grouped(longest as u64)
        ))
        .into());
    }
    let system = opening.system(args.system.as_deref(), globals);
    let options = SampleOptions {
        chat: args.beside.chat(&opening.trained, opening.files.template.as_ref()),
        system_prompt: system.clone(),
        overlong: args.overlong.unwrap_or_default(),
        train_on_inputs: args.train_on_inputs,
        ..SampleOptions::new(max_seq_len)
    };
    let max_new = args.max_new_tokens.map_or(MAX_NEW, NonZeroUsize::get);
    let sources = sources(args, &TrainOn::default(), globals)?;
    let tokenizer = &opening.files.tokenizer;
    let rows = Rows::read(&sources, tokenizer, &options, globals)?;
    let questions = questions(args, &sources, tokenizer, &options, max_new, longest)?;
    let general = Rows::default();
    Ok(Asked { opening, nf4, precision, rows, general, questions, max_new, system })
}

/// The file that flags name; none where they name none.
fn sources(
    args: &EvalArgs,
    train_on: &TrainOn,
    globals: &Globals,
) -> anyhow::Result<Vec<SourceFile>> {
    let (Some(data), Some(format)) = (&args.data, args.format) else {
        args.rows.need("--data")?;
        return Ok(Vec::new());
    };
    Ok(args.rows.read(data::sources(data, format, globals)?, format, train_on)?)
}

fn questions(
    args: &EvalArgs,
    sources: &[SourceFile],
    tokenizer: &Tokenizer,
    options: &SampleOptions,
    max_new: usize,
    longest: usize,
) -> anyhow::Result<Vec<HeldOut>> {
    if !args.exact_match {
        return Ok(Vec::new());
    }
    let questions = held_out_rows(sources, tokenizer, options)?.questions;
    if let Some(row) = without_room(&questions, max_new, longest) {
        let message =
            no_room(&row.question, row.prompt.len(), (max_new, "--max-new-tokens"), longest);
        return Err(WrongUse(message).into());
    }
    Ok(questions)
}

/// What a recipe's run measures, or a file of rows as that run would measure it.
pub(super) fn by_recipe(
    globals: &Globals,
    args: &EvalArgs,
    recipe: &str,
    device: &Device,
) -> anyhow::Result<Asked> {
    let recipe = graft_recipes::load(recipe, &overrides(args))?;
    globals.use_threads_of(&recipe)?;
    let model = recipe.model.path.to_string();
    let tokenizer = recipe.model.tokenizer.clone();
    let Resolved { plan, tokenizer: of_plan } =
        Plan::resolve_for(recipe, Start::Measuring, device.clone())?;
    for warning in &plan.warnings {
        globals.note(&format!("warning: {warning}"));
    }
    let opening = Opening::new(&model, args.beside.adapter.as_deref(), tokenizer.as_deref())?;
    let config = &opening.files.config;
    // Another model than the recipe's is kept as it is, or as its adapter was trained.
    let nf4 = match (args.beside.quantization, &args.model) {
        (None, None) => plan.nf4,
        _ => args.beside.nf4(config, &opening.trained, &model)?,
    };
    let (max_new, longest) = (plan.max_new_tokens.get(), config.max_position_embeddings);
    let system = plan.sample.system_prompt.clone();
    let precision = plan.precision;
    let sources = sources(args, &plan.recipe.data.train_on, globals)?;
    if !sources.is_empty() {
        let tokenizer = &opening.files.tokenizer;
        let rows = Rows::read(&sources, tokenizer, &plan.sample, globals)?;
        let questions = questions(args, &sources, tokenizer, &plan.sample, max_new, longest)?;
        let general = Rows::default();
        return Ok(Asked { opening, nf4, precision, rows, general, questions, max_new, system });
    }
    let data = plan.load_data(of_plan)?;
    let files = plan.validation_rows();
    let questions = data.questions.map_or_else(Vec::new, |questions| questions.held_out);
    if data.validation.is_empty() && data.general.is_empty() && questions.is_empty() {
        return Err(WrongUse(format!(
            "the recipe `{}` measures nothing: set data.validation, evaluation.held_out or \
             evaluation.general, or give rows with --data and --format",
            plan.recipe.name
        ))
        .into());
    }
    let counts = |key: &str| data.counts.get(key).cloned().unwrap_or_default();
    let rows = Rows::new(data.validation, files, counts("data.validation"));
    let general = Rows::new(data.general, &plan.general, counts("evaluation.general"));
    Ok(Asked { opening, nf4, precision, rows, general, questions, max_new, system })
}

/// The recipe's keys as the command line changes them: flags are keys under other names.
fn overrides(args: &EvalArgs) -> Vec<String> {
    let mut overrides = args.overrides.clone();
    // A text in JSON is the same text in YAML.
    let mut set =
        |key: &str, text: &str| overrides.push(format!("{key}={}", serde_json::json!(text)));
    if let Some(model) = &args.model {
        set("model.path", model);
    }
    if let Some(tokenizer) = &args.beside.tokenizer {
        set("model.tokenizer", &tokenizer.to_string_lossy());
    }
    if let Some(dtype) = args.beside.compute_dtype {
        set("training.compute_dtype", dtype.name());
    }
    if let Some(preamble) = args.beside.preamble {
        set("data.chat.preamble", preamble.name());
    }
    if args.beside.allow_losses {
        set("data.chat.losses", "allow");
    }
    if let Some(overlong) = args.overlong {
        set("data.overlong", overlong.name());
    }
    match args.system.as_deref() {
        None => {}
        Some("") => overrides.push("~data.system_prompt".to_owned()),
        Some(text) => set("data.system_prompt", text),
    }
    if args.train_on_inputs {
        overrides.push("data.train_on_inputs=true".to_owned());
    }
    if let Some(longest) = args.max_seq_len {
        overrides.push(format!("data.max_seq_len={longest}"));
    }
    if let Some(most) = args.max_new_tokens {
        overrides.push(format!("evaluation.max_new_tokens={most}"));
    }
    overrides
}
