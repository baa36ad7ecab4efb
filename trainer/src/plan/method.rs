//! Section `adapter` against the model: targets become sites and tables.

mod tables;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::Path;

use graft_adapters::peft::ModulePattern;
use graft_adapters::{
    AnyMethod, Full, Learns, LoraConfig, Method, Part, PeftAdapter, Rank, Scaling, Size,
    TableMethod,
};
use graft_data::Tokenizer;
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, ProjectionKind, Site};
use graft_recipes::{
    AdapterInit, AdapterMethod, Init, Layers, MergeOnto, Quantization, Recipe, TargetModule,
    TargetModules,
};

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
    tokenizer: Option<&Tokenizer>,
    findings: &mut Findings<'_>,
) -> Option<AnyMethod> {
    match &recipe.adapter {
        AdapterMethod::Full => config.map(|_| AnyMethod::Full(Full)),
        AdapterMethod::Lora {
            rank,
            alpha,
            dropout,
            rslora,
            dora,
            loraplus_lr_ratio,
            target_modules,
            layers,
            rank_pattern,
            alpha_pattern,
            modules_to_save,
            trainable_token_indices,
            init,
            init_from,
        } => {
            let start = init_from.as_deref().and_then(|folder| open_start(folder, findings));
            let model = config?;
            let layers = blocks(layers, model.layers, findings)?;
            let kinds = kinds(target_modules);
            let of_layer = |layer| kinds.iter().map(move |&kind| Site { layer, kind });
            let sites = layers.into_iter().flat_map(of_layer);
            let size = Size { rank: lora_rank(*rank)?, alpha: *alpha };
            let mut sites: BTreeMap<Site, Size> = sites.map(|site| (site, size)).collect();
            let rows = tokens::rows(trainable_token_indices, model, tokenizer, findings);
            let asked = tables::Asked { target_modules, modules_to_save, rows };
            let mut tables = tables::of(asked, size, model, findings);
            let mut sized = Vec::new();
            sized.extend(sites.iter_mut().map(|(site, size)| (site.module_name(), size)));
            sized.extend(tables.iter_mut().filter_map(|(table, method)| match method {
                TableMethod::LowRank(size) => Some((table.module_name().to_owned(), size)),
                TableMethod::Whole | TableMethod::Rows(_) => None,
            }));
            let ranks = rank_pattern.iter().filter_map(|(p, rank)| Some((p, lora_rank(*rank)?.0)));
            by_pattern("adapter.rank_pattern", ranks, &mut sized, findings, |size, rank| {
                size.rank = Rank(rank);
            });
            let alphas = alpha_pattern.iter().map(|(pattern, alpha)| (pattern, *alpha));
            by_pattern("adapter.alpha_pattern", alphas, &mut sized, findings, |size, alpha| {
                size.alpha = alpha;
            });
            warn_of_width(&sites, model, findings);
            let config = LoraConfig {
                scaling: if *rslora { Scaling::RankStabilised } else { Scaling::Standard },
                dropout: *dropout,
                dora: *dora,
                b_rate: *loraplus_lr_ratio,
                part: part(*init),
                sites,
                tables,
            };
            tables::check(&config, findings);
            check_part(recipe, *init, &config, model, findings);
            check_scales(&config, findings);
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

fn part(init: AdapterInit) -> Option<Part> {
    match init {
        AdapterInit::Kaiming => None,
        AdapterInit::Pissa => Some(Part::Principal),
        AdapterInit::Olora => Some(Part::Orthogonal),
    }
}

/// An adapter that begins as a part of each weight needs the weights themselves, and is one for them.
fn check_part(
    recipe: &Recipe,
    init: AdapterInit,
    lora: &LoraConfig,
    model: &LlamaConfig,
    findings: &mut Findings<'_>,
) {
    if lora.part.is_none() {
        return;
    }
    let init = init.name();
    if model.quantization.is_some() {
        findings.problem_with_hint(
            "adapter.init",
            format_args!(
                "found {init}, but the model folder holds NF4 weights: what an adapter would begin as \
                 is taken from the weights before they are quantised"
            ),
            "take the release's bf16 folder, or drop `adapter.init`",
        );
    }
    for (site, size) in &lora.sites {
        let smaller = site.kind.in_features(model).min(site.kind.out_features(model));
        if size.rank.get() > smaller {
            let rank = size.rank.get();
            let message = format_args!(
                "found {init} with a rank of {rank}, but {site} has {smaller} dimensions on its smaller side: \
                 allowed is a rank up to that"
            );
            findings.problem("adapter.rank", message);
            return;
        }
    }
    let quantised = recipe.quantization != Quantization::None;
    if quantised {
        findings.warn(format!(
            "adapter.init = {init} over NF4: what is trained and scored has the rest of each weight in NF4, and the \
             adapter is written for the weights as they were, so that it answers otherwise by what quantising changed. \
             Score what is written with `graft eval --adapter`, or train with `quantization: none`"
        ));
    }
    if recipe.finish.merge && quantised && recipe.finish.onto == MergeOnto::Dequantised {
        findings.problem_with_hint(
            "finish.onto",
            format_args!(
                "found dequantised and adapter.init = {init}; allowed: original, as such an adapter is \
                 written for the weights before they were quantised"
            ),
            "add `onto: original` to `finish`",
        );
    }
}

/// A scale is a number that f32 holds, and not nothing.
fn check_scales(lora: &LoraConfig, findings: &mut Findings<'_>) {
    let odd = |(name, size): (String, Size)| {
        let scale = lora.scaling.factor(size) as f32;
        (!scale.is_normal()).then_some((name, size, lora.scaling.factor(size)))
    };
    let sites = lora.sites.iter().map(|(site, size)| (site.module_name(), *size));
    let tables = lora.tables.iter();
    let tables = tables.filter_map(|(table, method)| Some((table.to_string(), method.size()?)));
    if let Some((site, Size { rank, alpha }, scale)) = sites.chain(tables).find_map(odd) {
        let rank = rank.get();
        let message = format_args!(
            "alpha {alpha:?} at rank {rank} scales the update of {site} by {scale:e}; allowed: what f32 holds"
        );
        findings.problem("adapter.alpha", message);
    }
}

fn lora_rank(rank: graft_recipes::Rank) -> Option<Rank> {
    NonZeroUsize::new(rank.get()).map(Rank)
}

/// Gives each adapted module the value of the pattern that matches it, by PEFT's rules. A pattern that matches none
/// of them is a problem: nobody writes one to say nothing. So are two that say different things of one projection, where
/// PEFT takes the first: nobody should have to know which one counts.
fn by_pattern<'a, T: Copy + PartialEq + Display>(
    key: &str,
    patterns: impl Iterator<Item = (&'a String, T)>,
    sized: &mut [(String, &mut Size)],
    findings: &mut Findings<'_>,
    set: impl Fn(&mut Size, T),
) {
    let mut taken: BTreeMap<usize, (&String, T)> = BTreeMap::new();
    for (text, value) in patterns {
        let key = format!("{key}.{text}");
        let pattern = match ModulePattern::parse(text) {
            Ok(pattern) => pattern,
            Err(part) => {
                let message =
                    format_args!("found {part}, which is no pattern for names of modules");
                findings.problem(&key, message);
                continue;
            }
        };
        let matched: Vec<usize> =
            (0..sized.len()).filter(|&index| pattern.matches(&sized[index].0)).collect();
        if matched.is_empty() {
            let example = sized.first().map(|(name, _)| name.as_str()).unwrap_or_default();
            let message = format_args!(
                "it matches none of the {} adapted modules, of which one is `{example}`",
                sized.len()
            );
            findings.problem(&key, message);
        }
        for index in matched {
            let (name, size) = &mut sized[index];
            match taken.get(&index) {
                Some((before, other)) if *other != value => {
                    findings.problem(
                        &key,
                        format_args!(
                            "found {value}, but `{before}: {other}` matches `{name}`, too: one pattern \
                             each, so that none depends on which one stands first"
                        ),
                    );
                    break;
                }
                _ => _ = taken.insert(index, (text, value)),
            }
            set(size, value);
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
fn warn_of_width(sites: &BTreeMap<Site, Size>, model: &LlamaConfig, findings: &mut Findings<'_>) {
    let wide = sites.iter().filter_map(|(site, size)| {
        let smaller = site.kind.in_features(model).min(site.kind.out_features(model));
        (size.rank.get() > smaller).then_some((site.kind, size.rank, smaller))
    });
    for (kind, rank, smaller) in wide.collect::<BTreeSet<_>>() {
        findings.warn(format!(
            "a rank of {} is more than {kind} can use: its smaller side is {smaller}",
            rank.get()
        ));
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
        TargetModules::List(names) => names.iter().filter_map(|&name| kind(name)).collect(),
    }
}

/// `None` of a table.
fn kind(name: TargetModule) -> Option<ProjectionKind> {
    Some(match name {
        TargetModule::Query => ProjectionKind::Q,
        TargetModule::Key => ProjectionKind::K,
        TargetModule::Value => ProjectionKind::V,
        TargetModule::Output => ProjectionKind::O,
        TargetModule::Gate => ProjectionKind::Gate,
        TargetModule::Up => ProjectionKind::Up,
        TargetModule::Down => ProjectionKind::Down,
        TargetModule::Embedding | TargetModule::Head => return None,
    })
}
