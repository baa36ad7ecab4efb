//! Section `adapter`: what is trained.

mod tables;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::named::named;
use crate::paths::written;
use crate::section::{Section, count, list, number, text};
use crate::tree;

pub use tables::{TableModule, Token, TokenRows};
use tables::{rows_value, tables_to_save, token_rows};

/// The keys of `adapter` that only LoRA knows.
const LORA_KEYS: &[&str] = &[
    "rank",
    "alpha",
    "dropout",
    "rslora",
    "dora",
    "loraplus_lr_ratio",
    "target_modules",
    "layers",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "trainable_token_indices",
    "init",
    "init_from",
];

/// The rank of an adapter: the width between `A` and `B`. At least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(NonZeroUsize);

impl Rank {
    /// A rank, unless it is 0.
    pub fn new(rank: usize) -> Option<Self> {
        NonZeroUsize::new(rank).map(Self)
    }

    /// The rank as a size.
    pub fn get(self) -> usize {
        self.0.get()
    }
}

named! {
    /// What can have a low-rank update: the seven projections of a Llama block and the two tables, by their names in a
    /// checkpoint.
    pub enum TargetModule {
        /// Attention queries.
        Query = "q_proj",
        /// Attention keys.
        Key = "k_proj",
        /// Attention values.
        Value = "v_proj",
        /// Attention output.
        Output = "o_proj",
        /// Gate of the feed-forward.
        Gate = "gate_proj",
        /// Up projection of the feed-forward.
        Up = "up_proj",
        /// Down projection of the feed-forward.
        Down = "down_proj",
        /// What turns tokens into rows.
        Embedding = "embed_tokens",
        /// What turns hidden states into logits.
        Head = "lm_head",
    }
}

/// Which projections get an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetModules {
    /// All seven.
    AllLinear,
    /// These, tables among them; never empty.
    List(BTreeSet<TargetModule>),
}

/// Which blocks get adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// Every block.
    All,
    /// The last so many.
    Last(NonZeroUsize),
    /// The blocks with these numbers, from 0; never empty.
    These(BTreeSet<usize>),
}

named! {
    /// How a new adapter begins.
    pub enum AdapterInit {
        /// `A` uniform, `B` zero: the first model is the base.
        Kaiming = "kaiming",
        /// The largest singular values of each weight and their vectors; the weight keeps the rest.
        Pissa = "pissa",
        /// The first columns of an orthogonal basis of each weight, and what the weight is in them; the weight keeps
        /// the rest.
        Olora = "olora",
    }
}

/// Values for the modules that a pattern matches, in the order in which they are asked.
pub type Patterns<T> = Vec<(String, T)>;

/// Section `adapter`: the method, with the settings it knows.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a recipe has one")]
pub enum AdapterMethod {
    /// Low-rank adapters beside frozen weights, Hu et al. 2021.
    Lora {
        /// Width between `A` and `B`. Default 16.
        rank: Rank,
        /// The update is scaled by `alpha / rank`. Above 0; default twice the rank.
        alpha: f64,
        /// Share of the adapter's inputs dropped in training, from 0 to below 1. Default 0.
        dropout: f64,
        /// Scale by `alpha / sqrt(rank)` instead. Default no.
        rslora: bool,
        /// Train the length of each row of the adapted weights apart from its direction. Default no.
        dora: bool,
        /// How many times the learning rate of `A` that of `B` is. Above 0; default 1.
        loraplus_lr_ratio: f64,
        /// Which projections. Default all seven.
        target_modules: TargetModules,
        /// Which blocks. Default all.
        layers: Layers,
        /// Other ranks for the projections whose name ends with a match. Default none.
        rank_pattern: Patterns<Rank>,
        /// Other alphas, as well. Default none.
        alpha_pattern: Patterns<f64>,
        /// Tables that are trained whole. Default none.
        modules_to_save: BTreeSet<TableModule>,
        /// Tables of which the rows of some tokens are trained. Default none.
        trainable_token_indices: TokenRows,
        /// How it begins. Default `kaiming`.
        init: AdapterInit,
        /// A PEFT folder to go on from. Default none: `A` drawn from the seed, `B` zero.
        init_from: Option<PathBuf>,
    },
    /// Every weight of the model.
    Full,
}

named! {
    /// The training methods, by their names; the first is the default.
    pub enum MethodName {
        /// [`AdapterMethod::Lora`].
        Lora = "lora",
        /// [`AdapterMethod::Full`].
        Full = "full",
    }
}

/// How recipes write a method.
struct MethodForm {
    /// The keys that it has beside `method`.
    keys: &'static [&'static str],
    /// Why it has none of the others'.
    has_no_others: &'static str,
    read: fn(&mut Section<'_>) -> AdapterMethod,
}

impl MethodName {
    /// The table of all methods.
    fn form(self) -> MethodForm {
        match self {
            Self::Lora => MethodForm {
                keys: LORA_KEYS,
                has_no_others: "method `lora` has no such size",
                read: AdapterMethod::lora,
            },
            Self::Full => MethodForm {
                keys: &[],
                has_no_others: "method `full` trains every weight, without adapters",
                read: |_| AdapterMethod::Full,
            },
        }
    }

    /// The keys of other methods that this one does not have, each once.
    fn keys_of_others(self) -> Vec<&'static str> {
        let all = Self::ALL.iter().flat_map(|(_, method)| method.form().keys).copied();
        without_own(all, self.form().keys)
    }
}

/// Each of these keys once, but for a method's own.
fn without_own(all: impl Iterator<Item = &'static str>, own: &[&'static str]) -> Vec<&'static str> {
    let mut others = Vec::new();
    for key in all {
        if !own.contains(&key) && !others.contains(&key) {
            others.push(key);
        }
    }
    others
}

/// The keys of other methods that the one of this name does not have.
pub(crate) fn keys_of_others(name: &str) -> Vec<&'static str> {
    let method = MethodName::ALL.iter().find(|(own, _)| *own == name);
    method.map(|(_, method)| method.keys_of_others()).unwrap_or_default()
}

impl AdapterMethod {
    /// Whether what is learnt is a model, not an adapter beside the base.
    pub fn learns_a_model(&self) -> bool {
        *self == Self::Full
    }

    /// The PEFT folder to go on from, where there is one.
    pub fn init_from(&self) -> Option<&Path> {
        match self {
            Self::Lora { init_from, .. } => init_from.as_deref(),
            Self::Full => None,
        }
    }

    /// The rank of its updates, where it has any.
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::Lora { rank, .. } => Some(rank.get()),
            Self::Full => None,
        }
    }

    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let name = section.choice("method", MethodName::Lora, MethodName::ALL);
        let form = name.form();
        section.meaningless(&name.keys_of_others(), form.has_no_others);
        let method = (form.read)(&mut section);
        section.close();
        method
    }

    fn lora(section: &mut Section<'_>) -> Self {
        let rank = Rank(section.count("rank", 16));
        let init = section.choice("init", AdapterInit::Kaiming, AdapterInit::ALL);
        if init != AdapterInit::Kaiming {
            section.exclusive("init", "init_from");
        }
        let above_0 = |node: &tree::Node| number(node).filter(|number| *number > 0.0);
        Self::Lora {
            rank,
            alpha: section
                .number("alpha", 2.0 * rank.get() as f64, "a number above 0", |x| x > 0.0),
            dropout: section
                .number("dropout", 0.0, "a number from 0 to below 1", |x| (0.0..1.0).contains(&x)),
            rslora: section.flag("rslora", false),
            dora: section.flag("dora", false),
            loraplus_lr_ratio: section
                .number("loraplus_lr_ratio", 1.0, "a number above 0", |x| x > 0.0),
            target_modules: TargetModules::read(section),
            layers: Layers::read(section),
            rank_pattern: patterns(
                section,
                "rank_pattern",
                "a rank, at least 1, for each pattern, `{q_proj: 8}`",
                |node| count(node).map(Rank),
            ),
            alpha_pattern: patterns(
                section,
                "alpha_pattern",
                "a number above 0 for each pattern, `{q_proj: 16}`",
                above_0,
            ),
            modules_to_save: tables_to_save(section),
            trainable_token_indices: token_rows(section),
            init,
            init_from: section.path("init_from"),
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Full => json!({"method": "full"}),
            Self::Lora {
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
                let ranks =
                    rank_pattern.iter().map(|(name, rank)| (name.clone(), json!(rank.get())));
                let alphas = alpha_pattern.iter().map(|(name, alpha)| (name.clone(), json!(alpha)));
                let mut value = json!({
                    "method": "lora",
                    "rank": rank.get(),
                    "alpha": alpha,
                    "dropout": dropout,
                    "rslora": rslora,
                    "dora": dora,
                    "loraplus_lr_ratio": loraplus_lr_ratio,
                    "target_modules": target_modules.to_value(),
                    "layers": layers.to_value(),
                    "modules_to_save": modules_to_save.iter().map(|table| table.name()).collect::<Vec<_>>(),
                    "init": init.name(),
                    "init_from": init_from.as_deref().map(written),
                });
                for (key, patterns) in [
                    ("rank_pattern", ranks.collect::<Map<_, _>>()),
                    ("alpha_pattern", alphas.collect()),
                ] {
                    if !patterns.is_empty() {
                        value[key] = Value::Object(patterns);
                    }
                }
                if !trainable_token_indices.is_empty() {
                    value["trainable_token_indices"] = rows_value(trainable_token_indices);
                }
                value
            }
        }
    }
}

/// A value for each of any patterns, in their order.
fn patterns<T>(
    section: &mut Section<'_>,
    key: &'static str,
    allowed: &'static str,
    read: impl Fn(&tree::Node) -> Option<T>,
) -> Patterns<T> {
    section.value(key, Patterns::new(), allowed, |node| {
        let tree::Value::Map(entries) = &node.value else { return None };
        entries.iter().map(|entry| Some((entry.key.clone(), read(&entry.value)?))).collect()
    })
}

impl TargetModules {
    fn read(section: &mut Section<'_>) -> Self {
        const KEY: &str = "target_modules";
        const ALL_LINEAR: &[(&str, ())] = &[("all-linear", ())];
        let Some(node) = section.get(KEY) else { return Self::AllLinear };
        let Some(items) = list(node) else {
            if text(node).is_some() {
                section.chosen(KEY, node, ALL_LINEAR);
            } else {
                section.refuse(
                    KEY,
                    node,
                    "all-linear, or a list of modules such as [q_proj, v_proj]",
                );
            }
            return Self::AllLinear;
        };
        if items.is_empty() {
            section.refuse(KEY, node, "all-linear, or a list of at least one module");
        }
        Self::List(section.chosen_each(KEY, items, TargetModule::ALL).into_iter().collect())
    }

    fn to_value(&self) -> Value {
        match self {
            Self::AllLinear => json!("all-linear"),
            Self::List(names) => names.iter().map(|name| name.name()).collect(),
        }
    }
}

impl Layers {
    fn read(section: &mut Section<'_>) -> Self {
        const KEY: &str = "layers";
        const ALLOWED: &str = "all, {last: n}, or a list of block numbers such as [0, 3]";
        let Some(node) = section.get(KEY) else { return Self::All };
        if let tree::Value::Map(_) = node.value {
            let mut section = section.section(KEY);
            if section.get("last").is_none() {
                section.missing("last", "a whole number, at least 1");
            }
            let last = section.count("last", 1);
            section.close();
            return Self::Last(last);
        }
        if text(node) == Some("all") {
            return Self::All;
        }
        let numbers: Option<BTreeSet<usize>> =
            list(node).and_then(|items| items.iter().map(block_number).collect());
        if let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) {
            return Self::These(numbers);
        }
        section.refuse(KEY, node, ALLOWED);
        Self::All
    }

    fn to_value(&self) -> Value {
        match self {
            Self::All => json!("all"),
            Self::Last(last) => json!({"last": last}),
            Self::These(numbers) => json!(numbers),
        }
    }
}

fn block_number(node: &tree::Node) -> Option<usize> {
    match node.value {
        tree::Value::Integer(number) => usize::try_from(number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_several_other_methods_have_is_theirs_once() {
        let all = ["rank", "layers", "rank", "scale", "layers"];
        assert_eq!(without_own(all.into_iter(), &["scale"]), ["rank", "layers"]);
        assert_eq!(keys_of_others("full"), LORA_KEYS);
        assert_eq!(keys_of_others("lora"), [""; 0]);
    }
}
