//! What is trained of embedding and head, and what cannot be.

use std::collections::{BTreeMap, BTreeSet};

use graft_adapters::{LoraConfig, Size, TableMethod, TableName};
use graft_model::LlamaConfig;
use graft_recipes::{TableModule, TargetModule, TargetModules};

use super::super::findings::Findings;

/// What the recipe asks for.
pub(super) struct Asked<'a> {
    pub(super) target_modules: &'a TargetModules,
    pub(super) modules_to_save: &'a BTreeSet<TableModule>,
    pub(super) rows: BTreeMap<TableName, Vec<u32>>,
}

pub(super) fn name(table: TableModule) -> TableName {
    match table {
        TableModule::Embedding => TableName::Embedding,
        TableModule::Head => TableName::Head,
    }
}

/// `None` of a projection.
fn table(module: TargetModule) -> Option<TableName> {
    match module {
        TargetModule::Embedding => Some(TableName::Embedding),
        TargetModule::Head => Some(TableName::Head),
        _ => None,
    }
}

/// What is trained of each table; a problem where that are two things of one.
pub(super) fn of(
    asked: Asked<'_>,
    size: Size,
    model: &LlamaConfig,
    findings: &mut Findings<'_>,
) -> BTreeMap<TableName, TableMethod> {
    let mut tables: BTreeMap<TableName, TableMethod> = BTreeMap::new();
    let low_rank = match asked.target_modules {
        TargetModules::AllLinear => Vec::new(),
        TargetModules::List(names) => names.iter().filter_map(|&module| table(module)).collect(),
    };
    let all = low_rank
        .into_iter()
        .map(|table| ("adapter.target_modules", table, TableMethod::LowRank(size)))
        .chain(
            asked
                .modules_to_save
                .iter()
                .map(|&table| ("adapter.modules_to_save", name(table), TableMethod::Whole)),
        )
        .chain(asked.rows.into_iter().map(|(table, ids)| {
            ("adapter.trainable_token_indices", table, TableMethod::Rows(ids))
        }));
    let mut keys: BTreeMap<TableName, &str> = BTreeMap::new();
    for (key, table, method) in all {
        if let Some(other) = keys.insert(table, key) {
            let message =
                format_args!("`{table}` is named here and in `{other}`: allowed is one of the two");
            findings.problem(key, message);
        }
        tables.insert(table, method);
    }
    warn_of_tied(&tables, model, findings);
    tables
}

/// What becomes of a head that is the embedding, and of one that is not.
fn warn_of_tied(
    tables: &BTreeMap<TableName, TableMethod>,
    model: &LlamaConfig,
    findings: &mut Findings<'_>,
) {
    let parts = |method: &TableMethod| !matches!(method, TableMethod::Rows(_));
    if model.tied && tables.values().any(parts) {
        let names: Vec<&str> = tables.keys().map(|table| table.name()).collect();
        let (names, is) = (names.join(" and "), if names.len() == 1 { "is" } else { "are" });
        findings.warn(format!(
            "the model's head is its embedding, of which {names} {is} trained apart: with the adapter they are two \
             tables, and a merged model holds both"
        ));
    }
    let rows = |table| matches!(tables.get(&table), Some(TableMethod::Rows(_)));
    if !model.tied && rows(TableName::Embedding) && !tables.contains_key(&TableName::Head) {
        findings.warn(
            "adapter.trainable_token_indices: the rows of the embedding are trained, those of the head are not, so the \
             tokens are understood better but said as before; `{embed_tokens: […], lm_head: […]}` trains both"
                .to_owned(),
        );
    }
}

/// What is not trained of a table.
pub(super) fn check(lora: &LoraConfig, findings: &mut Findings<'_>) {
    let updated = |table| lora.tables.get(&table).and_then(TableMethod::size).is_some();
    let Some(table) = TableName::ALL.into_iter().find(|table| updated(*table)) else { return };
    if lora.dora {
        findings.problem_with_hint(
            "adapter.dora",
            format_args!("found true and `{table}` in `target_modules`; allowed: projections only"),
            "train the table whole with `modules_to_save`, or drop `dora`",
        );
    }
    if lora.dropout > 0.0 && updated(TableName::Head) {
        findings.problem_with_hint(
            "adapter.dropout",
            format_args!(
                "found {} and `lm_head` in `target_modules`; allowed: 0, as nothing is dropped before the head",
                lora.dropout
            ),
            "drop `dropout`, or train the head whole with `modules_to_save`",
        );
    }
}
