//! `graft data`: statistics of what is trained on, and samples as the model sees them.

mod found;
mod look;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use graft_data::{
    Origin, Preview, PreviewStyle, RowPlace, Sample, SampleOptions, SourceFile, Statistics, visible,
};
use graft_files::{atomic, place};
use graft_recipes::{Preamble, TrainOn};
use serde_json::{Value, json};

use crate::cli::failure::WrongUse;
use crate::cli::model_args::chat_template;
use crate::cli::recipe_args::DataArgs;
use crate::cli::{Globals, page};
use crate::plan::{LookedThrough, TrainingData, open_tokenizer};
use crate::report::data_page::{DataPage, Shown};
use crate::{privacy, row_files};
use look::Look;

/// Samples that are shown.
const ON_TERMINAL: usize = 3;
const ON_PAGE: usize = 20;

/// Reads the data and shows it.
///
/// # Errors
/// The recipe, the model's tokenizer or the data are wrong; the place of the page is taken.
pub fn run(globals: &Globals, args: &DataArgs) -> anyhow::Result<()> {
    if let Some(out) = &args.html {
        place::new_file(out)?;
    }
    let look = match &args.recipe {
        Some(recipe) => of_recipe(globals, recipe, args)?,
        None => of_file(globals, args)?,
    };
    if let Some(out) = &args.html {
        write_page(out, &look, args.show.unwrap_or(ON_PAGE))?;
        return Ok(page::print(&format!("written  {}", out.display()))?);
    }
    let samples = look.dataset.samples.iter().take(args.show.unwrap_or(ON_TERMINAL));
    let shown = samples.collect::<Result<Vec<_>, _>>()?;
    if args.json {
        return Ok(page::print_json(&as_json(&shown, &look)?)?);
    }
    let colour = globals.colours_stdout();
    let style = if colour { PreviewStyle::Colour } else { PreviewStyle::Plain };
    // Colours stand in it.
    Ok(page::print_exact(&as_text(&shown, &look, style)?)?)
}

fn as_text(shown: &[Sample], look: &Look, style: PreviewStyle) -> anyhow::Result<String> {
    let statistics = &look.dataset.statistics;
    let mut text = visible(&statistics.to_string()).into_owned();
    if let Some(LookedThrough { notes, .. }) = &look.through {
        let found = found::text(look.findings(), notes);
        let _ = write!(text, "\n{}", visible(&found));
    }
    let preview = preview(look);
    for (number, sample) in shown.iter().enumerate() {
        let title = title(sample, statistics);
        let title = visible(&title);
        let shown = preview.cut(sample, style)?;
        let _ = write!(text, "\n── sample {}, {title}\n{shown}\n", number + 1);
    }
    Ok(text)
}

fn preview(look: &Look) -> Preview<'_> {
    let masked = look.masked().map(|personal| &**personal);
    Preview { tokenizer: &look.tokenizer, masked }
}

fn title(sample: &Sample, statistics: &Statistics) -> String {
    let (tokens, targets) = (sample.tokens.len(), sample.targets());
    format!("{}, {tokens} tokens, {targets} targets", place(sample, statistics))
}

/// No more open than the most private file that is read for it.
fn write_page(out: &Path, look: &Look, shown: usize) -> anyhow::Result<()> {
    let statistics = &look.dataset.statistics;
    let preview = preview(look);
    let sample = |sample: Result<Sample, graft_data::Error>| -> Result<Shown, graft_data::Error> {
        let sample = sample?;
        let title = title(&sample, statistics);
        Ok(Shown { title, parts: preview.parts(&sample)? })
    };
    let samples = look.dataset.samples.iter().take(shown).map(sample).collect::<Result<_, _>>()?;
    let page = DataPage {
        title: &look.title,
        statistics,
        findings: look.findings(),
        notes: look.through.as_ref().map_or(&[], |through| &through.notes),
        pairs: look.pairs()?,
        samples,
    };
    let of_sections = look.through.iter().flat_map(|through| &through.sections);
    let measured = of_sections.flat_map(|(_, files)| files).map(|file| file.path.clone());
    let trained = statistics.files.iter().map(|file| file.path.clone());
    let read: Vec<PathBuf> = trained.chain(measured).collect();
    privacy::as_private_as(out, read.iter().map(PathBuf::as_path));
    let page = page.render();
    atomic::create_file::<std::io::Error>(out, |writer| writer.write_all(page.as_bytes()))?;
    Ok(())
}

fn of_recipe(globals: &Globals, recipe: &str, args: &DataArgs) -> anyhow::Result<Look> {
    args.rows.need("--file")?;
    let recipe = graft_recipes::load(recipe, &args.overrides)?;
    globals.use_threads_of(&recipe)?;
    let data = TrainingData::load(&recipe, !args.as_it_is)?;
    Ok(Look::of(recipe.name, data))
}

fn of_file(globals: &Globals, args: &DataArgs) -> anyhow::Result<Look> {
    let all_three = "clap asks for a recipe, or for --file, --format and --model";
    let (tokenizer, template) = open_tokenizer(args.model.as_ref().context(all_three)?)?;
    let file = args.file.as_ref().context(all_three)?;
    let format = args.format.context(all_three)?;
    let sources = sources(&file.to_string_lossy(), format, globals)?;
    let sources = args.rows.read(sources, format, &TrainOn::default())?;
    let options = SampleOptions {
        chat: chat_template(args.preamble.unwrap_or(Preamble::Official))
            .with_own(template.as_ref()),
        system_prompt: args.system.clone(),
        overlong: args.overlong.unwrap_or_default(),
        ..SampleOptions::new(args.max_seq_len.map_or(2_048, std::num::NonZeroUsize::get))
    };
    Look::at_files(file.display().to_string(), sources, tokenizer, &options, !args.as_it_is)
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
pub fn sources(
    name: &str,
    format: graft_data::Format,
    globals: &Globals,
) -> anyhow::Result<Vec<SourceFile>> {
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
    if let Some(warning) = row_files::warning(Path::new(name), &found.left_out) {
        globals.note(&format!("warning: {warning}"));
    }
    Ok(found.files.into_iter().map(|path| SourceFile::new(path, format)).collect())
}

/// A label is the id of the same place where it counts in the loss, and -100 elsewhere; so the first
/// never counts. That is what transformers calls `labels`. Where the text is shown with masks neither is told.
fn as_json(samples: &[Sample], look: &Look) -> Result<Value, graft_data::Error> {
    let (statistics, preview) = (&look.dataset.statistics, preview(look));
    let open = Preview { masked: None, ..preview };
    let sample = |sample: &Sample| -> Result<Value, graft_data::Error> {
        let text = preview.whole(sample, PreviewStyle::Plain)?;
        // Ids would say what the text has masks for.
        let is_masked =
            preview.masked.is_some() && text != open.whole(sample, PreviewStyle::Plain)?;
        let ids = |ids: Value| if is_masked { Value::Null } else { ids };
        Ok(json!({
            "path": statistics.files[sample.origin.file].path,
            "line": sample.origin.line,
            "item": sample.origin.item,
            "tokens": ids(json!(sample.tokens)),
            "labels": ids(json!(sample.labels)),
            "text": text,
        }))
    };
    let samples: Vec<Value> = samples.iter().map(sample).collect::<Result<_, _>>()?;
    let mut shown = json!({"statistics": statistics, "samples": samples});
    if let Some(through) = &look.through {
        shown["hygiene"] = json!(through.report);
    }
    Ok(shown)
}
