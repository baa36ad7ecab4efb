//! `graft quantize`: a model folder in NF4, once, for every later start.

use std::path::PathBuf;

use graft_adapters::quantize;
use graft_model::folder::ModelFolder;

use crate::cli::folder_args::QuantizeArgs;
use crate::cli::{Globals, page};
use crate::plan::{ModelFiles, read_config};
use crate::progress::{Progress, Unit};
use crate::{privacy, signals};

/// Writes the quantised folder.
///
/// # Errors
/// The base is unusable or quantised already; the output is taken; the disk refuses.
pub fn run(globals: &Globals, args: &QuantizeArgs) -> anyhow::Result<()> {
    signals::listen()?;
    signals::work_begins(globals.voice());
    let mut base = ModelFolder::open(&args.model)?;
    if let Some(tokenizer) = &args.tokenizer {
        base = base.with_tokenizer_of(&ModelFolder::at(tokenizer)?);
    }
    privacy::as_private_as(&args.out, base.paths()?.iter().map(PathBuf::as_path));
    let config = read_config(&base)?;
    if args.tokenizer.is_some() {
        // Of another model, the folder would be refused by every later command.
        ModelFiles::open_with(&args.model, args.tokenizer.as_deref())?;
    }
    let progress = Progress::new(globals.voice(), "quantise", None, Unit::Bytes);
    let fields = Default::default();
    let mut step = |done, _| progress.step(done, &fields);
    let summary = quantize::write(&args.out, &base, &config, args.double, &mut step)?;
    progress.finish(&page::bytes(summary.tensor_bytes));
    let mut rows = vec![
        ("written", summary.folder.display().to_string()),
        ("weights", page::bytes(summary.tensor_bytes)),
        ("quantised", format!("{} projections, the rest as stored", summary.changed)),
        ("taken over", summary.copied.join(", ")),
    ];
    let has_tokenizer = |name: &str| ["tokenizer.json", "tokenizer.model"].contains(&name);
    if !summary.copied.iter().any(|name| has_tokenizer(name)) {
        let none = "none: the base brings none, and no command that reads texts takes the folder without one; give it with \
                    --tokenizer DIR";
        rows.push(("tokenizer", none.to_owned()));
    }
    Ok(page::print(&page::table(&rows))?)
}
