//! What a recipe says of embedding and head beside updates of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::named::named;
use crate::section::{Section, list, text};
use crate::tree;

named! {
    /// The two tables of a Llama model, by their names in a checkpoint.
    pub enum TableModule {
        /// What turns tokens into rows.
        Embedding = "embed_tokens",
        /// What turns hidden states into logits.
        Head = "lm_head",
    }
}

/// A token of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    /// Its number.
    Id(u32),
    /// How the tokenizer writes it, `<|reserved_special_token_0|>`.
    Text(String),
}

/// The tokens whose rows of a table are trained; never an empty list.
pub type TokenRows = BTreeMap<TableModule, Vec<Token>>;

/// `modules_to_save`: a list of tables, each once.
pub(super) fn tables_to_save(section: &mut Section<'_>) -> BTreeSet<TableModule> {
    const KEY: &str = "modules_to_save";
    let Some(node) = section.get(KEY) else { return BTreeSet::new() };
    let Some(items) = list(node) else {
        section.refuse(KEY, node, "a list of embed_tokens and lm_head");
        return BTreeSet::new();
    };
    section.chosen_each(KEY, items, TableModule::ALL).into_iter().collect()
}

/// `trainable_token_indices`: tokens of the embedding, or of each table.
pub(super) fn token_rows(section: &mut Section<'_>) -> TokenRows {
    const ALLOWED: &str = "a list of tokens, by number or as the tokenizer writes them, or such a list for embed_tokens \
                           and lm_head each";
    section.value("trainable_token_indices", TokenRows::new(), ALLOWED, |node| match &node.value {
        tree::Value::Map(entries) => {
            let of = |entry: &tree::Entry| {
                let table = TableModule::ALL.iter().find(|(name, _)| *name == entry.key)?.1;
                Some((table, tokens(&entry.value)?))
            };
            entries.iter().map(of).collect()
        }
        _ => Some(BTreeMap::from([(TableModule::Embedding, tokens(node)?)])),
    })
}

/// At least one token.
fn tokens(node: &tree::Node) -> Option<Vec<Token>> {
    let token = |node: &tree::Node| match &node.value {
        tree::Value::Integer(number) => u32::try_from(*number).ok().map(Token::Id),
        _ => text(node).map(|text| Token::Text(text.to_owned())),
    };
    let all: Vec<Token> = list(node)?.iter().map(token).collect::<Option<_>>()?;
    (!all.is_empty()).then_some(all)
}

pub(super) fn rows_value(rows: &TokenRows) -> Value {
    let tokens = |tokens: &Vec<Token>| -> Value {
        let token = |token: &Token| match token {
            Token::Id(id) => json!(id),
            Token::Text(text) => json!(text),
        };
        tokens.iter().map(token).collect()
    };
    rows.iter().map(|(table, all)| (table.name().to_owned(), tokens(all))).collect()
}
