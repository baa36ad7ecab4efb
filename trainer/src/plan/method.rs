//! Section `adapter` against the model: targets become sites.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;

use graft_adapters::{
    AnyMethod, Full, Learns, LoraConfig, Method, PeftAdapter, Rank, Scaling, Size,
};
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, ProjectionKind, Site};
use graft_recipes::{AdapterMethod, Init, Layers, ProjectionName, Recipe, TargetModules};

use super::findings::Findings;
use crate::base_mark;
use crate::run_folder;

/// What a run's folder calls that which was learnt.
pub fn result(learns: Learns) -> &'static str {
    match learns {
        Learns::Adapter => run_folder::ADAPTER,
        Learns::Model => run_folder::MODEL,
    }
}

/// `None` without the model's configuration, or with a problem that says why.
pub(super) fn resolve(
    recipe: &Recipe,
    config: Option<&LlamaConfig>,
    findings: &mut Findings<'_>,
) -> Option<AnyMethod> {
    match &recipe.adapter {
        AdapterMethod::Full => config.map(|_| AnyMethod::Full(Full)),
        AdapterMethod::Lora { rank, alpha, dropout, rslora, target_modules, layers, init_from } => {
            let start = init_from.as_deref().and_then(|folder| open_start(folder, findings));
            let model = config?;
            let layers = blocks(layers, model.layers, findings)?;
            let kinds = kinds(target_modules);
            warn_of_width(*rank, &kinds, model, findings);
            let of_layer = |layer| kinds.iter().map(move |&kind| Site { layer, kind });
            let sites = layers.into_iter().flat_map(of_layer);
            let scaling = if *rslora { Scaling::RankStabilised } else { Scaling::Standard };
            let size = Size { rank: Rank(NonZeroUsize::new(rank.get())?), alpha: *alpha };
            let config = LoraConfig::uniform(size, scaling, *dropout, sites);
            if let Some(start) = start
                && let Err(error) =
                    start.check_model(model).and_then(|()| start.check_same(&config))
            {
                findings.problem("adapter.init_from", error);
            }
            Some(AnyMethod::Lora(config))
        }
    }
}

/// A model is merged of what can be added to the base's weights, and of nothing else.
pub(super) fn check_merge(recipe: &Recipe, method: &dyn Method, findings: &mut Findings<'_>) {
    if recipe.finish.merge && !method.merges() {
        let name = method.name();
        findings.problem_with_hint(
            "finish.merge",
            format_args!(
                "found true and adapter.method = {name}; allowed: false, as what `{name}` learns \
                 cannot be added to the base's weights"
            ),
            "drop `finish.merge`",
        );
    }
}

/// A rank beyond the smaller side of a projection adds nothing.
fn warn_of_width(
    rank: graft_recipes::Rank,
    kinds: &[ProjectionKind],
    model: &LlamaConfig,
    findings: &mut Findings<'_>,
) {
    for &kind in kinds {
        let smaller = kind.in_features(model).min(kind.out_features(model));
        if rank.get() > smaller {
            findings.warn(format!(
                "adapter.rank {} is more than {kind} can use: its smaller side is {smaller}",
                rank.get()
            ));
        }
    }
}

fn open_start(folder: &Path, findings: &mut Findings<'_>) -> Option<PeftAdapter> {
    PeftAdapter::open(folder).map_err(|error| findings.problem("adapter.init_from", error)).ok()
}

/// An adapter to go on from that was trained beside other weights goes on from another model.
pub(super) fn warn_of_another_base(
    recipe: &Recipe,
    folder: &ModelFolder,
    config: &LlamaConfig,
    findings: &mut Findings<'_>,
) {
    let Some(path) = recipe.adapter.init_from() else { return };
    if recipe.model.init != Init::Checkpoint {
        return;
    }
    // Whatever cannot be read here was recorded as a problem.
    let odd = PeftAdapter::open(path).map(|start| base_mark::oddities(&start, folder, config));
    for oddity in odd.into_iter().flatten().flat_map(|odd| odd.told) {
        findings.warn(format!("adapter.init_from: {oddity}"));
    }
}

/// The numbers of the adapted blocks; `None` with a problem.
fn blocks(layers: &Layers, count: usize, findings: &mut Findings<'_>) -> Option<BTreeSet<usize>> {
    match layers {
        Layers::All => Some((0..count).collect()),
        Layers::Last(last) if last.get() <= count => Some((count - last.get()..count).collect()),
        Layers::Last(last) => {
            let message = format!("found {last}, but the model has {count} blocks");
            findings.problem("adapter.layers.last", message);
            None
        }
        Layers::These(numbers) => {
            let beyond: Vec<String> =
                numbers.iter().filter(|&&n| n >= count).map(ToString::to_string).collect();
            if beyond.is_empty() {
                return Some(numbers.clone());
            }
            let message = format!(
                "found {}, but the model has {count} blocks, 0 to {}",
                beyond.join(", "),
                count - 1
            );
            findings.problem("adapter.layers", message);
            None
        }
    }
}

fn kinds(targets: &TargetModules) -> Vec<ProjectionKind> {
    match targets {
        TargetModules::AllLinear => ProjectionKind::ALL.to_vec(),
        TargetModules::List(names) => names.iter().map(|&name| kind(name)).collect(),
    }
}

fn kind(name: ProjectionName) -> ProjectionKind {
    match name {
        ProjectionName::Query => ProjectionKind::Q,
        ProjectionName::Key => ProjectionKind::K,
        ProjectionName::Value => ProjectionKind::V,
        ProjectionName::Output => ProjectionKind::O,
        ProjectionName::Gate => ProjectionKind::Gate,
        ProjectionName::Up => ProjectionKind::Up,
        ProjectionName::Down => ProjectionKind::Down,
    }
}
