//! From the keys of a GGUF file to a tokenizer.json.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::{Value as Json, json};

use super::{PREFIX, Split, TokenKind, TokenizerProblem, padding};
use crate::value::{Array, Value};

type Metadata = BTreeMap<String, Value>;

/// The tokens of a file and what each is.
#[derive(Debug)]
pub struct Vocabulary<'a> {
    /// By their ids.
    pub tokens: Vec<&'a str>,
    /// By their ids.
    pub kinds: Vec<TokenKind>,
}

fn wrong(key: &str, found: impl ToString, allowed: &str) -> TokenizerProblem {
    let (found, allowed) = (found.to_string(), allowed.to_owned());
    TokenizerProblem::Wrong { key: format!("{PREFIX}{key}"), found, allowed }
}

fn list<'a>(metadata: &'a Metadata, key: &str) -> Result<Option<&'a Array>, TokenizerProblem> {
    match metadata.get(&format!("{PREFIX}{key}")) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(other) => Err(wrong(key, other, "a list")),
    }
}

/// The tokens of a file.
///
/// # Errors
/// The keys are missing, or are not what they should be.
pub fn vocabulary(metadata: &Metadata) -> Result<Vocabulary<'_>, TokenizerProblem> {
    let list_of_texts = list(metadata, "tokens")?
        .and_then(Array::texts)
        .ok_or_else(|| wrong("tokens", "missing, or no list of texts", "the vocabulary"))?;
    let tokens: Vec<&str> = list_of_texts.collect();
    let kinds = match list(metadata, "token_type")? {
        None => {
            let allowed =
                "a list that says which tokens are control tokens: without it they would be text";
            return Err(wrong("token_type", "missing", allowed));
        }
        Some(list) if list.len() != tokens.len() => {
            let allowed = format!("as long as the list of {} tokens", tokens.len());
            return Err(wrong("token_type", format!("a list of {}", list.len()), &allowed));
        }
        Some(list) => {
            let not_whole = || wrong("token_type", "another list", "a list of whole numbers");
            list.numbers().ok_or_else(not_whole)?.map(kind).collect::<Result<_, _>>()?
        }
    };
    Ok(Vocabulary { tokens, kinds })
}

fn kind(number: i64) -> Result<TokenKind, TokenizerProblem> {
    Ok(match number {
        0 | 1 => TokenKind::Normal,
        2 => TokenKind::Unknown,
        3 => TokenKind::Control,
        4 => TokenKind::UserDefined,
        5 => TokenKind::Unused,
        6 => TokenKind::Byte,
        other => return Err(wrong("token_type", format!("{other} for a token"), "from 0 to 6")),
    })
}

/// The text of a tokenizer.json that means what the keys say.
///
/// # Errors
/// The keys are missing or are not what they should be; the tokenizer is no byte-level BPE, or splits texts in a way
/// that is not known.
pub fn tokenizer_json(metadata: &Metadata) -> Result<String, TokenizerProblem> {
    let text = |key: &str| metadata.get(&format!("{PREFIX}{key}")).and_then(Value::as_text);
    match text("model") {
        Some("gpt2") => {}
        found => {
            let found = found.map_or("missing".to_owned(), |name| format!("`{name}`"));
            return Err(wrong(
                "model",
                found,
                "`gpt2`, a byte-level BPE; take the model's own folder",
            ));
        }
    }
    let split = match text("pre") {
        Some(name) => Split::from_name(name).ok_or_else(|| {
            wrong("pre", format!("`{name}`"), &format!("one of {}", Split::names()))
        })?,
        None => return Err(wrong("pre", "missing", &format!("one of {}", Split::names()))),
    };
    let vocabulary = vocabulary(metadata)?;
    check_twice(&vocabulary.tokens)?;
    let merges: Vec<&str> = match list(metadata, "merges")? {
        None => return Err(wrong("merges", "missing", "the list of merges")),
        Some(list) => list
            .texts()
            .ok_or_else(|| wrong("merges", "another list", "a list of texts"))?
            .collect(),
    };
    let pairs: Vec<(&str, &str)> = merges
        .iter()
        .map(|merge| {
            let two = merge.split_once(' ').filter(|(left, right)| {
                !left.is_empty() && !right.is_empty() && !right.contains(' ')
            });
            two.ok_or_else(|| {
                wrong("merges", format!("{merge:?} for one"), "two tokens with a blank between")
            })
        })
        .collect::<Result<_, _>>()?;
    let file = TokenizerFile::new(metadata, split, &vocabulary, &pairs)?;
    Ok(serde_json::to_string(&file).expect("texts and numbers always serialise"))
}

fn check_twice(tokens: &[&str]) -> Result<(), TokenizerProblem> {
    let mut seen = BTreeSet::new();
    match tokens.iter().position(|token| !seen.insert(*token)) {
        None => Ok(()),
        Some(second) => {
            let token = tokens[second].to_owned();
            let first = tokens.iter().position(|other| *other == token).unwrap_or(second);
            Err(TokenizerProblem::TwoIds { token, first, second })
        }
    }
}

#[derive(Serialize)]
struct TokenizerFile<'a> {
    version: &'static str,
    truncation: Json,
    padding: Json,
    added_tokens: Vec<Json>,
    normalizer: Json,
    pre_tokenizer: Json,
    post_processor: Json,
    decoder: Json,
    model: Bpe<'a>,
}

#[derive(Serialize)]
struct Bpe<'a> {
    r#type: &'static str,
    dropout: Json,
    unk_token: Json,
    continuing_subword_prefix: Json,
    end_of_word_suffix: Json,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Tokens<'a>,
    merges: Pairs<'a>,
}

/// Tokens with their ids.
struct Tokens<'a>(Vec<(&'a str, usize)>);

impl Serialize for Tokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, id) in &self.0 {
            map.serialize_entry(token, id)?;
        }
        map.end()
    }
}

struct Pairs<'a>(&'a [(&'a str, &'a str)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for pair in self.0 {
            list.serialize_element(pair)?;
        }
        list.end()
    }
}

impl<'a> TokenizerFile<'a> {
    fn new(
        metadata: &Metadata,
        split: Split,
        vocabulary: &Vocabulary<'a>,
        merges: &'a [(&'a str, &'a str)],
    ) -> Result<Self, TokenizerProblem> {
        let Vocabulary { tokens, kinds } = vocabulary;
        let is_padding = |id: usize| kinds[id] == TokenKind::Unused && tokens[id] == padding(id);
        let is_added = |id: usize| matches!(kinds[id], TokenKind::Control | TokenKind::UserDefined);
        // Added tokens behind all others stand beside the vocabulary only, as in Llama 3's file.
        let last = (0..tokens.len()).rev().find(|&id| !is_added(id) && !is_padding(id));
        let inside = last.map_or(0, |last| last + 1);
        let vocab = (0..inside).filter(|&id| !is_padding(id)).map(|id| (tokens[id], id)).collect();
        let added = (0..tokens.len()).filter(|&id| is_added(id)).map(|id| {
            json!({
                "id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kinds[id] == TokenKind::Control,
            })
        });
        Ok(Self {
            version: "1.0",
            truncation: Json::Null,
            padding: Json::Null,
            added_tokens: added.collect(),
            normalizer: split.normalizer(),
            pre_tokenizer: split.pre_tokenizer(),
            post_processor: frame(metadata, split, tokens)?,
            decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
            model: Bpe {
                r#type: "BPE",
                dropout: Json::Null,
                unk_token: Json::Null,
                continuing_subword_prefix: Json::Null,
                end_of_word_suffix: Json::Null,
                fuse_unk: false,
                byte_fallback: false,
                ignore_merges: split.ignores_merges(),
                vocab: Tokens(vocab),
                merges: Pairs(merges),
            },
        })
    }
}

/// What stands around a text: the section `post_processor`.
fn frame(metadata: &Metadata, split: Split, tokens: &[&str]) -> Result<Json, TokenizerProblem> {
    let flag = |key: &str, default| {
        metadata.get(&format!("{PREFIX}{key}")).and_then(Value::as_bool).unwrap_or(default)
    };
    let token = |wanted: bool, key: &str| -> Result<Option<(usize, &str)>, TokenizerProblem> {
        let id = metadata.get(&format!("{PREFIX}{key}"));
        let Some(id) = id.filter(|_| wanted) else { return Ok(None) };
        let found = id.as_u64().and_then(|id| Some((id as usize, *tokens.get(id as usize)?)));
        let allowed = format!("an id of the {} tokens", tokens.len());
        found.map(Some).ok_or_else(|| wrong(key, id, &allowed))
    };
    let front = token(flag("add_bos_token", split == Split::Llama3), "bos_token_id")?;
    let back = token(flag("add_eos_token", false), "eos_token_id")?;
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    if front.is_none() && back.is_none() {
        return Ok(bytes);
    }
    let part =
        |(_, token): (usize, &str), of: u8| json!({"SpecialToken": {"id": token, "type_id": of}});
    let text = |id: &str, of: u8| -> Vec<Json> {
        let sequence = json!({"Sequence": {"id": id, "type_id": of}});
        let around = [front.map(|it| part(it, of)), Some(sequence), back.map(|it| part(it, of))];
        around.into_iter().flatten().collect()
    };
    let named = [front, back].into_iter().flatten().map(|(id, token)| {
        (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}))
    });
    let template = json!({
        "type": "TemplateProcessing",
        "single": text("A", 0),
        "pair": ([text("A", 0), text("B", 1)].concat()),
        "special_tokens": named.collect::<serde_json::Map<_, _>>(),
    });
    Ok(json!({"type": "Sequence", "processors": [bytes, template]}))
}
