//! `graft data`: statistics of what is trained on, and samples as the model sees them.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::Context as _;
use graft_data::{
    Dataset, Origin, PreviewStyle, RowPlace, Sample, SampleOptions, SourceFile, Statistics,
    Tokenizer, preview, preview_cut, visible,
};
use graft_recipes::Preamble;
use serde_json::{Value, json};

use crate::cli::failure::WrongUse;
use crate::cli::model_args::chat_template;
use crate::cli::recipe_args::DataArgs;
use crate::cli::{Globals, page};
use crate::plan::{TrainingData, open_tokenizer};
use crate::row_files;

/// Reads the data and shows it.
///
/// # Errors
/// The recipe, the model's tokenizer or the data are wrong.
pub fn run(globals: &Globals, args: &DataArgs) -> anyhow::Result<()> {
    let (tokenizer, dataset) = match &args.recipe {
        Some(recipe) => of_recipe(globals, recipe, &args.overrides)?,
        None => of_file(args)?,
    };
    let Dataset { samples, statistics, .. } = dataset;
    let shown = samples.iter().take(args.show).collect::<Result<Vec<_>, _>>()?;
    if args.json {
        return Ok(page::print_json(&as_json(&shown, &statistics, &tokenizer)?)?);
    }
    let colour = globals.colours_stdout();
    let style = if colour { PreviewStyle::Colour } else { PreviewStyle::Plain };
    let mut text = visible(&statistics.to_string()).into_owned();
    for (number, sample) in shown.iter().enumerate() {
        let place = place(sample, &statistics).to_string();
        let place = visible(&place);
        let (tokens, targets) = (sample.tokens.len(), sample.targets());
        let _ = write!(
            text,
            "\n── sample {}, {place}, {tokens} tokens, {targets} targets\n{}\n",
            number + 1,
            preview_cut(sample, &tokenizer, style)?
        );
    }
    // Colours stand in it.
    Ok(page::print_exact(&text)?)
}

fn of_recipe(
    globals: &Globals,
    recipe: &str,
    overrides: &[String],
) -> anyhow::Result<(Tokenizer, Dataset)> {
    let recipe = graft_recipes::load(recipe, overrides)?;
    globals.use_threads_of(&recipe)?;
    let TrainingData { tokenizer, dataset } = TrainingData::load(&recipe)?;
    Ok((tokenizer, dataset))
}

fn of_file(args: &DataArgs) -> anyhow::Result<(Tokenizer, Dataset)> {
    let all_three = "clap asks for a recipe, or for --file, --format and --model";
    let (tokenizer, template) = open_tokenizer(args.model.as_ref().context(all_three)?)?;
    let file = args.file.as_ref().context(all_three)?;
    let sources = sources(&file.to_string_lossy(), args.format.context(all_three)?)?;
    let options = SampleOptions {
        chat: chat_template(args.preamble.unwrap_or(Preamble::Official))
            .with_own(template.as_ref()),
        system_prompt: args.system.clone(),
        overlong: args.overlong.unwrap_or_default(),
        ..SampleOptions::new(args.max_seq_len.map_or(2_048, std::num::NonZeroUsize::get))
    };
    let dataset = Dataset::load(&sources, &tokenizer, &options)?;
    Ok((tokenizer, dataset))
}

/// Where the sample's row stands.
fn place(sample: &Sample, statistics: &Statistics) -> RowPlace {
    let Origin { file, line, item } = sample.origin;
    RowPlace { path: statistics.files[file].path.clone(), line, item }
}

/// The files that a flag names: a file, a folder or pattern of them, an embedded text by `builtin:NAME`, or
/// what comes from standard input, by `-`.
///
/// # Errors
/// No embedded text has the name, nothing is there, or standard input is a terminal.
pub fn sources(name: &str, format: graft_data::Format) -> anyhow::Result<Vec<SourceFile>> {
    if let Some(builtin) = name.strip_prefix("builtin:") {
        let source = SourceFile::builtin(builtin, format).ok_or_else(|| {
            let names: Vec<String> = SourceFile::builtin_names().collect();
            WrongUse(format!("`{name}` is not in this program; built in: {}", names.join(", ")))
        });
        return Ok(vec![source?]);
    }
    if name == "-" {
        let mut stdin = std::io::stdin().lock();
        if stdin.is_terminal() {
            let message =
                "`-` is standard input, which is a terminal here: give it rows, `graft … < FILE`";
            return Err(WrongUse(message.to_owned()).into());
        }
        let source = SourceFile::of_stream("standard input", format, &mut stdin);
        return Ok(vec![source.context("cannot keep what comes from standard input")?]);
    }
    let found = row_files::find(Path::new(name), format)
        .map_err(|error| WrongUse(format!("cannot read `{name}`: {error}")))?;
    Ok(found.files.into_iter().map(|path| SourceFile::new(path, format)).collect())
}

/// A label is the id of the same place where it counts in the loss, and -100 elsewhere; so the first
/// never counts. That is what transformers calls `labels`.
fn as_json(
    samples: &[Sample],
    statistics: &Statistics,
    tokenizer: &Tokenizer,
) -> Result<Value, graft_data::Error> {
    let sample = |sample: &Sample| -> Result<Value, graft_data::Error> {
        Ok(json!({
            "path": statistics.files[sample.origin.file].path,
            "line": sample.origin.line,
            "item": sample.origin.item,
            "tokens": sample.tokens,
            "labels": sample.labels,
            "text": preview(sample, tokenizer, PreviewStyle::Plain)?,
        }))
    };
    let samples: Vec<Value> = samples.iter().map(sample).collect::<Result<_, _>>()?;
    Ok(json!({"statistics": statistics, "samples": samples}))
}
