//! The tensors of an adapter's file, held against its description.

use std::collections::{BTreeMap, BTreeSet};

use graft_model::Site;
use graft_model::checkpoint::{Checkpoint, TensorView};
use graft_model::site;

use super::config::AsWritten;
use super::names::{self, LoraMatrix};
use super::{CONFIG_FILE, PREFIX};

/// Steps of matching all names with all patterns: seconds. Llama's largest takes a hundredth of them where
/// each of its modules has a pattern of its own.
const MOST_STEPS: u64 = 1 << 33;

/// What an adapter's file holds.
pub(super) struct Tensors {
    /// `A` and `B` of every site.
    pub(super) matrices: BTreeMap<Site, [TensorView; 2]>,
    /// The magnitudes of every site, where the description says that there are any.
    pub(super) magnitudes: BTreeMap<Site, TensorView>,
    /// Whole tables, by their names in a checkpoint.
    pub(super) tables: BTreeMap<&'static str, TensorView>,
}

impl Tensors {
    /// Both halves of every site and every table, or everything that is wrong.
    pub(super) fn read(checkpoint: &Checkpoint, written: &AsWritten) -> Result<Self, Vec<String>> {
        // Each name is matched for its size, and for the choice of its module.
        let steps = written.steps().saturating_mul(2 * checkpoint.len() as u64);
        if steps > MOST_STEPS {
            return Err(vec![format!(
                "the patterns of {CONFIG_FILE} take too long for {} tensors: about {steps} steps, \
                 {MOST_STEPS} are allowed. Name the modules themselves",
                checkpoint.len()
            )]);
        }
        let mut problems = Vec::new();
        let mut found: [BTreeMap<Site, TensorView>; 2] = Default::default();
        let (mut tables, mut magnitudes) = (BTreeMap::new(), BTreeMap::new());
        for name in checkpoint.names() {
            let Some(view) = checkpoint.tensor(name) else { continue };
            if let Some(table) = table(name) {
                problems.extend(table_problem(&view));
                tables.insert(table, view);
                continue;
            }
            if let Some(site) = names::magnitude_from_key(name).filter(|_| written.dora) {
                problems.extend(magnitude_problem(&view));
                if let Some(other) = magnitudes.insert(site, view) {
                    problems.push(format!("`{name}` and `{}` are the same vector", other.name));
                }
                continue;
            }
            let Some((site, matrix)) = names::from_key(name) else {
                problems.push(format!("`{name}` is no update of one of the seven projections"));
                continue;
            };
            problems.extend(problem(&view, site, matrix, written));
            let half = &mut found[usize::from(matrix == LoraMatrix::B)];
            if let Some(other) = half.insert(site, view) {
                problems.push(format!("`{name}` and `{}` are the same matrix", other.name));
            }
        }
        let matrices = pairs(found, written, &mut problems);
        if written.dora {
            problems.extend(unlike(&matrices, &magnitudes));
        }
        for table in written.tables.iter().filter(|table| !tables.contains_key(*table)) {
            problems.push(format!("`modules_to_save` needs `{PREFIX}{table}`, which is missing"));
        }
        if matrices.is_empty() && problems.is_empty() {
            problems.push("there is none at all".to_owned());
        }
        if problems.is_empty() { Ok(Self { matrices, magnitudes, tables }) } else { Err(problems) }
    }
}

/// The table of this key; PEFT also saves both, unasked, where the vocabulary has grown.
fn table(key: &str) -> Option<&'static str> {
    let name = key.strip_prefix(PREFIX)?;
    [site::LM_HEAD, site::EMBED_TOKENS].into_iter().find(|table| *table == name)
}

fn pairs(
    [mut first, mut second]: [BTreeMap<Site, TensorView>; 2],
    written: &AsWritten,
    problems: &mut Vec<String>,
) -> BTreeMap<Site, [TensorView; 2]> {
    let sites: BTreeSet<Site> = first.keys().chain(second.keys()).copied().collect();
    let mut pairs = BTreeMap::new();
    for site in sites {
        if !written.targets.choose(site) {
            problems.push(format!(
                "`{site}` is adapted, but {CONFIG_FILE} does not choose it, so PEFT would leave it \
                 out"
            ));
        }
        match (first.remove(&site), second.remove(&site)) {
            (Some(a), Some(b)) => _ = pairs.insert(site, [a, b]),
            (Some(a), None) => {
                problems.push(format!(
                    "`{}` lacks its `{}`",
                    a.name,
                    names::key(site, LoraMatrix::B)
                ));
            }
            (None, Some(b)) => {
                problems.push(format!(
                    "`{}` lacks its `{}`",
                    b.name,
                    names::key(site, LoraMatrix::A)
                ));
            }
            (None, None) => {}
        }
    }
    pairs
}

fn problem(
    view: &TensorView,
    site: Site,
    matrix: LoraMatrix,
    written: &AsWritten,
) -> Option<String> {
    let TensorView { name, shape, .. } = view;
    let side = usize::from(matrix == LoraMatrix::B);
    let (size, key) = written.size(site);
    let rank = size.rank.get();
    if shape.len() != 2 || shape[side] != rank {
        let expected = if side == 0 { format!("[{rank}, in]") } else { format!("[out, {rank}]") };
        return Some(format!(
            "`{name}` is {shape:?}, but `{key}` in {CONFIG_FILE} needs {expected}"
        ));
    }
    not_numbers(view)
}

fn table_problem(view: &TensorView) -> Option<String> {
    let TensorView { name, shape, .. } = view;
    if shape.len() != 2 {
        return Some(format!("`{name}` is {shape:?}, but must be [vocabulary, width]"));
    }
    not_numbers(view)
}

fn magnitude_problem(view: &TensorView) -> Option<String> {
    let TensorView { name, shape, .. } = view;
    if shape.len() != 1 {
        return Some(format!("`{name}` is {shape:?}, but must be [out]"));
    }
    not_numbers(view)
}

/// Updates without magnitudes, and the other way round.
fn unlike(
    matrices: &BTreeMap<Site, [TensorView; 2]>,
    magnitudes: &BTreeMap<Site, TensorView>,
) -> Vec<String> {
    let lacks = |site: &Site| {
        let name = names::magnitude_name(*site);
        format!("`use_dora` in {CONFIG_FILE} needs `{PREFIX}{name}`, which is missing")
    };
    let alone =
        |(_, view): (_, &TensorView)| format!("`{}` lacks its `lora_A` and `lora_B`", view.name);
    let without = matrices.keys().filter(|site| !magnitudes.contains_key(site)).map(lacks);
    let lone = magnitudes.iter().filter(|(site, _)| !matrices.contains_key(site)).map(alone);
    without.chain(lone).collect()
}

fn not_numbers(view: &TensorView) -> Option<String> {
    let TensorView { name, dtype, .. } = view;
    let Ok(values) = view.to_f32() else {
        return Some(format!("`{name}` holds {dtype}, but must hold F32, F16 or BF16"));
    };
    let index = values.iter().position(|value| !value.is_finite())?;
    Some(format!("`{name}`: value {index} is {}, but must be finite", values[index]))
}
