//! `graft merge`: base and adapter in one folder, compared with both before it says done.

use burn_flex::{Flex, FlexDevice};
use graft_adapters::PeftAdapter;
use graft_adapters::merge::{Merge, Onto};
use graft_kernels::Precision;

use super::open::Opening;
use crate::cli::folder_args::MergeArgs;
use crate::cli::{Globals, page};
use crate::merge_bound::{MergeBound, onto};
use crate::merging::{self, Merging};
use crate::signals;
use crate::trained_with::TrainedWith;
use graft_engine::probe::Probe;

/// Writes the merged folder.
///
/// # Errors
/// Base or adapter are unusable, the output is taken, the disk refuses, or the merged model answers
/// otherwise than base and adapter do.
pub fn run(globals: &Globals, args: &MergeArgs) -> anyhow::Result<()> {
    let voice = globals.voice();
    signals::listen()?;
    signals::work_begins(voice);
    let opening = Opening::new(&args.model, Some(&args.adapter), args.tokenizer.as_deref())?;
    let is_another = opening.warn(globals)?;
    let Opening { files, adapter, trained, .. } = &opening;
    let nf4 = args.weights.nf4(&files.config, trained, &args.model)?;
    let adapter = adapter.as_ref().expect("opened with an adapter");
    let onto = onto(args.weights.onto, nf4);
    let told = TrainedWith::of_models(adapter);
    let request = Merge { base: &files.folder, config: &files.config, adapter, onto, told: &told };
    opening.keep_as_private(&args.out)?;
    let bound = MergeBound::of(args.weights.onto, nf4);
    let probe = Probe::spread(files.config.vocab_size);
    let allowed = args.tolerance.map_or(bound.refused(), f64::from);
    let how = Merging {
        probe: &probe,
        precision: Precision::F32,
        max_shard_bytes: args.max_shard_size,
        allowed,
        voice,
    };
    // On the CPU, as they are merged.
    let expected = |probe: &Probe| {
        anyhow::Ok(probe.hear(&opening.load::<Flex>(voice, nf4, &FlexDevice)?, Precision::F32))
    };
    let (summary, divergence) = merging::write(&args.out, &request, &how, expected)?;
    let mut rows = vec![
        ("written", summary.folder.display().to_string()),
        (
            "weights",
            format!("{}: {}", summary.weight_files.join(", "), page::bytes(summary.tensor_bytes)),
        ),
        ("merged", merged(summary.changed, adapter, onto, is_another)),
        ("taken over", summary.copied.join(", ")),
        ("compared", merging::in_words(&divergence, "base + adapter")),
    ];
    if let Some(system) = &trained.system_prompt {
        rows.push(("trained with", format!("the system prompt {system:?}: give it with --system")));
    }
    rows.extend(bound.warning(divergence.mean).map(|warning| ("warning", warning)));
    Ok(page::print(&page::table(&rows))?)
}

/// What was merged: projections, and tables of which the adapter brings something.
fn merged(changed: usize, adapter: &PeftAdapter, onto: Onto, is_another: bool) -> String {
    let tables: Vec<&str> = adapter.config().tables.keys().map(|table| table.name()).collect();
    let projections = changed - tables.len();
    let whole = if tables.is_empty() { String::new() } else { format!("; {}", tables.join(", ")) };
    format!("{projections} projections, onto {}{whole}", base_words(onto, is_another))
}

/// Which weights the update was added to.
fn base_words(onto: Onto, is_another: bool) -> &'static str {
    match onto {
        Onto::Dequantised { .. } if is_another => {
            "the dequantised weights of another model than training saw"
        }
        Onto::Dequantised { .. } => "the dequantised weights that training saw",
        Onto::Original => "the weights as stored",
    }
}
