//! Which tokens begin and end texts, and at which an answer ends: what the files beside the tokenizer
//! say of it, as transformers reads them.
//!
//! In this order: tokenizer_config.json and special_tokens_map.json by name, then config.json and
//! generation_config.json by id. What stands around a text is what the tokenizer's post-processor puts
//! there, unless `add_bos_token` or `add_eos_token` says otherwise.

use serde_json::Value as Json;

use super::{Frame, Tokenizer};
use crate::error::Error;
use crate::jinja::{ModelTemplate, NamedFile};

/// What a model folder says about the tokens of its tokenizer.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<NamedFile<'a>>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<NamedFile<'a>>,
    /// `generation_config.json`.
    pub generation_config: Option<NamedFile<'a>>,
    /// `bos_token_id` of config.json.
    pub bos_token_id: Option<u32>,
    /// `eos_token_id` of config.json: each ends an answer.
    pub eos_token_ids: &'a [u32],
}

impl Tokenizer {
    /// With what the files beside it say about its tokens.
    ///
    /// # Errors
    /// A file is not JSON, or names a first or last token that the tokenizer lacks.
    pub fn with_files(mut self, files: TokenizerFiles<'_>) -> Result<Self, Error> {
        let TokenizerFiles {
            tokenizer_config,
            special_tokens_map,
            generation_config,
            bos_token_id,
            eos_token_ids,
        } = files;
        let config = Read::of(tokenizer_config)?;
        let map = Read::of(special_tokens_map)?;
        let generation = Read::of(generation_config)?;
        let generated = ids(&generation.json["eos_token_id"]);
        // A file that says null says that there is none.
        let named = |key: &str| match config.json.get(key) {
            Some(Json::Null) => Ok(Named::None),
            Some(_) => config.token(key, &self),
            None => map.token(key, &self),
        };
        let known = |id: &u32| self.token(*id).is_some();
        let bos = match named("bos_token")? {
            Named::Token(id) => Some(id),
            Named::None => None,
            Named::Unsaid => bos_token_id.filter(known).or(self.bos),
        };
        let first = generated.iter().chain(eos_token_ids).copied().find(known);
        let eos = match named("eos_token")? {
            Named::Token(id) => Some(id),
            Named::None => None,
            Named::Unsaid => first.or(self.eos),
        };
        let pad = match named("pad_token") {
            Ok(Named::Token(id)) => Some(id),
            // Rows are never padded with what is looked at, so another one does.
            _ => None,
        };
        let stops = eos.iter().chain(&generated).chain(eos_token_ids);
        let stops: Vec<u32> = stops.copied().collect();
        if self.llama3.is_err() {
            (self.bos, self.eos) = (bos, eos);
            self.pad = pad.or(eos).or(bos).unwrap_or(self.pad);
            self.frame = self.frame.with_end(eos);
        }
        let says = |key: &str| config.json.get(key).and_then(Json::as_bool);
        let (begins, ends) = (says("add_bos_token"), says("add_eos_token"));
        self.frame = self.frame.told(begins, ends, self.bos, self.eos);
        self.note_stops(&stops);
        Ok(self)
    }

    /// With what the model's own template makes of its tokens: the one that closes a turn ends an
    /// answer, and none of those that the template writes arises from a text of the data.
    #[must_use]
    pub fn with_template(mut self, template: &ModelTemplate) -> Self {
        self.protect(|token| template.writes(token));
        let closing = template.closing(&self);
        self.note_closing(closing);
        self.note_stops(&closing.into_iter().collect::<Vec<_>>());
        self
    }
}

/// A file, parsed.
struct Read<'a> {
    json: Json,
    origin: &'a str,
}

/// What a file says of a token.
enum Named {
    Token(u32),
    None,
    Unsaid,
}

impl<'a> Read<'a> {
    fn of(file: Option<NamedFile<'a>>) -> Result<Self, Error> {
        let Some(NamedFile { bytes, origin }) = file else {
            return Ok(Self { json: Json::Null, origin: "" });
        };
        let json = serde_json::from_slice(bytes).map_err(|error| Error::Tokenizer {
            origin: origin.to_owned(),
            message: format!("malformed JSON: {error}"),
        })?;
        Ok(Self { json, origin })
    }

    /// Written as a text, or as an object whose `content` is the text.
    fn token(&self, key: &str, tokenizer: &Tokenizer) -> Result<Named, Error> {
        let Some(value) = self.json.get(key) else { return Ok(Named::Unsaid) };
        let Some(text) = value.as_str().or_else(|| value.get("content")?.as_str()) else {
            return Ok(Named::None);
        };
        match tokenizer.id(text) {
            Some(id) => Ok(Named::Token(id)),
            None => Err(Error::Tokenizer {
                origin: self.origin.to_owned(),
                message: format!(
                    "`{key}` is `{}`, which `{}` does not have: they are not of one model",
                    text.chars().take(60).collect::<String>(),
                    tokenizer.origin()
                ),
            }),
        }
    }
}

/// A number or a list of them.
fn ids(value: &Json) -> Vec<u32> {
    let id = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Json::Array(list) => list.iter().filter_map(id).collect(),
        other => id(other).into_iter().collect(),
    }
}

impl Frame {
    /// Ends with the token that ends texts, unless the tokenizer puts something there itself.
    fn with_end(mut self, eos: Option<u32>) -> Self {
        if !self.own_back {
            self.back = eos.into_iter().collect();
        }
        self
    }

    /// As `add_bos_token` and `add_eos_token` say.
    fn told(
        mut self,
        begins: Option<bool>,
        ends: Option<bool>,
        bos: Option<u32>,
        eos: Option<u32>,
    ) -> Self {
        match (begins, bos) {
            (Some(false), Some(bos)) if self.front.first() == Some(&bos) => {
                self.front.remove(0);
            }
            (Some(true), Some(bos)) if self.front.first() != Some(&bos) => {
                self.front.insert(0, bos);
            }
            _ => {}
        }
        if let (Some(true), Some(eos)) = (ends, eos)
            && self.back.last() != Some(&eos)
        {
            self.back.push(eos);
        }
        self
    }
}
