//! `adapter.trainable_token_indices`: tokens become rows.

use std::collections::BTreeMap;

use graft_adapters::TableName;
use graft_data::Tokenizer;
use graft_model::LlamaConfig;
use graft_recipes::{Token, TokenRows};

use super::super::findings::Findings;
use super::tables;

const KEY: &str = "adapter.trainable_token_indices";

/// The rows of each table, in the order in which their tokens are named.
pub(super) fn rows(
    asked: &TokenRows,
    model: &LlamaConfig,
    tokenizer: Option<&Tokenizer>,
    findings: &mut Findings<'_>,
) -> BTreeMap<TableName, Vec<u32>> {
    let mut rows = BTreeMap::new();
    for (table, tokens) in asked {
        let table = tables::name(*table);
        if table == TableName::Head && model.tied {
            findings.problem_with_hint(
                KEY,
                "found rows of lm_head, but the model's head is its embedding: one row serves both",
                "name the tokens once, as a list",
            );
            continue;
        }
        let mut ids = Vec::new();
        for token in tokens {
            let Some(id) = id(token, model, tokenizer, findings) else { continue };
            if ids.contains(&id) {
                findings.problem(KEY, format_args!("token {id} is named twice for {table}"));
                continue;
            }
            ids.push(id);
        }
        if !ids.is_empty() {
            rows.insert(table, ids);
        }
    }
    rows
}

/// `None` with a problem, or without a tokenizer, whose own problem says why.
fn id(
    token: &Token,
    model: &LlamaConfig,
    tokenizer: Option<&Tokenizer>,
    findings: &mut Findings<'_>,
) -> Option<u32> {
    let id = match token {
        Token::Id(id) => *id,
        Token::Text(text) => {
            let tokenizer = tokenizer?;
            let Some(id) = tokenizer.id(text) else {
                let message = format_args!(
                    "found {text:?}, which is no token of {}; allowed: a token's number, or one as the tokenizer \
                     writes it, such as \"<|reserved_special_token_0|>\"",
                    tokenizer.origin()
                );
                findings.problem(KEY, message);
                return None;
            };
            id
        }
    };
    let vocab = model.vocab_size;
    if id as usize >= vocab {
        let message =
            format_args!("found {id}, but the model has {vocab} tokens, 0 to {}", vocab - 1);
        findings.problem(KEY, message);
        return None;
    }
    Some(id)
}
