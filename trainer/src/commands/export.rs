//! `graft export`: a model, or an adapter by itself, as a file of another program's.

use graft_adapters::gguf::{self, Written};
use graft_adapters::{PeftAdapter, Rank};
use graft_engine::probe::Divergence;
use graft_gguf::TensorType;
use graft_gguf::mixture::Mixture;
use graft_kernels::nf4::AbsmaxFormat;
use graft_recipes::Target;

use super::open::Opening;
use crate::cli::export_args::{ExportArgs, ExportType};
use crate::cli::failure::WrongUse;
use crate::cli::{Globals, page};
use crate::exporting::{self, Comparing};
use crate::merge_bound::onto;
use crate::serving::{Rows, Serving};
use crate::{gguf_tokenizer, merging, signals};

/// Writes the file.
///
/// # Errors
/// Base or adapter are unusable or have no form in the file; the place is taken; the disk refuses; the file answers
/// otherwise than base and adapter do.
pub fn run(globals: &Globals, args: &ExportArgs) -> anyhow::Result<()> {
    signals::listen()?;
    signals::work_begins(globals.voice());
    args.check()?;
    let opening = Opening::new(&args.model, args.adapter.as_deref(), args.tokenizer.as_deref())?;
    opening.warn(globals)?;
    opening.keep_as_private(&args.out)?;
    let rows = match &opening.adapter {
        _ if args.target.is_some() => serve(globals, args, &opening)?,
        Some(adapter) if args.adapter_only => adapter_only(args, &opening, adapter)?,
        _ => whole(globals, args, &opening)?,
    };
    Ok(page::print(&page::table(&rows))?)
}

/// What the program takes that it is for.
fn serve(globals: &Globals, args: &ExportArgs, opening: &Opening) -> anyhow::Result<Rows> {
    let target = args.target.expect("it is asked for");
    let files = &opening.files;
    let nf4 = match &opening.adapter {
        Some(_) => args.weights.nf4(&files.config, &opening.trained, &args.model)?,
        None => None,
    };
    let is_merged = target == Target::Ollama;
    let asked = args.r#type.unwrap_or(ExportType::F16);
    let kind = match target {
        Target::LlamaCpp => plain_type(args.r#type)?,
        _ => TensorType::F32,
    };
    let usual = if is_merged { args.allowed(asked, nf4) } else { f64::INFINITY };
    let serving = Serving {
        target,
        files,
        adapter: opening.adapter.as_ref().zip(args.adapter.as_deref()),
        trained: &opening.trained,
        nf4,
        onto: onto(args.weights.onto, nf4),
        rank: args.rank.map(Rank),
        mixture: asked.mixture(),
        kind,
        allowed: args.tolerance.map_or(usual, f64::from),
        name: opening.name(),
        voice: globals.voice(),
    };
    serving.write(&args.out)
}

/// The type of an adapter's matrices.
fn plain_type(asked: Option<ExportType>) -> Result<TensorType, WrongUse> {
    match asked.unwrap_or(ExportType::F32) {
        ExportType::F32 => Ok(TensorType::F32),
        ExportType::F16 => Ok(TensorType::F16),
        ExportType::Bf16 => Ok(TensorType::Bf16),
        other => Err(WrongUse(format!(
            "an adapter's matrices are too narrow for blocks: `--type {}` is for a whole model; take \
             f32, f16 or bf16",
            other.name()
        ))),
    }
}

fn adapter_only(
    args: &ExportArgs,
    opening: &Opening,
    adapter: &PeftAdapter,
) -> anyhow::Result<Rows> {
    let kind = plain_type(args.r#type)?;
    let (folder, config) = (&opening.files.folder, &opening.files.config);
    let name = opening.name();
    let written = gguf::write_adapter(&args.out, folder, config, adapter, &name, kind)?;
    let updates = adapter.config().sites.len();
    Ok(vec![
        ("written", written.path.display().to_string()),
        ("size", page::bytes(written.bytes)),
        ("holds", format!("{updates} updates, for the base beside it: `--lora` of llama.cpp")),
    ])
}

fn whole(globals: &Globals, args: &ExportArgs, opening: &Opening) -> anyhow::Result<Rows> {
    let (files, asked) = (&opening.files, args.r#type.unwrap_or(ExportType::F16));
    let nf4 = match &opening.adapter {
        Some(_) => args.weights.nf4(&files.config, &opening.trained, &args.model)?,
        None => None,
    };
    let adapter = opening.adapter.as_ref().map(|adapter| (adapter, onto(args.weights.onto, nf4)));
    let export = exporting::export_of(files, adapter, asked.mixture(), opening.name())?;
    let has_template = gguf_tokenizer::has_template(&export.tokenizer);
    let how = Comparing { nf4, allowed: args.allowed(asked, nf4), voice: globals.voice() };
    let (written, divergence) = exporting::write(&args.out, &export, how)?;
    let mut rows = vec![
        ("written", written.path.display().to_string()),
        ("size", page::bytes(written.bytes)),
        ("tensors", kinds(&written)),
        ("compared", compared(divergence, opening.adapter.is_some(), nf4)),
    ];
    if !has_template {
        let none =
            "none: the model brings none, and servers then guess one; give it with --tokenizer DIR";
        rows.push(("chat", none.to_owned()));
    }
    if let Some(system) = &opening.trained.system_prompt {
        rows.push((
            "trained with",
            format!("the system prompt {system:?}: the server has to send it"),
        ));
    }
    Ok(rows)
}

fn kinds(written: &Written) -> String {
    let kinds = written.kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
    kinds.collect::<Vec<_>>().join(", ")
}

fn compared(divergence: Divergence, adapted: bool, nf4: Option<AbsmaxFormat>) -> String {
    let model = match (adapted, nf4) {
        (false, _) => "the model as stored",
        (true, None) => "base + adapter",
        (true, Some(_)) => "base in NF4 + adapter",
    };
    merging::in_words(&divergence, model)
}

impl ExportType {
    /// The types of the tensors.
    fn mixture(self) -> Mixture {
        match self {
            Self::F32 => Mixture::All(TensorType::F32),
            Self::F16 => Mixture::All(TensorType::F16),
            Self::Bf16 => Mixture::All(TensorType::Bf16),
            Self::Q8_0 => Mixture::All(TensorType::Q8_0),
            Self::Q4KM => Mixture::Q4KM,
        }
    }
}
