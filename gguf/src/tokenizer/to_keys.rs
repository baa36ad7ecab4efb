//! From a tokenizer.json to the keys of a GGUF file.

use serde_json::Value as Json;

use super::{PREFIX, Split, TokenKind, TokenizerProblem, padding};
use crate::value::{Array, Value};

/// Tokens with a meaning, where the model has them.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the field's names")]
pub struct Ids {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub eom: Option<u32>,
    pub pad: Option<u32>,
    /// Whether texts begin with the first of them.
    pub begins: bool,
}

/// The keys of the tokenizer that `file` is, for an embedding of `vocab_size` rows.
///
/// # Errors
/// It is no byte-level BPE, splits texts in a way that llama.cpp has no name for, or has more ids than there are rows.
pub fn keys(
    file: &Json,
    vocab_size: usize,
    ids: Ids,
) -> Result<Vec<(String, Value)>, TokenizerProblem> {
    let split = check(file)?;
    let (tokens, kinds) = tokens(file, vocab_size)?;
    let merges = merges(&file["model"]["merges"])?;
    let mut keys = vec![
        ("model", Value::text("gpt2")),
        ("pre", Value::text(split.name())),
        ("tokens", Value::Array(Array::of_texts(&tokens))),
        ("token_type", Value::Array(Array::of_i32(&kinds))),
        ("merges", Value::Array(Array::of_texts(&merges))),
    ];
    let named = [
        ("bos_token_id", ids.bos),
        ("eos_token_id", ids.eos),
        ("eot_token_id", ids.eot),
        ("eom_token_id", ids.eom),
        ("padding_token_id", ids.pad),
    ];
    keys.extend(named.into_iter().filter_map(|(key, id)| Some((key, Value::u32(id?)))));
    keys.push(("add_bos_token", Value::Bool(ids.begins)));
    keys.push(("add_space_prefix", Value::Bool(false)));
    Ok(keys.into_iter().map(|(key, value)| (format!("{PREFIX}{key}"), value)).collect())
}

fn wrong(key: &str, found: &Json, allowed: &str) -> TokenizerProblem {
    let text = found.to_string();
    let shown = match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    };
    TokenizerProblem::Wrong {
        key: format!("tokenizer.json: {key}"),
        found: shown,
        allowed: allowed.to_owned(),
    }
}

/// Refuses what the keys cannot say.
fn check(file: &Json) -> Result<Split, TokenizerProblem> {
    let model = &file["model"];
    if model["type"] != "BPE" {
        return Err(wrong(
            "model.type",
            &model["type"],
            "\"BPE\": others have no form in a GGUF file here",
        ));
    }
    let Some(split) = Split::of(&file["pre_tokenizer"]) else {
        return Err(TokenizerProblem::Split { found: file["pre_tokenizer"].to_string() });
    };
    for key in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        let is_nothing = model[key].is_null() || model[key] == "" || model[key] == 0.0;
        if !is_nothing {
            return Err(wrong(
                &format!("model.{key}"),
                &model[key],
                "null: a GGUF file does not say it",
            ));
        }
    }
    let normalizer = &file["normalizer"];
    let none = normalizer.is_null()
        || normalizer["type"] == "Sequence" && normalizer["normalizers"] == Json::Array(Vec::new());
    let as_split = match split.normalizer() {
        Json::Null => none,
        expected => *normalizer == expected,
    };
    if !as_split {
        let allowed = format!("{}, as of `{}`", split.normalizer(), split.name());
        return Err(wrong("normalizer", normalizer, &allowed));
    }
    if model["ignore_merges"] == true && !split.ignores_merges() {
        let allowed = format!("false, as of `{}`", split.name());
        return Err(wrong("model.ignore_merges", &model["ignore_merges"], &allowed));
    }
    Ok(split)
}

/// The tokens by their ids, and what each is.
fn tokens(file: &Json, vocab_size: usize) -> Result<(Vec<String>, Vec<i32>), TokenizerProblem> {
    let mut tokens: Vec<Option<String>> = vec![None; vocab_size];
    let mut kinds = vec![TokenKind::Unused as i32; vocab_size];
    let no_id = |found: &Json| wrong("an id", found, "a whole number");
    let mut put = |token: &str, id: &Json, kind: TokenKind| -> Result<(), TokenizerProblem> {
        let id = id.as_u64().ok_or_else(|| no_id(id))? as usize;
        let Some(place) = tokens.get_mut(id) else {
            return Err(TokenizerProblem::Vocabulary { highest: id, vocab_size });
        };
        if let Some(first) = place.replace(token.to_owned())
            && first != token
        {
            return Err(TokenizerProblem::TwoTokens { id, first, second: token.to_owned() });
        }
        kinds[id] = kind as i32;
        Ok(())
    };
    let vocab = file["model"]["vocab"].as_object();
    for (token, id) in vocab.ok_or_else(|| wrong("model.vocab", &Json::Null, "an object"))? {
        put(token, id, TokenKind::Normal)?;
    }
    for added in file["added_tokens"].as_array().into_iter().flatten() {
        let Some(token) = added["content"].as_str() else {
            return Err(wrong("added_tokens", added, "objects with `content`"));
        };
        let control = added["special"] == true || looks_special(token);
        let kind = if control { TokenKind::Control } else { TokenKind::UserDefined };
        put(token, &added["id"], kind)?;
    }
    let tokens = tokens.into_iter().enumerate();
    Ok((tokens.map(|(id, token)| token.unwrap_or_else(|| padding(id))).collect(), kinds))
}

/// `does_token_look_special` of the reference: some files mark control tokens as ordinary ones.
fn looks_special(token: &str) -> bool {
    let within = |front: &str, back: &str| token.starts_with(front) && token.ends_with(back);
    matches!(token, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || within("<|", "|>")
        || within("<｜", "｜>")
        || within("<unused", ">")
}

/// The merges, each as two tokens with a blank between.
fn merges(list: &Json) -> Result<Vec<String>, TokenizerProblem> {
    let list = list.as_array().ok_or_else(|| wrong("model.merges", list, "a list"))?;
    let one = |merge: &Json| match merge {
        Json::String(line) => Some(line.clone()),
        Json::Array(pair) => match pair.as_slice() {
            [Json::String(left), Json::String(right)] => Some(format!("{left} {right}")),
            _ => None,
        },
        _ => None,
    };
    let is_version =
        |merge: &&Json| !merge.as_str().is_some_and(|line| line.starts_with("#version"));
    list.iter()
        .filter(is_version)
        .map(|merge| {
            let two = one(merge).filter(|line| line.split(' ').count() == 2);
            two.ok_or_else(|| wrong("model.merges", merge, "pairs of tokens without blanks"))
        })
        .collect()
}
