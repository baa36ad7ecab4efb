//! `graft merge`: base and adapter in one folder, compared with both before it says done.

use std::path::PathBuf;

use burn_flex::{Flex, FlexDevice};
use graft_adapters::PeftAdapter;
use graft_adapters::merge::{self, Merge, Onto};
use graft_model::folder::ModelFolder;
use graft_model::stop;

use super::open::Opening;
use crate::cli::folder_args::MergeArgs;
use crate::cli::{Globals, page};
use crate::merge_bound::{MergeBound, onto};
use crate::progress::{Progress, Unit};
use crate::run::RunError;
use crate::{privacy, signals};
use graft_engine::probe::{Divergence, Probe};

/// Writes the merged folder.
///
/// # Errors
/// Base or adapter are unusable, the output is taken, the disk refuses, or the merged model answers
/// otherwise than base and adapter do.
pub fn run(globals: &Globals, args: &MergeArgs) -> anyhow::Result<()> {
    signals::listen()?;
    signals::work_begins();
    let opening = Opening::new(&args.model, Some(&args.adapter), args.tokenizer.as_deref())?;
    opening.warn(globals)?;
    let Opening { files, adapter, trained, .. } = &opening;
    let nf4 = args.nf4(&files.config, trained)?;
    let adapter = adapter.as_ref().expect("opened with an adapter");
    let onto = onto(args.onto, nf4);
    let request = Merge {
        base: &files.folder,
        config: &files.config,
        adapter,
        onto,
        max_shard_bytes: args.max_shard_size,
    };
    let adapter_folder =
        if args.adapter.is_dir() { Some(ModelFolder::at(&args.adapter)?) } else { None };
    let mut inputs = files.folder.paths()?;
    inputs.extend(adapter_folder.map_or(Ok(vec![args.adapter.clone()]), |folder| folder.paths())?);
    privacy::as_private_as(&args.out, inputs.iter().map(PathBuf::as_path));
    let progress = Progress::new("merge", None, Unit::Bytes);
    let fields = Default::default();
    let summary = merge::write(&args.out, &request, &mut |done, _| progress.step(done, &fields))?;
    progress.finish(&page::bytes(summary.tensor_bytes));
    let divergence = compare(args, &opening, nf4);
    if divergence.is_err() {
        // A model that nothing vouches for does not stay; what is told is why.
        let _ = std::fs::remove_dir_all(&args.out);
    }
    let divergence = divergence?;
    let bound = MergeBound::of(args.onto, nf4);
    let allowed = args.tolerance.map_or(bound.refused(), f64::from);
    if !divergence.is_within(allowed) {
        std::fs::remove_dir_all(&args.out)?;
        return Err(RunError::Merge { found: divergence.mean, allowed }.into());
    }
    let mut rows = vec![
        ("written", summary.folder.display().to_string()),
        (
            "weights",
            format!("{}: {}", summary.weight_files.join(", "), page::bytes(summary.tensor_bytes)),
        ),
        ("merged", merged(summary.changed, adapter, onto)),
        ("taken over", summary.copied.join(", ")),
        (
            "compared",
            format!(
                "mean {:.1e}, largest {:.1e} nats a token from base + adapter over {} tokens; \
                 same likeliest token at {:.1} %",
                divergence.mean,
                divergence.max,
                divergence.tokens,
                100.0 * divergence.agreement
            ),
        ),
    ];
    if let Some(system) = &trained.system_prompt {
        rows.push(("trained with", format!("the system prompt {system:?}: give it with --system")));
    }
    rows.extend(bound.warning(divergence.mean).map(|warning| ("warning", warning)));
    Ok(page::print(&page::table(&rows))?)
}

/// What was merged: projections, and tables that the adapter brings whole.
fn merged(changed: usize, adapter: &PeftAdapter, onto: Onto) -> String {
    let tables: Vec<&str> = adapter.table_names().collect();
    let projections = changed - tables.len();
    let whole = if tables.is_empty() { String::new() } else { format!("; {}", tables.join(", ")) };
    format!("{projections} projections, onto {}{whole}", base_words(onto))
}

/// Both models on one probe, one after the other in memory, on the CPU as they were merged.
fn compare(args: &MergeArgs, opening: &Opening, nf4: Option<bool>) -> anyhow::Result<Divergence> {
    let probe = Probe::spread(opening.files.config.vocab_size);
    let precision = graft_kernels::Precision::F32;
    let expected = probe.hear(&opening.load::<Flex>(nf4, &FlexDevice)?, precision);
    let merged = Opening::new(&args.out.display().to_string(), None, None)?;
    stop::check()?;
    let found = probe.hear(&merged.load::<Flex>(None, &FlexDevice)?, precision);
    stop::check()?;
    Ok(Divergence::between(&expected, &found))
}

/// Which weights the update was added to.
fn base_words(onto: Onto) -> &'static str {
    match onto {
        Onto::Dequantised { .. } => "the dequantised weights that training saw",
        Onto::Original => "the weights as stored",
    }
}
