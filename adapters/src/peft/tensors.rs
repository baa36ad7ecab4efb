//! The tensors of an adapter's file, held against its description.

use std::collections::{BTreeMap, BTreeSet};

use graft_model::Site;
use graft_model::checkpoint::{Checkpoint, TensorView};

use super::config::AsWritten;
use super::names::{self, LoraMatrix, TableTensor};
use super::{CONFIG_FILE, PREFIX};
use crate::lora::{TableMethod, TableName};

/// Steps of matching all names with all patterns: seconds. Llama's largest takes a hundredth of them where
/// each of its modules has a pattern of its own.
const MOST_STEPS: u64 = 1 << 33;

/// What an adapter's file holds.
pub(super) struct Tensors {
    /// `A` and `B` of every site.
    pub(super) matrices: BTreeMap<Site, [TensorView; 2]>,
    /// The magnitudes of every site, where the description says that there are any.
    pub(super) magnitudes: BTreeMap<Site, TensorView>,
    /// Matrices that stand in the place of the base's tables: those that are brought whole, and those that PEFT saved
    /// beside their update.
    pub(super) tables: BTreeMap<TableName, TensorView>,
    /// What else is trained of tables.
    pub(super) of_tables: BTreeMap<(TableName, TableTensor), TensorView>,
    /// What that is.
    pub(super) methods: BTreeMap<TableName, TableMethod>,
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
        let (mut tables, mut of_tables) = (BTreeMap::new(), BTreeMap::new());
        let mut magnitudes = BTreeMap::new();
        for name in checkpoint.names() {
            let Some(view) = checkpoint.tensor(name) else { continue };
            if let Some(table) = names::base_of_table_from_key(name) {
                problems.extend(table_problem(&view));
                tables.insert(table, view);
                continue;
            }
            if let Some((table, tensor)) = names::table_from_key(name) {
                problems.extend(table_problem(&view));
                let other = match tensor {
                    TableTensor::Whole => tables.insert(table, view),
                    _ => of_tables.insert((table, tensor), view),
                };
                if let Some(other) = other {
                    problems.push(format!("`{name}` and `{}` are the same matrix", other.name));
                }
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
        let methods = methods(&tables, &of_tables, written, &mut problems);
        if matrices.is_empty() && methods.is_empty() && problems.is_empty() {
            problems.push("there is none at all".to_owned());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { matrices, magnitudes, tables, of_tables, methods })
    }
}

/// What is trained of each table. PEFT also saves both whole, unasked, where the vocabulary has grown.
fn methods(
    tables: &BTreeMap<TableName, TensorView>,
    of_tables: &BTreeMap<(TableName, TableTensor), TensorView>,
    written: &AsWritten,
    problems: &mut Vec<String>,
) -> BTreeMap<TableName, TableMethod> {
    let mut methods = BTreeMap::new();
    for table in TableName::ALL {
        let of = |tensor| of_tables.get(&(table, tensor));
        let mut needs = |key: &str, tensor: TableTensor| {
            let name = tensor.name(table);
            problems.push(format!("`{key}` needs `{PREFIX}{name}`, which is missing"));
        };
        if written.tables.contains(&table) && !tables.contains_key(&table) {
            needs("modules_to_save", TableTensor::Whole);
        }
        let (size, key) = written.size_of(table.module_name());
        match [TableTensor::Wide, TableTensor::Narrow, TableTensor::Rows].map(of) {
            [None, None, None] => {
                if written.rows.contains_key(&table) {
                    needs("trainable_token_indices", TableTensor::Rows);
                }
                if tables.contains_key(&table) {
                    methods.insert(table, TableMethod::Whole);
                }
            }
            [Some(wide), Some(narrow), None] => {
                let rank = size.rank.get();
                for (view, side) in [(wide, 1), (narrow, 0)] {
                    let TensorView { name, shape, .. } = view;
                    let turned = table == TableName::Embedding;
                    let side = if turned { 1 - side } else { side };
                    if shape.get(side).is_some_and(|&found| found != rank) {
                        problems.push(format!(
                            "`{name}` is {shape:?}, but `{key}` in {CONFIG_FILE} needs a rank of {rank}"
                        ));
                    }
                }
                if written.dora {
                    problems.push(format!("`use_dora` is set, but Graft runs no DoRA of `{table}`"));
                }
                if !written.targets.choose_table(table) {
                    problems.push(format!(
                        "`{table}` is adapted, but {CONFIG_FILE} does not choose it, so PEFT would \
                         leave it out"
                    ));
                }
                methods.insert(table, TableMethod::LowRank(size));
            }
            [None, None, Some(rows)] => match written.rows.get(&table) {
                Some(ids) if rows.shape.first() == Some(&ids.len()) => {
                    methods.insert(table, TableMethod::Rows(ids.clone()));
                }
                found => problems.push(format!(
                    "`{}` is {:?}, but `trainable_token_indices` in {CONFIG_FILE} names {} tokens of it",
                    rows.name,
                    rows.shape,
                    found.map_or(0, Vec::len)
                )),
            },
            [Some(half), None, _] => problems.push(lacks(half, table, TableTensor::Narrow)),
            [None, Some(half), _] => problems.push(lacks(half, table, TableTensor::Wide)),
            [Some(_), Some(_), Some(rows)] => problems.push(format!(
                "`{}` stands beside an update of the same table: Graft trains one of the two",
                rows.name
            )),
        }
    }
    methods
}

fn lacks(half: &TensorView, table: TableName, other: TableTensor) -> String {
    format!("`{}` lacks its `{PREFIX}{}`", half.name, other.name(table))
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
        return Some(format!("`{name}` is {shape:?}, but must be a matrix"));
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
